"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

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
    return torch.optim.SGD(parameters, lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam; weight decay is added to the gradient (L2)."""
    return torch.optim.Adam(parameters, lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay)


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(parameters, lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay)


REGISTRY: Registry[OptimiserPart] = Registry(
    "optimiser",
    "optimisers",
    [
        OptimiserPart("sgd", sgd, "stochastic gradient descent"),
        OptimiserPart("adam", adam, "Adam"),
        OptimiserPart("adamw", adamw, "Adam with decoupled weight decay"),
    ],
)
