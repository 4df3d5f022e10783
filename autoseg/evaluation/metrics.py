"""What a segmentation is scored by, for one class: two boolean masks ``[z, y, x]`` on the same grid.

Every metric is one row of :data:`METRICS`: its unit, its definition, how it is computed, and what it is when
the prediction, the truth or both are empty. ``nan`` means undefined: such values are left out of means and
counted.

Notation: P is the prediction, T the truth, |P| its number of voxels. The border of a mask is the mask minus its
erosion by the 6-neighbour cross, where everything outside the array is background. A lesion is a 26-connected
component. Distances are Euclidean, between the centres of border voxels, in mm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NAN = math.nan


# --------------------------------------------------------------------------------------------- what is compared


class Pair:
    """Prediction and truth of one class; what several metrics need is computed once, when first asked for.

    All work is done inside the box around both masks, so that the size of the volume does not matter.

    Args:
        prediction, truth: boolean ``[z, y, x]``.
        spacing_mm: z, y, x.
        total_voxels: voxels that are scored, for true negatives; None is all of the array.

    Attributes:
        tp, fp, fn, tn: numbers of voxels.
    """

    def __init__(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        spacing_mm: Iterable[float],
        total_voxels: int | None = None,
    ) -> None:
        total = truth.size if total_voxels is None else total_voxels
        box = union_box(prediction, truth)
        self.prediction, self.truth = prediction[box], truth[box]
        self.spacing_mm = np.asarray(tuple(spacing_mm), float)
        self.tp = int(np.count_nonzero(self.prediction & self.truth))
        self.fp = int(np.count_nonzero(self.prediction)) - self.tp
        self.fn = int(np.count_nonzero(self.truth)) - self.tp
        self.tn = total - self.tp - self.fp - self.fn

    @property
    def empty(self) -> str:
        """Which of the masks is empty: ``prediction``, ``truth``, ``both``, or an empty text for none."""
        no_prediction, no_truth = self.tp + self.fp == 0, self.tp + self.fn == 0
        if no_prediction and no_truth:
            return "both"
        return "prediction" if no_prediction else "truth" if no_truth else ""

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(self.spacing_mm.prod()) / 1000

    @cached_property
    def border_distances_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """From every border voxel of P to the nearest of T, and the other way round; neither mask is empty."""
        ours, theirs = border(self.prediction), border(self.truth)
        return _directed(ours, theirs, self.spacing_mm), _directed(theirs, ours, self.spacing_mm)

    @cached_property
    def lesions(self) -> LesionCounts:
        """Lesions of both masks, matched by any shared voxel."""
        import cc3d

        touched = self.prediction & self.truth
        counts = []
        for mask in (self.truth, self.prediction):
            labels, n = cc3d.connected_components(
                np.ascontiguousarray(mask, np.uint8), connectivity=26, return_N=True
            )
            counts += [int(n), len(np.unique(labels[touched]))]
        n_truth, found, n_prediction, right = counts
        return LesionCounts(n_truth, n_prediction, found, n_prediction - right)


@dataclass(frozen=True)
class LesionCounts:
    """How many lesions there are and how many match.

    Attributes:
        truth, prediction: lesions in each mask.
        found: lesions of the truth that share a voxel with the prediction.
        false: lesions of the prediction that share none with the truth.
    """

    truth: int
    prediction: int
    found: int
    false: int


def union_box(*masks: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box that holds every non-zero voxel of all masks; without any, a box of no voxel."""
    box: list[slice] = []
    for axis in range(3):
        inner = tuple(box)  # axes that are done already narrow the search on the others
        others = tuple(i for i in range(3) if i != axis)
        used = np.zeros(masks[0].shape[axis], bool)
        for mask in masks:
            used |= mask[inner].any(axis=others)
        where = np.flatnonzero(used)
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0))
    return box[0], box[1], box[2]


def border(mask: np.ndarray) -> np.ndarray:
    """The border voxels of a boolean mask, see the notation above."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        eroded, source = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        eroded[1:] &= source[:-1]
        eroded[:-1] &= source[1:]
        eroded[0] = eroded[-1] = False
    return mask & ~inner


def _directed(start: np.ndarray, end: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Distance in mm from every voxel of ``start`` to the nearest of ``end``.

    A tree of the border voxels is 2 to 35 times faster than distance transforms of the box on real lesions; voxels
    that both share are at 0 without asking it.
    """
    from scipy.spatial import cKDTree

    distances = np.zeros(np.count_nonzero(start))
    apart = np.argwhere(start & ~end) * spacing_mm
    if len(apart):
        tree = cKDTree(np.argwhere(end) * spacing_mm, balanced_tree=False, compact_nodes=False)
        distances[-len(apart) :] = tree.query(apart)[0]
    return distances


