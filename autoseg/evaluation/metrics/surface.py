"""Distances between surfaces, as DeepMind's surface-distance package defines them.

Every corner that eight voxels share is a surface element of a mask when some but not all of the eight belong to it. Its
position is the corner; its area in mm^2 is that of the triangles which marching cubes at level 0.5 puts between the
eight voxel centres, so that each distance counts by the area it stands for. Outside the volume is background: a mask
that reaches the edge is closed there.

The package itself gives ``inf`` for distances to an empty mask; here they are undefined, which the rows below say.

Distances between voxels are in :mod:`autoseg.evaluation.metrics.distances` and give other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.distances import directed_mm
from autoseg.evaluation.metrics.metric import NAN, UNDEFINED, Empties, Metric, penalised
from autoseg.evaluation.metrics.pair import Pair

SOURCE = "Nikolov et al. 2021 (surface-distance)"
Mesh = Literal["surface-distance", "closed"]
"""Whose triangles stand between eight voxels where several choices fit: those of the surface-distance package, which
are the original marching cubes and leave gaps, or those of Lewiner et al. 2003, which close the surface and so have up
to 4 % more area in rough lesions."""
ROUNDING = 1e-9
"""What is nearer than this to a tolerance (mm) or a share of the area has reached it: sums and roots are rounded."""


# --------------------------------------------------------------------------------------------- surface elements


@dataclass(frozen=True)
class Surface:
    """The surface elements of a mask.

    Attributes:
        where: which corners are elements, boolean ``[z + 1, y + 1, x + 1]``; corner i lies before voxel i.
        codes: neighbour code of each element, in the order of ``np.argwhere(where)``.
    """

    where: np.ndarray
    codes: np.ndarray

    def areas_mm2(self, spacing_mm: Iterable[float], mesh: Mesh = "surface-distance") -> np.ndarray:
        """Area of each element ``[element]`` for a spacing z, y, x."""
        return area_table_mm2(tuple(float(mm) for mm in spacing_mm), mesh)[self.codes]


def surface_elements(mask: np.ndarray) -> Surface:
    """The surface elements of a boolean mask ``[z, y, x]``."""
    codes = neighbour_codes(mask)
    where = (codes != 0) & (codes != 255)
    return Surface(where, codes[where])


def surfaces(pair: Pair) -> tuple[Surface, Surface]:
    """The surface elements of P and of T."""
    return surface_elements(pair.prediction), surface_elements(pair.truth)


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Which of the eight voxels around each corner belong to a mask: eight bits, uint8 ``[z + 1, y + 1, x + 1]``.

    The highest bit is the voxel with the lowest z, y and x; the lowest bit is that with the highest.
    """
    codes: np.ndarray = np.pad(mask, 1).view(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        along = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis((along[:-1] << bits) | along[1:], 0, axis)
    return codes


@lru_cache(maxsize=64)
def area_table_mm2(spacing_mm: tuple[float, float, float], mesh: Mesh) -> np.ndarray:
    """Area in mm^2 of the surface element of each of the 256 neighbour codes, for a spacing z, y, x in mm."""
    corners, codes = _triangles(mesh)
    one, two, three = np.moveaxis(corners * spacing_mm, 1, 0)
    areas = np.linalg.norm(np.cross(two - one, three - one), axis=1) / 2
    table = np.bincount(codes, areas, minlength=256)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=2)
