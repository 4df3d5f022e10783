"""One fold, from the prepared dataset to a scored model: members, stages, final validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autoseg import messages, plugins
from autoseg.dataset.folds import Fold, load_or_make_folds
from autoseg.errors import AutosegError
from autoseg.files import exclusive, hash_json, read_json, write_json
from autoseg.plan import Stage
from autoseg.sampling.loader import BatchSource
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Checkpoint
from autoseg.training.distributed import World, world
from autoseg.training.interrupt import StopRequest, stop_on_signals
from autoseg.training.job import FoldJob
from autoseg.training.journal import Journal
from autoseg.training.seeds import fold_number
from autoseg.training.stage import StageContext, train_stage
from autoseg.training.trainer import Trainer
from autoseg.training.validation import Validator, validate_fold


def train_fold(job: FoldJob) -> dict[str, Any]:
    """Train all members and stages of a fold and score it.

    Returns:
        The fold's record (fold.json): when, how long, on what, and the validation scores.

    Raises:
        AutosegError: a fold that has a result already, stale preprocessed data, a training that cannot go on.
        Interrupted: the user stopped it; ``resume`` continues exactly.
    """
    with world(job.device) as processes:
        if not processes.leads:
            return _train(job, processes)
        with exclusive(job.folder / ".lock", doing=f"training fold {job.fold}"):
            with messages.LogFile(job.folder / "train.log"):
                return _train(job, processes)


def _train(job: FoldJob, processes: World) -> dict[str, Any]:
    started = time.time()
    if processes.leads:
        _refuse_to_overwrite(job)
    processes.barrier()
    fold = split(job)
    _refuse_stale(job, [*fold.train, *fold.validation])
    resume = checkpoint.load(job.folder / "checkpoint" / "latest.safetensors") if job.resume else None
    plan_hash = hash_json(job.plan)
    if resume is not None and resume.plan_hash != plan_hash:
        raise AutosegError(
            "the checkpoint was trained by another plan",
            where=str(job.folder),
            found=f"plan {resume.plan_hash[:12]}",
            expected=f"plan {plan_hash[:12]}",
            fix="repeat the --set options that the training was started with, or start again with --overwrite",
        )
    if processes.leads:
        _write_model_files(job)
    with stop_on_signals() as stop:
        _train_members(job, fold, plan_hash, processes, stop, resume)
    return _finish(job, fold, started) if processes.leads else {}


def split(job: FoldJob) -> Fold:
    """The cases of the fold; ``all`` trains on every case and validates on some of the same.

    Raises:
        AutosegError: there is no such fold.
    """
    names = [case.name for case in job.prepared.fingerprint.cases]
    if job.fold == "all":
        return Fold(tuple(names), ())
    folds = load_or_make_folds(job.prepared.splits_path, names)
    if not folds or not 0 <= int(job.fold) < len(folds):
        raise AutosegError(
            f"there is no fold {job.fold}",
            where=job.prepared.dataset,
            found=f"{len(names)} cases, {len(folds)} folds",
            expected=f"a fold from 0 to {len(folds) - 1}, or all"
            if folds
            else "at least two cases for folds",
            fix="use the fold 'all', which trains on every case and has no honest validation",
        )
    return folds[int(job.fold)]


def _refuse_to_overwrite(job: FoldJob) -> None:
    """A fold with a result or a checkpoint is only touched when the user says how."""
    finished = (job.folder / "fold.json").exists()
    begun = (job.folder / "checkpoint" / "latest.safetensors").exists()
    if job.resume and finished:
        raise AutosegError(
            f"fold {job.fold} is finished",
            where=str(job.folder),
            fix="predict with it, or train it again with --overwrite",
        )
    if job.overwrite or job.resume or not (finished or begun):
        if job.overwrite:
            _remove_result(job.folder)
        return
    raise AutosegError(
        f"fold {job.fold} has a result already"
        if finished
        else f"fold {job.fold} was begun and not finished",
        where=str(job.folder),
        expected="a fold without a result",
        fix="--overwrite trains it again" if finished else "--c continues it, --overwrite starts again",
    )


def _remove_result(folder: Path) -> None:
    """Forget a fold's result; the log of messages stays."""
    import shutil

    for name in ("weights", "checkpoint", "validation", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("fold.json", "log.jsonl", "curves.png"):
        (folder / name).unlink(missing_ok=True)


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
            fix=f"run autoseg_plan_and_preprocess -d {job.prepared.dataset} again; it redoes only what changed",
        )


