"""Resampling as matrix products.

Spline interpolation on a regular grid is linear and separable, so the whole of it (prefilter, edge rule, weights)
folds into one matrix per axis, and a volume is resampled by three float32 matrix products. The result is that of
``skimage.transform.resize(order, mode="edge", anti_aliasing=False)``, that is ``scipy.ndimage.zoom(mode="nearest",
grid_mode=True)``, to float32 precision and in a fraction of the time and memory. When to treat an axis
separately, and the rule for masks, are nnU-Net's (preprocessing/resampling/default_resampling.py of version 2.8).

Notation: ``c`` channels; ``z, y, x`` voxels before, ``Z, Y, X`` after.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from autoseg.preprocessing.crop import bounding_box, slices

HALF = np.float32(0.5 - 1e-6)
"""Masks: at least one half, give or take float32's rounding."""

NEGLIGIBLE = 1e-15
"""Weights below this are left out; the last digit of float32 is 6e-8. Far from a voxel those of splines above order 1
fall below the smallest number that processors handle at full speed, and products took up to ten times as long."""

Range = tuple[int, int]


@functools.lru_cache(maxsize=128)
def axis_matrix(n_in: int, n_out: int, order: int) -> np.ndarray:
    """The matrix that resamples one axis.

    Args:
        n_in: voxels before.
        n_out: voxels after; both grids cover the same extent.
        order: of the spline, 0 (nearest) to 5.

    Returns:
        float32 ``[n_out, n_in]``, read-only; rows sum to 1.
    """
    if n_in == n_out:
        matrix = np.eye(n_in, dtype=np.float32)
    elif n_in == 1:
        matrix = np.ones((n_out, 1), np.float32)
    else:
        from scipy import ndimage

        factors = (n_out / n_in, 1)
        matrix = ndimage.zoom(np.eye(n_in), factors, order=order, mode="nearest", grid_mode=True)
        matrix[np.abs(matrix) < NEGLIGIBLE] = 0
        matrix = matrix.astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def separate_axis(before_mm: Sequence[float], after_mm: Sequence[float], ratio: float) -> int | None:
    """The axis across which planes are not blended, if there is one.

    The first of the two spacings whose largest value is more than ``ratio`` times its smallest decides: it is the
    axis of that largest value. None when neither is so anisotropic, or when two axes share the largest value.
    """
    for spacing in (before_mm, after_mm):
        if max(spacing) / min(spacing) > ratio:
            largest = [axis for axis, mm in enumerate(spacing) if mm == max(spacing)]
            return largest[0] if len(largest) == 1 else None
    return None