def _triangles(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """All triangles of marching cubes: corners ``[triangle, 3, zyx]`` in voxels, and the code each belongs to.

    In surface-distance, more than four voxels of eight have the triangles of the others.
    """
    from skimage.measure import marching_cubes

    method = "lewiner" if mesh == "closed" else "lorensen"
    corners, owners = [], []
    for code in range(1, 255):
        swapped = mesh == "surface-distance" and code.bit_count() > 4
        cube = np.unpackbits(np.uint8(255 - code if swapped else code)).reshape(2, 2, 2)
        vertices, faces, _, _ = marching_cubes(cube, 0.5, method=method)
        corners.append(vertices[faces].astype(float))
        owners.append(np.full(len(faces), code))
    return np.concatenate(corners), np.concatenate(owners)


# ---------------------------------------------------------------------------------------------------- distances


@dataclass(frozen=True)
class Distances:
    """From each surface element of one mask to the nearest of the other, nearest first.

    Attributes:
        mm: distances ``[element]``, rising.
        mm2: areas of the elements, in the same order.
    """

    mm: np.ndarray
    mm2: np.ndarray

    @property
    def total_mm2(self) -> float:
        """Area of the surface."""
        return float(self.mm2.sum())

    @property
    def integral_mm3(self) -> float:
        """Sum of distance times area."""
        return float(self.mm @ self.mm2)

    @property
    def mean_mm(self) -> float:
        """Mean distance, by area."""
        return self.integral_mm3 / self.total_mm2

    def percentile_mm(self, percent: float) -> float:
        """Distance of the first element at which this percentage of the area is reached."""
        share = np.cumsum(self.mm2) / self.total_mm2
        at = np.searchsorted(share, percent / 100 - ROUNDING)
        return float(self.mm[min(int(at), len(self.mm) - 1)])

    def within_mm2(self, tolerance_mm: float) -> float:
        """Area of the elements that are not farther than the tolerance."""
        return float(self.mm2[self.mm <= tolerance_mm + ROUNDING].sum())


def surface_distances(pair: Pair) -> tuple[Distances, Distances]:
    """From the surface of P to that of T, and the other way round; neither mask is empty."""
    ours, theirs = pair.once(surfaces)
    return _directed(ours, theirs, pair.spacing_mm), _directed(theirs, ours, pair.spacing_mm)


def _directed(start: Surface, end: Surface, spacing_mm: np.ndarray) -> Distances:
    mm, mm2 = directed_mm(start.where, end.where, spacing_mm), start.areas_mm2(spacing_mm)
    order = np.argsort(mm, kind="stable")
    return Distances(mm[order], mm2[order])


# ---------------------------------------------------------------------------------------------------- the table


def _percentile_mm(pair: Pair, percent: float) -> float:
    return max(one.percentile_mm(percent) for one in pair.once(surface_distances))


def _assd_mm(pair: Pair) -> float:
    ours, theirs = pair.once(surface_distances)
    return (ours.integral_mm3 + theirs.integral_mm3) / (ours.total_mm2 + theirs.total_mm2)


def _assd_mean_mm(pair: Pair) -> float:
    ours, theirs = pair.once(surface_distances)
    return (ours.mean_mm + theirs.mean_mm) / 2


def nsd(tolerance_mm: float) -> Metric:
    """Normalised surface Dice at a tolerance: ``nsd_1mm``, ``nsd_0.5mm``, ...

    Args:
        tolerance_mm: what counts as the same surface, such as the distance between two raters.

    Raises:
        AutosegError: it is negative or not finite.
    """
    if not math.isfinite(tolerance_mm) or tolerance_mm < 0:
        raise AutosegError(
            "the tolerance of the surface Dice does not fit",
            found=tolerance_mm,
            expected="a distance in mm, 0 or more",
        )

    def compute(pair: Pair) -> float:
        ours, theirs = pair.once(surface_distances)
        within = ours.within_mm2(tolerance_mm) + theirs.within_mm2(tolerance_mm)
        return within / (ours.total_mm2 + theirs.total_mm2)

    return Metric(
        f"nsd_{tolerance_mm:g}mm",
        "1",
        "surface",
        f"share of the area of both surfaces that is not farther than {tolerance_mm:g} mm from the other surface "
        "(normalised surface Dice)",
        compute,
        Empties(prediction=0.0, truth=0.0, both=NAN),
        better="higher",
        source=SOURCE,
    )


DISTANCES: tuple[Metric, ...] = (
    Metric(
        "surface_hausdorff_mm",
        "mm",
        "surface",
        "the largest distance from a surface element of P or T to the nearest of the other",
        lambda pair: _percentile_mm(pair, 100),
        UNDEFINED,
        better="lower",
        source=SOURCE,
    ),
    Metric(
        "surface_hd95_mm",
        "mm",
        "surface",
        "the larger of the two distances within which 95 % of the area of one surface lies from the other",
        lambda pair: _percentile_mm(pair, 95),
        UNDEFINED,
        better="lower",
        source=SOURCE,
    ),
    Metric(
        "assd_mm",
        "mm",
        "surface",
        "mean distance, by area, of the surface elements of P and T together to the nearest of the other",
        _assd_mm,
        UNDEFINED,
        better="lower",
        source=SOURCE,
    ),
    Metric(
        "assd_mean_mm",
        "mm",
        "surface",
        "mean of two means: distance, by area, from the surface of P to that of T, and from T to P",
        _assd_mean_mm,
        UNDEFINED,
        better="lower",
        source=SOURCE,
    ),
)

METRICS: tuple[Metric, ...] = (*DISTANCES, *map(penalised, DISTANCES[:3]), nsd(1))
"""Those with undefined values, three of them without any, and the surface Dice."""
