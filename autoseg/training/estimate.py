"""How long a fold takes, from what its first iterations took: pure arithmetic on seconds and counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from autoseg import messages
from autoseg.bundle.layout import PREDICTING_NETWORK, expected_members
from autoseg.plan import Plan, Stage, apply_overrides

FORWARD_SHARE = 1 / 3
"""Of a training step: the backward pass works out gradients of inputs and of weights, each about as much again."""

DAY, EVENING = 86400.0, 4 * 3600.0
FEWEST_EPOCHS = 5
"""A training is not cut shorter than this as long as something else can be cut."""
SHORT_EPOCH = 50  # iterations


@dataclass(frozen=True)
class Amounts:
    """What a fold does beside the iterations of its stages.

    Attributes:
        validated: cases in each validation, by index of the stage.
        scored: cases that are predicted after the last stage.
        fitted: cases that are predicted for steps that learn.
        mirrorings: passes of each tile in these predictions.
        batch_voxels: that the network sees in an iteration, by index of the stage.
        case_voxels: that a network sees of a mean case, tile after tile, once.
    """

    validated: Mapping[int, int]
    scored: int
    fitted: int
    mirrorings: int
    batch_voxels: Mapping[int, float]
    case_voxels: float


@dataclass
class Measured:
    """Seconds that were measured, and counts that are known.

    Attributes:
        iteration: seconds of one, by index of the stage.
        iterations: in an epoch, by index of the stage.
        case: seconds to predict a case once, unmirrored, by one network; None before any was predicted.
        rest: seconds of an epoch that are neither iterations nor validation.
    """

    iteration: dict[int, float] = field(default_factory=dict)
    iterations: dict[int, int] = field(default_factory=dict)
    case: float | None = None
    rest: float = 0.0


@dataclass(frozen=True)
class Ahead:
    """A stage of a member that is not trained to its end.

    Attributes:
        index: of the stage.
        epoch, iteration: the next ones, counted from 0.
    """

    index: int
    epoch: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class Left:
    """Seconds until the end of the epoch, the stage and the fold.

    Attributes:
        whole: whether all of the fold is in it; else some stage could not be estimated yet.
    """

    epoch: float
    stage: float
    fold: float
    whole: bool = True


def left_words(left: Left) -> str:
    """``stage 3 h, fold 9 h``; the fold says ``at least`` where some stage is not measured yet."""
    least = "" if left.whole else "at least "
    stage = f"stage {messages.duration(left.stage)}, " if left.stage else ""
    return f"{stage}fold {least}{messages.duration(left.fold)}"


def what_is_left(plan: Plan, amounts: Amounts, measured: Measured, ahead: Sequence[Ahead]) -> Left | None:
    """The time that is left, None before the first stage ahead was measured.

    Args:
        plan: the plan.
        amounts: see there.
        measured: see there.
        ahead: the stages of all members that are left, the running one first.
    """
    stages = [stage_seconds(plan, amounts, measured, one) for one in ahead]
    step = iteration_seconds(plan, amounts, measured, ahead[0].index)
    if step is None or stages[0] is None:
        return None
    count = measured.iterations[ahead[0].index]
    last = prediction_seconds(plan, amounts, measured)
    fold = sum(filter(None, [*stages, last]))
    return Left((count - ahead[0].iteration) * step, stages[0], fold, None not in stages)


def stage_seconds(plan: Plan, amounts: Amounts, measured: Measured, ahead: Ahead) -> float | None:
    """Of one stage of one member from where it stands; None where nothing like it was measured."""
    stage = plan.recipe.stages[ahead.index]
    step = iteration_seconds(plan, amounts, measured, ahead.index)
    counts = [n for n in (stage.iterations_per_epoch, measured.iterations.get(ahead.index)) if n is not None]
    if step is None or not counts:
        return None
    count = min(counts)  # a source may have fewer than the plan asks for
    epochs = stage.epochs - ahead.epoch
    seconds = (epochs * count - ahead.iteration) * step + epochs * measured.rest
    cases = n_validations(plan, stage, ahead.epoch) * amounts.validated.get(ahead.index, 0)
    return seconds + cases * (case_seconds(plan, amounts, measured) or 0.0)


def iteration_seconds(plan: Plan, amounts: Amounts, measured: Measured, index: int) -> float | None:
    """Measured in this stage, else in another of the same network and by the voxels that it sees."""
    if index in measured.iteration:
        return measured.iteration[index]
    stages = plan.recipe.stages
    for other, seconds in measured.iteration.items():
        if stages[other].network == stages[index].network:
            return seconds * amounts.batch_voxels[index] / amounts.batch_voxels[other]
    return None


def case_seconds(plan: Plan, amounts: Amounts, measured: Measured) -> float | None:
    """To predict a case once with one network: measured, else worked out from the iterations by voxels."""
    if measured.case is not None:
        return measured.case
    for index, stage in enumerate(plan.recipe.stages):
        step = iteration_seconds(plan, amounts, measured, index)
        if stage.network == PREDICTING_NETWORK and step is not None:
            return step * FORWARD_SHARE * amounts.case_voxels / amounts.batch_voxels[index]
    return None


def n_validations(plan: Plan, stage: Stage, epoch: int = 0) -> int:
    """From the epoch on (counted from 0); the last one always has one."""
    if stage.network != PREDICTING_NETWORK or epoch >= stage.epochs:
        return 0
    every = plan.recipe.validation.every
    return stage.epochs // every - epoch // every + (stage.epochs % every > 0)


def prediction_seconds(plan: Plan, amounts: Amounts, measured: Measured) -> float:
    """Of all cases by all networks after the last stage; 0 where nothing can be said of it."""
    passes = len(expected_members(plan, "final")) * (
        amounts.mirrorings if plan.recipe.inference.mirror_axes else 1
    )
    return (amounts.scored + amounts.fitted) * passes * (case_seconds(plan, amounts, measured) or 0.0)


# --------------------------------------------------------------------------------------------- cut to an evening


def evening(plan: Plan, amounts: Amounts, measured: Measured) -> tuple[list[str], float] | None:
    """What to set so that a whole fold takes an evening, and the seconds that it then takes.

    The epochs are cut first, then, as long as too few are left, what else costs time.

    Returns:
        Words for ``--set``, None where no cut is enough or nothing was measured.
    """
    found = None
    for cuts in _cuts(plan, amounts):
        shorter = apply_overrides(plan, dict(cuts)) if cuts else plan
        epochs = _most_epochs(shorter, amounts, measured)
        if epochs:
            changed = _with_epochs(shorter, epochs)
            words = [f"epochs={epochs}", *(f"{path}={value}" for path, value in cuts.items())]
            late = any(epoch > epochs for stage in plan.recipe.stages for epoch in stage.snapshots)
            found = [*words, *["snapshots=[]"] * late], fold_seconds(changed, amounts, measured)
        if epochs >= FEWEST_EPOCHS:
            break
    return found


def _cuts(plan: Plan, amounts: Amounts) -> Iterator[dict[str, object]]:
    """Ever more changes that save time."""
    cuts: dict[str, object] = {}
    yield dict(cuts)
    mirrored = amounts.mirrorings > 1 and bool(plan.recipe.inference.mirror_axes)
    long = [stage.name for stage in plan.recipe.stages if (stage.iterations_per_epoch or 0) > SHORT_EPOCH]
    further: list[dict[str, object]] = [
        {"members": 1} if plan.recipe.members > 1 else {},
        {"inference.mirror_axes": []} if mirrored else {},
        {f"stages.{name}.iterations_per_epoch": SHORT_EPOCH for name in long},
    ]
    for more in filter(None, further):
        cuts |= more
        yield dict(cuts)


def _most_epochs(plan: Plan, amounts: Amounts, measured: Measured) -> int:
    """The most epochs of each stage with which a fold takes no more than an evening; 0 where one is too many."""
    low, high = 0, max(stage.epochs for stage in plan.recipe.stages)
    while low < high:
        middle = math.ceil((low + high) / 2)
        if fold_seconds(_with_epochs(plan, middle), amounts, measured) <= EVENING:
            low = middle
        else:
            high = middle - 1
    return low


def _with_epochs(plan: Plan, epochs: int) -> Plan:
    """The plan with as many epochs in each stage; if a snapshot lies beyond them, all go."""
    late = any(epoch > epochs for stage in plan.recipe.stages for epoch in stage.snapshots)
    changed = {"epochs": epochs, **({"snapshots": []} if late else {})}
    stages = [stage.model_copy(update=changed) for stage in plan.recipe.stages]
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"stages": stages})})


def fold_seconds(plan: Plan, amounts: Amounts, measured: Measured) -> float:
    """Seconds of a whole fold, from scratch, as far as they are known."""
    return sum(
        _known(stage_seconds(plan, amounts, measured, Ahead(i)) for i in range(len(plan.recipe.stages)))
    ) * (plan.recipe.members) + prediction_seconds(plan, amounts, measured)


def _known(seconds: Iterable[float | None]) -> Iterator[float]:
    return (value for value in seconds if value is not None)
