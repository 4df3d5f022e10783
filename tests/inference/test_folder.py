"""Folders of cases: what is written, what is trusted when continuing, and how faults surface."""

import errno
import json
import os
import re
import shutil
import threading
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autoseg import messages
from autoseg.bundle.card import write_model_card
from autoseg.bundle.layout import weight_file_name
from autoseg.cli import predict as command
from autoseg.dataset.channel_order import SeenChannels
from autoseg.dataset.images_to_predict import list_images
from autoseg.dataset.part import CasesPart
from autoseg.dataset.part_lock import exclusive_part
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import exclusive, hash_file
from autoseg.inference import folder as folders
from autoseg.inference.folder import predict_cases
from autoseg.inference.prediction_record import gather_parts, read_record
from autoseg.inference.predictor import Predictor

SHAPE = (5, 14, 12)
OBLIQUE = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def array(seed):
    return np.random.default_rng(seed).uniform(0.05, 1, SHAPE).astype(np.float32)


def write(path, values, spacing=(0.7, 0.8, 3.1)):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin((5.5, -7.25, 11.0))
    image.SetDirection(OBLIQUE)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def work(tmp_path, model_folder):
    """A model, four images, an empty output."""
    model_folder.make_model(tmp_path / "results")
    for i in range(4):
        write(tmp_path / "images" / f"case_{i}_0000.nii.gz", array(i))
    messages.forget_warnings()
    return tmp_path


def run(work, **options):
    predictor = options.pop("predictor", None) or Predictor(
        work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu"
    )
    return predict_cases(
        predictor, list_images(work / "images", predictor.model.info), work / "out", **options
    )


def record(work):
    return json.loads((work / "out" / "prediction.json").read_text())


def test_masks_have_the_right_voxels_and_the_exact_geometry(work):
    report = run(work)
    assert report.predicted == [f"case_{i}" for i in range(4)] and not report.kept and not report.failed
    for i in range(4):
        mask = sitk.ReadImage(str(work / "out" / f"case_{i}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(mask), array(i) > 0.5)
        image = sitk.ReadImage(str(work / "images" / f"case_{i}_0000.nii.gz"))
        assert mask.GetSpacing() == image.GetSpacing() and mask.GetOrigin() == image.GetOrigin()
        assert mask.GetDirection() == image.GetDirection() and mask.GetPixelID() == sitk.sitkUInt8
    left = {p.name for p in (work / "out").iterdir() if not p.name.startswith(".lock")}
    assert left == {"prediction.json", *(f"case_{i}.nii.gz" for i in range(4))}


def test_the_record_names_the_model(work):
    """A hash alone tells nobody that the masks are those of a plan for trying out."""
    plan = work / "results" / "Dataset900_Tiny" / "unet__tiny" / "plan.json"
    content = json.loads(plan.read_text())
    run(work)
    assert [record(work)[key] for key in ("model", "planner", "quick")] == ["unet__tiny", "unet", False]
    assert record(work)["weights"] == ["fold_0/weights/member0.train.safetensors"]
    plan.write_text(json.dumps(content | {"planner_options": {"length": "quick"}}))
    run(work, overwrite=True)
    assert record(work)["quick"] is True


def test_a_mask_lies_on_its_scan_for_every_reader(work):
    """The forms of the scan disagree: a registration moved the sform."""
    for i in range(4):
        path = work / "images" / f"case_{i}_0000.nii.gz"
        image = nib.load(path)
        moved = np.diag([-1.0, 1, 1, 1]) @ image.affine
        image.set_qform(image.affine, 1)
        image.set_sform(moved, 2)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved, image.header), path)
    run(work)
    for i in range(4):
        image = nib.load(work / "images" / f"case_{i}_0000.nii.gz")
        mask = nib.load(work / "out" / f"case_{i}.nii.gz")
        assert np.array_equal(mask.affine, image.affine)
        assert np.array_equal(mask.get_qform(), image.get_qform())
        for field in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
            assert np.array_equal(mask.header[field], image.header[field])
        assert np.array_equal(np.asanyarray(mask.dataobj).T, array(i) > 0.5)
    (told,) = messages.warning_counts()
    assert "qform and sform disagree" in told and told.count("images/case_") == 4


def test_values_that_overflow_are_one_fault(work):
    values = array(1).astype(np.float64)
    values[0, 0, 0] = -1e300
    write(work / "images" / "case_1_0000.nii.gz", values)
    with pytest.raises(FaultsError, match=r"(?s)case_1.*of a size that no scan has.*-1e\+300"):
        run(work)
    assert {path.name for path in (work / "out").glob("*.nii.gz")} == {f"case_{i}.nii.gz" for i in (0, 2, 3)}


