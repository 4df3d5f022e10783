"""3D-ResU-Net: network and loss; the plan holds the rest of the recipe."""

from __future__ import annotations

from autoseg.networks import resunet
from autoseg.plugins.trainer import Trainer
from autoseg.trainers._resunet_losses import LOSSES

TRAINER = Trainer(
    name="resunet",
    preset="resunet",
    summary="3D-ResU-Net for chronic stroke on T1",
    networks=resunet.NETWORKS,
    losses=LOSSES,
)
