"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from autoseg.registry import Registry

REGISTRY = Registry("optimiser")


def build(name: str, parameters: Iterable[nn.Parameter], **arguments: Any) -> torch.optim.Optimizer:
    """The optimiser ``name`` over these parameters.

    Raises:
        AutosegError: an unknown name or arguments that do not fit.
    """
    return REGISTRY.build(name, parameters, **arguments)


@REGISTRY.register("sgd")
def sgd(
    parameters: Iterable[nn.Parameter],
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent; weight decay is added to the gradient."""
    return torch.optim.SGD(parameters, lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


@REGISTRY.register("adam")
def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam; weight decay is added to the gradient (L2)."""
    return torch.optim.Adam(parameters, lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)


@REGISTRY.register("adamw")
def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(parameters, lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)