def test_the_record_says_what_was_done(work):
    run(work)
    content = record(work)
    assert content["identity"]["mirror"] is False and content["identity"]["folds"] == ["0"]
    entry = content["cases"]["case_0"]
    assert entry["status"] == "done" and list(entry["files"]) == ["case_0.nii.gz"]


def test_probabilities_are_saved_without_pickle(work):
    run(work, save_probabilities=True)
    with np.load(work / "out" / "case_1.npz", allow_pickle=False) as content:
        probabilities = content["probabilities"]
    assert probabilities.dtype == np.float16 and probabilities.shape == (2, *SHAPE)
    expected = 1 / (1 + np.exp(-4 * (array(1) - 0.5)))
    np.testing.assert_allclose(probabilities[1].astype(float), expected, atol=2e-3)


def test_continue_keeps_what_is_whole(work):
    run(work)
    times = {p.name: p.stat().st_mtime_ns for p in (work / "out").glob("*.nii.gz")}
    report = run(work, continue_prediction=True)
    assert report.kept == [f"case_{i}" for i in range(4)] and not report.predicted
    assert times == {p.name: p.stat().st_mtime_ns for p in (work / "out").glob("*.nii.gz")}


def test_continue_redoes_what_cannot_be_trusted_and_says_why(work, caplog):
    run(work)
    out = work / "out"
    damaged = out / "case_0.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(FaultsError, match="was changed after the prediction"):
        run(work, continue_prediction=True)
    (out / "case_1.nii.gz").unlink()
    write(work / "images" / "case_2_0000.nii.gz", array(77))
    with caplog.at_level("INFO", "autoseg"):
        report = run(work, continue_prediction=True, overwrite=True)
    assert report.kept == ["case_3"] and report.predicted == ["case_0", "case_1", "case_2"]
    assert "case_0: predicted again, because case_0.nii.gz is damaged or was changed" in caplog.text
    assert "case_1: predicted again, because case_1.nii.gz is missing" in caplog.text
    assert "case_2: predicted again, because its image has changed" in caplog.text
    assert "replaced the prediction of another image" in " ".join(messages.warning_counts())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(out / "case_2.nii.gz"))), array(77) > 0.5)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(damaged))), array(0) > 0.5)


def test_continue_redoes_what_another_model_or_other_options_made(work, model_folder):
    run(work)
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    other = Predictor(model, device="cpu", step=0.4)
    for options in ({}, {"continue_prediction": True}):
        with pytest.raises(
            FaultsError, match="(?s)4 of 4 masks.*made by another model or with other options"
        ):
            run(work, predictor=other, **options)
    assert record(work)["identity"]["step"] == 0.5  # nothing has changed
    assert len(run(work, continue_prediction=True, overwrite=True, predictor=other).predicted) == 4
    assert len(run(work, continue_prediction=True, overwrite=True).predicted) == 4
    assert len(run(work, continue_prediction=True, save_probabilities=True).predicted) == 4
    assert len(run(work, continue_prediction=True).kept) == 4  # the masks alone are whole as well
    model_folder.make_model(work / "results", (0.7,))
    with pytest.raises(FaultsError, match="--overwrite"):
        run(work, continue_prediction=True)
    assert len(run(work, continue_prediction=True, overwrite=True).predicted) == 4


def test_a_mask_that_was_corrected_by_hand_is_replaced_only_when_asked(work):
    run(work)
    corrected = work / "out" / "case_2.nii.gz"
    write(corrected, np.ones(SHAPE, np.uint8))
    before = corrected.read_bytes()
    for options in ({}, {"continue_prediction": True}):
        with pytest.raises(FaultsError) as caught:
            run(work, **options)
        (fault,) = caught.value.faults
        assert fault.where == "case_2" and "was changed after the prediction" in fault.problem
    assert corrected.read_bytes() == before
    assert run(work, continue_prediction=True, overwrite=True).predicted == ["case_2"]


def test_no_file_of_an_earlier_prediction_stays_beside_a_new_mask(work):
    run(work, save_probabilities=True)
    write(work / "images" / "case_2_0000.nii.gz", array(77))
    (work / "out" / "case_3_note.txt").write_text("a reader's, which is on no record")
    run(work, continue_prediction=True)
    assert list(record(work)["cases"]["case_2"]["files"]) == ["case_2.nii.gz"]
    there = {path.name for path in (work / "out").glob("case_*")}
    kept = {f"case_{i}.{ending}" for i in (0, 1, 3) for ending in ("nii.gz", "npz")}
    assert there == {*kept, "case_2.nii.gz", "case_3_note.txt"}


