"""Brains from formulas: ellipsoids, folded by random fields. Nothing is taken from a scan or an atlas.

Axes: +z superior (rat: anterior), +y anterior (rat: dorsal), +x the right side. Millimetres throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.phantoms.fields import Grid, blob, ellipsoid, inside, smooth_field

HUMAN_EXTENT_MM = 130.0
RAT_EXTENT_MM = 18.0


@dataclass
class Anatomy:
    """A brain without lesions; all arrays are ``[z, y, x]``.

    Attributes:
        coordinates: z, y, x of each voxel in the brain's own, undeformed system, in mm.
        depth_mm: distance to the outline, positive inside the brain.
        brain: share of the voxel inside the outline.
        csf: share that is fluid, in ventricles and between the folds.
        grey: share of grey matter; the rest of ``brain`` is white matter.
        ventricle: share that is fluid inside the brain, where no lesion grows.
    """

    coordinates: tuple[np.ndarray, np.ndarray, np.ndarray]
    depth_mm: np.ndarray
    brain: np.ndarray
    csf: np.ndarray
    grey: np.ndarray
    ventricle: np.ndarray

    def mix(self, white: float, grey: float, csf: float) -> np.ndarray:
        """An image of the brain with these intensities, 0 outside."""
        image = np.float32(grey - white) * self.grey
        image += np.float32(csf - white) * self.csf
        image += np.float32(white)
        image *= self.brain
        return image


def human(random: np.random.Generator, grid: Grid, pull_mm: np.ndarray | None = None) -> Anatomy:
    """A human brain: cerebrum, temporal lobes, cerebellum, brain stem, ventricles, deep grey matter, folds.

    Args:
        random: draws its size, pose, shape, folding, and how much fluid it has.
        grid: the voxels; the brain lies around the middle of the field of view.
        pull_mm: displacement along y, as artefacts of echo-planar imaging cause it.
    """
    age = random.uniform(0, 1)  # wide sulci and ventricles come together
    z, y, x = _posed(random, grid, size_sd=0.035, angle_sd=0.05, bend_mm=2.5, pull_mm=pull_mm)
    z = z - np.float32(8)  # the cerebellum and brain stem reach further down than the cerebrum up
    side = np.abs(x)
    waves = smooth_field(random, grid, 16.0, HUMAN_EXTENT_MM)
    cerebrum, cerebellum = _human_lobes(z, y, x)
    cerebrum += np.float32(1.6) * waves
    outline = np.minimum(cerebrum, cerebellum)
    folds = _folds(random, grid, -outline)
    midline = np.abs(x + np.float32(0.8) * waves)
    core = ellipsoid((z, y, np.zeros(1, np.float32)), (-4, -4, 0), (30, 50, 30))
    midline = np.maximum(midline, -core) + np.float32(40) * (cerebellum < cerebrum)
    tentorium = np.abs(cerebrum - cerebellum) + np.float32(4) * (side < 14)
    gap = np.minimum(np.minimum(folds, midline), np.minimum(tentorium, -outline + np.float32(1)))
    leaves = np.abs(np.sin((z + np.float32(0.35) * y) * np.float32(np.pi / 5)))  # of the cerebellum
    gap = np.where(cerebellum < cerebrum, np.maximum(gap, 1) * (0.6 + leaves), gap)
    gape = np.float32(0.5 + 0.4 * age) + np.exp(outline * np.float32(0.25))  # sulci open outwards
    ventricles = _human_ventricles(z, y, side, random, age)
    fluid = np.minimum(gap - gape, ventricles)
    pial = -outline - np.float32(4.2)
    ribbon = np.minimum(np.minimum(gap - np.float32(3.8), pial), _deep_grey(z, y, side))
    edge = grid.edge_mm
    csf = inside(fluid, edge)
    return Anatomy(
        coordinates=(z, y, x),
        depth_mm=-outline,
        brain=inside(outline, edge),
        csf=csf,
        grey=inside(ribbon, edge) * (1 - csf),
        ventricle=inside(ventricles, edge),
    )


def _posed(
    random: np.random.Generator,
    grid: Grid,
    size_sd: float,
    angle_sd: float,
    bend_mm: float,
    pull_mm: np.ndarray | None = None,
    extent_mm: float = HUMAN_EXTENT_MM,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of the voxels in the system of a brain that is tilted, resized and bent."""
    sizes = np.clip(random.normal(1, size_sd, 3), 0.9, 1.1)
    tilt, turn = np.clip(random.normal(0, angle_sd, 2), -0.12, 0.12)
    z, y, x = grid.coordinates()
    bend = [np.float32(bend_mm) * smooth_field(random, grid, extent_mm / 3, extent_mm) for _ in range(3)]
    if pull_mm is not None:
        bend[1] += pull_mm
    turned_x = np.cos(turn) * x - np.sin(turn) * y
    turned_y = np.sin(turn) * x + np.cos(turn) * y
    tilted_z = np.cos(tilt) * z - np.sin(tilt) * turned_x
    tilted_x = np.sin(tilt) * z + np.cos(tilt) * turned_x
    whole = (tilted_z, turned_y, tilted_x)
    z, y, x = ((c / s + b).astype(np.float32, copy=False) for c, s, b in zip(whole, sizes, bend, strict=True))
    return z, y, x


