"""The general U-Nets with nnU-Net's recipe: every part is one of autoseg's own, as the plan names it."""

from __future__ import annotations

from autoseg.plugins.trainer import Trainer

TRAINER = Trainer(name="unet", summary="nnU-Net's U-Nets and training recipe, for any dataset")
