"""The one family of errors that a user of autoseg meets.

Every message says which case or file, what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_SHOWN = 20
"""Faults of one file that are shown; a file with more of them is another file than was meant."""

_LONGEST = 1000


def readable_text(text: str, longest: int = _LONGEST) -> str:
    """A text that may quote anything: unseen characters are spelled out, and it ends before it fills a screen."""
    cut = text if len(text) <= longest else text[: longest - 1] + "\u2026"
    return "\n".join(map(spelled_out, cut.split("\n")))


def spelled_out(text: str) -> str:
    """One line of text with its unseen characters spelled out: they could change what a terminal shows."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the user's input.

    Args:
        where: the case, file or setting, as the user knows it.
        problem: what is wrong, in a few words.
        found: what was there.
        expected: what should have been there.
        fix: what to do about it.
    """

    where: str
    problem: str
    found: str = ""
    expected: str = ""
    fix: str = ""

    def __str__(self) -> str:
        lines = [readable_text(f"{self.where}: {self.problem}" if self.where else self.problem)]
        lines += [
            f"  {title:<9} {readable_text(text)}"
            for title, text in (("found:", self.found), ("expected:", self.expected), ("do:", self.fix))
            if text
        ]
        return "\n".join(lines)


class AutosegError(Exception):
    """Something that the user can mend; its text is the whole message.

    Args: as of :class:`Fault`, of which the error is made.
    """

    def __init__(
        self, problem: str, *, where: str = "", found: object = "", expected: object = "", fix: str = ""
    ) -> None:
        self.fault = Fault(where, problem, str(found), str(expected), fix)
        super().__init__(str(self.fault))


class FaultsError(AutosegError):
    """Many faults at once, shown in one table.

    Args:
        title: one line over the table.
        faults: all faults of all cases; at least one.
        where: what stands in the first column.
    """

    def __init__(self, title: str, faults: Sequence[Fault], where: str = "case or file") -> None:
        super().__init__(title)
        self.faults, self.where = tuple(faults), where
        self.args = (f"{title}\n\n{format_faults(faults, where)}",)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[FaultsError], tuple[str, tuple[Fault, ...], str]]:
        """How it travels between processes."""
        return type(self), (self.fault.problem, self.faults, self.where)


class StaleError(AutosegError):
    """A file was made from inputs that have changed since."""


def format_faults(faults: Iterable[Fault], where: str = "case or file") -> str:
    """The faults as a text table with the columns case (or as ``where`` says), problem, found, expected, what to do."""
    header = (where, "problem", "found", "expected", "what to do")
    rows = [header, *(tuple(map(_cell, (f.where, f.problem, f.found, f.expected, f.fix))) for f in faults)]
    used = [i for i in range(len(header)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    lines = ["  ".join(row[i].ljust(widths[i]) for i in used).rstrip() for row in rows]
    rule = "  ".join("-" * widths[i] for i in used)
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return readable_text(text, 300).replace("\n", " ")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that a mistyped one may mean: those that begin with it, else the nearest."""
    known = sorted(known)
    begun = [one for one in known if name and one.casefold().startswith(name.casefold())]
    return begun[:3] or difflib.get_close_matches(name, known, n=3, cutoff=0.5)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: those that begin with it, else the nearest, or all of them when none is near."""
    known = sorted(known)
    near = near_names(name, known)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "choose one of: " + ", ".join(known) if known else "none is installed"
