"""Where the masks of a case are looked up: folders, and raw datasets that list their files."""

import json

import numpy as np
import pytest
import small

from autoseg import messages
from autoseg.dataset.raw_layout import load_raw, truth_folder
from autoseg.errors import FaultsError
from autoseg.evaluation.case_files import find_cases, true_mask, true_masks
from autoseg.inference.prediction_record import PredictedCase, PredictionRecord, write_record
from autoseg.report.overlay import find_images
from autoseg.report.picture import find_image


@pytest.fixture
def listed(tmp_path):
    """Two readers of the same cases; dataset.json lists the masks of the second."""
    folder, files = small.dataset(tmp_path, n=2, n_test=0), {}
    for name in ("case_000", "case_001"):
        mask = np.zeros((10, 24, 24), np.uint8)
        mask[2:5, 3:7, 3:8] = 1
        small.write(folder / "reader2" / f"{name}_r2.nii.gz", mask)
        (folder / "imagesTr" / f"{name}_0000.nii.gz").rename(folder / f"scan_of_{name}.nii.gz")
        files[name] = {"images": [f"scan_of_{name}.nii.gz"], "label": f"reader2/{name}_r2.nii.gz"}
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "dataset": files}))
    return folder


def test_masks_and_images_that_dataset_json_lists_are_those_of_the_case(listed):
    truths = truth_folder(load_raw(listed))
    assert truths == listed
    second = listed / "reader2" / "case_000_r2.nii.gz"
    assert true_masks(truths)["case_000"] == [second] and true_mask(truths, "case_000") == second
    small.write(listed / "predicted" / "case_000.nii.gz", np.zeros((10, 24, 24), np.uint8))
    (found,), _, _ = find_cases(listed / "predicted", truths, ["case_000"])
    assert found.truth == second
    assert find_image(find_images(truths), "case_000", 0) == listed / "scan_of_case_000.nii.gz"


def test_a_listed_truth_that_is_missing_is_said(listed):
    for name in ("case_000", "case_001"):
        small.write(listed / "predicted" / f"{name}.nii.gz", np.zeros((10, 24, 24), np.uint8))
    missing = listed / "reader2" / "case_001_r2.nii.gz"
    missing.unlink()
    with pytest.raises(FaultsError) as caught:
        find_cases(listed / "predicted", listed)
    (fault,) = caught.value.faults
    assert (fault.where, fault.problem, fault.expected) == ("case_001", "the truth is missing", str(missing))


def test_a_copy_of_dataset_json_among_masks_lists_none_of_them(listed, tmp_path):
    copied = tmp_path / "copied"
    (listed / "labelsTr").rename(copied)
    (listed / "dataset.json").rename(copied / "dataset.json")
    assert true_masks(copied)["case_001"] == [copied / "case_001.nii.gz"]


def test_masks_of_cases_that_failed_are_scored_with_a_warning(listed):
    for name in ("case_000", "case_001"):
        small.write(listed / "predicted" / f"{name}.nii.gz", np.zeros((10, 24, 24), np.uint8))
    failed = PredictedCase(status="failed", made_by="b", input_sha256="", files={"case_001.nii.gz": "0"})
    done = PredictedCase(status="done", made_by="b", input_sha256="1", files={"case_000.nii.gz": "0"})
    record = PredictionRecord(
        autoseg_version="0", identity={}, cases={"case_000": done, "case_001": failed, "other": failed}
    )
    write_record(listed / "predicted", record)
    messages.forget_warnings()
    assert len(find_cases(listed / "predicted", listed)[0]) == 2
    (text,) = messages.warning_counts()
    assert "1 mask of an earlier prediction" in text and text.endswith("failed: case_001")


def test_a_folder_that_the_user_names_is_taken_as_it_is(listed):
    labels = listed / "labelsTr"
    assert true_mask(labels, "case_000") == labels / "case_000.nii.gz"
    assert true_masks(labels)["case_001"] == [labels / "case_001.nii.gz"]


def test_without_a_list_the_masks_are_in_labelstr(tmp_path):
    folder = small.dataset(tmp_path, n=2, n_test=0)
    assert truth_folder(load_raw(folder)) == folder / "labelsTr"
    assert find_images(folder / "labelsTr") == folder / "imagesTr"
