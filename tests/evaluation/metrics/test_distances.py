"""Distances between voxels against all pairs of voxels, scipy, medpy and repeated slices."""

import tracemalloc

import numpy as np
import pytest
from masks import box, random_case, random_pair

from autoseg.evaluation.metrics import distances
from autoseg.evaluation.metrics.catalogue import METRICS, Pair, border, hausdorff_mm, hd95_mm, score
from autoseg.evaluation.metrics.distances import COPIES, border_distances_mm, copied_border, directed_mm


def value(name, prediction, truth, spacing_mm):
    return METRICS[name](Pair(prediction, truth, spacing_mm))


def border_by_neighbours(mask):
    """Border voxels by looking at each voxel's six neighbours."""
    found = np.zeros_like(mask)
    for z, y, x in np.argwhere(mask):
        around = [(z - 1, y, x), (z + 1, y, x), (z, y - 1, x), (z, y + 1, x), (z, y, x - 1), (z, y, x + 1)]
        inside = [all(0 <= i < n for i, n in zip(p, mask.shape, strict=True)) and mask[p] for p in around]
        found[z, y, x] = not all(inside)
    return found


def all_pairs(a, b, spacing_mm):
    """From each voxel of either mask to the nearest of the other, by all pairs."""
    a, b = np.argwhere(a) * spacing_mm, np.argwhere(b) * spacing_mm
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return apart.min(1), apart.min(0)


# ------------------------------------------------------------------------------------------------ border voxels


def test_border_of_a_block_and_at_the_edge_of_the_array():
    assert border(box((1, 4), (1, 4), (1, 4), shape=(5, 5, 5))).sum() == 26
    assert border(np.ones((3, 3, 3), bool)).sum() == 26
    assert border(np.ones((1, 3, 3), bool)).all()
    assert border(np.zeros((0, 3, 3), bool)).size == 0


def test_hand_worked_distances():
    truth, prediction = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    truth[1, 1, 0:3] = True
    prediction[1, 1, 2:4] = True
    # truth to prediction: 2, 1, 0 mm; prediction to truth: 0, 1 mm; 95th percentiles 1.9 and 0.95
    assert hausdorff_mm(prediction, truth, (5.0, 2.0, 1.0)) == 2.0
    assert hd95_mm(prediction, truth, (5.0, 2.0, 1.0)) == pytest.approx(1.9)


@pytest.mark.parametrize("seed", range(12))
def test_border_distances_against_all_pairs(seed):
    prediction, truth, spacing_mm = random_case(seed)
    ours, theirs = all_pairs(border_by_neighbours(prediction), border_by_neighbours(truth), spacing_mm)
    found = border_distances_mm(Pair(prediction, truth, spacing_mm))
    np.testing.assert_allclose(found[0], ours, atol=1e-12)
    np.testing.assert_allclose(found[1], theirs, atol=1e-12)
    expected = max(np.percentile(ours, 95), np.percentile(theirs, 95))
    assert hd95_mm(prediction, truth, spacing_mm) == pytest.approx(expected)
    assert hausdorff_mm(prediction, truth, spacing_mm) == pytest.approx(max(ours.max(), theirs.max()))


@pytest.mark.parametrize("seed", range(4))
def test_against_medpy(seed):
    binary = pytest.importorskip("medpy.metric.binary")
    prediction, truth, spacing_mm = random_case(seed)
    assert hausdorff_mm(prediction, truth, spacing_mm) == pytest.approx(
        binary.hd(prediction, truth, spacing_mm)
    )
    ours, theirs = border_distances_mm(Pair(prediction, truth, spacing_mm))
    assert ours.mean() == pytest.approx(binary.asd(prediction, truth, spacing_mm))
    # medpy takes one percentile of both directions together, so its HD95 is never above ours
    pooled = binary.hd95(prediction, truth, spacing_mm)
    assert np.percentile(np.concatenate([ours, theirs]), 95) == pytest.approx(pooled)
    assert hd95_mm(prediction, truth, spacing_mm) >= pooled - 1e-12


@pytest.mark.parametrize("share", [0, 10**9], ids=["tree", "map"])
def test_tree_and_distance_map_agree(share, monkeypatch):
    prediction, truth, spacing_mm = random_case(5)
    expected, _ = all_pairs(prediction, truth, spacing_mm)
    monkeypatch.setattr(distances, "MAP_SHARE", share)
    np.testing.assert_allclose(directed_mm(prediction, truth, spacing_mm), expected, atol=1e-12)


