"""Agreement of raters: hand-worked masks in folders, and the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import stats
from storage import store_as

from autoseg import messages
from autoseg.cli import agreement as command
from autoseg.comparison.agreement_figure import density, groups_of, make_figure
from autoseg.comparison.agreement_schema import Agreement, format_agreement
from autoseg.comparison.rater_pairs import ALL
from autoseg.comparison.raters import SYMMETRIC, Rater, parse_rater, rate_folders, symmetric_metrics
from autoseg.errors import AutosegError, FaultsError
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.metrics.pair import Pair
from autoseg.files import read_model

SHAPE, SPACING = (4, 10, 12), (3.0, 1.0, 1.0)


def write(path: Path, array, spacing=SPACING):
    image = sitk.GetImageFromArray(np.asarray(array, np.uint8))
    image.SetSpacing([float(v) for v in spacing[::-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def row_of(n, value=1, start=0):
    """A row of ``n`` voxels: two such rows of a and b voxels that overlap in c have Dice 2 c / (a + b)."""
    array = np.zeros(SHAPE, np.uint8)
    array[1, 2, start : start + n] = value
    return array


@pytest.fixture
def study(tmp_path):
    """Two cases, drawn twice by anna (lengths 4 and 6, or 2 and 2) and once by ben (12, or 6), and a method."""
    lengths = {"anna/run1": (4, 2), "anna/run2": (6, 2), "ben/run1": (12, 6), "unet": (4, 6)}
    for folder, of_cases in lengths.items():
        for case, n in zip("xy", of_cases, strict=True):
            write(tmp_path / folder / f"{case}.nii.gz", row_of(n))
    messages.forget_warnings()
    return tmp_path


def anna(study):
    return Rater("anna", (study / "anna/run1", study / "anna/run2"))


def ben(study):
    return Rater("ben", (study / "ben/run1",))


def unet(study):
    return Rater("unet", (study / "unet",), method=True)


def rows(table, metric="dice"):
    return {(row.kind, row.rater_a, row.rater_b): row for row in table.rows if row.metric == metric}


# ------------------------------------------------------------------------------------------------------- numbers


def test_within_and_between_raters(study):
    found = rows(rate_folders([anna(study), ben(study)]))
    assert set(found) == {("intra", "anna", "anna"), ("inter", "anna", "ben")}
    intra, inter = found["intra", "anna", "anna"], found["inter", "anna", "ben"]
    assert (intra.pairs, intra.n, inter.pairs, inter.n) == (1, 2, 2, 2)
    of_x, of_y = 2 * 4 / 10, 1.0
    assert intra.mean == pytest.approx((of_x + of_y) / 2)
    assert intra.sd == pytest.approx(np.std([of_x, of_y], ddof=1))
    of_x = (2 * 4 / 16 + 2 * 6 / 18) / 2  # both runs against ben's
    of_y = 2 * 2 / 8
    assert inter.mean == pytest.approx((of_x + of_y) / 2)
    assert inter.low <= inter.mean <= inter.high


def test_three_runs_give_three_and_nine_pairs(tmp_path):
    """The annotator study of RatLesNetv2, section 5: intra 3 pairs for each mask, inter 9."""
    raters = []
    for name, shift in (("anna", 0), ("ben", 1)):
        folders = [tmp_path / name / f"run{i}" for i in range(3)]
        for i, folder in enumerate(folders):
            write(folder / "x.nii.gz", row_of(4, start=i + shift))
        raters.append(Rater(name, tuple(folders)))
    found = rows(rate_folders(raters))
    assert [row.pairs for row in found.values()] == [3, 3, 6, 9]
    assert found["intra", ALL, ALL].mean == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    # shifts between runs of anna (0 1 2) and ben (1 2 3): 1 2 3, 0 1 2, 1 0 1; Dice is 1 - shift / 4
    assert found["inter", "anna", "ben"].mean == pytest.approx(1 - (1 + 2 + 3 + 0 + 1 + 2 + 1 + 0 + 1) / 36)
    assert found["inter", "anna", "ben"].sd is None and found["inter", "anna", "ben"].low is None


def test_pairs_within_a_rater_are_tested_against_mixed_pairs(tmp_path):
    """Eight cases; anna draws 10 twice, ben 5 twice: Dice 1 within, 2 * 5 / 15 between; all signs alike, 2 / 2^8."""
    for i in range(8):
        for folder, n in (("anna/1", 10), ("anna/2", 10), ("ben/1", 5), ("ben/2", 5)):
            write(tmp_path / folder / f"c{i}.nii.gz", row_of(n))
    raters = [Rater(name, (tmp_path / name / "1", tmp_path / name / "2")) for name in ("anna", "ben")]
    found = rate_folders(raters)
    tests = found.tests["label 1"]["dice"]
    assert [(test.first, test.second, test.n) for test in tests] == [
        ("anna", "between", 8),
        ("ben", "between", 8),
        (ALL, "between", 8),
    ]
    assert [test.difference for test in tests] == pytest.approx([1 / 3] * 3)
    assert [(test.p["permutation"], test.p_holm) for test in tests] == [(2 / 256, 6 / 256)] * 3
    assert "pairs within a rater against mixed pairs" in format_agreement(found)
    groups = groups_of(found, "label 1", "dice")
    sizes = {name: (len(v), v.mean()) for name, v in groups.items()}
    expected = {"within anna": (8, 1), "within ben": (8, 1), "between raters": (32, 2 / 3)}
    assert {k: (n, pytest.approx(m)) for k, (n, m) in sizes.items()} == expected
    make_figure(found)


def test_a_density_is_the_mean_of_normal_curves():
    """Scott's bandwidth of two values a, b is sd / 2^(1/5); the curve has an area of 1."""
    values, points = np.array([0.4, 0.6]), np.linspace(-2, 3, 5001)
    width = values.std(ddof=1) * 2 ** (-1 / 5)
    expected = np.mean([stats.norm(v, width).pdf(points) for v in values], axis=0)
    assert density(values, points) == pytest.approx(expected)
    assert np.trapezoid(density(values, points), points) == pytest.approx(1)
    assert density(np.array([0.5, 0.5]), points) is None


