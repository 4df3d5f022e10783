"""The optimiser and the schedule of the DeepMedic study (Perez Malla et al. 2019; software v0.6.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.plugins.parts import OptimiserPart, Schedule, SchedulePart


class RMSPropNesterov(torch.optim.Optimizer):
    """RMSProp with normalised Nesterov momentum. For each weight w with gradient g::

        a <- rho a + (1 - rho) g^2
        step = (1 - momentum) lr g / sqrt(a + eps)
        v <- momentum v - step
        w <- w + momentum v - step

    ``torch.optim.RMSprop`` adds eps outside the root, and its momentum is neither Nesterov's nor normalised.

    The penalties ``l1 sum |w| + l2 sum w^2`` (without a half) are of convolutions alone, not of biases, normalisations
    and slopes. They are added to the gradient: the loss that is shown is without them.

    Args:
        parameters: to train.
        lr, rho, eps, momentum: as above; a schedule changes lr and momentum.
        l1, l2: as above.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        rho: float = 0.9,
        eps: float = 1e-4,
        momentum: float = 0.6,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum, "l1": l1, "l2": l2}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step by the gradients that are there; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["square"], state["velocity"] = torch.zeros_like(weight), torch.zeros_like(weight)
        square, velocity = state["square"], state["velocity"]
        gradient = penalised(weight, group["l1"], group["l2"])
        square.mul_(group["rho"]).addcmul_(gradient, gradient, value=1 - group["rho"])
        step = gradient / (square + group["eps"]).sqrt_() * ((1 - momentum) * group["lr"])
        velocity.mul_(momentum).sub_(step)
        weight.add_(velocity, alpha=momentum).sub_(step)


def penalised(weight: torch.Tensor, l1: float, l2: float) -> torch.Tensor:
    """The gradient of a weight, with that of ``l1 |w| + l2 w^2`` where it is of a convolution (more than one axis)."""
    gradient = weight.grad if weight.grad is not None else torch.zeros_like(weight)
    if weight.ndim > 1 and (l1 or l2):
        return gradient + l1 * weight.sign() + 2 * l2 * weight
    return gradient


def exponential(
    epochs: int,
    end_factor: float = 0.1,
    constant_epochs: int = 1,
    momentum_from: float = 0.6,
    momentum_to: float = 0.9,
) -> Schedule:
    """Per epoch the rate falls by one factor and the momentum grows by one number, from the second epoch on.

    Both reach their ends only after the last epoch, as in the software. The study's text ends at a rate of 1e-4, the
    tenth of the first one; its models were trained with a factor of 1e-4.

    Args:
        epochs: of the stage.
        end_factor: last rate to first.
        constant_epochs: by so many epochs everything comes later; with 1 the first two are alike.
        momentum_from, momentum_to: of the optimiser.

    Raises:
        AutosegError: an end factor that is not above 0.
    """
    if not 0 < end_factor <= 1:
        raise AutosegError(
            "the arguments of the schedule 'exponential' do not fit",
            found=f"end_factor {end_factor:g}",
            expected="above 0, at most 1",
            fix="correct the arguments in the plan",
        )

    def settings(progress: float) -> dict[str, float]:
        length = max(epochs - constant_epochs, 1)
        share = min(max(math.floor(progress) - constant_epochs, 0) / length, 1.0)
        momentum = momentum_from + (momentum_to - momentum_from) * share
        return {"lr_factor": end_factor**share, "momentum": momentum}

    return settings


OPTIMISERS = (
    OptimiserPart("rmsprop_nesterov", RMSPropNesterov, "RMSProp with normalised Nesterov momentum"),
)
SCHEDULES = (
    SchedulePart("exponential", exponential, "the rate falls by one factor, the momentum grows, per epoch"),
)
