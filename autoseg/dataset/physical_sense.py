"""Whether sizes in millimetres can be right: of each scan, and of scans beside each other.

A header is easily wrong by a factor: preclinical exports multiply by ten for software made for humans, and units are
mistaken.
A scan cannot tell; a factor shows against the other scans, and voxels of metres against all of MRI.

The limits leave room around what is scanned: voxels from 0.02 mm (a mouse brain ex vivo) to 10 mm, and fields of view
from 5 mm to 0.6 m. Within one study the field of view hardly varies by half.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset.image_geometry import MRI_SPACING_MM, SPACING_TOLERANCE
from autoseg.dataset.nifti_header import HEADER_BYTES, parse_header
from autoseg.dataset.unpacking import first_bytes
from autoseg.errors import AutosegError, Fault
from autoseg.fingerprint import CaseFingerprint

LEAST_VIEW_MM, LARGEST_VIEW_MM = 1.0, 1000.0
"""A field of view beyond these is no head, of whatever animal."""
GAP = 4.0
"""Fields of view further apart than by this factor, with none between them, are two kinds of scans."""
UNLIKE = 3.0
"""A scan is unlike those before when its field of view or its spacing is beyond theirs by this factor."""
MATRIX = 1.25
"""A matrix is another one when an axis is longer or shorter by this factor."""
FEW = 4
"""So many cases of one matrix make one of another remarkable."""

Axes = Sequence[float]
UNITS = {1: "metres", 2: "millimetres", 3: "micrometres"}
"""Of NIfTI's xyzt_units, the lowest three bits."""


def middle(values: Axes) -> float:
    """The middle one of three: of a field of view, what slabs and long axes leave as it is."""
    return sorted(values)[1]


# ------------------------------------------------------------------------------------------------- one scan


