"""Steps that work on a whole predicted case, in the order that the plan gives.

A step is a function ``step(case, **arguments) -> Segmentation``; it must not change its input. A trainer may also bring
refinements, which work on each member's logits (:data:`autoseg.training.trainer.Refinement`) and come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.errors import AutosegError
from autoseg.registry import Registry

if TYPE_CHECKING:
    from autoseg.plan import Named

__all__ = ["REGISTRY", "Segmentation", "Step", "apply", "check", "names", "replace"]


@dataclass(frozen=True)
class Segmentation:
    """A predicted case on its original grid.

    Attributes:
        mask: ``[z, y, x]`` uint8 label values.
        spacing_mm: z, y, x.
        probabilities: ``[k, z, y, x]`` float32, when a step asks for them or the user saves them.
        image: ``[c, z, y, x]`` raw intensities, when a step asks for them.
    """

    mask: np.ndarray
    spacing_mm: tuple[float, float, float]
    probabilities: np.ndarray | None = None
    image: np.ndarray | None = None


Step = Callable[..., Segmentation]
REGISTRY = Registry("post-processing step")


def names() -> list[str]:
    """All registered steps."""
    return REGISTRY.names()


def check(steps: Sequence[Named], own: Mapping[str, Step], refinements: Mapping[str, Any]) -> None:
    """Refuse steps that nobody has, and refinements that come after another step.

    Args:
        steps: of the plan.
        own: steps that the trainer brings.
        refinements: those it brings for the members' logits.

    Raises:
        AutosegError: an unknown step, or the wrong order.
    """
    for before, step in zip([None, *steps], steps, strict=False):
        if step.name in refinements:
            if before is not None and before.name not in refinements:
                raise AutosegError(
                    f"the post-processing step '{step.name}' comes too late",
                    found=f"it follows '{before.name}', which works on the fused mask",
                    expected="steps on the members' logits before all others",
                    fix="change the order in recipe.postprocessing",
                )
        elif step.name not in own:
            REGISTRY.get(step.name)


def apply(case: Segmentation, steps: Sequence[Named], own: Mapping[str, Step] | None = None) -> Segmentation:
    """Run the steps in order.

    Args:
        case: the prediction.
        steps: of the plan.
        own: steps that the trainer brings, by name; they go before the registered ones.

    Raises:
        AutosegError: an unknown step or arguments that do not fit.
    """
    for step in steps:
        arguments: dict[str, Any] = step.arguments
        if own and step.name in own:
            case = own[step.name](case, **arguments)
        else:
            case = REGISTRY.build(step.name, case, **arguments)
    return case


from autoseg.postprocessing import components as _components  # noqa: E402, F401  (registers its steps)
