"""Boxes and holes, against scipy and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.preprocessing import crop


@pytest.mark.parametrize("share", [0.3, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("shape", [(9, 12, 7), (1, 20, 20), (5, 1, 30)])
def test_fill_holes_is_scipys(share, shape):
    mask = np.random.default_rng(0).random(shape) < share
    assert np.array_equal(crop.fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_fill_holes_of_a_shell_and_of_a_shell_with_a_door():
    shell = np.zeros((9, 9, 9), bool)
    shell[1:8, 1:8, 1:8] = True
    shell[2:7, 2:7, 2:7] = False
    filled = crop.fill_holes(shell)
    assert filled.sum() == 7**3
    shell[4, 4, 1] = False  # the inside now reaches the border
    assert np.array_equal(crop.fill_holes(shell), shell)


def test_fill_holes_leaves_empty_and_full_masks():
    for mask in (np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)):
        assert np.array_equal(crop.fill_holes(mask), mask)


def test_bounding_box_by_hand_and_of_nothing():
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 2, 3] = mask[4, 2, 7] = True
    assert crop.bounding_box(mask) == ((1, 5), (2, 3), (3, 8))
    assert crop.bounding_box(np.zeros((2, 2, 2), bool)) is None
    assert mask[crop.slices(crop.bounding_box(mask))].sum() == 2


def test_any_nonzero_takes_every_channel():
    image = np.zeros((3, 2, 2, 2), np.float32)
    image[0, 0, 0, 0], image[2, 1, 1, 1] = -1, 1e-20
    assert crop.any_nonzero(image).sum() == 2
