"""One fold, from the prepared dataset to a scored model: members, stages, final validation."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autoseg import messages, plugins
from autoseg.bundle import weights
from autoseg.bundle.fitted import FITTED
from autoseg.bundle.layout import NORMALISATION, weight_file_name
from autoseg.dataset.folds import Fold, load_or_make_folds
from autoseg.dataset.subjects import GROUPS, read_subjects
from autoseg.errors import AutosegError
from autoseg.files import exclusive, write_json
from autoseg.messages import count_of
from autoseg.plan import hash_plan
from autoseg.plugins.trainer import Trainer
from autoseg.preprocessing import fixed
from autoseg.preprocessing.normalise import fixed_channels
from autoseg.training.amounts import amounts_of
from autoseg.training.check_fold_folder import (
    earlier_stages,
    last_weights,
    load_checkpoint,
    refuse_to_overwrite,
    stage_index,
)
from autoseg.training.check_job import check_job
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.distributed import World, world
from autoseg.training.fit import fit_steps
from autoseg.training.interrupt import StopRequest, stop_on_signals
from autoseg.training.job import FoldJob
from autoseg.training.journal import Journal
from autoseg.training.progress import FoldProgress
from autoseg.training.stage import train_stage
from autoseg.training.stage_run import StageRun
from autoseg.training.validation import Validator, scored_cases, validate_fold


def train_fold(job: FoldJob) -> dict[str, Any]:
    """Train all members and stages of a fold and score it.

    Returns:
        The fold's record (fold.json): when, how long, on what, and the validation scores.

    Raises:
        AutosegError: a fold that has a result already, stale preprocessed data, a training that cannot go on.
        Interrupted: the user stopped it; ``resume`` continues exactly.
    """
    started = time.time()
    with contextlib.ExitStack() as held:
        processes = held.enter_context(world(job.device))
        processes.lead(lambda: _begin(job, held), job.device)
        fold = split(job)
        resume = load_checkpoint(job, fold) if job.resume else None
        with stop_on_signals() as stop:
            _train_members(job, fold, processes, stop, resume)
            stop.from_now_on_at_once()
            return _finish(job, fold, started) if processes.leads else {}


def _begin(job: FoldJob, held: contextlib.ExitStack) -> None:
    """What the leading process does before all train; until everything is checked nothing is removed or replaced."""
    fold = split(job)
    check_job(job, fold)
    held.enter_context(exclusive(job.folder / ".lock", doing=f"training fold {job.fold}"))
    held.enter_context(messages.LogFile(job.folder / "train.log"))
    refuse_to_overwrite(job)  # once more: another process may have trained it in between
    for leftover in job.folder.rglob(".tmp-*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    if job.overwrite:
        _remove_result(job.folder)
    if job.redo_from is not None:
        _remove_from_stage(job)
    _measure_constants(job, fold)
    write_json(job.model / "plan.json", job.plan)
    write_json(job.model / "dataset.json", job.prepared.info)
    write_json(job.model / "fingerprint.json", job.prepared.fingerprint)


def _measure_constants(job: FoldJob, fold: Fold) -> None:
    """What the fold's training cases say about channels that are normalised by numbers of the data set."""
    path = job.folder / NORMALISATION
    if fixed_channels(job.plan.preprocessing) and not (path.exists() and (job.resume or job.redo_from)):
        messages.info(f"measuring the normalisation in {count_of(len(fold.train), 'training case')}")
        constants = fixed.measure(job.prepared.store, fold.train, job.plan.preprocessing)
        if constants is not None:
            write_json(path, constants)


def split(job: FoldJob) -> Fold:
    """The cases of the fold; ``all`` trains on every case and validates on some of the same.

    Raises:
        AutosegError: there is no such fold.
    """
    names = [case.name for case in job.prepared.fingerprint.cases]
    if job.fold == "all":
        return Fold(tuple(names), ())
    subjects = read_subjects(job.prepared.folder / GROUPS, names)
    folds = load_or_make_folds(job.prepared.splits_path, names, subjects)
    if not folds or not 0 <= int(job.fold) < len(folds):
        raise AutosegError(
            f"there is no fold {job.fold}",
            where=job.prepared.dataset,
            found=f"{count_of(len(names), 'case')}, {count_of(len(folds), 'fold')}",
            expected=f"a fold from 0 to {len(folds) - 1}, or all"
            if folds
            else "at least two cases for folds",
            fix="use the fold 'all', which trains on every case and has no honest validation",
        )
    return folds[int(job.fold)]


