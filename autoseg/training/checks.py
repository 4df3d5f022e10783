"""What must hold before a training touches anything: a fold that may be trained, fresh data, a recipe that builds.

What can be found wrong here must not be found wrong after days, or after an earlier result was removed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from autoseg import plugins, postprocessing
from autoseg.dataset.folds import Fold, left_out
from autoseg.dataset.layout import load_raw
from autoseg.errors import AutosegError, nearest_names
from autoseg.files import hash_json, read_json
from autoseg.inference import fusion
from autoseg.inference.model import PREDICTING_NETWORK, read_plan, weight_file_name
from autoseg.plan import Plan, Stage
from autoseg.sampling import parameters, patches
from autoseg.sampling.lesion_pixels import no_lesion
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Checkpoint
from autoseg.training.job import FoldJob
from autoseg.training.trainer import Trainer

PREPARED = (
    "dataset",
    "fingerprint_hash",
    "channel_names",
    "labels",
    "regions_class_order",
    "preprocessing",
)
"""Parts of the plan that the store was made by."""


def check_job(job: FoldJob, fold: Fold) -> None:
    """Everything that can be known before the first iteration; nothing is written.

    Raises:
        AutosegError: the fold has a result and nobody said what to do with it; data that are missing or stale; a plan
            of which some part cannot be built; other folds of the model that follow another plan.
    """
    refuse_to_overwrite(job)
    _refuse_other_preparation(job)
    _refuse_stale(job, [*fold.train, *fold.validation])
    _refuse_missing_truth(job, fold)
    if job.resume:
        load_checkpoint(job, fold)
    if job.redo_from is not None:
        _refuse_redo(job, fold)
    _refuse_other_plan(job)
    _refuse_empty_parts(job.plan, fold)
    trainer = plugins.load(plugins.TRAINERS, job.plan.trainer)
    check_recipe(job.plan, trainer)
    _refuse_nothing_to_show(job, fold, trainer)


def refuse_to_overwrite(job: FoldJob) -> None:
    """A fold with a result or a checkpoint is only touched when the user says how."""
    finished = (job.folder / "fold.json").exists()
    begun = _checkpoint_path(job).exists()
    if job.resume and finished:
        raise AutosegError(
            f"fold {job.fold} is finished",
            where=str(job.folder),
            fix="predict with it, or train it again with --overwrite",
        )
    begun = begun or any(job.folder.glob("weights/*.safetensors"))
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
    if not finished and _checkpoint_path(job).exists():
        ways.insert(0, "--c continues it")
    last = job.plan.recipe.stages[-1].name
    needed = _last_weights(job, last)
    if needed and all(path.exists() for path in needed):
        ways.append(f"--redo_from {last} keeps the stages before it")
    return ways


def _refuse_other_preparation(job: FoldJob) -> None:
    """The store was made by the prepared plan; a training cannot change that part of it."""
    ours, theirs = (
        plan.model_dump(mode="json", include=set(PREPARED)) for plan in (job.plan, job.prepared.plan)
    )
    if ours != theirs:
        raise AutosegError(
            "the data are prepared already, and a training cannot change how",
            where=job.prepared.dataset,
            found=f"changed: {', '.join(differences(theirs, ours)[:6])}",
            fix=f"give these options to autoseg_plan_and_preprocess -d {job.prepared.dataset} -p NEW_NAME, "
            "then train with -p NEW_NAME",
        )


def _refuse_stale(job: FoldJob, names: Sequence[str]) -> None:
    """The store must hold these cases as the plan wants them."""
    from autoseg.preprocessing.run import stale_cases

    stale = stale_cases(job.prepared.store, job.prepared.fingerprint, job.plan, names)
    if stale:
        shown = "; ".join(f"{name}: {why}" for name, why in list(stale.items())[:5])
        raise AutosegError(
            f"{len(stale)} of {len(names)} preprocessed cases are missing or stale",
            where=job.prepared.dataset,
            found=shown,
            fix=f"run autoseg_plan_and_preprocess -d {job.prepared.dataset} -p {job.prepared.plan_name} --keep_plan; "
            "it redoes only what changed",
        )


def _refuse_missing_truth(job: FoldJob, fold: Fold) -> None:
    """The final validation predicts the raw images of these cases and scores them on the raw masks."""
    if not fold.validation:
        return
    missing = sorted(set(fold.validation) - {case.name for case in load_raw(job.raw).cases})
    if missing:
        raise AutosegError(
            "raw data of validation cases are missing",
            where=str(job.raw),
            found=f"no {', '.join(missing[:5])}",
            expected="images and masks of the cases that are scored after the training",
            fix="put them back, or name the folder of raw data with --raw",
        )


def _checkpoint_path(job: FoldJob) -> Path:
    return job.folder / "checkpoint" / "latest.safetensors"


def load_checkpoint(job: FoldJob, fold: Fold) -> Checkpoint:
    """The checkpoint of the fold, if it belongs to this plan and these cases.

    Raises:
        AutosegError: it is missing, damaged, or of another plan or other cases.
    """
    found = checkpoint.load(_checkpoint_path(job))
    plan_hash = hash_json(job.plan)
    if found.plan_hash != plan_hash:
        raise AutosegError(
            "the checkpoint was trained by another plan",
            where=str(job.folder),
            found=f"plan {found.plan_hash[:12]}",
            expected=f"plan {plan_hash[:12]}",
            fix="repeat the --set options that the training was started with, or start again with --overwrite",
        )
    if found.cases_hash != cases_hash(fold):
        raise _other_cases("the checkpoint was", job, fold)
    return found


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
    """The stages before ``job.redo_from``."""
    return job.plan.recipe.stages[: stage_index(job.plan, job.redo_from)]


def _last_weights(job: FoldJob, before: str) -> list[Path]:
    """Where all members keep the last weights of the stages before this one."""
    earlier = job.plan.recipe.stages[: stage_index(job.plan, before)]
    members = range(job.plan.recipe.members)
    return [job.folder / "weights" / weight_file_name(s.name, m) for m in members for s in earlier]


def _refuse_redo(job: FoldJob, fold: Fold) -> None:
    """Training again from a stage on needs what the stages before it left, made as the plan says now."""
    needed = _last_weights(job, job.redo_from)
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
    if _trained_on(job) not in (None, cases_hash(fold)):
        raise _other_cases(f"the stages before '{job.redo_from}' were", job, fold)


def _trained_on(job: FoldJob) -> str | None:
    """:func:`cases_hash` of the training that is there, if it left a record of its cases."""
    record = job.folder / "fold.json"
    if record.exists():
        return hash_json(read_json(record)["train_cases"])
    path = _checkpoint_path(job)
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


def _refuse_empty_parts(plan: Plan, fold: Fold) -> None:
    """A stage that leaves a part of the cases out needs some of both."""
    for stage in plan.recipe.stages:
        if stage.leave_out is not None and stage.leave_out[1] > len(fold.train):
            raise AutosegError(
                f"there are too few cases for stage '{stage.name}'",
                found=f"{len(fold.train)} training cases",
                expected=f"at least {stage.leave_out[1]}, one for each part of leave_out",
                fix="use fewer parts, or a plan whose stages leave nothing out",
            )


def _refuse_nothing_to_show(job: FoldJob, fold: Fold, trainer: Trainer) -> None:
    """A sampler that shows lesions alone needs some in the cases of its stage."""
    load = {case.name: case.lesions.volume_voxels for case in job.prepared.fingerprint.cases}
    for stage in job.plan.recipe.stages:
        if stage.sampling.name in trainer.sources:
            continue
        if not getattr(patches.build_sampler(stage.sampling), "needs_lesions", False):
            continue
        cases = set(fold.train) - set(left_out(fold.train, stage.leave_out))
        if not any(load[name] for name in cases):
            raise no_lesion(stage, len(cases))


def cases_hash(fold: Fold) -> str:
    """Of the names of the training cases."""
    return hash_json(list(fold.train))


def _refuse_other_plan(job: FoldJob) -> None:
    """All folds of a model share one plan."""
    others = _other_folds(job)
    if not others or not (job.model / "plan.json").exists():
        return
    changed = differences(*(plan.model_dump(mode="json") for plan in (read_plan(job.model), job.plan)))
    if changed:
        raise AutosegError(
            "the model's other folds were trained by another plan",
            where=str(job.model),
            found=f"folds {', '.join(others)}; different: {', '.join(changed[:6])}",
            expected="one plan for all folds",
            fix="give this variant a name of its own with -name, or train all folds again",
        )


def _other_folds(job: FoldJob) -> list[str]:
    return sorted(
        path.name.removeprefix("fold_")
        for path in job.model.glob("fold_*")
        if path != job.folder and ((path / "weights").exists() or (path / "checkpoint").exists())
    )


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted paths at which two plain structures differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(set(one) | set(other))
            for found in differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}.{i}")]
    return [] if one == other else [path]


def check_recipe(plan: Plan, trainer: Trainer) -> None:
    """Build every part of the recipe once: a mistyped name in the last stage would show only after days.

    Raises:
        AutosegError: a part that is not known or whose arguments do not fit.
    """
    networks: dict[str, nn.Module] = {}
    for stage in plan.recipe.stages:
        if stage.network not in networks:
            networks = {stage.network: _network(plan, trainer, stage)}  # one at a time: they may be large
        _check_stage(plan, trainer, stage, networks[stage.network])
    if plan.recipe.fusion.name not in trainer.fusions:
        fusion.REGISTRY.get(plan.recipe.fusion.name)
    postprocessing.check(plan.recipe, trainer.postprocessing, trainer.refinements)


def _network(plan: Plan, trainer: Trainer, stage: Stage) -> nn.Module:
    return trainer.build_network(plan.networks[stage.network], plan.in_channels, plan.label_set.n_outputs)


def _check_stage(plan: Plan, trainer: Trainer, stage: Stage, network: nn.Module) -> None:
    if stage.patience is not None and (
        stage.network != PREDICTING_NETWORK or not plan.recipe.validation.cases
    ):
        raise AutosegError(
            f"stage '{stage.name}' has patience, but no validation that could run out of it",
            found=f"network {stage.network}, validation.cases {plan.recipe.validation.cases}",
            expected=f"network {PREDICTING_NETWORK}, and validation cases",
            fix=f"--set stages.{stage.name}.patience=null",
        )
    trained = trained_parameters(network, stage)
    trainer.build_optimiser(stage.optimiser, trained)
    trainer.build_schedule(stage.schedule, stage.epochs)(0.0)
    trainer.build_loss(stage.loss, plan.label_set)
    if stage.sampling.name not in trainer.sources:
        patches.build_sampler(stage.sampling)
    elif (check := getattr(trainer.sources[stage.sampling.name], "check", None)) is not None:
        check(plan, stage)
    parameters.build(stage.augmentation, stage.patch_size or (1, 1, 1))


def trained_parameters(network: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """Freeze what the stage freezes; the parameters that are left to train.

    Raises:
        AutosegError: a pattern that fits no parameter, or nothing is left.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in stage.frozen:
        if not fnmatch.filter(names, pattern):
            raise AutosegError(
                f"stage '{stage.name}' freezes '{pattern}', which fits no parameter",
                found=f"parameters such as {', '.join(names[:3])}",
                fix=nearest_names(pattern, names),
            )
    trained = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.frozen)
        if parameter.requires_grad:
            trained.append(parameter)
    if not trained:
        raise AutosegError(
            f"stage '{stage.name}' freezes every parameter",
            found=f"frozen: {', '.join(stage.frozen)}",
            expected="something to train",
            fix="correct the stage's frozen patterns",
        )
    return trained
