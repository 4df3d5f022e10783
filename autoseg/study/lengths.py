"""How long a family trains: from measured steps and a number of seconds to changes of its plan, said in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoseg.plan import Plan, Stage
from autoseg.study.study_json import Length, Measure

FEWEST_EPOCHS = 20
"""Schedules go by epochs: a training that is cut short has at least so many, of fewer iterations each."""
VALIDATIONS, CASES = 3, 2
"""During a training that is cut short, and cases in each."""
TRIED_EPOCHS, TRIED_ITERATIONS = 2, 3
"""Of each stage, to measure a step: the first epoch also sets up the network."""
SHORTEST_ITERATIONS = 3
"""Of each stage: fewer are no training at all."""


def has_whole_passes(stage: Stage) -> bool:
    """Whether an epoch is a pass that stays one; a pass over every lesion pixel is too long to be cut by epochs."""
    return stage.iterations_per_epoch is None and stage.sampling.name != "lesion_pixels"


def to_measure(plan: Plan) -> dict[str, Any]:
    """Changes to a plan that show in a minute how long a step takes, and that all stages work."""
    changes: dict[str, Any] = {"members": 1, "validation.every": TRIED_EPOCHS, "validation.cases": 1}
    for stage in plan.recipe.stages:
        changes |= _cut(stage, TRIED_EPOCHS, None if has_whole_passes(stage) else TRIED_ITERATIONS)
    return changes


def shorten(plan: Plan, measure: Measure, seconds: float, members: int | None = None) -> Length:
    """The plan in so many seconds of training: all stages by the same factor, their schedules with them.

    Args:
        plan: as published.
        measure: its steps.
        seconds: of training; never more than the plan asks for.
        members: None for those of the plan.
    """
    members = members or plan.recipe.members
    whole = members * sum(stage.epochs * stage.iterations * stage.seconds for stage in measure.stages)
    if whole <= seconds and members == plan.recipe.members:
        return Length(settings={}, seconds=whole, shortened=[])
    factor = min(1.0, seconds / whole)
    changes: dict[str, Any] = {} if members == plan.recipe.members else {"members": members}
    words = [f"members {plan.recipe.members} to {members}"] if changes else []
    expected, longest = 0.0, 1
    for stage, step in zip(plan.recipe.stages, measure.stages, strict=True):
        epochs, iterations = _split(stage, step.epochs * step.iterations * factor, step.iterations)
        kept = None if iterations == step.iterations else iterations
        if (epochs, iterations) != (stage.epochs, step.iterations):
            changes |= _cut(stage, epochs, kept)
            words.append(
                f"{stage.name}: {stage.epochs} epochs of {step.iterations} iterations to {epochs} of {iterations}"
            )
        expected += members * epochs * iterations * step.seconds
        longest = max(longest, epochs)
    changes |= _fewer_validations(plan, longest) if words else {}
    return Length(settings=changes, seconds=expected, shortened=words)


def shortest_seconds(measure: Measure) -> float:
    """Of a training with one member in which every stage makes a few steps."""
    return sum(SHORTEST_ITERATIONS * stage.seconds for stage in measure.stages)


def _split(stage: Stage, total: float, iterations: int) -> tuple[int, int]:
    """Epochs and iterations of each, so that there are about so many iterations in all."""
    epochs = min(stage.epochs, round(total / iterations))
    if has_whole_passes(stage) or epochs >= min(FEWEST_EPOCHS, stage.epochs):
        return max(1, epochs), iterations
    total = max(SHORTEST_ITERATIONS, round(total))
    epochs = min(FEWEST_EPOCHS, stage.epochs, total)
    return epochs, max(1, round(total / epochs))


def _cut(stage: Stage, epochs: int, iterations: int | None) -> dict[str, Any]:
    """What is shorter in a stage; what counts by epochs keeps its place in it."""
    share, path = epochs / stage.epochs, f"stages.{stage.name}"
    changes: dict[str, Any] = {f"{path}.epochs": epochs}
    if iterations is not None:
        changes[f"{path}.iterations_per_epoch"] = iterations
    if stage.snapshots:
        changes[f"{path}.snapshots"] = sorted({max(1, round(one * share)) for one in stage.snapshots})
    if stage.save_every is not None:
        changes[f"{path}.save_every"] = max(1, round(stage.save_every * share))
    if not isinstance(stage.keep, bool):
        changes[f"{path}.keep"] = True
    if stage.patience is not None:
        changes[f"{path}.patience"] = max(2, math.ceil(stage.patience * share))
    if (cycle := stage.schedule.arguments.get("cycle_epochs")) is not None:
        changes[f"{path}.schedule.arguments.cycle_epochs"] = max(1, round(cycle * share))
    return changes


def _fewer_validations(plan: Plan, longest: int) -> dict[str, Any]:
    """During the training alone: all cases are scored after it."""
    validation, tired = plan.recipe.validation, any(stage.patience for stage in plan.recipe.stages)
    every = validation.every if tired else max(validation.every, math.ceil(longest / VALIDATIONS))
    cases = CASES if validation.cases == "all" else min(validation.cases, CASES)
    return {"validation.every": every, "validation.cases": cases}


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Changes as they are typed after ``--set``."""
    import json

    return [f"{path}={json.dumps(value, separators=(',', ':'))}" for path, value in settings.items()]
