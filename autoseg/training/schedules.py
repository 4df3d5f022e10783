"""Schedules by name: progress in epochs to settings of the optimiser.

A schedule returns a dict: ``lr_factor`` multiplies the optimiser's initial learning rate, every other key
(such as ``momentum``) replaces the setting of that name.
"""

from __future__ import annotations

import math

import torch

from autoseg.plugins.parts import Schedule, SchedulePart
from autoseg.plugins.registry import Registry


def apply(schedule: Schedule, progress: float, optimiser: torch.optim.Optimizer) -> None:
    """Set the optimiser as the schedule says for this progress (in epochs)."""
    settings = dict(schedule(progress))
    factor = settings.pop("lr_factor", 1.0)
    for group in optimiser.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        group.update(settings)


def constant(epochs: int) -> Schedule:
    """The learning rate stays."""
    return lambda progress: {"lr_factor": 1.0}


def poly(epochs: int, exponent: float = 0.9) -> Schedule:
    """``(1 - epoch / epochs) ** exponent``, stepped per epoch (nnU-Net, PolyLRScheduler)."""
    return lambda progress: {"lr_factor": (1 - min(math.floor(progress), epochs) / epochs) ** exponent}


def cosine(epochs: int, cycle_epochs: int | None = None) -> Schedule:
    """Half a cosine from 1 to 0 over each cycle, per iteration, with warm restarts (SGDR without growth)."""
    length = cycle_epochs or epochs
    return lambda progress: {"lr_factor": 0.5 * (1 + math.cos(math.pi * (progress % length) / length))}


REGISTRY: Registry[SchedulePart] = Registry(
    "schedule",
    "schedules",
    [
        SchedulePart("constant", constant, "the learning rate stays"),
        SchedulePart("poly", poly, "falls to 0 by a power of what is left, per epoch"),
        SchedulePart(
            "cosine", cosine, "half a cosine over each cycle, per iteration", in_epochs=("cycle_epochs",)
        ),
    ],
)
