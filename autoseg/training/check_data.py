"""The data of a training: prepared as the plan says, fresh, with something to learn from in every stage."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg import messages
from autoseg.dataset.folds import Fold, held_back
from autoseg.dataset.raw_layout import RawDataset, load_raw
from autoseg.errors import AutosegError, StaleError
from autoseg.messages import count_of, some_of
from autoseg.plan import Plan
from autoseg.plan.identity import differences
from autoseg.plugins.trainer import Trainer
from autoseg.preparation.raw_files import changed_cases
from autoseg.sampling import samplers
from autoseg.sampling.lesion_pixels import no_lesion
from autoseg.training.check_fold_folder import PREPARED
from autoseg.training.job import FoldJob
from autoseg.training.sources import source_part


def refuse_other_preparation(job: FoldJob) -> None:
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


def refuse_stale(job: FoldJob, names: Sequence[str], raw: RawDataset | None = None) -> None:
    """The store must hold these cases as the plan and the files of its mask want them."""
    from autoseg.preprocessing.fill_store import stale_cases

    stale = stale_cases(job.prepared.store, job.prepared.fingerprint, job.plan, names, raw)
    if stale:
        shown = "; ".join(f"{name}: {why}" for name, why in list(stale.items())[:5])
        raise AutosegError(
            f"{len(stale)} of {count_of(len(names), 'preprocessed case')} missing or stale",
            where=job.prepared.dataset,
            found=shown,
            fix=f"run autoseg_plan_and_preprocess -d {job.prepared.dataset} -p {job.prepared.plan_name} --keep_plan; "
            "it redoes only what changed",
        )


def refuse_missing_truth(job: FoldJob, fold: Fold) -> None:
    """The final validation predicts the raw images of these cases and scores them on the raw masks."""
    needed = {*fold.validation, *fold.test}
    if not needed:
        return
    missing = sorted(needed - {case.name for case in load_raw(job.raw).cases})
    if missing:
        raise AutosegError(
            "raw data of validation cases are missing",
            where=str(job.raw),
            found=f"no {', '.join(missing[:5])}",
            expected="images and masks of the cases that are scored after the training",
            fix="put them back, or name the folder of raw data with --raw",
        )


def refuse_changed_raw(job: FoldJob, names: Sequence[str]) -> None:
    """A store of earlier raw files is stale. Where the raw data lie on another machine, nobody can tell."""
    if not job.raw.is_dir():
        return
    try:
        raw = load_raw(job.raw)
    except AutosegError as error:
        messages.warn(f"the raw data are not compared with the prepared ones: {error.fault.problem}")
        return
    refuse_stale(job, names, raw)
    changed = changed_cases(raw, job.prepared.fingerprint, job.prepared.folder, names)
    prepared = job.prepared.info
    if (raw.info.labels, raw.info.channel_names) != (prepared.labels, prepared.channel_names):
        changed.insert(0, "dataset.json")
    if changed:
        raise StaleError(
            "raw data have changed since they were prepared",
            where=str(job.raw),
            found=some_of(changed),
            expected="the files that the dataset was prepared from",
            fix=f"run autoseg_plan_and_preprocess -d {job.prepared.dataset} -p {job.prepared.plan_name} --keep_plan; "
            "it redoes only what changed. Or put the earlier files back, to continue a training of them",
        )


def refuse_empty_parts(plan: Plan, fold: Fold) -> None:
    """A stage that leaves a part of the cases out needs some of both."""
    for stage in plan.recipe.stages:
        skipped = stage.leave_out_in == "two_part_folds" and fold.test
        if stage.leave_out is not None and not skipped and stage.leave_out[1] > len(fold.train):
            raise AutosegError(
                f"there are too few cases for stage '{stage.name}'",
                found=count_of(len(fold.train), "training case"),
                expected=f"at least {stage.leave_out[1]}, one for each part of leave_out",
                fix="use fewer parts, or a plan whose stages leave nothing out",
            )


def refuse_nothing_to_show(job: FoldJob, fold: Fold, trainer: Trainer) -> None:
    """A sampler that shows lesions alone needs some in the cases of its stage; without any lesion others are warned."""
    load = {case.name: case.lesions.volume_voxels for case in job.prepared.fingerprint.cases}
    for stage in job.plan.recipe.stages:
        if source_part(stage.sampling.name, trainer) is not None:
            continue
        if not samplers.check(stage.sampling, trainer).needs_lesions:
            continue
        cases = set(fold.train) - set(held_back(fold, stage))
        if not any(load[name] for name in cases):
            raise no_lesion(stage, len(cases))
    if not any(load[name] for name in fold.train):
        messages.warn(
            f"none of {count_of(len(fold.train), 'training case')} has a lesion: what is trained can only learn that "
            "there is none; check the masks and splits.json"
        )
