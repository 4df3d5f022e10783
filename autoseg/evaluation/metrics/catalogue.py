"""What a segmentation is scored by, for one class: two boolean masks ``[z, y, x]`` on the same grid.

Every metric is one row of :data:`METRICS`: its unit, its definition, how it is computed, and what it is when
the prediction, the truth or both are empty. ``nan`` means undefined: such values are left out of means and
counted. P is the prediction, T the truth, |P| its number of voxels; TP, FP, FN and TN are numbers of voxels.

The rows come from the modules that compute them: :mod:`~autoseg.evaluation.metrics.overlap` (and volume),
:mod:`~autoseg.evaluation.metrics.distances`, :mod:`~autoseg.evaluation.metrics.surface`,
:mod:`~autoseg.evaluation.metrics.shape` and :mod:`~autoseg.evaluation.metrics.lesions`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoseg.evaluation.metrics import distances, lesions, overlap, shape, surface
from autoseg.evaluation.metrics.metric import GROUPS, Metric
from autoseg.evaluation.metrics.overlap import micro_dice
from autoseg.evaluation.metrics.pair import Pair, border, union_box

__all__ = [
    "METRICS",
    "Pair",
    "border",
    "dice",
    "hausdorff_mm",
    "hd95_mm",
    "micro_dice",
    "score",
    "union_box",
]


def _in_order(*rows: Iterable[Metric]) -> dict[str, Metric]:
    """By name, cheap groups first."""
    metrics = [metric for some in rows for metric in some]
    return {metric.name: metric for group in GROUPS for metric in metrics if metric.group == group}


METRICS: dict[str, Metric] = _in_order(
    overlap.METRICS, lesions.DEFAULT_METRICS, distances.METRICS, surface.METRICS, shape.METRICS
)
"""All metrics by name with their default definitions, in the order in which they are reported."""


def score(pair: Pair, metrics: Iterable[Metric] | None = None) -> dict[str, float]:
    """Name to value of these metrics (by default all of :data:`METRICS`), in their order; ``nan`` is undefined."""
    return {metric.name: metric(pair) for metric in (METRICS.values() if metrics is None else metrics)}


# ------------------------------------------------------------------------------------------ one value at a time


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two boolean masks of the same shape, any number of axes; 1 when both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / total) if total else 1.0


def hd95_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """HD95 in mm of two boolean masks ``[z, y, x]``, see :data:`METRICS`; ``nan`` when one is empty."""
    return METRICS["hd95_mm"](Pair(prediction, truth, spacing_mm))


def hausdorff_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """Hausdorff distance in mm of two boolean masks ``[z, y, x]``; ``nan`` when one is empty."""
    return METRICS["hausdorff_mm"](Pair(prediction, truth, spacing_mm))