def _human_lobes(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to the cerebrum with temporal lobes, and to the cerebellum with brain stem."""
    narrow = x * (1 + np.float32(0.0016) * y)  # the forehead is narrower than the back
    tall = np.where(z > 0, z, z * np.float32(1.25))
    cerebrum = ellipsoid((tall, y, narrow), (0, 0, 0), (58, 81, 64))
    base = np.float32(-31) - z + np.float32(0.06) * np.abs(y)  # the cerebrum is flat below
    cerebrum = np.maximum(cerebrum, base)
    temporal = ellipsoid((z, y, np.abs(x)), (-26, 4, 37), (24, 38, 25))
    cerebellum = ellipsoid((z, y, x), (-44, -46, 0), (25, 31, 50))
    stem = ellipsoid((z, y + np.float32(0.25) * z, x), (-45, -30, 0), (40, 15, 15))
    return np.minimum(cerebrum, temporal), np.minimum(cerebellum, stem)


def _folds(random: np.random.Generator, grid: Grid, depth: np.ndarray) -> np.ndarray:
    """Distance to the nearest sulcus in mm: sulci are the zero level of a random field, near the surface."""
    field = smooth_field(random, grid, 5.6, HUMAN_EXTENT_MM)
    reach = np.float32(16) + np.float32(4) * smooth_field(random, grid, 20.0, HUMAN_EXTENT_MM)
    distance = np.abs(field) * np.float32(3.3)
    return np.maximum(distance, depth - reach)


def _human_ventricles(
    z: np.ndarray, y: np.ndarray, side: np.ndarray, random: np.random.Generator, age: float
) -> np.ndarray:
    size = np.float32((0.7 + 0.6 * age) * random.uniform(0.85, 1.2))
    forward = y - np.float32(12)
    spread = np.float32(7) + np.square(forward) * np.float32(0.0055)  # the horns diverge
    height = np.float32(10) - np.square(y + np.float32(2)) * np.float32(0.003)
    lateral = ellipsoid((z - height, y, side - spread), (0, -6, 0), (8 * size, 40, 5 * size))
    third = ellipsoid((z, y, side), (-3, -8, 0), (9, 12, 2.2 * size))
    fourth = ellipsoid((z, y, side), (-42, -33, 0), (9, 5, 6 * size))
    return np.minimum(np.minimum(lateral, third), fourth)


def _deep_grey(z: np.ndarray, y: np.ndarray, side: np.ndarray) -> np.ndarray:
    caudate = ellipsoid((z, y, side), (7, 18, 14), (9, 14, 5))
    putamen = ellipsoid((z, y, side + np.float32(0.15) * y), (0, 3, 27), (10, 17, 6))
    thalamus = ellipsoid((z, y, side), (4, -15, 11), (8, 13, 7))
    return np.minimum(np.minimum(caudate, putamen), thalamus)


def rat(random: np.random.Generator, grid: Grid) -> Anatomy:
    """A rat brain in coronal slices: smooth surface, callosum, slit-like ventricles, olfactory bulbs in front."""
    z, y, x = _posed(random, grid, 0.04, 0.04, 0.35, extent_mm=RAT_EXTENT_MM)
    side = np.abs(x)
    along = np.clip((z + np.float32(9)) / np.float32(18), 0, 1)  # 0 at the cerebellum, 1 at the bulbs
    width = np.interp(along, (0, 0.15, 0.4, 0.7, 0.86, 1), (4.6, 6.2, 7.2, 6.6, 4.0, 2.6)).astype(np.float32)
    height = np.interp(along, (0, 0.15, 0.4, 0.7, 0.86, 1), (3.6, 4.6, 5.2, 4.8, 3.6, 2.4)).astype(np.float32)
    up = np.where(y > 0, y / height, y / (height * np.float32(0.9)))
    radius = np.power(np.power(side / width, 2.4) + np.power(np.abs(up), 2.2), np.float32(1 / 2.3))
    outline = (radius - 1) * height
    outline += np.float32(0.18) * smooth_field(random, grid, 2.0, RAT_EXTENT_MM)
    groove = np.hypot(x * np.float32(1.6), y - height)  # where the hemispheres meet
    outline = np.maximum(outline, np.float32(0.75) - groove)
    edge = grid.edge_mm * 0.6
    fluid = np.minimum(_rat_ventricles(z, y, side, random), -outline - np.float32(0.02))
    white = np.minimum(_callosum(z, y, side), ellipsoid((z, y, x), (-8, -3, 0), (3, 1.2, 2.5)))
    csf = inside(fluid, edge)
    return Anatomy(
        coordinates=(z, y, x),
        depth_mm=-outline,
        brain=inside(outline, edge),
        csf=csf * (-outline > 0),
        grey=(1 - inside(white, edge)) * (1 - csf),
        ventricle=csf,
    )


def _rat_ventricles(
    z: np.ndarray, y: np.ndarray, side: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    size = random.uniform(0.7, 1.4)
    centre = np.float32(1.9) + np.float32(0.25) * np.clip(-z, 0, 5)  # further out towards the back
    across = np.float32(0.75) * (side - centre) - np.float32(0.66) * (y - np.float32(0.9))
    down = np.float32(0.66) * (side - centre) + np.float32(0.75) * (y - np.float32(0.9))
    lateral = ellipsoid((z, across, down), (0, 0, 0), (5.5, 1.6, 0.34 * size))
    third = ellipsoid((z, y, side), (-1.5, -1.6, 0), (3.5, 1.6, 0.22 * size))
    aqueduct = ellipsoid((z, y, side), (-6, 0.2, 0), (2.5, 0.5, 0.5 * size))
    return np.minimum(np.minimum(lateral, third), aqueduct)


def _callosum(z: np.ndarray, y: np.ndarray, side: np.ndarray) -> np.ndarray:
    arch = np.abs(y - np.float32(2.3) + np.float32(0.11) * np.square(side)) - np.float32(0.22)
    ends = np.maximum(side - np.float32(5.2), np.abs(z) - np.float32(5.5))
    fimbria = blob((z, y, side), (-1.0, 0.2, 2.6), 0.5)
    return np.minimum(np.maximum(arch, ends), np.float32(0.4) - fimbria)