def test_a_failed_case_has_no_mask_of_another_model_and_a_corrected_one_stays_protected(work):
    run(work, save_probabilities=True)
    corrected = work / "out" / "case_2.nii.gz"
    write(corrected, np.ones(SHAPE, np.uint8))
    before = corrected.read_bytes()
    for i in (1, 2):
        (work / "images" / f"case_{i}_0000.nii.gz").write_text("not an image")
    other = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu", step=0.4)
    with pytest.raises(FaultsError, match="2 cases could not be predicted"):
        run(work, predictor=other, overwrite=True)
    cases = record(work)["cases"]
    assert not list((work / "out").glob("case_1.*")) and cases["case_1"]["files"] == {}
    assert corrected.read_bytes() == before and cases["case_2"]["status"] == "failed"
    write(work / "images" / "case_2_0000.nii.gz", array(2))
    with pytest.raises(FaultsError, match="was changed after the prediction"):
        run(work, predictor=other)


def test_a_case_that_its_names_rule_out_is_on_record_as_failed(work):
    run(work)
    write(work / "images" / "case_1_0001.nii.gz", array(1))  # a channel more than the model has
    write(work / "images" / "bad\x1bname_0000.nii.gz", array(1))
    other = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu", step=0.4)
    with pytest.raises(FaultsError, match="2 cases could not be predicted, 3 are done"):
        run(work, predictor=other, overwrite=True)
    assert {n: c["status"] for n, c in record(work)["cases"].items()} == {
        "case_0": "done", "case_1": "failed", "case_2": "done", "case_3": "done",
    }  # fmt: skip
    assert not (work / "out" / "case_1.nii.gz").exists()


def test_a_mask_of_the_same_model_stays_on_record_when_its_image_is_damaged_later(work):
    run(work)
    (work / "images" / "case_1_0000.nii.gz").write_text("not an image")
    with pytest.raises(FaultsError):
        run(work)
    entry = record(work)["cases"]["case_1"]
    assert entry["status"] == "failed" and list(entry["files"]) == ["case_1.nii.gz"]
    write(work / "out" / "case_1.nii.gz", np.ones(SHAPE, np.uint8))
    with pytest.raises(FaultsError, match="was changed after the prediction"):
        run(work)


def test_a_case_whose_files_cannot_all_be_written_has_no_mask(work):
    def fails(path, case, probabilities):
        if case.name == "case_1":
            raise ValueError("no such counts")
        path.write_text("{}")

    with pytest.raises(FaultsError, match="1 case could not be predicted"):
        run(work, extra=folders.ExtraFile("_counts.json", fails))
    assert not (work / "out" / "case_1.nii.gz").exists()


def test_a_case_without_finite_logits_costs_only_itself(work, model_folder):
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    network, path = (
        model_folder.threshold_network(1, 0.5),
        model / "fold_0" / "weights" / weight_file_name("train"),
    )
    with torch.no_grad():
        network.weight[1, 0] = 3e38
    model_folder.write_weights(path, network, model_folder.make_plan())
    write_model_card(model)
    write(work / "images" / "case_1_0000.nii.gz", 10 * array(1))
    with pytest.raises(FaultsError) as caught:
        run(work)
    (fault,) = caught.value.faults
    assert fault.where == "case_1" and "answers with NaN or Inf" in fault.problem
    assert {n: c["status"] for n, c in record(work)["cases"].items()} == {
        "case_0": "done", "case_1": "failed", "case_2": "done", "case_3": "done",
    }  # fmt: skip
    assert not (work / "out" / "case_1.nii.gz").exists()


def test_a_killed_run_is_continued(work, monkeypatch):
    real, calls = folders.write_mask, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(folders, "write_mask", dies)
    with pytest.raises(KeyboardInterrupt):
        run(work)
    monkeypatch.setattr(folders, "write_mask", real)
    report = run(work, continue_prediction=True)
    assert report.kept == ["case_0", "case_1"] and report.predicted == ["case_2", "case_3"]


def test_bad_cases_do_not_stop_the_good_ones(work):
    (work / "images" / "case_1_0000.nii.gz").write_text("not an image")
    holes = array(2)
    holes[1, 2, 3] = np.nan
    write(work / "images" / "case_2_0000.nii.gz", holes)
    with pytest.raises(FaultsError, match="2 cases could not be predicted, 2 are done") as error:
        run(work)
    assert "case_1_0000.nii.gz" in str(error.value) and "channel T2: holds NaN" in str(error.value)
    assert {n: e["status"] for n, e in record(work)["cases"].items()} == {
        "case_0": "done",
        "case_1": "failed",
        "case_2": "failed",
        "case_3": "done",
    }
    for i in (1, 2):
        write(work / "images" / f"case_{i}_0000.nii.gz", array(i))
    assert run(work, continue_prediction=True).predicted == ["case_1", "case_2"]


