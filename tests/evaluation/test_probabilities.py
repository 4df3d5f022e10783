"""Counts at thresholds from the probabilities beside the masks, or made when a case was predicted."""

import json

import numpy as np
import pytest
import small
from storage import store_as

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError
from autoseg.evaluation.probabilities import COUNTS_ENDING, count_classes, find, write_counts
from autoseg.evaluation.score_masks import evaluate_folder
from autoseg.evaluation.summary import read_summary
from autoseg.evaluation.thresholds import THRESHOLDS, read_thresholds
from autoseg.files import hash_file
from autoseg.inference.folder import ExtraFile, predict_cases
from autoseg.inference.prediction_record import PredictedCase, PredictionRecord
from autoseg.inference.predictor import Predictor
from autoseg.labels import LabelSet

SHAPE = (6, 10, 12)
PLAIN = LabelSet.from_labels({"background": 0, "core": 1, "oedema": 2})
REGIONS = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])


def softmax(seed, n=3):
    logits = np.random.default_rng(seed).normal(0, 3, (n, *SHAPE))
    return (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


def truth_of(seed):
    return np.random.default_rng(seed + 100).integers(0, 3, SHAPE).astype(np.uint8)


def plainly(probability, truth):
    """(tp, fp, fn) at each threshold by the definition."""
    above = [probability > np.float32(t) for t in THRESHOLDS]
    return [(int((a & truth).sum()), int((a & ~truth).sum()), int((~a & truth).sum())) for a in above]


def listed(counts):
    return [tuple(map(int, row)) for row in zip(counts.tp, counts.fp, counts.fn, strict=True)]


# -------------------------------------------------------------------------------------------------------- classes


def test_plain_classes_against_the_definition():
    probabilities, truth = softmax(1), truth_of(1)
    found = count_classes(probabilities, truth, PLAIN, PLAIN)
    assert listed(found["core"]) == plainly(probabilities[1], truth == 1)
    assert listed(found["oedema"]) == plainly(probabilities[2], truth == 2)


def test_a_region_of_plain_classes_has_the_sum_of_their_probabilities():
    probabilities, truth = softmax(2), truth_of(2)
    scored = LabelSet.from_labels({"whole": [2, 1], "rest": [2]})
    found = count_classes(probabilities, truth, PLAIN, scored)
    assert listed(found["whole"]) == plainly(probabilities[1] + probabilities[2], truth > 0)
    assert listed(found["rest"]) == plainly(probabilities[2], truth == 2)


def test_outputs_that_are_regions():
    probabilities, truth = softmax(3, 2), truth_of(3)
    found = count_classes(probabilities, truth, REGIONS, LabelSet.from_labels({"inner": [2], "all": [2, 1]}))
    assert listed(found["inner"]) == plainly(probabilities[1], truth == 2)
    assert listed(found["all"]) == plainly(probabilities[0], truth > 0)


def test_ignored_voxels_count_nowhere():
    labels = LabelSet.from_labels({"background": 0, "core": 1, "ignore": 2})
    probabilities, truth = softmax(4, 2), truth_of(4)
    kept = truth != 2
    found = count_classes(probabilities, truth, labels, labels)["core"]
    assert listed(found) == plainly(probabilities[1][kept], truth[kept] == 1)


@pytest.mark.parametrize(
    "probabilities, outputs, scored, text",
    [
        (softmax(0, 2), PLAIN, PLAIN, r"float32 \(2, 6, 10, 12\) instead of probabilities \(3, 6, 10, 12\)"),
        (softmax(0)[:, 1:], PLAIN, PLAIN, "instead of probabilities"),
        (softmax(0).astype(np.uint8), PLAIN, PLAIN, "uint8"),
        (softmax(0) * 7, PLAIN, PLAIN, "not probabilities"),
        (softmax(0, 2), REGIONS, LabelSet.from_labels({"oedema": 1}), "no outputs make up oedema"),
        (softmax(0), PLAIN, LabelSet.from_labels({"more": [2, 3]}), "no outputs make up more"),
    ],
)
def test_what_does_not_fit(probabilities, outputs, scored, text):
    with pytest.raises(AutosegError, match=text):
        count_classes(probabilities, truth_of(0), outputs, scored)


# -------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folders(tmp_path):
    """Three cases with probabilities and the masks that follow from them."""
    for i, name in enumerate("abc"):
        probabilities = softmax(i)
        small.write(tmp_path / "labelsTs" / f"{name}.nii.gz", truth_of(i))
        small.write(tmp_path / "masks" / f"{name}.nii.gz", probabilities.argmax(0).astype(np.uint8))
        np.savez(tmp_path / "masks" / f"{name}.npz", probabilities=probabilities)
    messages.forget_warnings()
    return tmp_path


def evaluated(folders, **more):
    info = DatasetJson(
        channel_names={"0": "DWI"},
        labels={"background": 0, "core": 1, "oedema": 2},
        numTraining=3,
        file_ending=".nii.gz",
    )
    return evaluate_folder(folders / "masks", folders / "labelsTs", info, preset="isles22", **more)


def test_counts_of_a_folder(folders):
    summary = evaluated(folders)
    written = summary.write(folders / "out")
    assert [path.name for path in written] == ["summary.json", "summary.csv", "thresholds.csv"]
    counts = read_thresholds(written[2])
    assert {case: list(classes) for case, classes in counts.items()} == dict.fromkeys(
        "abc", ["core", "oedema"]
    )
    assert listed(counts["b"]["oedema"]) == plainly(softmax(1)[2], truth_of(1) == 2)
    cohort = summary.classes["core"].cohort
    assert 0 < cohort["mdsc_global"].value <= cohort["mdsc_case"].value and cohort["average_precision"].n == 3
    assert "thresholds" not in json.loads(written[0].read_text())["cases"][0]
    assert read_summary(folders / "out").classes == summary.classes and not summary.warnings


def test_thresholds_of_an_earlier_run_are_removed(folders):
    evaluated(folders).write(folders / "out")
    for path in (folders / "masks").glob("*.npz"):
        path.unlink()
    summary = evaluated(folders)
    assert [path.name for path in summary.write(folders / "out")] == ["summary.json", "summary.csv"]
    assert not (folders / "out" / "thresholds.csv").exists()
    assert "mdsc_global" not in summary.classes["core"].cohort and not summary.warnings


def spoil_shape(path):
    np.savez(path, probabilities=softmax(0)[:, :3])


def spoil_name(path):
    np.savez(path, softmax=softmax(0))


def spoil_pickle(path):
    np.savez(path, probabilities=np.array([{}], dtype=object))


@pytest.mark.parametrize(
    "spoil, text",
    [
        (spoil_shape, "b.npz: float32 (3, 3, 10, 12) instead of probabilities (3, 6, 10, 12)"),
        (spoil_name, "b.npz: there is no array 'probabilities' in it"),
        (spoil_pickle, "b.npz: damaged: Object arrays cannot be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "b.npz: damaged: "),
        (lambda path: path.write_bytes(b""), "b.npz: damaged: "),
    ],
)
def test_bad_probabilities_are_said_and_the_masks_scored_all_the_same(spoil, text, folders):
    spoil(folders / "masks/b.npz")
    summary = evaluated(folders)
    assert summary.warnings[0].startswith(f"probabilities of 1 case not used: {text}")
    assert summary.warnings[1] == "what follows from probabilities is over 2 of 3 cases: others have none"
    assert len(summary.cases) == 3 and summary.classes["core"].cohort["mdsc_global"].n == 2


def test_probabilities_of_an_earlier_prediction_are_passed_over(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"x")
    done = PredictedCase(status="done", made_by="", input_sha256="", files={"a.nii.gz": ""})
    record = PredictionRecord(autoseg_version="0", identity={}, cases={"a": done})
    assert find(tmp_path, "a", None) == tmp_path / "a.npz"
    assert find(tmp_path, "a", record) is None
    done.files["a.npz"] = ""
    assert find(tmp_path, "a", record) == tmp_path / "a.npz"


def test_a_damaged_record_is_said(folders):
    (folders / "masks/prediction.json").write_text("{")
    summary = evaluated(folders)
    assert "record of the predictions is damaged" in summary.warnings[0]
    assert "mdsc_global" not in summary.classes["core"].cohort


# ------------------------------------------------------------------------------------- counted when it was predicted


def test_finished_counts_take_the_place_of_probabilities(folders):
    expected = evaluated(folders)
    for i, name in enumerate("abc"):
        truth = folders / "labelsTs" / f"{name}.nii.gz"
        write_counts(folders / "masks" / f"{name}{COUNTS_ENDING}", softmax(i), truth, PLAIN)
        (folders / "masks" / f"{name}.npz").unlink()
    found = evaluated(folders)
    assert [case.thresholds for case in found.cases] == [case.thresholds for case in expected.cases]
    renamed = evaluated(folders, regions={"only": (2,)})
    assert renamed.cases[0].thresholds["only"] == expected.cases[0].thresholds["oedema"]
    assert "counted for other classes (core, oedema)" in evaluated(folders, regions={"w": (1, 2)}).warnings[0]
    small.write(folders / "labelsTs/a.nii.gz", truth_of(7))
    assert "a.thresholds.json: the true mask has changed" in evaluated(folders).warnings[0]


def test_counts_are_one_more_file_of_a_predicted_case(tmp_path, model_folder):
    model_folder.make_model(tmp_path / "results")
    predictor = Predictor(tmp_path / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    cases = []
    for i, name in enumerate("ab"):
        image, mask = small.case(i)
        small.write(tmp_path / "images" / f"{name}_0000.nii.gz", image[0] / 160)
        small.write(tmp_path / "labels" / f"{name}.nii.gz", mask)
        cases.append(
            Case(name, (tmp_path / "images" / f"{name}_0000.nii.gz",), tmp_path / "labels" / f"{name}.nii.gz")
        )
    written = []

    def write(path, case, probabilities):
        written.append(case.name)
        write_counts(path, probabilities, case.mask, predictor.labels)

    def predict(**more):
        options = {"extra": ExtraFile(COUNTS_ENDING, write), "continue_prediction": True, **more}
        return predict_cases(predictor, cases, tmp_path / "out", **options)

    predict(extra=None)
    assert not list((tmp_path / "out").glob(f"*{COUNTS_ENDING}"))
    # the mask alone is not all that is asked for
    assert predict().predicted == ["a", "b"] and written == [
        "a",
        "b",
    ]
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    path = tmp_path / "out" / f"b{COUNTS_ENDING}"
    assert record["cases"]["b"]["files"] == {
        "b.nii.gz": hash_file(tmp_path / "out/b.nii.gz"),
        path.name: hash_file(path),
    }
    path.write_text("{}")
    assert predict().kept == ["a"] and written == ["a", "b", "b"]
    predict(save_probabilities=True)
    summary = evaluate_folder(tmp_path / "out", tmp_path / "labels")
    by_json = {case.name: case.thresholds for case in summary.cases}
    with np.load(tmp_path / "out/a.npz") as content:
        probability = content["probabilities"][1].astype(np.float32)
    steps = np.array(by_json["a"]["label 1"])
    # float16 rounds
    assert np.abs(steps[1:] - np.array(plainly(probability, small.case(0)[1] > 0))[1:]).max() <= 20
    assert steps[0].sum() >= steps[50].sum() and not summary.warnings


def test_counts_do_not_depend_on_how_masks_are_stored(folders):
    """Probabilities lie as the prediction does, whatever the order of the truth."""
    before = {case.name: case.thresholds for case in evaluated(folders).cases}
    store_as(folders / "labelsTs" / "b.nii.gz", "SRA")
    after = {case.name: case.thresholds for case in evaluated(folders).cases}
    assert before == after and before["b"]
