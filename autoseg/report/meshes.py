"""Surfaces of masks and heads as triangles: marching cubes, simplified and smoothed, in mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from autoseg.components import connected_components
from autoseg.evaluation.metrics.pair import union_box

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SMOOTHING = (0.5, -0.53)
"""Steps of Taubin 1995, which take off the stairs of voxels without shrinking the whole."""
ROUNDS = 10
DEEPEST = 3.0
"""Voxels from the edge of a mask in its slice within which the surface between slices is slanted."""
LEAST_CELLS = 4
"""Parts of a surface that are smaller than so many cells in each direction are not simplified."""
HEAD_VOXELS = 64
"""The head is meshed on a grid of at most so many voxels in each direction: it is only an outline."""
HEAD_SIGMA = 1.0
"""Voxels of that grid by which the tissue is smoothed, so that noise in the air is no head."""


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Attributes:
        vertices_mm: ``[n, 3]``.
        faces: ``[m, 3]``, indices of vertices; counter-clockwise as seen from outside.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray

    @cached_property
    def normals(self) -> np.ndarray:
        """``[n, 3]``: unit vectors outwards, at each vertex the mean of its faces by their area."""
        a, b, c = (self.vertices_mm[self.faces[:, i]] for i in range(3))
        by_area = np.cross(b - a, c - a)
        of_vertex, n = self.faces.ravel(), len(self.vertices_mm)
        sums = [np.bincount(of_vertex, np.repeat(by_area[:, i], 3), n) for i in range(3)]
        return unit(np.stack(sums, axis=1))

    @cached_property
    def volume_mm3(self) -> float:
        """What the surface holds, by the divergence theorem; of surfaces within each other the difference."""
        a, b, c = (self.vertices_mm[self.faces[:, i]] for i in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``[..., 3]`` of length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


NO_MESH = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int))


def mesh_of_mask(mask: np.ndarray, spacing_mm: tuple[float, ...], cell_mm: float) -> Mesh:
    """The surface of a mask, with stairs smoothed; no component gets lost, however small.

    Args:
        mask: boolean ``[x, y, z]``, or axes in any other order that is right-handed.
        spacing_mm: along them.
        cell_mm: what is smaller is not seen: corners within a cube so wide become one.

    Returns:
        In mm from the centre of the first voxel.
    """
    if not mask.any():
        return NO_MESH
    box = union_box(mask)
    mesh = _marching_cubes(_depth_mm(np.pad(mask[box], 1), spacing_mm), 0.0, spacing_mm)
    mesh = smooth(simplify(mesh, cell_mm))
    offset = (np.array([s.start for s in box]) - 1) * spacing_mm
    return Mesh(mesh.vertices_mm + offset, mesh.faces)


def _depth_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """How deep each voxel lies within the mask, negative outside, in its slice and at most some voxels.

    Between thick slices the surface then follows the shapes of both and has no steps as high as a slice.
    """
    from scipy import ndimage

    across = int(np.argmax(spacing_mm))
    slices = np.moveaxis(mask, across, 0)
    in_plane = [mm for i, mm in enumerate(spacing_mm) if i != across]
    most = DEEPEST * max(in_plane)

    def depth(part: np.ndarray) -> np.ndarray:
        return np.stack(
            [ndimage.distance_transform_edt(one, in_plane) if not one.all() else one * most for one in part]
        )

    found = np.clip(depth(slices) - depth(~slices), -most, most).astype(np.float32)
    return np.moveaxis(found, 0, across)


def mesh_of_head(tissue: np.ndarray, spacing_mm: tuple[float, ...], masks: np.ndarray) -> Mesh:
    """The surface of the head, or of the brain where the skull was taken off, on a coarse grid.

    Args:
        tissue: boolean ``[x, y, z]``, true where it is not air.
        spacing_mm: along its axes.
        masks: boolean, what belongs to the head whatever it looks like.

    Returns:
        In mm from the centre of the first voxel; nothing where there is no tissue or nothing else.
    """
    from scipy import ndimage

    longest_mm = np.max(np.multiply(tissue.shape, spacing_mm))
    steps = np.maximum(1, np.ceil(longest_mm / HEAD_VOXELS / np.array(spacing_mm)).astype(int))
    solid = ndimage.gaussian_filter(_means(tissue, steps), HEAD_SIGMA) > 0.5
    if not solid.any() or solid.all():
        return NO_MESH
    labels, sizes = connected_components(solid | (_means(masks, steps) > 0.5), 6)
    head = ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax()))
    soft = ndimage.gaussian_filter(np.pad(head, 3).astype(np.float32), HEAD_SIGMA)
    mesh = smooth(_marching_cubes(soft, 0.5, tuple(steps * spacing_mm)))
    first = (steps - 1) / 2 * spacing_mm  # centre of the first coarse voxel
    return Mesh(mesh.vertices_mm - 3 * steps * spacing_mm + first, mesh.faces)


def _means(volume: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Means of blocks; what is left over at the ends is repeated to a whole block."""
    image = np.pad(
        volume.astype(np.float32),
        [(0, -n % step) for n, step in zip(volume.shape, steps, strict=True)],
        mode="edge",
    )
    (a, b, c), (i, j, k) = image.shape, (int(step) for step in steps)
    return image.reshape(a // i, i, b // j, j, c // k, k).mean((1, 3, 5))


def _marching_cubes(field: np.ndarray, level: float, spacing_mm: tuple[float, ...]) -> Mesh:
    from skimage.measure import marching_cubes

    if not field.min() < level < field.max():
        return NO_MESH
    vertices, faces, _, _ = marching_cubes(field, level, spacing=spacing_mm)
    return Mesh(vertices.astype(float), faces[:, ::-1].astype(int))  # its faces run clockwise from outside


def simplify(mesh: Mesh, cell_mm: float) -> Mesh:
    """Corners within one cell become their mean (Rossignac and Borrel 1993); small parts stay as they are."""
    part = _parts(mesh)
    cells = np.floor(mesh.vertices_mm / cell_mm).astype(int)
    small = ~_large(cells, part)
    cells[small] = np.arange(len(cells))[small, None]
    _, place = np.unique(np.column_stack([part, small, cells]), axis=0, return_inverse=True)
    place = place.ravel()
    n = np.bincount(place)
    vertices = np.stack([np.bincount(place, mesh.vertices_mm[:, i]) / n for i in range(3)], axis=1)
    faces = place[mesh.faces]
    a, b, c = faces.T
    return Mesh(vertices, faces[(a != b) & (b != c) & (a != c)])


def _parts(mesh: Mesh) -> np.ndarray:
    """For each vertex the number of the closed surface that it belongs to."""
    from scipy.sparse.csgraph import connected_components as of_graph

    return of_graph(_neighbours(mesh), directed=False)[1]


def _large(cells: np.ndarray, part: np.ndarray) -> np.ndarray:
    """For each vertex whether its part is at least :data:`LEAST_CELLS` wide in each direction."""
    low, high = (
        np.full((part.max() + 1, 3), np.iinfo(int).max),
        np.full((part.max() + 1, 3), np.iinfo(int).min),
    )
    np.minimum.at(low, part, cells)
    np.maximum.at(high, part, cells)
    return ((high - low + 1).min(1) >= LEAST_CELLS)[part]


def smooth(mesh: Mesh) -> Mesh:
    """Move each vertex towards the mean of its neighbours and, a little farther, back (Taubin 1995)."""
    if not len(mesh.faces):
        return mesh
    neighbours, vertices = _neighbours(mesh), mesh.vertices_mm
    n = np.maximum(1, np.asarray(neighbours.sum(1))).reshape(-1, 1)
    for _ in range(ROUNDS):
        for step in SMOOTHING:
            vertices = vertices + step * (neighbours @ vertices / n - vertices)
    return Mesh(vertices, mesh.faces)


def _neighbours(mesh: Mesh) -> csr_array:
    """Sparse ``[n, n]``: 1 for each two vertices of one face."""
    from scipy.sparse import coo_array

    a, b, c = mesh.faces.T
    rows, columns = np.concatenate([a, b, c, b, c, a]), np.concatenate([b, c, a, a, b, c])
    n = len(mesh.vertices_mm)
    found = coo_array((np.ones(len(rows)), (rows, columns)), (n, n)).tocsr()
    found.data[:] = 1
    return found
