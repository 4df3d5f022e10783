"""Counts above thresholds: by hand, and against comparing with every threshold."""

import numpy as np
import pytest

from autoseg.postprocessing.threshold import count_above


def test_by_hand():
    """Of 1, 2, 2, 5 above 0, 2 and 5: four, one and none; with equal ones four, three and one."""
    values, thresholds = np.array([[2, 1], [5, 2]]), np.array([0, 2, 5])
    assert count_above(values, thresholds).tolist() == [4, 1, 0]
    assert count_above(values, thresholds, or_equal=True).tolist() == [4, 3, 1]
    assert count_above(np.zeros(0), thresholds).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_as_comparing_with_each_threshold(dtype):
    random = np.random.default_rng(3)
    values = random.integers(0, 40, 500).astype(dtype) / dtype(40)
    thresholds = np.unique(random.choice(values, 25)).astype(np.float32)
    assert count_above(values, thresholds).tolist() == [int((values > t).sum()) for t in thresholds]
    found = count_above(values, thresholds, or_equal=True)
    assert found.tolist() == [int((values >= t).sum()) for t in thresholds]
