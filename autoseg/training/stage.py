"""One stage from first to last epoch: the training loop of autoseg.

Notation: ``b`` batch, ``c`` channels, ``k`` outputs; images ``[b, c, *patch]``, targets ``[b, *patch]``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from autoseg import messages
from autoseg.bundle import weights
from autoseg.bundle.layout import PREDICTING_NETWORK, weight_file_name
from autoseg.device import autocast, lower_precision, place
from autoseg.errors import AutosegError
from autoseg.plan import Plan, Stage
from autoseg.plugins.parts import Batch
from autoseg.plugins.trainer import Loss, Source, Trainer
from autoseg.sampling.case_cache import NO_MEMORY
from autoseg.training import checkpoint, schedules
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.distributed import World
from autoseg.training.freezing import trained_parameters
from autoseg.training.interrupt import Interrupted, StopRequest
from autoseg.training.journal import Journal
from autoseg.training.seeds import derive

CHECK_EVERY = 10  # iterations between looks at the loss; each look waits for the device
SIGNAL_SECONDS = 0.5  # a signal to a group of processes reaches all of them within this time


@dataclass
class StageContext:
    """What a stage needs beside the plan.

    Attributes:
        member, index: which run of which stage, counted from 0.
        seed_key: the root of this stage's random numbers.
        source: makes the batches of the stage from a seed key.
        cases_hash: of the training cases.
        validate: measures the network that predicts on whole volumes: class to mean Dice, None where nothing is
            measured. Raises Interrupted when the user stops it.
        folder: of the fold.
        journal: where epochs are recorded; None in processes that do not lead.
        stop: set when the user wants to stop.
    """

    plan: Plan
    plan_hash: str
    cases_hash: str
    trainer: Trainer
    member: int
    index: int
    seed_key: tuple[int, ...]
    source: Callable[[Stage, tuple[int, ...]], Source]
    validate: Callable[[nn.Module], dict[str, float | None]]
    folder: Path
    journal: Journal | None
    device: torch.device
    world: World
    stop: StopRequest
    n_outputs: int

    @property
    def stage(self) -> Stage:
        """The stage's part of the plan."""
        return self.plan.recipe.stages[self.index]

    def weights_path(self, stage: str, **kind: Any) -> Path:
        """Where this member's weights of a stage go; ``kind`` as of :func:`weight_file_name`."""
        return self.folder / "weights" / weight_file_name(stage, self.member, **kind)


@dataclass
class _Running:
    """The moving parts of a stage."""

    network: nn.Module
    forward: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: schedules.Schedule
    loss: Loss
    scaler: torch.amp.GradScaler
    autocast: Callable[[], contextlib.AbstractContextManager[object]]
    position: Position
    facts: Mapping[str, int] = field(default_factory=dict)
    pending: list[tuple[torch.Tensor, tuple[str, ...]]] = field(default_factory=list)


def train_stage(context: StageContext, resume: Checkpoint | None = None) -> None:
    """Train one stage and leave its weights in the fold's folder.

    Args:
        context: what to train, on what, where to.
        resume: continue from here instead of starting.

    Raises:
        Interrupted: the user stopped it; everything is saved.
        AutosegError: a loss that is not a number, memory that ran out, a damaged input.
    """
    context.world.check_batch(context.stage.batch_size, context.stage.name)
    running = _set_up(context, resume)
    if resume is None and (context.member or context.index):
        _save(context, running)  # making the source may take long: --c then goes on here
    source = context.source(context.stage, context.seed_key)
    running.facts = source.facts
    try:
        context.world.check_same(
            [source.iterations, *source.facts.values()],
            context.device,
            what="the batches of an epoch",
            where=f"stage {context.stage.name}",
        )
        if source.nothing_to_learn:
            _keep_untrained(context, running, source.nothing_to_learn)
        while running.position.epoch < context.stage.epochs:
            _train_epoch(context, running, source)
            _finish_epoch(context, running, source.iterations)
    finally:
        source.close()
    if context.journal is not None:
        context.journal.draw()


def _keep_untrained(context: StageContext, running: _Running, why: str) -> None:
    """The stage ends before it begins; its facts say so to whoever uses the weights."""
    if context.world.leads:
        messages.warn(f"stage {context.stage.name} of member {context.member} is not trained: {why}")
        _keep(context, running, epoch=0)
    running.position = replace(running.position, epoch=context.stage.epochs)
    _save(context, running)


