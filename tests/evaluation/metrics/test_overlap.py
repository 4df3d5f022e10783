"""Overlap and volume against scikit-learn, hand-worked counts and edge cases."""

import math

import numpy as np
import pytest
from masks import box, random_pair

from autoseg.evaluation.metrics.catalogue import METRICS, Pair, dice, micro_dice, score

CUBE = {"shape": (3, 3, 3)}


def test_hand_worked_counts_and_volumes():
    truth, prediction = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    truth[1, 1, 0:3] = True  # 3 voxels
    prediction[1, 1, 2:4] = True  # 2 voxels, one shared
    found = score(Pair(prediction, truth, (5.0, 2.0, 1.0)))
    assert (found["tp"], found["fp"], found["fn"], found["tn"]) == (1, 1, 2, 60)
    assert (found["dice"], found["iou"]) == (2 / 5, 1 / 4)
    assert (found["tpr"], found["ppv"]) == (1 / 3, 1 / 2)
    assert (found["tnr"], found["accuracy"]) == (60 / 61, 61 / 64)
    assert (found["voxels_truth"], found["voxels_prediction"]) == (3, 2)
    assert found["volume_truth_ml"] == pytest.approx(0.030)
    assert found["volume_prediction_ml"] == pytest.approx(0.020)
    assert found["volume_difference_ml"] == pytest.approx(-0.010)
    assert found["volume_difference_absolute_ml"] == pytest.approx(0.010)


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed):
    sk = pytest.importorskip("sklearn.metrics")
    prediction, truth = random_pair(seed)
    p, t = prediction.ravel(), truth.ravel()
    expected = {
        "dice": sk.f1_score(t, p),
        "iou": sk.jaccard_score(t, p),
        "tpr": sk.recall_score(t, p),
        "tnr": sk.recall_score(~t, ~p),
        "ppv": sk.precision_score(t, p),
        "accuracy": sk.accuracy_score(t, p),
        "mcc": sk.matthews_corrcoef(t, p),
    }
    found = score(Pair(prediction, truth, (1, 1, 1)), [METRICS[name] for name in expected])
    assert found == pytest.approx(expected, abs=1e-12)


def test_an_empty_prediction_is_scored_as_scikit_learn_does():
    sk = pytest.importorskip("sklearn.metrics")
    truth = box((1, 2), (1, 2), (0, 2), **CUBE)
    nothing = np.zeros_like(truth)
    found = score(Pair(nothing, truth, (1, 1, 1)))
    assert found["ppv"] == sk.precision_score(truth.ravel(), nothing.ravel(), zero_division=0) == 0
    assert found["mcc"] == sk.matthews_corrcoef(truth.ravel(), nothing.ravel()) == 0


def test_counts_cover_the_scored_voxels_not_the_box():
    truth = box((1, 2), (1, 2), (0, 2), **CUBE)
    assert score(Pair(truth, truth, (1, 1, 1)))["tn"] == 25
    found = score(Pair(truth, truth, (1, 1, 1), total_voxels=np.int64(10)))
    assert (found["tn"], found["accuracy"]) == (8, 1.0)


def test_truth_that_fills_everything():
    truth = np.ones((2, 2, 2), bool)
    found = score(Pair(truth, truth, (1, 1, 1)))
    assert math.isnan(found["tnr"])
    assert (found["mcc"], found["accuracy"], found["dice"]) == (0, 1, 1)


def test_no_scored_voxel():
    nothing = np.zeros((2, 2, 2), bool)
    found = score(Pair(nothing, nothing, (1, 1, 1), total_voxels=0))
    assert math.isnan(found["tnr"]) and math.isnan(found["accuracy"])


def test_mcc_of_a_large_volume_does_not_overflow():
    truth = box((0, 40), (0, 40), (0, 40), shape=(40, 40, 41))
    found = METRICS["mcc"](Pair(truth, truth, (1, 1, 1), total_voxels=10**9))
    assert found == pytest.approx(1)


@pytest.mark.parametrize(
    "false_alarm, total, expected", [(1, 73728, 0.9999864), (100, 1179648, 0.9999152), (0, 64, 1.0)]
)
def test_dice_of_ratlesnetv2_without_truth(false_alarm, total, expected):
    """Values worked out from Valverde et al. 2020: (N - |P|) / N."""
    prediction = np.zeros((1, 1, 128), bool)
    prediction[..., :false_alarm] = True
    pair = Pair(prediction, np.zeros_like(prediction), (1, 1, 1), total)
    assert METRICS["dice_ratlesnetv2"](pair) == pytest.approx(expected, abs=5e-8)


def test_dice_of_ratlesnetv2_with_truth_is_dice():
    pair = Pair(*random_pair(), (1, 1, 1))
    assert METRICS["dice_ratlesnetv2"](pair) == METRICS["dice"](pair)


def test_dice_alone_agrees_on_empty_masks():
    nothing, lesion = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert (dice(nothing, nothing), dice(lesion, nothing), dice(nothing, lesion)) == (1, 0, 0)


def test_micro_dice_pools_the_voxels():
    """Two cases with Dice 2/3 and 0, from Tomita et al. 2020's definition: macro 1/3, micro 1/2."""
    assert micro_dice(tp=[2, 0], fp=[1, 1], fn=[1, 1]) == pytest.approx(4 / 8)
    assert micro_dice(2, 2, 2) == micro_dice([2, 0], [1, 1], [1, 1])
    assert micro_dice([0, 0], [0, 0], [0, 0]) == 1


def test_micro_dice_of_one_case_is_its_dice():
    pair = Pair(*random_pair(), (1, 1, 1))
    assert micro_dice(pair.tp, pair.fp, pair.fn) == METRICS["dice"](pair)