def dies_of_case_1(monkeypatch, predictor, stage, error):
    """A predictor that fails at one stage of one case."""

    def fails(owner, name, case_of):
        real = getattr(owner, name)

        def call(*arguments, **options):
            if case_of(*arguments) == "case_1":
                raise error
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    fusion, logits = predictor.fusion, predictor.logits

    def named_fusion(case):
        if stage == "fusion" and case.properties.name == "case_1":
            raise error
        fused = fusion(case)
        fused.case = case.properties.name
        if stage == "add":
            fails(fused, "add", lambda _: fused.case)
        return fused

    def failing_logits(case, *arguments):
        if case.properties.name == "case_1":
            raise error
        yield from logits(case, *arguments)

    monkeypatch.setattr(predictor, "fusion", named_fusion)
    if stage == "logits":
        monkeypatch.setattr(predictor, "logits", failing_logits)
    places = {
        "read": (predictor, "read", lambda case: case.name),
        "preprocess": (predictor, "preprocess", lambda name, *_: name),
        "finish": (predictor, "finish", lambda fused, *_: fused.case),
        "write": (folders, "write_mask", lambda path, *_: path.name.removesuffix(".nii.gz")),
    }
    if stage in places:
        fails(*places[stage])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("itk::ERROR"), ZeroDivisionError("division")])
@pytest.mark.parametrize("stage", ["read", "preprocess", "fusion", "logits", "add", "finish", "write"])
def test_whatever_goes_wrong_with_a_case_costs_that_case_alone(work, monkeypatch, stage, error):
    """Errors that nobody thought of, wherever they arise: when reading, in the network, or behind it."""
    predictor = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    dies_of_case_1(monkeypatch, predictor, stage, error)
    with pytest.raises(FaultsError, match="1 case could not be predicted, 3 are done") as caught:
        run(work, predictor=predictor)
    (fault,) = caught.value.faults
    assert fault.where == "case_1" and fault.fix
    if isinstance(error, MemoryError):
        assert fault.problem == "the main memory is not enough for this case"
    else:
        assert str(error) in fault.found and type(error).__name__ in fault.found and ", line " in fault.found
    assert {n for n, e in record(work)["cases"].items() if e["status"] == "failed"} == {"case_1"}
    for i in (0, 2, 3):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(work / "out" / f"case_{i}.nii.gz")))
        assert np.array_equal(mask, array(i) > 0.5)
    assert not (work / "out" / "case_1.nii.gz").exists()


@pytest.mark.parametrize("part", ["_load", "_predict_one", "_finish"])
def test_a_stop_in_any_thread_is_raised_and_never_hangs(work, monkeypatch, part):
    def broken(*_):
        raise KeyboardInterrupt(part)

    monkeypatch.setattr(folders._FolderRun, part, broken)
    done = threading.Event()

    def attempt():
        with pytest.raises(KeyboardInterrupt, match=part):
            run(work)
        done.set()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    assert done.is_set()


