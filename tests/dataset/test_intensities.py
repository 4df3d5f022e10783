"""The most frequent intensity, worked by hand."""

from __future__ import annotations

import numpy as np

from autoseg.dataset.intensities import most_frequent


def test_the_fullest_bin_but_bin_0() -> None:
    """Bins of 16: 0 to 15 do not count, 16 to 31 hold two values, 48 to 63 three, wherever the parts are cut."""
    values = np.array([0, 0, 0, 0, 0, -40, 15.9, 16, 31.9, 48, 50, 63.9], np.float32)
    assert most_frequent([values], 16) == 48
    assert most_frequent([values[:10].reshape(2, 5), values[10:]], 16) == 48


def test_of_equal_bins_the_lowest() -> None:
    assert most_frequent([np.array([70.0, 20, 20, 65])], 16) == 16


def test_narrow_bins_of_small_values() -> None:
    assert most_frequent([np.array([0.1, 0.7, 0.6, 1.3], np.float32)], 0.5) == 0.5


def test_nothing_above_bin_0() -> None:
    assert most_frequent([np.array([0, 3, 15.9]), np.zeros(0)], 16) is None
    assert most_frequent([], 16) is None
