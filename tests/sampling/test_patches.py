"""Cutting, and what moves voxels."""

import json

import numpy as np
import pytest

from autoseg.plugins.parts import Place
from autoseg.sampling import geometry, patches
from autoseg.sampling.foreground_share import crop_start
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.sample import Sample


def rng(i=0):
    return np.random.default_rng(i)


def test_an_image_smaller_than_the_patch_lies_in_its_middle():
    assert crop_start(rng(), (4, 5, 20), (8, 8, 8), (2, 2, 2), None) == (-2, -1, 0)
    image = np.ones((1, 4, 5, 20), np.float32)
    cut = patches.cut(image, ((-2, 6), (-1, 7), (0, 8)), 0, np.float32)
    assert cut.shape == (1, 8, 8, 8) and cut.sum() == 4 * 5 * 8
    assert cut[0, 2:6, 1:6].min() == 1


def test_cutting_is_padding_and_slicing():
    array = rng().standard_normal((2, 7, 8, 9)).astype(np.float32)
    padded = np.pad(array, [(0, 0), (5, 5), (5, 5), (5, 5)], constant_values=-1)
    for low in [(-5, -3, 0), (2, 2, 2), (5, 6, 7), (-4, 8, -4)]:
        box = tuple((a, a + 4) for a in low)
        expected = padded[(slice(None), *(slice(a + 5, b + 5) for a, b in box))]
        np.testing.assert_array_equal(patches.cut(array, box, -1, np.float32), expected)


def test_a_cut_is_a_copy():
    array = np.zeros((4, 4, 4), np.int8)
    patches.cut(array, ((0, 4),) * 3, -1, np.int8)[:] = 1
    assert array.sum() == 0


@pytest.mark.parametrize("in_plane", [False, True])
def test_turning_and_zooming_never_lose_the_voxel(in_plane):
    for i in range(300):
        r = rng(i)
        angles = tuple(r.uniform(-np.pi, np.pi, 1) if in_plane else r.uniform(-0.52, 0.52, 3))
        parameters = Parameters(rotation=angles, scale=float(r.uniform(0.7, 1.4)), in_plane=in_plane)
        matrix = geometry.in_space(parameters, 3)
        size, patch = r.integers(12, 40, 3), (4, 16, 16) if in_plane else (12, 16, 14)
        voxel = tuple(int(r.integers(0, n)) for n in size)
        start = crop_start(r, size, patch, voxel, matrix)
        half = (np.array(patch) - 1) / 2
        seen = np.linalg.inv(matrix) @ (np.array(voxel) - start - half)
        assert (np.abs(seen) <= half + 0.5).all()


def test_the_source_box_holds_all_that_a_turned_patch_shows_and_no_more():
    for i in range(50):
        r = rng(i)
        parameters = Parameters(rotation=tuple(r.uniform(-0.5, 0.5, 3)), scale=float(r.uniform(0.7, 1.4)))
        matrix = geometry.affine(parameters, 3)
        corners = np.array(np.meshgrid(*[[-3.5, 3.5]] * 3)).reshape(3, -1)
        points = matrix @ corners + np.full((3, 1), 103.5)
        box = geometry.source_box(matrix, (100, 100, 100), (8, 8, 8), (300, 300, 300))
        for axis, (low, high) in enumerate(box):
            assert low <= points[axis].min() <= low + 1.01
            assert high - 2.01 <= points[axis].max() <= high - 1


def test_a_source_box_ends_one_voxel_beyond_the_image():
    matrix = np.eye(3) * 1.4 + 1e-9
    assert geometry.source_box(matrix, (-2, 0, 4), (8, 8, 8), (4, 8, 8)) == ((-1, 5), (-1, 9), (2, 9))


def test_present_values():
    assert patches.present(np.array([[3, -1], [0, 3]], np.int8)) == (-1, 0, 3)
    assert patches.present(np.full((2, 2), 127, np.int8)) == (127,)
    assert patches.present(np.array([127, -1], np.int8)) == (-1, 127)
    assert patches.present(np.array([300, 2, 300], np.int16)) == (2, 300)


def test_samples_survive_json():
    place = Place("a", True, (1, 2, 3), (0, 0, -1), (8, 8, 8))
    sample = Sample(1, 5, place, Parameters(rotation=(0.1,), mirror=(2,)))
    assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample
