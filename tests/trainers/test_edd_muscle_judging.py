"""Candidates, their patches and the fusion, against hand-worked cases and slow oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.errors import AutosegError
from autoseg.trainers import _edd_muscle_judging
from autoseg.trainers._edd_muscle_judging import Candidates, cut_patches, find_candidates, fuse, real

DIAGONALS = np.ones((3, 3))


def volume(*blocks: tuple[int, slice, slice], shape: tuple[int, int, int] = (3, 24, 30)) -> np.ndarray:
    """Probability 0.9 in blocks of slices, 0.1 elsewhere."""
    probability = np.full(shape, 0.1)
    for z, y, x in blocks:
        probability[z, y, x] = 0.9
    return probability


# Candidates ----------------------------------------------------------------------------------------------------------


def test_candidates_by_hand():
    """A pair on a diagonal, a block of exactly 60, a larger one, and one right below the pair in the next slice."""
    probability = volume(
        (0, slice(2, 3), slice(4, 5)),
        (0, slice(3, 4), slice(5, 6)),
        (0, slice(10, 16), slice(10, 20)),
        (1, slice(3, 4), slice(5, 6)),
        (1, slice(10, 11), slice(0, 30)),
        (1, slice(11, 12), slice(0, 30)),
        (1, slice(12, 13), slice(0, 1)),
    )
    found = find_candidates(probability)
    assert sorted(zip(map(tuple, found.centres.tolist()), found.sizes_px.tolist(), strict=True)) == [
        ((0, 3, 5), 2),  # 2.5, 4.5, halves up
        ((0, 13, 15), 60),  # 12.5, 14.5
        ((1, 3, 5), 1),
    ]
    assert len(found) == 3
    others = (probability > 0.5) & (found.labels == 0)
    assert others.sum() == 61 and others[1, 10:12].all()
    assert not (found.labels > 0)[probability <= 0.5].any()
    for i, size in enumerate(found.sizes_px, start=1):
        assert (found.labels == i).sum() == size


def test_four_neighbours_part_a_diagonal():
    probability = volume((0, slice(2, 3), slice(4, 5)), (0, slice(3, 4), slice(5, 6)))
    assert len(find_candidates(probability)) == 1
    assert len(find_candidates(probability, connectivity=4)) == 2


def test_the_threshold_itself_is_not_lesion():
    probability = np.full((1, 4, 4), 0.5)
    assert len(find_candidates(probability)) == 0
    probability[0, 1, 1] = np.nextafter(0.5, 1)
    assert find_candidates(probability).sizes_px.tolist() == [1]


def test_candidates_are_scipys_components_of_each_slice():
    rng = np.random.default_rng(0)
    probability = ndimage.gaussian_filter(rng.random((5, 50, 60)), (0, 1.2, 1.2))
    probability = (probability - probability.min()) / np.ptp(probability)
    found = find_candidates(probability, largest_px=25)
    n = n_large = 0
    for z, plane in enumerate(probability > 0.5):
        labels, count = ndimage.label(plane, DIAGONALS)
        for i in range(1, count + 1):
            pixels = labels == i
            if pixels.sum() > 25:
                n_large += pixels.sum()
                assert not found.labels[z][pixels].any()
                continue
            n += 1
            (own,) = np.unique(found.labels[z][pixels])
            assert found.sizes_px[own - 1] == pixels.sum()
            centre = np.array([z, *np.argwhere(pixels).mean(0)])
            assert np.abs(found.centres[own - 1] - centre).max() <= 0.5
    assert (len(found), (found.labels > 0).sum()) == (n, (probability > 0.5).sum() - n_large)
    assert n > 10 and n_large > 0


def test_real_candidates_share_a_pixel_with_the_truth():
    probability = volume(
        (0, slice(2, 4), slice(2, 4)), (0, slice(8, 9), slice(8, 9)), (2, slice(2, 4), slice(2, 4))
    )
    found = find_candidates(probability)
    truth = np.zeros(probability.shape, bool)
    truth[0, 3, 3] = truth[1, 8, 8] = truth[2, 20, 20] = True
    expected = [tuple(centre) == (0, 3, 3) for centre in found.centres.tolist()]
    assert real(found, truth).tolist() == expected and sum(expected) == 1
    assert real(found, truth.astype(np.uint8)).tolist() == expected


def test_nothing_found_is_no_fault():
    nothing = np.zeros((2, 20, 20), np.float32)
    found = find_candidates(nothing)
    assert len(found) == 0 and found.centres.shape == (0, 3) and not found.labels.any()
    assert cut_patches(nothing[None], nothing, found.centres).shape == (0, 4, 16, 16)
    assert real(found, nothing > 0).shape == (0,)
    assert fuse(nothing, found, np.zeros(0)).shape == (0,)


# Patches -------------------------------------------------------------------------------------------------------------


def slow_window(plane: np.ndarray, y: int, x: int, side: int, outside: float) -> np.ndarray:
    """One window, pixel by pixel."""
    window = np.full((side, side), outside)
    for i in range(side):
        for j in range(side):
            v, u = y - side // 2 + i, x - side // 2 + j
            if 0 <= v < plane.shape[0] and 0 <= u < plane.shape[1]:
                window[i, j] = plane[v, u]
    return window


def slow_patch(plane: np.ndarray, y: int, x: int, side: int, outside: float) -> np.ndarray:
    """Each pixel of 16 x 16 is the mean of its block of the window."""
    window, block = slow_window(plane, y, x, side, outside), side // 16
    rows = [window[i * block : (i + 1) * block] for i in range(16)]
    return np.array([[row[:, j * block : (j + 1) * block].mean() for j in range(16)] for row in rows])


def test_patches_are_what_the_slow_way_gives():
    rng = np.random.default_rng(1)
    image, probability = rng.normal(size=(2, 4, 40, 35)), rng.random((4, 40, 35))
    centres = np.array([[2, 0, 0], [0, 39, 34], [2, 20, 17], [3, 5, 30]])
    windows = (16, 32, 64)
    patches = cut_patches(image, probability, centres, probability_windows_px=windows)
    assert patches.shape == (4, 9, 16, 16) and patches.dtype == np.float32
    for patch, (z, y, x) in zip(patches, centres, strict=True):
        for i, side in enumerate(windows):
            for c in range(2):
                expected = slow_patch(image[c, z], y, x, side, image[c].min())
                assert patch[2 * i + c] == pytest.approx(expected, abs=1e-6)
            assert patch[6 + i] == pytest.approx(slow_patch(probability[z], y, x, side, 0.0), abs=1e-6)


def test_channels_of_the_two_forms():
    image, probability = np.random.default_rng(2).random((1, 2, 30, 30)), np.zeros((2, 30, 30))
    probability[1, 12, 17] = 1
    four = cut_patches(image, probability, np.array([[1, 12, 17]]))
    six = cut_patches(image, probability, np.array([[1, 12, 17]]), probability_windows_px=(16, 32, 64))
    assert four.shape == (1, 4, 16, 16) and six.shape == (1, 6, 16, 16)
    assert np.array_equal(six[:, :4], four)
    assert np.array_equal(four[0, 0], image[0, 1, 4:20, 9:25].astype(np.float32))
    # the pixel is the first after the middle at each scale, and weighs a block's share of it
    assert [six[0, i, 8, 8] for i in (3, 4, 5)] == [1, 1 / 4, 1 / 16]
    assert six[0, 3:].sum() == 1 + 1 / 4 + 1 / 16


def test_windows_that_do_not_fit_are_refused():
    image, probability = np.zeros((1, 1, 8, 8)), np.zeros((1, 8, 8))
    with pytest.raises(AutosegError, match=r"sides of 24 px for patches of 16 px[\s\S]*even multiples"):
        cut_patches(image, probability, np.array([[0, 1, 1]]), image_windows_px=(16, 24))


# Fusion --------------------------------------------------------------------------------------------------------------


def case() -> tuple[np.ndarray, Candidates]:
    """Three candidates in two slices and one large component, with random probabilities."""
    rng = np.random.default_rng(3)
    inside = volume(
        (0, slice(2, 5), slice(2, 6)),
        (0, slice(8, 9), slice(8, 12)),
        (1, slice(2, 5), slice(2, 6)),
        (1, slice(10, 20), slice(10, 20)),
    )
    probability = np.where(
        inside > 0.5, rng.uniform(0.51, 1, inside.shape), rng.uniform(0, 0.49, inside.shape)
    )
    found = find_candidates(probability)
    assert len(found) == 3
    return probability, found


def fused_map(probability: np.ndarray, found: Candidates, q: np.ndarray, rule: str = "peak") -> np.ndarray:
    """The probability after the fusion, everywhere."""
    fused = probability.copy()
    fused[found.pixels] = fuse(probability, found, q, rule)
    return fused


def test_the_largest_fused_value_of_a_candidate_is_its_judgement():
    """So it vanishes exactly when its judgement is not above 0.5."""
    probability, found = case()
    q = np.array([0.2, 0.5, 0.93])
    fused = fused_map(probability, found, q)
    for i, value in enumerate(q, start=1):
        own = found.labels == i
        assert fused[own].max() == value
        assert fused[own] / value == pytest.approx(probability[own] / probability[own].max(), rel=1e-12)


@pytest.mark.parametrize("rule", _edd_muscle_judging.RULES)
def test_fused_values_are_probabilities_in_the_order_of_the_pixels(rule):
    probability, found = case()
    before = probability.copy()
    values = fuse(probability, found, np.array([0.1, 0.6, 0.9]), rule)
    assert np.array_equal(probability, before)
    assert np.array_equal(np.ravel_multi_index(found.pixels, probability.shape), np.flatnonzero(found.labels))
    assert values.dtype == np.float64 and values.min() >= 0 and values.max() <= 1


@pytest.mark.parametrize("q", [0.51, 0.7, 0.9])
def test_an_accepted_component_keeps_its_pixels(q):
    """Of 60 pixels whose p rises evenly from 0.5 to 1; the rule "peak" keeps those with p > 1 / (2 q)."""
    p = np.full((1, 6, 30), 0.1)
    p[0, :2] = 0.5 + np.linspace(1 / 60, 1, 60).reshape(2, 30) / 2
    found = find_candidates(p)
    kept = {rule: (fuse(p, found, np.array([q]), rule) > 0.5).sum() for rule in ("component", "peak")}
    assert len(found) == 1 and kept["component"] == 60
    assert kept["peak"] == (p[0, :2] > 1 / (2 * q)).sum() < 60
    assert not (fuse(p, found, np.array([0.5]), "component") > 0.5).any()


def test_candidates_of_a_lower_threshold_do_not_grow():
    p = np.full((1, 20, 20), 0.1)
    p[0, 3, 3:6] = 0.3, 0.9, 0.45
    found = find_candidates(p, threshold=0.2)
    assert found.sizes_px.tolist() == [3]
    assert fuse(p, found, np.array([0.8]), "component").tolist() == [0.3, 0.8, 0.45]
    assert fuse(p, found, np.array([0.2]), "component").tolist() == [0.2, 0.2, 0.2]


def test_sure_judgements_keep_and_remove():
    probability, found = case()
    for rule in ("component", "peak", "odds"):
        fused = fused_map(probability, found, np.array([1.0, 0.0, 0.0]), rule)
        assert (fused[found.labels == 1] > 0.5).any() and not (fused[found.labels > 1] > 0.5).any()
    assert fused_map(probability, found, np.ones(3), "product") == pytest.approx(probability, abs=1e-12)


def test_surely_opposed_networks_are_undecided():
    one = np.ones(1)
    assert _edd_muscle_judging.by_odds(one, 0 * one, one, 0.5).tolist() == [0.5]
    assert _edd_muscle_judging.by_odds(0 * one, one, one, 0.5).tolist() == [0.5]


def test_without_both_kinds_of_candidates_there_is_no_prior():
    for positives, negatives in ((5, 0), (0, 5)):
        with pytest.raises(
            AutosegError, match=rf"{positives} real and {negatives} false[\s\S]*without the second"
        ):
            _edd_muscle_judging.correct_prior(np.array([0.5]), positives, negatives)


def test_judgements_that_do_not_fit_are_refused():
    probability, found = case()
    with pytest.raises(AutosegError, match=r"no fusion 'odd'[\s\S]*did you mean odds"):
        fuse(probability, found, np.ones(3), "odd")
    with pytest.raises(AutosegError, match="2 judgements of 3 candidates"):
        fuse(probability, found, np.ones(2))
    with pytest.raises(AutosegError, match="prior 1.0"):
        fuse(probability, found, np.ones(3), "odds", prior=1.0)
