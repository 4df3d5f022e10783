"""Lesions: irregular blobs of given volumes, grown from a focus inside one hemisphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoseg.phantoms.anatomy import HUMAN_EXTENT_MM, RAT_EXTENT_MM, Anatomy
from autoseg.phantoms.fields import Grid, smooth_field
from autoseg.phantoms.settings import PhantomLesions

SMALLEST_VOXELS = 4
"""So that a lesion at a small scale does not vanish."""


@dataclass
class Lesion:
    """What was grown; arrays are ``[z, y, x]``.

    Attributes:
        mask: boolean.
        halo: boolean, the mask and what surrounds it: tissue at risk.
        share: of each voxel that is lesion, with a soft edge.
        halo_share: the same for the halo.
    """

    mask: np.ndarray
    halo: np.ndarray
    share: np.ndarray
    halo_share: np.ndarray


def human_focus(random: np.random.Generator, side: int) -> tuple[float, float, float]:
    """A point (z, y, x in mm) in one hemisphere; cortical and deep places are about as likely."""
    while True:
        z, y, x = random.uniform(-25, 48), random.uniform(-68, 62), random.uniform(9, 56)
        if (z / 55) ** 2 + (y / 74) ** 2 + (x / 58) ** 2 < 0.9:
            return z, y, side * x


def rat_focus(random: np.random.Generator, side: int) -> tuple[float, float, float]:
    """A point (z, y, x in mm) in the territory of the middle cerebral artery."""
    return random.uniform(-4, 4), random.uniform(-2.2, 1.8), side * random.uniform(2.6, 5.6)


def none(grid: Grid) -> Lesion:
    """No lesion."""
    mask, share = np.zeros(grid.shape, bool), np.zeros(grid.shape, np.float32)
    return Lesion(mask, mask, share, share)


def grow(
    random: np.random.Generator,
    grid: Grid,
    anatomy: Anatomy,
    load: PhantomLesions,
    focus: Callable[[np.random.Generator, int], tuple[float, float, float]],
    *,
    side: int,
    halo: float = 1.0,
) -> Lesion:
    """Grow one main lesion and some further foci in the tissue of one hemisphere.

    Args:
        random: draws volumes, places, shapes.
        grid: the voxels.
        anatomy: the brain; lesions stay inside its tissue.
        load: how much.
        focus: draws a place.
        side: 1 for the right, -1 for the left.
        halo: volume of lesion and tissue at risk over that of the lesion.
    """
    total_ml = float(np.clip(load.median_ml * np.exp(load.sigma * random.standard_normal()), *load.limits_ml))
    extra = int(min(random.poisson(load.extra), 4))
    shares = np.concatenate([[1.0], random.uniform(0.08, 0.35, extra)])
    z, y, x = anatomy.coordinates
    tissue = (anatomy.brain > 0.6) & (anatomy.ventricle < 0.5) & (x * side > 0)
    extent = HUMAN_EXTENT_MM if focus is human_focus else RAT_EXTENT_MM
    mask, wide = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    for volume_ml in total_ml * shares / shares.sum():
        level = _level(random, grid, anatomy, focus(random, side), volume_ml, extent)
        mask |= _lowest(level, tissue, volume_ml, grid)
        wide |= _lowest(level, tissue, volume_ml * halo, grid)
    return Lesion(mask, wide | mask, _softened(mask, anatomy), _softened(wide | mask, anatomy))


def _level(
    random: np.random.Generator,
    grid: Grid,
    anatomy: Anatomy,
    focus: tuple[float, float, float],
    volume_ml: float,
    extent_mm: float,
) -> np.ndarray:
    """Distance to the focus, stretched and made irregular at the lesion's own size."""
    radius = float(np.cbrt(volume_ml * 1000 * 0.24))
    stretch = np.exp(random.normal(0, 0.22, 3))
    squares = sum(
        np.square((c - np.float32(m)) * np.float32(s))
        for c, m, s in zip(anatomy.coordinates, focus, stretch, strict=True)
    )
    level = np.sqrt(squares)
    finest = extent_mm / 26
    for part, amount in ((0.9, 0.30), (0.4, 0.14)):
        size = max(finest, part * radius)
        level += np.float32(amount * radius) * smooth_field(random, grid, size, extent_mm)
    return level


def _lowest(level: np.ndarray, allowed: np.ndarray, volume_ml: float, grid: Grid) -> np.ndarray:
    """The allowed voxels with the lowest level that make up the volume."""
    values = level[allowed]
    wanted = max(SMALLEST_VOXELS, round(volume_ml / grid.voxel_ml))
    if wanted >= values.size:
        return allowed.copy()
    threshold = np.partition(values, wanted)[wanted]
    return allowed & (level < threshold)


def _softened(mask: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """The share of lesion in each voxel: partial volume at the edge in the plane, none beyond the brain."""
    from scipy.ndimage import gaussian_filter

    share = gaussian_filter(mask.astype(np.float32), (0, 0.55, 0.55), truncate=3)
    share *= anatomy.brain * (1 - np.float32(0.8) * anatomy.csf)  # fluid stays fluid
    return share
