"""How long a training would take on this CPU, before it starts: steps on small patches, scaled by a count.

A small patch stands for a large one by the number of its multiplications: convolutions are nearly all of a step there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoseg import messages
from autoseg.bundle.networks import build_network, network_row
from autoseg.device import accelerates, autocast, place
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.training import losses
from autoseg.training.estimate import DAY, Ahead, Amounts, Measured, evening, what_is_left
from autoseg.training.step_count import batch_of, count_step

VOXELS = 40_000
"""Of the batch that is tried: a second or less on a core."""
TRIES = 2


LONG = 1e10
"""Voxels that a network sees in all iterations of a fold; below, a training is short on any machine and nothing is
tried."""
WORTH_IT = 1.25
"""Times as fast, for bfloat16 to be worth a word."""


@dataclass(frozen=True)
class StepSeconds:
    """Of one iteration of a stage, as foretold.

    Attributes:
        float32, bfloat16: seconds in each precision.
    """

    float32: float
    bfloat16: float

    @property
    def gain(self) -> float:
        """How many times as fast bfloat16 is."""
        return self.float32 / self.bfloat16


def foretell_step(
    plan: Plan, stage: Stage, trainer: Trainer, device: torch.device, shape: Sequence[int]
) -> StepSeconds:
    """Seconds of a step in both precisions, without its optimiser and its data; a few seconds of work.

    Args:
        plan, stage, trainer: see :func:`autoseg.training.step_count.count_step`.
        device: that does not work beside the CPU.
        shape: of a case, z, y, x, for axes that take the whole image.

    Raises:
        ValueError: the device is not a CPU.
    """
    if accelerates(device):
        raise ValueError(f"{device} is not tried: its times say little about other sizes")
    small = _small(plan, stage, trainer, shape)
    scale = count_step(plan, stage, trainer, shape=shape).flop / count_step(plan, small, trainer).flop
    found = []
    for dtype in (None, torch.bfloat16):
        with _state_of_numbers():
            network = place(build_network(plan, stage.network, trainer).module, device, dtype).train()
            loss = losses.build(
                stage.loss.name, labels=plan.label_set, trainer=trainer, **stage.loss.arguments
            )
            images, target = batch_of(plan, small, trainer, device)
            batch = images.normal_(), target.zero_()
            found.append(scale * min(_seconds(network, loss, batch, dtype) for _ in range(TRIES)))
    return StepSeconds(*found)


def length_words(
    plan: Plan, amounts: Amounts, trainer: Trainer, device: torch.device, shape: Sequence[int]
) -> list[str]:
    """What to say before a training that would take more than a day here; nothing of shorter ones and of cards.

    Args:
        plan, trainer, device, shape: see :func:`foretell_step`.
        amounts: of the fold.
    """
    stages = plan.recipe.stages
    seen = sum(
        stage.epochs * (stage.iterations_per_epoch or 0) * amounts.batch_voxels[index]
        for index, stage in enumerate(stages)
    )
    if accelerates(device) or seen * plan.recipe.members < LONG:
        return []
    step = foretell_step(plan, stages[0], trainer, device, shape)
    chosen = step.bfloat16 if plan.recipe.precision == "bfloat16" else step.float32
    measured = Measured(
        {0: chosen}, {i: s.iterations_per_epoch for i, s in enumerate(stages) if s.iterations_per_epoch}
    )
    ahead = [Ahead(index) for _ in range(plan.recipe.members) for index in range(len(stages))]
    left = what_is_left(plan, amounts, measured, ahead)
    if left is None or left.fold < DAY:
        return []
    least = "" if left.whole else "at least "
    lines = [
        f"by a trial with small patches, which run faster, an iteration takes {chosen:.2g} s or more here, and the "
        f"fold {least}{messages.duration(left.fold)}; the first iterations will tell"
    ]
    if chosen == step.float32 and step.gain > WORTH_IT:
        lines.append(f"  in bfloat16 it was {step.gain:.1f} times as fast: --set precision=bfloat16")
    found = evening(plan, amounts, measured)
    if found is not None:
        words, seconds = found
        lines.append(f"  about an evening ({messages.duration(seconds)}): --set {' '.join(words)}")
    return lines


def _small(plan: Plan, stage: Stage, trainer: Trainer, shape: Sequence[int]) -> Stage:
    """The stage with a patch and batch of few voxels, of about the same proportions."""
    row = network_row(plan, stage.network, trainer)
    divisor = row.divisor_of(plan.networks[stage.network].arguments)
    if row.classifies:
        return stage
    wanted = stage.patch_size or ["whole"] * len(divisor)
    whole = shape[-len(wanted) :]
    size = [int(n) if edge == "whole" else int(edge) for edge, n in zip(wanted, whole, strict=True)]
    least = [2 * d if d > 1 else min(8, n) for d, n in zip(divisor, size, strict=True)]
    while _volume(size) > VOXELS and any(n > m for n, m in zip(size, least, strict=True)):
        axis = max(range(len(size)), key=lambda a: size[a] / least[a])
        size[axis] = max(least[axis], (size[axis] // 2 // divisor[axis]) * divisor[axis])
    batch = max(min(2, stage.batch_size), min(stage.batch_size, VOXELS // _volume(size)))
    fitted = [-(-n // d) * d for n, d in zip(size, divisor, strict=True)]
    return stage.model_copy(update={"patch_size": fitted, "batch_size": batch})


def _volume(size: Sequence[int]) -> int:
    voxels = 1
    for n in size:
        voxels *= n
    return voxels


def _seconds(
    network: nn.Module, loss: object, batch: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype | None
) -> float:
    """Of one forward and backward pass."""
    images, target = batch
    network.zero_grad(set_to_none=True)
    started = time.perf_counter()
    with autocast(images.device, dtype):
        outputs = network(images)
    loss(outputs, target).backward()  # type: ignore[operator]
    return time.perf_counter() - started


@contextlib.contextmanager
def _state_of_numbers() -> Iterator[None]:
    """Random numbers that are drawn within are drawn again afterwards: a trial changes no training."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
