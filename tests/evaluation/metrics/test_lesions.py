"""Lesions: the example of a paper, values of public scorers, hand-worked cases, a slow oracle by scipy, identities."""

import math

import numpy as np
import pytest
from scipy import ndimage

from autoseg.errors import AutosegError
from autoseg.evaluation.metrics import lesions
from autoseg.evaluation.metrics.lesions import (
    CONNECTIVITIES,
    LesionRule,
    components,
    lesion_metrics,
    match_lesions,
)
from autoseg.evaluation.metrics.metric import Empties
from autoseg.evaluation.metrics.pair import Pair

NAN = math.nan
RULES = [
    LesionRule(dimensions, connectivity, matching)
    for dimensions, all_of_them in CONNECTIVITIES.items()
    for connectivity in all_of_them
    for matching in ("any", 0.2, 0.5)
]


def mask(*voxels, shape=(1, 8, 8)):
    found = np.zeros(shape, bool)
    for voxel in voxels:
        found[voxel if len(voxel) == 3 else (0, *voxel)] = True
    return found


def score(prediction, truth, rule):
    pair = Pair(prediction, truth, (1, 1, 1))
    return {metric.name: metric(pair) for metric in lesion_metrics(rule)}


def random_pair(seed, shape=None):
    random = np.random.default_rng(seed)
    shape = shape or tuple(random.integers(2, 9, 3))
    smooth = ndimage.gaussian_filter(random.random(shape), random.uniform(0.2, 0.8))
    noisy = smooth + random.normal(0, random.uniform(0.01, 0.2), shape)
    return (
        noisy > np.quantile(noisy, random.uniform(0.4, 0.95)),
        smooth > np.quantile(smooth, random.uniform(0.4, 0.95)),
    )


# ------------------------------------------------------------------------------------ published and public values

SUBJECT_A = (
    mask((1, 1), (1, 2), (3, 5), (3, 6), (7, 7), (6, 2)),
    mask((0, 0), (0, 1), (1, 0), (1, 1), (0, 6), (5, 1), (6, 2), (7, 3)),
)
SUBJECT_B = (mask(), mask((3, 3)))


def test_lesions_of_slices_as_in_edd_net():
    """The lesion metrics of Chen, Bentley and Rueckert 2017 on a hand-worked 8 x 8 example of two subjects."""
    a, b = (score(*subject, LesionRule(2, 8)) for subject in (SUBJECT_A, SUBJECT_B))
    assert (a["lesions_truth"], a["lesions_prediction"]) == (3, 4)
    assert (a["lesions_false"], a["lesion_size_false"]) == (2, 1.5)
    assert (a["lesions_missed"], a["lesion_size_missed"]) == (1, 1)
    assert a["lesion_size_truth"] == pytest.approx(8 / 3)
    assert (b["lesions_false"], b["lesion_size_false"]) == (0, 0)
    assert (b["lesions_missed"], b["lesion_size_missed"]) == (1, 1)
    means = {name: (a[name] + b[name]) / 2 for name in a}
    assert (means["lesions_false"], means["lesions_missed"]) == (1, 1)  # m#FP, m#FN
    assert (means["lesion_size_false"], means["lesion_size_missed"]) == (0.75, 1)  # mSFP, mSFN
    assert means["detected"] == 0.5


def test_lesions_of_slices_with_four_neighbours():
    found = score(*SUBJECT_A, LesionRule(2, 4))
    assert (found["lesions_truth"], found["lesions_missed"]) == (5, 3)
    assert (found["lesions_prediction"], found["lesions_false"]) == (4, 2)


def public_pair(seed):
    random = np.random.default_rng(seed)
    truth = random.random((6, 9, 8)) > 0.93
    return (truth & (random.random(truth.shape) > 0.3)) | (random.random(truth.shape) > 0.96), truth


