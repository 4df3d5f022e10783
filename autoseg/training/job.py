"""What to train: one fold of one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.plan import Plan
from autoseg.preparation.prepared import Prepared


@dataclass(frozen=True)
class FoldJob:
    """What to train.

    Attributes:
        prepared: the dataset and its plan as prepared.
        plan: the plan to follow: the prepared one, perhaps with changes to its recipe.
        fold: 0 and up, or ``all``.
        model: folder of the model (``results/DATASET/TRAINER__PLAN``).
        raw: folder of the raw dataset, for the final validation.
        device: where to train.
        workers: processes that augment; 0 augments on the device.
        resume: continue from the checkpoint.
        overwrite: start again although there is a result.
        redo_from: name of the stage from which a trained fold is trained again; the stages before keep their weights.
        save_probabilities: those of the scored cases are kept beside their masks, ``CASE.npz``.
        command: as it was typed, for the record; empty from Python.
        variant: the plan that ``plan`` has changes to, where that is not the prepared one, see
            :mod:`autoseg.preparation.variant`.
    """

    prepared: Prepared
    plan: Plan
    fold: int | str
    model: Path
    raw: Path
    device: torch.device
    workers: int = 0
    resume: bool = False
    overwrite: bool = False
    redo_from: str | None = None
    save_probabilities: bool = False
    command: str = ""
    variant: Plan | None = None

    @property
    def planned(self) -> Plan:
        """The plan before what was set for the training."""
        return self.variant or self.prepared.plan

    @property
    def folder(self) -> Path:
        """Of this fold."""
        return self.model / f"fold_{self.fold}"
