"""One stage from first to last epoch: the training loop of autoseg.

Notation: ``b`` batch, ``c`` channels, ``k`` outputs; images ``[b, c, *patch]``, targets ``[b, *patch]``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn

from autoseg import messages
from autoseg.bundle import weights
from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.bundle.networks import ReadyNetwork, build_network
from autoseg.device import accelerates, autocast, lower_precision, place, try_convolutions
from autoseg.errors import AutosegError
from autoseg.messages import count_of
from autoseg.plan import PatchSize, Stage
from autoseg.plugins.parts import Batch, Loss, Schedule, Source
from autoseg.sampling.case_cache import NO_MEMORY
from autoseg.training import checkpoint, losses, optimisers, schedules
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.compiled import Compiled
from autoseg.training.freezing import trained_parameters
from autoseg.training.interrupt import Interrupted
from autoseg.training.journal import epoch_line
from autoseg.training.seeds import derive
from autoseg.training.sources import open_source
from autoseg.training.stage_run import Scores, StageRun
from autoseg.training.start import fill_optimiser, keep_optimiser, load_optimiser, load_start
from autoseg.training.validation_samples import SampleScores, SampleValidator, open_samples

# iterations between looks at the loss; each look waits for the device, which a CPU never does
CHECK_EVERY = 10
SIGNAL_SECONDS = 0.5  # a signal to a group of processes reaches all of them within this time


@dataclass
class _Running:
    """The moving parts of a stage."""

    network: ReadyNetwork
    forward: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    loss: Loss
    scaler: torch.amp.GradScaler
    autocast: Callable[[], contextlib.AbstractContextManager[object]]
    position: Position
    start: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    samples: SampleValidator | None = None
    pending: list[tuple[torch.Tensor, tuple[str, ...]]] = field(default_factory=list)


def train_stage(run: StageRun, resume: Checkpoint | None = None) -> None:
    """Train one stage and leave its weights in the fold's folder.

    Args:
        run: what to train, on what, where to.
        resume: continue from here instead of starting.

    Raises:
        Interrupted: the user stopped it; everything is saved.
        AutosegError: a loss that is not a number, memory that ran out, a damaged input.
    """
    run.world.check_batch(run.stage.batch_size, run.stage.name)
    running = _set_up(run, resume)
    if resume is None and (run.member or run.index):
        _save(run, running)  # making the source may take long: --c then goes on here
    source = open_source(run)
    running.facts, running.samples = source.facts, open_samples(run)
    try:
        run.world.check_same(
            [source.iterations, *source.facts.values()],
            run.device,
            what="the batches of an epoch",
            where=f"stage {run.stage.name}",
        )
        if source.nothing_to_learn:
            _keep_untrained(run, running, source.nothing_to_learn)
        elif run.progress is not None:
            at = running.position
            run.progress.begin_stage(run.member, run.index, source.iterations, at.epoch, at.iteration)
        while running.position.epoch < run.stage.epochs:
            _train_epoch(run, running, source)
            _finish_epoch(run, running, source.iterations)
    finally:
        source.close()
        if running.samples is not None:
            running.samples.close()
    if run.journal is not None:
        run.journal.draw()


def _keep_untrained(run: StageRun, running: _Running, why: str) -> None:
    """The stage ends before it begins; its facts say so to whoever uses the weights."""
    if run.world.leads:
        messages.warn(f"stage {run.stage.name} of member {run.member + 1} is not trained: {why}")
        _keep(run, running, epoch=0)
    running.position = replace(running.position, epoch=run.stage.epochs)
    _save(run, running)


def _set_up(run: StageRun, resume: Checkpoint | None) -> _Running:
    """Network, optimiser and the rest, fresh or as they were."""
    stage = run.stage
    torch.manual_seed(derive(*run.seed_key))
    network = build_network(run.plan, stage.network, run.trainer)
    if resume is None:
        start = load_start(run, network)
    else:
        weights.load_network(network.module, resume.network, where=f"checkpoint of {run.folder.name}")
        start = resume.start
    dtype = lower_precision(run.device, run.plan.recipe.precision)
    place(network.module, run.device, dtype)
    fixed = all(has_fixed_size(part.patch_size) for part in (stage, run.plan.recipe.inference))
    try_convolutions(run.device, alike=fixed)
    optimiser = optimisers.REGISTRY.build(
        stage.optimiser.name,
        trained_parameters(network.module, stage),
        trainer=run.trainer,
        **stage.optimiser.arguments,
    )
    if resume is None and stage.optimiser_state == "previous":
        load_optimiser(run, optimiser)
    scaler = torch.amp.GradScaler(run.device.type, enabled=dtype is torch.float16)
    if resume is not None:
        fill_optimiser(optimiser, resume.optimiser, where=f"checkpoint of {run.folder.name}")
        if scaler.is_enabled() and resume.scaler:  # none was saved by a card that computes in another type
            scaler.load_state_dict(resume.scaler)
    loss = losses.build(
        stage.loss.name, labels=run.plan.label_set, trainer=run.trainer, **stage.loss.arguments
    )
    forward: Any = Compiled(network.module) if run.plan.recipe.compile else network.module
    return _Running(
        network=network,
        forward=run.world.wrap(forward, run.device),
        optimiser=optimiser,
        schedule=schedules.REGISTRY.build(
            stage.schedule.name, epochs=stage.epochs, trainer=run.trainer, **stage.schedule.arguments
        ),
        loss=loss.to(run.device) if isinstance(loss, nn.Module) else loss,
        scaler=scaler,
        autocast=partial(autocast, run.device, dtype),
        position=_start_position(run, resume),
        start=start,
    )


def has_fixed_size(patch: PatchSize) -> bool:
    """Whether no axis takes what the image has there."""
    return bool(patch) and "whole" not in patch


def _start_position(run: StageRun, resume: Checkpoint | None) -> Position:
    if resume is None:
        return Position(member=run.member, stage=run.index)
    if resume.position.iteration and resume.rng_state is not None:
        torch.set_rng_state(resume.rng_state)
    return resume.position


def _train_epoch(run: StageRun, running: _Running, source: Source) -> None:
    """The iterations of one epoch, from the position's on."""
    position = running.position
    if position.iteration == 0:
        torch.manual_seed(derive(*run.seed_key, position.epoch, 1))
    running.forward.train()
    look_every = CHECK_EVERY if accelerates(run.device) else 1
    if run.progress is not None:
        run.progress.begin_epoch(position.epoch, position.iteration)
    started = time.perf_counter()
    before = position.seconds
    with contextlib.closing(source.batches(position.epoch, position.iteration)) as batches:
        while (batch := _next(run, running, batches)) is not None:
            _seed_iteration(run, position)
            with _explained(run, batch):
                _step(run, running, batch, position.epoch + position.iteration / source.iterations)
            position.iteration += 1
            position.wait_seconds += batch.wait_seconds
            looks = position.iteration % look_every == 0 or position.iteration == source.iterations
            if looks:
                _collect_losses(run, running)
                if run.progress is not None:
                    run.progress.looked(position.iteration, position.loss_sum / position.iteration)
            # several processes ask each other, which waits for their cards
            if (looks or run.world.size == 1) and run.world.any(run.stop.requested, run.device):
                position.seconds = before + time.perf_counter() - started
                _leave(run, running)
    position.seconds = before + time.perf_counter() - started


