"""Which model a stage starts from, where the plan names one by options of its planner; torch is not needed to find it.

Such a model is a variant of the same prepared plan (:mod:`autoseg.preparation.variant`), or one of a plan of its own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg import messages
from autoseg.bundle.opening import in_training, read_plan
from autoseg.errors import AutosegError
from autoseg.messages import some_of
from autoseg.plan import ModelStart, Plan, apply_overrides
from autoseg.plan.identity import differences
from autoseg.preparation.variant import make_variant, own_options, typed_options, variant_name
from autoseg.training.check_fold_folder import can_be_continued, set_for_training
from autoseg.training.job import FoldJob
from autoseg.training.journal import final_dice

NOT_OF_THE_START = ("start", "frozen", "sampling.weights")
"""Fields of a stage that a user sets for the training at hand alone, not for what it starts from."""
RECORDS = {"reasons", "overrides", "planner_options", "alternatives"}


def start_fold(job: FoldJob, start: ModelStart) -> int | str:
    """The fold of the other model."""
    return job.fold if start.fold == "same" else start.fold


def find_start(job: FoldJob, start: ModelStart) -> Path | None:
    """The model that a plan means by options of its planner, with the fold trained; None where there is none.

    Raises:
        AutosegError: several models fit.
    """
    found = _found(job, start)
    return _best(job, start, found) if found else None


def _found(job: FoldJob, start: ModelStart) -> list[Path]:
    """All models that the start may mean, in its order."""
    return [path for entry in start.options if (path := _one(job, start, entry)) is not None]


def job_of_start(job: FoldJob, start: ModelStart) -> FoldJob:
    """The training of the model that is missing: the last one that the start names, for the same prepared data.

    What was set for the training at hand holds for it too, but for what it starts from and what is frozen.
    """
    variant = _variant(job, start, start.options[-1])
    model = job.model.parent / _name(job, start, variant, start.options[-1])
    variant = with_reasons_there(variant, model)
    made = replace(
        job,
        variant=variant,
        plan=_with_settings(job, variant),
        fold=start_fold(job, start),
        model=model,
        resume=False,
        overwrite=False,
        redo_from=None,
    )
    return replace(made, resume=can_be_continued(made))


def with_reasons_there(variant: Plan, model: Path) -> Plan:
    """A variant with the reasons that the plan of its model has already.

    A variant is made anew for each training. Where a later autoseg gives a reason in other words, it is no other plan.
    """
    if not (model / "plan.json").is_file():
        return variant
    there = read_plan(model)
    same = (there.planner, there.planner_options) == (variant.planner, variant.planner_options)
    return variant.model_copy(update={"reasons": there.reasons}) if same else variant


def command_of_start(job: FoldJob, start: ModelStart, folder: Path | None, fold: int) -> str:
    """What a user types to train another fold of what a stage starts from.

    Args:
        job: the run.
        start: of the stage.
        folder: of the model, where it is there; None otherwise.
        fold: to train.
    """
    words = [f"autoseg_train {job.prepared.dataset} {fold}"]
    if not start.options:
        return f"{words[0]} -name {start.model} ..."
    made = job_of_start(job, start)
    told = [f"planner.{name}={_typed(value)}" for name, value in _set_options(job, made).items()]
    told += [f"{path}={_typed(value)}" for path, value in set_for_training(made).items() if path != "trainer"]
    words += [f"-p {job.prepared.plan_name}"]
    words += [f"-tr {made.plan.trainer}"] if made.plan.trainer != made.planned.trainer else []
    words += [f"-name {folder.name}"] if folder is not None and folder != made.model else []
    return " ".join([*words, *(["--set", *told] if told else [])])


def _set_options(job: FoldJob, made: FoldJob) -> dict[str, Any]:
    """Options in which a variant differs from the prepared plan."""
    before = own_options(job.prepared.plan)
    return {name: value for name, value in own_options(made.planned).items() if before.get(name) != value}


def _typed(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def say_choice(job: FoldJob, start: ModelStart, folder: Path) -> None:
    """Say why this model of several, and warn of one that was trained with other settings than it would be now."""
    found = _found(job, start)
    if len(found) > 1:
        scores = _scores(job, start, found)
        told = ", ".join(f"{path.name} {scores[path]:.3f}" if path in scores else path.name for path in found)
        messages.info(
            f"Dice of the validation cases of fold {start_fold(job, start)}: {told}; {folder.name} is the start"
        )
    there = read_plan(folder)
    entry = next(entry for entry in start.options if _has(there, job.plan, entry))
    expected = _with_settings(job, _variant(job, start, entry))
    ours, theirs = (plan.model_dump(mode="json", exclude=RECORDS) for plan in (expected, there))
    if changed := differences(theirs, ours):
        messages.warn(
            f"{folder.name}, which this training starts from, was trained with other settings than it would be "
            f"trained with now: {some_of(changed, 4)}"
        )


def _with_settings(job: FoldJob, variant: Plan) -> Plan:
    """A variant with what was set for the training at hand and is not of that alone."""
    kept = {path: value for path, value in set_for_training(job).items() if not _is_own(path)}
    return apply_overrides(variant, kept) if kept else variant


def _is_own(path: str) -> bool:
    return any(f".{part}." in f".{path}." for part in NOT_OF_THE_START)


def _options(job: FoldJob, start: ModelStart, entry: dict[str, Any]) -> dict[str, Any]:
    """Those of the training at hand, but for what the start's last entry says otherwise, and those of an entry."""
    shared = own_options(job.planned).items()
    return {**{name: value for name, value in shared if name not in start.options[-1]}, **entry}


