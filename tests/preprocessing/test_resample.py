"""The matrices against scipy's zoom and skimage's resize, masks against the rule written out."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.preprocessing.resample import (
    Resampler,
    axis_matrix,
    new_shape,
    resample_image,
    resample_label,
    separate_axis,
)

SHAPES = [
    ((9, 12, 7), (15, 20, 11)),
    ((16, 31, 25), (9, 17, 24)),
    ((10, 20, 14), (10, 33, 9)),
    ((1, 20, 14), (3, 20, 15)),
    ((30, 8, 8), (10, 8, 1)),
]


def zoom(volume, shape, order):
    """The oracle: scipy in float64, one call for the whole volume, clipped as skimage does."""
    factors = [m / n for m, n in zip(shape, volume.shape, strict=True)]
    result = ndimage.zoom(volume.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return result.clip(volume.min(), volume.max())


def slices_of(volume, axis):
    return [np.take(volume, i, axis) for i in range(volume.shape[axis])]


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("before, after", SHAPES)
def test_equals_scipy_zoom(before, after, order):
    image = np.random.default_rng(0).normal(size=(2, *before)).astype(np.float32)
    result = resample_image(image, after, order)
    assert result.dtype == np.float32 and result.shape == (2, *after)
    for channel, made in zip(image, result, strict=True):
        np.testing.assert_allclose(made, zoom(channel, after, order), atol=5e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("before, after", SHAPES)
def test_equals_skimage_resize(before, after, order):
    transform = pytest.importorskip("skimage.transform")
    image = np.random.default_rng(1).normal(size=(1, *before)).astype(np.float32)
    expected = transform.resize(image[0].astype(float), after, order, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(resample_image(image, after, order)[0], expected, atol=5e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("before, after", SHAPES)
def test_separate_axis_plane_by_plane(before, after, axis, across):
    image = np.random.default_rng(2).normal(size=(1, *before)).astype(np.float32)
    within = tuple(np.delete(after, axis))
    planes = np.stack([zoom(plane, within, 3) for plane in slices_of(image[0], axis)], axis)
    factors = [after[axis] / before[axis] if a == axis else 1 for a in range(3)]
    expected = ndimage.zoom(planes, factors, order=across, mode="nearest", grid_mode=True)
    result = resample_image(image, after, 3, separate_axis=axis, separate_axis_order=across)
    np.testing.assert_allclose(result[0], expected, atol=5e-6)


def test_a_grid_that_does_not_change_costs_nothing():
    image = np.zeros((1, 4, 5, 6), np.float32)
    label = np.zeros((4, 5, 6), np.int16)
    assert resample_image(image, (4, 5, 6), 3) is image
    assert resample_label(label, (4, 5, 6)) is label


def test_the_input_is_not_changed_and_views_are_taken():
    image = np.random.default_rng(3).normal(size=(1, 8, 9, 10)).astype(np.float32)
    kept = image.copy()
    turned = image.transpose(0, 3, 1, 2)
    result = resample_image(turned, (10, 5, 9), 3, separate_axis=0)
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(result, resample_image(turned.copy(), (10, 5, 9), 3, separate_axis=0))


@pytest.mark.parametrize("separate", [None, 0, 1, 2])
@pytest.mark.parametrize("order", [1, 3])
def test_slabs_are_the_whole(order, separate):
    volume = np.random.default_rng(4).normal(size=(11, 9, 8)).astype(np.float32)
    shape = (17, 12, 6)
    whole = resample_image(volume[None], shape, order, separate)[0]
    way = Resampler(volume, shape, order, separate)
    for start in range(0, 17, 5):
        out = np.empty((min(5, 17 - start), 12, 6), np.float32)
        way.planes(start, start + len(out), out)
        np.testing.assert_allclose(out, whole[start : start + len(out)], atol=2e-6)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_long_axes_have_no_tiny_weights(order):
    line = np.random.default_rng(4).normal(size=(1, 1, 1, 300)).astype(np.float32)
    weights = np.abs(axis_matrix(300, 350, order))
    assert weights[weights > 0].min() > 1e-16  # else the products take ten times as long
    np.testing.assert_allclose(
        resample_image(line, (1, 1, 350), order)[0], zoom(line[0], (1, 1, 350), order), atol=5e-6
    )


def test_axis_matrix_keeps_constants_and_lines():
    for order in (0, 1, 3):
        matrix = axis_matrix(12, 30, order)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    line = axis_matrix(12, 24, 1) @ np.arange(12)
    np.testing.assert_allclose(line[1:-1], np.arange(0.25, 11, 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


# ------------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    "before, after, axis",
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((3, 1, 1), (3, 1, 1), None),  # more than 3 times, not 3 times
        ((3.1, 1, 1), (1, 1, 1), 0),
        ((1, 1, 1), (1, 5, 1), 1),  # the new spacing decides when the old one does not
        ((1, 1, 4), (5, 1, 1), 2),  # the old one goes first
        ((0.24, 1.25, 1.25), (5, 1, 1), None),  # two axes tie: cancelled, the new one is not asked
        ((1, 1, 1), (0.2, 1, 1), None),
    ],
)
def test_separate_axis_rule(before, after, axis):
    assert separate_axis(before, after, 3.0) == axis


def test_new_shape_rounds_half_to_even_and_keeps_a_voxel():
    assert new_shape((10, 5, 1), (1, 1, 1), (2, 2, 9)) == (5, 2, 1)
    assert new_shape((155, 240, 240), (1, 1, 1), (1, 1, 1)) == (155, 240, 240)


# --------------------------------------------------------------------------------------------------------- masks


def label_by_label(label, shape):
    """The rule written out, in float64 and without boxes; also how far each voxel is from a tie."""
    result, distance = np.zeros(shape, label.dtype), np.ones(shape)
    for value in np.unique(label):
        share = zoom((label == value).astype(float), shape, 1)
        result[share >= 0.5] = value
        distance = np.minimum(distance, np.abs(share - 0.5))
    return result, distance


@pytest.mark.parametrize("before, after", SHAPES)
@pytest.mark.parametrize("values", [[0, 1], [-1, 0, 1, 2, 4], [0, 300]])
def test_masks_follow_the_rule(before, after, values):
    rng = np.random.default_rng(5)
    label = rng.choice(np.array(values, np.int16), size=before)
    label = ndimage.median_filter(label, 3) if min(before) > 3 else label
    result = resample_label(label, after)
    expected, distance = label_by_label(label, after)
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result[distance > 1e-5], expected[distance > 1e-5])


def test_exact_ties_go_to_the_higher_label():
    """Halving a grid averages pairs of voxels, so one half is common."""
    label = np.zeros((1, 1, 8), np.int16)
    label[0, 0] = [0, 0, 0, 1, 1, 2, -1, 0]
    assert resample_label(label, (1, 1, 4))[0, 0].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_with_a_separate_axis(axis):
    before, after = (9, 12, 10), (14, 7, 15)
    label = np.random.default_rng(6).choice(
        np.array([-1, 0, 2, 3], np.int16), size=before, p=(0.2, 0.4, 0.3, 0.1)
    )
    within = tuple(np.delete(after, axis))
    made = [label_by_label(plane, within) for plane in slices_of(label, axis)]
    index = axis_matrix(before[axis], after[axis], 0).argmax(1)
    expected, distance = (np.take(np.stack(parts, axis), index, axis) for parts in zip(*made, strict=True))
    result = resample_label(label, after, separate_axis=axis)
    np.testing.assert_array_equal(result[distance > 1e-5], expected[distance > 1e-5])


def test_masks_by_nearest_neighbour():
    label = np.random.default_rng(7).integers(0, 4, (8, 9, 10)).astype(np.int16)
    factors = [m / n for m, n in zip((12, 5, 10), label.shape, strict=True)]
    expected = ndimage.zoom(label, factors, order=0, mode="nearest", grid_mode=True)
    np.testing.assert_array_equal(resample_label(label, (12, 5, 10), order=0), expected)
