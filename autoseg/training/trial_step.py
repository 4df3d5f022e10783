"""How long a training would take on this CPU, said before it starts: steps on small patches, in both precisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoseg import messages
from autoseg.device import accelerates
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.training.dry_steps import measure_step
from autoseg.training.estimate import DAY, Ahead, Amounts, Measured, evening, what_is_left

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
    """Seconds of a step in both precisions, see :func:`autoseg.training.dry_steps.measure_step`; some seconds of work.

    Args:
        plan, stage, trainer: the stage is one of the plan's, the trainer its own.
        device: that does not work beside the CPU.
        shape: of a case, z, y, x, for axes that take the whole image.

    Raises:
        ValueError: the device is not a CPU.
    """
    if accelerates(device):
        raise ValueError(f"{device} is not tried: its times say little about other sizes")
    found = []
    for precision in ("float32", "bfloat16"):
        recipe = plan.recipe.model_copy(update={"precision": precision})
        tried = plan.model_copy(update={"recipe": recipe})
        found.append(measure_step(tried, stage, trainer, device, tuple(shape)).seconds)
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
