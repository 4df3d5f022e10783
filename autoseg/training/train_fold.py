"""One fold, from the prepared dataset to a scored model: members, stages, final validation."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Sequence
from typing import Any

import torch

from autoseg import messages, plugins
from autoseg.bundle import weights
from autoseg.bundle.fitted import FITTED
from autoseg.bundle.found_steps import FILE_NAME as FOUND_STEPS
from autoseg.bundle.layout import FINGERPRINT, NORMALISATION, weight_file_name
from autoseg.dataset.folds import Fold, held_back
from autoseg.device import card_facts, device_name, lower_precision
from autoseg.files import exclusive, remove_leftovers, write_json
from autoseg.messages import count_of
from autoseg.plan import Plan, hash_plan
from autoseg.plugins.trainer import Trainer
from autoseg.preprocessing import fixed
from autoseg.preprocessing.normalise import fixed_channels
from autoseg.training import checkpoint
from autoseg.training.amounts import amounts_of, largest_case
from autoseg.training.check_fold_folder import (
    as_begun,
    checkpoint_path,
    last_weights,
    load_checkpoint,
    refuse_other_plan,
    refuse_to_overwrite,
    settings_of_the_start,
    stage_index,
)
from autoseg.training.check_job import check_job
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.distributed import World, world
from autoseg.training.estimate import Amounts
from autoseg.training.fit import fit_steps
from autoseg.training.interrupt import StopRequest, stop_on_signals
from autoseg.training.job import FoldJob
from autoseg.training.journal import Journal
from autoseg.training.memory import warn_of_small_card
from autoseg.training.progress import FoldProgress
from autoseg.training.stage import train_stage
from autoseg.training.stage_run import StageRun, hash_cases
from autoseg.training.trial_step import length_words
from autoseg.training.validation import Validator, scored_cases, validate_fold
from autoseg.training.weight_maps import make_weight_maps
from autoseg.version import __version__


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
        job = as_begun(job)
        fold = split(job)
        if not processes.leads:  # the leading process has held them since it looked whether they are current
            job.prepared.store.hold([*fold.train, *fold.validation, *fold.test])
        begun = load_checkpoint(job, fold)
        with stop_on_signals() as stop:
            _train_members(job, fold, processes, stop, begun)
            stop.from_now_on_at_once()
            return _finish(job, fold, started) if processes.leads else {}


def _begin(job: FoldJob, held: contextlib.ExitStack) -> None:
    """What the leading process does before all train; until everything is checked nothing is removed or replaced."""
    settings = settings_of_the_start(job)
    job = as_begun(job)
    fold = split(job)
    check_job(job, fold)
    held.enter_context(exclusive(job.folder / ".lock", doing=f"training fold {job.fold}"))
    held.enter_context(messages.LogFile(job.folder / "train.log"))
    refuse_to_overwrite(job)  # once more: another process may have trained it in between
    if settings:
        words = " ".join(f"{path}={json.dumps(value)}" for path, value in settings.items())
        messages.info(f"continuing with the settings that the training was begun with: --set {words}")
    if job.resume and checkpoint_path(job).exists():
        load_checkpoint(job, fold)  # a wrong one is refused before plan.json is replaced
    for folder in (job.folder, *(path for path in job.folder.iterdir() if path.is_dir())):
        remove_leftovers(folder, owned=True)
    with exclusive(job.model / ".lock", doing=f"writing into {job.model.name}", wait=True):
        refuse_other_plan(job)  # once more, as above
        _take_up(job, fold)
        (job.model / FOUND_STEPS).unlink(missing_ok=True)  # it was found with other weights
        write_json(job.model / "plan.json", job.plan)
        write_json(job.model / "dataset.json", job.prepared.info)
        write_json(job.model / FINGERPRINT, job.prepared.fingerprint)
    _measure_constants(job, fold)
    make_weight_maps(job, fold)


def _take_up(job: FoldJob, fold: Fold) -> None:
    """Leave a checkpoint to go on from, and nothing that comes after it.

    One from before the first step is written before anything is removed: who is killed from then on can continue.
    """
    path = checkpoint_path(job)
    if job.resume and checkpoint.has_learned(path):
        return
    if not (job.resume and path.exists()):
        (job.folder / "fold.json").unlink(missing_ok=True)
        start = Position(stage=stage_index(job.plan, job.redo_from) if job.redo_from else 0)
        checkpoint.save(path, checkpoint.before_first_step(start, hash_plan(job.plan), hash_cases(fold)))
    _remove_from_stage(job, checkpoint.load(path).position.stage)


def _measure_constants(job: FoldJob, fold: Fold) -> None:
    """What the fold's training cases say about channels that are normalised by numbers of the dataset."""
    path = job.folder / NORMALISATION
    if fixed_channels(job.plan.preprocessing) and not path.exists():
        messages.info(f"measuring the normalisation in {count_of(len(fold.train), 'training case')}")
        constants = fixed.measure(job.prepared.store, fold.train, job.plan.preprocessing)
        if constants is not None:
            write_json(path, constants)


def split(job: FoldJob) -> Fold:
    """The cases of the fold, see :meth:`autoseg.preparation.prepared.Prepared.fold`."""
    return job.prepared.fold(job.fold)


def _remove_from_stage(job: FoldJob, index: int) -> None:
    """Forget a stage and all that came after it; the weights of the stages before now belong to the job's plan.

    The log of messages stays, and the record of epochs is the journal's.
    """
    earlier = job.plan.recipe.stages[:index]
    for name in (FITTED, *(() if earlier else (NORMALISATION, "curves.png"))):
        (job.folder / name).unlink(missing_ok=True)
    _keep_weights(job, {stage.name for stage in earlier})
    kept = {path.name for path in last_weights(job, job.plan.recipe.stages[index].name)}
    for path in (job.folder / "optimiser").glob("*.safetensors"):
        if path.name not in kept:
            path.unlink()
    for name in ("validation", *(() if earlier else ("tensorboard",))):
        shutil.rmtree(job.folder / name, ignore_errors=True)


def _keep_weights(job: FoldJob, stages: Collection[str]) -> None:
    """Remove the weights of all other stages."""
    plan_hash = hash_plan(job.plan)
    for path in (job.folder / "weights").glob("*.safetensors"):
        info = weights.read_info(path) if stages else None
        if info is None or info.stage not in stages or info.member >= job.plan.recipe.members:
            path.unlink()
        elif info.plan_hash != plan_hash:
            weights.restamp(path, plan_hash)


def _train_members(job: FoldJob, fold: Fold, processes: World, stop: StopRequest, begun: Checkpoint) -> None:
    """All stages of all members, from the checkpoint's position on."""
    trainer: Trainer = plugins.load(plugins.TRAINERS, job.plan.trainer)
    journal = Journal(job.folder) if processes.leads else None
    first, resume = begun.position, begun if begun.network else None
    done = _done(job, first)
    if journal is not None:
        journal.keep({(first.member, first.stage): first.epoch} | done)
        messages.info(_where(job, first) if resume else _what_begins(job, fold, first.stage))
        _say_other_surroundings(job, processes, begun)
        warn_of_small_card(job.plan, job.device, largest_case(job, fold), processes.size)
        for line in () if resume else length_words(*_length(job, fold, trainer)):
            messages.info(line)
    progress = _progress(job, fold, done) if processes.leads else None
    try:
        for member in range(job.plan.recipe.members):
            for index in range(len(job.plan.recipe.stages)):
                if (member, index) in done:
                    continue
                here = (member, index) == (first.member, first.stage)
                validator = Validator(job, fold, job.plan.recipe.stages[index], stop, progress)
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
                    validate=validator,
                    n_validated=len(validator.cases),
                )
                train_stage(run, resume if here else None)
    finally:
        if progress is not None:
            progress.close()
        if journal is not None:
            journal.close()


def _length(
    job: FoldJob, fold: Fold, trainer: Trainer
) -> tuple[Plan, Amounts, Trainer, torch.device, Sequence[int]]:
    """What :func:`autoseg.training.trial_step.length_words` asks for."""
    return job.plan, amounts_of(job, fold), trainer, job.device, largest_case(job, fold)


def _progress(job: FoldJob, fold: Fold, done: Collection[tuple[int, int]]) -> FoldProgress:
    """What is told while the fold is trained."""
    quick = f"autoseg_plan_and_preprocess -d {job.prepared.dataset} -pl {job.plan.planner} -p quick"
    return FoldProgress(
        job.plan,
        amounts_of(job, fold),
        done,
        device=device_name(job.device),
        advice="" if job.plan.quick else quick,
    )