def _write_model_files(job: FoldJob) -> None:
    """plan.json and dataset.json of the model; all folds of a model share one plan."""
    path = job.model / "plan.json"
    if path.exists() and hash_json(read_json(path)) != hash_json(job.plan) and _other_folds(job):
        changed = _differences(read_json(path), job.plan.model_dump(mode="json"))
        raise AutosegError(
            "the model's other folds were trained by another plan",
            where=str(job.model),
            found=f"folds {', '.join(_other_folds(job))}; different: {', '.join(changed[:6])}",
            expected="one plan for all folds",
            fix="give this variant a name of its own with -name, or train all folds again",
        )
    write_json(path, job.plan)
    write_json(job.model / "dataset.json", job.prepared.info)
    write_json(job.model / "fingerprint.json", job.prepared.fingerprint)


def _other_folds(job: FoldJob) -> list[str]:
    return sorted(
        p.name.removeprefix("fold_")
        for p in job.model.glob("fold_*")
        if p != job.folder and (p / "weights").exists()
    )


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted paths at which two plain structures differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(set(one) | set(other))
            for found in _differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in _differences(a, b, f"{path}.{i}")]
    return [] if one == other else [path]


def _train_members(
    job: FoldJob, fold: Fold, plan_hash: str, processes: World, stop: StopRequest, resume: Checkpoint | None
) -> None:
    """All stages of all members, from the checkpoint's position on."""
    trainer: Trainer = plugins.load(plugins.TRAINERS, job.plan.trainer)
    journal = Journal(job.folder) if processes.leads else None
    first = resume.position if resume else None
    if processes.leads:
        if first:
            journal.forget_from(first.member, first.stage, first.epoch)
            messages.info(f"continuing at epoch {first.epoch + 1}, iteration {first.iteration + 1}")
        else:
            journal.forget_from(0, 0, 0)
    validate = Validator(job, fold)
    try:
        for member in range(job.plan.recipe.members):
            for index in range(len(job.plan.recipe.stages)):
                done_before = first is not None and (member, index) < (first.member, first.stage)
                if done_before:
                    continue
                here = first is not None and (member, index) == (first.member, first.stage)
                context = StageContext(
                    plan=job.plan,
                    plan_hash=plan_hash,
                    trainer=trainer,
                    member=member,
                    index=index,
                    seed_key=(job.plan.seed, fold_number(job.fold), member, index),
                    source=_source_maker(job, fold, processes),
                    validate=validate,
                    folder=job.folder,
                    journal=journal,
                    device=job.device,
                    world=processes,
                    stop=stop,
                    n_outputs=job.plan.label_set.n_outputs,
                )
                train_stage(context, resume if here else None)
    finally:
        if journal is not None:
            journal.close()


def _source_maker(
    job: FoldJob, fold: Fold, processes: World
) -> Callable[[Stage, tuple[int, ...]], BatchSource]:
    """Makes the batches of any stage from the fold's training cases."""
    labels = job.plan.label_set

    def make(stage: Stage, seed_key: tuple[int, ...]) -> BatchSource:
        return BatchSource(
            job.prepared.store,
            fold.train,
            stage,
            seed_key,
            job.device,
            workers=job.workers,
            rank=processes.rank,
            world_size=processes.size,
            inside_nonzero=[n.inside_nonzero for n in job.plan.preprocessing.normalisation],
            label_values=labels.values,
        )

    return make


def _finish(job: FoldJob, fold: Fold, started: float) -> dict[str, Any]:
    """Predict and score the validation cases, write fold.json and the model card."""
    from autoseg import bundle

    record: dict[str, Any] = {
        "fold": job.fold,
        "autoseg_version": version("autoseg"),
        "torch_version": torch.__version__,
        "device": _device_name(job.device),
        "seed": job.plan.seed,
        "plan_hash": hash_json(job.plan),
        "fingerprint_hash": job.prepared.fingerprint.content_hash,
        "train_cases": list(fold.train),
        "validation_cases": list(fold.validation),
    }
    if job.device.type == "cuda":
        record["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(job.device) / 1e9
    record["validation"] = validate_fold(job, fold) if fold.validation else None
    record["seconds"] = time.time() - started
    write_json(job.folder / "fold.json", record)
    bundle.write_model_card(job.model)
    return record


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