def test_a_full_disk_is_explained_and_leaves_no_half_file(work, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    predictor = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    real = folders.write_mask

    def write_on_full_disk(*arguments):
        monkeypatch.setattr("autoseg.files.os.fsync", full)
        real(*arguments)

    monkeypatch.setattr(folders, "write_mask", write_on_full_disk)
    with pytest.raises(AutosegError, match=r"(?s)case_0.nii.gz: the disk is full.*free some space"):
        run(work, predictor=predictor)
    assert not list((work / "out").glob("*.nii.gz")) and not list((work / "out").glob(".tmp*"))


def test_a_damaged_record_is_begun_anew_where_the_user_wants_it(work, caplog):
    run(work)
    (work / "out" / "prediction.json").write_text("{")
    with pytest.raises(AutosegError, match="(?s)not valid JSON.*autoseg_predict ... --overwrite"):
        run(work, continue_prediction=True)
    assert run(work, overwrite=True).predicted == [f"case_{i}" for i in range(4)]
    assert "prediction.json is begun anew" in caplog.text and len(record(work)["cases"]) == 4


def test_a_run_removes_what_killed_runs_left(work):
    (work / "out").mkdir()
    (work / "out" / ".tmp-00000000-1-case_0.nii.gz").write_bytes(b"half")
    run(work)
    assert not list((work / "out").glob(".tmp-*"))


def test_an_unwritable_output_is_found_before_any_work(work, monkeypatch):
    (work / "out").write_text("a file where a folder should be")
    monkeypatch.setattr(folders._FolderRun, "predict", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(AutosegError, match="(?s)out.*cannot be written"):
        run(work)


def test_an_output_folder_that_is_not_utf_8_is_refused_before_any_work(work):
    predictor = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    cases = list_images(work / "images", predictor.model.info)
    with pytest.raises(
        AutosegError, match=r"caf\\xe9: the name of the file or of a folder above it is not UTF-8"
    ):
        predict_cases(predictor, cases, work / os.fsdecode(b"caf\xe9"))


def test_masks_of_a_reader_are_never_replaced_unasked(work):
    write(work / "out" / "case_1.nii.gz", array(9))
    before = (work / "out" / "case_1.nii.gz").read_bytes()
    with pytest.raises(
        AutosegError, match="(?s)masks that were not predicted by autoseg.*case_1.*--overwrite"
    ):
        run(work)
    with pytest.raises(AutosegError, match="not predicted by autoseg"):
        run(work, continue_prediction=True)
    assert (work / "out" / "case_1.nii.gz").read_bytes() == before
    assert len(run(work, overwrite=True).predicted) == 4
    assert len(run(work).predicted) == 4


def test_the_folder_of_the_images_is_no_output(work):
    predictor = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    cases = list_images(work / "images", predictor.model.info)
    with pytest.raises(AutosegError, match="the output folder holds the images"):
        predict_cases(predictor, cases, work / "images")


def test_cases_are_handed_over_one_at_a_time(work, monkeypatch):
    """No more than three cases are in memory: being read, in the network, being written."""
    alive, most, lock = set(), [0], threading.Lock()
    real_load, real_finish = folders._FolderRun._load, folders._FolderRun._finish

    def load(self, case):
        with lock:
            alive.add(case.name)
            most[0] = max(most[0], len(alive))
        return real_load(self, case)

    def finish(self, loaded, fused):
        real_finish(self, loaded, fused)
        with lock:
            alive.discard(loaded.case.name)

    monkeypatch.setattr(folders._FolderRun, "_load", load)
    monkeypatch.setattr(folders._FolderRun, "_finish", finish)
    for i in range(4, 9):
        write(work / "images" / f"case_{i}_0000.nii.gz", array(i))
    run(work)
    assert most[0] <= 3


def test_volumes_of_cases_are_plain_numbers(work, caplog):
    """Voxels of 17 mm, as of a scout image: a litre and more is segmented."""
    for i in range(4):
        write(work / "images" / f"case_{i}_0000.nii.gz", array(i), spacing=(17.0, 17.0, 17.0))
    with caplog.at_level("INFO", "autoseg"):
        run(work)
    (said,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("case_0 ")]
    assert f": {(array(0) > 0.5).sum() * 17**3 / 1000:.0f} ml segmented, " in said


def test_the_estimate_comes_first_and_says_what_mirroring_would_cost(work, caplog):
    with caplog.at_level("INFO", "autoseg"):
        run(work)
    lines = [r.getMessage() for r in caplog.records]
    estimate = next(i for i, line in enumerate(lines) if line.startswith("about"))
    assert "4 such cases" in lines[estimate] and "--enable_tta would take 8 times" in lines[estimate]
    assert estimate < next(i for i, line in enumerate(lines) if "ml segmented" in line)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (42, "42 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h"), (1.5e6, "17 days")],
)
def test_duration(seconds, text):
    assert messages.duration(seconds) == text


# ------------------------------------------------------------------------------------------------- the command


def call(work, *arguments):
    results = ["--results", str(work / "results")] if "-d" in arguments else []
    given = ["-i", str(work / "images"), "-o", str(work / "out"), "-device", "cpu"]
    return command.main([*given, *results, *(str(a) for a in arguments)])


def test_command_with_a_dataset(work, capsys):
    assert call(work, "-d", "900") == 0
    assert "4 cases predicted: " in capsys.readouterr().out
    assert call(work, "-d", "Tiny", "-f", "0", "--continue_prediction") == 0
    assert "0 cases predicted, 4 kept" in capsys.readouterr().out
    other = ["-d", "Tiny", "--enable_tta", "--continue_prediction", "--save_probabilities"]
    assert call(work, *other) == 1
    assert "made by another model or with other options" in capsys.readouterr().err
    assert call(work, *other, "--overwrite") == 0
    assert "4 cases predicted: " in capsys.readouterr().out
    assert record(work)["identity"]["mirror"] is True


def test_command_with_a_bundle_and_one_file(work, capsys):
    from autoseg.bundle.transfer import export_bundle

    export_bundle(work / "results" / "Dataset900_Tiny" / "unet__tiny", work / "m.zip")
    image = work / "images" / "case_2_0000.nii.gz"
    given = ["-i", str(image), "-o", str(work / "one"), "-m", str(work / "m.zip"), "-device", "cpu"]
    assert command.main(given) == 0
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(work / "one" / "case_2.nii.gz"))), array(2) > 0.5
    )


