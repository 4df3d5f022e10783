"""Lost lesions and the voxels to draw from, by hand and against a slow oracle."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.preprocessing.lesion_changes import compare_components, foreground_voxels
from autoseg.preprocessing.resample import axis_orders, resample_label

FACES_EDGES_CORNERS = np.ones((3, 3, 3))


def test_a_small_lesion_is_lost_and_a_large_one_is_not():
    label = np.zeros((8, 20, 20), np.int16)
    label[2:6, 2:8, 2:8] = 1  # stays
    label[1, 15, 15] = 1  # one voxel, lost when the grid is halved
    label[6, 15, 5] = 2  # the same of another class, the only one
    after = resample_label(label, (4, 10, 10))
    one, two = compare_components(label, after, (1, 1, 1), voxel_ml=0.5)
    assert (one.label, one.before, one.after, one.lost_voxels, one.lost_ml) == (1, 2, 1, [1], 0.5)
    assert (two.label, two.before, two.after, two.lost_voxels, two.n_lost) == (2, 1, 0, [1], 1)


def test_ignore_and_outside_are_not_lesions():
    label = np.full((4, 6, 6), -1, np.int16)
    label[1, 1, 1] = 3
    assert compare_components(label, np.full((2, 3, 3), -1, np.int16), (1, 1, 1), 1.0, ignore=3) == []
    assert foreground_voxels(label, ignore=3).shape == (0, 5)


def slowly_lost(label, shape, separate):
    """Resample each component alone, label by label, and see which one's voxels carry its value in the result."""
    result, lost = resample_label(label, shape, 1, separate), {}
    for value in np.unique(label[label > 0]):
        components, n = ndimage.label(label == value, FACES_EDGES_CORNERS)
        for i in range(1, n + 1):
            alone = resample_label((components == i).astype(np.int16), shape, 1, separate)
            if not (result[alone > 0] == value).any():
                lost.setdefault(int(value), []).append(int((components == i).sum()))
    return {value: sorted(sizes) for value, sizes in lost.items()}


@pytest.mark.parametrize("separate", [None, 0, 2])
@pytest.mark.parametrize("shape", [(7, 12, 13), (20, 9, 11), (5, 40, 7)])
def test_losses_equal_the_slow_way(shape, separate):
    rng = np.random.default_rng(sum(shape))
    label = np.zeros((14, 22, 24), np.int16)
    for _ in range(60):
        z, y, x = (int(rng.integers(0, n - 3)) for n in label.shape)
        dz, dy, dx = rng.integers(1, 4, 3)
        label[z : z + dz, y : y + dy, x : x + dx] = rng.integers(0, 3)
    after = resample_label(label, shape, 1, separate)
    found = compare_components(label, after, axis_orders(1, separate, 0), 1.0)
    assert {part.label: part.lost_voxels for part in found if part.n_lost} == slowly_lost(
        label, shape, separate
    )
    for part in found:
        assert part.before == ndimage.label(label == part.label, FACES_EDGES_CORNERS)[1]
        assert part.after == ndimage.label(after == part.label, FACES_EDGES_CORNERS)[1]


def test_foreground_voxels_are_limited_deterministic_and_hold_every_lesion():
    label = np.zeros((20, 60, 60), np.int16)
    label[2:18, 5:40, 5:40] = 1  # 19600 voxels
    label[2:18, 5:40, 5:7] = 2  # touches it: the same lesion
    label[0, 50:60:3, 50:60:3] = 1  # 16 single voxels
    rows = foreground_voxels(label)
    assert rows.dtype == np.int32
    z, y, x, value, lesion = rows.T
    assert np.array_equal(label[z, y, x], value)
    assert (value == 1).sum() == 10_000 and (value == 2).sum() == (label == 2).sum()
    assert len(np.unique(lesion)) == 17 and len(np.unique(lesion[value == 2])) == 1
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert np.array_equal(rows, foreground_voxels(label.copy()))