def _what_begins(job: FoldJob, fold: Fold, index: int) -> str:
    """One line, so that a wrong fold, plan or device is seen before hours have passed."""
    stages = job.plan.recipe.stages[index:]
    again = f"again from stage {stages[0].name}, " if index else ""
    length = " + ".join(str(stage.epochs) for stage in stages)
    epochs = f"{length} {'epoch' if length == '1' else 'epochs'}"
    clones = max((stage.sampling.clones.number if stage.sampling.clones else 0) for stage in stages)
    cloned = f" with {count_of(clones, 'clone')} of each" if clones else ""
    tested = f", {len(fold.test)} to test" if fold.test else ""
    held = "".join(
        f" ({stage.name} without {len(left)}, which say when it ends)"
        for stage in stages
        if stage.patience is not None and (left := held_back(fold, stage)) and stage.keep
    )
    return (
        f"fold {job.fold}: {again}{count_of(len(fold.train), 'case')} to train on{cloned}{held}, "
        f"{len(fold.validation)} to validate{tested}; plan {job.prepared.plan_name}, {epochs}, "
        f"on {device_name(job.device)}"
    )


def _where(job: FoldJob, position: Position) -> str:
    """Where a continued training goes on, in words."""
    stage = job.plan.recipe.stages[position.stage]
    member = f"member {position.member + 1} of {job.plan.recipe.members}"
    if position.epoch >= stage.epochs:
        return f"stage {stage.name} of {member} is done; continuing after it"
    where = f"continuing plan {job.prepared.plan_name}, {member}, stage {stage.name}"
    if not position.iteration:
        return f"{where} at epoch {position.epoch + 1}"
    return f"{where} in epoch {position.epoch + 1}, after iteration {position.iteration}"


def _say_other_surroundings(job: FoldJob, processes: World, begun: Checkpoint) -> None:
    """What rounds sums in another way than before makes other weights than those of an uninterrupted training."""
    dtype = lower_precision(job.device, job.plan.recipe.precision)
    now = checkpoint.surroundings(job.device, dtype, processes.size, job.workers)
    changed = [
        f"{name} {now.get(name)} (before: {was})"
        for name, was in begun.made_on.items()
        if was != now.get(name)
    ]
    if changed:
        messages.warn(
            f"continued with other {', '.join(changed)}: the weights will differ in rounding from those of a training "
            "that was never stopped"
        )


def _done(job: FoldJob, first: Position) -> dict[tuple[int, int], int]:
    """Member and stage (from 0) to the epochs of those runs that are trained already.

    Besides those before the position of a continued run these are, after a redo from a later stage, the early stages of
    all members. A run leaves its last weights when it ends, and whoever begins anew has removed those of the runs
    that are to be trained.
    """
    done = {}
    for member in range(job.plan.recipe.members):
        for index, stage in enumerate(job.plan.recipe.stages):
            here = (member, index) == (first.member, first.stage)
            path = job.folder / "weights" / weight_file_name(stage.name, member)
            ended = first.epoch >= stage.epochs if here else path.exists()
            if ended:
                done[member, index] = stage.epochs
    return done


def _started_from(job: FoldJob) -> dict[str, Any]:
    """Which other model the last stage of the first member goes back to, with the chain behind it."""
    name = weight_file_name(job.plan.recipe.stages[-1].name)
    return dict(weights.read_info(job.folder / "weights" / name).start)


def _finish(job: FoldJob, fold: Fold, started: float) -> dict[str, Any]:
    """Predict and score the validation cases, write the model card and, last of all, fold.json."""
    from autoseg.bundle import card

    record: dict[str, Any] = {
        "fold": job.fold,
        "command": job.command,
        "autoseg_version": __version__,
        "torch_version": torch.__version__,
        "device": device_name(job.device),
        "seed": job.plan.seed,
        "plan_hash": hash_plan(job.plan),
        "fingerprint_hash": job.prepared.fingerprint.content_hash,
        "train_cases": list(fold.train),
        "validation_cases": list(fold.validation),
        **({"test_cases": list(fold.test)} if fold.test else {}),
    }
    if start := _started_from(job):
        record["start"] = start
    record |= card_facts(job.device)
    if learned := fit_steps(job, fold):
        record["learned"] = {name: step.model_dump(mode="json") for name, step in learned.items()}
    record["validation"] = validate_fold(job, fold) if scored_cases(fold) else None
    record["seconds"] = time.time() - started
    with exclusive(job.model / ".lock", doing=f"writing into {job.model.name}", wait=True):
        card.write_model_card(job.model, finished=record)
    write_json(job.folder / "fold.json", record)
    return record
