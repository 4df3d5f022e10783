"""What --folds may be: a number, proportions, a list. No image is read for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg.dataset.folds import Fold, make_folds
from autoseg.errors import AutosegError, StaleError
from autoseg.preparation.steps import folds_asked_for, use_folds

NAMES = [f"case_{i:02}" for i in range(12)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Twelve cases without content; the first two are of one subject."""
    folder = tmp_path / "Dataset001_Names"
    for name in NAMES:
        for path in (folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "labelsTr" / f"{name}.nii.gz"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    info = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**info, "numTraining": 12}))
    (folder / "groups.csv").write_text("case,subject\n" + "".join(f"{n},{max(n, NAMES[1])}\n" for n in NAMES))
    return folder


def test_a_number_makes_as_many_folds(raw: Path) -> None:
    subjects = {name: max(name, NAMES[1]) for name in NAMES}
    assert folds_asked_for(raw, "3", False) == make_folds(NAMES, 3, subjects=subjects)
    assert folds_asked_for(raw, None, True) == make_folds(NAMES, with_test=True, subjects=subjects)


def test_proportions_make_one_fold(raw: Path) -> None:
    (fold,) = folds_asked_for(raw, "8/2/2", False)
    assert [len(part) for part in fold.parts.values()] == [8, 2, 2]
    assert sum(set(NAMES[:2]) <= set(part) for part in fold.parts.values()) == 1
    assert folds_asked_for(raw, "8/2/2", False) == [fold]
    (fold,) = folds_asked_for(raw, "3/1", False)
    assert [len(part) for part in fold.parts.values()] == [9, 3]


def test_a_list_makes_its_folds(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "case,part\n" + "".join(f"{n},{'train' if n > NAMES[2] else 'val'}\n" for n in NAMES)
    )
    assert folds_asked_for(raw, str(tmp_path / "list.csv"), False) == [
        Fold(tuple(NAMES[3:]), tuple(NAMES[:3]))
    ]


@pytest.mark.parametrize(
    ("wanted", "with_test", "message"),
    [
        (
            "none.csv",
            False,
            r"no number, no proportions and no file(.|\n)*none.csv(.|\n)*5, 182/26/31 or folds.csv",
        ),
        ("5x", False, r"no number, no proportions and no file"),
        ("8/2/2/1", False, r"no number, no proportions and no file"),
        ("8/0/2", False, r"a part would have no case(.|\n)*--folds 8/0/2(.|\n)*numbers above 0"),
        ("8/2/2", True, r"--test_part goes with a number of folds(.|\n)*--folds 8/2/2"),
        ("0", False, r"cannot be divided into 2 kinds of parts"),
        ("-1", False, r"cannot be divided into 2 kinds of parts"),
    ],
)
def test_what_is_neither_is_refused(raw: Path, wanted: str, with_test: bool, message: str) -> None:
    with pytest.raises(AutosegError, match=message):
        folds_asked_for(raw, wanted, with_test)


def test_folds_of_the_raw_dataset_and_folds_in_use_are_not_replaced(raw: Path, tmp_path: Path) -> None:
    folds = folds_asked_for(raw, "8/2/2", False)
    use_folds(tmp_path, folds)
    before = (tmp_path / "splits.json").read_bytes()
    use_folds(tmp_path, folds)  # the same again
    with pytest.raises(StaleError, match=r"other folds are in use(.|\n)*1 fold with a test part"):
        use_folds(tmp_path, folds_asked_for(raw, "6/3/3", False))
    assert (tmp_path / "splits.json").read_bytes() == before
    (raw / "splits.json").write_bytes(before)
    with pytest.raises(AutosegError, match="the raw dataset has folds of its own"):
        folds_asked_for(raw, "8/2/2", False)
