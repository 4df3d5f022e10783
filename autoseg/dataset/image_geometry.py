"""Where the voxels of an image lie: the numbers that autoseg works with, and what makes two grids different."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.orientation import orientation_of

SPACING_TOLERANCE = 1e-3
"""Spacings differ when they are further apart than this share of the larger one."""
ORIGIN_TOLERANCE_MM = 1e-2
"""Origins differ when a coordinate is further apart than this, in mm."""
DIRECTION_TOLERANCE = 1e-3
"""Directions differ when a cosine is further apart than this (0.06 degrees)."""

EXACT_COSINE = 1e-4
"""Axes whose cosine is at most this are taken as they are: as far as single precision rounds."""
SHEAR_COSINE = 2.5e-3
"""Axes whose cosine is at most this (0.14 degrees) are off a right angle by rounding; beyond it is a shear."""

SPACING_LIMITS_MM = (1e-4, 500.0)
"""No file is read whose voxels are outside these."""
MRI_SPACING_MM = (0.005, 20.0)
"""No voxel of an MRI scan is smaller or larger: see :func:`autoseg.dataset.physical_sense.voxel_fault`."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie in the scanner.

    Attributes:
        shape: voxels, z, y, x.
        spacing_mm: z, y, x.
        origin_mm: of the centre of the first voxel, x, y, z in LPS coordinates.
        direction: 9 cosines, row by row; column i is the direction of file axis i (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]

    @property
    def orientation(self) -> str:
        """Where the file axes x, y, z point to, as three of L R P A S I; the nearest when oblique."""
        return orientation_of(self.direction)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Shape times spacing, z, y, x."""
        z, y, x = (n * mm for n, mm in zip(self.shape, self.spacing_mm, strict=True))
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return math.prod(self.spacing_mm) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; floats keep all their digits."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Geometry:
        """The inverse of :meth:`to_dict`."""
        return cls(**{key: tuple(value) for key, value in content.items()})


# ------------------------------------------------------------------------------------------------- right angles


def largest_cosine(direction: np.ndarray) -> float:
    """How far three axes are from right angles.

    Args:
        direction: ``[3, 3]``, one axis in each column, each of length 1.

    Returns:
        The largest cosine between two axes: 0 at right angles.
    """
    return float(np.abs(direction.T @ direction - np.diag(np.diag(direction.T @ direction))).max())


def at_right_angles(direction: np.ndarray) -> np.ndarray:
    """The nearest orthonormal axes (the polar factor), of the same handedness."""
    left, _, right = np.linalg.svd(direction)
    return left @ right


def degrees_off(cosine: float) -> str:
    """How far an angle with this cosine is from a right one, for reading."""
    return f"{math.degrees(math.asin(min(1.0, cosine))):.2g} degrees"


def sheared(where: str, cosine: float) -> AutosegError:
    """The error of axes that are truly not at right angles."""
    return AutosegError(
        "the axes in its header are not at right angles",
        where=where,
        found=f"a header that is sheared or inaccurate by {degrees_off(cosine)}",
        expected="three orthonormal directions",
        fix="resample the image to a regular grid, or save it again with a corrected header",
    )


# ------------------------------------------------------------------------------------------------- physical sense


def check_spacing(
    where: str, spacing_mm: Sequence[float], *, field: str, written: str, unit: str = "mm"
) -> None:
    """Refuse voxels of no possible size.

    Args:
        where: the file.
        spacing_mm: z, y, x.
        field: of the header that holds the spacing.
        written: what stands there.
        unit: of the header.

    Raises:
        AutosegError: a spacing is outside :data:`SPACING_LIMITS_MM`.
    """
    low, high = SPACING_LIMITS_MM
    said = "" if unit == "mm" else f" in {unit}, as the header says"
    if not all(low <= mm <= high for mm in spacing_mm):
        raise AutosegError(
            f"its voxels have no possible size: {field} is {written}{said}",
            where=where,
            found=axes(spacing_mm) + " mm",
            expected=f"spacings of {low:g} to {high:g} mm",
            fix="correct the spacing and its unit in the header, or export the image again",
        )


# ---------------------------------------------------------------------------------------------------- comparison


def differences(a: Geometry, b: Geometry) -> list[tuple[str, str, str]]:
    """In what ``b`` differs from ``a`` beyond tolerance.

    Returns:
        ``(what, found in b, expected as in a)`` for each of shape, spacing, origin and direction that differs
        by more than :data:`SPACING_TOLERANCE`, :data:`ORIGIN_TOLERANCE_MM`, :data:`DIRECTION_TOLERANCE`.
    """
    found = []
    if tuple(a.shape) != tuple(b.shape):
        found.append(("shape", axes(b.shape), axes(a.shape)))
    pairs = list(zip(a.spacing_mm, b.spacing_mm, strict=True))
    if any(abs(x - y) > SPACING_TOLERANCE * max(x, y) for x, y in pairs):
        found.append(("spacing", axes(b.spacing_mm) + " mm" + _unit_hint(pairs), axes(a.spacing_mm) + " mm"))
    if _apart(a.origin_mm, b.origin_mm) > ORIGIN_TOLERANCE_MM:
        found.append(("origin", _numbers(b.origin_mm) + " mm", _numbers(a.origin_mm) + " mm"))
    if _apart(a.direction, b.direction) > DIRECTION_TOLERANCE:
        found.append(("direction", _direction(b), _direction(a)))
    return found


def refuse_differences(
    a_path: Path | str, a: Geometry, b_path: Path | str, b: Geometry, fix: str = "resample it"
) -> None:
    """Raise when two files that must lie on the same grid do not.

    Args:
        a_path, a: one file and its geometry.
        b_path, b: the other, which is named.
        fix: what to do about it.

    Raises:
        FaultsError: with one fault for each difference.
    """
    faults = [
        Fault(str(b_path), f"its {what} is not that of {Path(a_path).name}", found, expected, fix)
        for what, found, expected in differences(a, b)
    ]
    if faults:
        raise FaultsError("files of the same case lie on different grids", faults)


def _unit_hint(pairs: Sequence[tuple[float, float]]) -> str:
    """Where one factor of a thousand, or of its square, lies between two spacings, a unit is wrong."""
    for factor, text in (
        (1e3, "1000 times"),
        (1e-3, "a thousandth of"),
        (1e6, "10^6 times"),
        (1e-6, "10^-6 of"),
    ):
        if all(abs(b - factor * a) <= SPACING_TOLERANCE * max(b, factor * a) for a, b in pairs):
            return f", {text} the expected: the units in the headers (xyzt_units, space units) differ"
    return ""


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def axes(values: Sequence[float]) -> str:
    """One number for each axis, for reading."""
    return " x ".join(f"{value:.6g}" for value in values) + " (z, y, x)"


def _direction(geometry: Geometry) -> str:
    return f"{geometry.orientation} ({' '.join(f'{round(v, 3) + 0:.3f}' for v in geometry.direction)})"
