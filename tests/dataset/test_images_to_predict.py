"""What there is to predict: cases by the names of files, what is left out, and folders of other kinds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.images_to_predict import list_images
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError, FaultsError


def _info(*channels: str) -> DatasetJson:
    return DatasetJson(
        channel_names={str(i): name for i, name in enumerate(channels)},
        labels={"background": 0, "lesion": 1},
        numTraining=1,
        file_ending=".nii.gz",
    )


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_a_folder_of_images_is_listed(tmp_path: Path) -> None:
    _touch(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "a_0000.mha", "a_0001.mha", "notes.txt", ".x_0000.nii")
    cases = list_images(tmp_path, _info("FLAIR", "T1"))
    assert cases == [
        Case("a", (tmp_path / "a_0000.mha", tmp_path / "a_0001.mha")),
        Case("b", (tmp_path / "b_0000.nii.gz", tmp_path / "b_0001.nii.gz")),
    ]


def test_one_file_stands_for_its_case(tmp_path: Path) -> None:
    _touch(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "a_0000.nii.gz")
    cases = list_images(tmp_path / "b_0001.nii.gz", _info("FLAIR", "T1"))
    assert cases == [Case("b", (tmp_path / "b_0000.nii.gz", tmp_path / "b_0001.nii.gz"))]


def test_one_file_of_a_one_channel_model_may_have_any_name(tmp_path: Path) -> None:
    _touch(tmp_path, "scan.nrrd")
    assert list_images(tmp_path / "scan.nrrd", _info("T1")) == [Case("scan", (tmp_path / "scan.nrrd",))]


def test_the_wrong_number_of_channels_is_refused_when_no_case_is_right(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "b_0002.nii.gz")
    with pytest.raises(FaultsError, match="2 cases, of which none can be predicted") as caught:
        list_images(tmp_path, _info("FLAIR", "T1"))
    first, second = caught.value.faults
    assert first.where == "a" and first.problem == "1 channel where the model needs 2"
    assert first.found == "_0000" and first.expected == "_0000 (FLAIR), _0001 (T1)" and first.fix
    assert second.where == "b" and second.found == "_0000, _0001, _0002"
    with pytest.raises(FaultsError, match=r"\ba +1 channel where"):
        list_images(tmp_path / "a_0000.nii.gz", _info("FLAIR", "T1"))


def test_the_wrong_number_of_channels_costs_that_case_alone(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz")
    a, c = list_images(tmp_path, _info("FLAIR", "T1"))
    assert a.name == "a" and a.fault and a.fault.problem == "1 channel where the model needs 2"
    assert c == Case("c", (tmp_path / "c_0000.nii.gz", tmp_path / "c_0001.nii.gz"))


def test_one_channel_in_two_files_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "a_0000.mha")
    with pytest.raises(FaultsError, match=r"one channel in two files +a_0000\.mha, a_0000\.nii\.gz"):
        list_images(tmp_path, _info("T1"))


@pytest.mark.parametrize("name", ["", "scan.nii.gz", "scan_0000.img"])
def test_nothing_to_predict_is_explained(tmp_path: Path, name: str) -> None:
    if name:
        _touch(tmp_path, name)
    with pytest.raises(AutosegError, match=r"(?s)nothing to predict.*CASE_0000 \(FLAIR\), CASE_0001 \(T1\)"):
        list_images(tmp_path / name, _info("FLAIR", "T1"))
    with pytest.raises(AutosegError, match="no such file or folder"):
        list_images(tmp_path / "gone", _info("T1"))


# ---------------------------------------------------------------------------------------------- what is left out


def _warned() -> str:
    text = "\n".join(messages.warning_counts())
    messages.forget_warnings()
    return text


@pytest.fixture(autouse=True)
def _no_warnings_before() -> None:
    messages.forget_warnings()


def test_every_file_that_is_left_out_is_named_with_what_was_expected(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b_0000.NII.GZ", "c.nii.gz", "d_000.nii.gz", "e.json", ".hidden")
    (tmp_path / "brains").mkdir()
    assert [case.name for case in list_images(tmp_path, _info("T1"))] == ["a"]
    head, *lines = _warned().splitlines()
    assert "of no case and not used: 4" in head
    assert [line.strip() for line in lines] == [
        "b_0000.NII.GZ: expected b_0000.nii.gz, with a lower-case ending",
        "c.nii.gz: expected c_0000.nii.gz",
        "d_000.nii.gz: a channel has four digits, expected d_0000.nii.gz",
        "e.json: its ending is none of .nii.gz, .nii, .nrrd, .mha",
    ]


def test_a_folder_that_is_called_like_a_scan_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz")
    (tmp_path / "b_0000.nii.gz").mkdir()
    (tmp_path / "masks").mkdir()
    assert [case.name for case in list_images(tmp_path, _info("T1"))] == ["a"]
    text = _warned()
    assert "b_0000.nii.gz: a folder, where a file is expected" in text and "masks" not in text


def test_control_characters_in_names_are_spelled_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b\x1b[31m_0000.nii.gz", "c\x1b[31m.txt", "d\n_0000.nii.gz")
    good, bad = list_images(tmp_path, _info("T1"))
    assert good.fault is None and bad.fault and bad.name == r"b\x1b[31m"
    text = _warned()
    assert r"c\x1b[31m.txt" in text and r"d\n_0000.nii.gz" in text and "\x1b" not in text


def test_a_folder_without_a_right_name_says_what_each_file_should_be_called(tmp_path: Path) -> None:
    _touch(tmp_path, "scan.nii.gz", "T1.NII")
    with pytest.raises(
        AutosegError, match=r"(?s)nothing to predict.*T1.NII: expected T1_0000.nii, with a lower"
    ) as error:
        list_images(tmp_path, _info("T1"))
    assert "scan.nii.gz: expected scan_0000.nii.gz" in str(error.value)


def test_a_link_that_points_nowhere_is_a_case(tmp_path: Path) -> None:
    """It is meant to be one; its reading tells that the file is not there."""
    _touch(tmp_path, "a_0000.nii.gz")
    (tmp_path / "b_0000.nii.gz").symlink_to("../.git/annex/objects/x.nii.gz")
    assert [case.name for case in list_images(tmp_path, _info("T1"))] == ["a", "b"]
    assert [case.name for case in list_images(tmp_path / "b_0000.nii.gz", _info("T1"))] == ["b"]


def test_a_name_that_is_not_utf_8_is_the_fault_of_its_case(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/Pati\xebnt_0000.nii.gz")).touch()
    odd, a = list_images(tmp_path, _info("T1"))
    assert a.fault is None and odd.fault is not None and odd.name == "Pati\\xebnt"
    assert odd.fault.where == "Pati\\xebnt" and "not UTF-8" in odd.fault.problem


def test_scans_with_numbers_of_their_own_are_cases_of_a_one_channel_model(tmp_path: Path) -> None:
    _touch(tmp_path, "pt_0012.nii.gz", "pt_0013.nii.gz")
    cases = [Case(name, (tmp_path / f"{name}.nii.gz",)) for name in ("pt_0012", "pt_0013")]
    assert list_images(tmp_path, _info("T1")) == cases
    assert "no file is _0000: 2\n    pt_0012.nii.gz\n    pt_0013.nii.gz" in _warned()
    assert list_images(tmp_path / "pt_0013.nii.gz", _info("T1")) == cases[1:]
    with pytest.raises(FaultsError, match=r"pt +2 channels where the model needs 3 .*called pt_0013_0000"):
        list_images(tmp_path, _info("T1", "T2", "FLAIR"))


def test_a_number_beside_channel_0000_is_no_case_of_its_own(tmp_path: Path) -> None:
    _touch(tmp_path, "pt_0000.nii.gz", "pt_0012.nii.gz")
    with pytest.raises(FaultsError, match=r"2 channels .*_0000, _0012 .*called pt_0012_0000"):
        list_images(tmp_path / "pt_0012.nii.gz", _info("T1"))


# ---------------------------------------------------------------------------------------------- DICOM and BIDS


@pytest.mark.parametrize("name", ["IM0001", "a/b/0001.dcm", "series/DICOMDIR"])
def test_dicom_is_recognised_and_said_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "study" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 128 + b"DICM" if name == "IM0001" else b"")
    for given in (tmp_path / "study", path):
        with pytest.raises(AutosegError, match="(?s)DICOM.*alone reads.*dcm2niix.*-f CASE_0000") as caught:
            list_images(given, _info("T1"))
        assert caught.value.fault.found == path.name and "CASE_0000 (T1)" in caught.value.fault.expected


def test_dicom_files_beside_a_case_are_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b_0000.dcm")
    assert len(list_images(tmp_path, _info("T1"))) == 1
    assert "b_0000.dcm: a DICOM file, convert it with dcm2niix" in _warned()


@pytest.mark.parametrize("described", [True, False])
def test_bids_is_recognised_and_said_what_to_do(tmp_path: Path, described: bool) -> None:
    for subject in ("sub-01", "sub-02"):
        (tmp_path / subject / "ses-1" / "anat").mkdir(parents=True)
        _touch(tmp_path / subject / "ses-1" / "anat", f"{subject}_ses-1_T1w.nii.gz")
    if described:
        (tmp_path / "dataset_description.json").write_text(json.dumps({"BIDSVersion": "1.8.0"}))
    with pytest.raises(AutosegError, match="BIDS dataset, which autoseg_predict alone reads") as caught:
        list_images(tmp_path, _info("T1"))
    fault = caught.value.fault
    assert fault.found == "2 subjects, such as sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    assert "becomes sub-01_0000.nii.gz" in fault.fix
