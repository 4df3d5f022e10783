"""A table of files, as people keep one: a line for each case, a column for each channel.

Paths are relative to the folder of the table, or absolute. Tables of Excel, R and editors are read: commas,
semicolons or tabs, a byte order mark, blanks around cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg import messages
from autoseg.dataset.raw_layout import Case
from autoseg.dataset.text_table import read_table
from autoseg.errors import AutosegError, Fault
from autoseg.files import readable
from autoseg.messages import some_of
from autoseg.scans.ordinary_files import named_case, stem_of

TABLES = (".csv", ".tsv")
CASE = ("case", "name", "id", "case_id", "scan")
"""Titles of the column that names the cases."""
IMAGE = ("image", "img", "file", "path", "scan_file")
"""Titles of the column with the images of one channel."""


@dataclass(frozen=True)
class TableLine:
    """One line of a table of files.

    Attributes:
        number: of the line, for messages.
        case: its name, by its column or after its first file.
        files: title of a column to the file that it names; empty cells are left out.
        words: the cells of all other columns.
    """

    number: int
    case: str
    files: Mapping[str, Path]
    words: Mapping[str, str] = field(default_factory=dict)


def read_lines(path: Path, columns: Sequence[str]) -> list[TableLine]:
    """The lines of a table.

    Args:
        path: of the table.
        columns: titles, as they are written there, of those that hold files.

    Raises:
        AutosegError: it is no table of text, or is empty.
        FaultsError: lines that do not fit the header.
    """
    header, rows = read_table(path, "table")
    named = next((title for title in header if title.casefold() in CASE), None)
    lines = []
    for number, row in rows:
        cells = dict(zip(header, row, strict=True))
        files = {title: resolved(cells[title], path.parent) for title in columns if cells[title]}
        first = next(iter(files.values()), None)
        name = (cells[named] if named else "") or (
            stem_of(first) or first.stem if first else f"line {number}"
        )
        words = {title: cell for title, cell in cells.items() if title not in (*columns, named)}
        lines.append(TableLine(number, name, files, words))
    return lines


def resolved(cell: str, folder: Path) -> Path:
    """The file that a cell names; backslashes of Windows are understood where nothing is called so."""
    path = folder / Path(cell).expanduser()
    if not path.exists() and "\\" in cell:
        other = folder / Path(cell.replace("\\", "/"))
        return other if other.exists() else path
    return path


def title_of(header: Sequence[str], *names: str) -> str | None:
    """The title in a header that is one of the names, capitals or not."""
    wanted = [name.casefold() for name in names]
    return next((title for title in header if title.casefold() in wanted), None)


def cases_of_table(path: Path, names: Sequence[str]) -> list[Case]:
    """The cases of a table; a line without a file, or with one that is not there, is a case with a fault.

    Args:
        path: of the table.
        names: of the model's channels, each a column; with one channel the column may be called ``image``.

    Raises:
        AutosegError: a column is missing, or the table cannot be read.
    """
    header, _ = read_table(path, "table")
    titles = [title_of(header, name, *(IMAGE if len(names) == 1 else ())) for name in names]
    if None in titles:
        missing = [name for name, title in zip(names, titles, strict=True) if title is None]
        raise AutosegError(
            f"has no column {' and no column '.join(missing)}",
            where=readable(path),
            found=", ".join(header),
            expected=",".join(("case", *names)) if len(names) > 1 else f"case,{names[0]} or case,image",
            fix="name a column after each channel of the model",
        )
    used = [title for title in titles if title]
    lines = read_lines(path, used)
    if unused := [title for title in header if title not in used and title.casefold() not in CASE]:
        messages.info(f"{readable(path.name)}: columns that are not used: {some_of(unused)}")
    counts = Counter(line.case for line in lines)
    return sorted((_case(path, line, used, counts) for line in lines), key=lambda case: case.name)


def _case(table: Path, line: TableLine, titles: Sequence[str], counts: Counter[str]) -> Case:
    where = f"{table.name}, line {line.number}"
    case = named_case(line.case, tuple(line.files.values()))
    missing = [title for title in titles if title not in line.files]
    gone = [path for path in line.files.values() if not path.exists() and not path.is_symlink()]
    folders = [path for path in line.files.values() if path.is_dir()]
    fault = case.fault
    if counts[line.case] > 1:
        fix = "give each line a name of its own, in a column called case"
        fault = Fault(where, "the same case twice", line.case, "one line for each case", fix)
    elif missing:
        fault = Fault(
            where, f"names no file for {', '.join(missing)}", "an empty cell", "a path", "fill it in"
        )
    elif gone:
        fix = "paths are relative to the folder of the table"
        fault = Fault(where, "there is no such file", readable(gone[0]), "a file", fix)
    elif folders:
        fix = "a table of autoseg_predict names files; of DICOM give the folder around all series with -i"
        fault = Fault(where, "is a folder", readable(folders[0]), "an image file", fix)
    name = f"{case.name} ({where})" if counts[line.case] > 1 else case.name
    return replace(case, name=name, fault=fault)