def new_shape(
    shape: Sequence[int], before_mm: Sequence[float], after_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Voxels after a change of spacing, at least one on each axis."""
    z, y, x = (max(1, round(old / new * n)) for n, old, new in zip(shape, before_mm, after_mm, strict=True))
    return z, y, x


def resample_image(
    image: np.ndarray,
    shape: Sequence[int],
    order: int,
    separate_axis: int | None = None,
    separate_axis_order: int = 0,
) -> np.ndarray:
    """Resample every channel.

    Overshoot of splines above order 1 is clipped to the range of the channel, or of the plane where an axis is
    treated separately.

    Args:
        image: float32 ``[c, z, y, x]``.
        shape: ``Z, Y, X``.
        order: of the spline, 0 to 5.
        separate_axis: the axis across which ``separate_axis_order`` holds instead.
        separate_axis_order: 0 or 1.

    Returns:
        float32 ``[c, Z, Y, X]``; ``image`` itself when nothing changes.
    """
    if tuple(image.shape[1:]) == tuple(shape):
        return image
    result = np.empty((len(image), *shape), np.float32)
    for channel, out in zip(image, result, strict=True):
        Resampler(channel, shape, order, separate_axis, separate_axis_order).planes(0, len(out), out)
    return result


def axis_orders(order: int, separate_axis: int | None, separate_axis_order: int) -> tuple[int, int, int]:
    """The spline order of each axis."""
    z, y, x = (separate_axis_order if axis == separate_axis else order for axis in range(3))
    return z, y, x


class Resampler:
    """Resamples one volume, all at once or some planes at a time; see :func:`resample_image`."""

    def __init__(
        self,
        volume: np.ndarray,
        shape: Sequence[int],
        order: int,
        separate_axis: int | None = None,
        separate_axis_order: int = 0,
    ) -> None:
        orders = axis_orders(order, separate_axis, separate_axis_order)
        self.volume, self.separate = volume, separate_axis
        self.matrices = [axis_matrix(n, m, k) for n, m, k in zip(volume.shape, shape, orders, strict=True)]
        planes = tuple(axis for axis in range(3) if axis != separate_axis)
        self.clips = any(orders[a] > 1 and volume.shape[a] != shape[a] for a in planes)
        if self.clips:  # splines above order 1 overshoot
            self.low, self.high = (f(axis=planes, keepdims=True) for f in (volume.min, volume.max))

    def planes(self, start: int, stop: int, out: np.ndarray) -> None:
        """Compute the planes ``start`` to ``stop`` of the first axis into ``out`` ``[stop - start, Y, X]``."""
        first = self.matrices[0][start:stop]
        columns = slice(*needed(first, 0, len(first)))
        steps = [first[:, columns], *self.matrices[1:]]
        matrices: list[np.ndarray | None] = list(steps)
        part, ranges, axis = self.volume[columns], [], self.separate
        if self.clips:
            ranges = [r[columns] if axis == 0 else r for r in (self.low, self.high)]
        if axis is not None:  # in the planes first, each clipped to its own range, then across them
            matrices[axis] = None
            if _selects(steps[axis]):
                part, *ranges = (_select(values, steps[axis], axis) for values in (part, *ranges))
        result = apply_matrices(part, matrices)
        if self.clips:
            low, high = ranges
            fits = result.shape == out.shape
            result = np.clip(result, low, high, out=out) if fits else np.clip(result, low, high)
        if axis is not None and not _selects(steps[axis]):
            result = _apply_along(result, steps[axis], axis)
        if result is not out:
            out[...] = result


def apply_matrices(volume: np.ndarray, matrices: Sequence[np.ndarray | None]) -> np.ndarray:
    """Apply one matrix to each axis of ``[z, y, x]``, in the order that takes the fewest operations.

    Args:
        volume: float32.
        matrices: ``[n_out, n_in]`` for each axis; None, and the identity, leave it as it is.

    Returns:
        float32; ``volume`` itself when no axis changes.
    """
    todo = {a: m for a, m in enumerate(matrices) if m is not None and not _is_identity(m)}
    shape = volume.shape
    order = min(itertools.permutations(todo), key=lambda axes: _operations(shape, todo, axes))
    for axis in order:
        volume = _apply_along(volume, todo[axis], axis)
    return volume


def _is_identity(matrix: np.ndarray) -> bool:
    n_out, n_in = matrix.shape
    return n_out == n_in and bool((matrix.diagonal() == 1).all())


def _operations(shape: Sequence[int], matrices: Mapping[int, np.ndarray], axes: Sequence[int]) -> int:
    shape, total = list(shape), 0
    for axis in axes:
        total += math.prod(shape) * len(matrices[axis])
        shape[axis] = len(matrices[axis])
    return total


def _apply_along(volume: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """One product; BLAS does the work, without transposed copies of the volume."""
    if axis == 2:
        return volume @ matrix.T
    if axis == 1:
        return matrix @ volume
    z, y, x = volume.shape
    return (matrix @ volume.reshape(z, y * x)).reshape(len(matrix), y, x)


def _selects(matrix: np.ndarray) -> bool:
    """Whether each row of the matrix takes one voxel as it is."""
    return bool((matrix.max(1) == 1).all())


def _select(volume: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """What a matrix that selects does to one axis."""
    return volume if _is_identity(matrix) else np.take(volume, matrix.argmax(1), axis)


def touched(matrix: np.ndarray, start: int, stop: int) -> Range:
    """First and one-past-last row that takes anything from the columns ``start`` to ``stop``."""
    rows = np.flatnonzero(matrix[:, start:stop].any(1))
    return (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)


def needed(matrix: np.ndarray, start: int, stop: int) -> Range:
    """First and one-past-last column that the rows ``start`` to ``stop`` take anything from."""
    columns = np.flatnonzero(matrix[start:stop].any(0))
    return int(columns[0]), int(columns[-1]) + 1


def resample_label(
    label: np.ndarray,
    shape: Sequence[int],
    order: int = 1,
    separate_axis: int | None = None,
    separate_axis_order: int = 0,
) -> np.ndarray:
    """Resample a mask label by label: where the interpolated label reaches one half it is written.

    Labels are written in ascending order and later ones overwrite; where none reaches one half there is
    background. Each label is interpolated within its own box only, outside of which it is 0 anyway.

    Args:
        label: integers ``[z, y, x]``; -1 (outside the non-zero mask) is a label like any other.
        shape: ``Z, Y, X``.
        order: 1, or 0 for nearest neighbour.
        separate_axis, separate_axis_order: as of :func:`resample_image`.

    Returns:
        ``[Z, Y, X]`` of the same type; ``label`` itself when nothing changes.
    """
    if tuple(label.shape) == tuple(shape):
        return label
    orders = axis_orders(order, separate_axis, separate_axis_order)
    matrices = [axis_matrix(n, m, k) for n, m, k in zip(label.shape, shape, orders, strict=True)]
    for axis, (matrix, k) in enumerate(zip(matrices, orders, strict=True)):
        if k == 0:  # nearest neighbour only selects, so it commutes with everything
            label = _select(label, matrix, axis)
            matrices[axis] = axis_matrix(len(matrix), len(matrix), 0)
    if tuple(label.shape) == tuple(shape):
        return label
    result = np.zeros(shape, label.dtype)
    for value in _label_values(label):
        _write_label(label, value, matrices, result)
    return result


def _label_values(label: np.ndarray) -> list[int]:
    """The values other than 0 that may be in a mask, ascending; looking for each is cheaper than sorting."""
    low, high = int(label.min()), int(label.max())
    values = range(low, high + 1) if high - low < 64 else np.unique(label).tolist()
    return [value for value in values if value != 0]


def _write_label(label: np.ndarray, value: int, matrices: Sequence[np.ndarray], result: np.ndarray) -> None:
    mask = label == value
    box = bounding_box(mask)
    if box is None:
        return
    rows = [touched(m, *pair) for m, pair in zip(matrices, box, strict=True)]
    cut = [m[slice(*row), slice(*pair)] for m, row, pair in zip(matrices, rows, box, strict=True)]
    share = apply_matrices(mask[slices(box)].astype(np.float32), cut)
    # background comes after -1 in ascending order, so an exact tie goes to background
    reached = share >= HALF if value > 0 else share > 1 - HALF
    result[slices(rows)][reached] = value
