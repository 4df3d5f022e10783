"""Hausdorff distances between voxels of two masks.

They differ in which voxels they look at: border voxels (:func:`autoseg.evaluation.metrics.pair.border`), all
voxels, or the border voxels of a grid with repeated slices. Distances between surfaces are in
:mod:`autoseg.evaluation.metrics.surface` and give other numbers. Distances are Euclidean, between voxel centres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autoseg.evaluation.metrics.metric import UNDEFINED, Metric, penalised
from autoseg.evaluation.metrics.pair import Pair, border

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

COPIES = 9
"""How often RatLesNetv2 repeats each slice: 1 mm thick slices of 0.117 mm pixels become nearly isotropic."""

MAP_SHARE = 10
"""A distance map of the box pays when more than one in so many of its voxels asks for its distance: noise does, lesions
do not. There are 20 to 1000 voxels per border voxel of a lesion, and a tree of these is 1 to 20 times faster."""


# --------------------------------------------------------------------------------------- from one set to another


def directed_mm(start: np.ndarray, end: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Distance from every voxel of ``start`` to the nearest of ``end``, in the order of ``np.argwhere(start)``.

    Args:
        start, end: boolean ``[z, y, x]`` or ``[y, x]``; ``end`` is not empty.
        spacing_mm: of these axes.
    """
    apart = start & ~end
    n_apart = np.count_nonzero(apart)
    if n_apart * MAP_SHARE > start.size:
        from scipy.ndimage import distance_transform_edt

        return distance_transform_edt(~end, sampling=spacing_mm)[start]
    distances = np.zeros(np.count_nonzero(start))
    if n_apart:  # voxels that both share are at 0 without asking the tree
        points = np.argwhere(apart) * spacing_mm
        distances[apart[start]] = _tree(np.argwhere(end) * spacing_mm).query(points)[0]
    return distances


def _tree(points: np.ndarray) -> cKDTree:
    from scipy.spatial import cKDTree

    # fast to build; what a balanced one saves in queries is less
    return cKDTree(points, balanced_tree=False, compact_nodes=False)


