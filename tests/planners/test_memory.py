"""The arithmetic of memory, worked by hand."""

import pytest

from autoseg.planners._memory import ADAM_COPIES, SGD_COPIES, Cost

COST = Cost(elements_per_voxel=500, parameters=1_000_000, width=32, weight_copies=3)


def test_activations_follow_voxels_and_weights_their_copies():
    """500 x 1e6 elements and 3 x 1e6 weights of 4 bytes: 2.012e9 bytes."""
    assert COST.gb(1_000_000, width=32) == pytest.approx(2.012)


def test_activations_follow_the_width_and_weights_its_square():
    """Twice as wide: 2 x 500e6 elements, 4 x 3e6 weights."""
    assert COST.gb(1_000_000, width=64) == pytest.approx((1000e6 + 12e6) * 4 / 1e9)


def test_what_is_computed_again_spares_activations_alone():
    """A quarter is kept: 125e6 elements, and all weights."""
    assert COST.gb(1_000_000, width=32, share=0.25) == pytest.approx((125e6 + 3e6) * 4 / 1e9)


def test_without_a_voxel_the_weights_are_left():
    assert COST.gb(0, width=32) == pytest.approx(0.012)


def test_adam_keeps_one_more_copy_than_sgd():
    assert (SGD_COPIES, ADAM_COPIES) == (3, 4)
