"""What other decision thresholds would have given: maximal Dice and precision-recall curves from probabilities.

A voxel is lesion where p > t, strictly. The counts of a case at all thresholds are three short lists of integers, so a
cohort of any size is summed up without its probability maps.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evaluation import statistics
from autoseg.files import csv_text, csv_words, write_text

THRESHOLDS = np.arange(100) / 100
"""0, 0.01, ..., 0.99."""
THRESHOLDS.setflags(write=False)

MDSC_STEP = 5
"""Maximal Dice is searched at every fifth threshold: 0, 0.05, ..., 0.95."""

FILE_NAME = "thresholds.csv"
_HEADER = ("case", "class", "threshold", "tp", "fp", "fn")
_OVERSHOOT = 1e-3  # rounding of half precision and of resampling


@dataclass(frozen=True)
class Counts:
    """Voxels of one class of one case, or of a cohort, at each of :data:`THRESHOLDS`.

    Attributes:
        tp, fp, fn: int64 ``[100]``, true positives, false positives, false negatives.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @property
    def dice(self) -> np.ndarray:
        """``[100]``: 2 TP / (2 TP + FP + FN); 1 where prediction and truth are both empty."""
        total = 2 * self.tp + self.fp + self.fn
        return np.where(total == 0, 1.0, 2 * self.tp / np.maximum(total, 1))