def borders(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The border voxels of P and of T."""
    return border(pair.prediction), border(pair.truth)


def border_distances_mm(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """From every border voxel of P to the nearest of T, and the other way round; neither mask is empty."""
    ours, theirs = pair.once(borders)
    return directed_mm(ours, theirs, pair.spacing_mm), directed_mm(theirs, ours, pair.spacing_mm)


# ------------------------------------------------------------------------------------------------ border voxels


def _percentile_mm(pair: Pair, percentile: float) -> float:
    return float(max(np.percentile(distances, percentile) for distances in pair.once(border_distances_mm)))


# --------------------------------------------------------------------------------------------------- all voxels


def _voxels_mm(pair: Pair) -> float:
    """The nearest voxel of a mask, seen from outside of it, is always one of its border."""
    ours, theirs = pair.once(borders)
    return max(
        _farthest_mm(pair.prediction & ~pair.truth, theirs, pair.spacing_mm),
        _farthest_mm(pair.truth & ~pair.prediction, ours, pair.spacing_mm),
    )


def _farthest_mm(start: np.ndarray, end: np.ndarray, spacing_mm: np.ndarray) -> float:
    return float(directed_mm(start, end, spacing_mm).max(initial=0.0))


# ---------------------------------------------------------------------------------------------- repeated slices


class CopiedBorder(NamedTuple):
    """Which voxels are border when slices are repeated, as masks ``[z, y, x]`` of the slices before that.

    Attributes:
        first, inner, last: border in the first copy of the slice, in every copy between, in the last one.
    """

    first: np.ndarray
    inner: np.ndarray
    last: np.ndarray


def copied_border(mask: np.ndarray) -> CopiedBorder:
    """The border of a boolean mask ``[z, y, x]`` whose slices are repeated, without repeating them."""
    inner = np.stack([border(plane) for plane in mask])
    first, last = mask.copy(), mask.copy()
    first[1:] &= ~mask[:-1]
    last[:-1] &= ~mask[1:]
    return CopiedBorder(inner | first, inner, inner | last)


def copied_borders(pair: Pair) -> tuple[CopiedBorder, CopiedBorder]:
    """:func:`copied_border` of P and of T."""
    return copied_border(pair.prediction), copied_border(pair.truth)


def _copied_mm(pair: Pair) -> float:
    ours, theirs = pair.once(copied_borders)
    return max(_farthest_copy(ours, theirs), _farthest_copy(theirs, ours)) * float(pair.spacing_mm[1])


def _farthest_copy(start: CopiedBorder, end: CopiedBorder) -> float:
    """Directed Hausdorff distance in voxels of the grid with repeated slices.

    Seen from elsewhere, the nearest voxel of a slice is in its first or last copy; seen from a copy of the slice
    itself, it may also be in that same copy. So the tree holds two copies of each slice, and distances in the plane do
    the rest. A copy in between is at most as far as the first or the last one plus the way to it, so that few voxels
    are asked for in every copy.
    """
    last = COPIES - 1
    tree = _tree(np.concatenate([_points(end.first, 0), _points(end.last, last)]))
    from_first = _to_copies(start.first, end.first, 0, tree)
    from_last = _to_copies(start.last, end.last, last, tree)
    farthest = max(from_first.max(), from_last.max())
    from_first, from_last = from_first[start.inner[start.first]], from_last[start.inner[start.last]]
    in_plane = _in_plane(start.inner, end.inner)
    for copy in range(1, last):
        bound = np.minimum(np.minimum(from_first + copy, from_last + last - copy), in_plane)
        far = bound > farthest
        found = np.minimum(tree.query(_points(start.inner, copy)[far])[0], in_plane[far])
        farthest = max(farthest, found.max(initial=0.0))
    return float(farthest)


def _to_copies(start: np.ndarray, end: np.ndarray, copy: int, tree: cKDTree) -> np.ndarray:
    """Distance from every voxel of ``start`` in a copy to the tree, which holds ``end`` in the same copy."""
    apart = start & ~end
    distances = np.zeros(np.count_nonzero(start))
    distances[apart[start]] = tree.query(_points(apart, copy))[0]
    return distances


def _in_plane(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance in voxels from every voxel of ``start`` to the nearest of ``end`` in its slice; ``inf`` without any."""
    return np.concatenate(
        [
            directed_mm(ours, theirs, np.ones(2)) if theirs.any() else np.full(np.count_nonzero(ours), np.inf)
            for ours, theirs in zip(start, end, strict=True)
        ]
    )


def _points(mask: np.ndarray, copy: int) -> np.ndarray:
    """Where the voxels of one copy of the slices are on the grid with repeated slices, ``[voxel, 3]``."""
    return np.argwhere(mask) * (COPIES, 1, 1) + (copy, 0, 0)


# ---------------------------------------------------------------------------------------------------- the table


DISTANCES: tuple[Metric, ...] = (
    Metric(
        "hd95_mm",
        "mm",
        "distance",
        "the larger of the two 95th percentiles (linear interpolation) of the distances from the border voxels of P "
        "to those of T and from those of T to those of P",
        lambda pair: _percentile_mm(pair, 95),
        UNDEFINED,
        better="lower",
    ),
    Metric(
        "hausdorff_mm",
        "mm",
        "distance",
        "the largest distance from a border voxel of P or T to the nearest of the other",
        lambda pair: _percentile_mm(pair, 100),
        UNDEFINED,
        better="lower",
    ),
    Metric(
        "hausdorff_voxels_mm",
        "mm",
        "distance",
        "the largest distance from any voxel of P or T to the nearest voxel of the other",
        _voxels_mm,
        UNDEFINED,
        better="lower",
        source="Pérez Malla et al. 2019 (DeepMedic on ISLES 2017)",
    ),
    Metric(
        "hausdorff_9slices_mm",
        "mm",
        "distance",
        "the largest distance between border voxels where each slice is repeated 9 times and all voxels are cubes "
        "with the spacing along y as their edge, whatever the thickness of the slices",
        _copied_mm,
        UNDEFINED,
        better="lower",
        source="Valverde et al. 2020 (RatLesNetv2)",
    ),
)

METRICS: tuple[Metric, ...] = (*DISTANCES, *map(penalised, DISTANCES[:3]))
"""Those with undefined values, and the first three of them without any."""
