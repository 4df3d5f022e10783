"""Surface elements against DeepMind's surface-distance and hand-worked cases."""

import itertools
import math

import numpy as np
import pytest
from masks import box, random_case, random_pair

from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.catalogue import METRICS, Pair, score
from autoseg.evaluation.metrics.surface import (
    Distances,
    area_table_mm2,
    neighbour_codes,
    nsd,
    surface_distances,
    surface_elements,
)

GROUP = [m for m in METRICS.values() if m.group == "surface" and not m.name.endswith("_penalised_mm")]


def reference(prediction, truth, spacing_mm, tolerance_mm=1.0):
    """What surface-distance makes of two masks, and the pooled mean, which it leaves to its user."""
    library = pytest.importorskip("surface_distance")
    found = library.compute_surface_distances(truth, prediction, spacing_mm)
    means = library.compute_average_surface_distance(found)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return {
        "surface_hausdorff_mm": library.compute_robust_hausdorff(found, 100),
        "surface_hd95_mm": library.compute_robust_hausdorff(found, 95),
        "assd_mm": np.average(means, weights=areas),
        "assd_mean_mm": np.mean(means),
        f"nsd_{tolerance_mm:g}mm": library.compute_surface_dice_at_tolerance(found, tolerance_mm),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(16))
def test_against_surface_distance(seed):
    """Rough masks that touch every edge of the volume, with any spacing."""
    prediction, truth, spacing_mm = random_case(seed)
    found = score(Pair(prediction, truth, spacing_mm), GROUP)
    assert found == pytest.approx(reference(prediction, truth, spacing_mm))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tolerance_mm", [0, 0.5, 2, 3.75])
def test_nsd_against_surface_distance(tolerance_mm):
    prediction, truth, spacing_mm = random_case(3)
    metric = nsd(tolerance_mm)
    expected = reference(prediction, truth, spacing_mm, tolerance_mm)[metric.name]
    assert metric(Pair(prediction, truth, spacing_mm)) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (6.5, 1.4, 1.4), (0.3, 2.0, 5.0)])
