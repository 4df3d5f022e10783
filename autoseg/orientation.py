"""How the axes of a file lie in the body, and arrays that are turned from one orientation into another.

An orientation is three letters of ``L R P A S I``: where the file axes x, y and z point to, as ITK and nibabel name it
(``RAS``: to the right, to the front, to the top). It tells which way a file stores a scan, one of 48. Turning permutes
and reverses axes and nothing else; no value is interpolated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from autoseg.messages import count_of, some_of

if TYPE_CHECKING:
    import numpy as np

SIDES = ("RL", "AP", "IS")
"""For the axes x, y, z of the patient (in LPS coordinates): the letters of their negative and positive ends."""
TIE = 1e-4
"""Sums of cosines that are no further apart than this are alike: more than the rounding of a header."""
SHOWN = 5


class _Placed(Protocol):
    """What is turned of a geometry, see :class:`autoseg.dataset.imageio.Geometry`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along z, y, x."""

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Of the first voxel, x, y, z of the patient."""

    @property
    def direction(self) -> tuple[float, ...]:
        """Cosines of the file axes, nine numbers row by row."""

    @property
    def orientation(self) -> str:
        """Three letters, such as ``LPS``."""


Placed = TypeVar("Placed", bound=_Placed)


# ------------------------------------------------------------------------------------------------------ letters


def is_orientation(text: str) -> bool:
    """Whether a text is three letters, one for each axis of the patient."""
    return len(text) == 3 and {_patient_axis(letter) for letter in text} == {0, 1, 2}


def _patient_axis(letter: str) -> int:
    """The axis of the patient that a letter is an end of; -1 for other letters."""
    return next((axis for axis, ends in enumerate(SIDES) if letter and letter in ends), -1)


def orientation_of(direction: Sequence[float]) -> str:
    """The orientation that is nearest to a direction.

    The three file axes are given to the three axes of the patient so that the sum of the cosines is largest. Where two
    ways are alike, as at 45 degrees, the choice follows from the lines in space along which the axes run, not from
    their order or sense in the file. So one scan is read alike, however it is stored.

    Args:
        direction: 9 cosines, row by row; column i is the direction of file axis i (x, y, z) in LPS coordinates.
    """
    columns = [tuple(direction[3 * row + axis] for row in range(3)) for axis in range(3)]
    ways = {way: _along(way, columns) for way in permutations(range(3))}
    sums = {way: math.fsum(lines[axis][axis] for axis in range(3)) for way, lines in ways.items()}
    alike = [way for way in ways if sums[way] > max(sums.values()) - TIE]
    best = max(alike, key=lambda way: [round(cosine, 3) + 0.0 for line in ways[way] for cosine in line])
    letters = [""] * 3
    for axis, file_axis in enumerate(best):
        letters[file_axis] = SIDES[axis][int(columns[file_axis][axis] > 0)]
    return "".join(letters)


def _along(way: Sequence[int], columns: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """For each axis of the patient the file axis that a way gives to it, in the sense that runs with it."""
    lines = []
    for axis, file_axis in enumerate(way):
        sense = math.copysign(1.0, columns[file_axis][axis])
        lines.append(tuple(sense * cosine for cosine in columns[file_axis]))
    return lines


def most_frequent_orientation(orientations: Iterable[str]) -> str | None:
    """The one of most cases, of the first of them where several are as frequent; None of none."""
    counted = Counter(orientations).most_common(1)  # of equal counts, the one that was met first
    return counted[0][0] if counted else None


def described(of_cases: Mapping[str, str]) -> str:
    """``RAS (3 cases), SRA (case_3, case_4)``: the most frequent one first, of the others the cases by name."""
    groups: dict[str, list[str]] = {}
    for name, orientation in of_cases.items():
        groups.setdefault(orientation, []).append(name)
    first = most_frequent_orientation(of_cases.values())
    words = [f"{first} ({count_of(len(groups[first]), 'case')})"] if first else []
    for orientation, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        words += [f"{orientation} ({some_of(names, SHOWN)})"] if orientation != first else []
    return ", ".join(words)


# ------------------------------------------------------------------------------------------------------- turning


@dataclass(frozen=True)
class Turn:
    """From one orientation to another.

    Attributes:
        order: the axes z, y, x of the result are these axes (z, y, x) of the array that is turned.
        reverse: which axes of the result run the other way.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    reverse: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def between(cls, start: str, end: str) -> Turn:
        """The turn of an array that is stored as ``start`` into ``end``."""
        axes = {_patient_axis(letter): axis for axis, letter in enumerate(start)}
        z, y, x = (axes[_patient_axis(letter)] for letter in reversed(end))
        reverse = [start[axis] != letter for axis, letter in zip((z, y, x), reversed(end), strict=True)]
        return cls((2 - z, 2 - y, 2 - x), (reverse[0], reverse[1], reverse[2]))

    @property
    def changes(self) -> bool:
        """Whether there is anything to turn."""
        return self != Turn()

    @property
    def back(self) -> Turn:
        """The turn that undoes this one."""
        z, y, x = (self.order.index(axis) for axis in range(3))
        return Turn((z, y, x), (self.reverse[z], self.reverse[y], self.reverse[x]))

    def view(self, array: np.ndarray) -> np.ndarray:
        """An array ``[..., z, y, x]``, turned; a view of it, or the array itself where nothing changes."""
        if not self.changes:
            return array
        others = array.ndim - 3
        turned = array.transpose(*range(others), *(others + axis for axis in self.order))
        where = (..., *(slice(None, None, -1 if reverse else None) for reverse in self.reverse))
        return turned[where]

    def array(self, array: np.ndarray) -> np.ndarray:
        """As :meth:`view`, in memory as if it had been stored that way; the array itself where nothing changes."""
        return self.view(array).copy(order="C") if self.changes else array

    def geometry(self, geometry: Placed) -> Placed:
        """The geometry of the turned array: the same voxels at the same places."""
        if not self.changes:
            return geometry
        axes = [2 - axis for axis in reversed(self.order)]  # the new file axes x, y, z among the old ones
        senses = [-1.0 if reverse else 1.0 for reverse in reversed(self.reverse)]
        rows = [geometry.direction[3 * row : 3 * row + 3] for row in range(3)]
        origin = list(geometry.origin_mm)
        for axis, sense in zip(axes, senses, strict=True):
            if sense < 0:  # the first voxel is the one that was last
                length = (geometry.shape[2 - axis] - 1) * geometry.spacing_mm[2 - axis]
                origin = [start + row[axis] * length for start, row in zip(origin, rows, strict=True)]
        change: dict[str, Any] = {
            "shape": tuple(geometry.shape[axis] for axis in self.order),
            "spacing_mm": tuple(geometry.spacing_mm[axis] for axis in self.order),
            "origin_mm": tuple(origin),
            "direction": tuple(s * row[axis] for row in rows for axis, s in zip(axes, senses, strict=True)),
        }
        return replace(geometry, **change)  # type: ignore[type-var]


def turn_into(orientation: str | None, geometry: _Placed) -> Turn:
    """The turn of a file of this geometry into an orientation; None leaves it as it is stored."""
    return Turn() if orientation is None else Turn.between(geometry.orientation, orientation)
