"""Which cases are of one subject: the column ``subject`` of a raw dataset's groups.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

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
    if not path.exists():
        return {}
    header, *lines = _table(path) or [[]]
    titles = [title.casefold() for title in header]
    if COLUMN not in titles:
        return {}
    at, of = titles.index("case") if "case" in titles else 0, titles.index(COLUMN)
    known, subjects, faults = set(names), dict[str, str](), []
    for line in lines:
        case, subject = (line[i] if i < len(line) else "" for i in (at, of))
        case = case if case in known else (split_name(case) or (case,))[0]
        if case not in known or not subject:
            continue
        if subjects.setdefault(case, subject) != subject:
            found, fix = f"{subjects[case]}, {subject}", "keep one line for each case"
            faults.append(Fault(case, "is of two subjects", found, "one subject", fix))
    if faults:
        raise FaultsError(f"{path}: {count_of(len(faults), 'fault')}", faults)
    return subjects


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
