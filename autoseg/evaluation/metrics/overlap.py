"""Overlap and volume: everything that follows from the numbers of true and false voxels alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from autoseg.evaluation.metrics.metric import NAN, ZERO_UNLESS_BOTH, Empties, Metric
from autoseg.evaluation.metrics.pair import Pair

DEEPMEDIC = "Pérez Malla et al. 2019 (DeepMedic on ISLES 2017)"
RESUNET = "Tomita et al. 2020 (3D residual U-Net)"
RATLESNET = "Valverde et al. 2020 (RatLesNetv2)"


def micro_dice(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> float:
    """Dice of all voxels of a cohort together: 2 TP / (2 TP + FP + FN) of the sums over the cases.

    Large lesions weigh more in it than in the mean of the cases' Dice. It is 1 when no case has a voxel in either
    mask, as for one case. Source: Tomita et al. 2020, micro DSC.

    Args:
        tp, fp, fn: voxels of each case ``[case]``, or their sums.
    """
    both, either = 2 * float(np.sum(tp)), float(np.sum(fp)) + float(np.sum(fn))
    return both / (both + either) if both + either else 1.0


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else NAN


def _dice(pair: Pair) -> float:
    return 2 * pair.tp / (2 * pair.tp + pair.fp + pair.fn)


def _dice_ratlesnetv2(pair: Pair) -> float:
    if pair.voxels_truth == 0:
        return (pair.total_voxels - pair.voxels_prediction) / pair.total_voxels
    return _dice(pair)


def _mcc(pair: Pair) -> float:
    # Python's integers do not overflow: the product reaches 1e28 in a brain of 1e7 voxels
    tp, fp, fn, tn = pair.tp, pair.fp, pair.fn, pair.tn
    square = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(square) if square else 0.0


OVERLAP: tuple[Metric, ...] = (
    Metric(
        "dice",
        "1",
        "overlap",
        "2 TP / (2 TP + FP + FN)",
        _dice,
        ZERO_UNLESS_BOTH,
        better="higher",
    ),
    Metric(
        "dice_ratlesnetv2",
        "1",
        "overlap",
        "as dice; where T is empty, (N - |P|) / N of the N scored voxels, so that a false alarm costs little",
        _dice_ratlesnetv2,
        Empties(prediction=0.0, truth=None, both=1.0),
        better="higher",
        source=RATLESNET,
    ),
    Metric(
        "iou",
        "1",
        "overlap",
        "TP / (TP + FP + FN), the Jaccard index",
        lambda pair: pair.tp / (pair.tp + pair.fp + pair.fn),
        ZERO_UNLESS_BOTH,
        better="higher",
    ),
    Metric(
        "tpr",
        "1",
        "overlap",
        "TP / (TP + FN), also sensitivity or recall; undefined without truth",
        lambda pair: pair.tp / pair.voxels_truth,
        Empties(prediction=0.0, truth=NAN, both=NAN),
        better="higher",
        source=f"{DEEPMEDIC}; {RESUNET}",
    ),
    Metric(
        "tnr",
        "1",
        "overlap",
        "TN / (TN + FP) over all scored voxels, also specificity; near 1 for every lesion, as nearly all voxels "
        "are background; undefined where T fills everything",
        lambda pair: _ratio(pair.tn, pair.tn + pair.fp),
        better="higher",
        source=DEEPMEDIC,
    ),
    Metric(
        "ppv",
        "1",
        "overlap",
        "TP / (TP + FP), also precision; 0 where nothing of a present lesion is predicted, as in scikit-learn; "
        "undefined where P and T are empty",
        lambda pair: pair.tp / pair.voxels_prediction,
        Empties(prediction=0.0, truth=0.0, both=NAN),
        better="higher",
        source=f"{DEEPMEDIC}; {RESUNET}",
    ),
    Metric(
        "accuracy",
        "1",
        "overlap",
        "(TP + TN) / N over all N scored voxels",
        lambda pair: _ratio(pair.tp + pair.tn, pair.total_voxels),
        better="higher",
        source=DEEPMEDIC,
    ),
    Metric(
        "mcc",
        "1",
        "overlap",
        "Matthews correlation, (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)) over all scored voxels; "
        "0 where a factor is 0",
        _mcc,
        Empties(prediction=0.0, truth=0.0, both=NAN),
        better="higher",
        source=DEEPMEDIC,
    ),
    Metric("tp", "voxels", "overlap", "|P and T|", lambda pair: pair.tp, better="higher"),
    Metric("fp", "voxels", "overlap", "|P without T|", lambda pair: pair.fp, better="lower"),
    Metric("fn", "voxels", "overlap", "|T without P|", lambda pair: pair.fn, better="lower"),
    Metric("tn", "voxels", "overlap", "scored voxels in neither", lambda pair: pair.tn, better="higher"),
)

VOLUME: tuple[Metric, ...] = (
    Metric(
        "volume_truth_ml",
        "ml",
        "volume",
        "|T| times the volume of a voxel",
        lambda pair: pair.voxels_truth * pair.voxel_ml,
    ),
    Metric(
        "volume_prediction_ml",
        "ml",
        "volume",
        "|P| times the volume of a voxel",
        lambda pair: pair.voxels_prediction * pair.voxel_ml,
    ),
    Metric(
        "volume_difference_ml",
        "ml",
        "volume",
        "(|P| - |T|) times the volume of a voxel",
        lambda pair: (pair.fp - pair.fn) * pair.voxel_ml,
        better="zero",
    ),
    Metric(
        "volume_difference_absolute_ml",
        "ml",
        "volume",
        "the size of volume_difference_ml, without its sign",
        lambda pair: abs(pair.fp - pair.fn) * pair.voxel_ml,
        better="lower",
    ),
    Metric("voxels_truth", "voxels", "volume", "|T|", lambda pair: pair.voxels_truth),
    Metric("voxels_prediction", "voxels", "volume", "|P|", lambda pair: pair.voxels_prediction),
)

METRICS: tuple[Metric, ...] = OVERLAP + VOLUME
"""Overlap, then volume."""
