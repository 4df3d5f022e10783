"""The foreground voxels of a case, for drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Foreground:
    """Foreground voxels of one case by class.

    Args:
        rows: int ``[n, 5]``: z, y, x, label value, component.
        classes: for each class (or region) the label values that belong to it.
    """

    def __init__(self, rows: np.ndarray, classes: Sequence[Sequence[int]]) -> None:
        rows = np.asarray(rows, np.int32).reshape(-1, 5)
        members = [rows[np.isin(rows[:, 3], list(values))] for values in classes]
        self._voxels: list[np.ndarray] = []
        self._bounds: list[np.ndarray] = []  # where each component of the class begins, and the end
        for found in members:
            if len(found):
                found = found[np.lexsort((found[:, 4], found[:, 3]))]
                changes = np.flatnonzero((np.diff(found[:, 3:], axis=0) != 0).any(axis=1)) + 1
                self._voxels.append(found[:, :3])
                self._bounds.append(np.array([0, *changes, len(found)]))

    @property
    def is_empty(self) -> bool:
        """Whether the case has no foreground at all."""
        return not self._voxels

    def draw(self, rng: np.random.Generator, *, by_component: bool) -> tuple[int, int, int]:
        """A voxel: a class that the case has, then a voxel of it, or a component of it and then its voxel."""
        which = int(rng.integers(len(self._voxels)))
        voxels, bounds = self._voxels[which], self._bounds[which]
        first, last = 0, len(voxels)
        if by_component:
            component = int(rng.integers(len(bounds) - 1))
            first, last = bounds[component], bounds[component + 1]
        z, y, x = voxels[int(rng.integers(first, last))]
        return int(z), int(y), int(x)
