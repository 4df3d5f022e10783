"""Thresholds from curves over all voxels, by published numbers and by scikit-learn's curves."""

import logging

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation
from autoseg.postprocessing.operating_points import fit_precision_recall, fit_youden

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})
# of ten and twice eight voxels, from the card of Perez Malla et al. 2019
FIRST = ([0, 0, 1, 1, 0, 1, 0, 1, 0, 0], [0.1, 0.4, 0.35, 0.8, 0.6, 0.7, 0.2, 0.9, 0.55, 0.05])
PRODUCT_IS_NOT_F1 = ([0, 1, 0, 1, 1, 1, 0, 0], [0.1, 0.2, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
PRODUCT_IS_NOT_NORM = ([0, 0, 1, 0, 1, 1, 1, 0], [0.4, 0.9, 0.7, 0.3, 0.8, 0.5, 0.1, 0.2])


def case(truth, lesion):
    lesion = np.array(lesion, np.float32).reshape(1, 1, -1)
    found = Segmentation((lesion > 0.5).astype(np.uint8), (1.0, 1.0, 1.0), np.stack([1 - lesion, lesion]))
    return FitCase("a", found, np.array(truth, np.uint8).reshape(1, 1, -1))


def learned(fit, *cases, **arguments):
    return fit([case(*one) for one in cases], arguments.pop("labels", LABELS), **arguments)["above"]


def test_the_largest_product_of_precision_and_recall():
    assert learned(fit_precision_recall, FIRST) == pytest.approx(0.7)  # 1 times 0.75
    assert learned(fit_precision_recall, PRODUCT_IS_NOT_F1) == pytest.approx(0.2)
    assert learned(fit_precision_recall, PRODUCT_IS_NOT_NORM) == pytest.approx(0.5)  # 0.75 times 0.75


def test_the_largest_true_minus_false_positive_rate():
    assert learned(fit_youden, FIRST) == pytest.approx(0.7)  # 0.75 minus 0


def test_of_equal_points_the_largest_threshold_counts():
    """0.9 finds half of the lesion and nothing else, 0.3 all of it and half of the background."""
    assert learned(fit_youden, ([1, 1, 0, 0], [0.9, 0.3, 0.4, 0.1])) == pytest.approx(0.9)
    assert learned(fit_precision_recall, ([1, 1, 0, 0], [0.9, 0.3, 0.35, 0.34])) == pytest.approx(0.9)


def test_equal_probabilities_are_found_together():
    """At 0.6 there are two lesion voxels and three others: 0.4 times 1, above 1 / 2 times 1 / 3 of the first voxel."""
    assert learned(fit_precision_recall, ([1, 1, 0, 0, 0], [0.6] * 5)) == pytest.approx(0.6)


def test_cases_count_by_their_voxels_and_an_ignore_label_does_not():
    parts = (FIRST[0][:4], FIRST[1][:4]), (FIRST[0][4:], FIRST[1][4:])
    assert learned(fit_precision_recall, *parts) == learned(fit_precision_recall, FIRST)
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    truth, lesion = FIRST
    more = ([*truth, 2, 2], [*lesion, 0.95, 0.96])
    assert learned(fit_youden, more, labels=labels) == learned(fit_youden, FIRST)


@pytest.mark.parametrize("seed", range(5))
def test_the_curves_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = (rng.random(400) < 0.2).astype(int)
    lesion = np.round(np.clip(0.4 * truth + 0.6 * rng.random(400), 0, 1), 2).astype(np.float32)
    precision, recall, thresholds = precision_recall_curve(truth, lesion)
    product = np.round((precision * recall)[:-1], 12)
    assert learned(fit_precision_recall, (truth, lesion)) == thresholds[product == product.max()].max()
    false, true, thresholds = roc_curve(truth, lesion, drop_intermediate=False)
    youden = np.round(true - false, 12)
    assert learned(fit_youden, (truth, lesion)) == thresholds[youden == youden.max()].max()


@pytest.mark.parametrize("fit", [fit_precision_recall, fit_youden])
def test_without_a_lesion_the_threshold_stays_and_it_is_said(fit, caplog):
    with caplog.at_level(logging.WARNING):
        assert learned(fit, ([0, 0], [0.4, 0.9])) == 0.5
    assert "no lesion voxel to learn from" in caplog.text


def test_more_classes_are_refused():
    entry = case([0, 1], [0.1, 0.9])
    three = Segmentation(entry.case.mask, (1.0, 1.0, 1.0), np.zeros((3, 1, 1, 2), np.float32))
    with pytest.raises(AutosegError, match="threshold_youden' is for one class"):
        fit_youden([FitCase("a", three, entry.truth)], LABELS)
