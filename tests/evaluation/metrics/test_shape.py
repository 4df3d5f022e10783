"""Compactness against repeated slices, scikit-image and formulas of solids."""

import math

import numpy as np
import pytest
from masks import ball, random_case, random_pair

from autoseg.evaluation.metrics.catalogue import METRICS, Pair, border
from autoseg.evaluation.metrics.shape import compactness

NAMES = ("compactness", "compactness_9slices", "compactness_mesh")


def of(name, mask, spacing_mm=(1, 1, 1)):
    return METRICS[f"{name}_truth"](Pair(np.zeros_like(mask), mask, spacing_mm))


def test_formula():
    assert compactness(4 * math.pi, 4 / 3 * math.pi) == pytest.approx(6 * math.sqrt(math.pi))  # any ball
    assert compactness(6, 1) == pytest.approx(6**1.5)  # any cube


def test_one_voxel():
    mask = np.ones((1, 1, 1), bool)
    assert of("compactness", mask) == 1
    assert of("compactness_9slices", mask) == pytest.approx(9**1.5 / 9)  # nine voxels, all of them border
    assert of("compactness_mesh", mask) == pytest.approx(3**0.75)  # an octahedron of area sqrt(3)


@pytest.mark.parametrize("seed", range(4))
def test_repeated_slices_against_repeating_them(seed):
    mask, _, _ = random_case(seed)
    repeated = np.repeat(mask, 9, axis=0)
    expected = border(repeated).sum() ** 1.5 / repeated.sum()
    assert of("compactness_9slices", mask) == pytest.approx(expected)
    assert of("compactness", repeated) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_mesh_against_scikit_image(seed):
    """The areas of the neighbourhoods add up to that of the whole mesh, rough as the mask may be."""
    from skimage.measure import marching_cubes, mesh_surface_area

    mask, _, spacing_mm = random_case(seed)
    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(float), 0.5, spacing=tuple(spacing_mm))
    area_mm2, volume_mm3 = mesh_surface_area(vertices, faces), mask.sum() * spacing_mm.prod()
    assert of("compactness_mesh", mask, spacing_mm) == pytest.approx(area_mm2**1.5 / volume_mm3, rel=1e-5)


def test_mesh_of_the_same_ball_with_thick_slices():
    fine = ball(8, (10, 10, 10), (21, 21, 21))
    thick = ball(8, (2, 10, 10), (5, 21, 21), (4, 1, 1))
    isotropic, anisotropic = of("compactness_mesh", fine), of("compactness_mesh", thick, (4, 1, 1))
    assert isotropic == pytest.approx(anisotropic, rel=0.25)
    assert of("compactness", thick) > 1.5 * of("compactness", fine)  # counts voxels, whatever their shape


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_one_mask_alone(name):
    a, b = random_pair()
    pair, swapped = Pair(a, b, (3, 1, 2)), Pair(b, a, (3, 1, 2))
    prediction, truth = METRICS[f"{name}_prediction"], METRICS[f"{name}_truth"]
    assert prediction(pair) == truth(swapped) == of(name, a, (3, 1, 2))
    assert truth(pair) == prediction(swapped) == of(name, b, (3, 1, 2))


@pytest.mark.parametrize("name", NAMES)
def test_is_undefined_for_the_empty_mask_only(name):
    lesion, nothing = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    prediction, truth = METRICS[f"{name}_prediction"], METRICS[f"{name}_truth"]
    missed = Pair(nothing, lesion, (1, 1, 1))
    assert math.isnan(prediction(missed)) and truth(missed) == of(name, lesion)
    assert math.isnan(prediction.when_empty("prediction")) and prediction.when_empty("truth") is None
    assert math.isnan(truth.when_empty("truth")) and truth.when_empty("prediction") is None


@pytest.mark.parametrize("name", NAMES)
def test_has_no_unit(name):
    a, _ = random_pair()
    assert of(name, a, (6, 2, 4)) == pytest.approx(of(name, a, (3, 1, 2)))
