"""Folds from a list that the user gives: nnU-Net's ``splits_final.json``, or a table as others publish it.

The list may spell cases in its own way: by the case, by the subject, or by the path of a file of the case.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg import messages
from autoseg.dataset.folds import Fold, checked_folds, refuse_torn
from autoseg.dataset.text_table import read_table
from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names
from autoseg.files import read_json
from autoseg.messages import count_of, some_of

WHAT = "list of folds"
CASE_COLUMNS = (
    "case",
    "scan",
    "image",
    "filename",
    "file",
    "id",
    "subject",
    "subjectid",
    "participantid",
    "name",
)
"""Titles of the column of cases, small letters alone; the first that is there."""
PART_COLUMNS, FOLD_COLUMNS = ("part", "split", "set", "subset"), ("fold", "foldid", "foldnumber")
SESSION_COLUMNS = ("session", "sessionid")
PART_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing"),
}
"""What stands in the column of parts; capitals do not matter."""

Entries = list[dict[str, list[str]]]
"""As of splits.json."""


def read_fold_list(path: Path, names: Sequence[str], subjects: Mapping[str, str]) -> list[Fold]:
    """The folds of a list, with the names of this dataset.

    Args:
        path: ``.json`` as nnU-Net writes it; else a table with the columns case and part (train, val or test), and
            perhaps fold; or case and fold, the fold that holds the case out.
        names: of all cases of the dataset.
        subjects: case to subject. A subject in the list stands for all its cases.

    Raises:
        AutosegError: it cannot be read, has not the columns, or lacks cases of the dataset.
        FaultsError: unknown names, names given twice, words that are no parts, parts without cases, torn subjects.
    """
    content = read_json(path) if path.suffix.casefold() == ".json" else _entries(path)
    folds = checked_folds(path, _named(path, content, names, subjects))
    refuse_torn(path, folds, subjects)
    _refuse_missing(path, folds, names)
    return folds


def _refuse_missing(path: Path, folds: Sequence[Fold], names: Sequence[str]) -> None:
    named = {name for fold in folds for part in fold.parts.values() for name in part}
    if missing := sorted(set(names) - named):
        raise AutosegError(
            f"{count_of(len(missing), 'case')} of the dataset {'is' if len(missing) == 1 else 'are'} in no fold",
            where=str(path),
            found=f"not in the list: {some_of(missing)}",
            expected=f"the {len(names)} cases of the dataset, each in at least one fold",
            fix="add them to the list, or take them out of the dataset",
        )


# ----------------------------------------------------------------------------------------------------- names


def _named(path: Path, content: Any, names: Sequence[str], subjects: Mapping[str, str]) -> Any:
    """The content with the cases that its names mean; what is no list of names is left for the later check.

    Raises:
        FaultsError: names that mean no case.
    """
    if not isinstance(content, list):
        return content
    meaning = _meanings(names, subjects)
    unknown: dict[str, None] = {}

    def cases(part: Any) -> Any:
        if not isinstance(part, list) or not all(isinstance(name, str) for name in part):
            return part
        meant = {name: meaning(name) for name in part}
        unknown.update(dict.fromkeys(name for name, found in meant.items() if not found))
        return [case for name in part for case in meant[name]]

    named = [
        {key: cases(part) for key, part in entry.items()} if isinstance(entry, dict) else entry
        for entry in content
    ]
    if unknown:
        raise FaultsError(
            f"{path}: {count_of(len(unknown), 'name means', 'names mean')} no case of the dataset",
            [_unknown(name, names) for name in list(unknown)[:20]],
            "name in the list",
        )
    return named


def _unknown(name: str, names: Sequence[str]) -> Fault:
    expected = f"a case, such as {min(names)}, its subject, or a file of it"
    return Fault(name, "is no case of the dataset", "", expected, nearest_names(name, names) if names else "")


def _meanings(names: Sequence[str], subjects: Mapping[str, str]) -> Callable[[str], tuple[str, ...]]:
    """What a name in a list means: a case; the cases of a subject; the case whose file it is; none."""
    of: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for case in sorted(names):
        if case in subjects:
            of[subjects[case]] += (case,)
    of.update({case: (case,) for case in names})

    def meaning(name: str) -> tuple[str, ...]:
        last = re.split(r"[/\\]", name.strip())[-1]
        stem = re.sub(r"(\.nii)?\.\w+$", "", last) if last not in of else last
        for spelled in (last, stem, f"sub-{last}"):
            if spelled in of:
                return of[spelled]
            if begun := tuple(case for case in sorted(names) if case.startswith(f"{spelled}_")):
                return begun
        beginnings = (stem[: match.start()] for match in re.finditer("_", stem)) if stem != last else ()
        return next((of[part] for part in reversed(list(beginnings)) if of.get(part) == (part,)), ())

    return meaning


# ---------------------------------------------------------------------------------------------------- tables


def _entries(path: Path) -> Entries:
    """What a table says, in the form of splits.json."""
    header, rows = read_table(path, WHAT)
    titles = [re.sub(r"[^a-z]", "", title.casefold()) for title in header]

    def column(known: Sequence[str]) -> int | None:
        return next((titles.index(title) for title in known if title in titles), None)

    case, part, fold = column(CASE_COLUMNS), column(PART_COLUMNS), column(FOLD_COLUMNS)
    session = column(SESSION_COLUMNS)

    def name(row: Sequence[str]) -> str:
        return "_".join(row[i] for i in (case, session) if i is not None and row[i])

    if case is not None and part is not None:
        cells = [(line, name(row), row[part], "" if fold is None else row[fold]) for line, row in rows]
        return _with_parts(path, cells)
    if case is not None and fold is not None:
        return _held_out(path, [(line, name(row), row[fold]) for line, row in rows])
    raise AutosegError(
        "the table does not say what a case does",
        where=str(path),
        found=f"the columns {', '.join(header)}",
        expected="the columns case and part (train, val, test), and fold where there are several; or case and fold, "
        "the fold that holds the case out",
        fix="name the columns so",
    )


def _held_out(path: Path, cells: Sequence[tuple[int, str, str]]) -> Entries:
    """Each fold validates on the cases that have its number, and trains on all others."""
    _refuse(path, [_no_number(path, line, fold) for line, _, fold in cells if not fold.isdecimal()])
    _refuse(path, _twice(path, [(line, name) for line, name, _ in cells]))
    numbers = sorted({int(fold) for *_, fold in cells})
    if len(numbers) < 2:
        found, expected = f"only fold {numbers[0]}", "at least two folds, or a column part"
        raise AutosegError(
            "all cases are held out by one fold", where=str(path), found=found, expected=expected
        )
    _tell_numbers(path, numbers)
    return [
        {
            "train": [name for _, name, fold in cells if int(fold) != number],
            "val": [name for _, name, fold in cells if int(fold) == number],
        }
        for number in numbers
    ]


def _with_parts(path: Path, cells: Sequence[tuple[int, str, str, str]]) -> Entries:
    """One fold for each number; a row without one holds for every fold."""
    words = {word: part for part, known in PART_WORDS.items() for word in known}
    faults = [
        Fault(
            f"{path.name}, line {line}", "is no part", part or "nothing", "train, val or test", "correct it"
        )
        for line, _, part, _ in cells
        if part.casefold() not in words
    ]
    faults += [_no_number(path, line, fold) for line, *_, fold in cells if fold and not fold.isdecimal()]
    _refuse(path, faults)
    numbers = sorted({int(fold) for *_, fold in cells if fold}) or [0]
    _tell_numbers(path, numbers)
    entries: Entries = []
    for number in numbers:
        here = [(line, name, part) for line, name, part, fold in cells if not fold or int(fold) == number]
        _refuse(path, _twice(path, [(line, name) for line, name, _ in here]))
        entry: dict[str, list[str]] = {"train": [], "val": []}
        for _, name, part in here:
            entry.setdefault(words[part.casefold()], []).append(name)
        entries.append(entry)
    return entries


def _tell_numbers(path: Path, numbers: Sequence[int]) -> None:
    """Folds are counted from 0 here, whatever their numbers in the list."""
    if numbers != (here := list(range(len(numbers)))):
        there, now = (", ".join(map(str, listed)) for listed in (numbers, here))
        messages.warn(f"{path.name}: the folds {there} of the list are folds {now} here, in this order")


def _no_number(path: Path, line: int, fold: str) -> Fault:
    return Fault(
        f"{path.name}, line {line}", "is no number of a fold", fold or "nothing", "0, 1, 2, ...", "correct it"
    )


def _twice(path: Path, cells: Sequence[tuple[int, str]]) -> list[Fault]:
    first: dict[str, int] = {}
    return [
        Fault(
            f"{path.name}, line {line}",
            "a name given twice",
            name,
            f"once, as in line {first[name]}",
            "remove one",
        )
        for line, name in cells
        if first.setdefault(name, line) != line
    ]


def _refuse(path: Path, faults: Sequence[Fault]) -> None:
    if faults:
        raise FaultsError(f"{path}: {count_of(len(faults), 'fault')}", faults[:20])
