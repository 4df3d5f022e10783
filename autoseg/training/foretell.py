"""How long a fold will take, said before anything starts: from steps on random numbers and the sizes in a fingerprint.

With ``--hours`` a plan is cut to a time: all stages by one share of their epochs, so that they keep their proportions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autoseg.bundle.fitted import learning_steps
from autoseg.dataset.folds import Fold, make_folds
from autoseg.device import accelerates, device_name
from autoseg.errors import AutosegError
from autoseg.fingerprint import CaseFingerprint, Fingerprint
from autoseg.messages import duration
from autoseg.plan import ForetoldTime, Plan, Reason, Stage, replan
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
FEWEST_ITERATIONS = 5
"""Of an epoch that is cut too, where one whole epoch is too long."""


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
    measured, steps = Measured(), {}
    for index, stage in enumerate(plan.recipe.stages):
        alike = next((i for i in steps if _same_step(plan.recipe.stages[i], stage)), None)
        if stage.name in (known or {}):
            step = DryStep((known or {})[stage.name], None, 1.0)
        else:
            step = steps[alike] if alike is not None else measure_step(plan, stage, trainer, device, middle)
        steps[index], measured.iteration[index] = step, step.seconds
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
        step_seconds={stages[i].name: float(f"{s:.3g}") for i, s in work.measured.iteration.items()},
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
        AutosegError: not even one epoch of a few iterations fits.
    """
    whole, limit = work.seconds(plan), hours * HOUR
    if whole <= limit:
        why = f"--hours {hours:g}: the whole length takes about {duration(whole)} for a fold on {work.device}"
        return _said(plan, plan, hours, why)

    def fits(share: float, iterations: int | None = None) -> bool:
        return work.seconds(_cut(plan, trainer, share, iterations)) <= limit

    share = _largest_share(fits)
    if share is not None:
        return _shortened(plan, work, trainer, share, None, hours)
    most = max(work.measured.iterations.values(), default=FEWEST_ITERATIONS)
    fitting = next((n for n in range(most, FEWEST_ITERATIONS - 1, -1) if fits(0.0, n)), None)
    if fitting is not None:
        return _shortened(plan, work, trainer, 0.0, fitting, hours)
    least = work.seconds(_cut(plan, trainer, 0.0, FEWEST_ITERATIONS))
    raise AutosegError(
        f"{hours:g} hours are too few for any training by this plan",
        where=f"planner {plan.planner}, on {work.device}",
        found=f"about {duration(least)} for one epoch of {FEWEST_ITERATIONS} iterations and the prediction of "
        f"{work.amounts.scored} cases",
        expected=f"--hours {math.ceil(100 * least / HOUR) / 100:g} or more",
        fix="give more hours, or plan for trying out with --set planner.length=quick",
    )


def _largest_share(fits: Callable[[float], bool]) -> float | None:
    """The largest share, to a ten-thousandth, with which something fits; None where not even 0 does."""
    if not fits(0.0):
        return None
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle / 10_000) else (low, middle)
    return low / 10_000


def _cut(plan: Plan, trainer: Trainer, share: float, iterations: int | None) -> Plan:
    """The plan with a share of its epochs, without reasons; for reckoning."""
    stages = [
        stage.model_copy(update=_cut_stage(stage, trainer, share, iterations)) for stage in plan.recipe.stages
    ]
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"stages": stages})})


def _cut_stage(stage: Stage, trainer: Trainer, share: float, iterations: int | None) -> dict[str, Any]:
    """What changes in a stage: epochs, and what counts in them. Cycles of a schedule stay whole."""
    part, arguments = schedules.REGISTRY.get(stage.schedule.name, trainer), dict(stage.schedule.arguments)
    epochs = max(1, math.floor(stage.epochs * share))
    for name in part.in_epochs:
        if arguments.get(name):
            arguments[name] = max(1, round(arguments[name] * epochs / stage.epochs))
            epochs = (
                max(1, epochs // arguments[name]) * arguments[name] if epochs >= arguments[name] else epochs
            )
    changed: dict[str, Any] = {"epochs": epochs}
    if arguments != stage.schedule.arguments:
        changed["schedule"] = stage.schedule.model_copy(update={"arguments": arguments})
    if stage.snapshots:
        changed["snapshots"] = sorted({max(1, round(e * epochs / stage.epochs)) for e in stage.snapshots})
    if stage.save_every is not None:
        changed["save_every"] = max(1, stage.save_every * epochs // stage.epochs)
    if isinstance(stage.keep, list):
        changed["keep"] = sorted({max(1, round(e * epochs / stage.epochs)) for e in stage.keep})
    if iterations is not None:
        changed["iterations_per_epoch"] = min(iterations, stage.iterations_per_epoch or iterations)
    return changed


def _shortened(
    plan: Plan, work: Workload, trainer: Trainer, share: float, iterations: int | None, hours: float
) -> Plan:
    """The plan that is handed out, with what the method had beside each value that was cut."""
    changes: dict[str, Any] = {}
    for index, stage in enumerate(plan.recipe.stages):
        for name, value in _cut_stage(stage, trainer, share, iterations).items():
            value = value.model_dump(mode="json") if name == "schedule" else value
            changes[f"stages.{index}.{name}"] = value
    short = replan(plan, changes, f"cut by --hours {hours:g}")
    why = (
        f"--hours {hours:g}: about {duration(work.seconds(short))} for a fold on {work.device}, by the measured time "
        f"of a step; the published length ({length_words(plan)}) would take about {duration(work.seconds(plan))}. "
        "Scores are those of the shorter training"
    )
    return _said(short, plan, hours, why)


def _said(plan: Plan, full: Plan, hours: float, why: str) -> Plan:
    value = length_words(plan) if plan is not full else "as published"
    reason = Reason(what="length", value=value, why=why)
    options = {**plan.planner_options, "hours": hours}
    return plan.model_copy(update={"planner_options": options, "reasons": [reason, *plan.reasons]})