def test_one_run_each_has_no_row_within(study):
    found = rows(rate_folders([Rater("anna", (study / "anna/run1",)), ben(study)]))
    assert set(found) == {("inter", "anna", "ben")}


def test_a_method_is_in_no_row_about_all_raters(study):
    carl = Rater("carl", (study / "carl",))
    for case in "xy":
        write(study / f"carl/{case}.nii.gz", row_of(4))
    table = rate_folders([unet(study), anna(study), ben(study), carl])
    assert [rater.name for rater in table.raters] == ["anna", "ben", "carl", "unet"]
    found = rows(table)
    people = [("anna", "ben"), ("anna", "carl"), ("ben", "carl")]
    assert {key[1:] for key in found if key[0] == "inter"} == {
        *people,
        (ALL, ALL),
        *((name, "unet") for name in ("anna", "ben", "carl", ALL)),
    }
    without = rows(rate_folders([anna(study), ben(study), carl]))
    assert found["inter", ALL, ALL] == without["inter", ALL, ALL]
    every = [
        value
        for pair in table.pairs
        if pair.rater_b == "unet"
        for value in pair.scores["label 1"]["dice"].items()
    ]
    by_case = [np.mean([value for case, value in every if case == name]) for name in "xy"]
    assert found["inter", ALL, "unet"].mean == pytest.approx(np.mean(by_case))


def test_two_methods_are_not_compared(study):
    other = Rater("ratles", (study / "ben/run1",), method=True)
    table = rate_folders([anna(study), unet(study), other])
    assert not any({pair.rater_a, pair.rater_b} == {"unet", "ratles"} for pair in table.pairs)


def test_cases_that_were_not_drawn_every_time(study):
    (study / "anna/run2/y.nii.gz").unlink()
    write(study / "ben/run1/z.nii.gz", row_of(3))
    table = rate_folders([anna(study), ben(study)])
    found = rows(table)
    assert (table.cases, table.left_out) == (["x", "y"], ["z"])
    assert found["intra", "anna", "anna"].n == 1 and found["inter", "anna", "ben"].n == 2
    assert table.warnings == [
        "1 case drawn once only and left out: z",
        "1 case not drawn in every run: y; rows are over different cases, see their n",
    ]


def test_distances_of_empty_masks_are_undefined_and_counted(study):
    write(study / "ben/run1/x.nii.gz", np.zeros(SHAPE))
    table = rate_folders([anna(study), ben(study)], metrics=["dice", "hd95_mm"])
    inter = rows(table, "hd95_mm")["inter", "anna", "ben"]
    assert (inter.n, inter.undefined) == (1, 1)
    assert rows(table)["inter", "anna", "ben"].n == 2  # Dice is 0 there
    first = next(pair for pair in table.pairs if pair.kind == "inter")
    assert first.scores["label 1"]["hd95_mm"]["x"] is None