def _set_up(context: StageContext, resume: Checkpoint | None) -> _Running:
    """Network, optimiser and the rest, fresh or as they were."""
    stage = context.stage
    torch.manual_seed(derive(*context.seed_key))
    network = context.trainer.build_network(
        context.plan.networks[stage.network], context.plan.in_channels, context.n_outputs
    )
    if resume is None:
        _load_start(context, network)
    else:
        weights.load_network(network, resume.network, where=f"checkpoint of {context.folder.name}")
    dtype = lower_precision(context.device, context.plan.recipe.precision)
    place(network, context.device, dtype)
    optimiser = context.trainer.build_optimiser(stage.optimiser, trained_parameters(network, stage))
    scaler = torch.amp.GradScaler(context.device.type, enabled=dtype is torch.float16)
    if resume is not None:
        optimiser.load_state_dict(resume.optimiser)
        scaler.load_state_dict(resume.scaler)
    loss = context.trainer.build_loss(stage.loss, context.plan.label_set)
    forward = torch.compile(network) if context.plan.recipe.compile else network
    return _Running(
        network=network,
        forward=context.world.wrap(forward, context.device),
        optimiser=optimiser,
        schedule=context.trainer.build_schedule(stage.schedule, stage.epochs),
        loss=loss.to(context.device) if isinstance(loss, nn.Module) else loss,
        scaler=scaler,
        autocast=partial(autocast, context.device, dtype),
        position=_start_position(context, resume),
    )


def _start_position(context: StageContext, resume: Checkpoint | None) -> Position:
    if resume is None:
        return Position(member=context.member, stage=context.index)
    if resume.position.iteration and resume.rng_state is not None:
        torch.set_rng_state(resume.rng_state)
    return resume.position


def _load_start(context: StageContext, network: nn.Module) -> None:
    """Give the network the weights that the plan says the stage starts from."""
    stage, stages = context.stage, context.plan.recipe.stages
    if stage.start == "scratch":
        return
    earlier = [s for s in stages[: context.index] if s.network == stage.network]
    name = stage.start if stage.start != "previous" else (earlier[-1].name if earlier else "")
    path = context.weights_path(name)
    if not name or not path.exists():
        raise AutosegError(
            f"stage '{stage.name}' has nothing to start from",
            where=str(path),
            found=f"start: {stage.start}",
            expected=f"weights of an earlier stage that trains network '{stage.network}'",
            fix="correct the stage's start in the plan",
        )
    weights.load_network(network, weights.read(path).tensors, where=str(path))


def _train_epoch(context: StageContext, running: _Running, source: Source) -> None:
    """The iterations of one epoch, from the position's on."""
    position = running.position
    if position.iteration == 0:
        torch.manual_seed(derive(*context.seed_key, position.epoch, 1))
    running.forward.train()
    started = time.perf_counter()
    before = position.seconds
    with contextlib.closing(source.batches(position.epoch, position.iteration)) as batches:
        while (batch := _next(context, running, batches)) is not None:
            with _explained(context, batch):
                _step(context, running, batch, position.epoch + position.iteration / source.iterations)
            position.iteration += 1
            position.wait_seconds += batch.wait_seconds
            if position.iteration % CHECK_EVERY == 0 or position.iteration == source.iterations:
                _collect_losses(context, running)
            if context.world.any(context.stop.requested, context.device):
                position.seconds = before + time.perf_counter() - started
                _leave(context, running)
    position.seconds = before + time.perf_counter() - started


def _next(context: StageContext, running: _Running, batches: Iterator[Batch]) -> Batch | None:
    """The next batch, None at the end of the epoch.

    A signal to the whole group of processes also ends the workers; then the user stopped the training, and no
    worker died by itself.
    """
    try:
        return next(batches, None)
    except AutosegError:
        if context.world.size == 1 and context.stop.comes_within(SIGNAL_SECONDS):
            _leave(context, running)
        raise


def _leave(context: StageContext, running: _Running) -> NoReturn:
    """Save where the training is, between two iterations or before a validation, and stop."""
    _collect_losses(context, running)
    _save(context, running)
    raise Interrupted(context.stop.signal)


def _step(context: StageContext, running: _Running, batch: Batch, progress: float) -> None:
    """Forward, backward, update."""
    schedules.apply(running.schedule, progress, running.optimiser)
    running.optimiser.zero_grad(set_to_none=True)
    with running.autocast():
        outputs = running.forward(batch.images)
    loss = running.loss(outputs, batch.target)
    running.scaler.scale(loss).backward()
    if context.stage.gradient_clip is not None:
        running.scaler.unscale_(running.optimiser)
        nn.utils.clip_grad_norm_(running.network.parameters(), context.stage.gradient_clip)
    running.scaler.step(running.optimiser)
    running.scaler.update()
    running.pending.append((loss.detach(), batch.cases))


def _collect_losses(context: StageContext, running: _Running) -> None:
    """Add up the losses since the last look; a loss that is not a number ends the training."""
    for value, cases in running.pending:
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            rate = running.optimiser.param_groups[0]["lr"]
            raise AutosegError(
                f"the loss became {number} in epoch {running.position.epoch + 1}",
                where=f"stage {context.stage.name}, cases {', '.join(cases)}",
                found=f"learning rate {rate:.3g}, precision {context.plan.recipe.precision}",
                expected="a finite loss",
                fix=f"look at these cases; start again with --overwrite and a lower "
                f"--set stages.{context.stage.name}.optimiser.arguments.lr=..., or with --set precision=float32",
            )
        running.position.loss_sum += number
    running.pending.clear()


