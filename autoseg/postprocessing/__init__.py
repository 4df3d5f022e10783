"""Steps that work on a predicted case, in the order that the plan gives: on each member's logits, then on the mask.

What a step is stands in :class:`autoseg.plugins.parts.StepPart`. Steps on the logits come from families alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoseg.errors import AutosegError
from autoseg.plan import PostStep, Recipe
from autoseg.plugins.parts import Segmentation, StepPart
from autoseg.plugins.registry import Registry, refuse_misfits
from autoseg.plugins.trainer import Trainer
from autoseg.postprocessing import closing, dense_crf, operating_points, small_components, threshold

REGISTRY: Registry[StepPart] = Registry(
    "post-processing step",
    "steps",
    [*small_components.STEPS, *closing.STEPS, *threshold.STEPS, *operating_points.STEPS, *dense_crf.STEPS],
)


def rows(steps: Sequence[PostStep], trainer: Trainer | None = None) -> list[tuple[PostStep, StepPart]]:
    """Each step of the plan with its row, the trainer's own before autoseg's.

    Raises:
        AutosegError: an unknown step.
    """
    return [(step, REGISTRY.get(step.name, trainer)) for step in steps]


def check(recipe: Recipe, trainer: Trainer | None = None) -> None:
    """Refuse steps that nobody has, arguments that they do not take, and steps that could not work where they stand.

    Raises:
        AutosegError: an unknown step, its arguments; a step on the logits after one on the mask, or without its
            networks; one that is to learn and cannot.
    """
    kept = {stage.network for stage in recipe.stages if stage.keep}
    before: tuple[PostStep, StepPart] | None = None
    for step, row in rows(recipe.postprocessing, trainer):
        what = f"the {REGISTRY.kind} '{step.name}'"
        given = (None, None, None) if row.on == "logits" else (None,)
        refuse_misfits(what, row.run, *given, **step.arguments)
        if before is not None and row.on == "logits" and before[1].on == "mask":
            raise AutosegError(
                f"{what} comes too late",
                found=f"it follows '{before[0].name}', which works on the fused mask",
                expected="steps on the members' logits before all others",
                fix="change the order in recipe.postprocessing",
            )
        lacking = [key for key in row.networks if key not in kept]
        if lacking:
            raise AutosegError(
                f"{what} has no network to ask",
                found=f"no stage of network {', '.join(lacking)} is kept",
                fix=f"set keep of such a stage to true, or take the step out: postprocessing.{step.name}=off",
            )
        if step.fit != "none":
            _refuse_unfit(what, step, row, recipe)
        before = step, row


def _refuse_unfit(what: str, step: PostStep, row: StepPart, recipe: Recipe) -> None:
    """A step that is to learn must be able to, on the mask, from cases that are there."""
    if row.fit is None:
        raise AutosegError(
            f"{what} has nothing to learn",
            found=f"fit: {step.fit}",
            fix=f"--set postprocessing.{step.name}.fit=none",
        )
    if step.fit == "held_back" and not any(stage.leave_out for stage in recipe.stages):
        raise AutosegError(
            f"{what} is to learn from cases that are held back, and no stage holds any back",
            found="fit: held_back",
            expected="a stage with leave_out",
            fix=f"--set postprocessing.{step.name}.fit=validation",
        )
    refuse_misfits(f"the learning of {what}", row.fit, None, None, **step.arguments)


def apply(case: Segmentation, steps: Sequence[PostStep], trainer: Trainer | None = None) -> Segmentation:
    """Run steps on the mask in order.

    Args:
        case: the prediction.
        steps: of the plan.
        trainer: whose own steps go before autoseg's.

    Raises:
        AutosegError: an unknown step or arguments that do not fit.
    """
    for step, row in rows(steps, trainer):
        refuse_misfits(f"the {REGISTRY.kind} '{step.name}'", row.run, case, **step.arguments)
        case = _trimmed(row.run(case, **step.arguments), case.inside)
    return case


def _trimmed(case: Segmentation, inside: np.ndarray | None) -> Segmentation:
    """No step grows a lesion beyond what counts."""
    if inside is None:
        return case
    return replace(case, mask=np.where(inside, case.mask, 0).astype(np.uint8), inside=inside)