def test_what_either_ignores_counts_nowhere(tmp_path):
    a, b = row_of(4), row_of(8)
    b[1, 2, 4:8] = 2  # ben ignores what anna did not draw
    write(tmp_path / "a/x.nii.gz", a)
    write(tmp_path / "b/x.nii.gz", b)
    (tmp_path / "dataset.json").write_text(json.dumps(info(ignore=2)))
    for order in ("ab", "ba"):
        raters = [Rater(name, (tmp_path / name,)) for name in order]
        from autoseg.dataset.dataset_json import read_dataset_json

        table = rate_folders(
            raters, read_dataset_json(tmp_path / "dataset.json"), metrics=["dice", "accuracy"]
        )
        assert [row.mean for row in table.rows] == [1.0, 1.0]
        assert list(table.labels) == ["background", "lesion", "ignore"]


def info(**labels):
    names = {"background": 0, "lesion": 1, **labels}
    return {"channel_names": {"0": "T2"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_metrics_do_not_ask_who_is_right(name):
    metric, random = symmetric_metrics([name])[name], np.random.default_rng(3)
    masks = [random.random((4, 6, 7)) < share for share in (0.3, 0.6, 0.02)] + [np.zeros((4, 6, 7), bool)]
    for a in masks:
        for b in masks:
            there, back = metric(Pair(a, b, SPACING)), metric(Pair(b, a, SPACING))
            assert there == pytest.approx(back, nan_ok=True)


def test_a_tolerance_of_choice():
    assert list(symmetric_metrics(["nsd_2.5mm"])) == ["nsd_2.5mm"] and "nsd_2.5mm" not in METRICS


def test_processes_do_not_change_the_result(study, monkeypatch):
    alone = rate_folders([anna(study), ben(study)])
    monkeypatch.setattr("autoseg.evaluation.score_case.START_S", 0.0)
    assert rate_folders([anna(study), ben(study)], processes=2) == alone


# ------------------------------------------------------------------------------------------------------- the command


def run(study, *more):
    return command.main(["-o", str(study / "out"), "-np", "1", *map(str, more)])


def everybody(study):
    return ["-r", "anna", study / "anna/run1", study / "anna/run2", "-r", "ben", study / "ben/run1"]


def test_the_command(study, capsys):
    assert run(study, *everybody(study), "-m", "unet", study / "unet", "--metrics", "dice", "hd95_mm") == 0
    printed = capsys.readouterr()
    assert "no dataset.json: the classes are the values found in the masks: label 1" in printed.err
    assert "anna - ben" in printed.out and "mean ± SD" in printed.out
    assert "almost perfect" in printed.out and "Landis and Koch" in printed.out
    assert "0.900 ± 0.141" in printed.out and "percentile bootstrap over cases" in printed.out
    table = read_model(study / "out/agreement.json", Agreement)
    assert table.command.startswith("autoseg_agreement ") and format_agreement(table) in printed.out
    assert [rater.method for rater in table.raters] == [False, False, True]
    assert list(table.raters[0].runs) == ["run1", "run2"]
    lines = list(csv.DictReader((study / "out/agreement.csv").open()))
    assert len(lines) == len(table.rows) == 2 * 5
    assert float(lines[0]["mean"]) == pytest.approx(0.9) and lines[0]["kind"] == "intra"
    cells = list(csv.DictReader((study / "out/agreement_cases.csv").open()))
    assert len(cells) == 2 * 2 * (1 + 2 + 2 + 1)  # metrics, cases, pairs
    for name in ("agreement.json", "agreement.csv", "agreement_cases.csv"):
        assert str(study / "out" / name) in printed.out


def test_the_command_finds_dataset_json(study, capsys):
    (study / "anna/dataset.json").write_text(json.dumps(info()))
    assert run(study, *everybody(study)) == 0
    assert "lesion" in capsys.readouterr().out
    other = study / "labels.json"
    other.write_text(json.dumps(info() | {"labels": {"background": 0, "infarct": 1}}))
    assert run(study, *everybody(study), "-djfile", other) == 1
    assert "agreement.json is there, made with other settings" in capsys.readouterr().err
    assert run(study, *everybody(study), "-djfile", other, "--overwrite") == 0
    assert "infarct" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- bad input


def refused(study, capsys, arguments, *texts):
    before = sorted(study.rglob("*"))
    assert run(study, *arguments) == 1
    said = capsys.readouterr().err
    for text in texts:
        assert text in said, said
    assert sorted(study.rglob("*")) == before


def test_raters_that_do_not_fit(study, capsys):
    one = study / "anna/run1"
    with pytest.raises(SystemExit) as stop:
        run(study)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "usage:" in said and "required: -r NAME FOLDER" in said
    refused(study, capsys, ["-r", "anna", one], "no two segmentations to compare", "anna")
    refused(study, capsys, ["-r", one, study / "anna/run2"], "the name is missing", "-r NAME FOLDER")
    refused(study, capsys, ["-r", "anna"], "the folder is missing")
    refused(study, capsys, ["-m", "unet"], "the folder is missing", "-m NAME FOLDER")
    methods = ["-m", "unet", study / "unet", "-m", "other", one]
    refused(study, capsys, methods, "there is no rater to hold the methods against", "autoseg_compare")
    refused(study, capsys, ["-r", "all", one, study / "anna/run2"], "a rater cannot be called all")
    refused(study, capsys, [*everybody(study), "-r", "ben", one], "two raters have the same name", "ben")
    refused(
        study,
        capsys,
        [*everybody(study), "-r", "carl", one],
        "a folder is given twice",
        "for anna and for carl",
    )
    refused(study, capsys, [*everybody(study), "-r", "carl", study / "no"], "masks of carl is missing")


def test_metrics_that_do_not_fit(study, capsys):
    refused(
        study,
        capsys,
        [*everybody(study), "--metrics", "dise"],
        "there is no metric dise",
        "did you mean dice",
    )
    refused(
        study,
        capsys,
        [*everybody(study), "--metric", "ppv"],
        "ppv cannot measure agreement",
        "which of two masks",
    )


def test_no_case_in_common(study, capsys):
    for path in list((study / "ben/run1").iterdir()):
        path.rename(path.with_name("b" + path.name))
    arguments = ["-r", "anna", study / "anna/run1", "-r", "ben", study / "ben/run1"]
    refused(study, capsys, arguments, "no case was drawn twice", "4 cases, such as bx, by, x")


def test_masks_that_do_not_fit_are_all_listed(study, capsys):
    write(study / "ben/run1/x.nii.gz", row_of(3), spacing=(3.0, 1.0, 1.5))
    (study / "dataset.json").write_text(json.dumps(info()))
    write(study / "anna/run2/y.nii.gz", row_of(3, value=4))
    refused(
        study,
        capsys,
        [*everybody(study), "-djfile", study / "dataset.json"],
        "the masks cannot be compared: 2 faults",
        "the spacing is not that of",
        "label that is not in dataset.json",
    )


def test_a_case_twice(study):
    write(study / "ben/run1/x.mha", row_of(3))
    with pytest.raises(FaultsError, match="is there twice"):
        rate_folders([anna(study), ben(study)])


def test_everything_is_empty(tmp_path):
    for name in "ab":
        write(tmp_path / name / "x.nii.gz", np.zeros(SHAPE))
    with pytest.raises(AutosegError, match="all masks are empty"):
        rate_folders([Rater(name, (tmp_path / name,)) for name in "ab"])


def test_other_results_are_not_replaced(study, capsys):
    assert run(study, *everybody(study)) == 0
    assert run(study, *everybody(study)) == 0
    words = ("made with other settings", "metrics: ['iou']", "--overwrite")
    refused(study, capsys, [*everybody(study), "--metrics", "iou"], *words)
    assert run(study, *everybody(study), "--metrics", "iuo") == 1
    assert "--overwrite" not in capsys.readouterr().err
    assert run(study, *everybody(study), "--metrics", "iou", "--overwrite") == 0
    capsys.readouterr()
    more = [*everybody(study), "-m", "unet", study / "unet"]
    refused(study, capsys, more, "agreement.json is there, of other folders", "give another folder with -o")


def test_a_rater_may_have_the_name_of_a_folder(study, monkeypatch):
    monkeypatch.chdir(study)
    assert parse_rater(["anna", "anna/run1"]).folders == (Path("anna/run1"),)


def test_agreement_does_not_depend_on_how_masks_are_stored(study):
    metrics = ("dice", "hd95_mm", "assd_mm", "lesion_count_difference_absolute")
    before = rate_folders([anna(study), ben(study)], metrics=metrics)
    store_as(study / "anna/run2/x.nii.gz", "SRA")
    store_as(study / "ben/run1/y.nii.gz", "PIL")
    assert rate_folders([anna(study), ben(study)], metrics=metrics).pairs == before.pairs
