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


def test_the_head_in_noisy_air_by_hand():
    rng = np.random.default_rng(0)
    image = rng.normal(10, 2, (2, 4, 50, 40))
    image[0, :, 20:40, 5:15] += 500
    image[1, :, 22:30, 10:25] += 90  # the second channel reaches further
    mask = crop.object_mask(image[0])
    assert mask[:, 20:40, 5:15].all() and mask.sum() == 4 * 20 * 10
    # rows 20-40 and columns 5-25, two voxels more on each side; slices cannot grow
    assert crop.object_box(image) == ((0, 4), (18, 42), (3, 27))


def test_an_image_of_one_value_has_no_object_and_is_kept_whole():
    assert not crop.object_mask(np.zeros((3, 4, 5))).any()
    assert crop.object_box(np.zeros((2, 3, 4, 5), np.int16)) == ((0, 3), (0, 4), (0, 5))


def test_the_threshold_is_otsus():
    """Between two values every threshold is as good; Otsu's maximum of the variance between classes is by hand here."""
    values = np.repeat(np.float32([0, 10, 100, 110]), [50, 50, 50, 50]).reshape(2, 10, 10)
    assert np.array_equal(crop.object_mask(values), values >= 100)