def test_command_refuses_wrong_channels(work, capsys):
    for i in range(4):
        write(work / "images" / f"case_{i}_0001.nii.gz", array(5))
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "case_0" in text and "2 channels where the model needs 1" in text
    assert not (work / "out").exists()


def test_command_lists_what_the_names_say_and_predicts_the_others(work, capsys):
    """Two channels, a link to nowhere, a name that is no text, and files of no case, beside three good cases."""
    images = work / "images"
    write(images / "case_0_0001.nii.gz", array(5))
    (images / "link_0000.nii.gz").symlink_to("../annex/objects/x.nii.gz")
    write(images / "x_0000.nii.gz", array(6))
    os.rename(os.fsencode(images / "x_0000.nii.gz"), os.fsencode(images) + b"/Pati\xebnt_0000.nii.gz")
    (images / "b_0000.NII.GZ").touch()
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "3 cases could not be predicted, 3 are done" in text
    assert re.search(r"\n *case_0 +2 channels where the model needs 1 +_0000, _0001 +_0000 \(T2\)", text)
    assert re.search(
        r"\n *link +link_0000.nii.gz: the link points nowhere +a link to ../annex/objects/x", text
    )
    assert re.search(r"\n *Pati\\xebnt +the name of its files is not UTF-8", text)
    assert "b_0000.NII.GZ: expected b_0000.nii.gz, with a lower-case ending" in text
    assert {path.name for path in (work / "out").glob("*.nii.gz")} == {f"case_{i}.nii.gz" for i in (1, 2, 3)}
    assert call(work, "-d", "900", "--continue_prediction") == 1
    assert "3 cases could not be predicted, 3 are done" in capsys.readouterr().err


def test_command_writes_the_very_file(work, capsys):
    image = work / "images" / "case_2_0000.nii.gz"
    given = ["-i", str(image), "-device", "cpu", "-d", "900", "--results", str(work / "results")]
    file = work / "new" / "mine.nii"
    assert command.main([*given, "-o", str(file), "--save_probabilities"]) == 0
    assert f"1 case predicted: {file}" in capsys.readouterr().out
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file))), array(2) > 0.5)
    assert {path.name for path in file.parent.iterdir()} == {"mine.nii", "mine.npz", "mine.prediction.json"}
    entry = json.loads((file.parent / "mine.prediction.json").read_text())["cases"]["case_2"]
    assert entry["files"] == {path.name: hash_file(path) for path in (file, file.with_suffix(".npz"))}
    assert command.main([*given, "-o", str(file)]) == 1
    assert "the output file is there already" in capsys.readouterr().err
    assert command.main([*given, "-o", str(file), "--overwrite"]) == 0
    assert {path.name for path in file.parent.iterdir()} == {"mine.nii", "mine.prediction.json"}
    assert command.main([*given, "-o", str(file), "--continue_prediction"]) == 1
    assert "one file is not continued" in capsys.readouterr().err
    assert command.main([*given, "-o", str(image), "--overwrite"]) == 1
    assert "the output is the image itself" in capsys.readouterr().err


def test_one_file_is_no_output_for_several_cases(work, capsys):
    given = ["-i", str(work / "images"), "-o", str(work / "x.nii.gz"), "-d", "900", "-device", "cpu"]
    assert command.main([*given, "--results", str(work / "results")]) == 1
    text = capsys.readouterr().err
    assert "the output is one file" in text and "4 cases" in text and "give a folder with -o" in text
    assert not (work / "x.nii.gz").exists()


def test_a_scan_of_another_size_is_warned_of_and_one_that_cannot_be_is_refused(
    work, capsys, make_fingerprint
):
    seen = make_fingerprint([(3.1, 0.8, 0.7)], [SHAPE] * 2)
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    (model / "fingerprint.json").write_text(seen.model_dump_json())
    write(work / "images" / "case_1_0000.nii.gz", array(1), (7.0, 8.0, 15.5))
    write(work / "images" / "case_2_0000.nii.gz", array(2), (0.7, 93.7, 3.1))
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "case_1 has a field of view of 77.5 x 112 x 84 mm" in text and "made for 11.2 mm" in text
    assert "case_0 has" not in text and "case_3 has" not in text
    assert re.search(r"\n *case_2 +the voxel size in its header cannot be right +3.1 x 93.7 x 0.7 mm", text)
    assert {path.name for path in (work / "out").glob("*.nii.gz")} == {f"case_{i}.nii.gz" for i in (0, 1, 3)}


