"""Numbers of all cases out of those of single ones, by hand."""

import numpy as np
import pytest

from autoseg.evaluation.cohort import Averaging, metric_row, stratify, summarise
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.presets import find_preset
from autoseg.evaluation.statistics import mean_interval
from autoseg.evaluation.strata import Groups, parse_rule
from autoseg.evaluation.summary import CaseScores
from autoseg.evaluation.thresholds import THRESHOLDS

CHOICE = MetricChoice("brainsegnet")  # few metrics
PERCENTILE = Averaging("percentile", 500)


def case(name, tp, fp, fn, *, thresholds=None, voxel_ml=0.5):
    """A case of one class ``lesion``, with the metrics that its counts give."""
    total = 2 * tp + fp + fn
    scores = dict.fromkeys((metric.name for metric in CHOICE.metrics), None) | {
        "dice": 2 * tp / total if total else 1.0,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "voxels_truth": tp + fn,
        "voxels_prediction": tp + fp,
        "volume_truth_ml": (tp + fn) * voxel_ml,
        "volume_prediction_ml": (tp + fp) * voxel_ml,
        "ppv": tp / (tp + fp) if tp + fp else None,
    }
    return CaseScores(
        name=name,
        prediction_sha256="",
        truth_sha256="",
        classes={"lesion": scores},
        thresholds={"lesion": thresholds} if thresholds else {},
    )


CASES = [
    case("e", 0, 0, 10),  # missed
    case("a", 8, 2, 2),  # Dice 0.8
    case("b", 30, 10, 10),  # 0.75
    case("c", 0, 4, 0),  # a false alarm
    case("d", 0, 0, 0),  # rightly empty
]


def summary_of(cases, **more):
    return summarise(
        cases,
        choice=CHOICE,
        predictions="p",
        truths="t",
        labels={"background": 0, "lesion": 1},
        labels_from="dataset.json",
        **more,
    )


def test_means():
    entry = summary_of(CASES).classes["lesion"]
    assert (entry.cases, entry.empty_truth, entry.false_alarms, entry.missed) == (5, 2, 1, 1)
    values = [0.8, 0.75, 0, 1, 0]
    dice = entry.all["dice"]
    assert dice.mean == pytest.approx(np.mean(values)) and dice.median == pytest.approx(0.75)
    assert dice.sd == pytest.approx(np.std(values, ddof=1)) and (dice.n, dice.undefined) == (5, 0)
    assert (dice.low, dice.high) == pytest.approx(mean_interval(values))
    assert (entry.truth_present["dice"].mean, entry.truth_present["dice"].n) == (pytest.approx(1.55 / 3), 3)
    assert (entry.all["ppv"].n, entry.all["ppv"].undefined) == (3, 2)


def test_a_case_is_missed_where_nothing_of_it_is_found():
    """A prediction beside the lesion finds nothing of it: missed and detected are all the cases with truth."""
    entry = summary_of([*CASES, case("f", 0, 3, 5)]).classes["lesion"]  # a, b found; e, f missed
    detected = entry.cohort["detection_rate"]
    assert (entry.missed, detected.value, detected.n) == (2, 0.5, 4)


def test_means_of_nothing_and_of_one():
    none, one = PERCENTILE([None, None]), PERCENTILE([0.5, None])
    assert none.model_dump() == dict.fromkeys(("mean", "sd", "median", "low", "high")) | {
        "n": 0,
        "undefined": 2,
    }
    assert (one.mean, one.median, one.sd, one.low, one.high, one.n) == (0.5, 0.5, None, None, None, 1)


def test_intervals_are_of_the_presets_kind():
    values = np.array([0.1, 0.5, 0.9, 0.2])
    half = 1.96 * values.std(ddof=1) / 2
    normal = Averaging("normal", 10)(values)
    assert (normal.low, normal.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert "Student's t" in summarise_with("deepmedic").interval
    assert "1000 resamples" in summarise_with("resunet").interval


def summarise_with(preset):
    choice = MetricChoice(preset)
    scores = {"lesion": dict.fromkeys((metric.name for metric in choice.metrics), 1)}
    one = CaseScores(name="a", prediction_sha256="", truth_sha256="", classes=scores)
    return summarise([one], choice=choice, predictions="", truths="", labels={}, labels_from="")


def test_numbers_of_all_cases_together():
    cases = [*CASES, case("f", 20, 5, 5), case("g", 1, 0, 4)]
    found = summary_of(cases).classes["lesion"].cohort
    micro, detected, r2 = found["micro_dice"], found["detection_rate"], found["r2_dice_log_volume"]
    assert micro.value == pytest.approx(2 * 59 / (2 * 59 + 21 + 31)) and micro.n == 7
    assert (detected.value, detected.n) == (pytest.approx(4 / 5), 5)
    x, y = np.log10([10, 40, 10, 25, 5]), [0.8, 0.75, 0.0, 0.8, 1 / 3]
    assert r2.value == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2) and (r2.n, r2.low) == (5, None)
    three = summary_of(CASES).classes["lesion"].cohort["r2_dice_log_volume"]
    assert (three.value, three.low, three.n) == (None, None, 3)
    assert micro.low < micro.value < micro.high and detected.low < detected.value <= detected.high <= 1
    assert set(found) == {"micro_dice", "detection_rate", "r2_dice_log_volume"}


