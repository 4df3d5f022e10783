"""Thresholds from a point of a curve over the voxels of all cases together, as Perez Malla et al. 2019 tune them.

The curves take a voxel as lesion where its probability is at least t. As in that study the threshold that is found is
then exceeded strictly (:func:`autoseg.postprocessing.threshold.threshold`), and of equal points the largest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from autoseg import messages
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, StepPart
from autoseg.postprocessing.threshold import count_above, counted_voxels, lesion_probability, threshold

UNTUNED = 0.5


@dataclass(frozen=True)
class OperatingPoints:
    """What each threshold finds, of those that could be best: the probabilities of lesion voxels.

    Between two of these a lower threshold adds nothing but false voxels.

    Attributes:
        thresholds: ascending, ``[n]`` float32.
        found, false: lesion voxels and others with at least that probability, ``[n]``.
        lesion, background: voxels in all.
    """

    thresholds: np.ndarray
    found: np.ndarray
    false: np.ndarray
    lesion: int
    background: int

    def best(self, criterion: np.ndarray) -> float:
        """The largest threshold at which the criterion ``[n]`` is largest."""
        rounded = np.round(criterion, 12)
        return float(self.thresholds[np.flatnonzero(rounded == rounded.max())[-1]])


def operating_points(
    cases: Iterable[FitCase], labels: LabelSet, step: str, value: int = 1
) -> OperatingPoints | None:
    """The curve over all cases together, which are gone through twice; None where they have no lesion voxel.

    Args:
        cases: with probabilities ``[2, z, y, x]``.
        labels: voxels with the ignore label do not count.
        step: for messages.
        value: of the lesion in the truth.
    """
    lesion = [lesion_probability(e.case, step)[counted_voxels(e, labels) & (e.truth == value)] for e in cases]
    scores, counts = np.unique(np.concatenate(lesion) if lesion else [], return_counts=True)
    if not len(scores):
        return None
    false, background = np.zeros(len(scores), np.int64), 0
    for entry in cases:
        others = lesion_probability(entry.case, step)[counted_voxels(entry, labels) & (entry.truth != value)]
        false += count_above(others, scores, or_equal=True)
        background += others.size
    return OperatingPoints(scores, np.cumsum(counts[::-1])[::-1], false, int(counts.sum()), background)


def fit_precision_recall(cases: Iterable[FitCase], labels: LabelSet, *, value: int = 1) -> dict[str, float]:
    """The threshold with the largest product of precision and recall (THT0 of the study)."""

    def product(points: OperatingPoints) -> np.ndarray:
        return points.found / (points.found + points.false) * points.found / points.lesion

    return _fitted(cases, labels, "threshold_precision_recall", value, product)


def fit_youden(cases: Iterable[FitCase], labels: LabelSet, *, value: int = 1) -> dict[str, float]:
    """The threshold with the largest true minus false positive rate, Youden's index (THT1 of the study).

    It depends on how much background there is that is easily told: over whole volumes it lies very low.
    """

    def youden(points: OperatingPoints) -> np.ndarray:
        return points.found / points.lesion - points.false / max(points.background, 1)

    return _fitted(cases, labels, "threshold_youden", value, youden)


def _fitted(
    cases: Iterable[FitCase],
    labels: LabelSet,
    step: str,
    value: int,
    criterion: Callable[[OperatingPoints], np.ndarray],
) -> dict[str, float]:
    points = operating_points(cases, labels, step, value)
    if points is None:
        messages.warn(
            f"{step} has no lesion voxel to learn from in its cases; its threshold stays at {UNTUNED:g}"
        )
        return {"above": UNTUNED}
    return {"above": points.best(criterion(points))}


STEPS = (
    StepPart(
        "threshold_precision_recall",
        threshold,
        needs=("probabilities",),
        fit=fit_precision_recall,
        summary="a threshold, learned by the largest product of precision and recall",
    ),
    StepPart(
        "threshold_youden",
        threshold,
        needs=("probabilities",),
        fit=fit_youden,
        summary="a threshold, learned by the largest true minus false positive rate",
    ),
)