def _seed_iteration(run: StageRun, position: Position) -> None:
    """Dropout's numbers by iteration and process, where a checkpoint does not hold the state of their generators.

    It holds that of the CPU of one process, which draws one row of numbers through an epoch.
    """
    if accelerates(run.device) or run.world.size > 1:
        torch.manual_seed(derive(*run.seed_key, position.epoch, 1, position.iteration, run.world.rank))


def _next(run: StageRun, running: _Running, batches: Iterator[Batch]) -> Batch | None:
    """The next batch, None at the end of the epoch.

    A signal to the whole group of processes also ends the workers; then the user stopped the training, and no
    worker died by itself.
    """
    try:
        return next(batches, None)
    except AutosegError:
        if run.world.size == 1 and run.stop.comes_within(SIGNAL_SECONDS):
            _leave(run, running)
        raise


def _leave(run: StageRun, running: _Running) -> NoReturn:
    """Save where the training is, between two iterations or before a validation, and stop."""
    _collect_losses(run, running)
    _save(run, running)
    raise Interrupted(run.stop.signal)


def _step(run: StageRun, running: _Running, batch: Batch, progress: float) -> None:
    """Forward, backward, update."""
    schedules.apply(running.schedule, progress, running.optimiser)
    running.optimiser.zero_grad(set_to_none=True)
    with running.autocast():
        outputs = running.forward(batch.images)
    loss = running.loss(outputs, batch.target)
    running.scaler.scale(loss).backward()
    if run.stage.gradient_clip is not None:
        running.scaler.unscale_(running.optimiser)
        nn.utils.clip_grad_norm_(running.network.module.parameters(), run.stage.gradient_clip)
    running.scaler.step(running.optimiser)
    running.scaler.update()
    running.pending.append((loss.detach(), batch.cases))