@contextlib.contextmanager
def _explained(context: StageContext, batch: Batch) -> Iterator[None]:
    """Memory that runs out is reported with the setting to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error) or type(error).__name__
        if not isinstance(error, MemoryError) and not any(words in text for words in NO_MEMORY):
            raise
        stage = context.stage
        raise AutosegError(
            f"the memory of {context.device} ran out",
            where=f"stage {stage.name}, cases {', '.join(batch.cases)}",
            found=f"patch {' x '.join(map(str, stage.patch_size))}, batch {stage.batch_size}: {text.splitlines()[0]}",
            expected="a patch and batch that fit",
            fix="plan again with a smaller -gpu_memory_target, or start again with --overwrite and a smaller "
            f"--set stages.{stage.name}.batch_size or .patch_size; --c continues with the same settings",
        ) from error


def _finish_epoch(context: StageContext, running: _Running, iterations: int) -> None:
    """Validate, record, keep snapshots and save."""
    position, stage = running.position, context.stage
    last = position.epoch + 1 == stage.epochs
    scores = _validate(context, running, last)
    entry = {
        "member": context.member,
        "members": context.plan.recipe.members,
        "stage": stage.name,
        "stage_index": context.index,
        "stages": len(context.plan.recipe.stages),
        "epoch": position.epoch,
        "loss": context.world.mean(position.loss_sum / iterations, context.device),
        "lr": running.optimiser.param_groups[0]["lr"],
        "seconds": position.seconds,
        "wait_share": min(1.0, position.wait_seconds / max(position.seconds, 1e-9)),
        "validation_dice": scores,
    }
    tired = False
    if context.world.leads:
        context.journal.add(entry, stage.epochs)
        if position.epoch % 10 == 0:
            context.journal.draw()
        if scores and (mean := mean_score(scores)) is not None and mean > position.best:
            position.best, position.best_epoch = mean, position.epoch
            _keep(context, running, best=True)
        if position.epoch + 1 in stage.snapshots:
            _keep(context, running, snapshot_epoch=position.epoch + 1)
        tired = bool(scores) and _out_of_patience(stage, position)
        if last or tired:
            _keep_last(context, running)
    ended = context.world.any(tired, context.device)
    running.position = Position(
        member=position.member,
        stage=position.stage,
        epoch=stage.epochs if ended else position.epoch + 1,
        best=position.best,
        best_epoch=position.best_epoch,
    )
    _save(context, running)


def _out_of_patience(stage: Stage, position: Position) -> bool:
    """Whether the stage ends here for want of progress."""
    if stage.patience is None or position.best < 0:
        return False
    return position.epoch - position.best_epoch >= stage.patience


def _keep_last(context: StageContext, running: _Running) -> None:
    """The weights that the stage leaves: its last, or with patience its best."""
    position = running.position
    if context.stage.patience is None or position.best < 0:
        _keep(context, running)
        return
    if position.epoch + 1 < context.stage.epochs:
        messages.info(
            f"stage {context.stage.name} ends: no better validation Dice than {position.best:.3f} "
            f"(epoch {position.best_epoch + 1}) for {context.stage.patience} epochs"
        )
    best = weights.read(context.weights_path(context.stage.name, best=True))
    _keep(context, running, tensors=best.tensors, epoch=best.info.epoch)


def _validate(context: StageContext, running: _Running, last: bool) -> dict[str, float | None]:
    """The validation Dice where it is due; the other processes wait. A stop there saves the epoch before it."""
    due = last or (running.position.epoch + 1) % context.plan.recipe.validation.every == 0
    if not due or context.stage.network != PREDICTING_NETWORK:
        return {}
    scores, stopped = {}, False
    if context.world.leads:
        try:
            scores = context.validate(running.network)
        except Interrupted:
            stopped = True
    if context.world.any(stopped, context.device):
        _leave(context, running)
    return scores


def mean_score(scores: dict[str, float | None]) -> float | None:
    """The mean over the classes that could be measured."""
    known = [value for value in scores.values() if value is not None]
    return sum(known) / len(known) if known else None


def _keep(
    context: StageContext,
    running: _Running,
    *,
    tensors: Mapping[str, torch.Tensor] | None = None,
    epoch: int | None = None,
    **kind: Any,
) -> None:
    """Keep the network's weights, or ``tensors`` of an epoch; ``kind`` as of :func:`weight_file_name`."""
    weights.save(
        context.weights_path(context.stage.name, **kind),
        running.network if tensors is None else tensors,
        network=context.stage.network,
        stage=context.stage.name,
        member=context.member,
        epoch=running.position.epoch + 1 if epoch is None else epoch,
        plan_hash=context.plan_hash,
        facts=running.facts,
    )


def _save(context: StageContext, running: _Running) -> None:
    """Write the checkpoint; the process that leads does."""
    if context.world.leads:
        checkpoint.save(
            context.folder / "checkpoint" / "latest.safetensors",
            Checkpoint(
                position=running.position,
                plan_hash=context.plan_hash,
                cases_hash=context.cases_hash,
                network=weights.distinct_tensors(running.network),
                optimiser=running.optimiser.state_dict(),
                scaler=running.scaler.state_dict(),
                rng_state=torch.get_rng_state(),
            ),
        )
    context.world.barrier()
