"""Metrics against values that were worked out from the definitions of the five papers whose methods autoseg has.

The distances and shapes of RatLesNetv2 and the surface distances of the 3D residual U-Net were computed independently:
with distance transforms, with scikit-image and with DeepMind's surface-distance.
"""

import json
import math

import numpy as np
import pytest
from masks import RAT_SHAPE, RAT_SPACING_MM, ball, box

from autoseg.evaluation.metrics.catalogue import METRICS, Pair, micro_dice, score
from autoseg.evaluation.metrics.surface import area_table_mm2, surface_distances, surface_elements

# ---------------------------------------------------------------- RatLesNetv2: Valverde et al. 2020, Front Neurosci 14


def rat_cases():
    """Prediction and truth, then the values in the order of RAT_NAMES."""
    block = box((5, 9), (20, 40), (20, 40))
    far = block | box((0, 1), (0, 1), (0, 1))
    whole = box((4, 10), (20, 40), (20, 40))
    holed = whole & ~box((5, 8), (28, 31), (28, 31))
    shifted_y, shifted_z = box((5, 9), (23, 43), (20, 40)), box((6, 10), (20, 40), (20, 40))
    edge, narrower = box((0, 4), (0, 20), (0, 20)), box((0, 4), (0, 18), (0, 20))
    small, large = (ball(mm, (9, 32, 32), RAT_SHAPE, RAT_SPACING_MM) for mm in (2.2, 2.5))
    yield "same", block, block, 1.0, 0.0, 0.0, 0.0, 18.3584259, 13.6704572, 14.55305
    yield "shift y", shifted_y, block, 0.85, 3.0, 0.3515625, 0.3515625, 18.3584259, 13.6704572, 14.55305
    yield "shift z", shifted_z, block, 0.75, 1.0, 1.0546875, 1.0, 18.3584259, 13.6704572, 14.55305
    yield "far", far, block, 0.9996876, 28.7228132, 6.2286011, 5.9988606, 18.3758746, 13.7164571, 14.62161
    yield "edge", edge, narrower, 0.9473684, 2.0, 0.2343750, 0.2343750, 18.3584259, 13.6704572, 14.55305
    yield "hole", holed, whole, 0.9943432, 2.0, 1.0546875, 1.0, 16.4127859, 17.0234729, 17.58603
    yield "ball", small, large, 0.8008401, 3.0, 0.5975413, 0.5975413, 27.1431596, 12.5083399, 15.29016


RAT_NAMES = (
    "dice",
    "hausdorff_mm",  # of voxels of 1 mm
    "hausdorff_9slices_mm",
    "hausdorff_mm",
    "compactness_prediction",
    "compactness_9slices_prediction",
    "compactness_mesh_prediction",
)


@pytest.mark.parametrize(
    "prediction, truth, expected",
    [pytest.param(p, t, values, id=name) for name, p, t, *values in rat_cases()],
)
def test_ratlesnetv2(prediction, truth, expected):
    true, cubes = Pair(prediction, truth, RAT_SPACING_MM), Pair(prediction, truth, (1, 1, 1))
    pairs = [true, cubes, true, true, true, true, true]
    found = [METRICS[name](pair) for name, pair in zip(RAT_NAMES, pairs, strict=True)]
    assert found == pytest.approx(expected, abs=6e-6)
    assert found[:-1] == pytest.approx(expected[:-1], abs=6e-8)
    assert METRICS["dice_ratlesnetv2"](true) == found[0]


def test_ratlesnetv2_a_slice_apart_is_nine_voxels():
    first, second = box((5, 6), (20, 30), (20, 30)), box((6, 7), (20, 30), (20, 30))
    assert METRICS["hausdorff_9slices_mm"](Pair(first, second, RAT_SPACING_MM)) == 9 * RAT_SPACING_MM[1]


@pytest.mark.parametrize(
    "radius, by_border, by_mesh",
    [(5, 6.422768, 12.17752), (10, 7.3362883, 12.19044), (20, 7.6480582, 12.05556)],
)
def test_compactness_of_balls(radius, by_border, by_mesh):
    mask = ball(radius, (radius + 2,) * 3, (2 * radius + 5,) * 3)
    pair = Pair(mask, mask, (1, 1, 1))
    for side in ("prediction", "truth"):
        assert METRICS[f"compactness_{side}"](pair) == pytest.approx(by_border, abs=5e-7)
        assert METRICS[f"compactness_mesh_{side}"](pair) == pytest.approx(by_mesh, abs=5e-6)


