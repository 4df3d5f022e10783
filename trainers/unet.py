"""The general U-Nets with nnU-Net's recipe: every other part is one of autoseg's own, as the plan names it."""

from __future__ import annotations

from autoseg.networks.unet import NETWORKS
from autoseg.plugins.trainer import Trainer

TRAINER = Trainer(
    name="unet",
    summary="nnU-Net's U-Nets and training recipe, for any dataset",
    networks=NETWORKS,
)