def test_a_shift_along_each_axis_is_its_spacing():
    block = box((3, 6), (10, 20), (10, 20))
    for axis, mm in enumerate((4.0, 0.5, 0.25)):
        assert hausdorff_mm(np.roll(block, 2, axis), block, (4.0, 0.5, 0.25)) == pytest.approx(2 * mm)


# --------------------------------------------------------------------------------------------------- all voxels


@pytest.mark.parametrize("seed", range(6))
def test_all_voxels_against_scipy(seed):
    from scipy.spatial.distance import directed_hausdorff

    prediction, truth, spacing_mm = random_case(seed)
    a, b = np.argwhere(prediction) * spacing_mm, np.argwhere(truth) * spacing_mm
    expected = max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
    assert value("hausdorff_voxels_mm", prediction, truth, spacing_mm) == pytest.approx(expected)


def test_what_is_deep_inside_counts_for_borders_alone():
    """A hole in the prediction is as far from the truth's border as it is deep, but its voxels are true ones."""
    truth = np.ones((9, 9, 9), bool)
    hollow = truth.copy()
    hollow[4, 4, 4] = False
    assert value("hausdorff_mm", hollow, truth, (1, 1, 1)) == 3
    assert value("hausdorff_voxels_mm", hollow, truth, (1, 1, 1)) == 1


# ---------------------------------------------------------------------------------------------- repeated slices


@pytest.mark.parametrize("seed", range(8))
def test_repeated_slices_against_repeating_them(seed):
    prediction, truth, _ = random_case(seed)
    repeated = [np.repeat(mask, COPIES, axis=0) for mask in (prediction, truth)]
    expected = hausdorff_mm(*repeated, (0.5, 0.5, 0.5))
    assert value("hausdorff_9slices_mm", prediction, truth, (7, 0.5, 0.2)) == pytest.approx(expected)
    for mask, slices in zip((prediction, truth), repeated, strict=True):
        first, inner, last = copied_border(mask)
        found = np.stack([first, *[inner] * (COPIES - 2), last], axis=1).reshape(slices.shape)
        np.testing.assert_array_equal(found, border(slices))


def test_farthest_in_the_middle_of_the_copies():
    """The slice between two true ones: its copies are 1, 2, 3, 4, 5, 4, 3, 2, 1 voxels from them."""
    prediction = np.ones((3, 1, 1), bool)
    truth = prediction.copy()
    truth[1] = False
    assert value("hausdorff_9slices_mm", prediction, truth, (1, 1, 1)) == 5
    assert value("hausdorff_mm", prediction, truth, (9, 1, 1)) == 9


def test_repeated_slices_of_noise_are_bounded_in_memory():
    """Every voxel is border here; the tree holds two copies of a slice, not nine."""
    random = np.random.default_rng(0)
    prediction, truth = (random.random((30, 100, 100)) < 0.5 for _ in range(2))
    tracemalloc.start()
    found = value("hausdorff_9slices_mm", prediction, truth, (1, 1, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 < found < 5 and peak < 150 * truth.size


# --------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("name", [m.name for m in distances.METRICS])
def test_scales_with_the_spacing(name):
    a, b = random_pair()
    assert value(name, a, b, (6, 2, 4)) == pytest.approx(2 * value(name, a, b, (3, 1, 2)))


@pytest.mark.parametrize("name", ["hd95_mm", "hausdorff_mm", "hausdorff_voxels_mm"])
def test_axes_are_all_alike(name):
    a, b = random_pair()
    turned = [m.transpose(2, 0, 1) for m in (a, b)]
    assert value(name, *turned, (2, 3, 1)) == pytest.approx(value(name, a, b, (3, 1, 2)))


def test_nothing_is_computed_that_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(distances, "directed_mm", lambda *_: pytest.fail("distances were not asked for"))
    wanted = [METRICS["tp"], METRICS["dice"], METRICS["compactness_truth"]]
    assert list(score(Pair(*random_pair(), (1, 1, 1)), wanted)) == ["tp", "dice", "compactness_truth"]


def test_distances_are_computed_once(monkeypatch):
    calls = []
    real = directed_mm
    monkeypatch.setattr(distances, "directed_mm", lambda *a: calls.append(a) or real(*a))
    score(Pair(*random_pair(), (1, 1, 1)), [METRICS["hd95_mm"], METRICS["hausdorff_mm"]])
    assert len(calls) == 2
