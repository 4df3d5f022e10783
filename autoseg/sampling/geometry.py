"""Where the voxels of a turned and scaled patch come from.

A patch has its own coordinates, counted in voxels from its middle. ``affine`` maps them to the image's axes;
together with the patch's middle in the image it says which image point each voxel shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.sampling.parameters import Parameters

Box = tuple[tuple[int, int], ...]
"""First and one-past-last index for each axis; may reach beyond the image."""

ROUNDING = 1e-3  # in voxels: more than float32 loses on coordinates, less than matters
INSIDE = 1.5  # voxels between a kept voxel and the patch's outermost voxel centres, for rounding the start


def affine(parameters: Parameters, dims: int) -> np.ndarray:
    """The matrix ``[dims, dims]`` (float64) from patch to image directions: Rx Ry Rz of the axes 2, 1, 0 times scale.

    Turning about axis 0 (z) moves y and x and comes first, as in nnU-Net. In-plane parameters leave axis 0
    of a 3D patch alone.
    """
    scale = 1.0 if parameters.scale is None else parameters.scale
    if dims == 3 and parameters.in_plane:
        matrix = np.eye(3)
        matrix[1:, 1:] = _turn(parameters.rotation[0] if parameters.rotation else 0.0) * scale
        return matrix
    if dims == 2:
        return _turn(parameters.rotation[0] if parameters.rotation else 0.0) * scale
    matrix = np.eye(3)
    for axis, angle in enumerate(parameters.rotation):
        matrix = _turn_about(axis, angle) @ matrix
    return matrix * scale


def all_moves(parameters: Parameters, further: np.ndarray | None, dims: int) -> np.ndarray | None:
    """The matrix ``[dims, dims]`` of the shipped transforms and of those that follow; None without either.

    Args:
        further: ``[dims, dims]``, of those that follow.
    """
    if further is None:
        return affine(parameters, dims) if parameters.is_spatial else None
    return affine(parameters, dims) @ further if parameters.is_spatial else further


def in_space(parameters: Parameters, dims: int, further: np.ndarray | None = None) -> np.ndarray | None:
    """As :func:`all_moves`, but always ``[3, 3]``: a plane of z stays in its plane."""
    moves = all_moves(parameters, further, dims)
    if moves is None:
        return None
    matrix = np.eye(3)
    matrix[-dims:, -dims:] = moves
    return matrix


def leaves_planes(matrix: np.ndarray) -> bool:
    """Whether every plane of the first of three axes stays by itself."""
    first = np.array([1, 0, 0])
    return len(matrix) == 3 and bool((matrix[0] == first).all() and (matrix[:, 0] == first).all())


def quarters(matrix: np.ndarray, size: Sequence[int]) -> tuple[tuple[int, bool], ...] | None:
    """Turns by quarters and flips move voxels to voxels: no interpolation is needed.

    Args:
        matrix: from patch to image directions.
        size: of the patch.

    Returns:
        For each axis of the patch the axis of the image that it shows, and whether it shows it backwards. None where
        the matrix is another, or where an odd number of voxels takes the place of an even one.
    """
    moved = np.abs(matrix)
    if not np.isin(moved, (0, 1)).all() or (moved.sum(axis=0) != 1).any() or (moved.sum(axis=1) != 1).any():
        return None
    axes = moved.argmax(axis=0).tolist()
    if any((size[axis] - n) % 2 for axis, n in zip(axes, size, strict=True)):
        return None
    return tuple((axis, bool(matrix[axis, to] < 0)) for to, axis in enumerate(axes))


def quarters_box(moves: Sequence[tuple[int, bool]], start: Sequence[int], size: Sequence[int]) -> Box:
    """The image voxels that a patch shows which is turned by quarters about its middle."""
    box = [(0, 0)] * len(size)
    for n, (axis, _) in zip(size, moves, strict=True):
        first = int(start[axis]) + (int(size[axis]) - int(n)) // 2
        box[axis] = (first, first + int(n))
    return tuple(box)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _turn_about(axis: int, angle: float) -> np.ndarray:
    """A rotation about one of three axes, right-handed in the order z, y, x."""
    matrix = np.eye(3)
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def source_box(
    matrix: np.ndarray, start: Sequence[int], patch_size: Sequence[int], image_size: Sequence[int]
) -> Box:
    """The image voxels that a transformed patch touches: what must be cut for it, and no more.

    It ends one voxel beyond the image: with that border of padding repeated, all that lies further out
    looks the same. An axis that the matrix leaves alone is cut as it is.
    """
    alone = (matrix == np.eye(len(matrix))).all(axis=1)
    half = (np.asarray(patch_size) - 1) / 2
    centre = np.asarray(start) + half
    reach = np.abs(matrix) @ half
    low = np.floor(centre - reach - ROUNDING).astype(int)
    high = np.ceil(centre + reach + ROUNDING).astype(int) + 1
    low = np.clip(low, -1, np.asarray(image_size))
    high = np.clip(high, low + 1, np.asarray(image_size) + 1)
    low = np.where(alone, start, low)
    high = np.where(alone, np.asarray(start) + patch_size, high)
    return tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))


def box_for_any_angle(start: Sequence[int], patch_size: Sequence[int]) -> Box:
    """The image voxels that a plane touches, however it is turned: of the same size for all patches of this size."""
    reach = math.hypot(*((n - 1) / 2 for n in patch_size[1:])) + ROUNDING
    box = [(start[0], start[0] + patch_size[0])]
    for first, n in zip(start[1:], patch_size[1:], strict=True):
        half = (n - 1) / 2
        box.append((first + math.floor(half - reach), first + math.ceil(half + reach) + 1))
    return tuple(box)


def centred_start(image_size: Sequence[int], patch_size: Sequence[int]) -> np.ndarray:
    """Where a patch begins that has the image in its middle; of an odd margin the larger half lies after it."""
    return -((np.asarray(patch_size) - np.asarray(image_size)) // 2)


def keep_inside(
    voxel: Sequence[int], matrix: np.ndarray, start: Sequence[int] | np.ndarray, patch_size: Sequence[int]
) -> tuple[int, ...]:
    """The start nearest to ``start`` from which the transformed patch still shows ``voxel``.

    A patch that was shifted to stay within the image does not have the voxel in its middle: turning or zooming
    in could lose the lesion that it was cut for.
    """
    half = (np.asarray(patch_size) - 1) / 2
    seen = np.linalg.solve(matrix, np.asarray(voxel) - np.asarray(start) - half)
    if (np.abs(seen) <= half).all():
        return tuple(int(a) for a in start)
    margin = np.maximum(half - INSIDE, 0)
    excess = seen - np.clip(seen, -margin, margin)
    shift = np.rint(matrix @ excess).astype(int)
    return tuple(int(a + b) for a, b in zip(start, shift, strict=True))


def start_that_shows(
    voxel: Sequence[int],
    position: Sequence[int] | np.ndarray,
    matrix: np.ndarray | None,
    patch_size: Sequence[int],
) -> tuple[int, int, int]:
    """The start from which a patch shows ``voxel`` at ``position``, to within rounding where it is turned.

    Args:
        voxel: z, y, x in the image.
        position: z, y, x in the patch, counted from 0.
        matrix: from patch to image directions, ``[3, 3]``; None when the patch is neither turned nor scaled.
        patch_size: z, y, x.
    """
    half = (np.asarray(patch_size) - 1) / 2
    offset = np.asarray(position) - half
    if matrix is not None:
        offset = matrix @ offset
    z, y, x = np.rint(voxel - offset - half).astype(int).tolist()
    return z, y, x


def as_voxel(values: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
    """Three plain integers z, y, x."""
    z, y, x = (int(value) for value in values)
    return z, y, x