def test_areas_against_surface_distance(spacing_mm):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    expected = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    np.testing.assert_allclose(area_table_mm2(spacing_mm, "surface-distance"), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_empty_masks_against_surface_distance(monkeypatch):
    """Distances to nothing are ``inf`` there and undefined here; the surface Dice is the same."""
    library = pytest.importorskip("surface_distance")
    # gone from NumPy 2, which version 0.1 does not know
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    lesion, nothing = box((1, 2), (1, 2), (0, 2), shape=(3, 3, 3)), np.zeros((3, 3, 3), bool)
    for truth, prediction, which in ((lesion, nothing, "prediction"), (nothing, nothing, "both")):
        found = library.compute_surface_distances(truth, prediction, (1, 1, 1))
        dice = library.compute_surface_dice_at_tolerance(found, 1)
        np.testing.assert_equal(float(dice), METRICS["nsd_1mm"].when_empty(which))
        assert math.isnan(METRICS["assd_mm"](Pair(prediction, truth, (1, 1, 1))))


def test_neighbour_codes_bit_by_bit():
    for place, corner in enumerate(itertools.product((0, 1), repeat=3)):
        mask = np.zeros((2, 2, 2), bool)
        mask[corner] = True
        assert neighbour_codes(mask)[1, 1, 1] == 128 >> place
    assert neighbour_codes(np.ones((2, 3, 4), bool)).shape == (3, 4, 5)
    assert (neighbour_codes(np.ones((2, 2, 2), bool)) == 255).sum() == 1


def test_elements_of_one_voxel():
    """Its eight corners; together they are an octahedron through the middles of the way to the six neighbours."""
    surface = surface_elements(np.ones((1, 1, 1), bool))
    assert surface.where.all() and len(surface.codes) == 8
    assert surface.areas_mm2((1, 1, 1)).sum() == pytest.approx(math.sqrt(3))
    assert surface.areas_mm2((2, 2, 2)).sum() == pytest.approx(4 * math.sqrt(3))


def test_area_of_a_plate_depends_on_its_spacing():
    """Two sides of 200 mm by 200 mm, or by 400 mm; the rim is next to nothing."""
    slab = np.ones((1, 200, 200), bool)
    flat = surface_elements(slab).areas_mm2((0.001, 1, 1)).sum()
    assert flat == pytest.approx(2 * 200**2, rel=0.01)
    upright = surface_elements(slab.transpose(1, 0, 2)).areas_mm2((1, 0.001, 2)).sum()
    assert upright == pytest.approx(2 * 200 * 400, rel=0.01)


def test_areas_of_inside_and_outside():
    """A few voxels and all but these have the same surface; a closed one is nowhere smaller than that with gaps."""
    spacing_mm = (6.5, 1.4, 1.2)
    table = area_table_mm2(spacing_mm, "surface-distance")
    few = [code for code in range(256) if code.bit_count() < 4]
    np.testing.assert_allclose(table[few], table[[255 - code for code in few]])
    closed = area_table_mm2(spacing_mm, "closed")
    assert (closed >= table - 1e-9).all() and closed.max() > table.max()
    assert table[0] == table[255] == closed[0] == closed[255] == 0


def test_percentile_is_the_first_that_reaches_the_share():
    steps = Distances(mm=np.arange(20.0), mm2=np.full(20, 0.1))
    assert steps.percentile_mm(95) == 18  # the 19th of 20 equal areas: 95 % exactly, but for rounding
    assert steps.percentile_mm(95.1) == 19
    assert (steps.percentile_mm(0), steps.percentile_mm(100)) == (0, 19)
    weighted = Distances(mm=np.array([0.0, 1.0, 9.0]), mm2=np.array([1.0, 8.5, 0.5]))
    assert weighted.percentile_mm(95) == 1


def test_tolerance_is_reached_in_spite_of_rounding():
    """0.1 mm voxels: 3 * 0.1 is not 0.3 in binary numbers."""
    lesion = np.zeros((1, 1, 9), bool)
    shifted = lesion.copy()
    lesion[..., 1], shifted[..., 4] = True, True
    pair = Pair(shifted, lesion, (0.1, 0.1, 0.1))
    assert nsd(0.3)(pair) == 1
    assert nsd(0.29)(pair) == pytest.approx(0.5)


def test_both_means_differ_when_the_areas_do():
    truth = box((4, 6), (4, 6), (4, 6), shape=(12, 12, 12))
    prediction = box((1, 11), (1, 11), (1, 11), shape=(12, 12, 12))
    ours, theirs = surface_distances(pair := Pair(prediction, truth, (1, 1, 1)))
    assert ours.total_mm2 > 5 * theirs.total_mm2
    assert METRICS["assd_mean_mm"](pair) == pytest.approx((ours.mean_mm + theirs.mean_mm) / 2)
    pooled = np.average([ours.mean_mm, theirs.mean_mm], weights=[ours.total_mm2, theirs.total_mm2])
    assert METRICS["assd_mm"](pair) == pytest.approx(pooled)


def test_nsd_names_and_grows_with_the_tolerance():
    pair = Pair(*random_pair(), (3, 1, 2))
    values = [nsd(mm)(pair) for mm in (0, 0.5, 1, 2, 100)]
    assert values == sorted(values) and values[-1] == 1
    assert [nsd(mm).name for mm in (1, 2.0, 0.5)] == ["nsd_1mm", "nsd_2mm", "nsd_0.5mm"]
    assert METRICS["nsd_1mm"](pair) == values[2]


@pytest.mark.parametrize("tolerance_mm", [-1, math.nan, math.inf])
def test_a_tolerance_that_does_not_fit(tolerance_mm):
    with pytest.raises(AutosegError, match="the tolerance of the surface Dice does not fit") as caught:
        nsd(tolerance_mm)
    assert f"{tolerance_mm}" in str(caught.value)