def test_swapped_channels_are_told_of_the_first_case_and_then_of_the_others(work, capsys, monkeypatch):
    monkeypatch.setattr(SeenChannels, "swapped", lambda *_: "T1 and T2 9.0 SD")
    assert call(work, "-d", "900") == 0
    first, rest = [line for line in capsys.readouterr().err.splitlines() if "in another order than" in line]
    assert first.endswith("check the numbers of the files: case_0 (T1 and T2 9.0 SD)")
    assert "case_1 (" in rest and "case_3 (" in rest and "case_0" not in rest


@pytest.mark.parametrize("content", ["", "{}", '{"cases": 7}'])
def test_a_damaged_fingerprint_costs_its_warning_alone(work, capsys, content):
    (work / "results" / "Dataset900_Tiny" / "unet__tiny" / "fingerprint.json").write_text(content)
    assert call(work, "-d", "900") == 0
    text = capsys.readouterr().err
    assert "scans are not held against the training cases" in text and "fingerprint.json" in text


def test_without_a_fingerprint_the_voxels_are_held_against_the_working_grid(tmp_path, model_folder, capsys):
    """As in an exported bundle."""
    model_folder.make_model(tmp_path / "results", plan=model_folder.make_plan(spacing_mm=(1.0, 0.25, 0.25)))
    write(tmp_path / "images" / "a_0000.nii.gz", array(1), (1.0, 1.0, 4.0))
    write(tmp_path / "images" / "b_0000.nii.gz", array(2), (0.4, 0.4, 1.0))
    assert call(tmp_path, "-d", "900") == 0
    text = capsys.readouterr().err
    assert "a has a voxel size of 4 x 1 x 1 mm" in text and "made for 0.25 mm" in text and "b has" not in text


def test_an_empty_scan_is_refused_by_its_name(work, capsys):
    """As when planning: nothing can be seen in it, and a network may well segment something."""
    write(work / "images" / "case_1_0000.nii.gz", np.full(SHAPE, 7, np.float32))
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert re.search(r"\n *case_1 +channel T2: a constant image +every voxel is 7", text)
    assert not (work / "out" / "case_1.nii.gz").exists() and (work / "out" / "case_2.nii.gz").exists()


def test_command_lists_models_when_there_are_several(work, capsys):
    folder = work / "results" / "Dataset900_Tiny"
    shutil.copytree(folder / "unet__tiny", folder / "unet__other")
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "more than one model" in text and "unet__other, unet__tiny" in text and "-name" in text
    assert call(work, "-d", "900", "-p", "other") == 0
    assert call(work, "-d", "900", "-p", "othr") == 1
    assert "did you mean unet__other" in capsys.readouterr().err


def _unfinished(model, name):
    """As a training leaves it that was stopped before its end."""
    copied = shutil.copytree(model, model.with_name(name))
    (copied / "fold_0" / "checkpoint").mkdir()
    (copied / "fold_0" / "fold.json").unlink(missing_ok=True)
    return copied


def test_a_model_that_is_not_finished_does_not_count_where_another_is(work, capsys):
    folder = work / "results" / "Dataset900_Tiny"
    _unfinished(folder / "unet__tiny", "cc")
    assert call(work, "-d", "900") == 0
    assert "model unet__tiny; left out, as no fold is finished: cc" in capsys.readouterr().err
    shutil.copytree(folder / "unet__tiny", folder / "unet__other")
    assert call(work, "-d", "900", "--overwrite") == 1
    text = capsys.readouterr().err
    assert "cc (no fold is finished), unet__other, unet__tiny" in text
    assert "such as -name unet__other" in text
    assert call(work, "-d", "900", "-name", "cc", "--overwrite") == 0  # its weights are all there


def test_of_models_that_are_not_finished_none_is_proposed(work, capsys):
    folder = work / "results" / "Dataset900_Tiny"
    for name in ("a", "b"):
        _unfinished(folder / "unet__tiny", name)
    shutil.rmtree(folder / "unet__tiny")
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "a (no fold is finished), b (no fold is finished)" in text and "such as" not in text


def test_a_missing_or_empty_folder_is_said_before_the_models(work, capsys):
    folder = work / "results" / "Dataset900_Tiny"
    shutil.copytree(folder / "unet__tiny", folder / "unet__other")
    given = ["-o", str(work / "out"), "-d", "900", "--results", str(work / "results")]
    assert command.main(["-i", str(work / "nothere"), *given]) == 1
    assert "there is no such file or folder" in capsys.readouterr().err
    (work / "empty").mkdir()
    assert command.main(["-i", str(work / "empty"), *given]) == 1
    assert "found:    an empty folder" in capsys.readouterr().err


