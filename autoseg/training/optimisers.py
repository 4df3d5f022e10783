"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from autoseg.device import fuses
from autoseg.plugins.parts import OptimiserPart
from autoseg.plugins.registry import Registry


def sgd(
    parameters: Iterable[nn.Parameter],
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent; weight decay is added to the gradient."""
    trained = list(parameters)
    options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return torch.optim.SGD(trained, lr, **options, fused=_fused(trained))


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam; weight decay is added to the gradient (L2)."""
    trained = list(parameters)
    options: dict[str, Any] = {"betas": (betas[0], betas[1]), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.Adam(trained, lr, **options, fused=_fused(trained))


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    trained = list(parameters)
    options: dict[str, Any] = {"betas": (betas[0], betas[1]), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.AdamW(trained, lr, **options, fused=_fused(trained))


def _fused(parameters: Sequence[nn.Parameter]) -> bool | None:
    """Whether one kernel updates many weights, as a card can; None leaves it to torch, and the numbers as they are."""
    return True if parameters and all(fuses(parameter.device) for parameter in parameters) else None


REGISTRY: Registry[OptimiserPart] = Registry(
    "optimiser",
    "optimisers",
    [
        OptimiserPart("sgd", sgd, "stochastic gradient descent"),
        OptimiserPart("adam", adam, "Adam"),
        OptimiserPart("adamw", adamw, "Adam with decoupled weight decay"),
    ],
)
