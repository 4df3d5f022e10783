"""BIDS datasets: sessions and runs as cases, suffixes and entities as channels, nothing chosen in silence."""

import json

import pytest

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.scans.given import GivenScans, cases_of


@pytest.fixture(autouse=True)
def _no_warnings_before():
    messages.forget_warnings()


def dataset(root, *names):
    """Empty files of a BIDS dataset, each in the folder that its name says."""
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    for name in names:
        parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        folder = root.joinpath(*parts) / ("dwi" if "dwi" in name else "anat")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.nii.gz").touch()
    return root


def found(root, *channels, **options):
    info = DatasetJson(
        channel_names={str(i): name for i, name in enumerate(channels)},
        labels={"background": 0, "lesion": 1},
        numTraining=1,
        file_ending=".nii.gz",
    )
    return cases_of(GivenScans(root, **options), info)


def test_sessions_are_cases_and_suffixes_are_channels(tmp_path):
    root = dataset(
        tmp_path, "sub-01_ses-a_T1w", "sub-01_ses-a_FLAIR", "sub-01_ses-b_T1w", "sub-01_ses-b_FLAIR",
        "sub-02_T1w", "sub-02_FLAIR", "sub-02_T2w",
    )  # fmt: skip
    cases = found(root, "FLAIR", "T1")
    assert [case.name for case in cases] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert [p.name for p in cases[0].images] == ["sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-a_T1w.nii.gz"]
    assert cases[0].origin.entities == {"sub": "01", "ses": "a"}


def test_runs_are_cases_of_their_own(tmp_path):
    root = dataset(tmp_path, *(f"sub-01_run-{run}_{suffix}" for run in (1, 2) for suffix in ("T1w", "FLAIR")))
    assert [case.name for case in found(root, "T1", "FLAIR")] == ["sub-01_run-1", "sub-01_run-2"]


def test_contrast_agent_is_a_channel_of_its_own(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_ce-gadolinium_T1w")
    (case,) = found(root, "T1Gd", "T1")
    assert [p.name for p in case.images] == ["sub-01_ce-gadolinium_T1w.nii.gz", "sub-01_T1w.nii.gz"]


def test_two_files_for_a_channel_are_asked_about(tmp_path):
    root = dataset(tmp_path, "sub-01_acq-2d_FLAIR", "sub-01_acq-3d_FLAIR", "sub-02_acq-3d_FLAIR")
    first, second = found(root, "FLAIR")
    assert second.fault is None and first.fault
    assert first.fault.problem == "2 files could be FLAIR" and first.fault.fix.endswith(
        "--channels FLAIR=acq-2d_FLAIR"
    )
    assert [case.fault for case in found(root, "FLAIR", channels={"FLAIR": "acq-3d_FLAIR"})] == [None, None]


def test_a_subject_without_a_channel_costs_itself_alone(tmp_path, caplog):
    caplog.set_level("INFO", "autoseg")
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_FLAIR", "sub-02_T1w", "sub-03_task-rest_bold")
    good, bad = found(root, "T1", "FLAIR")
    assert (
        good.fault is None and bad.fault and bad.fault.problem == "has no FLAIR" and bad.fault.found == "T1w"
    )
    assert "without any channel of the model, and left out: sub-03" in caplog.text


def test_a_dataset_without_the_channel_says_what_there_is(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_acq-x_T2w")
    with pytest.raises(
        AutosegError, match="(?s)no file for the model's channel FLAIR.*T1w, acq-x_T2w.*--channels FLAIR="
    ):
        found(root, "FLAIR")


def test_a_channel_of_any_name_is_given_by_the_option(tmp_path):
    root = dataset(tmp_path, "sub-01_desc-preproc_T1w", "sub-01_desc-raw_T1w")
    (case,) = found(root, "My channel", channels={"My channel": "desc-preproc_T1w"})
    assert case.images[0].name == "sub-01_desc-preproc_T1w.nii.gz"


def test_derivatives_are_read_where_they_are_given(tmp_path):
    dataset(tmp_path / "derivatives" / "clean", "sub-01_space-MNI152NLin2009cAsym_T1w", "sub-01_label-L_mask")
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(
        AutosegError, match="(?s)derivatives of clean.*give the folder of the derivatives itself"
    ):
        found(tmp_path, "T1")
    (case,) = found(tmp_path / "derivatives" / "clean", "T1")
    assert case.name == "sub-01" and case.origin.entities == {"sub": "01", "space": "MNI152NLin2009cAsym"}


def test_one_subject_is_a_dataset_too(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w", "sub-02_T1w")
    assert [case.name for case in found(root / "sub-02", "T1")] == ["sub-02"]


def test_the_name_of_a_file_chooses_it_among_those_with_more_entities(tmp_path):
    """As fMRIPrep leaves them: every pattern that fits the first fits the second."""
    root = dataset(tmp_path, "sub-01_desc-preproc_T1w", "sub-01_space-MNI_desc-preproc_T1w", "sub-01_T1w")
    for words in ("desc-preproc_T1w", "sub-01_desc-preproc_T1w.nii.gz"):
        (case,) = found(root, "T1", channels={"T1": words})
        assert [p.name for p in case.images] == ["sub-01_desc-preproc_T1w.nii.gz"]
    (case,) = found(root, "T1", channels={"T1": "T1w"})
    assert [p.name for p in case.images] == ["sub-01_T1w.nii.gz"]
    with pytest.raises(AutosegError, match="more than one suffix"):
        found(root, "T1", channels={"T1": "preproc_T1w"})


def test_subjects_that_are_links_are_read(tmp_path):
    archive = dataset(tmp_path / "archive", "sub-01_T1w", "sub-02_T1w")
    root = dataset(tmp_path / "mine")
    (root / "sub-02").symlink_to(archive / "sub-02")
    assert [case.name for case in found(root, "T1")] == ["sub-02"]