PUBLIC = [  # lesion F1 and lesion count difference of the scripts of ISLES'22, ISLES'24 and ATLAS R2.0
    (0, 0.7826087, 3, 0.5600000, 3, 0.6551724, 2),
    (1, 0.7407407, 3, 0.6206897, 3, 0.6181818, 5),
    (2, 0.8571429, 2, 0.6428571, 2, 0.6274510, 0),
    (3, 0.7878788, 2, 0.6250000, 2, 0.6666667, 8),
    (4, 0.8636364, 0, 0.7619048, 0, 0.7605634, 2),
    (5, 0.8888889, 1, 0.7200000, 1, 0.7407407, 1),
]


@pytest.mark.parametrize("seed, f1_22, count_22, f1_24, count_24, f1_atlas, count_atlas", PUBLIC)
def test_values_that_the_public_scorers_give(seed, f1_22, count_22, f1_24, count_24, f1_atlas, count_atlas):
    """ISLES'24 with panoptica 1.1.1; ATLAS on masks of numbers, for which its F1 is what it says."""
    rules = (LesionRule(3, 26, "any"), LesionRule(3, 26, 0.2), LesionRule(3, 6, "any"))
    expected = ((f1_22, count_22), (f1_24, count_24), (f1_atlas, count_atlas))
    for rule, (f1, difference) in zip(rules, expected, strict=True):
        found = score(*public_pair(seed), rule)
        assert found["lesion_f1"] == pytest.approx(f1, abs=5e-8)
        assert found["lesion_count_difference_absolute"] == difference


# ---------------------------------------------------------------------------------------------------- by hand


def test_what_is_connected_in_3d():
    by_edge = mask((0, 0, 0), (0, 1, 1), shape=(2, 2, 2))
    by_corner = mask((0, 0, 0), (1, 1, 1), shape=(2, 2, 2))
    counts = {c: [len(components(m, LesionRule(3, c))[1]) for m in (by_edge, by_corner)] for c in (6, 18, 26)}
    assert counts == {6: [2, 2], 18: [1, 2], 26: [1, 1]}


@pytest.mark.parametrize("connectivity", [4, 8])
def test_slices_are_not_connected(connectivity):
    column = mask((0, 1, 1), (1, 1, 1), (2, 1, 1), shape=(3, 3, 3))
    last_and_first_row = mask((0, 2, 0), (1, 0, 0), (1, 0, 1), shape=(2, 3, 3))
    rule = LesionRule(2, connectivity)
    assert components(column, rule)[1].tolist() == [1, 1, 1]
    assert components(last_and_first_row, rule)[1].tolist() == [1, 2]
    assert components(column, LesionRule(3, 6))[1].tolist() == [3]


def test_one_prediction_over_two_lesions():
    truth, prediction = mask((0, 0), (0, 1), (0, 2), (0, 4)), mask(*((0, x) for x in range(5)))
    found = score(prediction, truth, LesionRule(3, 26, "any"))
    assert (found["lesions_found"], found["lesions_missed"], found["lesions_false"]) == (2, 0, 0)
    assert (found["lesion_f1"], found["lesion_precision"], found["lesion_recall"]) == (1, 1, 1)
    paired = score(prediction, truth, LesionRule(3, 26, 0.2))  # IoU 3/5 and 1/5: one of them at most
    assert (paired["lesions_found"], paired["lesions_missed"], paired["lesions_false"]) == (1, 1, 0)
    assert (paired["lesion_f1"], paired["lesion_precision"]) == (pytest.approx(2 / 3), 1)
    assert (paired["lesion_recall"], paired["lesion_size_missed"]) == (0.5, 1)


def test_two_predictions_in_one_lesion():
    truth, prediction = mask(*((0, x) for x in range(7))), mask((0, 0), (0, 1), (0, 3), (0, 4), (0, 5))
    found = score(prediction, truth, LesionRule(3, 26, 0.2))  # IoU 2/7 and 3/7
    assert (found["lesions_found"], found["lesions_false"], found["lesion_size_false"]) == (1, 1, 2)
    assert (found["lesion_precision"], found["lesion_recall"]) == (0.5, 1)
    assert score(prediction, truth, LesionRule())["lesion_precision"] == 1


