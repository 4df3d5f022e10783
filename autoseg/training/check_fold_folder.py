"""The state of a fold's folder: a result that is there, a checkpoint, stages to keep, other folds of the model."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.bundle.layout import weight_file_name
from autoseg.bundle.opening import read_plan
from autoseg.dataset.folds import Fold
from autoseg.errors import AutosegError, nearest_names
from autoseg.files import hash_json, read_json
from autoseg.messages import count_of
from autoseg.plan import Plan, Stage, apply_overrides, hash_plan, is_hash_of
from autoseg.plan.identity import differences
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.job import FoldJob
from autoseg.training.stage_run import hash_cases

PREPARED = (
    "dataset",
    "fingerprint_hash",
    "channel_names",
    "labels",
    "regions_class_order",
    "preprocessing",
)
"""Parts of the plan that the store was made by."""


def refuse_to_overwrite(job: FoldJob) -> None:
    """A fold with a result or a checkpoint is only touched when the user says how."""
    finished = (job.folder / "fold.json").exists()
    if job.resume and finished:
        raise AutosegError(
            f"fold {job.fold} is finished",
            where=str(job.folder),
            fix="predict with it, or train it again with --overwrite",
        )
    there = any(job.folder.glob("weights/*.safetensors"))
    if job.resume and there and not checkpoint_path(job).exists():
        raise AutosegError(
            f"fold {job.fold} has weights but no checkpoint to continue from",
            where=str(job.folder),
            found="weights that were imported or copied, or whose checkpoint was deleted",
            fix=", ".join(_ways_to_go_on(job, finished)),
        )
    if job.resume and not checkpoint_path(job).exists():
        _refuse_if_a_variant_was_begun(job)
    begun = there or checkpoint.has_learned(checkpoint_path(job))
    if job.overwrite or job.resume or job.redo_from is not None or not (finished or begun):
        return
    raise AutosegError(
        f"fold {job.fold} has a result already"
        if finished
        else f"fold {job.fold} was begun and not finished",
        where=str(job.folder),
        expected="a fold without a result",
        fix=", ".join(_ways_to_go_on(job, finished)),
    )


def _ways_to_go_on(job: FoldJob, finished: bool) -> list[str]:
    """What a user can do about a fold that is there already."""
    ways = ["--overwrite trains it again" if finished else "--overwrite starts again"]
    if not finished and checkpoint_path(job).exists():
        ways.insert(0, "--c continues it")
    last = job.plan.recipe.stages[-1].name
    needed = last_weights(job, last)
    if needed and all(path.exists() for path in needed):
        ways.append(f"--redo_from {last} keeps the stages before it")
    return ways


def checkpoint_path(job: FoldJob) -> Path:
    """Where the fold keeps its checkpoint."""
    return job.folder / "checkpoint" / "latest.safetensors"


def _refuse_if_a_variant_was_begun(job: FoldJob) -> None:
    """``--c`` of a model that has nothing to continue, while the same with options was begun: these were forgotten.

    Raises:
        AutosegError: so it is.
    """
    folders = sorted(job.model.parent.glob(f"{glob.escape(job.model.name)}__*/{job.folder.name}"))
    begun = [
        folder.parent.name
        for folder in folders
        if not (folder / "fold.json").exists()
        and checkpoint.has_learned(folder / checkpoint_path(job).relative_to(job.folder))
    ]
    if begun:
        raise AutosegError(
            f"fold {job.fold} of {job.model.name} was not begun",
            found=f"begun and not finished: {', '.join(begun)}",
            fix="give the options that it was begun with as well (--set ...), or leave --c out to begin this one",
        )


def can_be_continued(job: FoldJob) -> bool:
    """Whether the fold was begun, is not finished, and has a checkpoint."""
    return checkpoint_path(job).exists() and not (job.folder / "fold.json").exists()


def is_finished(job: FoldJob) -> bool:
    """Whether the fold has a result of the job's plan.

    Raises:
        AutosegError: it has one of another plan.
    """
    path = job.folder / "fold.json"
    if not path.exists():
        return False
    if not is_hash_of(str(read_json(path).get("plan_hash")), job.plan):
        raise AutosegError(
            f"fold {job.fold} is finished, by another plan",
            where=str(job.folder),
            expected="the settings that it was trained with",
            fix="repeat its --set options, train it again with --overwrite, or give another -name",
        )
    return True


def load_checkpoint(job: FoldJob, fold: Fold) -> Checkpoint:
    """The checkpoint of the fold, if it belongs to this plan and these cases.

    Raises:
        AutosegError: it is missing, damaged, or of another plan or other cases.
    """
    found = checkpoint.load(checkpoint_path(job))
    if not is_hash_of(found.plan_hash, job.plan):
        raise _other_plan(found, job)
    if found.cases_hash != hash_cases(fold):
        raise _other_cases("the checkpoint was", job, fold)
    _refuse_other_position(job, found.position)
    return found


def settings_of_the_start(job: FoldJob) -> dict[str, Any]:
    """Changes to the prepared plan that a training to be continued was begun with and that the job does not name."""
    if not (job.resume and checkpoint_path(job).exists() and (job.model / "plan.json").exists()):
        return {}
    planned, given = job.planned.overrides, set_for_training(job)
    return {
        path: v for path, v in _added(read_plan(job.model).overrides, planned).items() if path not in given
    }


def as_begun(job: FoldJob) -> FoldJob:
    """The job with the settings that its training was begun with; those that it names itself stay."""
    settings = settings_of_the_start(job)
    if not settings:
        return job
    return replace(job, plan=apply_overrides(job.planned, {**settings, **set_for_training(job)}))


def set_for_training(job: FoldJob) -> dict[str, Any]:
    """What the user set when asking for the training, beyond what was set when planning."""
    return _added(job.plan.overrides, job.planned.overrides)


def _added(overrides: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    return {p: value for p, value in overrides.items() if p not in planned or planned[p] != value}


def _other_plan(begun: Checkpoint, job: FoldJob) -> AutosegError:
    """Which settings differ, where the model's plan.json is the plan of the checkpoint still."""
    plan = read_plan(job.model) if (job.model / "plan.json").exists() else None
    found, expected = f"plan {begun.plan_hash[:12]}", f"plan {hash_plan(job.plan)[:12]}"
    fix = "repeat the --set options that the training was started with, or start again with --overwrite"
    if plan is not None and is_hash_of(begun.plan_hash, plan):
        theirs, ours = (
            one.model_dump(mode="json", exclude={"reasons", "proposals"}) for one in (plan, job.plan)
        )
        changed = differences(theirs, ours)
        values = [path for path in changed if not path.startswith("overrides")]
        found, expected = (
            f"different: {', '.join((values or changed)[:6]) or 'the words of its reasons alone'}",
            "the plan that it was begun with",
        )
        fix = "leave --set out, as --c takes the settings again that the training was begun with; or start again "
        fix += "with --overwrite, also where the dataset was planned in another way since"
    return AutosegError(
        "the checkpoint was trained by another plan",
        where=str(job.folder),
        found=found,
        expected=expected,
        fix=fix,
    )


