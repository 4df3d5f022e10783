"""The table of metrics: every row for empty masks, and what must hold for all of them."""

import math

import numpy as np
import pytest
from masks import box, random_pair

from autoseg.evaluation.metrics import catalogue
from autoseg.evaluation.metrics.catalogue import METRICS, Pair, score, union_box
from autoseg.evaluation.metrics.metric import DEFINED, GROUPS, Empties, Metric

NAN = math.nan
MESH = (math.sqrt(3) + 4 * math.sqrt(0.5)) ** 1.5 / 2
"""Of two voxels side by side: half an octahedron at either end, four sides of 1 by sqrt(1/2) between them."""
EMPTY_TABLE = {  # metric: empty prediction, empty truth, both empty; the other mask has two voxels of 1 mm, of 27
    "dice": (0, 0, 1),
    "dice_ratlesnetv2": (0, 25 / 27, 1),
    "iou": (0, 0, 1),
    "tpr": (0, NAN, NAN),
    "tnr": (1, 25 / 27, 1),
    "ppv": (0, 0, NAN),
    "accuracy": (25 / 27, 25 / 27, 1),
    "mcc": (0, 0, NAN),
    "tp": (0, 0, 0),
    "fp": (0, 2, 0),
    "fn": (2, 0, 0),
    "tn": (25, 25, 27),
    "volume_truth_ml": (0.002, 0, 0),
    "volume_prediction_ml": (0, 0.002, 0),
    "volume_difference_ml": (-0.002, 0.002, 0),
    "volume_difference_absolute_ml": (0.002, 0.002, 0),
    "voxels_truth": (2, 0, 0),
    "voxels_prediction": (0, 2, 0),
    "lesions_truth": (1, 0, 0),
    "lesions_prediction": (0, 1, 0),
    "lesions_found": (0, 0, 0),
    "lesions_missed": (1, 0, 0),
    "lesions_false": (0, 1, 0),
    "lesion_f1": (0, 0, 1),
    "lesion_precision": (0, 0, NAN),
    "lesion_recall": (0, NAN, NAN),
    "lesion_count_difference": (-1, 1, 0),
    "lesion_count_difference_absolute": (1, 1, 0),
    "lesion_size_false": (0, 2, 0),
    "lesion_size_missed": (2, 0, 0),
    "lesion_size_truth": (2, NAN, NAN),
    "detected": (0, NAN, NAN),
    "hd95_mm": (NAN, NAN, NAN),
    "hausdorff_mm": (NAN, NAN, NAN),
    "hausdorff_voxels_mm": (NAN, NAN, NAN),
    "hausdorff_9slices_mm": (NAN, NAN, NAN),
    **dict.fromkeys(
        ("hd95_penalised_mm", "hausdorff_penalised_mm", "hausdorff_voxels_penalised_mm"),
        (27**0.5, 27**0.5, 0),
    ),
    "surface_hausdorff_mm": (NAN, NAN, NAN),
    "surface_hd95_mm": (NAN, NAN, NAN),
    "assd_mm": (NAN, NAN, NAN),
    "assd_mean_mm": (NAN, NAN, NAN),
    **dict.fromkeys(
        ("surface_hausdorff_penalised_mm", "surface_hd95_penalised_mm", "assd_penalised_mm"),
        (27**0.5, 27**0.5, 0),
    ),
    "nsd_1mm": (0, 0, NAN),
    "compactness_prediction": (NAN, 2**0.5, NAN),
    "compactness_truth": (2**0.5, NAN, NAN),
    "compactness_9slices_prediction": (NAN, 18**0.5, NAN),
    "compactness_9slices_truth": (18**0.5, NAN, NAN),
    "compactness_mesh_prediction": (NAN, MESH, NAN),
    "compactness_mesh_truth": (MESH, NAN, NAN),
}
STATES = ("prediction", "truth", "both")


def empty_pairs():
    lesion, nothing = box((1, 2), (1, 2), (0, 2), shape=(3, 3, 3)), np.zeros((3, 3, 3), bool)
    return [Pair(*masks, (1, 1, 1)) for masks in ((nothing, lesion), (lesion, nothing), (nothing, nothing))]


@pytest.mark.parametrize("name", METRICS)
def test_empty_masks(name):
    """Every metric has a row; a new one must say here what it is for empty masks."""
    found = [METRICS[name](pair) for pair in empty_pairs()]
    np.testing.assert_allclose(found, EMPTY_TABLE[name])


@pytest.mark.parametrize("name", METRICS)
def test_rows_say_what_comes_out_for_empty_masks(name):
    for which, pair in zip(STATES, empty_pairs(), strict=True):
        said = METRICS[name].when_empty(which)
        assert pair.empty == which
        if said is None:  # by its definition, which then must hold
            assert not math.isnan(METRICS[name](pair))
        else:
            np.testing.assert_equal(METRICS[name](pair), said)


def test_a_row_may_be_fixed_for_one_empty_mask_and_defined_for_the_other():
    metric = Metric(
        "n", "1", "overlap", "one", lambda pair: 5.0, Empties(prediction=NAN, truth=None, both=0.0)
    )
    np.testing.assert_equal([metric(pair) for pair in empty_pairs()], [NAN, 5, 0])
    free = Metric("n", "1", "overlap", "one", lambda pair: 5.0)
    assert [free(pair) for pair in empty_pairs()] == [5, 5, 5]
    assert [free.when_empty(which) for which in STATES] == [None] * 3 == [DEFINED.prediction] * 3


