"""Subjects in groups.csv, as converters, people and spreadsheet programs write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.dataset.subjects import read_subjects
from autoseg.errors import FaultsError


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("case,subject,study\na,rat 1,x\nb,rat 1,\nc,rat 2,x\n", "utf-8"),
        ("Case;Study;Subject\r\na;;rat 1\r\n\r\nb;;rat 1\r\nc;;rat 2\r\nold;;rat 9\r\n", "utf-8-sig"),
        ("scan\tsubject\na.nii.gz\t rat 1\nb.nii.gz\trat 1\nc\trat 2\n", "utf-16"),
    ],
)
def test_every_case_and_its_subject(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(text.encode(encoding))
    assert read_subjects(path, "abc") == {"a": "rat 1", "b": "rat 1", "c": "rat 2"}


def test_cases_without_a_subject_and_files_without_the_column(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    assert read_subjects(path, "ab") == {}
    path.write_text("case,study\na,1\n")
    assert read_subjects(path, "ab") == {}
    path.write_text("case,subject\na,\n")
    assert read_subjects(path, "ab") == {}
    path.write_text("")
    assert read_subjects(path, "ab") == {}
    path.write_text("case,study,subject\na,1,x\nb,1\n")
    assert read_subjects(path, "ab") == {"a": "x"}


def test_a_case_of_two_subjects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("case,subject\na,x\nb,x\na,y\n")
    with pytest.raises(FaultsError, match=r"a +is of two subjects +x, y") as caught:
        read_subjects(path, "ab")
    assert str(path) in str(caught.value)
