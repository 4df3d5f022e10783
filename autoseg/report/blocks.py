"""What a page is made of: sections with paragraphs, tables, figures and cases. The template gives them their look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from autoseg.evaluation.text import repeated
from autoseg.files import csv_text
from autoseg.report.case_cards import Drawn, ShownCase
from autoseg.report.drawing import Chart


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        tip: said when the pointer rests on it.
        number: aligned to the right.
        head: names its row.
    """

    text: str
    tip: str = ""
    number: bool = False
    head: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: above it.
        header: titles of the columns.
        rows: of as many cells each, or of one, which is a title of the rows below it.
        folded: shown when the reader opens it.
    """

    caption: str
    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Text:
    """Paragraphs; ``muted`` ones are less important."""

    paragraphs: tuple[str, ...]
    muted: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Points:
    """A list with points; ``warning`` ones stand out."""

    items: tuple[str, ...]
    warning: bool = False
    kind: str = "points"


@dataclass(frozen=True)
class Commands:
    """Commands as they were typed."""

    lines: tuple[str, ...]
    kind: str = "commands"


@dataclass(frozen=True)
class Figure:
    """A chart."""

    chart: Chart
    kind: str = "figure"


@dataclass(frozen=True)
class CaseCards:
    """Montages and viewers."""

    shown: tuple[ShownCase, ...]
    kind: str = "cases"


@dataclass(frozen=True)
class Pictures:
    """Titles and pictures of cases."""

    drawn: tuple[tuple[str, Drawn], ...]
    kind: str = "pictures"


Block = Table | Text | Points | Commands | Figure | CaseCards | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the page with a title, which the table of contents names."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Absent:
    """A section that cannot be made: why, and how to get it."""

    title: str
    why: str


@dataclass(frozen=True)
class Tile:
    """The main result of one class, at the top of the page."""

    label: str
    value: str
    unit: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title, subtitle: at the top.
        facts: name and value, below the title.
        tiles: main results.
        sections: in order.
        absent: sections that are missing.
        tables: file name to header and rows, for CSV files beside the page.
    """

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    absent: tuple[Absent, ...]
    tables: dict[str, Records] = field(default_factory=dict)


@dataclass(frozen=True)
class Records:
    """A table for programs: numbers in full, an empty cell where a number is undefined."""

    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def as_csv(self) -> str:
        """As text."""
        return csv_text([self.header, *self.rows])


def heads(*texts: str) -> tuple[Cell, ...]:
    """Titles of columns; one that starts with ``#`` is of numbers."""
    return tuple(Cell(text.removeprefix("#"), number=text.startswith("#")) for text in texts)


def numbers(texts: Iterable[str]) -> tuple[Cell, ...]:
    """Cells with numbers."""
    return tuple(Cell(text, number=True) for text in texts)


def sparse(rows: Iterable[Sequence[Cell]], columns: int = 1) -> tuple[tuple[Cell, ...], ...]:
    """Rows whose leading cells, at most ``columns``, are empty where they repeat those of the row above."""
    given = list(rows)
    return tuple(
        (*(Cell("", head=cell.head) for cell in row[:same]), *row[same:])
        for row, same in zip(given, repeated(given, columns), strict=True)
    )


def by_class(
    caption: str,
    header: Sequence[Cell],
    rows: Sequence[Sequence[Cell]],
    *,
    names: int = 1,
    folded: bool = False,
) -> Table:
    """A table whose first column is the class; it is left out where there is only one.

    Args:
        caption, header, rows, folded: of the table.
        names: so many leading columns name a row and are shown once for the rows that share them.
    """
    several = len({row[0] for row in rows}) > 1
    start = 0 if several else 1
    return Table(caption, tuple(header[start:]), sparse([row[start:] for row in rows], names - start), folded)
