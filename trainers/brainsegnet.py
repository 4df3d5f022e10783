"""Brain SegNet: network and loss; the plan holds the rest of the recipe."""

from __future__ import annotations

from autoseg.networks import brainsegnet
from autoseg.plugins.trainer import Trainer
from autoseg.trainers._brainsegnet_losses import LOSSES

TRAINER = Trainer(
    name="brainsegnet",
    preset="brainsegnet",
    summary="Brain SegNet for perfusion stroke and multi-class tumours",
    networks=brainsegnet.NETWORKS,
    losses=LOSSES,
)