# ---------------------------------------------------------------------------------------------- the whole table


def test_every_metric_is_documented():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.definition and metric.unit
        unit = {"mm": "_mm", "ml": "_ml"}.get(metric.unit, "")
        assert name.endswith(unit)


def test_order_is_by_group():
    groups = [metric.group for metric in METRICS.values()]
    assert groups == sorted(groups, key=GROUPS.index) and set(groups) == set(GROUPS)


def test_no_name_is_lost():
    modules = (catalogue.overlap, catalogue.distances, catalogue.surface, catalogue.shape)
    rows = sum(len(module.METRICS) for module in modules) + len(catalogue.lesions.DEFAULT_METRICS)
    assert rows == len(METRICS)


def test_score_computes_what_is_asked_for_in_that_order():
    pair = Pair(*random_pair(), (1, 1, 1))
    asked = [METRICS["tp"], METRICS["dice"]]
    assert list(score(pair, asked)) == ["tp", "dice"]
    assert list(score(pair)) == list(METRICS)
    assert score(pair, []) == {}


# --------------------------------------------------------------------------------------------------- properties

SWAPPED = {"fp": "fn", "tpr": "ppv", "lesions_missed": "lesions_false", "lesion_recall": "lesion_precision"}
SWAPPED |= {"lesion_size_missed": "lesion_size_false"}
SWAPPED |= {name: name.replace("_truth", "_prediction") for name in METRICS if "_truth" in name}
SWAPPED |= {other: name for name, other in SWAPPED.items()}
ONE_SIDED = {"tnr", "lesions_found", "lesion_size_truth"}  # without a metric of the other direction


def test_symmetry():
    """What is said of P with T holds for T with P, under the other name or with the other sign."""
    a, b = random_pair()
    one, other = score(Pair(a, b, (3, 1, 2))), score(Pair(b, a, (3, 1, 2)))
    for name in METRICS.keys() - ONE_SIDED:
        sign = -1 if METRICS[name].better == "zero" else 1
        assert one[name] == pytest.approx(sign * other[SWAPPED.get(name, name)]), name


def test_identity():
    a, _ = random_pair()
    found = score(Pair(a, a, (3, 1, 2)))
    for name, metric in METRICS.items():
        if metric.group != "shape" and metric.better in ("zero", "lower"):  # a shape is of one mask alone
            assert found[name] == 0, name
        elif metric.better == "higher" and metric.unit == "1":
            assert found[name] == pytest.approx(1), name


def test_translation_and_padding_change_nothing_but_the_background():
    a, b = random_pair()
    wider = [np.pad(m, ((3, 0), (1, 7), (0, 2))) for m in (a, b)]
    one, other = score(Pair(a, b, (3, 1, 2))), score(Pair(*wider, (3, 1, 2)))
    assert one.pop("tn") + wider[0].size - a.size == other.pop("tn")
    for name in ("tnr", "accuracy", "mcc"):  # these count the background
        assert one.pop(name) < other.pop(name)
    assert one == other


def test_all_scale_with_the_spacing_as_their_unit_says():
    a, b = random_pair()
    one, other = score(Pair(a, b, (3, 1, 2))), score(Pair(a, b, (6, 2, 4)))
    del one["nsd_1mm"]  # its tolerance does not grow
    for name in one:
        factor = {"mm": 2, "ml": 8}.get(METRICS[name].unit, 1)
        assert other[name] == pytest.approx(factor * one[name]), name


def test_inputs_are_not_changed():
    a, b = random_pair()
    before = a.copy(), b.copy()
    score(Pair(a, b, (1, 1, 1)))
    assert (a == before[0]).all() and (b == before[1]).all()


# --------------------------------------------------------------------------------------------------------- pair


def test_union_box():
    a, b = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    a[1, 2, 3] = b[3, 2, 6] = True
    assert union_box(a, b) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert a[union_box(np.zeros_like(a))].size == 0


@pytest.mark.parametrize(
    "shape, spacing_mm, diagonal_mm",
    [
        ((189, 233, 197), (1.0, 1.0, 1.0), 358.9),  # ATLAS, as of Tomita et al. 2020
        ((18, 256, 256), (1.0, 0.1171875, 0.1171875), 46.09),  # rats, as of Valverde et al. 2020
    ],
)
def test_penalised_distances_are_the_diagonal_of_the_whole_volume(shape, spacing_mm, diagonal_mm):
    """Also where the masks are a part of it."""
    lesion = np.ones((2, 2, 2), bool)
    for prediction, truth in ((lesion, ~lesion), (~lesion, lesion)):
        found = score(Pair(prediction, truth, spacing_mm, shape=shape))
        penalised = {name: value for name, value in found.items() if name.endswith("_penalised_mm")}
        assert penalised == pytest.approx(dict.fromkeys(penalised, diagonal_mm), abs=0.05)
        assert len(penalised) == 6


def test_penalised_distances_are_those_that_they_are_called_after():
    found = score(Pair(*random_pair(), (3, 1, 2)))
    for name in (name for name in found if name.endswith("_penalised_mm")):
        assert found[name] == found[name.replace("_penalised", "")]


def test_what_is_asked_once_is_computed_once():
    pair, calls = Pair(*random_pair(), (1, 1, 1)), []

    def voxels(asked):
        calls.append(asked)
        return [asked.tp]

    assert pair.once(voxels) is pair.once(voxels)
    assert calls == [pair]
    assert Pair(*random_pair(1), (1, 1, 1)).once(voxels) != pair.once(voxels)