def test_command_explains_devices_and_versions(work, capsys):
    import torch

    if not torch.cuda.is_available():
        given = ["-i", str(work / "images"), "-o", str(work / "out"), "-d", "900", "-device", "cuda"]
        assert command.main([*given, "--results", str(work / "results")]) == 1
        assert "there is no such device here" in capsys.readouterr().err
    path = work / "results" / "Dataset900_Tiny" / "unet__tiny" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 3}))
    assert call(work, "-d", "900") == 1
    text = capsys.readouterr().err
    assert "the plan is of another version" in text and "version 3" in text and "newer autoseg" in text
    assert call(work, "-m", work / "results" / "nowhere") == 1
    assert "no such model folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- parts of the cases


def predict_part(work, text, output="out", **options):
    predictor = Predictor(work / "results" / "Dataset900_Tiny" / "unet__tiny", device="cpu")
    part = CasesPart.parse(text)
    cases = part.take(list_images(work / "images", predictor.model.info))
    return predict_cases(predictor, cases, work / output, part=part, **options)


def masks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def entries(folder):
    """Case to what is on record, without the time that it took."""
    cases = json.loads((folder / "prediction.json").read_text())["cases"]
    return {
        name: {key: value for key, value in case.items() if key != "seconds"} for name, case in cases.items()
    }


def test_the_parts_are_the_whole_in_masks_and_record(work):
    run(work)
    assert predict_part(work, "2/3", "parts").predicted == ["case_1"]
    assert predict_part(work, "1/3", "parts").predicted == ["case_0", "case_3"]
    assert predict_part(work, "3/3", "parts").predicted == ["case_2"]
    assert masks(work / "parts") == masks(work / "out")
    assert entries(work / "parts") == entries(work / "out")
    assert not list((work / "parts").glob("prediction.part_*"))
    again = predict_part(work, "1/3", "parts", continue_prediction=True)
    assert again.kept == ["case_0", "case_3"] and not again.predicted


def test_two_parts_at_work_write_records_of_their_own_which_readers_see_as_one(work):
    out = work / "out"
    gather = partial(gather_parts, out)
    with exclusive_part(
        out, CasesPart(1, 2), doing="predicting", alone=gather
    ):  # as long as another process is at the first part
        predict_part(work, "2/2")
        assert not (out / "prediction.json").exists()
        assert list(json.loads((out / "prediction.part_2_of_2.json").read_text())["cases"]) == [
            "case_1",
            "case_3",
        ]
        assert set(read_record(out).cases) == {"case_1", "case_3"}
        with pytest.raises(
            AutosegError, match=r"(?s)predicting into this folder, part 1/2.*one process at a time"
        ):
            predict_part(work, "1/2")
        with pytest.raises(AutosegError, match="another process is predicting into this folder"):
            predict_part(work, "2/3")
        with pytest.raises(AutosegError, match="another process is predicting into this folder"):
            run(work)
    assert set(entries(out)) == {"case_1", "case_3"}  # the last one at work has put them together
    report = run(work, continue_prediction=True)
    assert report.kept == ["case_1", "case_3"] and report.predicted == ["case_0", "case_2"]


def test_a_part_waits_for_no_run_over_all_cases(work):
    (work / "out").mkdir()
    with exclusive(work / "out" / ".lock", doing="predicting"):
        with pytest.raises(AutosegError, match="another process is predicting into this folder"):
            predict_part(work, "1/2")


def test_parts_that_were_killed_go_on_as_other_parts(work):
    """A record of a part that nobody has put together: the next one does, and no case is redone."""
    predict_part(work, "1/2")
    (work / "out" / "prediction.json").rename(work / "out" / "prediction.part_1_of_2.json")
    report = predict_part(work, "1/1", continue_prediction=True)
    assert report.kept == ["case_0", "case_2"] and report.predicted == ["case_1", "case_3"]
    assert set(entries(work / "out")) == {f"case_{i}" for i in range(4)}


def test_what_is_no_part_is_refused(work):
    for text in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(AutosegError, match=f"--part {text}"):
            CasesPart.parse(text)


def test_the_command_takes_a_part(work, capsys):
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    words = ["-i", str(work / "images"), "-m", str(model), "-device", "cpu"]
    assert command.main([*words, "-o", str(work / "out"), "--part", "2/4"]) == 0
    assert [path.name for path in (work / "out").glob("*.nii.gz")] == ["case_1.nii.gz"]
    assert command.main([*words, "-o", str(work / "out"), "--part", "9/9"]) == 0  # more parts than cases
    assert command.main([*words, "-o", str(work / "x.nii.gz"), "--part", "1/4"]) == 1
    assert "one file has no parts" in capsys.readouterr().err
