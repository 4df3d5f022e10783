"""The fully connected random field by published numbers; its fast kernels against those computed as they stand."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation
from autoseg.postprocessing import dense_crf as module
from autoseg.postprocessing.dense_crf import (
    dense_crf,
    exact_kernel,
    fit_dense_crf,
    intensity_levels,
    mean_field,
    place_kernel,
)
from autoseg.postprocessing.permutohedral import Permutohedral, simplices

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (1, [0.779686, 0.446824, 0.046905, 0.218340]),
        (2, [0.825458, 0.481823, 0.002489, 0.011728]),
        (5, [0.970181, 0.858502, 0.000752, 0.002936]),
    ],
)
def test_four_voxels(iterations, expected):
    """From the card of Perez Malla et al. 2019: in a row, of two intensities."""
    x, intensities = np.arange(4.0)[:, None], np.array([[100.0], [102], [180], [182]])
    kernels = exact_kernel(x / 3), exact_kernel(np.hstack([x / 17, intensities / 4.5]))
    p = np.array([0.7, 0.4, 0.2, 0.55])
    q = mean_field(np.stack([1 - p, p], 1), kernels, (3.0, 5.0), iterations)
    assert q[:, 1] == pytest.approx(expected, abs=1e-6)


def test_levels():
    """Mean 2, deviation 1: -1 and 1 of 3.1 on either side; outside is cut."""
    image, inside = np.array([1.0, 3, 100, 2]).reshape(1, 1, 1, 4), np.array([[[True, True, False, False]]])
    assert intensity_levels(image, inside)[0, 0, 0].tolist() == [86, 168, 255, 127]


@pytest.mark.parametrize("d", [1, 2, 3, 5, 6])
def test_every_feature_lies_among_the_corners_of_its_simplex(d):
    features = np.random.default_rng(d).uniform(-4, 4, (300, d))
    corners, weights = simplices(features)
    assert (corners.sum(2) == 0).all()
    assert weights.min() > -1e-9 and np.allclose(weights.sum(1), 1)
    remainders = np.sort(corners % (d + 1), axis=1)
    assert (remainders[:, :, 0] == np.arange(d + 1)).all()  # one corner of each kind
    middle = np.einsum("nc,ncd->nd", weights, corners)
    # a plane's own distances, stretched alike along all axes
    ours = np.linalg.norm(middle[:, None] - middle[None], axis=2)
    theirs = np.linalg.norm(features[:, None] - features[None], axis=2)
    assert np.allclose(ours, theirs * np.sqrt(2 / 3) * (d + 1))


def normalised(weighted_sums, values):
    scale = weighted_sums(np.ones((len(values), 1))) ** -0.5
    return scale * weighted_sums(scale * values)


@pytest.mark.parametrize(("d", "extent"), [(1, 6), (2, 4), (3, 3), (6, 1.5)])
def test_the_lattice_is_near_the_kernel(d, extent):
    """Within 4 % of the spread of what is filtered, and nearer than kernels that are wider or narrower by a third."""
    rng = np.random.default_rng(d)
    features = rng.uniform(0, extent, (1500, d))
    values = np.sin(features.sum(1, keepdims=True)) + 0.2 * rng.random((1500, 1))
    fast = normalised(Permutohedral(features).filter, values)
    off = {scale: np.abs(fast - exact_kernel(features * scale)(values)).mean() for scale in (0.75, 1, 1.33)}
    assert off[1] < 0.04 * np.ptp(exact_kernel(features)(values))
    assert min(off, key=off.get) == 1


def test_a_lattice_point_far_from_all_others_sees_itself_alone():
    features = np.array([[0.0, 0], [500, 500], [500, -500]])
    values = np.array([[1.0], [2], [4]])
    assert normalised(Permutohedral(features).filter, values) == pytest.approx(values)


def phantom(size=(8, 16, 16), noise=0.1):
    """A bright ball, and a probability that knows of it with errors."""
    rng = np.random.default_rng(7)
    z, y, x = np.indices(size)
    truth = (z - 4) ** 2 * 2 + (y - 8) ** 2 + (x - 8) ** 2 < 22
    image = (truth + noise * rng.normal(size=size))[None].astype(np.float32)
    blurred = ndimage.gaussian_filter(0.25 + 0.5 * truth + 0.45 * rng.normal(size=size), 0.4)
    lesion = np.clip(blurred, 0.02, 0.98).astype(np.float32)
    case = Segmentation(
        (lesion > 0.5).astype(np.uint8), (1.0, 1.0, 1.0), np.stack([1 - lesion, lesion]), image
    )
    return case, truth


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_errors_become_fewer_and_both_ways_agree(monkeypatch):
    case, truth = phantom()
    exact = dense_crf(case).mask > 0
    assert dice(exact, truth) > dice(case.mask > 0, truth) + 0.1
    monkeypatch.setattr(module, "EXACT", 0)
    fast = dense_crf(case).mask > 0
    assert (fast != exact).mean() < 0.01 and dice(fast, exact) > 0.95


def test_the_filter_of_places_is_their_kernel(monkeypatch):
    inside = np.random.default_rng(0).random((7, 9, 11)) < 0.7
    values = np.random.default_rng(1).random((int(inside.sum()), 2))
    exact = place_kernel(inside, (2.0, 3.0, 3.0))(values)
    monkeypatch.setattr(module, "EXACT", 0)
    assert place_kernel(inside, (2.0, 3.0, 3.0))(values) == pytest.approx(exact, abs=1e-3)


def test_only_voxels_inside_take_part():
    case, _ = phantom()
    inside = np.zeros(case.mask.shape, bool)
    inside[2:6, 4:12, 4:12] = True
    part = Segmentation(case.mask, case.spacing_mm, case.probabilities, case.image, inside)
    box = np.s_[..., 2:6, 4:12, 4:12]
    alone = Segmentation(case.mask[box], case.spacing_mm, case.probabilities[box], case.image[box])
    assert (dense_crf(part).mask[box] == dense_crf(alone).mask).all()
    assert not dense_crf(part).mask[~inside].any()


def test_the_weight_of_the_intensities_is_learned():
    """Where they show the lesion a large weight is best; where they are noise the least one that is tried."""
    case, truth = phantom()
    learned = fit_dense_crf([FitCase("a", case, truth.astype(np.uint8))], LABELS, smoothness_weight=0.0)
    assert learned["appearance_weight"] > 1
    clear = case.probabilities.copy()
    clear[1] = np.where(truth, 0.9, 0.1)
    clear[0] = 1 - clear[1]
    sure = Segmentation(case.mask, case.spacing_mm, clear, np.zeros_like(case.image))
    assert fit_dense_crf([FitCase("a", sure, truth.astype(np.uint8))], LABELS)["appearance_weight"] == 1


def test_too_many_voxels_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", 100)
    with pytest.raises(AutosegError, match="(?s)too many voxels.*postprocessing.dense_crf=off"):
        dense_crf(phantom()[0])
