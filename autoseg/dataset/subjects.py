"""What a raw dataset's groups.csv says of its cases, such as of which subject they are (column ``subject``)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from autoseg.dataset.conversion import SourceCase
from autoseg.dataset.raw_layout import split_name
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import csv_words
from autoseg.messages import count_of

GROUPS, COLUMN = "groups.csv", "subject"


def read_subjects(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Case to its subject, of the cases that have one.

    Args:
        path: ``groups.csv``: a header, and a line for each case, whose name stands in the column ``case`` or in the
            first. Cells are set apart by commas, semicolons or tabs.
        names: of all cases of the dataset; others are passed over.

    Returns:
        Empty without the file, or without a column ``subject``.

    Raises:
        AutosegError: the file cannot be read.
        FaultsError: a case has two subjects.
    """
    return _read(path, names, COLUMN)[1]


def read_strata(path: Path, names: Iterable[str], column: str) -> dict[str, str]:
    """Case to its entry in a column; those without one to the empty text.

    Args:
        path, names: as of :func:`read_subjects`.
        column: its title; capitals do not matter.

    Raises:
        AutosegError: there is no such column, no entry in it, or a new one in each line.
        FaultsError: a case has two entries.
    """
    names = sorted(names)
    header, found = _read(path, names, column)
    strata = {name: found.get(name, "") for name in names}
    kinds = len(set(found.values()))
    if not found or kinds == len(names):
        raise AutosegError(
            f"{GROUPS} has no groups to spread over the folds",
            where=str(path),
            found=f"{kinds} entries in column {column} for {len(names)} cases"
            if found
            else f"the columns {', '.join(header)}"
            if header
            else "no such file",
            expected=f"a column {column} with the group of each case, several cases in a group",
            fix="name another column, or lesion_volume for thirds by the volume of the lesions",
        )
    return strata


def _read(path: Path, names: Iterable[str], column: str) -> tuple[list[str], dict[str, str]]:
    """The titles, and case to its entry in a column; nothing without the file or the column."""
    if not path.exists():
        return [], {}
    header, *lines = _table(path) or [[]]
    titles = [title.casefold() for title in header]
    if column.casefold() not in titles:
        return header, {}
    at, of = titles.index("case") if "case" in titles else 0, titles.index(column.casefold())
    known, entries, faults = set(names), dict[str, str](), []
    for line in lines:
        case, entry = (line[i] if i < len(line) else "" for i in (at, of))
        case = case if case in known else (split_name(case) or (case,))[0]
        if case not in known or not entry:
            continue
        if entries.setdefault(case, entry) != entry:
            found, fix = f"{entries[case]}, {entry}", "keep one line for each case"
            faults.append(Fault(case, f"is of two {column}s", found, f"one {column}", fix))
    if faults:
        raise FaultsError(f"{path}: {count_of(len(faults), 'fault')}", faults)
    return header, entries


def with_subjects(cases: Iterable[SourceCase], pattern: str) -> tuple[SourceCase, ...]:
    """Cases of a conversion with the subject that their names tell of.

    Args:
        cases: with names such as ``sub-01_ses-2``.
        pattern: a regular expression; its first group is the subject, or all that it matches where it has no group.

    Raises:
        AutosegError: it is no regular expression.
        FaultsError: names that it does not fit.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        fix = "write one such as '(sub-[^_]+)'"
        raise AutosegError(
            "is no regular expression", where=f"--subject {pattern}", found=error, fix=fix
        ) from None
    found, faults = [], []
    for case in cases:
        match = expression.search(case.name)
        if match is None:
            faults.append(
                Fault(case.name, "has no subject", "", f"a name that {pattern} fits", "change --subject")
            )
            continue
        subject = match[1] if expression.groups else match[0]
        found.append(
            replace(case, groups={COLUMN: subject, **{k: v for k, v in case.groups.items() if k != COLUMN}})
        )
    if faults:
        raise FaultsError(
            f"--subject {pattern}: {count_of(len(faults), 'name')} without a subject", faults[:20]
        )
    return tuple(found)


def _table(path: Path) -> list[list[str]]:
    """The cells of all lines that are not blank."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AutosegError("cannot be read", where=str(path), found=error.strerror or str(error)) from None
    # as Excel writes it
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    lines = [line for line in content.decode(encoding, errors="replace").splitlines() if line.strip()]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    return [[csv_words(cell.strip()) for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
