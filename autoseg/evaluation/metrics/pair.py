"""Prediction and truth of one class, and what several metrics need of them, computed once.

Notation of all of :mod:`autoseg.evaluation`: P is the prediction, T the truth, |P| its number of voxels; masks are
boolean ``[z, y, x]`` on the same grid, spacings are z, y, x in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

import numpy as np

Which = Literal["prediction", "truth", "both"]
Result = TypeVar("Result")


class Pair:
    """Prediction and truth of one class, cut to the box around both, so that the size of the volume does not matter.

    Args:
        prediction, truth: boolean ``[z, y, x]``.
        spacing_mm: z, y, x.
        total_voxels: voxels that are scored, for true negatives; None is all of the array.
        shape: of the whole volume where the masks are a part of it; None is that of the array.

    Attributes:
        prediction, truth: boolean ``[z, y, x]``, the part inside the box.
        tp, fp, fn, tn, total_voxels: numbers of voxels.
        diagonal_mm: of the whole volume, no two of its voxels are farther apart.
    """

    def __init__(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        spacing_mm: Iterable[float],
        total_voxels: int | None = None,
        shape: Iterable[int] | None = None,
    ) -> None:
        box = union_box(prediction, truth)
        self.prediction, self.truth = prediction[box], truth[box]
        self.spacing_mm = np.asarray(tuple(spacing_mm), float)
        self.diagonal_mm = float(np.linalg.norm(self.spacing_mm * tuple(shape or truth.shape)))
        self.total_voxels = int(truth.size if total_voxels is None else total_voxels)
        self.tp = int(np.count_nonzero(self.prediction & self.truth))
        self.fp = int(np.count_nonzero(self.prediction)) - self.tp
        self.fn = int(np.count_nonzero(self.truth)) - self.tp
        self.tn = self.total_voxels - self.tp - self.fp - self.fn
        self._known: dict[Callable[[Pair], Any], Any] = {}

    @property
    def empty(self) -> Which | Literal[""]:
        """Which of the masks is empty: ``prediction``, ``truth``, ``both``, or an empty text for none."""
        if self.voxels_prediction == self.voxels_truth == 0:
            return "both"
        return "prediction" if self.voxels_prediction == 0 else "truth" if self.voxels_truth == 0 else ""

    @property
    def voxels_prediction(self) -> int:
        """|P|."""
        return self.tp + self.fp

    @property
    def voxels_truth(self) -> int:
        """|T|."""
        return self.tp + self.fn

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(self.spacing_mm.prod()) / 1000

    def once(self, compute: Callable[[Pair], Result]) -> Result:
        """What a function makes of this pair, computed when first asked for: several metrics share it.

        Args:
            compute: a function or another hashable callable; the same one gives the same object again.
        """
        if compute not in self._known:
            self._known[compute] = compute(self)
        return self._known[compute]


def union_box(*masks: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box that holds every non-zero voxel of all masks; without any, a box of no voxel."""
    box: list[slice] = []
    for axis in range(3):
        inner = tuple(box)  # axes that are done already narrow the search on the others
        others = tuple(i for i in range(3) if i != axis)
        used = np.zeros(masks[0].shape[axis], bool)
        for mask in masks:
            used |= mask[inner].any(axis=others)
        where = np.flatnonzero(used)
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0))
    return box[0], box[1], box[2]


def border(mask: np.ndarray) -> np.ndarray:
    """The border voxels of a boolean mask: the mask minus its erosion by the cross of direct neighbours.

    Two per axis are direct neighbours, so 6 in 3D; everything outside the array is background.
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        eroded, source = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        eroded[1:] &= source[:-1]
        eroded[:-1] &= source[1:]
        eroded[:1] = eroded[-1:] = False  # slices, as there may be nothing along the axis
    return mask & ~inner
