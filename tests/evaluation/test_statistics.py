import math

import numpy as np
import pytest

from autoseg.evaluation.statistics import bootstrap_interval


def test_interval_is_seeded_and_holds_the_mean():
    values = np.random.default_rng(0).random(30)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert low < values.mean() < high


def test_interval_is_near_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(5, 2, 1000)
    half = 1.96 * values.std() / math.sqrt(1000)
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_two_values_against_all_their_resamples():
    """Resampled means of 0 and 1 are 0, 0.5, 1 with probability 1/4, 1/2, 1/4."""
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0, 1)
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.4) == (0.5, 0.5)


def test_equal_values_have_no_width_and_few_values_no_interval():
    assert bootstrap_interval(np.full(7, 0.3)) == (0.3, 0.3)
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([0.5])))
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([])))
