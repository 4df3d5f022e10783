"""Folds: nnU-Net's, written once, refused when they no longer fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from autoseg.dataset.folds import (
    Fold,
    divide_once,
    left_out,
    load_or_make_folds,
    make_folds,
    take_given_folds,
    write_folds,
)
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
        ([{"train": ["a"], "val": ["b"], "tune": ["c"]}], r"fold 0 +has other parts +train, val, tune"),
        ([{"train": ["a"], "val": ["b"], "test": []}], r"fold 0 +test names no cases(.|\n)*leave test out"),
        ([{"train": ["a"], "val": ["b"], "test": ["a"]}], r"fold 0 +cases train and test +a"),
        ([{"train": ["a"], "val": ["b", "c"], "test": ["c"]}], r"fold 0 +cases validate and test +c"),
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


# ------------------------------------------------------------------------------------------------ a third part


def test_each_part_tests_once_validates_once_and_trains_in_the_other_folds() -> None:
    """Parts of 3, 3, 2, 2, 2 cases: those of the folds without a test part."""
    parts = [fold.validation for fold in make_folds(NAMES)]
    folds = make_folds(NAMES, with_test=True)
    assert [fold.test for fold in folds] == parts
    assert [fold.validation for fold in folds] == parts[1:] + parts[:1]
    assert all(sorted(fold.train + fold.validation + fold.test) == NAMES for fold in folds)
    assert [len(fold.train) for fold in folds] == [6, 7, 8, 8, 7]


def test_folds_are_written_with_a_test_part_only_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    write_folds(path, [Fold(("a", "b"), ("c",)), Fold(("a",), ("b",), ("c",))])
    assert json.loads(path.read_text()) == [
        {"train": ["a", "b"], "val": ["c"]},
        {"train": ["a"], "val": ["b"], "test": ["c"]},
    ]
    assert load_or_make_folds(path, "abc") == [Fold(("a", "b"), ("c",)), Fold(("a",), ("b",), ("c",))]


def test_a_test_part_that_came_with_the_dataset_is_taken_and_counts_as_in_the_file(tmp_path: Path) -> None:
    given, path = tmp_path / "raw.json", tmp_path / "splits.json"
    given.write_text(json.dumps([{"train": ["b"], "val": ["a"], "test": ["d", "c"]}]))
    take_given_folds(given, path, "abcd")
    take_given_folds(given, path, "abcd")  # again: the same are in use
    assert load_or_make_folds(path, "abcd") == [Fold(("b",), ("a",), ("c", "d"))]
    write_folds(path, [Fold(("b",), ("a",), ("c",)), Fold(("b",), ("a",), ("d",))])
    with pytest.raises(StaleError, match="not those that came with the raw dataset"):
        take_given_folds(given, path, "abcd")


@pytest.mark.parametrize(("names", "n_folds"), [("ab", 5), ("abcde", 2)])
def test_too_few_for_three_parts(names: str, n_folds: int) -> None:
    with pytest.raises(AutosegError, match=r"(?s)3 kinds of parts.*at least 3 of each"):
        make_folds(names, n_folds, with_test=True)


# ---------------------------------------------------------------------------------------------------- subjects


def test_cases_that_are_their_own_subjects_change_nothing() -> None:
    """Whatever the subjects are called: they come in the order of their cases."""
    alone = {name: f"rat {100 - i}" for i, name in enumerate(NAMES)}
    assert make_folds(NAMES, subjects=alone) == make_folds(NAMES)
    assert make_folds(NAMES, subjects=dict(list(alone.items())[:5])) == make_folds(NAMES)


def test_pairs_stay_together_in_the_folds_of_their_subjects() -> None:
    """Six rats, two scans each: the folds of six cases, twice."""
    rats = [f"rat{i}" for i in range(6)]
    scans = {f"{rat}_{day}": rat for rat in rats for day in ("d2", "d7")}
    expected = [
        tuple(f"{rat}_{day}" for rat in fold.validation for day in ("d2", "d7"))
        for fold in make_folds(rats, 3)
    ]
    assert [fold.validation for fold in make_folds(scans, 3, subjects=scans)] == expected


@pytest.mark.parametrize("with_test", [False, True])
def test_subjects_of_many_sizes_stay_together_and_parts_are_balanced(with_test: bool) -> None:
    """5, 4, 3, 3, 2, 2, 1, 1 scans into 3 parts, largest first into the smallest part: 7, 7, 7."""
    sizes = (1, 4, 3, 2, 5, 3, 1, 2)
    subjects = {f"{s}{i}": f"s{s}" for s, size in enumerate(sizes) for i in range(size)}
    folds = make_folds(reversed(list(subjects)), 3, with_test=with_test, subjects=subjects)
    assert folds == make_folds(subjects, 3, with_test=with_test, subjects=subjects)
    assert folds != make_folds(subjects, 3, seed=1, with_test=with_test, subjects=subjects)
    held = [fold.test if with_test else fold.validation for fold in folds]
    assert sorted(name for part in held for name in part) == sorted(subjects)
    assert [len(part) for part in held] == [7, 7, 7]
    for fold in folds:
        of = [{subjects[name] for name in part} for part in fold.parts.values()]
        assert sum(map(len, of)) == len(set.union(*of)) == 8


def test_one_large_subject_does_not_leave_a_part_empty() -> None:
    subjects = {**{f"a{i}": "a" for i in range(10)}, "b0": "b", "c0": "c", "d0": "d", "e0": "e"}
    folds = make_folds(subjects, subjects=subjects)
    assert sorted(len(fold.validation) for fold in folds) == [1, 1, 1, 1, 10]


def test_one_subject_cannot_be_divided_and_few_make_few_folds() -> None:
    assert make_folds("abc", subjects=dict.fromkeys("abc", "s")) == []
    assert len(make_folds("abc", subjects={"a": "s", "b": "s"})) == 2
    with pytest.raises(AutosegError, match=r"(?s)3 kinds of parts.*5 folds of 2 cases or subjects"):
        make_folds("abc", with_test=True, subjects={"a": "s", "b": "s"})


def test_folds_that_tear_a_subject_apart_are_refused_whoever_made_them(tmp_path: Path) -> None:
    given, path = tmp_path / "raw.json", tmp_path / "splits.json"
    for file in (given, path):
        write_folds(file, [Fold(("a", "c"), ("b",)), Fold(("a", "b"), ("c",))])
    subjects = {"a": "rat 1", "c": "rat 1"}
    for read in (
        lambda: load_or_make_folds(path, "abc", subjects),
        lambda: take_given_folds(given, tmp_path / "other.json", "abc", subjects),
    ):
        with pytest.raises(FaultsError, match=r"fold 1 +subject rat 1 is torn apart +a in train, c in val"):
            read()
    assert not (tmp_path / "other.json").exists()
    assert load_or_make_folds(path, "abc", {"a": "rat 1"}) == load_or_make_folds(path, "abc")


# ------------------------------------------------------------------------------------------------- proportions


@pytest.mark.parametrize("seed", range(3))
def test_proportions_that_add_up_are_met_exactly(seed: int) -> None:
    """The 239 scans of ATLAS as its paper divides them."""
    names = [f"{i:03}" for i in range(239)]
    fold = divide_once(names, (182, 26, 31), seed)
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [182, 26, 31]
    assert sorted(fold.train + fold.validation + fold.test) == names
    assert fold == divide_once(reversed(names), (182, 26, 31), seed) != divide_once(names, (182, 26, 31), 9)


def test_subjects_stay_together_and_those_with_many_cases_are_spread_as_the_others() -> None:
    """Of 60 cases 40, 10 and 10: ten subjects of four cases, and twenty of one. By hand: 26.7, 6.7, 6.7 of the 40."""
    subjects = {f"m{i}_{day}": f"m{i}" for i in range(10) for day in range(4)}
    names = [*subjects, *(f"s{i}" for i in range(20))]
    fold = divide_once(names, (4, 1, 1), subjects=subjects)
    parts = [fold.train, fold.validation, fold.test]
    assert [len(part) for part in parts] == [40, 10, 10]
    many = [{subjects[name] for name in part if name in subjects} for part in parts]
    assert sum(map(len, many)) == 10 and [len(part) for part in many] == [6, 2, 2]


def test_no_part_is_empty_and_the_third_may_be_left_out() -> None:
    sizes = {"a": 9, "b": 1, "c": 1}
    subjects = {f"{s}{i}": s for s, size in sizes.items() for i in range(size)}
    fold = divide_once(subjects, (1, 1, 98), subjects=subjects)
    assert sorted(map(len, (fold.train, fold.validation, fold.test))) == [1, 1, 9]
    assert [len(part) for part in divide_once(NAMES, (3, 1)).parts.values()] == [9, 3]


def test_fewer_subjects_than_parts_are_refused() -> None:
    with pytest.raises(AutosegError, match=r"(?s)into 3 parts.*2 cases or subjects.*at least 3"):
        divide_once("abc", (1, 1, 1), subjects={"a": "s", "b": "s"})


def stratified(counts: dict[str, int]) -> dict[str, str]:
    """So many cases of each stratum."""
    return {f"{stratum}_{i:02d}": stratum for stratum, n in counts.items() for i in range(n)}


def test_the_study_of_43_strokes_in_three_subtypes() -> None:
    """10 lacunar, 7 small cortical and 26 big cortical cases: parts of 9, 9, 9, 8 and 8 that are alike."""
    strata = stratified({"lacunar": 10, "small": 7, "big": 26})
    folds = make_folds(strata, with_test=True, strata=strata)
    assert sorted((len(fold.test) for fold in folds), reverse=True) == [9, 9, 9, 8, 8]
    assert all(len(fold.validation) in (8, 9) and len(fold.train) in (25, 26, 27) for fold in folds)
    for stratum, each in {"lacunar": {2}, "small": {1, 2}, "big": {5, 6}}.items():
        assert {sum(strata[name] == stratum for name in fold.test) for fold in folds} == each
    tested = [fold.test for fold in folds]
    assert sorted(name for part in tested for name in part) == sorted(strata)
    assert [fold.validation for fold in folds] == [*tested[1:], tested[0]]
    assert folds == make_folds(reversed(list(strata)), with_test=True, strata=strata)
    assert folds != make_folds(strata, seed=1, with_test=True, strata=strata)


def test_subjects_stay_together_in_strata() -> None:
    """Ten subjects of each stratum, every other one with two scans; each part has three scans of each."""
    strata = {f"{s}{i}_{scan}": s for s in ("left", "right") for i in range(10) for scan in range(1 + i % 2)}
    subjects = {name: name.split("_")[0] for name in strata}
    folds = make_folds(strata, strata=strata, subjects=subjects)
    for fold in folds:
        assert {subjects[name] for name in fold.train}.isdisjoint(subjects[name] for name in fold.validation)
        assert [sum(strata[n] == s for n in fold.validation) for s in ("left", "right")] == [3, 3]