def _collect_losses(run: StageRun, running: _Running) -> None:
    """Add up the losses since the last look; a loss that is not a number ends the training."""
    numbers = torch.stack([value for value, _ in running.pending]).cpu().tolist() if running.pending else []
    for number, (_, cases) in zip(numbers, running.pending, strict=True):
        if number != number or number in (float("inf"), float("-inf")):
            rate = running.optimiser.param_groups[0]["lr"]
            raise AutosegError(
                f"the loss became {number} in epoch {running.position.epoch + 1}",
                where=f"stage {run.stage.name}, cases {', '.join(cases)}",
                found=f"learning rate {rate:.3g}, precision {run.plan.recipe.precision}",
                expected="a finite loss",
                fix=f"look at these cases; start again with --overwrite and a lower "
                f"--set stages.{run.stage.name}.optimiser.arguments.lr=..., or with --set precision=float32",
            )
        running.position.loss_sum += number
    running.pending.clear()


@contextlib.contextmanager
def _explained(run: StageRun, batch: Batch) -> Iterator[None]:
    """Memory that runs out is reported with the setting to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error) or type(error).__name__
        if not isinstance(error, MemoryError) and not any(words in text for words in NO_MEMORY):
            raise
        stage = run.stage
        raise AutosegError(
            f"the memory of {run.device} ran out",
            where=f"stage {stage.name}, cases {', '.join(batch.cases)}",
            found=f"patch {' x '.join(map(str, stage.patch_size))}, batch {stage.batch_size}: {text.splitlines()[0]}",
            expected="a patch and batch that fit",
            fix="plan again with a smaller -gpu_memory_target, or start again with --overwrite and a smaller "
            f"--set stages.{stage.name}.batch_size or .patch_size; --c continues with the same settings",
        ) from error


def _finish_epoch(run: StageRun, running: _Running, iterations: int) -> None:
    """Validate, record, keep snapshots and save."""
    position, stage = running.position, run.stage
    last = position.epoch + 1 == stage.epochs
    if run.progress is not None:
        run.progress.end_iterations()
    (scores, samples), view = _validate(run, running, last), run.plan.recipe.validation.view
    entry = {
        "member": run.member,
        "members": run.plan.recipe.members,
        "stage": stage.name,
        "stage_index": run.index,
        "stages": len(run.plan.recipe.stages),
        "epoch": position.epoch,
        "loss": run.world.mean(position.loss_sum / iterations, run.device),
        "lr": running.optimiser.param_groups[0]["lr"],
        "iterations": iterations,
        "seconds": position.seconds,
        "wait_share": min(1.0, position.wait_seconds / max(position.seconds, 1e-9)),
        "validation_dice": scores,
        **({"validation_cases": run.n_validated} if scores else {}),
        **({"validation_view": view} if scores and view != "whole" else {}),
        **({"validation_samples": samples, "sample_count": running.samples.count} if running.samples else {}),
    }
    tired = False
    if run.journal is not None:
        run.journal.record(entry)
        if position.epoch % 10 == 0:
            run.journal.draw()
        if scores and (mean := mean_score(scores)) is not None and mean > position.best:
            position.best, position.best_epoch = mean, position.epoch
            _keep(run, running, best=True)
        if (done := position.epoch + 1) in (stage.snapshots if last else stage.written_epochs):
            _keep(run, running, snapshot_epoch=done)
        tired = bool(scores) and _out_of_patience(stage, position)
        left = run.progress.end_epoch(last or tired) if run.progress is not None else None
        messages.info(epoch_line(entry, stage.epochs, left))
        if last or tired:
            _keep_last(run, running)
    ended = run.world.any(tired, run.device)
    running.position = Position(
        member=position.member,
        stage=position.stage,
        epoch=stage.epochs if ended else position.epoch + 1,
        best=position.best,
        best_epoch=position.best_epoch,
    )
    _save(run, running)


def _out_of_patience(stage: Stage, position: Position) -> bool:
    """Whether the stage ends here for want of progress."""
    if stage.patience is None or position.best < 0:
        return False
    return position.epoch - position.best_epoch >= stage.patience


def _keep_last(run: StageRun, running: _Running) -> None:
    """The weights that the stage leaves: its last, or with patience its best."""
    position = running.position
    keep_optimiser(run, running.optimiser, position)
    if run.stage.patience is None or position.best < 0:
        _keep(run, running)
        return
    if position.epoch + 1 < run.stage.epochs:
        messages.info(
            f"stage {run.stage.name} ends: no better validation Dice than {position.best:.3f} "
            f"(epoch {position.best_epoch + 1}) for {count_of(run.stage.patience, 'epoch')}"
        )
    best = weights.read(run.weights_path(run.stage.name, best=True))
    _keep(run, running, tensors=best.tensors, epoch=best.info.epoch)


def _validate(run: StageRun, running: _Running, last: bool) -> tuple[Scores, SampleScores]:
    """The validation Dice where it is due, and scores of samples; the other processes wait.

    A stop there saves the epoch before it.
    """
    due = last or (running.position.epoch + 1) % run.plan.recipe.validation.every == 0
    scores: Scores = {}
    samples: SampleScores = {}
    if run.stage.network != PREDICTING_NETWORK or not (due or run.plan.recipe.validation.samples):
        return scores, samples
    stopped = False
    if run.world.leads:
        try:
            if running.samples is not None:
                samples = running.samples(running.network, running.position.epoch)
            scores = run.validate(running.network) if due else {}
        except Interrupted:
            stopped = True
    if run.world.any(stopped, run.device):
        _leave(run, running)
    return scores, samples


def mean_score(scores: dict[str, float | None]) -> float | None:
    """The mean over the classes that could be measured."""
    known = [value for value in scores.values() if value is not None]
    return sum(known) / len(known) if known else None


def _keep(
    run: StageRun,
    running: _Running,
    *,
    tensors: Mapping[str, torch.Tensor] | None = None,
    epoch: int | None = None,
    **kind: Any,
) -> None:
    """Keep the network's weights, or ``tensors`` of an epoch; ``kind`` as of :meth:`StageRun.weights_path`."""
    weights.save(
        run.weights_path(run.stage.name, **kind),
        running.network.module if tensors is None else tensors,
        network=run.stage.network,
        stage=run.stage.name,
        member=run.member,
        epoch=running.position.epoch + 1 if epoch is None else epoch,
        plan_hash=run.plan_hash,
        facts=running.facts,
        start=running.start,
    )


def _save(run: StageRun, running: _Running) -> None:
    """Write the checkpoint; the process that leads does."""
    if run.world.leads:
        checkpoint.save(
            run.folder / "checkpoint" / "latest.safetensors",
            Checkpoint(
                position=running.position,
                plan_hash=run.plan_hash,
                cases_hash=run.cases_hash,
                start=dict(running.start),
                made_on=checkpoint.surroundings(
                    run.device,
                    lower_precision(run.device, run.plan.recipe.precision),
                    run.world_size,
                    run.workers,
                ),
                network=weights.distinct_tensors(running.network.module),
                optimiser=running.optimiser.state_dict(),
                scaler=running.scaler.state_dict(),
                rng_state=torch.get_rng_state(),
            ),
        )
    run.world.barrier()
