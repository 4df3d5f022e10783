"""Steps that work on a whole predicted case, in the order that the plan gives.

A step is a function ``step(case, **arguments) -> Segmentation``; it must not change its input. A trainer may also bring
refinements, which work on each member's logits (:data:`autoseg.plugins.trainer.Refinement`) and come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.errors import AutosegError
from autoseg.registry import Registry, refuse_misfits

if TYPE_CHECKING:
    from autoseg.plan import Named, Recipe

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


def check(recipe: Recipe, own: Mapping[str, Step], refinements: Mapping[str, Callable[..., Any]]) -> None:
    """Refuse steps that nobody has, arguments that they do not take, and refinements that could not work.

    Args:
        recipe: of the plan.
        own: steps that the trainer brings.
        refinements: those it brings for the members' logits, see :data:`autoseg.plugins.trainer.Refinement`.

    Raises:
        AutosegError: an unknown step, its arguments; a refinement after another step, or without its networks.
    """
    kept = {stage.network for stage in recipe.stages if stage.keep}
    for before, step in zip([None, *recipe.postprocessing], recipe.postprocessing, strict=False):
        what = f"the {REGISTRY.kind} '{step.name}'"
        if step.name not in refinements:
            refuse_misfits(what, own.get(step.name) or REGISTRY.get(step.name), None, **step.arguments)
            continue
        refine = refinements[step.name]
        refuse_misfits(what, refine, None, None, None, **step.arguments)
        if before is not None and before.name not in refinements:
            raise AutosegError(
                f"{what} comes too late",
                found=f"it follows '{before.name}', which works on the fused mask",
                expected="steps on the members' logits before all others",
                fix="change the order in recipe.postprocessing",
            )
        lacking = [key for key in getattr(refine, "needs", ()) if key not in kept]
        if lacking:
            raise AutosegError(
                f"{what} has no network to ask",
                found=f"no stage of network {', '.join(lacking)} is kept",
                fix=f"set keep of such a stage to true, or take the step out: postprocessing.{step.name}=off",
            )


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


from autoseg.postprocessing import small_components as _components  # noqa: E402, F401  (registers its steps)
