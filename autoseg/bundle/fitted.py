"""fitted.json: what the post-processing of a fold has learned, beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.errors import AutosegError
from autoseg.files import read_model
from autoseg.plan import Plan, PostStep
from autoseg.plugins.parts import StepPart

FITTED = "fitted.json"
FINISH = "finish the training with autoseg_train ... --c"


class FittedStep(BaseModel):
    """What one step has learned.

    Attributes:
        learned: arguments of the step, to numbers.
        fit: from which cases, as the plan says.
        cases: their names.
    """

    model_config = ConfigDict(extra="forbid")

    learned: dict[str, float]
    fit: Literal["validation", "held_back", "train"]
    cases: list[str]


class FittedSteps(BaseModel):
    """fitted.json.

    Attributes:
        made_by: hash of the plan and the weights that the cases were predicted with.
        steps: by name.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    made_by: str
    steps: dict[str, FittedStep]


def learning_steps(plan: Plan) -> list[PostStep]:
    """The steps of a plan that learn after the last stage."""
    return [step for step in plan.recipe.postprocessing if step.fit != "none"]


def read_fitted(folder: Path, plan: Plan) -> dict[str, FittedStep]:
    """What the steps of a plan have learned in a fold; empty where none learns.

    Raises:
        AutosegError: it is missing, or lacks a step of the plan.
    """
    wanted = [step.name for step in learning_steps(plan)]
    if not wanted:
        return {}
    # a finished training is not continued
    again = "--overwrite" if (folder / "fold.json").exists() else "--c"
    found = read_model(folder / FITTED, FittedSteps, made_by=f"autoseg_train ... {again}").steps
    if missing := [name for name in wanted if name not in found]:
        raise AutosegError(
            "the post-processing has not learned all that the plan wants",
            where=str(folder / FITTED),
            found=", ".join(found) or "nothing",
            expected=", ".join(wanted),
            fix=f"run autoseg_train ... {again}, or use --set postprocessing.{missing[0]}=off",
        )
    return found


def with_learned(
    steps: Sequence[tuple[PostStep, StepPart]], folds: Sequence[Mapping[str, FittedStep]]
) -> list[PostStep]:
    """Steps with what they have learned as arguments; the numbers of several folds are combined as the row says."""
    resolved = []
    for step, row in steps:
        learns = step.fit != "none"  # another step of the same name may, in the plan that was trained
        found = [fold[step.name].learned for fold in folds if learns and step.name in fold]
        numbers = {key: row.combine([one[key] for one in found]) for key in found[0]} if found else {}
        resolved.append(step.model_copy(update={"arguments": {**step.arguments, **numbers}}))
    return resolved
