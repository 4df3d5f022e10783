"""How long a fold will take, said before anything starts: from steps on random numbers and the sizes in a fingerprint.

With ``--hours`` a plan is cut to a time: all stages by one share of their epochs, so that they keep their proportions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from autoseg import messages
from autoseg.bundle.fitted import learning_steps
from autoseg.dataset.folds import Fold, make_folds
from autoseg.device import accelerates, device_name
from autoseg.errors import AutosegError
from autoseg.fingerprint import CaseFingerprint, Fingerprint
from autoseg.messages import count_of, duration
from autoseg.plan import ForetoldTime, Named, Plan, Reason, Stage, replan
from autoseg.plan.table import length_words
from autoseg.plugins.parts import PassFacts
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import samplers
from autoseg.training import schedules
from autoseg.training.amounts import count_amounts, patch_of
from autoseg.training.dry_steps import DryStep, measure_step
from autoseg.training.estimate import Amounts, Measured, fold_seconds
from autoseg.training.fit import cases_to_fit
from autoseg.training.sources import source_part

HOUR = 3600.0
FEW_STEPS = 500
"""A training of fewer is warned of."""
FEW_EPOCHS, FEWEST_ITERATIONS = 10, 5
"""Epochs that are left before the iterations of an epoch are cut too; and those that an epoch keeps."""


@dataclass(frozen=True)
class Workload:
    """What a fold of a plan has to do, and what a part of it takes here.

    Attributes:
        amounts, measured: see :mod:`autoseg.training.estimate`.
        steps: by index of the stage.
        device: in words.
    """

    amounts: Amounts
    measured: Measured
    steps: Mapping[int, DryStep]
    device: str

    def seconds(self, plan: Plan) -> float:
        """Of a fold by a plan with the same stages, as far as they were measured."""
        return fold_seconds(plan, self.amounts, self.measured)

    def whole(self, plan: Plan) -> bool:
        """Whether all stages were measured, and the lengths of their epochs are known."""
        return len(self.measured.iterations) == len(self.steps) == len(plan.recipe.stages)


def measure(
    plan: Plan,
    fingerprint: Fingerprint,
    trainer: Trainer,
    device: torch.device,
    folds: list[Fold] | None = None,
    known: Mapping[str, float] | None = None,
) -> Workload:
    """Measure the steps of a plan and count what a fold has to do.

    Args:
        plan: the plan.
        fingerprint: that it was made from.
        trainer: of the plan.
        device: that will train.
        folds: that are in use; the usual five where there are none.
        known: seconds of a step by stage, which are not measured again.

    Raises:
        AutosegError: a step does not fit the memory of the device.
    """
    cases = {case.name: case for case in fingerprint.cases}
    shapes = {name: working_shape(case, plan) for name, case in cases.items()}
    fold = next(iter(folds or make_folds(list(cases))), Fold(tuple(cases), ()))
    middle = sorted(shapes.values(), key=math.prod)[len(shapes) // 2]
    measured = Measured()
    steps: dict[int, DryStep] = {}
    for index, stage in enumerate(plan.recipe.stages):
        alike = next((i for i in steps if _same_step(plan.recipe.stages[i], stage)), None)
        if stage.name in (known or {}):
            step = DryStep((known or {})[stage.name], None, 1.0)
        else:
            step = steps[alike] if alike is not None else measure_step(plan, stage, trainer, device, middle)
        steps[index], measured.iteration[index] = step, float(f"{step.seconds:.3g}")
        count = _iterations(plan, stage, fold, cases, shapes, trainer)
        if count is not None:
            measured.iterations[index] = count
    fitted = {name for learning in learning_steps(plan) for name in cases_to_fit(plan, fold, learning)}
    amounts = count_amounts(plan, fold, lambda name: shapes[name], len(fitted), accelerates(device))
    return Workload(amounts, measured, steps, device_name(device))


def working_shape(case: CaseFingerprint, plan: Plan) -> tuple[int, ...]:
    """About the size of a case on the working grid, z, y, x: what cropping to the head leaves is not known before."""
    settings = plan.preprocessing
    crop = settings.crop_to_nonzero and not settings.crop_to_object
    shape = case.shape_after_crop if crop else case.shape
    pairs = zip(settings.transpose, settings.spacing_mm, strict=True)
    return tuple(
        max(1, round(shape[axis] * case.spacing_mm[axis] / (wanted or case.spacing_mm[axis])))
        for axis, wanted in pairs
    )


def _same_step(one: Stage, other: Stage) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("network", "patch_size", "batch_size", "context", "channels", "frozen")
    )


def _iterations(
    plan: Plan,
    stage: Stage,
    fold: Fold,
    cases: Mapping[str, CaseFingerprint],
    shapes: Mapping[str, tuple[int, ...]],
    trainer: Trainer,
) -> int | None:
    """Of an epoch; None where it depends on what an earlier stage finds."""
    if stage.iterations_per_epoch is not None:
        return stage.iterations_per_epoch
    if source_part(stage.sampling.name, trainer) is not None:
        return None
    patch = patch_of(stage.patch_size, shapes[fold.train[0]])
    depth = statistics.median(shapes[name][0] for name in fold.train)
    facts = PassFacts(
        cases=len(fold.train),
        lesion_voxels=sum(_lesion_voxels(cases[name], plan) for name in fold.train),
        parts=math.ceil(depth / patch[0]) if len(patch) == 3 else round(depth),
    )
    row = samplers.REGISTRY.get(stage.sampling.name, trainer)
    return max(1, math.ceil(row.foretold(facts, **stage.sampling.arguments) / stage.batch_size))


def _lesion_voxels(case: CaseFingerprint, plan: Plan) -> float:
    """Of a case on the working grid."""
    settings = plan.preprocessing
    pairs = zip(settings.transpose, settings.spacing_mm, strict=True)
    scale = math.prod(case.spacing_mm[axis] / (wanted or case.spacing_mm[axis]) for axis, wanted in pairs)
    return case.lesions.volume_voxels * scale


def as_record(plan: Plan, work: Workload, hours: float | None = None, published: str = "") -> ForetoldTime:
    """What is kept in the plan of it."""
    stages = plan.recipe.stages
    peaks = [step.peak_gb for step in work.steps.values() if step.peak_gb is not None]
    return ForetoldTime(
        device=work.device,
        step_seconds={stages[i].name: seconds for i, seconds in work.measured.iteration.items()},
        fold_seconds=float(f"{work.seconds(plan):.3g}"),
        whole=work.whole(plan),
        peak_gb=round(max(peaks), 2) if peaks else None,
        hours=hours,
        published=published,
    )


# ------------------------------------------------------------------------------------------------ cut to a time


def fit_hours(plan: Plan, work: Workload, hours: float, trainer: Trainer) -> Plan:
    """The plan, cut so that a fold takes at most so many hours here; as it is where it takes no more anyway.

    Raises:
        AutosegError: not even a few iterations of each stage fit.
    """
    whole, limit = work.seconds(plan), hours * HOUR
    if whole <= limit:
        why = f"--hours {hours:g}: the whole length takes about {duration(whole)} for a fold on {work.device}"
        return _said(plan, plan, hours, why)
    share = _largest_share(lambda share: work.seconds(_cut(plan, work, trainer, share)) <= limit)
    if share is not None:
        return _shortened(plan, work, trainer, share, hours)
    least = work.seconds(_cut(plan, work, trainer, 0.0))
    raise AutosegError(
        f"{hours:g} hours are too few for any training by this plan",
        where=f"planner {plan.planner}, on {work.device}",
        found=f"about {duration(least)} for one epoch of {FEWEST_ITERATIONS} iterations in each stage and the "
        f"prediction of {count_of(work.amounts.scored, 'case')}",
        expected=f"--hours {math.ceil(100 * least / HOUR) / 100:g} or more",
        fix="give more hours, or plan for trying out with --set planner.length=quick",
    )


def _largest_share(fits: Callable[[float], bool]) -> float | None:
    """The largest share, to a hundred-thousandth, with which something fits; None where not even 0 does."""
    if not fits(0.0):
        return None
    low, high = 0, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle / 100_000) else (low, middle)
    return low / 100_000


def _cut(plan: Plan, work: Workload, trainer: Trainer, share: float) -> Plan:
    """The plan with a share of its training, without reasons; for reckoning."""
    stages = [
        stage.model_copy(update=_cut_stage(stage, work.measured.iterations.get(index), trainer, share))
        for index, stage in enumerate(plan.recipe.stages)
    ]
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"stages": stages})})


def _cut_stage(stage: Stage, iterations: int | None, trainer: Trainer, share: float) -> dict[str, Any]:
    """What changes in a stage: epochs, or the iterations of an epoch where few epochs would be left, and what counts in
    epochs.

    Args:
        stage: of the plan.
        iterations: of its epoch; None where they are not known.
        trainer: of the plan.
        share: of its iterations that is left.
    """
    epochs, changed = math.floor(stage.epochs * share), dict[str, Any]()
    few = min(FEW_EPOCHS, stage.epochs)
    if epochs < few and iterations is not None:
        left = stage.epochs * share * iterations
        epochs = max(1, min(few, math.floor(left / FEWEST_ITERATIONS)))
        fewest = min(FEWEST_ITERATIONS, iterations)
        changed["iterations_per_epoch"] = max(fewest, math.floor(left / epochs))
    epochs = max(1, epochs)
    schedule, epochs = _cut_schedule(stage, epochs, trainer)
    if schedule != stage.schedule:
        changed["schedule"] = schedule
    scaled = partial(_scaled, epochs=epochs, of=stage.epochs)
    if stage.snapshots:
        changed["snapshots"] = scaled(stage.snapshots)
    if isinstance(stage.keep, list):
        changed["keep"] = scaled(stage.keep)
    if stage.save_every is not None:
        changed["save_every"] = max(1, stage.save_every * epochs // stage.epochs)
    return {"epochs": epochs, **changed}


def _cut_schedule(stage: Stage, epochs: int, trainer: Trainer) -> tuple[Named, int]:
    """The schedule for so many epochs, and the epochs of its whole cycles; as many cycles as before, if they can be."""
    arguments = dict(stage.schedule.arguments)
    for name in schedules.REGISTRY.get(stage.schedule.name, trainer).in_epochs:
        if length := arguments.get(name):
            arguments[name] = max(1, math.floor(length * epochs / stage.epochs))
            epochs = max(1, epochs // arguments[name]) * arguments[name]
    return stage.schedule.model_copy(update={"arguments": arguments}), epochs


def _scaled(numbers: Iterable[int], epochs: int, of: int) -> list[int]:
    """Epochs that keep their place in a shorter training."""
    return sorted({max(1, round(number * epochs / of)) for number in numbers})


def _shortened(plan: Plan, work: Workload, trainer: Trainer, share: float, hours: float) -> Plan:
    """The plan that is handed out, with what the method had beside each value that was cut."""
    changes: dict[str, Any] = {}
    for index, stage in enumerate(plan.recipe.stages):
        for name, value in _cut_stage(stage, work.measured.iterations.get(index), trainer, share).items():
            changes[f"stages.{index}.{name}"] = value.model_dump() if isinstance(value, Named) else value
    short = replan(plan, changes, f"cut by --hours {hours:g}")
    steps = _steps(short, work)
    if steps < FEW_STEPS:
        messages.warn(
            f"--hours {hours:g} leave {count_of(steps, 'step')} of training on {work.device}, which teach a network "
            "little: plan for less memory (such as -gpu_memory_target 1), so that each step is shorter, or use a card"
        )
    why = (
        f"--hours {hours:g}: about {duration(work.seconds(short))} for a fold on {work.device}, by the measured time "
        f"of a step; the published length ({length_words(plan)}) would take about {duration(work.seconds(plan))}. "
        "Scores are those of the shorter training"
    )
    return _said(short, plan, hours, why)


def _steps(plan: Plan, work: Workload) -> int:
    """Of the longest stage, as far as the length of its epochs is known."""
    counts = {index: stage.iterations_per_epoch for index, stage in enumerate(plan.recipe.stages)}
    known = {index: n or work.measured.iterations.get(index, 0) for index, n in counts.items()}
    return max(plan.recipe.stages[index].epochs * n for index, n in known.items())


def _said(plan: Plan, full: Plan, hours: float, why: str) -> Plan:
    value = length_words(plan) if plan is not full else "as published"
    reason = Reason(what="length", value=value, why=why)
    options = {**plan.planner_options, "hours": hours}
    return plan.model_copy(update={"planner_options": options, "reasons": [reason, *plan.reasons]})
