"""What follows from the labels of dataset.json."""

import numpy as np
import pytest

from autoseg.labels import LabelSet


@pytest.mark.parametrize("values", [(1,), (3,), (2, 7, 1)])
def test_the_largest_score_wins_and_of_equal_ones_the_first(values):
    labels = LabelSet.from_labels({"background": 0, **{f"class{v}": v for v in values}})
    scores = np.random.default_rng(0).integers(-2, 3, (len(values) + 1, 4, 9, 11)).astype(np.float32)
    table = np.array([0, *values])
    mask = labels.decide(scores)
    assert mask.dtype == np.uint8 and np.array_equal(mask, table[scores.argmax(0)])
    assert set(np.unique(mask)) == {0, *values}


def test_regions_are_written_in_their_order_where_their_score_is_positive():
    labels = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    scores = np.array([[-1, 1, 1, -1, 0], [-1, -1, 1, 1, 0]], np.float32)[:, None, None]
    assert labels.decide(scores).ravel().tolist() == [0, 1, 2, 2, 0]