def count(probability: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> Counts:
    """Count true and false voxels at all thresholds in one pass.

    Thresholds are rounded to the precision of the probabilities, so that 0.3 is not above 0.3 in any precision.

    Args:
        probability: ``[z, y, x]`` of the class, 0 to 1, any floating type; a mask counts as 0 and 1.
        truth: boolean ``[z, y, x]``.
        ignore: boolean ``[z, y, x]``, voxels that are not scored.

    Raises:
        AutosegError: shapes differ, or the values are not probabilities.
    """
    if probability.dtype.kind != "f":
        probability = probability.astype(np.float32)
    _check(probability, truth, ignore)
    predicted = _above(probability)
    if ignore is not None:
        predicted = predicted - _above(probability[ignore])
        truth = truth & ~ignore
    tp = _above(probability[truth])
    return Counts(tp, predicted - tp, int(np.count_nonzero(truth)) - tp)


def _check(probability: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None) -> None:
    for name, mask in (("truth", truth), ("ignored voxels", ignore)):
        if mask is not None and mask.shape != probability.shape:
            raise AutosegError(
                f"probabilities and {name} differ in shape",
                found=f"{probability.shape} and {mask.shape}",
                expected="the same grid",
            )
    if probability.size:
        low, high = float(probability.min()), float(probability.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise AutosegError(
                "these are not probabilities",
                found="values that are not numbers" if np.isnan(low) else f"values from {low:g} to {high:g}",
                expected="values from 0 to 1",
                fix="give softmax or sigmoid output, not logits",
            )


def _above(values: np.ndarray) -> np.ndarray:
    """int64 ``[100]``: how many values are above each threshold.

    Nearly all voxels of a probability map are below 0.01: two comparisons settle these, and only the others are
    looked up.
    """
    thresholds = THRESHOLDS.astype(values.dtype)
    high = values[values > thresholds[1]]
    places = np.searchsorted(thresholds, high, side="left")  # thresholds below each value
    found = np.bincount(places, minlength=len(thresholds) + 1)[1:]
    above = found[::-1].cumsum()[::-1].astype(np.int64)
    above[0] = np.count_nonzero(values > 0)
    return above


def pooled(counts: Iterable[Counts]) -> Counts:
    """The counts of all voxels of several cases together."""
    tp, fp, fn = (np.zeros(len(THRESHOLDS), np.int64) for _ in range(3))
    for one in counts:
        tp += one.tp
        fp += one.fp
        fn += one.fn
    return Counts(tp, fp, fn)


# -------------------------------------------------------------------------------------------------------- summaries


@dataclass(frozen=True)
class MDSC:
    """Maximal Dice over thresholds.

    Attributes:
        value: ``nan`` without cases.
        thresholds: all at which it is reached.
    """

    value: float
    thresholds: tuple[float, ...]


def mdsc_global(counts: Sequence[Counts]) -> MDSC:
    """The highest mean Dice over cases that one threshold for all of them gives (mDSC of Tomita et al. 2020,
    3D-ResU-Net).

    Args:
        counts: one for each case; a case without truth and without prediction has Dice 1.
    """
    if not counts:
        return MDSC(np.nan, ())
    means = np.mean([one.dice[::MDSC_STEP] for one in counts], axis=0)
    best = means >= means.max() - 1e-12
    return MDSC(float(means.max()), tuple(float(t) for t in THRESHOLDS[::MDSC_STEP][best]))


def mdsc_case(counts: Sequence[Counts]) -> float:
    """The mean over cases of the highest Dice that a threshold chosen for each case gives; ``nan`` without cases.

    It chooses with knowledge of the truth: an upper bound, not a result that a method can be run with.
    """
    return float(np.mean([one.dice[::MDSC_STEP].max() for one in counts])) if counts else np.nan


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of pooled voxels.

    Attributes:
        thresholds: ``[100]``, see :data:`THRESHOLDS`.
        precision: TP / (TP + FP); ``nan`` where nothing is predicted.
        recall: TP / (TP + FN); ``nan`` where there is no truth.
        average_precision: sum over the thresholds, from high to low, of the gain in recall times the precision;
            ``nan`` where there is no truth.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    average_precision: float


def precision_recall(counts: Iterable[Counts]) -> PrecisionRecall:
    """Precision-recall curve of the voxels of all cases together.

    Average precision is the step-wise sum that scikit-learn computes, on 100 thresholds; truth where p = 0 is found
    at no threshold and adds nothing.

    Args:
        counts: one for each case.
    """
    total = pooled(counts)
    predicted, truth = total.tp + total.fp, int(total.tp[0] + total.fn[0])
    precision = np.where(predicted > 0, total.tp / np.maximum(predicted, 1), np.nan)
    recall = total.tp / truth if truth else np.full(len(THRESHOLDS), np.nan)
    return PrecisionRecall(THRESHOLDS, precision, recall, float(_average_precision(precision, recall)))


def _average_precision(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Over the last axis, the thresholds; recall falls as they rise."""
    gains = recall - np.concatenate([recall[..., 1:], np.zeros((*recall.shape[:-1], 1))], axis=-1)
    return np.sum(gains * np.nan_to_num(precision), axis=-1)


def average_precision_interval(counts: Sequence[Counts], resamples: int) -> tuple[float, float]:
    """95 % bootstrap interval over cases of the average precision of :func:`precision_recall`.

    Args:
        counts: one for each case.
        resamples: of the bootstrap.
    """
    columns = [np.concatenate([one.tp, one.tp + one.fp, [one.tp[0] + one.fn[0]]]) for one in counts]

    def average(means: np.ndarray) -> np.ndarray:
        tp, predicted, truth = np.split(means, [len(THRESHOLDS), 2 * len(THRESHOLDS)], axis=1)
        precision, recall = (
            tp / np.where(predicted > 0, predicted, 1),
            tp / np.where(truth > 0, truth, np.nan),
        )
        return _average_precision(precision, recall)

    return statistics.interval_of_means(columns, average, resamples=resamples)


def mdsc_intervals(
    counts: Sequence[Counts], resamples: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % bootstrap intervals over cases of :func:`mdsc_global`, whose threshold is chosen anew in each resample, and
    of :func:`mdsc_case`.

    Args:
        counts: one for each case.
        resamples: of the bootstrap.
    """
    dice = np.array([one.dice[::MDSC_STEP] for one in counts])
    best = statistics.interval_of_means(dice, lambda means: means.max(axis=1), resamples=resamples)
    return best, statistics.mean_interval(dice.max(axis=1), resamples=resamples)


# ------------------------------------------------------------------------------------------------------------ files


def write_thresholds(path: Path, counts: Mapping[str, Mapping[str, Counts]]) -> None:
    """Write thresholds.csv atomically: case, class, threshold, tp, fp, fn, with 100 rows for each case and class.

    Args:
        path: the file.
        counts: case to class to counts.

    Raises:
        AutosegError: it cannot be written.
    """
    rows = [
        (case, label, f"{threshold:.2f}", *map(int, values))
        for case, classes in counts.items()
        for label, one in classes.items()
        for threshold, *values in zip(THRESHOLDS, one.tp, one.fp, one.fn, strict=True)
    ]
    write_text(path, csv_text([_HEADER, *rows]))


def read_thresholds(path: Path) -> dict[str, dict[str, Counts]]:
    """Read a file of :func:`write_thresholds`: case to class to counts.

    Raises:
        AutosegError: it is missing, or is not such a file.
    """
    collected: dict[tuple[str, str], list[list[int]]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = csv.reader(handle)
            if tuple(next(rows, ())) != _HEADER:
                raise ValueError("another header")
            for case, label, threshold, *values in rows:
                known = collected.setdefault((csv_words(case), csv_words(label)), [])
                if len(known) == len(THRESHOLDS) or float(threshold) != THRESHOLDS[len(known)]:
                    raise ValueError(f"threshold {threshold} of {case}, {label} out of order")
                known.append([int(value) for value in values])
        return _as_counts(collected)
    except FileNotFoundError:
        raise AutosegError(
            "the file is missing",
            where=str(path),
            fix="run autoseg_evaluate on predictions with probabilities",
        ) from None
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise AutosegError(
            "is not a table of counts at thresholds",
            where=str(path),
            found=str(error),
            expected=f"the columns {', '.join(_HEADER)} with {len(THRESHOLDS)} rows for each case and class",
            fix="run autoseg_evaluate again",
        ) from None


def _as_counts(collected: Mapping[tuple[str, str], list[list[int]]]) -> dict[str, dict[str, Counts]]:
    found: dict[str, dict[str, Counts]] = {}
    for (case, label), rows in collected.items():
        values = np.array(rows, np.int64)
        if values.shape != (len(THRESHOLDS), len(fields(Counts))):
            raise ValueError(f"{len(rows)} rows of {case}, {label}")
        found.setdefault(case, {})[label] = Counts(*values.T)
    return found
