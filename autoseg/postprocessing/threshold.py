"""Another decision than the most probable class: a threshold, set by hand or learned from cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.plugins.parts import FitCase, Segmentation, StepPart

GRID = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""What is tried: 0.05, 0.10, ..., 0.95."""


def threshold(case: Segmentation, *, above: float = 0.5, value: int = 1) -> Segmentation:
    """Lesion is where its probability is above the threshold, strictly; for one class beside the background.

    Args:
        case: with probabilities ``[2, z, y, x]``.
        above: the threshold, 0 to 1.
        value: of the lesion in the mask.

    Raises:
        AutosegError: another number of classes.
    """
    lesion = lesion_probability(case)
    return replace(case, mask=np.where(lesion > np.float32(above), value, 0).astype(np.uint8))


def fit_threshold(cases: Iterable[FitCase], labels: LabelSet, *, value: int = 1) -> dict[str, float]:
    """The threshold of :data:`GRID` with the highest mean Dice over the cases, the one nearest 0.5 of equal ones.

    A case that is empty in truth and prediction has Dice 1. Voxels with the ignore label do not count.
    """
    scores = np.array([_dice(entry, labels, value) for entry in cases]).mean(axis=0)
    best = max(range(len(GRID)), key=lambda i: (round(float(scores[i]), 12), -abs(GRID[i] - 0.5)))
    return {"above": GRID[best]}


def _dice(entry: FitCase, labels: LabelSet, value: int) -> list[float]:
    """Of one case at every threshold."""
    counts = counted_voxels(entry, labels)
    lesion, truth = lesion_probability(entry.case)[counts], entry.truth[counts] == value
    grid, n_true = np.array(GRID, np.float32), int(truth.sum())
    pairs = zip(count_above(lesion, grid), count_above(lesion[truth], grid), strict=True)
    return [2 * int(tp) / (int(n) + n_true) if n + n_true else 1.0 for n, tp in pairs]


def count_above(values: np.ndarray, thresholds: np.ndarray, *, or_equal: bool = False) -> np.ndarray:
    """How many values are above each threshold, in one pass.

    Args:
        values: of any shape.
        thresholds: ascending, ``[n]``.
        or_equal: a value that equals a threshold counts too.

    Returns:
        int64 ``[n]``.
    """
    passed = np.searchsorted(thresholds, np.ravel(values), side="right" if or_equal else "left")
    return np.bincount(passed, minlength=len(thresholds) + 1)[:0:-1].cumsum()[::-1].astype(np.int64)


def counted_voxels(entry: FitCase, labels: LabelSet) -> np.ndarray:
    """bool ``[z, y, x]``: all voxels but those with the ignore label."""
    return np.ones(entry.truth.shape, bool) if labels.ignore is None else entry.truth != labels.ignore


def lesion_probability(case: Segmentation, step: str = "threshold") -> np.ndarray:
    """Of the one class beside the background, ``[z, y, x]``; ``step`` asks for it.

    Raises:
        AutosegError: another number of classes.
    """
    probabilities = case.probabilities
    if probabilities is None or len(probabilities) != 2:
        raise AutosegError(
            f"the post-processing step '{step}' is for one class beside the background",
            found="no probabilities" if probabilities is None else count_of(len(probabilities), "output"),
            expected="2: background and lesion",
            fix=f"take the step out: postprocessing.{step}=off",
        )
    return probabilities[1]


STEPS = (
    StepPart(
        "threshold",
        threshold,
        needs=("probabilities",),
        fit=fit_threshold,
        summary="lesion where its probability is above a number",
    ),
)