def _refuse_other_position(job: FoldJob, position: Position) -> None:
    """A place that the plan does not have, in a file that was changed."""
    recipe = job.plan.recipe
    epochs = [stage.epochs for stage in recipe.stages]
    if (
        position.member < recipe.members
        and position.stage < len(epochs)
        and position.epoch <= epochs[position.stage]
    ):
        return
    raise AutosegError(
        "the checkpoint is of a place that the plan does not have",
        where=str(job.folder),
        found=f"member {position.member}, stage {position.stage}, epoch {position.epoch}, counted from 0",
        expected=f"{count_of(recipe.members, 'member')} and {count_of(len(recipe.stages), 'stage')} as in plan.json",
        fix="start this fold again with --overwrite",
    )


def _other_cases(what: str, job: FoldJob, fold: Fold) -> AutosegError:
    return AutosegError(
        f"{what} trained on other cases than the fold has now",
        where=str(job.folder),
        expected=f"the {len(fold.train)} training cases of fold {job.fold} in {job.prepared.splits_path}",
        fix="put the splits.json of the start back, or start again with --overwrite",
    )


def stage_index(plan: Plan, name: str) -> int:
    """The place of a stage in the recipe.

    Raises:
        AutosegError: there is no stage of this name.
    """
    names = [stage.name for stage in plan.recipe.stages]
    if name not in names:
        raise AutosegError(
            f"the plan has no stage '{name}'",
            found=f"stages {', '.join(names)}",
            fix=nearest_names(name, names),
        )
    return names.index(name)