# ------------------------------------------------- 3D residual U-Net: Tomita et al. 2020, NeuroImage Clin 27: 102276


def cube(low, high):
    return box(*[(low, high)] * 3, shape=(24, 24, 24))


def surface_cases():
    """Prediction, truth, spacing; truth to prediction, prediction to truth, both means, HD and HD95 in mm."""
    shape = (24, 24, 24)
    voxel, other = box((5, 6), (5, 6), (5, 6), shape=shape), box((5, 6), (5, 6), (10, 11), shape=shape)
    yield "voxels", other, voxel, (1, 1, 1), 4.5, 4.5, 4.5, 4.5, 5.0, 5.0
    block, moved = cube(6, 14), box((8, 16), (6, 14), (6, 14), shape=shape)
    yield "shift", moved, block, (1, 1, 1), *[0.6875204] * 4, 2.0, 2.0
    wide, narrow = cube(6, 16), cube(7, 15)
    yield "nested", wide, narrow, (1, 1, 1), 1.0, 1.0583238, 1.0357913, 1.0291619, 1.7320508, 1.4142136
    small, large = ball(6, (11,) * 3, shape), ball(8, (11,) * 3, shape)
    yield "balls", small, large, (1, 1, 1), 1.5714997, 1.5095799, 1.5486990, 1.5405398, 2.2360680, None
    far = block | box((22, 23), (22, 23), (22, 23), shape=shape)
    yield "far", far, block, (1, 1, 1), 0.0, 0.0715388, 0.0358564, 0.0357694, 15.5884573, 0.0
    thick, moved = (box((z, z + 4), (6, 14), (6, 14), shape=shape) for z in (6, 7))
    yield "thick", moved, thick, (2, 0.5, 0.5), *[0.4433493] * 4, 2.0, None


SURFACE_NAMES = ("assd_mm", "assd_mean_mm", "surface_hausdorff_mm", "surface_hd95_mm")


@pytest.mark.parametrize(
    "prediction, truth, spacing_mm, expected",
    [pytest.param(p, t, mm, values, id=name) for name, p, t, mm, *values in surface_cases()],
)
def test_surface_distances(prediction, truth, spacing_mm, expected):
    pair = Pair(prediction, truth, spacing_mm)
    from_prediction, from_truth = surface_distances(pair)
    assert (from_truth.mean_mm, from_prediction.mean_mm) == pytest.approx(tuple(expected[:2]), abs=6e-8)
    for name, value in zip(SURFACE_NAMES, expected[2:], strict=True):
        if value is not None:
            assert METRICS[name](pair) == pytest.approx(value, abs=6e-8), name


@pytest.mark.parametrize(
    "mask, spacing_mm, area_mm2",
    [
        (np.ones((1, 1, 1), bool), (1, 1, 1), 1.7320508),
        (np.ones((8, 8, 8), bool), (1, 1, 1), 355.1290204),
        (np.ones((10, 10, 10), bool), (1, 1, 1), 564.0995832),
        (np.ones((4, 8, 8), bool), (2, 0.5, 0.5), 147.2831614),
    ],
    ids=["voxel", "cube 8", "cube 10", "thick slices"],
)
def test_surface_areas(mask, spacing_mm, area_mm2):
    assert surface_elements(mask).areas_mm2(spacing_mm).sum() == pytest.approx(area_mm2, abs=6e-8)


def test_surface_distances_to_nothing_are_undefined():
    """The package gives ``inf`` or ``nan``; neither can be a part of a mean."""
    block, nothing = cube(6, 14), cube(0, 0)
    for prediction, truth in ((nothing, block), (block, nothing), (nothing, nothing)):
        found = score(Pair(prediction, truth, (1, 1, 1)), [METRICS[name] for name in SURFACE_NAMES])
        assert all(math.isnan(value) for value in found.values())


def test_published_area_table(shared):
    """The 256 areas that surface-distance publishes for voxels of 1 mm."""
    expected = json.loads((shared / "conformance/resunet.json").read_text())["surface_distance"]
    table = area_table_mm2((1.0, 1.0, 1.0), "surface-distance")
    np.testing.assert_allclose(table, expected["surfel_area_table_1mm_by_neighbour_code"], atol=1e-9)


