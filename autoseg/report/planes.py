"""How a file's axes become a picture: which plane is shown, which way round, and what it is called.

Pictures are turned by the header so that they look as a reader expects: patient's right on the left of axial and
coronal ones, anterior or superior at the top, true proportions. A plane is named by the anatomy as far as the header
knows it, and no further.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from autoseg.dataset.imageio import Geometry
from autoseg.orientation import SIDES

Item = TypeVar("Item")

THICK = 1.3
"""Slices are those across an axis whose spacing is more than this times the next smaller one."""
ANIMAL_MM = 80.0
"""A field of view below this, in rows and columns, holds no whole human head."""
OBLIQUE_DEGREES = 15.0
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class View:
    """How a file's axes become slices, rows (downwards) and columns (to the right).

    Attributes:
        axes: the file's array axis for each of the three.
        flip: whether it is reversed.
        spacing_mm: of slices, rows and columns.
        sides: letters of the patient's sides at the left, right, top and bottom; empty where they are not known.
        plane: axial, coronal or sagittal, by the header's axes, which are those of a person.
        words: the plane for reading, see :func:`plane_words`.
        three: what the three planes of the slice viewer are, in a sentence.
    """

    axes: tuple[int, int, int]
    flip: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    sides: tuple[str, str, str, str]
    plane: str
    words: str
    three: str = ""

    @classmethod
    def of(cls, geometry: Geometry) -> View:
        """Slices across the axis with the largest spacing; axial ones when spacings are alike."""
        points_to = geometry.orientation  # of the file's x, y, z
        file_axes = [next(k for k in range(3) if points_to[k] in ends) for ends in SIDES]  # patient x, y, z
        spacing = geometry.spacing_mm[::-1]  # x, y, z
        patient_spacing = [spacing[file_axes[i]] for i in range(3)]
        thick = int(np.argmax(patient_spacing))
        is_thick = patient_spacing[thick] > THICK * sorted(patient_spacing)[1]
        across = thick if is_thick else 2
        rows, columns, plane = {2: (1, 0, "axial"), 1: (2, 0, "coronal"), 0: (2, 1, "sagittal")}[across]
        order = (across, rows, columns)
        reversed_ = [points_to[file_axes[i]] == SIDES[i][0] for i in range(3)]
        flip = [reversed_[i] != (i == 2 and i == rows) for i in order]  # superior at the top
        letters = {0: ("R", "L"), 1: ("A", "P"), 2: ("S", "I")}
        words, known = plane_words(geometry, plane, file_axes[across], is_thick)
        sides = [letter if i in known else "" for i in (columns, rows) for letter in letters[i]]
        return cls(
            axes=_three(2 - file_axes[i] for i in order),
            flip=_three(flip),
            spacing_mm=_three(patient_spacing[i] for i in order),
            sides=(sides[0], sides[1], sides[2], sides[3]),
            plane=plane,
            words=words,
            three=_three_planes(geometry),
        )

    def turn(self, volume: np.ndarray) -> np.ndarray:
        """A volume ``[z, y, x]`` of the file as ``[slices, rows, columns]``; a view, not a copy."""
        turned = volume.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)]

    def turned_back(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape ``[z, y, x]`` of a volume of the file, from that of the turned one."""
        of_file = dict(zip(self.axes, shape, strict=True))
        return tuple(of_file[axis] for axis in range(3))


def has_orientation(geometry: Geometry) -> bool:
    """Whether the header says how the patient lay.

    A file that says nothing is read with axes along the scanner's and its first voxel at its very centre, where none
    of a real scan is.
    """
    return not (np.allclose(geometry.direction, IDENTITY, atol=1e-6) and not any(geometry.origin_mm))


def plane_words(geometry: Geometry, plane: str, across: int, is_thick: bool) -> tuple[str, tuple[int, ...]]:
    """What slices are called, and which patient axes (x, y, z) have sides that are sure.

    Headers are written for a person on the table. In a rodent what they call axial is coronal (across the way from
    nose to tail), and front and back are not those of the animal. Of slices that are not thick nobody knows which
    way the animal was turned.

    Args:
        geometry: of the file.
        plane: axial, coronal or sagittal, by the header.
        across: file axis (x, y, z) that slices are counted along.
        is_thick: whether the slices are thicker than the voxels are wide.
    """
    if not has_orientation(geometry):
        return f"slices across the file's {'xyz'[across]} axis, orientation not known", ()
    cosines = np.abs(np.array(geometry.direction).reshape(3, 3)[:, across])
    degrees = math.degrees(math.acos(min(1.0, float(cosines.max()))))
    oblique = f", oblique by {degrees:.0f}°" if degrees > OBLIQUE_DEGREES else ""
    if plane != "axial" or not _is_small(geometry, across):
        return f"{plane} slices{oblique}", (0, 1, 2)
    if is_thick:
        return f"slices coronal in a rodent, axial in a person{oblique}", (0, 2)
    return f"slices across the header's axis from foot to head{oblique}", (0, 2)


def _is_small(geometry: Geometry, across: int) -> bool:
    """Whether a slice across a file axis (x, y, z) is too small for a person's head."""
    return max(mm for i, mm in enumerate(reversed(geometry.extent_mm)) if i != across) < ANIMAL_MM


def _three_planes(geometry: Geometry) -> str:
    """What sagittal, coronal and axial slices are worth."""
    if not has_orientation(geometry):
        return "The file does not say how the patient lay: the planes, R and L are a guess."
    planes = "From left to right sagittal, coronal and axial slices"
    if all(_is_small(geometry, across) for across in range(3)):
        return (
            f"{planes} as the header calls them, for a person: in a rodent its axial ones are mostly coronal."
        )
    return f"{planes}."


def _three(values: Iterable[Item]) -> tuple[Item, Item, Item]:
    """Three values as a tuple of three."""
    first, second, third = values
    return first, second, third