def earlier_stages(job: FoldJob) -> list[Stage]:
    """The stages before ``job.redo_from``; none where nothing is trained again."""
    return job.plan.recipe.stages[: stage_index(job.plan, job.redo_from)] if job.redo_from else []


def last_weights(job: FoldJob, before: str | None) -> list[Path]:
    """Where all members keep the last weights of the stages before this one."""
    earlier = job.plan.recipe.stages[: stage_index(job.plan, before)] if before else []
    members = range(job.plan.recipe.members)
    return [job.folder / "weights" / weight_file_name(s.name, m) for m in members for s in earlier]


def refuse_redo(job: FoldJob, fold: Fold) -> None:
    """Training again from a stage on needs what the stages before it left, made as the plan says now."""
    needed = last_weights(job, job.redo_from)
    if not needed:
        raise AutosegError(
            f"'{job.redo_from}' is the first stage: there is nothing to keep",
            expected=", ".join(stage.name for stage in job.plan.recipe.stages[1:])
            or "a plan with several stages",
            fix="start again with --overwrite",
        )
    missing = [path.name for path in needed if not path.exists()]
    if missing:
        raise AutosegError(
            f"the stages before '{job.redo_from}' are not all trained",
            where=str(job.folder),
            found=f"no {', '.join(missing[:3])}",
            fix="finish the training with --c, or start again with --overwrite",
        )
    _refuse_other_earlier_stages(job, fold)


def _refuse_other_earlier_stages(job: FoldJob, fold: Fold) -> None:
    """The stages that a redo keeps must be those that this job would train, on the same cases."""
    n = len(earlier_stages(job))
    changed = differences(_of_first_stages(read_plan(job.model), n), _of_first_stages(job.plan, n))
    if changed:
        raise AutosegError(
            f"the stages before '{job.redo_from}' were trained by another plan",
            where=str(job.model),
            found=f"different: {', '.join(changed[:6])}",
            expected="changes to this stage and later ones only",
            fix="start again with --overwrite, or under another -name",
        )
    if _trained_on(job) not in (None, hash_cases(fold)):
        raise _other_cases(f"the stages before '{job.redo_from}' were", job, fold)


def _trained_on(job: FoldJob) -> str | None:
    """:func:`autoseg.training.stage_run.hash_cases` of the training that is there, if it left a record of its cases."""
    record = job.folder / "fold.json"
    if record.exists():
        return hash_json(read_json(record)["train_cases"])
    path = checkpoint_path(job)
    return checkpoint.load(path).cases_hash if path.exists() else None


def _of_first_stages(plan: Plan, n: int) -> dict[str, Any]:
    """What the weights of the first n stages depend on."""
    content, recipe = plan.model_dump(mode="json"), plan.recipe.model_dump(mode="json")
    earlier = recipe["stages"][:n]
    measured = ("validation", "inference") if any(stage["patience"] for stage in earlier) else ()
    return {
        **{key: content[key] for key in (*PREPARED, "seed", "trainer")},
        **{key: recipe[key] for key in ("precision", *measured)},
        "stages": {stage["name"]: stage for stage in earlier},
        "networks": {stage["network"]: content["networks"][stage["network"]] for stage in earlier},
    }


def refuse_other_plan(job: FoldJob) -> None:
    """All folds of a model share one plan."""
    others = _other_folds(job)
    if not others or not (job.model / "plan.json").exists():
        return
    theirs, ours = (
        plan.model_dump(mode="json", exclude={"proposals"}) for plan in (read_plan(job.model), job.plan)
    )
    changed = differences(theirs, ours)
    if changed:
        raise AutosegError(
            "the model's other folds were trained by another plan",
            where=str(job.model),
            found=f"folds {', '.join(others)}; different: {', '.join(changed[:6])}",
            expected="one plan for all folds",
            fix="give this variant a name of its own with -name, or delete "
            + ", ".join(f"fold_{fold}" for fold in others),
        )


def _other_folds(job: FoldJob) -> list[str]:
    return sorted(
        path.name.removeprefix("fold_")
        for path in job.model.glob("fold_*")
        if path != job.folder and ((path / "weights").exists() or (path / "checkpoint").exists())
    )
