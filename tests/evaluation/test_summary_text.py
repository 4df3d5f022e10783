"""What is printed, and the text of the CSV."""

import csv
import io
import math

from autoseg.evaluation import summary_text
from autoseg.evaluation.summary import (
    CaseScores,
    ClassSummary,
    CohortValue,
    Level,
    Mean,
    MetricRow,
    PresetRow,
    Stratum,
    Summary,
    VolumeAgreement,
    format_csv,
)

NOTE = (
    "What the public script does differently, and why this is not done here, in a sentence of some length. "
    * 2
)


def mean(value, half=None, n=12):
    low, high = (None, None) if half is None else (value - half, value + half)
    return Mean(mean=value, sd=half, median=value, low=low, high=high, n=n, undefined=0)


def row(unit, group="overlap"):
    return MetricRow(
        unit=unit, group=group, definition="", empty_prediction=None, empty_truth=None, both_empty="defined"
    )


def entry(empty_truth=0):
    means = {"dice": mean(0.65814, 0.1), "hd95_mm": mean(12.3456, 3.0), "tp": mean(1234567.0, 5000.0)}
    return ClassSummary(
        cases=12,
        empty_truth=empty_truth,
        false_alarms=1 if empty_truth else 0,
        missed=3,
        all=means,
        truth_present=means,
        cohort={"micro_dice": CohortValue(value=0.7, low=0.6, high=0.8, unit="1", definition="", n=12)},
        volume_agreement=VolumeAgreement(mean_ml=-0.5, sd_ml=1, low_limit_ml=-2.46, high_limit_ml=1.46, n=12),
    )


def summary(classes, strata=(), cases=(), **preset):
    return Summary(
        autoseg_version="0",
        predictions="p",
        truths="t",
        preset=PresetRow(name="mine", title="of my own", **{"table": ["dice", "hd95_mm", "gone"], **preset}),
        labels={"background": 0},
        labels_from="",
        interval="",
        metrics={"dice": row("1"), "hd95_mm": row("mm", "distance"), "tp": row("voxels")},
        classes=classes,
        strata=list(strata),
        cases=list(cases),
    )


def lines(*arguments, **more):
    return summary_text.format_table(summary(*arguments, **more)).splitlines()


def test_the_preset_stands_above_the_numbers():
    found = lines({"lesion": entry()}, source="a script", notes=["Short.", NOTE])
    assert found[:3] == ["preset mine: of my own", "  source: a script", "  Short."]
    assert found[3].startswith("  What the public") and found[4].startswith("    ")
    assert max(map(len, found)) <= summary_text.WIDTH


def test_a_row_for_each_metric_of_the_presets_table():
    found = lines({"core": entry(), "oedema": entry(2)})
    body = [line.split("  ") for line in found[found.index("") + 1 :]]
    text = "\n".join(found)
    assert "0.658 [0.558, 0.758]  0.100  0.658" in text and "12.35 [9.35, 15.35]" in text
    assert "tp" not in text and "gone" not in text
    assert body[0][0].strip() == "class" and body[2][0].strip() == "core"
    assert "3 of 12 with truth" in text and "3 of 10 with truth" in text and "1 of 2 without truth" in text
    assert "where truth is present" in text
    assert "where truth is present" not in "\n".join(lines({"core": entry()}))


def test_means_in_words():
    found = "\n".join(lines({"lesion": entry(2)}, in_words=["dice", "tp"]))
    assert "in words" in found and found.count("substantial") == 1
    assert "in words" not in "\n".join(lines({"lesion": entry()}))


def test_metrics_that_were_left_out_make_room_for_others():
    assert summary_text.table_metrics(summary({"lesion": entry()}, table=["gone"])) == [
        "dice",
        "hd95_mm",
        "tp",
    ]


