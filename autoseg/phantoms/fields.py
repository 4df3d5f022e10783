"""Grids in millimetres, smooth random fields on them, soft edges and scanner noise.

Arrays are ``[z, y, x]`` float32. Random fields live on a lattice in millimetres that does not depend on the
voxels, so a phantom at a smaller scale is the same brain in larger voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm, 0 in the middle of the field of view.

    Attributes:
        axes: one float32 array for each of z, y, x.
        spacing_mm: z, y, x.
    """

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def centred(cls, shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
        """The grid of a whole volume."""
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
            for n, mm in zip(shape, spacing_mm, strict=True)
        )
        mm_z, mm_y, mm_x = spacing_mm
        return cls((z, y, x), (mm_z, mm_y, mm_x))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels, z, y, x."""
        z, y, x = (len(axis) for axis in self.axes)
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000

    @property
    def edge_mm(self) -> float:
        """Over which distance an edge is smeared; slices average over their thickness."""
        return 0.7 * self.spacing_mm[1] + 0.25 * self.spacing_mm[0]

    def within(self, low_mm: Sequence[float], high_mm: Sequence[float]) -> tuple[Grid, tuple[slice, ...]]:
        """The part of the grid inside a box (z, y, x), and where it lies in the whole."""
        box = tuple(
            slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, side="right")))
            for axis, low, high in zip(self.axes, low_mm, high_mm, strict=True)
        )
        z, y, x = (axis[cut] for axis, cut in zip(self.axes, box, strict=True))
        return Grid((z, y, x), self.spacing_mm), box

    def coordinates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """z, y, x of all voxels in mm, in shapes that broadcast to the grid's."""
        z, y, x = self.axes
        return z[:, None, None], y[None, :, None], x[None, None, :]


def smooth_field(random: np.random.Generator, grid: Grid, size_mm: float, extent_mm: float) -> np.ndarray:
    """A random field with mean about 0 and standard deviation about 1 ``[z, y, x]``.

    Cubic B-splines with random coefficients. Four terms per axis are added one by one instead of by a matrix
    product, whose last bit depends on the number of threads.

    Args:
        random: where the coefficients come from; how many are drawn does not depend on the voxels.
        grid: where it is evaluated.
        size_mm: distance between lattice points; structures are about twice this wide.
        extent_mm: the lattice covers -extent to extent along each axis.
    """
    n = int(np.ceil(2 * extent_mm / size_mm)) + 4
    values = random.standard_normal((n, n, n), dtype=np.float32)
    for axis in (2, 1, 0):
        values = _interpolate(values, axis, (grid.axes[axis] + extent_mm) / size_mm)
    return values * np.float32(3.0)


def _interpolate(values: np.ndarray, axis: int, position: np.ndarray) -> np.ndarray:
    position = np.clip(position, 0, values.shape[axis] - 4)
    first = np.minimum(position.astype(np.int64), values.shape[axis] - 4)
    t = (position - first).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1, 1, 1]
    shape[axis] = -1

    def term(step: int) -> np.ndarray:
        taken = np.take(values, first + step, axis=axis)
        taken *= (weights[step] / 6).reshape(shape)
        return taken

    total = term(0)
    for step in (1, 2, 3):
        total += term(step)
    return total


def ellipsoid(
    coordinates: Sequence[np.ndarray], centre: Sequence[float], half_axes: Sequence[float]
) -> np.ndarray:
    """About how far outside an ellipsoid each voxel is, in mm; negative inside.

    Args:
        coordinates: z, y, x in mm.
        centre: z, y, x in mm.
        half_axes: along z, y, x in mm.
    """
    squares = sum(
        np.square((c - np.float32(m)) / np.float32(a))
        for c, m, a in zip(coordinates, centre, half_axes, strict=True)
    )
    return (np.sqrt(squares) - np.float32(1)) * np.float32(min(half_axes))


def blob(coordinates: Sequence[np.ndarray], centre: Sequence[float], width_mm: float) -> np.ndarray:
    """A Gaussian hill of height 1 around ``centre`` (z, y, x in mm)."""
    squares = sum(np.square(c - np.float32(m)) for c, m in zip(coordinates, centre, strict=True))
    return np.exp(squares * np.float32(-0.5 / width_mm**2))


def inside(distance_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """The share of each voxel that lies inside a surface, from its signed distance (negative inside)."""
    share = np.multiply(distance_mm, np.float32(-1 / edge_mm))
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def rician(random: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of a signal with Gaussian noise in both of its parts, as MR scanners give it."""
    real = random.standard_normal(signal.shape, dtype=np.float32)
    real *= np.float32(sigma)
    real += signal
    imaginary = random.standard_normal(signal.shape, dtype=np.float32)
    imaginary *= np.float32(sigma)
    return np.hypot(real, imaginary, out=real)
