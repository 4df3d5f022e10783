"""Folds: nnU-Net's, written once, refused when they no longer fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from autoseg.dataset.folds import Fold, left_out, load_or_make_folds, make_folds
from autoseg.errors import AutosegError, FaultsError, StaleError

NAMES = [f"case_{i:02d}" for i in range(12)]


def test_the_folds_are_nnunets() -> None:
    expected = list(KFold(5, shuffle=True, random_state=12345).split(NAMES))
    folds = make_folds(reversed(NAMES))
    assert [fold.train for fold in folds] == [tuple(NAMES[i] for i in train) for train, _ in expected]
    assert [fold.validation for fold in folds] == [tuple(NAMES[i] for i in held) for _, held in expected]


def test_the_folds_follow_from_numpys_frozen_generator() -> None:
    """Independent of scikit-learn: a shuffle, cut into 3, 3, 2, 2, 2."""
    order = np.arange(12)
    np.random.RandomState(12345).shuffle(order)
    expected = [tuple(NAMES[i] for i in sorted(part)) for part in np.split(order, [3, 6, 8, 10])]
    assert [fold.validation for fold in make_folds(NAMES)] == expected


@pytest.mark.parametrize(("n", "n_folds"), [(1, 0), (2, 2), (4, 4), (5, 5), (120, 5)])
def test_every_case_validates_once(n: int, n_folds: int) -> None:
    names = [f"{i:03d}" for i in range(n)]
    folds = make_folds(names)
    assert len(folds) == n_folds
    if folds:
        assert sorted(name for fold in folds for name in fold.validation) == names
        assert all(sorted(fold.train + fold.validation) == names for fold in folds)


def test_folds_are_written_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    made = load_or_make_folds(path, NAMES)
    before = path.read_bytes()
    assert load_or_make_folds(path, NAMES) == made == make_folds(NAMES)
    assert path.read_bytes() == before


def test_a_single_case_has_no_folds_and_no_file(tmp_path: Path) -> None:
    assert load_or_make_folds(tmp_path / "splits.json", ["a"]) == []
    assert list(tmp_path.iterdir()) == []


def test_folds_written_by_hand_are_used(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["c", "a"], "val": ["b"]}]))
    assert load_or_make_folds(path, ["a", "b", "c"]) == [Fold(("a", "c"), ("b",))]


def test_new_and_lost_cases_make_the_folds_stale(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    load_or_make_folds(path, ["a1", "b1", "c1"])
    before = path.read_bytes()
    with pytest.raises(StaleError) as caught:
        load_or_make_folds(path, ["a1", "b1", "d1"])
    text = str(caught.value)
    assert "not in the file: d1" in text and "no longer in the dataset: c1" in text
    assert str(path) in text and "delete it" in text
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"], "val": ["b"]}, "not a list of folds"),
        ([], "not a list of folds"),
        ([{"train": ["a"], "test": ["b"]}], r"fold 0 +has other parts +train, test +train and val"),
        ([{"train": ["a", "b"], "val": []}], r"fold 0 +val names no cases"),
        ([{"train": ["a", "b"], "val": ["b"]}], r"fold 0 +cases train and validate +b"),
        ([{"train": ["a", "a"], "val": ["b"]}], r"fold 0 +train names a case twice +a"),
        ([{"train": ["a"], "val": ["b"]}, ["a"]], r"fold 1 +has other parts"),
    ],
)
def test_folds_that_contradict_themselves_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(content))
    with pytest.raises((AutosegError, FaultsError), match=message) as caught:
        load_or_make_folds(path, ["a", "b"])
    assert str(path) in str(caught.value)
    assert json.loads(path.read_text()) == content


def test_parts_that_are_left_out_share_the_cases_out() -> None:
    names = ["e", "a", "c", "d", "b"]
    assert left_out(names, None) == ()
    assert left_out(names, (0, 2)) == ("a", "c", "e") and left_out(names, (1, 2)) == ("b", "d")
    parts = [left_out(names, (k, 3)) for k in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