def test_micro_and_macro_dice():
    """Probabilities of two cases at p > 0.5: the mean of the two Dice is 1/3, Dice of all voxels is 1/2."""
    cases = [
        ([0.9, 0.8, 0.4, 0.2, 0.1, 0.6], [1, 1, 1, 0, 0, 0]),
        ([0.3, 0.45, 0.2, 0.05, 0.55, 0.1], [0, 1, 0, 0, 0, 0]),
    ]
    pairs = [
        Pair(np.array(p).reshape(1, 1, 6) > 0.5, np.array(t, bool).reshape(1, 1, 6), (1, 1, 1))
        for p, t in cases
    ]
    assert np.mean([METRICS["dice"](pair) for pair in pairs]) == pytest.approx(1 / 3)
    assert micro_dice(*([getattr(pair, name) for pair in pairs] for name in ("tp", "fp", "fn"))) == 0.5


# -------------------------------------------- DeepMedic on ISLES 2017: Pérez Malla et al. 2019, Front Neuroinform 13


def test_deepmedic():
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool)[None]
    prediction = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)[None]
    found = score(Pair(prediction, truth, (1, 1, 1)))
    expected = {
        "tp": 3,
        "fp": 1,
        "fn": 2,
        "tn": 10,
        "dice": 0.666667,
        "ppv": 0.75,
        "tpr": 0.6,
        "tnr": 0.909091,
        "accuracy": 0.8125,
        "mcc": 0.544949,
        "hausdorff_voxels_mm": 3.162278,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=6e-7)
    assert METRICS["hausdorff_voxels_mm"](Pair(prediction, truth, (1, 2, 1))) == 5.0


def test_deepmedic_empty_masks():
    """Without prediction all ratios are 0 and the distance is left out; without both only Dice is defined."""
    truth = np.ones((1, 2, 2), bool)
    missed = score(Pair(np.zeros_like(truth), truth, (1, 1, 1)))
    assert [missed[name] for name in ("dice", "ppv", "tpr", "mcc")] == [0, 0, 0, 0]
    assert math.isnan(missed["hausdorff_voxels_mm"])
    nothing = score(Pair(np.zeros_like(truth), np.zeros_like(truth), (1, 1, 1)))
    assert nothing["dice"] == 1 and math.isnan(nothing["mcc"])


# --------------------------------------------------------------- Brain SegNet: Hu et al. 2020, BMC Med Imaging 20: 17


@pytest.mark.parametrize(
    "region, expected",
    [
        ((1, 2, 3, 4), (0.857143, 0.857143, 0.5, 0.857143)),
        ((1, 3, 4), (0.75, 0.6, 1.0, 1.0)),
        ((4,), (0.666667, 0.5, 1.0, 1.0)),
    ],
    ids=["whole", "core", "enhancing"],
)
def test_brain_segnet_regions(region, expected):
    """What the paper's tables call specificity is ``ppv``: as rate of true negatives it would be near 1."""
    truth = np.array([0, 1, 2, 3, 4, 4, 2, 0, 1]).reshape(1, 1, 9)
    prediction = np.array([0, 1, 2, 2, 4, 3, 2, 2, 0]).reshape(1, 1, 9)
    found = score(Pair(np.isin(prediction, region), np.isin(truth, region), (1, 1, 1)))
    assert [found[name] for name in ("dice", "tpr", "tnr", "ppv")] == pytest.approx(expected, abs=6e-7)


# ----------------------------------------------------------------- EDD + MUSCLE: Chen et al. 2017, NeuroImage Clin 15


def test_edd_muscle_dice():
    """Dice of two subjects; their lesions are counted in tests/evaluation/metrics/test_lesions.py."""
    truth, prediction = np.zeros((2, 8, 8), bool), np.zeros((2, 8, 8), bool)
    truth[0, :2, :2] = truth[0, 0, 6] = truth[0, 5, 1] = truth[0, 6, 2] = truth[0, 7, 3] = True
    prediction[0, 1, 1:3] = prediction[0, 3, 5:7] = prediction[0, 7, 7] = prediction[0, 6, 2] = True
    truth[1, 3, 3] = True
    found = [METRICS["dice"](Pair(prediction[[i]], truth[[i]], (1, 1, 1))) for i in (0, 1)]
    assert found == pytest.approx([0.285714, 0], abs=6e-7)
    assert np.mean(found) == pytest.approx(0.142857, abs=6e-7)