# ------------------------------------------------------------------------------------------------- the metrics


@dataclass(frozen=True)
class Empties:
    """What a metric is when a mask is empty."""

    prediction: float
    truth: float
    both: float


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: with the unit, as it appears in files.
        unit: ``1`` for a ratio.
        definition: in one line.
        compute: from a pair in which no mask is empty, unless ``empties`` is None.
        empties: None when the definition holds for empty masks too.
    """

    name: str
    unit: str
    definition: str
    compute: Callable[[Pair], float]
    empties: Empties | None = None

    def __call__(self, pair: Pair) -> float:
        """The value for one pair; ``nan`` where it is undefined."""
        if self.empties is not None and pair.empty:
            return getattr(self.empties, pair.empty)
        return self.compute(pair)


def _percentile_distance(pair: Pair, percentile: float) -> float:
    return float(max(np.percentile(distances, percentile) for distances in pair.border_distances_mm))


def _lesion_f1(pair: Pair) -> float:
    lesions = pair.lesions
    missed = lesions.truth - lesions.found
    return 2 * lesions.found / (2 * lesions.found + missed + lesions.false)


_UNDEFINED = Empties(prediction=NAN, truth=NAN, both=NAN)
_ZERO_UNLESS_BOTH = Empties(prediction=0.0, truth=0.0, both=1.0)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "dice",
            "1",
            "2 |P and T| / (|P| + |T|)",
            lambda pair: 2 * pair.tp / (2 * pair.tp + pair.fp + pair.fn),
            _ZERO_UNLESS_BOTH,
        ),
        Metric(
            "hd95_mm",
            "mm",
            "the larger of the two 95th percentiles (linear interpolation) of the distances from the border of P "
            "to that of T and from the border of T to that of P",
            lambda pair: _percentile_distance(pair, 95),
            _UNDEFINED,
        ),
        Metric(
            "hausdorff_mm",
            "mm",
            "the largest distance from a border voxel of P or T to the border of the other",
            lambda pair: _percentile_distance(pair, 100),
            _UNDEFINED,
        ),
        Metric("volume_truth_ml", "ml", "|T| voxel volume", lambda p: (p.tp + p.fn) * p.voxel_ml),
        Metric("volume_prediction_ml", "ml", "|P| voxel volume", lambda p: (p.tp + p.fp) * p.voxel_ml),
        Metric(
            "volume_difference_ml", "ml", "(|P| - |T|) voxel volume", lambda p: (p.fp - p.fn) * p.voxel_ml
        ),
        Metric("voxels_truth", "voxels", "|T|", lambda pair: pair.tp + pair.fn),
        Metric("voxels_prediction", "voxels", "|P|", lambda pair: pair.tp + pair.fp),
        Metric("tp", "voxels", "|P and T|", lambda pair: pair.tp),
        Metric("fp", "voxels", "|P without T|", lambda pair: pair.fp),
        Metric("fn", "voxels", "|T without P|", lambda pair: pair.fn),
        Metric("tn", "voxels", "scored voxels in neither", lambda pair: pair.tn),
        Metric("lesions_truth", "lesions", "26-connected components of T", lambda p: p.lesions.truth),
        Metric(
            "lesions_prediction", "lesions", "26-connected components of P", lambda p: p.lesions.prediction
        ),
        Metric(
            "lesions_found", "lesions", "lesions of T that share a voxel with P", lambda p: p.lesions.found
        ),
        Metric(
            "lesions_missed",
            "lesions",
            "lesions of T that share no voxel with P",
            lambda p: p.lesions.truth - p.lesions.found,
        ),
        Metric(
            "lesions_false", "lesions", "lesions of P that share no voxel with T", lambda p: p.lesions.false
        ),
        Metric(
            "lesion_f1",
            "1",
            "2 found / (2 found + missed + false)",
            _lesion_f1,
            _ZERO_UNLESS_BOTH,
        ),
    )
}
"""All metrics by name, in the order in which they are reported."""


def score(pair: Pair, names: Iterable[str] | None = None) -> dict[str, float]:
    """The metrics with these names (all of them by default), in the order of the names."""
    return {name: METRICS[name](pair) for name in (METRICS if names is None else names)}


# ------------------------------------------------------------------------------------------ one value at a time


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two boolean masks of the same shape, any number of axes; 1 when both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / total) if total else METRICS["dice"].empties.both


def hd95_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """HD95 in mm of two boolean masks ``[z, y, x]``, see :data:`METRICS`; ``nan`` when one is empty."""
    return METRICS["hd95_mm"](Pair(prediction, truth, spacing_mm))


def hausdorff_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """Hausdorff distance in mm of two boolean masks ``[z, y, x]``; ``nan`` when one is empty."""
    return METRICS["hausdorff_mm"](Pair(prediction, truth, spacing_mm))
