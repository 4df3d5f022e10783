"""The raw layout and dataset.json: what is found, and what is said when something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autoseg.dataset.raw_layout import Case, load_raw, split_name
from autoseg.errors import AutosegError, FaultsError


def test_a_dataset_is_loaded(make_raw: Callable) -> None:
    made = make_raw(n_cases=2, n_channels=2)
    (made.folder / "imagesTr" / ".DS_Store").touch()
    (made.folder / "labelsTr" / "._a.nii.gz").touch()
    raw = load_raw(made.folder)
    assert raw.name == "Dataset001_Test"
    assert raw.cases == (
        Case("a", (made.image("a", 0), made.image("a", 1)), made.mask("a")),
        Case("b", (made.image("b", 0), made.image("b", 1)), made.mask("b")),
    )


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_other_formats_are_found(make_raw: Callable, ending: str) -> None:
    raw = load_raw(make_raw(ending=ending).folder)
    assert [case.name for case in raw.cases] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a_0001.nii.gz", ("a", 1, ".nii.gz")),
        ("my_case_7_0000.mha", ("my_case_7", 0, ".mha")),
        ("a.nii", ("a", None, ".nii")),
        ("a_01.nii", ("a_01", None, ".nii")),
        (".a_0000.nii", None),
        ("a_0000.dcm", None),
    ],
)
def test_file_names_are_taken_apart(name: str, parts: tuple | None) -> None:
    assert split_name(name) == parts


def test_cases_listed_in_dataset_json_are_used(make_raw: Callable) -> None:
    made = make_raw(n_cases=1, n_channels=1)
    made.info(dataset={"x": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}})
    assert load_raw(made.folder).cases == (Case("x", (made.image("a"),), made.mask("a")),)
    made.info(dataset={"x": {"images": ["imagesTr/a_0000.nii.gz"]}})
    with pytest.raises(FaultsError, match=r"dataset\.x +does not name its files"):
        load_raw(made.folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"Dataset009_Gone: the folder of the dataset is missing"):
        load_raw(tmp_path / "Dataset009_Gone")


def test_no_dataset_json(make_raw: Callable) -> None:
    made = make_raw()
    (made.folder / "dataset.json").unlink()
    before = made.state()
    with pytest.raises(AutosegError) as caught:
        load_raw(made.folder)
    fault = caught.value.fault
    assert (fault.where, fault.problem) == (str(made.folder), "there is no dataset.json")
    assert fault.found == "imagesTr, labelsTr" and "dataset.json" in fault.expected and fault.fix
    assert made.state() == before


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_missing_part_is_named(make_raw: Callable, part: str) -> None:
    made = make_raw()
    (made.folder / part).rename(made.folder / "elsewhere")
    with pytest.raises(
        AutosegError, match=rf"(?s)folder {part} is missing.*found: +dataset\.json, elsewhere"
    ):
        load_raw(made.folder)


def test_no_file_with_the_ending(make_raw: Callable) -> None:
    made = make_raw()
    made.info(file_ending=".mha")
    with pytest.raises(
        AutosegError, match=r"(?s)there is no case.*a_0000\.nii\.gz.*CASE_0000\.mha.*file_ending"
    ):
        load_raw(made.folder)


# --------------------------------------------------------------------------------------------- dataset.json

BAD_INFO = [
    ({"labels": {"lesion": 1}}, "labels", 'must contain "background": 0'),
    ({"labels": {"background": 1, "lesion": 2}}, "labels", 'must contain "background": 0'),
    ({"labels": {"background": 0, "a": 1, "b": 3}}, "labels", "consecutive from 0: 2 missing"),
    ({"labels": {"background": 0, "a": -1}}, "labels", "-1 is negative"),
    ({"labels": {"background": 0, "a": 1, "b": 1}}, "labels", "two labels have the same value"),
    ({"labels": {"background": 0}}, "labels", "at least one label beside the background"),
    ({"labels": {"background": 0, "a": "one"}}, "labels.a", "neither a whole number nor a list"),
    ({"labels": {"background": 0, "ignore": 1, "a": 2}}, "labels", "'ignore' must be the highest value"),
    ({"labels": [0, 1]}, "labels", "valid dictionary"),
    ({"labels": {"background": 0, "a": [1, 2], "b": [2]}}, "regions_class_order", "regions need"),
    ({"channel_names": ["T1", "T2"]}, "channel_names", "valid dictionary"),
    ({"channel_names": {"0": "T1", "2": "T2"}}, "channel_names", "numbered 0, 1"),
    ({"numTraining": "three"}, "numTraining", "valid integer"),
    ({"numTraining": 0}, "numTraining", "greater than or equal to 1"),
    ({"numTraining": None}, "numTraining", "missing"),
    ({"file_ending": ".jpg"}, "file_ending", "not an ending that autoseg reads"),
]


@pytest.mark.parametrize(("change", "where", "problem"), BAD_INFO)
def test_what_is_wrong_in_dataset_json_is_explained(
    make_raw: Callable, change: dict[str, object], where: str, problem: str
) -> None:
    made = make_raw()
    made.info(**change)
    before = made.state()
    with pytest.raises(FaultsError) as caught:
        load_raw(made.folder)
    (fault,) = caught.value.faults
    assert fault.where == where and problem in fault.problem
    assert fault.expected and fault.fix
    assert str(made.folder / "dataset.json") in str(caught.value)
    assert made.state() == before


def test_all_faults_of_dataset_json_come_together(make_raw: Callable) -> None:
    made = make_raw()
    made.info(labels={"lesion": 1}, file_ending=".jpg", numTraining=-1)
    with pytest.raises(FaultsError, match="3 entries do not fit") as caught:
        load_raw(made.folder)
    assert {fault.where for fault in caught.value.faults} == {"labels", "file_ending", "numTraining"}


def test_the_older_format_is_recognised(make_raw: Callable) -> None:
    made = make_raw()
    made.info(channel_names=None, modality={"0": "T2"}, labels={"0": "background", "1": "lesion"})
    with pytest.raises(AutosegError, match=r"(?s)nnU-Net v1.*rename modality to channel_names"):
        load_raw(made.folder)


def test_broken_json_is_explained(make_raw: Callable) -> None:
    made = make_raw()
    (made.folder / "dataset.json").write_text('{"labels": ')
    with pytest.raises(AutosegError, match=r"dataset\.json: is not valid JSON"):
        load_raw(made.folder)


def test_unknown_keys_are_kept(make_raw: Callable) -> None:
    made = make_raw()
    made.info(licence="CC0")
    assert json.loads(load_raw(made.folder).info.model_dump_json())["licence"] == "CC0"


def test_json_with_a_byte_order_mark_is_read(make_raw: Callable) -> None:
    """As Windows' editors save it."""
    path = make_raw().folder / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_raw(path.parent).info.numTraining == 3