def test_strata_and_cohort():
    levels = [
        Level(name="1 to 8 voxels", cases=["a"], metrics={"dice": mean(0.25, n=1)}),
        Level(name="9 voxels", cases=["b", "c"], metrics={"dice": mean(0.5, 0.25, n=2)}),
    ]
    stratum = Stratum(name="voxels_truth", rule="halves of voxels_truth", classes={"lesion": levels})
    text = "\n".join(lines({"lesion": entry()}, [stratum]))
    assert "dice by halves of voxels_truth" in text
    assert "lesion  1 to 8 voxels  0.250 " in text and "        9 voxels       0.500 [0.250, 0.750]" in text
    assert "lesion  micro_dice             0.700 [0.600, 0.800]" in text
    # the 97.5th percentile of Student's t with 11 degrees of freedom is 2.201: 2.201 / sqrt(12) = 0.635
    assert "-0.500 [-1.135, 0.135], limits of agreement -2.460 to 1.460" in text


def test_what_few_cases_do_not_tell_is_said():
    few, some, many = (
        CohortValue(value=value, low=low, high=low and 0.9, unit="1", definition="", n=n)
        for value, low, n in ((None, None, 3), (0.241, None, 9), (0.241, 0.01, 10))
    )
    assert summary_text.cohort_text("r2_dice_log_volume", few) == "too few cases"
    assert summary_text.cohort_text("detection_rate", few.model_copy(update={"n": 0})) == "-"
    assert summary_text.cohort_text("r2_dice_log_volume", some) == "0.241, too few for an interval"
    assert summary_text.cohort_text("r2_dice_log_volume", many) == "0.241 [0.010, 0.900]"
    one = entry().model_copy(update={"cohort": {"r2_dice_log_volume": some}})
    assert "r2_dice_log_volume     0.241, too few for an interval  " in "\n".join(lines({"lesion": one}))


def test_numbers_from_probabilities_are_explained():
    cohort = entry().cohort
    with_more = entry().model_copy(update={"cohort": cohort | {"mdsc_global": cohort["micro_dice"]}})
    found = lines({"lesion": with_more})
    text = " ".join(" ".join(found).split())
    assert "mdsc_global is the best mean Dice that one threshold gives for all cases" in text
    assert text.endswith("(autoseg_predict --save_probabilities, then autoseg_evaluate)")
    assert max(map(len, found)) <= summary_text.WIDTH
    assert "mdsc" not in "\n".join(lines({"lesion": entry()}))


def test_a_mean_that_few_cases_lead_is_said():
    """Of 1, 1, 2, 2 and 70 mm the mean, 15.2, lies above the third quartile, 2; as ratios they lead no mean."""
    values = [1.0, 1.0, 2.0, 2.0, 70.0]
    cases = [
        CaseScores(
            name=f"c{i}",
            prediction_sha256="",
            truth_sha256="",
            classes={"lesion": {"dice": value, "hd95_mm": value, "tp": value}},
        )
        for i, value in enumerate(values)
    ]
    graded = {"dice": row("1"), "hd95_mm": row("mm", "distance"), "tp": row("voxels")}
    graded["hd95_mm"] = graded["hd95_mm"].model_copy(update={"better": "lower"})
    found = summary({"lesion": entry()}, cases=cases).model_copy(update={"metrics": graded})
    text = " ".join(summary_text.format_table(found).split())
    assert (
        "note: few cases lead the mean of hd95_mm of lesion" in text
        and "(1.000 to 2.000): read the median" in text
    )
    assert text.count("note:") == 1
    cases[-1].classes["lesion"]["hd95_mm"] = 3.0
    assert "note:" not in summary_text.format_table(found)


def test_csv():
    scores = {"dice": 0.1 + 0.2, "hd95_mm": None, "tp": 7}
    cases = [
        CaseScores(name=name, prediction_sha256="", truth_sha256="", classes={"core": scores}, groups=groups)
        for name, groups in (("a", {"stage": "late, or so"}), ("b", {}))
    ]
    text = format_csv(summary({"core": entry()}, cases=cases))
    assert list(csv.reader(io.StringIO(text))) == [
        ["case", "class", "preset", "stage", "dice", "hd95_mm", "tp"],
        ["a", "core", "mine", "late, or so", "0.3", "", "7"],
        ["b", "core", "mine", "", "0.3", "", "7"],
    ]
    assert math.isclose(float(text.splitlines()[2].split(",")[4]), 0.3)
