"""Tables that people, Excel and R write: text with commas, semicolons or tabs between the cells."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import csv_words


def read_table(path: Path, what: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers, as wide as the header.

    Args:
        path: of the file.
        what: it is, for messages.

    Raises:
        AutosegError: it is missing, empty, no text table, without a row, or two columns have the same name.
        FaultsError: a line has more cells than the header.
    """
    (_, header), *rows = _lines(path, what)
    header = [name or f"column {i + 1}" for i, name in enumerate(header)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise AutosegError(
            "two columns have the same name",
            where=str(path),
            found=", ".join(twice),
            fix="rename one of them",
        )
    if not rows:
        raise AutosegError(
            "there is a header but no case",
            where=str(path),
            expected="a line for each case",
            fix="fill it in",
        )
    wide = [
        Fault(
            f"{path.name}, line {number}",
            "has more cells than the header",
            str(len(row)),
            str(len(header)),
            "put texts that hold the separator in quotes",
        )
        for number, row in rows
        if len(row) > len(header)
    ]
    if wide:
        raise FaultsError(f"{path}: lines that do not fit the header", wide)
    return header, [(number, row + [""] * (len(header) - len(row))) for number, row in rows]


def _lines(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Cells of every line that is not blank, with its number; empty cells at the end of a line are cut off."""
    text = _read_text(path, what)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise AutosegError(
            "the file is empty",
            where=str(path),
            expected="a header such as case,scanner and a line for each case",
        )
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, [_clean(cell) for cell in row]) for row in reader]
    except csv.Error as error:
        raise _no_table(path, str(error)) from None
    for _, row in lines:
        while row and not row[-1]:
            row.pop()
    return [(number, row) for number, row in lines if row]


def _clean(cell: str) -> str:
    """A cell without space around it; the words that pandas, R and people write for no value become empty."""
    cell = csv_words(cell.strip())
    return "" if cell.casefold() in ("na", "n/a", "nan") else cell


def _read_text(path: Path, what: str) -> str:
    """The text of a table that Excel, R or an editor wrote: UTF-8, UTF-16 with a byte order mark, or Latin 1."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise AutosegError(f"the {what} is missing", where=str(path), fix="check the path") from None
    except OSError as error:
        raise AutosegError("cannot be read", where=str(path), found=error.strerror or str(error)) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content or content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise _no_table(path, "a spreadsheet or another binary file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _no_table(path: Path, found: str) -> AutosegError:
    return AutosegError(
        "is not a text table",
        where=str(path),
        found=found,
        expected="text with commas, semicolons or tabs between the cells",
        fix="open it in your spreadsheet program and save it as CSV",
    )
