"""Reports of every kind of folder: what is in them, what is not and why, and that they stand on their own."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import small
from reports import EVIL_CASE, EVIL_CLASS, Read, masks, write_raw, write_scores

from autoseg.cli import report as command
from autoseg.comparison.compare_methods import compare_folders
from autoseg.comparison.comparison_text import sentences
from autoseg.errors import AutosegError
from autoseg.evaluation.cohort import summarise
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.summary import CaseScores, read_summary
from autoseg.evaluation.summary_text import mean_texts
from autoseg.evaluation.text import number, p_text
from autoseg.inference.prediction_record import PredictionRecord, write_record
from autoseg.report import charts
from autoseg.report.bland_altman import SIGNS
from autoseg.report.blocks import Cell, by_class, heads
from autoseg.report.drawing import page_svg, paper_files
from autoseg.report.page import PageOptions, make_report
from autoseg.report.score_tables import alike
from autoseg.report.sections import tiles

SCORES = [
    "scores",
    "distributions",
    "agreement",
    "precision_recall",
    "volume",
    "cases",
    "data",
    "provenance",
]
SCORES_WITHOUT_CASES = [name for name in SCORES if name != "cases"]


@pytest.fixture(scope="module")
def page(report, scored, tmp_path_factory) -> Read:
    """The report of a scored folder."""
    return report(scored, tmp_path_factory.mktemp("report"), cases=3, command="autoseg_report <masks>")


# ------------------------------------------------------------------------------------------- which sections there are


def test_a_scored_folder_has_all_but_the_training(page):
    assert page.sections == [*SCORES, "absent"]
    assert "Training curves: there is no log.jsonl" in page.text
    assert "There is no plan with these files" in page.text


def test_the_headline_comes_before_everything(page, scored):
    entry = read_summary(scored).classes["lesion"]
    head = page.text[: page.text.index("Scores")]
    for text in (
        "Dataset901_Synthetic",
        number(entry.all["dice"].mean, "1"),
        "mean Dice",
        f"{number(entry.all['dice'].low, '1')} to {number(entry.all['dice'].high, '1')}, n = 12",
        "missed: 2 of 10 cases with truth",  # case_06 and case_07 are shifted by their own width
        "false alarms: 0 of 2 cases without truth",
    ):
        assert text in head


def test_the_headline_is_the_median_where_few_cases_lead_the_mean():
    """HD95 of 1 to 8 mm and two of 90: mean 21.6, median 5.5, its interval from the 2nd to the 9th of 10."""
    hd95 = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 90.0, 90.0]
    dice = [0.0, 0.0, *[0.9] * 8]  # as far from the middle half, but a case that is missed must weigh
    of_dice, of_hd95 = _tiles(hd95, dice)
    assert (of_dice.value, of_dice.unit) == ("0.720", "mean Dice")
    assert (of_hd95.value, of_hd95.unit) == ("5.50", "median HD95, mm")
    assert of_hd95.lines[0] == "95 % interval 2.00 to 90.00, n = 10"
    few = _tiles([1.0, 1.0, 2.0, 2.0, 70.0], [0.5] * 5)[1]  # five cases give no interval of a median
    assert few.lines[0] == "too few for an interval, n = 5"
    assert of_hd95.lines[1].startswith("few cases lead the mean, 21.60 [")
    assert of_hd95.lines[1].endswith("it lies outside the middle half of the cases, 3.25 to 7.75")


def _tiles(hd95, dice):
    """The headline cards of such cases."""
    metrics = ["dice", "hd95_mm"]
    more = dict.fromkeys(("tp", "voxels_truth", "voxels_prediction"), 5) | {"fp": 0, "fn": 0}
    more |= {"volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    cases = [
        CaseScores(
            name=f"c{i}",
            prediction_sha256="",
            truth_sha256="",
            classes={"lesion": {"dice": d, "hd95_mm": h, **more}},
        )
        for i, (d, h) in enumerate(zip(dice, hd95, strict=True))
    ]
    choice = MetricChoice("autoseg")
    made = summarise(cases, choice=choice, predictions="p", truths="t", labels={}, labels_from="")
    assert made.preset.table[:2] == metrics
    kept = made.model_copy(update={"preset": made.preset.model_copy(update={"table": metrics})})
    return tiles(kept)


def test_groups_are_tested_and_say_how_many_cases_they_have(page, scored):
    """The numbers of summary.json, with a p-value nowhere but beside them, and all digits in a table."""
    (stratum,) = [one for one in read_summary(scored).strata if one.tests]
    found = stratum.tests["lesion"]["dice"]
    assert found.n == {"A": 6, "B": 6} and found.p is not None
    row = next(row for row in page.rows if row[0] == "Dice" and row[-1] == "A: 6, B: 6")
    assert row[1:5] == [f"{found.h:.2f}", "1", p_text(found.p), p_text(found.p_holm)]
    assert "Tests: Kruskal-Wallis across the groups of 5 cases or more" in page.text
    with open(page.path.with_name("report_files") / "group_tests.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["p"]) == pytest.approx(found.p) and rows[0]["groups"] == "A: 6, B: 6"


def test_folds_are_tested_together(write_model, sketch, tmp_path):
    """Six cases of each fold make groups of three, too few; twelve make groups of six."""
    groups = tmp_path / "groups.csv"
    groups.write_text("case,scanner\n" + "".join(f"case_{i:02},{'AB'[i % 2]}\n" for i in range(12)))
    page = sketch(write_model(tmp_path, groups=groups))
    assert any(row[0] == "Dice" and row[-1] == "A: 6, B: 6" for row in page.rows if row)


def test_probabilities_are_shown_where_they_are(page, raw, report, tmp_path):
    """Those of another grid are said and left out."""
    assert sum("Probability of lesion" in image["alt"] for image in page.all("img")) == 3
    folder = tmp_path / "masks"
    write_scores(folder, raw, range(3), probabilities=True)
    for path in folder.glob("*.npz"):
        np.savez_compressed(path, probabilities=np.zeros((2, 3, 4, 5), np.float16))
    other = report(folder, cases=1)
    assert not any("Probability" in image["alt"] for image in other.all("img"))
    assert "probabilities are not shown: float16 (2, 3, 4, 5) instead of" in other.text


def test_the_cases_of_a_comparison_stand_beside_each_other(raw, scored, sketch, tmp_path):
    """Images and methods are found where they are; dataset.json beside the truths names the channel."""
    write_scores(tmp_path / "other", raw, range(12))
    comparison = compare_folders([scored, tmp_path / "other"], raw / "labelsTr", names=["one", "two"])
    (tmp_path / "cmp").mkdir()
    (tmp_path / "cmp" / "comparison.json").write_text(comparison.model_dump_json())
    page = sketch(tmp_path / "cmp", cases=2)
    assert "compared_cases" in page.sections
    grouped = [image for image in page.all("img") if image["alt"].startswith("Of every group")]
    assert "grouped_cases" in page.sections and len(grouped) == len(comparison.strata) == 1
    (worst, best) = [image for image in page.all("img") if image not in grouped]
    assert all(
        ": T2, one, two, truth; Dice of label 1: one 0." in image["alt"] for image in (worst, best)[:1]
    )
    made = sorted(path.name for path in (tmp_path / "cmp" / "report_files").glob("compared_*.png"))
    assert [name[:11] for name in made] == ["compared_1_", "compared_2_"]
    assert (tmp_path / "cmp" / "report_files" / "groups_1.png").is_file()
    (tmp_path / "other" / "case_00.nii.gz").unlink()
    some = sketch(tmp_path / "cmp", cases=12)
    assert "case_00: case_00: the mask of two has vanished since it was scored" in some.text
    assert sum(image["alt"].startswith("Slices of") for image in some.all("img")) == 11
    shutil.copytree(raw / "labelsTr", tmp_path / "truths")
    alone = sketch(tmp_path / "cmp", cases=1, truths=tmp_path / "truths")
    assert "Compared cases: the folder of images is not known: give it with -i" in alone.text


def test_a_model_folder_pools_its_folds(write_model, sketch, tmp_path):
    page = sketch(write_model(tmp_path, probabilities=True))
    assert page.sections == [*SCORES_WITHOUT_CASES[:-1], "training", "provenance", "absent"]
    assert "model with 2 folds, plan unet, trainer unet" in page.text
    assert "12 cases in 2 folds" in page.text
    assert "mean of folds ± SD" in page.text
    assert page.text.index("autoseg_train 901 0") < page.text.index("autoseg_train 901 1")
    assert ["predictions", "fold_0/validation, fold_1/validation"] in page.rows
    said = next(a["aria-label"] for a in page.all("div") if "Precision-recall" in a.get("aria-label", ""))
    assert re.search(r"fold 0, AP 0\.\d{3}, n = 6; fold 1, AP 0\.\d{3}, n = 6", said)
    assert page.path.name == "report.html" and page.path.parent.name == "unet__unet"


def test_means_are_put_in_words_by_a_preset_that_does(raw, sketch, tmp_path):
    """In the first table, of the main scores; a mean of more than 0.6 and at most 0.8 is substantial."""
    summary = write_scores(tmp_path / "masks", raw, range(6), preset="deepmedic")
    mean = summary.classes["lesion"].all["dice"].mean
    rows = {row[0]: row for row in reversed(sketch(tmp_path / "masks").rows) if len(row) > 5}
    assert 0.6 < mean <= 0.8 and rows["Dice"][-1] == "substantial" and rows["TPR"][-1] == ""
    write_scores(tmp_path / "plain", raw, range(6))
    assert "substantial" not in sketch(tmp_path / "plain").text


def test_the_folds_have_a_mean_curve_and_its_numbers(write_model, sketch, tmp_path):
    """Both folds have Dice 0, 0.1, 0.2, 0.3 in the four epochs."""
    page = sketch(write_model(tmp_path))
    with open(
        page.path.with_name("report_files") / "training_folds.csv", encoding="utf-8", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {(row["class"], row["metric"], row["sd"], row["folds"]) for row in rows} == {
        ("lesion", "dice", "0.0", "2")
    }
    assert any("Dice by epoch; at the end lesion 0.300" in d.get("aria-label", "") for d in page.all("div"))


def test_the_reasons_of_a_plan_are_folded(write_model, sketch, tmp_path):
    """They are as long as the rest of the page, and the same in every report of the model."""
    page = sketch(write_model(tmp_path))
    html = page.path.read_text()
    assert "<h3>Dataset</h3>" in html and "<h3>Plan:" not in html
    assert html.count("<details><summary>Plan: ") >= 3  # preprocessing, network, training, ...
    assert "data set" not in page.text.lower()


def test_a_fold_alone_and_its_validation_find_the_plan(write_model, sketch, tmp_path):
    model = write_model(tmp_path)
    fold, validation = sketch(model / "fold_1"), sketch(model / "fold_1" / "validation")
    assert "fold 1 of a model, plan unet" in fold.text and "6 cases of fold 1" in fold.text
    assert "training" in fold.sections and "training" not in validation.sections
    assert "scored predictions, plan unet" in validation.text


def test_what_a_running_training_lacks_is_said(write_model, sketch, tmp_path):
    page = sketch(write_model(tmp_path, folds=((0, range(6)), (1, ()))))
    assert "Not scored yet, because the training is not finished: fold 1." in page.text
    assert ["fold 1", "4", "-", "-", "4 s", "-", "not finished"] in page.rows
    page = sketch(write_model(tmp_path / "b", folds=((0, ()),)))
    assert page.sections == ["warnings", "data", "training", "provenance", "absent"]
    assert (
        "Scores: there is no summary.json: run autoseg_evaluate, or finish the training of a fold."
        in page.text
    )


def test_without_probabilities_there_are_no_curves(raw, sketch, tmp_path):
    write_scores(tmp_path / "masks", raw, range(3))
    page = sketch(tmp_path / "masks")
    assert "precision_recall" not in page.sections
    assert "Precision and recall: there is no thresholds.csv" in page.text
    assert "Intervals of fewer than 10 cases are usually too narrow; here n = 3." in page.text


def test_masks_say_what_made_them(raw, sketch, tmp_path):
    """Whoever is sent such a page has no plan to look into."""
    masks = tmp_path / "masks"
    write_scores(masks, raw, range(3))
    made_by = {"model": "unet__mine", "planner": "unet", "quick": True}
    record = PredictionRecord(autoseg_version="0", identity={"model": "5f" * 32, "step": 0.5}, **made_by)
    write_record(masks, record)
    page = sketch(masks)
    assert page.sections[0] == "warnings"
    assert "The plan of unet__mine is a quick one, for trying out: these scores do not tell" in page.text
    (said,) = [row[1] for row in page.rows if row[0] == "model"]
    assert said == f"unet__mine; family unet; quick plan, for trying out; {'5f' * 32} (step 0.5)"
    assert "unet__mine" in page.text[: page.text.index("Warnings")]

    write_record(masks, record.model_copy(update={"quick": False}))
    assert "quick" not in sketch(masks).text
    (masks / "prediction.json").write_text(  # of an earlier autoseg
        json.dumps({"version": 1, "autoseg_version": "0", "identity": {"model": "5f"}, "cases": {}})
    )
    assert ["model", "5f ()"] in sketch(masks).rows


def test_a_comparison_has_its_own_page(raw, scored, sketch, tmp_path):
    write_scores(tmp_path / "other", raw, [*range(1, 12), 0])
    comparison = compare_folders([scored, tmp_path / "other"], raw / "labelsTr")
    (tmp_path / "comparison.json").write_text(comparison.model_dump_json())
    page = sketch(tmp_path)
    assert page.sections == ["comparison", "method_means", "method_agreement", "provenance", "absent"]
    assert all(sentence in page.text for sentence in sentences(comparison))
    pair = comparison.classes["label 1"][comparison.main[0]].pairs[0]
    assert all(f"Dice by {one.rule}, exploratory" in page.text for one in comparison.strata)
    assert all(note in page.text for note in comparison.notes)
    assert any(
        f"{pair.first} − {pair.second}" in row and f"{pair.wins} / {pair.ties} / {pair.losses}" in row
        for row in page.rows
    )


def test_the_sign_of_volumes_is_chosen(raw, scored, sketch, tmp_path):
    """Predictions that are twice as large as the truths have positive differences, turned negative ones."""
    truths = {path.name: path for path in (raw / "labelsTr").iterdir()}
    for index, name in enumerate(sorted(truths)):
        truth, _ = masks(index)
        small.write(tmp_path / "large" / name, truth | np.roll(truth, 7, axis=2))
    comparison = compare_folders([scored, tmp_path / "large"], raw / "labelsTr", names=["one", "large"])
    (tmp_path / "comparison.json").write_text(comparison.model_dump_json())

    def mean(**options):
        page = sketch(tmp_path, **options)
        with open(page.path.with_name("report_files") / "method_volumes.csv", newline="") as file:
            row = next(r for r in csv.DictReader(file) if r["method"] == "large" and not r["level"])
        return float(row["mean_ml"])

    assert mean() > 0 and mean(volume_sign="gt_minus_pred") == -mean()
    (choice,) = [a for a in command.build_parser()._actions if a.dest == "volume_sign"]
    assert tuple(choice.choices) == SIGNS and choice.default == PageOptions().volume_sign


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(AutosegError, match="there is nothing to report on") as error:
        make_report(tmp_path)
    message = str(error.value)
    assert "notes.txt" in message
    for wanted in ("plan.json with folders fold_N", "log.jsonl", "summary.json", "comparison.json"):
        assert wanted in message
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_folders_and_odd_numbers_are_refused(scored, tmp_path):
    with pytest.raises(AutosegError, match="the folder is missing"):
        make_report(tmp_path / "nowhere")
    with pytest.raises(AutosegError, match="the folder of images is missing"):
        make_report(scored, images=tmp_path / "nowhere")
    with pytest.raises(AutosegError, match="the folder of true masks is missing"):
        make_report(scored, truths=tmp_path / "nowhere")
    with pytest.raises(AutosegError, match="so many cases cannot be shown"):
        make_report(scored, options=PageOptions(cases=31))


def test_folds_of_different_presets_are_not_mixed(write_model, raw, tmp_path):
    model = write_model(tmp_path)
    write_scores(model / "fold_1" / "validation", raw, range(6, 12), preset="isles22")
    with pytest.raises(AutosegError, match="fold 0 and fold 1 were scored by different preset"):
        make_report(model)


# -------------------------------------------------------------------------------------------------- what the cases show


def test_a_mask_that_has_changed_is_not_shown(scored, sketch, tmp_path):
    folder = shutil.copytree(scored, tmp_path / "masks")
    summary = json.loads((folder / "summary.json").read_text())
    summary["predictions"] = "somewhere/else"
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "cases" in sketch(folder, cases=1).sections  # masks are found beside summary.json
    for path in folder.glob("*.nii.gz"):
        path.write_bytes(path.read_bytes() + b"\0")
    page = sketch(folder, cases=1)
    assert "cases" not in page.sections
    assert "the predicted mask has changed since it was scored" in page.text


def test_moved_images_and_truths_are_given(raw, scored, sketch, tmp_path):
    folder = shutil.copytree(scored, tmp_path / "masks")
    moved = shutil.copytree(raw, tmp_path / "moved")
    summary = json.loads((folder / "summary.json").read_text())
    summary["truths"] = "gone/truth"
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "the folder of images is not known" in sketch(folder, cases=1).text
    page = sketch(folder, truths=moved / "labelsTr", cases=1)
    assert "cases" in page.sections and str(moved / "imagesTr") in page.text
    images = (moved / "imagesTr").rename(tmp_path / "pictures")
    assert "cases" in sketch(folder, truths=moved / "labelsTr", images=images, cases=1).sections


def test_as_many_cases_as_asked_for(scored, sketch, tmp_path):
    assert "no cases were asked for" in sketch(scored, tmp_path, cases=0).text
    titles = re.findall(r"(\S.*?) case: case_", sketch(scored, tmp_path, cases=4).text)
    assert [title for title in titles if title[0].isupper()] == [
        "Worst",
        "Number 4 of 10 from the worst,",
        "Number 7 of 10 from the worst,",
        "Best",
    ]


# -------------------------------------------------------------------------------------------------------- the numbers


def test_tables_equal_the_summary(page, scored):
    summary = read_summary(scored)
    for metric in summary.preset.table:
        unit, mean = summary.metrics[metric].unit, summary.classes["lesion"].all[metric]
        cells = [*mean_texts(mean, unit), str(mean.undefined)]
        assert any(row[1:6] == cells for row in page.rows), metric
    levels = [level for one in summary.strata for level in one.classes["lesion"]]
    assert [level.name for level in levels] == ["no lesion", "16 to 36 voxels", "64 to 196 voxels", "A", "B"]
    for level in levels:
        dice = level.metrics["dice"]
        text = f"{number(dice.mean, '1')} [{number(dice.low, '1')}, {number(dice.high, '1')}]"
        assert any(
            level.name in row[:2] and text in row and row[-1] == str(len(level.cases)) for row in page.rows
        )
    names = [row[0] for row in page.rows if row and row[0].startswith("case_")]
    dice = {case.name: case.mean_dice for case in summary.cases}
    assert names == sorted(names, key=lambda name: (dice[name], name)) and len(names) == 12


def test_csv_files_hold_the_summary_in_full(page, scored):
    summary, files = read_summary(scored), page.path.parent / "report_files"
    rows = list(csv.DictReader((files / "scores.csv").open()))
    assert len(rows) == 2 * len(summary.metrics)
    for row in rows:
        entry = summary.classes["lesion"]
        mean = (entry.all if row["cases"] == "all" else entry.truth_present)[row["metric"]]
        assert row["preset"] == "autoseg" and int(row["n"]) == mean.n
        assert (float(row["mean"]) if row["mean"] else None) == mean.mean
    cases = {row["case"]: row for row in csv.DictReader((files / "cases.csv").open())}
    for case in summary.cases:
        assert float(cases[case.name]["dice"]) == case.classes["lesion"]["dice"]
        assert cases[case.name]["truth_sha256"] == case.truth_sha256
        assert cases[case.name]["scanner"] == case.groups["scanner"]
    curve = list(csv.DictReader((files / "precision_recall.csv").open()))
    average = summary.classes["lesion"].cohort["average_precision"].value
    assert len(curve) == 100 and float(curve[0]["average_precision"]) == pytest.approx(average, abs=1e-12)


def test_pooled_means_are_those_of_all_cases(write_model, sketch, tmp_path):
    page = sketch(write_model(tmp_path, strata=["voxels_truth=q2"]))
    summaries = [read_summary(page.path.parent / f"fold_{i}" / "validation") for i in (0, 1)]
    values = [[case.classes["lesion"]["dice"] for case in summary.cases] for summary in summaries]
    files = page.path.parent / "report_files"
    scores = list(csv.DictReader((files / "scores.csv").open()))
    pooled = next(row for row in scores if row["metric"] == "dice" and row["cases"] == "all")
    assert float(pooled["mean"]) == pytest.approx(np.mean(sum(values, []))) and pooled["n"] == "12"
    folds = [row for row in csv.DictReader((files / "folds.csv").open()) if row["metric"] == "dice"]
    assert [row["fold"] for row in folds] == ["fold 0", "fold 1", "mean of folds"]
    means = [np.mean(v) for v in values]
    assert [float(row["mean"]) for row in folds] == pytest.approx([*means, np.mean(means)])
    assert float(folds[2]["sd"]) == pytest.approx(np.std(means, ddof=1)) and folds[2]["low"] == ""
    levels = {row["level"] for row in csv.DictReader((files / "strata.csv").open())}
    # cut anew, as for all cases at once
    assert levels == {
        "no lesion",
        "16 to 36 voxels",
        "64 to 196 voxels",
    }


def test_numbers_that_are_read_together_have_the_same_decimals():
    assert alike("ml", 3.8842, 0.8802, 47.868, None) == ["3.88", "0.88", "47.87", "-"]
    assert alike("1", 0.5, 0.25) == ["0.500", "0.250"]
    assert alike("mm", None, None) == ["-", "-"]


def test_one_class_needs_no_column_and_several_are_named_once():
    rows = [(Cell(a, head=True), Cell(b), Cell(c)) for a, b, c in ("aux", "auy", "avz", "bvx")]
    header = heads("class", "metric", "method")
    table = by_class("", header, rows, names=2)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts == [["a", "u", "x"], ["", "", "y"], ["", "v", "z"], ["b", "v", "x"]]
    table = by_class("", header, rows[:3], names=2)
    assert [cell.text for cell in table.header] == ["metric", "method"]
    assert [[cell.text for cell in row] for row in table.rows] == [["u", "x"], ["", "y"], ["v", "z"]]


def test_whole_cases_stand_with_the_scores(page, scored):
    entry = read_summary(scored).classes["lesion"]
    assert ["cases missed", f"{entry.missed} of 10", "10"] in page.rows
    assert ["false alarms", f"{entry.false_alarms} of 2", "2"] in page.rows


# ------------------------------------------------------------------------------------------------ standing on its own


def test_nothing_is_loaded(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert re.match(r"data:|#|$", attributes.get(name, "")), (tag, name, attributes[name][:80])
    html = page.path.read_text()
    assert not re.search(r"url\((?!#)|@import|@font-face|<link|<script", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_svg_takes_the_colours_of_the_page(page):
    html = page.path.read_text()
    assert not re.search("#010203|#040506|#070809|#0a0b0c", html)
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    for colour in ("fill: currentColor", "stroke: currentColor", "var(--line)", "var(--font)"):
        assert colour in svg
    assert "DejaVu" not in svg and "<metadata" not in svg and "tip:" not in svg
    assert "prefers-color-scheme: dark" in html


def test_ids_are_unique_and_found(page):
    html = page.path.read_text()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(ids)


def test_pictures_have_words(page):
    assert all(image["alt"] and image["width"] and image["height"] for image in page.all("img"))
    panels = [a for a in page.all("div") if a.get("role") == "img"]
    assert panels and all(panel["aria-label"] for panel in panels)
    assert len(page.all("svg")) == len(panels)
    assert "<title>case_03: Dice " in page.path.read_text()  # points say which case they are
    assert [tag for tag, _ in page.elements if tag == "h1"] == ["h1"]


def test_paper_figures_are_light_and_have_their_files(page):
    files = page.path.parent / "report_files"
    names = json.loads((files / "files.json").read_text())
    assert sorted(path.name for path in files.iterdir()) == sorted([*names, "files.json"])
    for name in (
        "distributions",
        "bland_altman",
        "precision_recall",
        "dice_volume",
        "stratum_1",
        "stratum_2",
    ):
        assert (files / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (files / f"{name}.svg").read_text()
        assert "Arial" in svg and "fill: #ffffff" in svg and "currentColor" not in svg


def test_files_of_an_earlier_report_are_removed(scored, sketch, tmp_path):
    page = sketch(scored, tmp_path / "page.html", cases=1)
    files = tmp_path / "page_files"
    (files / "mine.png").write_bytes(b"")
    assert page.path == tmp_path / "page.html" and list(files.glob("case_1_*.png"))
    sketch(scored, tmp_path / "page.html", cases=0)
    assert not list(files.glob("case_1_*.png")) and (files / "mine.png").exists()


def test_the_same_figure_gives_the_same_bytes(scored):
    chart = charts.dice_against_volume(read_summary(scored))
    assert page_svg(chart.panels[0], "a-") == page_svg(chart.panels[0], "a-")
    assert paper_files(chart) == paper_files(chart)


# ----------------------------------------------------------------------------------------------------------- escaping


def test_names_cannot_write_html(sketch, tmp_path):
    raw = write_raw(tmp_path, [EVIL_CASE, "b"], [EVIL_CLASS, "$x_1$ & more"], channel="<T2>")
    write_scores(tmp_path / "masks", raw, range(2), labels=2)
    page = sketch(tmp_path / "masks", cases=2, command="autoseg_report <img src=x>")
    assert page.all("script") == [] and all(image["src"].startswith("data:") for image in page.all("img"))
    for text in (EVIL_CASE, EVIL_CLASS, "$x_1$ & more", "<T2>", "autoseg_report <img src=x>"):
        assert text in page.text
    assert any(EVIL_CASE in image["alt"] for image in page.all("img"))
    assert sorted(path.name for path in (tmp_path / "masks/report_files").glob("case_*.png")) == [
        "case_1_b.png",
        "case_1_b_surfaces.png",
        "case_2_a_b___c_.png",
        "case_2_a_b___c__surfaces.png",
    ]


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command(scored, tmp_path, capsys):
    assert command.main([str(scored), "-o", str(tmp_path), "--cases", "1", "--no_viewer"]) == 0
    said = capsys.readouterr().out
    page = tmp_path / "report.html"
    assert page.stat().st_size < 999_000 and f"{page} ({-(-page.stat().st_size // 1000)} KB)" in said
    assert str(tmp_path / "report_files") in said
    assert (
        f"autoseg_report {scored} -o {tmp_path} --cases 1 --no_viewer"
        in Read((tmp_path / "report.html").read_text()).text
    )
    assert command.main([str(tmp_path / "nowhere")]) == 1
    assert "the folder is missing" in capsys.readouterr().err
