"""Closing with a ball, by published numbers and by hand."""

import logging

import numpy as np
import pytest

from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation
from autoseg.postprocessing.closing import ball, closed, closing, fit_closing, rounded_down

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})


def cube(size: int, at: int, edge: int) -> np.ndarray:
    mask = np.zeros((size,) * 3, bool)
    mask[(slice(at, at + edge),) * 3] = True
    return mask


def test_the_ball():
    assert ball(3).sum() == 123 and ball(3).shape == (7, 7, 7)
    assert ball(1).sum() == 7


@pytest.mark.parametrize(("iterations", "left"), [(1, 15028), (2, 5488), (3, 484), (4, 0)])
def test_a_full_block_is_eaten_at_the_border_of_scipy(iterations, left):
    block = np.ones((19, 40, 40), bool)
    assert closed(block, iterations, border="scipy").sum() == left
    assert closed(block, iterations).sum() == 30400


def test_a_lesion_in_the_first_slices():
    lesion = np.zeros((20, 30, 30), bool)
    lesion[:4, 12:18, 12:18] = True
    once = closed(lesion, 1, border="scipy")
    assert once.sum() == 36 and np.flatnonzero(once.any((1, 2))).tolist() == [3]
    assert closed(lesion, 2, border="scipy").sum() == 0
    assert (closed(lesion, 1) >= lesion).all()


@pytest.mark.parametrize(("hole", "iterations", "left"), [(3, 1, 0), (9, 1, 389), (9, 2, 0)])
def test_holes(hole, iterations, left):
    size = 20 if hole == 3 else 30
    whole = cube(size + 20, 10, size)
    holed = whole & ~cube(size + 20, 10 + (size - hole) // 2, hole)
    found = closed(holed, iterations)
    assert (whole & ~found).sum() == left and not (found & ~whole).any()


def test_two_voxels_three_apart_stay_two():
    mask = np.zeros((9, 9, 20), bool)
    mask[4, 4, [8, 11]] = True
    assert (closed(mask, 1) == mask).all()


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_nothing_is_lost_and_the_box_is_not_left(iterations):
    """As on the whole image with a border that is wide enough."""
    mask = np.random.default_rng(1).random((9, 14, 17)) < 0.02
    rim = 3 * iterations
    wide = closed(np.pad(mask, 2 * rim), iterations, border="scipy")
    found = closed(mask, iterations)
    assert (found == wide[(slice(2 * rim, -2 * rim),) * 3]).all() and (found >= mask).all()


def entry(mask: np.ndarray, truth: np.ndarray) -> FitCase:
    return FitCase("a", Segmentation(mask.astype(np.uint8), (1.0, 1.0, 1.0)), truth.astype(np.uint8))


def test_iterations_are_learned():
    """A small hole is filled by one; a large one by two, and not by one."""
    small, large = cube(40, 8, 24) & ~cube(40, 18, 3), cube(40, 5, 30) & ~cube(40, 15, 9)
    whole = cube(40, 8, 24), cube(40, 5, 30)
    assert fit_closing([entry(small, whole[0])], LABELS) == {"iterations": 1.0}
    assert fit_closing([entry(large, whole[1])], LABELS) == {"iterations": 2.0}
    both = [entry(small, whole[0]), entry(large, whole[1])]
    assert fit_closing(both, LABELS) == {"iterations": 1.0}  # 1.5 rounded down
    assert rounded_down([2.0, 2.0, 1.0]) == 1.0 and rounded_down([2.0, 2.0]) == 2.0


def test_cases_without_lesion_say_nothing(caplog):
    mask = cube(12, 3, 4)
    with caplog.at_level(logging.WARNING):
        assert fit_closing([entry(mask, np.zeros_like(mask))], LABELS) == {"iterations": 1.0}
    assert "no case with a lesion to learn from" in caplog.text


def test_numbers_that_do_nothing_are_refused():
    case = entry(cube(5, 1, 2), cube(5, 1, 2)).case
    with pytest.raises(ValueError, match="at least 1, found 0"):
        closing(case, iterations=0)