def _variant(job: FoldJob, start: ModelStart, entry: dict[str, Any]) -> Plan:
    return make_variant(job.prepared, _options(job, start, entry))


def _name(job: FoldJob, start: ModelStart, variant: Plan, entry: dict[str, Any]) -> str:
    """The usual name of a model of a variant."""
    options = typed_options(variant, _options(job, start, entry))
    told = variant_name(job.prepared.plan, options)
    return "__".join(filter(None, [variant.trainer, job.prepared.plan_name, told]))


def _one(job: FoldJob, start: ModelStart, entry: dict[str, Any]) -> Path | None:
    """The model with these options."""
    fold = f"fold_{start_fold(job, start)}"
    found = [path for path in _models(job) if _has(read_plan(path), job.plan, entry)]
    found = [path for path in found if any((path / fold / "weights").glob("*.safetensors"))]
    found = [path for path in found if not in_training(path / fold)]
    if len(found) < 2:
        return next(iter(found), None)
    usual = job.model.parent / _name(job, start, _variant(job, start, entry), entry)
    if usual in found:
        return usual
    raise AutosegError(
        f"several models could be what stage '{job.plan.recipe.stages[0].name}' starts from",
        where=str(job.model.parent),
        found=", ".join(path.name for path in found),
        expected=f"one with {start.words}",
        fix=f'name it: --set \'start={{"model": "{found[0].name}"}}\'',
    )


def _models(job: FoldJob) -> Iterable[Path]:
    """All other models of the dataset."""
    return sorted(path.parent for path in job.model.parent.glob("*/plan.json") if path.parent != job.model)


def _has(plan: Plan, ours: Plan, entry: dict[str, Any]) -> bool:
    """Whether the same planner made a plan with these options."""
    return plan.planner == ours.planner and typed_options(plan, entry) == entry


def _best(job: FoldJob, start: ModelStart, found: list[Path]) -> Path:
    """The model with the best Dice of the validation cases when its training ended; of equal ones the last."""
    scores = _scores(job, start, found)
    return max(reversed(found), key=lambda path: scores.get(path, -1.0))


def _scores(job: FoldJob, start: ModelStart, found: list[Path]) -> dict[Path, float]:
    fold = f"fold_{start_fold(job, start)}"
    scores = {path: final_dice(path / fold) for path in found}
    return {path: score for path, score in scores.items() if score is not None}