@pytest.mark.parametrize("least, pairs", [(0.2, 1), (0.21, 0), (1 / 3, 0)])
def test_an_iou_equal_to_the_threshold_matches(least, pairs):
    truth, prediction = mask((0, 0), (0, 1), (0, 2)), mask((0, 2), (0, 3), (0, 4))  # IoU 1/5
    assert score(prediction, truth, LesionRule(3, 26, least))["lesions_found"] == pairs


def test_the_highest_iou_is_paired_first():
    """P1 with T2 (3/8) leaves nothing for T1 (1/7, P1) and P2 (1/7, T2), although two pairs could be made."""
    truth = mask(*((0, x) for x in range(3)), *((0, x) for x in range(4, 8)), (1, 7), (2, 7))
    prediction = mask(*((0, x) for x in range(2, 7)), (2, 7), (3, 7))
    matched = match_lesions(prediction, truth, LesionRule(3, 26, 0.1))
    assert (matched.found.tolist(), matched.right.tolist()) == ([False, True], [True, False])
    # the order of the image does not matter: 1/6 comes first in it, 4/6 is paired
    truth, prediction = mask(*((0, x) for x in range(6))), mask((0, 0), (0, 2), (0, 3), (0, 4), (0, 5))
    assert match_lesions(prediction, truth, LesionRule(3, 26, 0.1)).right.tolist() == [False, True]


def test_hand_worked_sizes_and_differences():
    truth = mask((0, 0), (0, 1), (2, 0), (4, 0), (4, 1), (4, 2))
    prediction = mask((0, 1), (6, 0), (6, 6), (6, 7), (5, 7))
    found = score(prediction, truth, LesionRule())
    assert found == {
        "lesions_truth": 3,
        "lesions_prediction": 3,
        "lesions_found": 1,
        "lesions_missed": 2,
        "lesions_false": 2,
        "lesion_f1": pytest.approx(1 / 3),
        "lesion_precision": pytest.approx(1 / 3),
        "lesion_recall": pytest.approx(1 / 3),
        "lesion_count_difference": 0,
        "lesion_count_difference_absolute": 0,
        "lesion_size_false": 2,
        "lesion_size_missed": 2,
        "lesion_size_truth": 2,
        "detected": 1,
    }
    fewer = score(mask((0, 1)), truth, LesionRule())
    assert (fewer["lesion_count_difference"], fewer["lesion_count_difference_absolute"]) == (-2, 2)


