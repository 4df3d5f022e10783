"""Metrics against published values, hand-worked cases, identities and a slow oracle."""

import math

import numpy as np
import pytest

from autoseg.evaluation import metrics
from autoseg.evaluation.metrics import METRICS, Pair, border, dice, hausdorff_mm, hd95_mm, score, union_box

SPACING = (1.0, 0.1171875, 0.1171875)
SHAPE = (18, 64, 64)


def box(*ranges, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def ellipsoid(radius_mm):
    grid = np.indices(SHAPE).reshape(3, -1).T
    apart = (grid - (9, 32, 32)) * SPACING
    return ((apart**2).sum(1) <= radius_mm**2).reshape(SHAPE)


def cases():
    """Prediction, truth, Dice and Hausdorff distance in mm, as published for RatLesNetv2's metrics."""
    c1 = box((5, 9), (20, 40), (20, 40))
    c4 = c1.copy()
    c4[0, 0, 0] = True
    whole = box((4, 10), (20, 40), (20, 40))
    yield "c1", c1, c1, 1.0, 0.0
    yield "c2", box((5, 9), (23, 43), (20, 40)), c1, 0.85, 0.3515625
    yield "c3", box((6, 10), (20, 40), (20, 40)), c1, 0.75, 1.0
    yield "c4", c4, c1, 0.9996876, 5.9988606
    yield "c5", box((0, 4), (0, 20), (0, 20)), box((0, 4), (0, 18), (0, 20)), 0.9473684, 0.2343750
    yield "c6", whole & ~box((5, 8), (28, 31), (28, 31)), whole, 0.9943432, 1.0
    yield "c7", ellipsoid(2.2), ellipsoid(2.5), 0.8008401, 0.5975413


@pytest.mark.parametrize(
    "name, prediction, truth, expected_dice, expected_mm",
    cases(),
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_published_values(name, prediction, truth, expected_dice, expected_mm):
    assert dice(prediction, truth) == pytest.approx(expected_dice, abs=5e-8)
    assert score(Pair(prediction, truth, SPACING), ["dice"])["dice"] == pytest.approx(expected_dice, abs=5e-8)
    assert hausdorff_mm(prediction, truth, SPACING) == pytest.approx(expected_mm, abs=5e-7)


def test_hand_worked_counts_and_volumes():
    truth, prediction = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    truth[1, 1, 0:3] = True  # 3 voxels
    prediction[1, 1, 2:4] = True  # 2 voxels, one shared
    found = score(Pair(prediction, truth, (5.0, 2.0, 1.0)))
    assert (found["tp"], found["fp"], found["fn"], found["tn"]) == (1, 1, 2, 60)
    assert found["dice"] == pytest.approx(2 / 5)
    assert (found["voxels_truth"], found["voxels_prediction"]) == (3, 2)
    assert found["volume_truth_ml"] == pytest.approx(0.030)
    assert found["volume_prediction_ml"] == pytest.approx(0.020)
    assert found["volume_difference_ml"] == pytest.approx(-0.010)
    # truth to prediction: 2, 1, 0 mm; prediction to truth: 0, 1 mm; 95th percentiles 1.9 and 0.95
    assert found["hausdorff_mm"] == 2.0
    assert found["hd95_mm"] == pytest.approx(1.9)


def test_hand_worked_lesions():
    truth, prediction = np.zeros((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    truth[0, 0, 0] = truth[0, 1, 1] = True  # they touch by a corner: one lesion
    truth[0, 4, 4] = truth[0, 8, 8] = True  # two more
    prediction[0, 1, 1] = True  # finds the first
    prediction[0, 4, 4:6] = True  # finds the second
    prediction[0, 0, 8] = True  # false
    found = score(Pair(prediction, truth, (1, 1, 1)))
    names = ("lesions_truth", "lesions_prediction", "lesions_found", "lesions_missed", "lesions_false")
    assert [found[name] for name in names] == [3, 3, 2, 1, 1]
    assert found["lesion_f1"] == pytest.approx(4 / 6)


def test_one_prediction_over_two_lesions_finds_both():
    truth = np.zeros((1, 1, 7), bool)
    truth[0, 0, [1, 5]] = True
    found = score(Pair(np.ones_like(truth), truth, (1, 1, 1)))
    assert (found["lesions_found"], found["lesions_false"], found["lesion_f1"]) == (2, 0, 1.0)


NAN = math.nan
EMPTY_TABLE = {  # metric: empty prediction, empty truth, both empty
    "dice": (0, 0, 1),
    "hd95_mm": (NAN, NAN, NAN),
    "hausdorff_mm": (NAN, NAN, NAN),
    "volume_truth_ml": (0.002, 0, 0),
    "volume_prediction_ml": (0, 0.002, 0),
    "volume_difference_ml": (-0.002, 0.002, 0),
    "voxels_truth": (2, 0, 0),
    "voxels_prediction": (0, 2, 0),
    "tp": (0, 0, 0),
    "fp": (0, 2, 0),
    "fn": (2, 0, 0),
    "tn": (25, 25, 27),
    "lesions_truth": (1, 0, 0),
    "lesions_prediction": (0, 1, 0),
    "lesions_found": (0, 0, 0),
    "lesions_missed": (1, 0, 0),
    "lesions_false": (0, 1, 0),
    "lesion_f1": (0, 0, 1),
}


@pytest.mark.parametrize("name", METRICS)
def test_empty_masks(name):
    """Every metric has a row; a new one must say here what it is for empty masks."""
    lesion, nothing = box((1, 2), (1, 2), (0, 2), shape=(3, 3, 3)), np.zeros((3, 3, 3), bool)
    pairs = [(nothing, lesion), (lesion, nothing), (nothing, nothing)]
    found = [METRICS[name](Pair(*masks, (1, 1, 1))) for masks in pairs]
    np.testing.assert_allclose(found, EMPTY_TABLE[name])


def test_dice_alone_agrees_on_empty_masks():
    nothing, lesion = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert (dice(nothing, nothing), dice(lesion, nothing), dice(nothing, lesion)) == (1, 0, 0)


def brute_force(prediction, truth, spacing, percentile):
    """Border by looking at each voxel's neighbours, distances by all pairs."""

    def border_points(mask):
        points = []
        for z, y, x in np.argwhere(mask):
            around = [
                (z - 1, y, x),
                (z + 1, y, x),
                (z, y - 1, x),
                (z, y + 1, x),
                (z, y, x - 1),
                (z, y, x + 1),
            ]
            inside = [all(0 <= i < n for i, n in zip(p, mask.shape, strict=True)) and mask[p] for p in around]
            if not all(inside):
                points.append((z, y, x))
        return np.array(points) * spacing

    a, b = border_points(prediction), border_points(truth)
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(apart.min(1), percentile), np.percentile(apart.min(0), percentile))


@pytest.mark.parametrize("seed", range(12))
def test_distances_against_brute_force(seed):
    random = np.random.default_rng(seed)
    shape, spacing = random.integers(3, 12, 3), random.uniform(0.1, 6, 3)
    smooth = random.random(tuple(shape))
    prediction, truth = smooth > random.uniform(0.2, 0.9), smooth + random.normal(0, 0.2, shape) > 0.5
    prediction[0, 0, 0] = truth[-1, -1, -1] = True
    assert hd95_mm(prediction, truth, spacing) == pytest.approx(brute_force(prediction, truth, spacing, 95))
    assert hausdorff_mm(prediction, truth, spacing) == pytest.approx(
        brute_force(prediction, truth, spacing, 100)
    )


def random_pair(seed=0):
    random = np.random.default_rng(seed)
    return random.random((6, 9, 8)) > 0.7, random.random((6, 9, 8)) > 0.6


def test_symmetry():
    a, b = random_pair()
    one, other = score(Pair(a, b, (3, 1, 2))), score(Pair(b, a, (3, 1, 2)))
    for name in ("dice", "hd95_mm", "hausdorff_mm", "tp", "tn"):
        assert one[name] == other[name]
    assert (one["fp"], one["lesions_truth"]) == (other["fn"], other["lesions_prediction"])
    assert one["volume_difference_ml"] == -other["volume_difference_ml"]


def test_identity():
    a, _ = random_pair()
    found = score(Pair(a, a, (3, 1, 2)))
    assert (found["dice"], found["hd95_mm"], found["hausdorff_mm"], found["lesion_f1"]) == (1, 0, 0, 1)
    assert (found["fp"], found["fn"], found["lesions_missed"], found["lesions_false"]) == (0, 0, 0, 0)


def test_translation_and_padding_change_nothing_but_the_background():
    a, b = random_pair()
    wider = [np.pad(m, ((3, 0), (1, 7), (0, 2))) for m in (a, b)]
    one, other = score(Pair(a, b, (3, 1, 2))), score(Pair(*wider, (3, 1, 2)))
    assert one.pop("tn") + wider[0].size - a.size == other.pop("tn")
    assert one == other


def test_distances_scale_with_the_spacing():
    a, b = random_pair()
    assert hd95_mm(a, b, (6, 2, 4)) == pytest.approx(2 * hd95_mm(a, b, (3, 1, 2)))


def test_a_shift_along_each_axis_is_its_spacing():
    block = box((3, 6), (10, 20), (10, 20))
    for axis, mm in enumerate((4.0, 0.5, 0.25)):
        assert hausdorff_mm(np.roll(block, 2, axis), block, (4.0, 0.5, 0.25)) == pytest.approx(2 * mm)


def test_border_of_a_block_and_at_the_edge_of_the_array():
    assert border(box((1, 4), (1, 4), (1, 4), shape=(5, 5, 5))).sum() == 26
    assert border(np.ones((3, 3, 3), bool)).sum() == 26
    assert border(np.ones((1, 3, 3), bool)).all()


def test_inputs_are_not_changed():
    a, b = random_pair()
    before = a.copy(), b.copy()
    score(Pair(a, b, (1, 1, 1)))
    assert (a == before[0]).all() and (b == before[1]).all()


def test_union_box():
    a, b = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    a[1, 2, 3] = b[3, 2, 6] = True
    assert union_box(a, b) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert a[union_box(np.zeros_like(a))].size == 0


def test_every_metric_is_documented():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.definition and metric.unit
        unit = {"mm": "_mm", "ml": "_ml"}.get(metric.unit, "")
        assert name.endswith(unit)


def test_score_computes_only_what_is_asked(monkeypatch):
    monkeypatch.setattr(metrics, "_directed", lambda *_: pytest.fail("distances were not asked for"))
    assert list(score(Pair(*random_pair(), (1, 1, 1)), ["tp", "dice"])) == ["tp", "dice"]
