"""Folders and arrays: scores, means, files, and what is said about bad input."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from storage import code_of, store_as

import autoseg
from autoseg import messages
from autoseg.cli import evaluate as command
from autoseg.cli import scoring_options as options
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError, FaultsError
from autoseg.evaluation import score_case
from autoseg.evaluation.metric_choice import NEEDED, MetricChoice
from autoseg.evaluation.metrics.metric import GROUPS
from autoseg.evaluation.presets import PRESETS, Preset, find_preset
from autoseg.evaluation.score_masks import evaluate_arrays, evaluate_folder
from autoseg.evaluation.summary import read_summary

SPACING = (4.0, 1.0, 0.5)  # one voxel has 0.002 ml
SHAPE = (6, 12, 14)


def write(path: Path, array, spacing=SPACING, origin=(1, 2, 3), direction=None):
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing([float(v) for v in spacing[::-1]])
    image.SetOrigin([float(v) for v in origin])
    if direction:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def mask(*boxes):
    """Boxes ``(value, z, y, x)`` of 2 x 2 x 2 voxels."""
    array = np.zeros(SHAPE, np.uint8)
    for value, z, y, x in boxes:
        array[z : z + 2, y : y + 2, x : x + 2] = value
    return array


def info(labels=None, **more):
    labels = labels or {"background": 0, "core": 1, "oedema": 2}
    return {
        "channel_names": {"0": "DWI"},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
        **more,
    }


@pytest.fixture
def folders(tmp_path):
    """Four cases: perfect, half right, missed, empty and rightly so."""
    truths = {
        "a": mask((1, 1, 1, 1), (2, 1, 6, 6)),
        "b": mask((1, 1, 1, 1)),
        "c": mask((1, 3, 3, 3)),
        "d": mask(),
    }
    predictions = {"a": truths["a"], "b": mask((1, 2, 1, 1)), "c": mask(), "d": mask()}
    for name in truths:
        write(tmp_path / "labelsTs" / f"{name}.nii.gz", truths[name])
        write(tmp_path / "masks" / f"{name}.nii.gz", predictions[name])
        write(
            tmp_path / "imagesTs" / f"{name}_0000.nii.gz", np.random.default_rng(0).random(SHAPE, np.float32)
        )
    (tmp_path / "dataset.json").write_text(json.dumps(info()))
    messages.forget_warnings()
    return tmp_path


def evaluated(folders, labels=None, **more):
    return evaluate_folder(folders / "masks", folders / "labelsTs", DatasetJson(**info(labels)), **more)


def run(folders, *more):
    return command.main(["-p", str(folders / "masks"), "-g", str(folders / "labelsTs"), "-np", "1", *more])


# --------------------------------------------------------------------------------------------------- folders


def test_masks_with_voxels_that_cannot_be_are_scored_with_a_warning(tmp_path):
    for folder in ("truths", "predictions"):
        write(tmp_path / folder / "a.nii.gz", mask((1, 1, 1, 1)), (30, 1, 1))
    messages.forget_warnings()
    evaluate_folder(tmp_path / "predictions", tmp_path / "truths")
    text = " ".join(messages.warning_counts())
    assert "the voxel size in its header cannot be right" in text and "0.005 to 20 mm" in text


def test_scores_and_means(folders):
    summary = evaluated(folders)
    assert [case.name for case in summary.cases] == ["a", "b", "c", "d"]
    dice = {case.name: case.classes["core"]["dice"] for case in summary.cases}
    assert dice == {"a": 1, "b": 0.5, "c": 0, "d": 1}
    core = summary.classes["core"]
    assert (core.cases, core.empty_truth, core.false_alarms, core.missed) == (4, 1, 0, 1)
    assert core.all["dice"].mean == pytest.approx(2.5 / 4)
    assert core.truth_present["dice"].mean == pytest.approx(0.5) and core.truth_present["dice"].n == 3
    assert (core.all["hd95_mm"].n, core.all["hd95_mm"].undefined) == (2, 2)
    assert core.all["hd95_mm"].mean == pytest.approx((0 + 4) / 2)
    assert core.truth_present["volume_truth_ml"].mean == pytest.approx(0.016)
    assert core.all["dice"].low < core.all["dice"].mean < core.all["dice"].high
    oedema = summary.classes["oedema"]
    assert oedema.truth_present["dice"].n == 1 and oedema.truth_present["dice"].low is None
    assert summary.means()["core"] == {
        "dice": 0.625,
        "hd95_mm": 2.0,
        "lesion_f1": 0.75,
        "volume_difference_ml": -0.004,
    }


def test_files_say_the_same(folders):
    summary = evaluated(folders)
    json_path, csv_path = summary.write(folders / "out")
    assert json_path == folders / "out" / "summary.json" and read_summary(folders / "out") == summary
    rows = list(csv.DictReader(csv_path.open()))
    assert [(row["case"], row["class"]) for row in rows] == [
        (name, label) for name in "abcd" for label in ("core", "oedema")
    ]
    assert list(rows[0]) == ["case", "class", "preset", *summary.metrics]
    assert rows[4]["hd95_mm"] == "" and rows[4]["fn"] == "8" and float(rows[2]["dice"]) == 0.5
    assert {row["preset"] for row in rows} == {"autoseg"} and summary.preset.name == "autoseg"


def test_processes_do_not_change_the_result(folders, monkeypatch):
    expected = evaluated(folders)
    monkeypatch.setattr(score_case, "START_S", -1)
    counted = []
    each = score_case.each
    monkeypatch.setattr(
        score_case,
        "each",
        lambda f, tasks, processes, **more: counted.append(processes) or each(f, tasks, processes, **more),
    )
    assert evaluated(folders, processes=2) == expected and counted == [1, 2]


def test_regions_overlap(folders):
    labels = {"background": 0, "whole": [1, 2], "core": [1]}
    summary = evaluate_folder(
        folders / "masks", folders / "labelsTs", DatasetJson(**info(labels, regions_class_order=[2, 1]))
    )
    case_a = summary.cases[0].classes
    assert (case_a["whole"]["voxels_truth"], case_a["core"]["voxels_truth"]) == (16, 8)


def test_ignored_voxels_count_nowhere(tmp_path):
    truth, prediction = mask((1, 0, 0, 0), (2, 3, 3, 3)), mask((1, 0, 0, 0), (1, 3, 3, 3))
    write(tmp_path / "labelsTs/a.nii.gz", truth)
    write(tmp_path / "masks/a.nii.gz", prediction)
    labels = {"background": 0, "lesion": 1, "ignore": 2}
    scores = evaluated(tmp_path, labels).cases[0].classes
    assert list(scores) == ["lesion"]
    assert (scores["lesion"]["dice"], scores["lesion"]["fp"]) == (1, 0)
    assert scores["lesion"]["tp"] + scores["lesion"]["tn"] == truth.size - 8


def test_labels_from_the_masks_when_there_is_no_dataset_json(folders):
    summary = evaluate_folder(folders / "masks", folders / "labelsTs")
    assert list(summary.classes) == ["label 1", "label 2"]
    assert summary.labels_from == "the values found in the masks"
    assert summary.classes["label 1"].all["dice"].mean == pytest.approx(0.625)


def test_other_file_formats_and_chosen_cases(folders):
    (folders / "masks/b.nii.gz").rename(folders / "masks/other.txt")
    write(folders / "masks/b.nrrd", mask((1, 2, 1, 1)))
    summary = evaluated(folders, cases=["b", "c"])
    assert [case.name for case in summary.cases] == ["b", "c"] and summary.ignored == []


def test_extra_predictions_are_said_and_not_scored(folders):
    write(folders / "masks/old.nii.gz", mask())
    assert evaluated(folders).ignored == ["old"]
    assert list(messages.warning_counts()) == ["1 prediction without truth not scored: old"]


def test_chill_leaves_out_what_is_not_predicted(folders):
    (folders / "masks/c.nii.gz").unlink()
    summary = evaluated(folders, chill=True)
    assert [case.name for case in summary.cases] == ["a", "b", "d"] and summary.unpredicted == ["c"]
    assert list(messages.warning_counts()) == ["1 truth without prediction left out: c"]


# ------------------------------------------------------------------------------- presets, regions, parts of the cases


def test_the_names_in_the_help_are_those_that_there_are():
    assert tuple(PRESETS) == options.PRESETS and options.GROUPS == GROUPS


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_scores_and_shows_its_table(name, folders):
    regions = {"whole": (1, 2), "core": (1,)} if PRESETS[name].regions else None
    summary = evaluated(folders, preset=name, regions=regions)
    assert summary.preset.name == name and summary.preset.table == list(PRESETS[name].table)
    assert set(NEEDED) | {metric.name for metric in PRESETS[name].metrics} <= set(summary.metrics)
    for case in summary.cases:
        assert all(list(scores) == list(summary.metrics) for scores in case.classes.values())
    assert len(summary.strata) == len(PRESETS[name].strata)


def test_a_preset_of_the_callers_own(folders, monkeypatch):
    """Its functions cannot be sent to processes, so there are none."""
    monkeypatch.setattr(score_case, "START_S", -1)
    dice = next(metric for metric in find_preset("autoseg").metrics if metric.name == "dice")
    mine = Preset("mine", "of my own", (dice,), ("dice",), interval="bca", resamples=100)
    summary = evaluated(folders, preset=mine, processes=2)
    assert summary.preset.name == "mine" and "BCa" in summary.interval and "100 resamples" in summary.interval
    assert list(summary.metrics)[0] == "dice" and set(summary.metrics) == set(NEEDED)


def test_groups_of_metrics_are_left_out_and_tolerances_added(folders):
    summary = evaluated(folders, preset="full", without=["distance", "surface", "shape"], nsd_mm=[5, 0.5])
    groups = {row.group for row in summary.metrics.values()}
    assert groups == {"overlap", "volume", "lesion", "surface"}
    assert {"nsd_5mm", "nsd_0.5mm"} == {m for m, row in summary.metrics.items() if row.group == "surface"}
    assert summary.preset.table[-2:] == ["nsd_5mm", "nsd_0.5mm"] and "hd95_mm" not in summary.preset.table
    case_b = summary.cases[1].classes["core"]
    assert case_b["nsd_0.5mm"] < case_b["nsd_5mm"] == 1


def test_what_is_always_needed_follows_the_presets_definition():
    kept = {metric.name: metric for metric in MetricChoice("edd_muscle", without=("overlap",)).metrics}
    assert math.isnan(kept["dice"].when_empty("truth")) and "detected" in kept


def test_regions_in_place_of_classes(folders):
    summary = evaluated(folders, regions={"whole": (1, 2), "rest": (2,)})
    assert list(summary.classes) == ["whole", "rest"] and summary.labels_from == "regions of dataset.json"
    assert summary.labels == {"background": 0, "whole": [1, 2], "rest": [2]}
    assert summary.cases[0].classes["whole"]["voxels_truth"] == 16


def test_regions_of_a_preset_without_dataset_json(folders):
    summary = evaluate_folder(folders / "masks", folders / "labelsTs", preset="brats")
    case_a = summary.cases[0].classes
    assert {name: scores["voxels_truth"] for name, scores in case_a.items()} == {
        "whole": 16,
        "core": 8,
        "enhancing": 0,
    }


def test_ignored_voxels_stay_ignored_in_regions(tmp_path):
    write(tmp_path / "labelsTs/a.nii.gz", mask((1, 0, 0, 0), (3, 3, 3, 3)))
    write(tmp_path / "masks/a.nii.gz", mask((2, 0, 0, 0), (1, 3, 3, 3)))
    labels = {"background": 0, "core": 1, "oedema": 2, "ignore": 3}
    scores = evaluated(tmp_path, labels, regions={"whole": (1, 2)}).cases[0].classes["whole"]
    assert (scores["dice"], scores["fp"]) == (1, 0)


def test_strata_and_groups(folders):
    (folders / "patients.csv").write_text("case,stage\na,acute\nb,chronic\nc,acute\n")
    summary = evaluated(
        folders, groups=folders / "patients.csv", strata=["volume_truth_ml=0.01", "accuracy=q2"]
    )
    size, accuracy, stage = summary.strata
    assert size.rule == "volume_truth_ml cut at 0.01"
    assert [(level.name, level.cases) for level in size.classes["core"]] == [
        ("no lesion", ["d"]),
        ("0.01 ml and more", ["a", "b", "c"]),
    ]
    assert [level.cases for level in size.classes["oedema"]] == [["b", "c", "d"], ["a"]]
    assert accuracy.name == "accuracy" and "accuracy" in summary.metrics
    assert {level.name: level.cases for level in stage.classes["core"]} == {
        "acute": ["a", "c"],
        "chronic": ["b"],
        "not given": ["d"],
    }
    assert stage.classes["core"][0].metrics["dice"].mean == 0.5
    assert [case.groups for case in summary.cases] == [
        {"stage": g} for g in ("acute", "chronic", "acute")
    ] + [{}]
    assert len(summary.warnings) == 1 and "not in patients.csv: d" in summary.warnings[0]


# ------------------------------------------------------------------------------------------------- bad folders


def refused(folders, capsys, *texts, arguments=()):
    """The command says all texts, exits with 1 and leaves nothing behind."""
    before = sorted(folders.rglob("*"))
    assert run(folders, *arguments) == 1
    said = capsys.readouterr().err
    for text in texts:
        assert text in said
    assert sorted(folders.rglob("*")) == before


def test_missing_predictions_are_all_listed(folders, capsys):
    (folders / "masks/a.nii.gz").unlink()
    (folders / "masks/c.nii.gz").unlink()
    refused(folders, capsys, "2 files missing", "a ", "c ", "the prediction is missing", "--chill")


def test_missing_truth_of_a_chosen_case(folders):
    with pytest.raises(FaultsError, match="(?s)x .*the truth is missing"):
        evaluated(folders, cases=["a", "x"])


def test_no_name_in_common(folders, capsys):
    for path in list((folders / "masks").iterdir()):
        path.rename(path.with_name("seg_" + path.name))
    refused(folders, capsys, "no prediction has the name of a case (found seg_a, seg_b, seg_c, seg_d)")
    refused(folders, capsys, "no prediction has the name of a case", arguments=["--chill"])


def test_a_case_twice(folders, capsys):
    write(folders / "masks/a.mha", mask())
    refused(folders, capsys, "the prediction is there twice", "a.mha and a.nii.gz")


def test_another_shape_and_another_grid_in_one_table(folders, capsys):
    write(folders / "masks/a.nii.gz", np.zeros((6, 12, 15), np.uint8))
    write(folders / "masks/b.nii.gz", mask(), spacing=(4, 1, 0.6))
    write(folders / "masks/c.nii.gz", mask(), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    refused(
        folders,
        capsys,
        "3 faults",
        "the prediction's shape is not that of the truth",
        "6 x 12 x 15 (z, y, x)",
        "6 x 12 x 14 (z, y, x)",
        "the prediction's spacing is not that of the truth",
        "4 x 1 x 0.6 (z, y, x) mm",
        "the prediction's direction is not that of the truth",
        "resample the prediction",
    )


def test_unknown_label(folders, capsys):
    write(folders / "masks/b.nii.gz", mask((7, 0, 0, 0)))
    refused(
        folders, capsys, "b.nii.gz", "label that is not in dataset.json", "7 in 8 voxels", "1 core, 2 oedema"
    )


def test_predicted_ignore_label_is_unknown(tmp_path):
    write(tmp_path / "labelsTs/a.nii.gz", mask((2, 0, 0, 0)))
    write(tmp_path / "masks/a.nii.gz", mask((2, 0, 0, 0)))
    with pytest.raises(FaultsError, match="2 in 8 voxels"):
        evaluated(tmp_path, {"background": 0, "lesion": 1, "ignore": 2})


def test_probabilities(folders, capsys):
    write(folders / "masks/b.nii.gz", np.full(SHAPE, 0.25, np.float32))
    refused(folders, capsys, "b.nii.gz", "not whole numbers", "0.25", "probabilities")
    (folders / "dataset.json").unlink()
    refused(folders, capsys, "b.nii.gz", "not whole numbers")


def test_an_image_instead_of_a_mask(folders, capsys):
    (folders / "dataset.json").unlink()
    write(folders / "masks/b.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    refused(folders, capsys, "b.nii.gz", "looks like an image", "different values from 0 to 1007")


def test_damaged_file(folders, capsys):
    path = folders / "masks/a.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    refused(folders, capsys, "a.nii.gz", "the file is truncated")


def test_empty_and_missing_folders(folders, capsys):
    for path in (folders / "masks").iterdir():
        path.unlink()
    refused(folders, capsys, "the folder of predicted masks holds no mask", "an empty folder")
    (folders / "masks/a.npz").write_bytes(b"x")
    refused(folders, capsys, "holds no mask", "a.npz", "probabilities (.npz) are not scored")
    (folders / "masks/a.npz").unlink()
    (folders / "masks").rmdir()
    refused(folders, capsys, "the folder of predicted masks is missing")


def test_the_same_folder_twice(folders, capsys):
    assert command.main(["-p", str(folders / "masks"), "-g", str(folders / "masks")]) == 1
    assert "are the same folder" in capsys.readouterr().err


def test_everything_empty_and_no_dataset_json(tmp_path):
    write(tmp_path / "labelsTs/a.nii.gz", mask())
    write(tmp_path / "masks/a.nii.gz", mask())
    with pytest.raises(AutosegError, match="all masks are empty"):
        evaluate_folder(tmp_path / "masks", tmp_path / "labelsTs")


@pytest.mark.parametrize(
    "arguments, texts",
    [
        (["--preset", "isles23"], ["there is no preset 'isles23'", "did you mean isles"]),
        (
            ["--preset", "brats"],
            ["whole, core, enhancing: the regions do not fit", "3, 4", "--regions whole=1,2"],
        ),
        (["--regions", "whole=1,5"], ["label values that it does not have: 5", "1 core, 2 oedema"]),
        (["--regions", "whole"], ["--regions whole: this is not a region", "core=1,3,4"]),
        (["--regions", "a=1", "a=2"], ["a region is given twice"]),
        (["--without", *GROUPS], ["nothing is left of the preset autoseg"]),
        (["--without", "distances"], ["no group of metrics 'distances'", "did you mean distance"]),
        (["--nsd_mm", "-1"], ["the tolerance does not fit", "-1"]),
        (["--strata", "voxels=q4"], ["strata voxels=q4: there is no such quantity"]),
        (["--groups", "none.csv"], ["none.csv: the groups file is missing"]),
    ],
)
def test_options_that_do_not_fit(arguments, texts, folders, capsys):
    refused(folders, capsys, *texts, arguments=arguments)


def test_regions_that_do_not_fit_are_offered_those_of_dataset_json(folders):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    with pytest.raises(AutosegError, match="--regions whole=1,2 core=2"):
        evaluate_folder(
            folders / "masks",
            folders / "labelsTs",
            DatasetJson(**info(labels, regions_class_order=[1, 2])),
            preset="brats",
        )


def test_images_that_are_not_there(folders, capsys):
    refused(folders, capsys, "the folder of images is missing", arguments=["-i", str(folders / "none")])


def test_output_that_cannot_be_a_folder(folders, capsys):
    (folders / "file").write_text("x")
    refused(folders, capsys, "cannot be written", arguments=["-o", str(folders / "file" / "out")])


# --------------------------------------------------------------------------------------------------- the command


def test_command_end_to_end(folders, capsys):
    (folders / "masks/overlay_median.png").write_bytes(b"of an earlier run")
    assert run(folders) == 0
    printed = capsys.readouterr()
    assert f"labels from {folders / 'dataset.json'}" in printed.err
    assert "core" in printed.out and "0.625 [" in printed.out and "2000 resamples" in printed.out
    assert printed.out.startswith(f"preset autoseg: {PRESETS['autoseg'].title}\n")
    folder = f"{folders}/masks -g {folders}/labelsTs -np 1"
    assert read_summary(folders / "masks").command == f"autoseg_evaluate -p {folder}"
    for name in (
        "summary.json",
        "summary.csv",
        "overlay_worst.png",
        "overlay_median.png",
        "overlay_best.png",
    ):
        assert str(folders / "masks" / name) in printed.out
        assert (folders / "masks" / name).stat().st_size > 500


def test_command_without_images_or_dataset_json(folders, capsys):
    (folders / "imagesTs").rename(folders / "pictures")
    (folders / "dataset.json").rename(folders / "labels.json")
    out = folders / "out"
    out.mkdir()
    (out / "overlay_best.png").write_bytes(b"of an earlier run")
    assert run(folders, "-o", str(out)) == 0
    said = capsys.readouterr()
    assert "no dataset.json: the classes are the values found" in said.err and "label 1, label 2" in said.err
    assert "no overlays" in said.err
    assert sorted(path.name for path in out.iterdir()) == ["summary.csv", "summary.json"]
    more = ["-i", str(folders / "pictures"), "-djfile", str(folders / "labels.json")]
    assert run(folders, "-o", str(out), *more, "--overwrite") == 0
    assert "core" in capsys.readouterr().out and (out / "overlay_best.png").exists()


def test_scores_of_other_settings_are_replaced_only_when_asked(folders, capsys):
    # as a training does
    evaluate_folder(folders / "masks", folders / "labelsTs", processes=1).write(folders / "masks")
    assert run(folders) == 0 and run(folders) == 0
    before = (folders / "masks/summary.json").read_bytes()
    for more in (["--preset", "isles22"], ["--nsd_mm", "2"], ["--strata", "voxels_truth=q4"]):
        assert run(folders, *more) == 1
    said = capsys.readouterr().err
    assert "summary.json is there, made with other settings" in said and "expected: preset: isles22" in said
    assert (folders / "masks/summary.json").read_bytes() == before
    shutil.copytree(folders / "labelsTs", folders / "second_rater")
    assert command.main(["-p", str(folders / "masks"), "-g", str(folders / "second_rater"), "-np", "1"]) == 1
    assert "summary.json is there, of other folders" in capsys.readouterr().err
    assert run(folders, "--preset", "isles22", "--overwrite") == 0
    assert json.loads((folders / "masks/summary.json").read_text())["settings"] == {"preset": "isles22"}


def test_what_cannot_be_scored_is_said_before_what_would_be_replaced(folders, capsys):
    assert run(folders) == 0
    (folders / "empty").mkdir()
    for more, words in (
        (["--preset", "isles"], "there is no preset 'isles'"),
        (["--strata", "size"], "strata"),
        (["--regions", "whole=1,9"], "the regions do not fit"),
        (["--groups", str(folders / "none.csv")], "none.csv"),
        (["-g", str(folders / "empty")], "empty"),
    ):
        capsys.readouterr()
        assert run(folders, *more) == 1
        said = capsys.readouterr().err
        assert words in said and "--overwrite" not in said


def test_a_missing_image_is_a_warning(folders, capsys):
    (folders / "imagesTs/c_0000.nii.gz").unlink()
    assert run(folders) == 0
    assert "no overlay of the worst case: c: the image is missing" in capsys.readouterr().err
    assert (
        not (folders / "masks/overlay_worst.png").exists() and (folders / "masks/overlay_best.png").exists()
    )


def test_all_missing_images_are_one_warning(folders, capsys):
    for image in (folders / "imagesTs").iterdir():
        image.unlink()
    assert run(folders) == 0
    said = capsys.readouterr().err
    assert (
        "of the worst case: c: the image is missing" in said and "of the best case: a: the image is" in said
    )
    assert said.count("warning: no overlay") == 1 and "1 warning, see above" in said


# ----------------------------------------------------------------------------------------------------- arrays


def test_arrays():
    truth, prediction = mask((1, 1, 1, 1)) > 0, mask((1, 2, 1, 1)) > 0
    scores = autoseg.evaluate(prediction, truth, spacing_mm=SPACING)
    assert list(scores) == [metric.name for metric in find_preset("autoseg").metrics]
    assert scores["dice"] == 0.5 and scores["hausdorff_mm"] == 4 and scores["volume_truth_ml"] == 0.016
    assert math.isnan(autoseg.evaluate(mask(), truth, spacing_mm=SPACING)["hd95_mm"])


def test_arrays_with_labels():
    truth = mask((1, 1, 1, 1), (2, 1, 6, 6))
    scores = evaluate_arrays(truth, truth, spacing_mm=SPACING, labels={"core": 1, "whole": [1, 2]})
    assert {name: values["voxels_truth"] for name, values in scores.items()} == {"core": 8, "whole": 16}


def test_arrays_by_a_preset():
    truth, prediction = mask((1, 1, 1, 1), (4, 1, 6, 6)), mask((1, 1, 1, 1), (2, 1, 6, 6))
    scores = evaluate_arrays(prediction, truth, spacing_mm=SPACING, preset="brats")
    assert {name: values["dice"] for name, values in scores.items()} == {
        "whole": 1,
        "core": pytest.approx(2 / 3),
        "enhancing": 0,
    }
    found = evaluate_arrays(truth == 4, truth == 1, spacing_mm=SPACING, preset="atlas2")
    assert list(found) == [metric.name for metric in PRESETS["atlas2"].metrics] and found["lesion_f1"] == 0
    with pytest.raises(AutosegError, match="did you mean atlas2"):
        evaluate_arrays(truth, truth, spacing_mm=SPACING, preset="atlas")


@pytest.mark.parametrize(
    "prediction, spacing, labels, text",
    [
        (np.zeros((6, 12, 13)), SPACING, None, "different shapes"),
        (np.zeros((12, 14)), SPACING, None, "is not a volume"),
        (np.full(SHAPE, 0.5), SPACING, None, "not whole numbers"),
        (mask((2, 0, 0, 0)), SPACING, None, "more than one class"),
        (mask((2, 0, 0, 0)), SPACING, {"lesion": 1}, "not in labels .* 2 in 8 voxels"),
        (mask(), (1, 1), None, "three positive numbers"),
        (mask(), 1.0, None, "three positive numbers"),
        (mask(), (1, 0, 1), None, "three positive numbers"),
    ],
)
def test_bad_arrays(prediction, spacing, labels, text):
    with pytest.raises(AutosegError, match=text):
        evaluate_arrays(prediction, mask((1, 1, 1, 1)), spacing_mm=spacing, labels=labels)


# ------------------------------------------------------------------------------------------------ storage orders


@pytest.mark.parametrize("preset", ["autoseg", "edd_muscle", "ratlesnetv2"])
@pytest.mark.parametrize("code", ["SRA", "PIL", "RAI"])
def test_scores_do_not_depend_on_how_a_case_is_stored(folders, preset, code):
    """Metrics of the volume and of its surfaces, and those of slices: a slice is the same in each case."""
    before = evaluated(folders, preset=preset)
    for part in ("labelsTs", "masks"):
        store_as(folders / part / "a.nii.gz", code)
    store_as(folders / "masks" / "b.nii.gz", code)  # a truth and its prediction, stored in two orders
    store_as(folders / "labelsTs" / "c.nii.gz", code)
    assert code_of(folders / "masks" / "a.nii.gz") == code != code_of(folders / "labelsTs" / "d.nii.gz")
    write(folders / "labelsTs" / "e.nii.gz", mask((1, 1, 1, 1)))  # so most truths are stored as before
    after = evaluated(folders, preset=preset, cases="abcd")
    assert [case.classes for case in after.cases] == [case.classes for case in before.cases]
    (alone,) = evaluated(folders, preset=preset, cases="a").cases
    assert alone.classes == before.cases[0].classes


def test_slices_are_counted_where_they_lie_in_most_truths(folders):
    """A lesion of 2 x 3 x 4 voxels: in slices of z two of 12 pixels, in those of y three of 8."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:3, 2:5, 2:6] = 1
    for name in "abcd":
        for part in ("labelsTs", "masks"):
            write(folders / part / f"{name}.nii.gz", truth)
    store_as(folders / "labelsTs" / "d.nii.gz", "SRA")
    store_as(folders / "masks" / "d.nii.gz", "SRA")
    summary = evaluated(folders, {"background": 0, "lesion": 1}, preset="edd_muscle")
    assert {
        case.name: case.classes["lesion"]["lesion_size_truth"] for case in summary.cases
    } == dict.fromkeys("abcd", pytest.approx(12 * 0.5 / 1.6**2))  # pixels of 1 x 0.5 mm in those of 1.6 mm


def test_a_prediction_that_is_mirrored_by_its_header_is_still_refused(folders):
    path = folders / "masks" / "a.nii.gz"
    image = sitk.ReadImage(str(path))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    with pytest.raises(FaultsError) as caught:
        evaluated(folders)
    assert "the prediction's direction is not that of the truth" in str(caught.value)
