"""Schedules by name: progress in epochs to settings of the optimiser.

A schedule returns a dict: ``lr_factor`` multiplies the optimiser's initial learning rate, every other key
(such as ``momentum``) replaces the setting of that name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from autoseg.registry import Registry

REGISTRY = Registry("schedule")
Schedule = Callable[[float], dict[str, float]]


def build(name: str, *, epochs: int, **arguments: Any) -> Schedule:
    """The schedule ``name`` for a stage of ``epochs``.

    Raises:
        AutosegError: an unknown name or arguments that do not fit.
    """
    return REGISTRY.build(name, epochs=epochs, **arguments)


def apply(schedule: Schedule, progress: float, optimiser: torch.optim.Optimizer) -> None:
    """Set the optimiser as the schedule says for this progress (in epochs)."""
    settings = dict(schedule(progress))
    factor = settings.pop("lr_factor", 1.0)
    for group in optimiser.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        group.update(settings)


@REGISTRY.register("constant")
def constant(epochs: int) -> Schedule:
    """The learning rate stays."""
    return lambda progress: {"lr_factor": 1.0}


@REGISTRY.register("poly")
def poly(epochs: int, exponent: float = 0.9) -> Schedule:
    """``(1 - epoch / epochs) ** exponent``, stepped per epoch (nnU-Net, PolyLRScheduler)."""
    return lambda progress: {"lr_factor": (1 - min(math.floor(progress), epochs) / epochs) ** exponent}


@REGISTRY.register("cosine")
def cosine(epochs: int, cycle_epochs: int | None = None) -> Schedule:
    """Half a cosine from 1 to 0 over each cycle, per iteration, with warm restarts (SGDR without growth)."""
    length = cycle_epochs or epochs
    return lambda progress: {"lr_factor": 0.5 * (1 + math.cos(math.pi * (progress % length) / length))}
