"""How much there is to do in a fold beside iterations, for an estimate of the time: cases, tiles, voxels."""

from __future__ import annotations

from collections.abc import Iterable

from autoseg.dataset.folds import Fold, watched_cases
from autoseg.device import accelerates
from autoseg.inference.tiling import make_tiling, mirrorings
from autoseg.plan import Inference, PatchSize, Plan, Stage
from autoseg.training.estimate import Amounts
from autoseg.training.fit import fitted_cases
from autoseg.training.job import FoldJob


def amounts_of(job: FoldJob, fold: Fold) -> Amounts:
    """What a fold does beside iterations, from the sizes of its preprocessed cases."""
    plan, scored = job.plan, fold.test or fold.validation
    shapes = [_shape(job, name) for name in (scored or fold.train)]
    inference, stages = plan.recipe.inference, dict(enumerate(plan.recipe.stages))
    planes = len(inference.patch_size) == 2 or len(stages[len(stages) - 1].patch_size) == 2
    return Amounts(
        validated={index: _n_validated(plan, fold, stage) for index, stage in stages.items()},
        scored=len(scored),
        fitted=len(fitted_cases(job, fold)),
        mirrorings=len(mirrorings(inference.mirror_axes, planes)) if accelerates(job.device) else 1,
        batch_voxels={
            index: stage.batch_size * _mean(_seen(stage, shape) for shape in shapes)
            for index, stage in stages.items()
        },
        case_voxels=_mean(_predicted(inference, shape) for shape in shapes),
    )


def _n_validated(plan: Plan, fold: Fold, stage: Stage) -> int:
    wanted, there = plan.recipe.validation.cases, len(watched_cases(fold, stage))
    return there if wanted == "all" else min(wanted, there)


def largest_case(job: FoldJob, fold: Fold) -> tuple[int, ...]:
    """The shape of the preprocessed training case of most voxels, z, y, x."""
    return max((_shape(job, name) for name in fold.train), key=lambda shape: _volume(shape, ()))


def _shape(job: FoldJob, name: str) -> tuple[int, ...]:
    """Of a preprocessed case, z, y, x."""
    return tuple(job.prepared.store.record(name).arrays["image"].shape[-3:])


def _seen(stage: Stage, shape: tuple[int, ...]) -> float:
    """Voxels that the network sees of one sample: the patch and its context."""
    return _volume(_size(stage.patch_size, shape), stage.context)


def _size(patch: PatchSize, shape: tuple[int, ...]) -> list[int]:
    wanted = patch or ["whole"] * 3
    return [
        n if edge == "whole" else int(edge) for edge, n in zip(wanted, shape[-len(wanted) :], strict=True)
    ]


def _predicted(inference: Inference, shape: tuple[int, ...]) -> float:
    """Voxels that a network sees of a case, tile after tile."""
    return float(make_tiling(shape, inference).seen_voxels)


def _volume(size: Iterable[int], context: Iterable[int]) -> float:
    edges, around = list(size), list(context)
    around = around or [0] * len(edges)
    volume = 1.0
    for edge, extra in zip(edges, around, strict=True):
        volume *= edge + 2 * extra
    return volume


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