def _remove_result(folder: Path) -> None:
    """Forget a fold's result; the log of messages stays. fold.json goes first: without it a fold is not finished."""
    for name in ("fold.json", FITTED, NORMALISATION, "log.jsonl", "curves.png"):
        (folder / name).unlink(missing_ok=True)
    for name in ("weights", "optimiser", "checkpoint", "validation", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _remove_from_stage(job: FoldJob) -> None:
    """Forget a stage and all that came after it; the weights of the stages before now belong to the job's plan.

    fold.json goes first, see :func:`_remove_result`.
    """
    earlier, plan_hash = {stage.name for stage in earlier_stages(job)}, hash_plan(job.plan)
    infos = {path: weights.read_info(path) for path in (job.folder / "weights").glob("*.safetensors")}
    for name in ("fold.json", FITTED):
        (job.folder / name).unlink(missing_ok=True)
    for path, info in infos.items():
        if info.stage not in earlier or info.member >= job.plan.recipe.members:
            path.unlink()
        elif info.plan_hash != plan_hash:
            weights.restamp(path, plan_hash)
    kept = {path.name for path in last_weights(job, job.redo_from)}
    for path in (job.folder / "optimiser").glob("*.safetensors"):
        if path.name not in kept:
            path.unlink()
    for name in ("checkpoint", "validation"):
        shutil.rmtree(job.folder / name, ignore_errors=True)


def _train_members(
    job: FoldJob, fold: Fold, processes: World, stop: StopRequest, resume: Checkpoint | None
) -> None:
    """All stages of all members, from the checkpoint's position on."""
    trainer: Trainer = plugins.load(plugins.TRAINERS, job.plan.trainer)
    journal = Journal(job.folder) if processes.leads else None
    first = resume.position if resume else None
    done = _done(job, first)
    if journal is not None:
        begun = {(first.member, first.stage): first.epoch} if first else {}
        journal.keep(begun | done)
        messages.info(_where(job, first) if first else _what_begins(job, fold))
    progress = _progress(job, fold, done) if processes.leads else None
    try:
        for member in range(job.plan.recipe.members):
            for index in range(len(job.plan.recipe.stages)):
                if (member, index) in done:
                    continue
                here = first is not None and (member, index) == (first.member, first.stage)
                run = StageRun(
                    job=job,
                    fold=fold,
                    trainer=trainer,
                    member=member,
                    index=index,
                    world=processes,
                    stop=stop,
                    journal=journal,
                    progress=progress,
                    validate=Validator(job, fold, job.plan.recipe.stages[index], stop, progress),
                )
                train_stage(run, resume if here else None)
    finally:
        if progress is not None:
            progress.close()
        if journal is not None:
            journal.close()


def _progress(job: FoldJob, fold: Fold, done: Collection[tuple[int, int]]) -> FoldProgress:
    """What is told while the fold is trained."""
    quick = f"autoseg_plan_and_preprocess -d {job.prepared.dataset} -pl {job.plan.planner} -p quick"
    return FoldProgress(
        job.plan,
        amounts_of(job, fold),
        done,
        device=_device_name(job.device),
        advice="" if job.plan.quick else quick,
    )


def _what_begins(job: FoldJob, fold: Fold) -> str:
    """One line, so that a wrong fold, plan or device is seen before hours have passed."""
    stages, again = job.plan.recipe.stages, ""
    if job.redo_from is not None:
        stages, again = stages[stage_index(job.plan, job.redo_from) :], f"again from stage {job.redo_from}, "
    length = " + ".join(str(stage.epochs) for stage in stages)
    epochs = f"{length} {'epoch' if length == '1' else 'epochs'}"
    tested = f", {len(fold.test)} to test" if fold.test else ""
    return (
        f"fold {job.fold}: {again}{count_of(len(fold.train), 'case')} to train on, "
        f"{len(fold.validation)} to validate{tested}; plan {job.prepared.plan_name}, {epochs}, "
        f"on {_device_name(job.device)}"
    )


def _where(job: FoldJob, position: Position) -> str:
    """Where a continued training goes on, in words."""
    stage = job.plan.recipe.stages[position.stage]
    member = f"member {position.member + 1} of {job.plan.recipe.members}"
    if position.epoch >= stage.epochs:
        return f"stage {stage.name} of {member} is done; continuing after it"
    return (
        f"continuing {member}, stage {stage.name} "
        f"at epoch {position.epoch + 1}, iteration {position.iteration + 1}"
    )


def _done(job: FoldJob, first: Position | None) -> dict[tuple[int, int], int]:
    """Member and stage (from 0) to the epochs of those runs that are trained already.

    Besides those before the position of a continued run these are, after a redo from a later stage, the early stages of
    all members. A run leaves its last weights when it ends, and whoever begins anew has removed those of the runs
    that are to be trained.
    """
    done = {}
    for member in range(job.plan.recipe.members):
        for index, stage in enumerate(job.plan.recipe.stages):
            here = first is not None and (member, index) == (first.member, first.stage)
            path = job.folder / "weights" / weight_file_name(stage.name, member)
            ended = first.epoch >= stage.epochs if here and first is not None else path.exists()
            if ended:
                done[member, index] = stage.epochs
    return done


def _finish(job: FoldJob, fold: Fold, started: float) -> dict[str, Any]:
    """Predict and score the validation cases, write fold.json and the model card."""
    from autoseg.bundle import card

    record: dict[str, Any] = {
        "fold": job.fold,
        "command": job.command,
        "autoseg_version": version("autoseg"),
        "torch_version": torch.__version__,
        "device": _device_name(job.device),
        "seed": job.plan.seed,
        "plan_hash": hash_plan(job.plan),
        "fingerprint_hash": job.prepared.fingerprint.content_hash,
        "train_cases": list(fold.train),
        "validation_cases": list(fold.validation),
        **({"test_cases": list(fold.test)} if fold.test else {}),
    }
    if job.device.type == "cuda":
        record["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(job.device) / 1e9
    if learned := fit_steps(job, fold):
        record["learned"] = {name: step.model_dump(mode="json") for name, step in learned.items()}
    record["validation"] = validate_fold(job, fold) if scored_cases(fold) else None
    record["seconds"] = time.time() - started
    write_json(job.folder / "fold.json", record)
    card.write_model_card(job.model)
    return record


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
