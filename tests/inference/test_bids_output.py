"""--bids: what lies where, what the sidecars say, and the official validator's opinion."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.cli import predict as command

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
SHAPE = (5, 14, 12)


def array(seed):
    return np.random.default_rng(seed).uniform(0.05, 1, SHAPE).astype(np.float32)


def write(path, values):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 3.1))
    image.SetOrigin((5.5, -7.25, 11.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def work(tmp_path, model_folder):
    """A raw dataset of two subjects, one with two sessions, and a model of FLAIR and T1."""
    model_folder.make_model(tmp_path / "results", plan=model_folder.make_plan(("FLAIR", "T1")))
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    for i, (folder, stem) in enumerate(
        [("sub-01/ses-a", "sub-01_ses-a"), ("sub-01/ses-b", "sub-01_ses-b"), ("sub-02", "sub-02")]
    ):
        write(raw / folder / "anat" / f"{stem}_FLAIR.nii.gz", array(i))
        write(raw / folder / "anat" / f"{stem}_acq-3d_T1w.nii.gz", array(i + 10))
    messages.forget_warnings()
    return tmp_path


def predict(work, *words, given="raw", out="raw/derivatives/autoseg"):
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    options = ["-i", work / given, "-o", work / out, "-m", model, "-device", "cpu", "--bids"]
    return command.main([*map(str, options), *words])


def test_masks_and_probabilities_lie_where_bids_wants_them(work):
    assert predict(work) == 0
    out = work / "raw" / "derivatives" / "autoseg"
    stem = out / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_space-orig_label-L"
    mask = sitk.ReadImage(f"{stem}_mask.nii.gz")
    scores = sitk.ReadImage(f"{stem}_probseg.nii.gz")
    image = sitk.ReadImage(str(work / "raw/sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz"))
    for made in (mask, scores):
        assert made.GetOrigin() == image.GetOrigin() and made.GetSpacing() == image.GetSpacing()
    assert np.array_equal(sitk.GetArrayFromImage(mask), array(1) > 0.5)
    expected = 1 / (1 + np.exp(-4 * (array(1) - 0.5)))
    assert np.allclose(sitk.GetArrayFromImage(scores), expected, atol=2e-3)
    sidecar = json.loads(Path(f"{stem}_mask.json").read_text())
    assert sidecar == {
        "Sources": [
            "bids:source:sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",
            "bids:source:sub-01/ses-b/anat/sub-01_ses-b_acq-3d_T1w.nii.gz",
        ],
        "SpatialReference": "bids:source:sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",
        "Type": "Lesion",
    }
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "autoseg"
    link = out / description["DatasetLinks"]["source"]
    assert link.resolve() == (work / "raw").resolve()


def test_the_official_validator_finds_no_error(work):
    if not VALIDATOR.exists():
        pytest.skip("bids-validator-deno is not installed")
    assert predict(work) == 0
    out = work / "alone"
    shutil.copytree(work / "raw" / "derivatives" / "autoseg", out)
    said = subprocess.run([VALIDATOR, out, "--format", "json"], capture_output=True, text=True, timeout=120)
    issues = json.loads(said.stdout)["issues"]["issues"]
    assert not [issue for issue in issues if issue["severity"] == "error"], issues
    (out / "sub-02" / "anat" / "sub-02_mask_label-L.nii.gz").write_bytes(b"")  # so it does find what is wrong
    said = subprocess.run([VALIDATOR, out, "--format", "json"], capture_output=True, text=True, timeout=120)
    assert [issue for issue in json.loads(said.stdout)["issues"]["issues"] if issue["severity"] == "error"]


def test_a_prediction_goes_on_where_files_are_whole(work):
    assert predict(work) == 0
    gone = work / "raw/derivatives/autoseg/sub-02/anat/sub-02_space-orig_label-L_probseg.nii.gz"
    gone.unlink()
    assert predict(work, "--continue_prediction") == 0
    assert gone.exists()
    record = json.loads((work / "raw/derivatives/autoseg/prediction.json").read_text())
    assert "sub-02/anat/sub-02_space-orig_label-L_mask.nii.gz" in record["cases"]["sub-02"]["files"]
    assert record["run"]["device"] == "cpu" and record["run"]["started"]


def test_scans_of_other_names_become_subjects(work, model_folder):
    model_folder.make_model(work / "results")
    write(work / "scans" / "pat 7.nii.gz", array(0))
    assert predict(work, given="scans", out="made") == 0
    assert (work / "made/sub-pat7/anat/sub-pat7_space-orig_label-L_mask.nii.gz").exists()
    write(work / "scans" / "pat-7.nii.gz", array(1))
    assert predict(work, given="scans", out="other") == 1


def test_a_dataset_of_others_is_not_written_into(work, capsys):
    (work / "made").mkdir()
    (work / "made" / "dataset_description.json").write_text('{"Name": "theirs"}')
    assert predict(work, out="made") == 1
    assert "a BIDS dataset that autoseg did not make" in capsys.readouterr().err