def voxel_fault(name: str, spacing_mm: Axes, shape: Sequence[int], file: Path | None = None) -> Fault | None:
    """The fault of a scan whose voxels cannot be those of MRI.

    Args:
        name: of the case.
        spacing_mm: z, y, x.
        shape: voxels, z, y, x.
        file: of the scan, to say which unit its header names.
    """
    low, high = MRI_SPACING_MM
    if all(low <= mm <= high for mm in spacing_mm):
        return None
    extent = [n * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    unit = unit_of(file) if file is not None else ""
    return Fault(
        name,
        "the voxel size in its header cannot be right",
        f"{sizes(spacing_mm)}, a field of view of {sizes(extent)}"
        + (f"; its unit is {unit}" if unit else ""),
        f"voxels of {low:g} to {high:g} mm",
        "correct the spacing, or its unit (xyzt_units of NIfTI): most likely the numbers are in another unit",
    )


def unit_of(file: Path) -> str:
    """The unit of length that a NIfTI file names, in words; empty for other formats, and where it names none."""
    try:
        header = parse_header(first_bytes(file, HEADER_BYTES[2]))
    except AutosegError:
        return ""
    unit = UNITS.get(header.forms.xyzt_units & 7) if header is not None else None
    return f"{unit} (xyzt_units {header.forms.xyzt_units})" if header is not None and unit else ""


def sizes(values_mm: Axes) -> str:
    """Three lengths for reading."""
    return " x ".join(map(_number, values_mm)) + " mm (z, y, x)"


def _number(value: float) -> str:
    return f"{value:.0f}" if 1000 <= value < 1e7 else f"{value:.4g}"


# ------------------------------------------------------------------------------------------------ a dataset


def unlikely(cases: Sequence[CaseFingerprint]) -> list[str]:
    """What does not look right in the sizes of a dataset, each with its cases, the numbers and the likely causes."""
    return [*_unlikely_views(cases), *_other_views(cases), *_other_matrix(cases)]


def _unlikely_views(cases: Sequence[CaseFingerprint]) -> list[str]:
    """Fields of view that no scanner has."""
    odd = [c for c in cases if not LEAST_VIEW_MM <= middle(c.extent_mm) <= LARGEST_VIEW_MM]
    if not odd:
        return []
    return [
        f"{_named(odd)}: a field of view of {sizes(odd[0].extent_mm)} is no head; "
        "is the spacing of the header in another unit than its numbers, or a factor on them?"
    ]


def _other_views(cases: Sequence[CaseFingerprint]) -> list[str]:
    """Groups of cases whose field of view is that of the largest group times a factor."""
    groups = _groups(cases)
    main = max(groups, key=len)
    found = []
    for group in groups:
        factors = [a / b for a, b in zip(_typical(group), _typical(main), strict=True)]
        if group is main or not (min(factors) > GAP / 2 or max(factors) < 2 / GAP):
            continue
        factor = middle(factors)
        told = (
            f"{_number(factor)} times as large as"
            if factor > 1
            else f"{_number(1 / factor)} times smaller than"
        )
        found.append(
            f"{_named(group)}: the field of view is {told} that of {_others(len(main), len(cases) - len(group))}, "
            f"{sizes(group[0].extent_mm)} where they have {sizes(main[0].extent_mm)}. {_cause(factor)} "
            "Correct the spacing of the headers that are wrong: cases are resampled by it"
        )
    return found


def _groups(cases: Sequence[CaseFingerprint]) -> list[list[CaseFingerprint]]:
    """The cases in order of their field of view, divided where it leaps."""
    groups: list[list[CaseFingerprint]] = []
    for case in sorted(cases, key=lambda case: middle(case.extent_mm)):
        if not groups or middle(case.extent_mm) > GAP * middle(groups[-1][-1].extent_mm):
            groups.append([])
        groups[-1].append(case)
    return [sorted(group, key=lambda case: case.name) for group in groups]


def _typical(group: Sequence[CaseFingerprint]) -> list[float]:
    """The median extents of a group, the shortest axis first, so that orientations do not matter."""
    return [statistics.median(axis) for axis in zip(*(sorted(c.extent_mm) for c in group), strict=True)]


def _cause(factor: float) -> str:
    power = abs(math.log10(factor))
    if abs(power - 1) < 0.2:
        return "Were headers multiplied by ten for human software, as preclinical exports do?"
    if abs(power - 3) < 0.2:
        return "Is the unit of some headers another one (metres, millimetres, micrometres)?"
    return "Another species or part of the body, or a factor in some headers?"


def _other_matrix(cases: Sequence[CaseFingerprint]) -> list[str]:
    """One case of another matrix, where all others have the same; the order of the axes does not count."""
    matrices = Counter(tuple(sorted(case.shape)) for case in cases)
    if len(matrices) != 2 or len(cases) <= FEW or min(matrices.values()) > 1:
        return []
    usual, rare = (matrix for matrix, _ in matrices.most_common())
    if all(max(a, b) < MATRIX * min(a, b) for a, b in zip(usual, rare, strict=True)):
        return []
    odd = next(case for case in cases if tuple(sorted(case.shape)) == rare)
    like = next(case for case in cases if tuple(sorted(case.shape)) == usual)
    others = f"all {len(cases) - 1} other cases, {_voxels(like)}"
    return [
        f"{odd.name}: its matrix of {_voxels(odd)} is unlike that of {others}. "
        "Another protocol, or a scan that was cropped, resampled or exported in another way?"
    ]


def _voxels(case: CaseFingerprint) -> str:
    return " x ".join(map(str, case.shape)) + " voxels (z, y, x)"


def _others(n_main: int, n_others: int) -> str:
    return f"the other {n_main}" if n_main == n_others else f"{n_main} others"


def _named(cases: Sequence[CaseFingerprint]) -> str:
    return ", ".join(case.name for case in cases)


# --------------------------------------------------------------------------------------------- a prediction


@dataclass(frozen=True)
class SeenSizes:
    """What a model was made for, smallest and largest.

    Attributes:
        view_mm: the middle one of the three extents; None where it is not known.
        spacing_mm: the middle one of the three spacings; None where it is not known.
    """

    view_mm: tuple[float, float] | None = None
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of_cases(cls, cases: Iterable[CaseFingerprint]) -> SeenSizes:
        """Those of training cases; nothing is known of none."""
        sizes_mm = [(middle(c.extent_mm), middle(c.spacing_mm)) for c in cases]
        if not sizes_mm:
            return cls()
        views, spacings = zip(*sizes_mm, strict=True)
        return cls((min(views), max(views)), (min(spacings), max(spacings)))

    def unlike(self, extent_mm: Axes, spacing_mm: Axes) -> str:
        """How a scan is unlike them, in words; empty when it is not."""
        pairs = (
            ("field of view", extent_mm, self.view_mm),
            ("voxel size", spacing_mm, self.spacing_mm),
        )
        found = [
            f"a {what} of {sizes(values)}, where the model {_saw(seen)}"
            for what, values, seen in pairs
            if seen is not None and not seen[0] / UNLIKE <= middle(values) <= seen[1] * UNLIKE
        ]
        return " and ".join(found)


def _saw(seen: tuple[float, float]) -> str:
    low, high = seen
    if high - low <= SPACING_TOLERANCE * high:
        return f"was made for {high:.4g} mm (the middle axis)"
    return f"was made for {low:.4g} to {high:.4g} mm (the middle axis)"
