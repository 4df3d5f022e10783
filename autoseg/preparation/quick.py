"""A short plan for trying out, of any planner: ``--set planner.length=quick``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from autoseg.plan import QUICK, Plan, Reason, Stage, replan

EPOCHS, BATCHES = 30, 20
"""Of a stage at most: 600 batches, which a narrow network with small patches does in minutes on two CPU cores."""
VALIDATIONS, CASES, SAMPLES = 3, 2, 500
"""During the training, and cases in each, at most."""


class Common(BaseModel, extra="forbid"):
    """Options that every planner has, set by ``--set planner.NAME=VALUE``.

    Attributes:
        length: ``full``, as the method asks for, or ``quick``: a plan that trains in minutes on two CPU cores, to see
            that everything works. Its scores say nothing about the method.
    """

    length: Literal["full", "quick"] = "full"


def make_quick(plan: Plan) -> Plan:
    """Limit how long a plan trains, and name it as one for trying out.

    Args:
        plan: of a planner that was asked for a quick one; what is short already stays.
    """
    stages = plan.recipe.stages
    changes: dict[str, Any] = {}
    for index, stage in enumerate(stages):
        changes |= {f"stages.{index}.{name}": value for name, value in _limits(stage).items()}
    longest = max(min(stage.epochs, EPOCHS) for stage in stages)
    validation = plan.recipe.validation
    changes |= {
        "members": 1,
        "inference.mirror_axes": [],
        "validation.every": max(validation.every, longest // VALIDATIONS),
        "validation.samples": min(validation.samples, SAMPLES),
        "validation.cases": CASES if validation.cases == "all" else min(validation.cases, CASES),
    }
    short = replan(plan, changes, QUICK)
    said = Reason(
        what="length",
        value=QUICK,
        why="planner.length=quick: minutes on two CPU cores for a small dataset, at most "
        f"{EPOCHS} epochs of {BATCHES} batches in a stage, one member, few validations, no mirrored images in the "
        "prediction; its scores do not tell how good the method is, plan again without it for that",
    )
    options = {**short.planner_options, "length": "quick"}
    return short.model_copy(update={"planner_options": options, "reasons": [said, *short.reasons]})


def _limits(stage: Stage) -> dict[str, Any]:
    """What is shortened in a stage; snapshots keep their place in it."""
    epochs = min(stage.epochs, EPOCHS)
    kept = sorted({max(1, round(epoch * epochs / stage.epochs)) for epoch in stage.snapshots})
    batches = stage.iterations_per_epoch and min(stage.iterations_per_epoch, BATCHES)  # None is a whole pass
    saved = (
        {} if stage.save_every is None else {"save_every": max(1, stage.save_every * epochs // stage.epochs)}
    )
    return {"epochs": epochs, "iterations_per_epoch": batches, "snapshots": kept, **saved}