EMPTY_TABLE = {  # empty prediction, empty truth, both empty; the other mask has lesions of 1 and 3 voxels
    "lesions_truth": (2, 0, 0),
    "lesions_prediction": (0, 2, 0),
    "lesions_found": (0, 0, 0),
    "lesions_missed": (2, 0, 0),
    "lesions_false": (0, 2, 0),
    "lesion_f1": (0, 0, 1),
    "lesion_precision": (0, 0, NAN),
    "lesion_recall": (0, NAN, NAN),
    "lesion_count_difference": (-2, 2, 0),
    "lesion_count_difference_absolute": (2, 2, 0),
    "lesion_size_false": (0, 2, 0),
    "lesion_size_missed": (2, 0, 0),
    "lesion_size_truth": (2, NAN, NAN),
    "detected": (0, NAN, NAN),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_empty_masks(rule):
    some, nothing = mask((0, 0), (4, 4), (4, 5), (4, 6)), mask()
    pairs = [(nothing, some), (some, nothing), (nothing, nothing)]
    found = [score(*pair, rule) for pair in pairs]
    assert list(found[0]) == list(EMPTY_TABLE)
    for name, expected in EMPTY_TABLE.items():
        assert [one[name] for one in found] == pytest.approx(expected, nan_ok=True), name


# ----------------------------------------------------------------------------------------------------- an oracle


def slow_components(mask, rule):
    """One boolean mask per lesion, by scipy."""
    structure = ndimage.generate_binary_structure(
        rule.dimensions, {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[rule.connectivity]
    )
    if rule.dimensions == 2:
        structure = np.pad(structure[None], ((1, 1), (0, 0), (0, 0)))
    labels, n = ndimage.label(mask, structure)
    return [labels == i for i in range(1, n + 1)]


def slow_match(prediction, truth, rule):
    ours, theirs = slow_components(prediction, rule), slow_components(truth, rule)
    if rule.matching == "any":
        return [bool((t & prediction).any()) for t in theirs], [bool((p & truth).any()) for p in ours]
    iou = np.array([[(p & t).sum() / (p | t).sum() for t in theirs] for p in ours]).reshape(
        len(ours), len(theirs)
    )
    found, right = [False] * len(theirs), [False] * len(ours)
    while iou.size and iou.max() >= rule.matching:
        i, j = np.unravel_index(iou.argmax(), iou.shape)
        right[i] = found[j] = True
        iou[i, :] = iou[:, j] = -1
    return found, right


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_against_a_slow_oracle(rule):
    for seed in range(25):
        prediction, truth = random_pair(seed)
        found, right = slow_match(prediction, truth, rule)
        expected = {
            "lesions_truth": len(found),
            "lesions_prediction": len(right),
            "lesions_found": sum(found),
            "lesions_false": len(right) - sum(right),
        }
        scores = score(prediction, truth, rule)
        assert {name: scores[name] for name in expected} == expected
        missed = [t.sum() for t, ok in zip(slow_components(truth, rule), found, strict=True) if not ok]
        if rule.matching != 0.2:  # which lesions of a lower IoU are left may differ between equal ones
            assert scores["lesion_size_missed"] == pytest.approx(np.mean(missed) if missed else 0)


@pytest.mark.parametrize("rule", RULES[::3], ids=str)
def test_components_keep_their_voxels(rule):
    _, truth = random_pair(3, (5, 7, 6))
    labels, sizes = components(truth, rule)
    assert ((labels > 0) == truth).all()
    assert sizes.tolist() == [(labels == i).sum() for i in range(1, labels.max() + 1)]
    for lesion in slow_components(truth, rule):
        assert len(np.unique(labels[lesion])) == 1


# ---------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_symmetry_identity_and_translation(rule):
    prediction, truth = random_pair(7, (4, 9, 8))
    one, other = score(prediction, truth, rule), score(truth, prediction, rule)
    assert (one["lesions_false"], one["lesions_missed"]) == (other["lesions_missed"], other["lesions_false"])
    assert one["lesion_precision"] == other["lesion_recall"]
    assert one["lesion_count_difference"] == -other["lesion_count_difference"]
    same = score(truth, truth, rule)
    assert (same["lesion_f1"], same["lesions_missed"], same["lesions_false"]) == (1, 0, 0)
    moved = [np.pad(m, ((2, 0), (1, 3), (0, 2))) for m in (prediction, truth)]
    assert score(*moved, rule) == one


def test_a_lower_threshold_never_matches_fewer():
    for seed in range(10):
        prediction, truth = random_pair(seed, (6, 8, 8))
        found = [score(prediction, truth, LesionRule(3, 6, t))["lesions_found"] for t in (0.01, 0.5, 0.7, 1)]
        assert found == sorted(found, reverse=True)


def test_inputs_are_not_changed():
    prediction, truth = random_pair(1)
    before = prediction.copy(), truth.copy()
    score(prediction, truth, LesionRule(2, 8))
    assert (prediction == before[0]).all() and (truth == before[1]).all()


# -------------------------------------------------------------------------------------------- rules and their table


def test_lesions_are_matched_once_for_all_metrics_of_equal_rules(monkeypatch):
    calls = []
    monkeypatch.setattr(lesions, "match_lesions", lambda *given: calls.append(1) or match_lesions(*given))
    pair = Pair(*random_pair(2), (1, 1, 1))
    for rule in (LesionRule(3, 6), LesionRule(3, 6), LesionRule(3, 26)):
        for metric in lesion_metrics(rule):
            metric(pair)
    assert len(calls) == 2


def test_the_rule_stands_in_the_definitions():
    rows = {metric.name: metric for metric in lesion_metrics(LesionRule(2, 8, 0.2), source="somebody")}
    assert rows["lesions_truth"].definition == "8-connected components of the slices of T"
    assert "IoU >= 0.2" in rows["lesions_found"].definition
    assert (rows["lesion_size_false"].unit, rows["lesion_f1"].source) == ("px", "somebody")
    default = {metric.name: metric for metric in lesions.DEFAULT_METRICS}
    assert default["lesions_found"].definition == "lesions of T that share a voxel with P"
    assert default["lesion_size_false"].unit == "voxels"
    assert all("{" not in row.definition + row.unit for row in (*rows.values(), *default.values()))


@pytest.mark.parametrize(("edge", "pixel_mm"), [(9, 1.4), (7, 1.8)])
def test_the_same_lesion_has_the_same_size_on_every_scanner(edge, pixel_mm):
    """A square of 12.6 mm is 81 pixels of 1.4 mm or 49 of 1.8 mm, and 62.02 of 1.6 mm by area."""
    truth, prediction = np.zeros((2, 20, 20), bool), np.zeros((2, 20, 20), bool)
    truth[0, :edge, :edge] = prediction[1, :edge, :edge] = True
    pair = Pair(prediction, truth, (6, pixel_mm, pixel_mm))
    found = {m.name: m(pair) for m in lesion_metrics(LesionRule(2, 8, pixel_mm=1.6))}
    own = {m.name: m(pair) for m in lesion_metrics(LesionRule(2, 8))}
    for name in ("lesion_size_truth", "lesion_size_false", "lesion_size_missed"):
        assert found[name] == pytest.approx(12.6**2 / 2.56) and own[name] == edge**2
    others = {name for name in found if "size" not in name}
    assert {name: found[name] for name in others} == {name: own[name] for name in others}


def test_values_for_empty_masks_can_be_changed():
    changed = lesion_metrics(empties={"lesion_f1": Empties(NAN, NAN, NAN)})
    found = {m.name: m(Pair(mask(), mask((1, 1)), (1, 1, 1))) for m in changed}
    assert math.isnan(found["lesion_f1"]) and found["lesion_precision"] == 0
    with pytest.raises(AutosegError, match="there is no lesion metric 'lesion_f'\n.*did you mean lesion_f1"):
        lesion_metrics(empties={"lesion_f": Empties(0, 0, 0)})


@pytest.mark.parametrize(
    "given, message",
    [
        ({"dimensions": 4}, "counted in 2 or 3 dimensions\n  found:    4"),
        ({"connectivity": 8}, "no such connectivity in 3D\n  found:    8\n  expected: 6 or 18 or 26"),
        ({"dimensions": 2}, "no such connectivity in 2D\n  found:    26\n  expected: 4 or 8"),
        ({"pixel_mm": 1.6}, "size of pixels is for lesions in slices\n  found:    pixel_mm 1.6 in 3D"),
        ({"matching": 0}, "matches lesions does not fit\n  found:    0\n.*above 0, at most 1"),
        ({"matching": 1.5}, "matches lesions does not fit\n  found:    1.5"),
        ({"matching": "iou"}, "matches lesions does not fit\n  found:    'iou'"),
    ],
)
def test_rules_that_do_not_fit(given, message):
    with pytest.raises(AutosegError, match=message):
        LesionRule(**given)