def test_volume_agreement_by_hand():
    found = summary_of(CASES).classes["lesion"].volume_agreement
    differences = np.array([0, 0, 4, 0, -10]) * 0.5
    assert (found.mean_ml, found.sd_ml, found.n) == pytest.approx(
        (differences.mean(), differences.std(ddof=1), 5)
    )
    assert found.high_limit_ml == pytest.approx(differences.mean() + 1.96 * differences.std(ddof=1))
    assert summary_of(CASES[:1]).classes["lesion"].volume_agreement is None


def test_everything_empty():
    entry = summary_of([case("a", 0, 0, 0), case("b", 0, 0, 0)]).classes["lesion"]
    assert entry.truth_present["dice"].mean is None
    assert (
        entry.cohort["micro_dice"].value == entry.all["dice"].mean == 1
        and entry.cohort["micro_dice"].low is None
    )
    assert entry.cohort["detection_rate"].value is None and entry.cohort["r2_dice_log_volume"].value is None
    assert entry.volume_agreement.sd_ml == 0


def test_thresholds_of_the_cases_that_have_them():
    """One threshold is best for each case, 0.5 and 0.8, and another for both."""
    n = len(THRESHOLDS)

    def rows(best, good):
        """Dice 1 from ``best`` on, ``good`` for lower thresholds, with ten true voxels."""
        false = round(20 / good - 20)
        return [(10, 0, 0) if t >= best else (10, false, 0) for t in THRESHOLDS]

    cases = [case("a", 9, 0, 0, thresholds=rows(0.5, 0.8)), case("b", 9, 0, 0, thresholds=rows(0.8, 0.5))]
    found = summary_of([*cases, *CASES[:1]]).classes["lesion"].cohort
    assert found["mdsc_global"].value == 1 and found["mdsc_global"].n == 2
    assert "reached at 0.8 to 0.95" in found["mdsc_global"].definition
    assert found["mdsc_case"].value == 1 and found["average_precision"].value == pytest.approx(1)
    assert len(cases[0].counts["lesion"].tp) == n


def test_size_strata_keep_cases_without_lesion_apart():
    cases = sorted(CASES, key=lambda one: one.name)
    groups = Groups("patients.csv", ["stage"], {"a": {"stage": "late"}, "b": {"stage": "early"}}, [], [])
    size, ppv, stage = stratify(
        cases,
        CHOICE.metrics,
        [parse_rule("voxels_truth=20"), parse_rule("ppv=0.5")],
        groups,
        PERCENTILE,
    )
    assert [(level.name, level.cases) for level in size.classes["lesion"]] == [
        ("no lesion", ["c", "d"]),
        ("under 20 voxels", ["a", "e"]),
        ("20 voxels and more", ["b"]),
    ]
    assert size.classes["lesion"][1].metrics["dice"].mean == pytest.approx(0.4)
    assert size.name == "voxels_truth" and size.rule == "voxels_truth cut at 20"
    assert [(level.name, level.cases) for level in ppv.classes["lesion"]] == [
        ("under 0.5", ["c"]),
        ("0.5 and more", ["a", "b"]),
        ("undefined", ["d", "e"]),
    ]
    assert [(level.name, level.cases) for level in stage.classes["lesion"]] == [
        ("early", ["b"]),
        ("late", ["a"]),
        ("not given", ["c", "d", "e"]),
    ]


def test_groups_are_tested_by_the_metrics_of_the_table():
    """Sizes are no groups of the file: they have no test."""
    cases = [case(f"{group}{i}", 5 + i, 5, 2) for group in "AB" for i in range(5)]
    groups = Groups("g.csv", ["scanner"], {one.name: {"scanner": one.name[0]} for one in cases}, [], [])
    found = summary_of(cases, rules=[parse_rule("voxels_truth=q2")], groups=groups)
    size, scanner = found.strata
    assert size.tests == {} and list(scanner.tests["lesion"]) == ["dice", "ppv", "tpr"]
    assert scanner.tests["lesion"]["dice"].p == pytest.approx(1)  # both groups are the same
    assert scanner.tests["lesion"]["tpr"].why_not == "no group of 5 cases or more"  # not computed here
    assert found.group_tests.startswith(
        "Kruskal-Wallis across the groups of 5 cases or more; Holm over the 0 to 1"
    )
    assert summary_of(cases).group_tests == ""


def test_what_is_written_about_a_metric():
    rows = {metric.name: metric_row(metric) for metric in find_preset("autoseg").metrics}
    dice, distance, count = rows["dice"], rows["hd95_mm"], rows["tp"]
    assert (dice.empty_prediction, dice.empty_truth, dice.both_empty) == (0, 0, 1)
    assert (distance.unit, distance.empty_truth, distance.better) == ("mm", None, "lower")
    assert count.both_empty == "defined" and dice.group == "overlap"
