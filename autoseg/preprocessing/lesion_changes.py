"""Lesion components: which voxels of them a loader may draw, and which are lost by resampling.

A component is 26-connected. For drawing, a lesion is a component of the foreground of all classes together; for
losses, components are counted class by class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.preprocessing.crop import bounding_box, slices
from autoseg.preprocessing.resample import axis_matrix

PER_CLASS = 10_000
SEED = 1234


class ClassComponents(BaseModel):
    """The components of one label value, before and after resampling.

    Attributes:
        label: the value.
        before, after: how many components.
        lost_voxels: size, before resampling, of each component of which no voxel is left; ascending.
        lost_ml: their volume in all.
    """

    model_config = ConfigDict(extra="forbid")

    label: int
    before: int
    after: int
    lost_voxels: list[int]
    lost_ml: float

    @property
    def n_lost(self) -> int:
        """How many components have no voxel left."""
        return len(self.lost_voxels)


def foreground_voxels(label: np.ndarray, ignore: int | None = None) -> np.ndarray:
    """Foreground voxels to draw from: at most 10000 of each value, and at least one of each lesion and value.

    Args:
        label: integers ``[z, y, x]``; values below 1 and ``ignore`` are not foreground.
        ignore: see above.

    Returns:
        int32 ``[n, 5]``: z, y, x, label value, lesion (counted from 1); the same for the same mask.
    """
    import cc3d

    mask = _foreground(label, ignore)
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 5), np.int32)
    inside = slices(box)
    lesions = cc3d.connected_components(np.ascontiguousarray(mask[inside]).view(np.uint8), connectivity=26)
    where = np.argwhere(mask[inside])
    index = tuple(where.T)
    values, lesion = label[inside][index], lesions[index]
    chosen = [_choose(np.flatnonzero(values == value), lesion) for value in np.unique(values)]
    rows = np.concatenate(chosen)
    starts = [start for start, _ in box]
    return np.column_stack((where[rows] + starts, values[rows], lesion[rows])).astype(np.int32)


def _foreground(label: np.ndarray, ignore: int | None) -> np.ndarray:
    mask = label > 0
    return mask if ignore is None else mask & (label != ignore)


def _choose(candidates: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Candidates (all of one class) in ascending order: one of each lesion first, then any, up to the limit."""
    if len(candidates) <= PER_CLASS:
        return candidates
    shuffled = np.random.default_rng(SEED).permutation(candidates)
    _, first = np.unique(lesion[shuffled], return_index=True)
    one_of_each = np.zeros(len(shuffled), bool)
    one_of_each[first] = True
    further = shuffled[~one_of_each][: max(0, PER_CLASS - len(first))]
    return np.sort(np.concatenate((shuffled[one_of_each], further)))


def compare_components(
    before: np.ndarray, after: np.ndarray, orders: Sequence[int], voxel_ml: float, ignore: int | None = None
) -> list[ClassComponents]:
    """Which components are lost between a mask and its resampled version.

    A voxel of the resampled mask stems from the (at most 2 x 2 x 2) voxels between which it was interpolated. Those
    of its own class are neighbours of each other, so they are of one component: that one is not lost. Exact for
    orders 0 and 1.

    Args:
        before: integers ``[z, y, x]``.
        after: integers ``[Z, Y, X]``.
        orders: spline order of each axis, 0 or 1.
        voxel_ml: volume of a voxel of ``before``.
        ignore: value of a label that is not counted.

    Returns:
        one record for each value that ``before`` has.
    """
    import cc3d

    box = bounding_box(_foreground(before, ignore))
    if box is None:
        return []
    inside = slices(box)
    part = np.where(_foreground(before[inside], ignore), before[inside], 0).astype(np.uint16)
    components, n = cc3d.connected_components(part, connectivity=26, return_N=True)
    sizes = np.bincount(components.ravel(), minlength=n + 1)
    value_of = np.zeros(n + 1, np.int64)
    value_of[components.ravel()] = part.ravel()
    kept = _seen(part, components, n, [a for a, _ in box], before.shape, after, orders)
    counts = _count_components(after, ignore)
    return [
        ClassComponents(
            label=int(value),
            before=int((value_of == value).sum()),
            after=counts.get(int(value), 0),
            lost_voxels=(lost := np.sort(sizes[(value_of == value) & ~kept]).tolist()),
            lost_ml=sum(lost) * voxel_ml,
        )
        for value in np.unique(value_of[1:])
    ]


def _seen(
    part: np.ndarray,
    components: np.ndarray,
    n: int,
    starts: Sequence[int],
    shape: Sequence[int],
    after: np.ndarray,
    orders: Sequence[int],
) -> np.ndarray:
    """For each component whether a voxel of ``after`` stems from it; entry 0 stands for background."""
    seen = np.zeros(n + 1, bool)
    box = bounding_box(after > 0)
    if box is None:
        return seen
    where = np.argwhere(after[slices(box)] > 0) + [start for start, _ in box]
    values = after[tuple(where.T)]
    sources = [_sources(n_in, n_out, k) for n_in, n_out, k in zip(shape, after.shape, orders, strict=True)]
    for corner in np.ndindex(2, 2, 2):
        at = [sources[axis][corner[axis]][where[:, axis]] - starts[axis] for axis in range(3)]
        within = np.all([(a >= 0) & (a < m) for a, m in zip(at, part.shape, strict=True)], axis=0)
        place = tuple(a[within] for a in at)
        own = part[place] == values[within]
        seen[components[place][own]] = True
    return seen


def _sources(n_in: int, n_out: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last voxel from which each voxel after resampling takes anything."""
    takes = axis_matrix(n_in, n_out, order) > 0
    return takes.argmax(1), n_in - 1 - takes[:, ::-1].argmax(1)


def _count_components(label: np.ndarray, ignore: int | None) -> dict[int, int]:
    """Label value to number of components."""
    import cc3d

    box = bounding_box(_foreground(label, ignore))
    if box is None:
        return {}
    cut = label[slices(box)]
    part = np.where(_foreground(cut, ignore), cut, 0).astype(np.uint16)
    components, n = cc3d.connected_components(part, connectivity=26, return_N=True)
    value_of = np.zeros(n + 1, np.int64)
    value_of[components.ravel()] = part.ravel()
    values, counts = np.unique(value_of[1:], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
