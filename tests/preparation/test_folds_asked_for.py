"""What --folds may be: a number, proportions, a list. No image is read for it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoseg.dataset.folds import Fold, make_folds
from autoseg.errors import AutosegError, StaleError
from autoseg.preparation.steps import folds_asked_for, strata_asked_for, use_folds

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


def test_groups_of_a_column_are_spread(raw: Path) -> None:
    kinds = {name: "rare" if name in NAMES[4:8] else "common" for name in NAMES}
    (raw / "groups.csv").write_text("case,Kind\n" + "".join(f"{n},{k}\n" for n, k in kinds.items()))
    strata = strata_asked_for(raw, "kind")
    assert strata == kinds
    folds = folds_asked_for(raw, "4", True, strata)
    assert [sum(kinds[name] == "rare" for name in fold.test) for fold in folds] == [1] * 4
    assert strata_asked_for(raw, None) is None


def test_thirds_by_the_volume_of_lesions_are_spread(raw: Path) -> None:
    volumes = {name: (7 * i) % 12 for i, name in enumerate(NAMES)}
    cases = [SimpleNamespace(name=n, lesions=SimpleNamespace(volume_ml=float(v))) for n, v in volumes.items()]
    strata = strata_asked_for(raw, "lesion_volume", SimpleNamespace(cases=cases))
    assert strata == {n: ("small", "medium", "large")[v // 4] for n, v in volumes.items()}
    assert set(strata_asked_for(raw, "lesion_volume").values()) == {""}  # before a case is read


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (None, "no such file"),
        ("case,site\n", "the columns case, site"),
        ("case,kind\n", "the columns case, kind"),
        ("case,kind\n" + "".join(f"{n},{n}\n" for n in NAMES), "12 entries in column kind for 12 cases"),
    ],
)
def test_a_column_without_groups_is_refused(raw: Path, table: str | None, found: str) -> None:
    (raw / "groups.csv").unlink()
    if table is not None:
        (raw / "groups.csv").write_text(table)
    with pytest.raises(AutosegError, match=rf"no groups to spread(.|\n)*{found}(.|\n)*lesion_volume"):
        strata_asked_for(raw, "kind")


def test_proportions_and_lists_have_no_strata(raw: Path) -> None:
    with pytest.raises(AutosegError, match=r"--stratify goes with a number of folds(.|\n)*--folds 8/2/2"):
        folds_asked_for(raw, "8/2/2", False, dict.fromkeys(NAMES, ""))


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
