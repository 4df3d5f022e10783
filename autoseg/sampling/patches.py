"""Cutting the voxels of one sample.

Notation: ``[c, z, y, x]`` images, ``[z, y, x]`` labels on the working grid. A 2D network's patch is a plane of
the first axis; it is cut with one voxel along z, which is dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.labels import OUTSIDE
from autoseg.sampling import geometry
from autoseg.sampling.parameters import Parameters

if TYPE_CHECKING:  # worker processes unpickle patches, and have no use for torch
    from autoseg.sampling.sample import Sample

SMALL = 128 * 128
"""Patches of a 2D network with up to so many pixels are cut alike for every angle: a batch is then turned at once."""


@dataclass(frozen=True)
class Patch:
    """What a backend works on: the cut-out voxels and what to do with them.

    Attributes:
        image: float32 ``[c, z, y, x]`` (``[c, y, x]`` for a 2D network), larger than the patch when it is turned.
        label: small integers, the same space; beyond the image
            :data:`autoseg.labels.OUTSIDE`, or 0 where the sampler says so.
        centre: the middle of the patch in the voxels of ``image``.
        size: of the patch, 2 or 3 numbers.
        values: the label values that occur, sorted; known only when voxels are interpolated.
        parameters: what to do.
        case: for messages.
        further: ``[d, d]``, how transforms after the shipped ones move it; None when they do not, or when it was cut
            that way.
    """

    image: np.ndarray
    label: np.ndarray
    centre: tuple[float, ...]
    size: tuple[int, ...]
    values: tuple[int, ...]
    parameters: Parameters
    case: str
    further: np.ndarray | None = None

    @property
    def is_spatial(self) -> bool:
        """Whether voxels are interpolated."""
        return self.parameters.is_spatial or self.further is not None

    @cached_property
    def matrix(self) -> np.ndarray:
        """From patch to image directions, ``[d, d]``."""
        moves = geometry.all_moves(self.parameters, self.further, len(self.size))
        return np.eye(len(self.size)) if moves is None else moves

    @cached_property
    def keeps_planes(self) -> bool:
        """Whether a 3D patch is turned and scaled plane by plane."""
        if self.further is None:
            return len(self.size) == 3 and self.parameters.in_plane
        return geometry.leaves_planes(self.matrix)


def cut_patch(
    sample: Sample,
    image: Any,
    label: Any,
    *,
    dims: int,
    further: np.ndarray | None = None,
    context: Sequence[int] = (0, 0, 0),
    beyond: np.ndarray | None = None,
    pinned: bool = False,
) -> Patch:
    """Cut the voxels that a sample needs.

    Args:
        image, label: ``[c, z, y, x]`` and ``[z, y, x]``; anything that can be sliced, in memory or on disk.
        dims: 2 drops the axis z of the cut.
        further: ``[dims, dims]``, how the transforms that follow the shipped ones move the patch; None for not at all.
        context: voxels around the sample's place, z, y, x, which are a part of the patch here.
        beyond: per channel the value beyond the image, ``[c]``. The label there is background, so that channels
            which are 0 outside the non-zero mask keep the value too. None: 0 and :data:`autoseg.labels.OUTSIDE`.
        pinned: allocate page-locked memory for large patches, from which CUDA copies while the program goes on.
    """
    start, size = _with_context(sample, context)
    matrix = geometry.in_space(sample.parameters, dims, further)
    quarters = None if matrix is None or sample.parameters.is_spatial else geometry.quarters(matrix, size)
    if quarters is not None:
        box, further = geometry.quarters_box(quarters, start, size), None
    else:
        turned_only = further is None and sample.parameters.scale is None
        box = _box(matrix, start, size, image.shape[1:], small=dims == 2 and turned_only)
    pinned = pinned and math.prod(size) > SMALL  # small ones are put together first
    fill, outside = (0, OUTSIDE) if beyond is None else (beyond[:, None, None, None], 0)
    cut_image = cut(image, box, fill, np.float32, pinned=pinned)
    cut_label = cut(label, box, outside, label.dtype, pinned=pinned)
    if quarters is not None:
        cut_image, cut_label = _moved(cut_image, quarters), _moved(cut_label, quarters)
    if dims == 2:
        cut_image, cut_label = cut_image[:, 0], cut_label[0]
    middle = [a + (n - 1) / 2 for a, n in zip(start, size, strict=True)]
    return Patch(
        image=cut_image,
        label=cut_label,
        centre=tuple(m - low for m, (low, _) in zip(middle, box, strict=True))[-dims:],
        size=size[-dims:],
        values=present(cut_label) if sample.parameters.is_spatial or further is not None else (),
        parameters=sample.parameters,
        case=sample.place.case,
        further=further,
    )


def _with_context(sample: Sample, context: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and size of what the network sees of a sample."""
    place = sample.place
    if not any(context):
        return place.start, place.size
    start = tuple(a - around for a, around in zip(place.start, context, strict=True))
    return start, tuple(n + 2 * around for n, around in zip(place.size, context, strict=True))


def _box(
    matrix: np.ndarray | None,
    start: Sequence[int],
    size: Sequence[int],
    image_size: Sequence[int],
    *,
    small: bool,
) -> geometry.Box:
    """The voxels that a sample needs; more than that of a plane that is turned, where it is ``small``."""
    if matrix is None:
        return tuple((a, a + n) for a, n in zip(start, size, strict=True))
    if small and math.prod(size) <= SMALL:
        return geometry.box_for_any_angle(start, size)
    return geometry.source_box(matrix, start, size, image_size)


def _moved(array: np.ndarray, quarters: Sequence[tuple[int, bool]]) -> np.ndarray:
    """The last three axes turned by quarters, see :func:`geometry.quarters`."""
    leading = array.ndim - len(quarters)
    moved = array.transpose(*range(leading), *(leading + axis for axis, _ in quarters))
    backwards = tuple(leading + to for to, (_, reverse) in enumerate(quarters) if reverse)
    return np.flip(
        moved, backwards
    ).copy()  # ascontiguousarray keeps a negative stride of an axis of one voxel


def cut(
    array: Any, box: geometry.Box, fill: int | np.ndarray, dtype: Any, *, pinned: bool = False
) -> np.ndarray:
    """A copy of the box over the last axes of ``array``, ``fill`` (as it broadcasts) where it lies outside."""
    shape = array.shape[len(array.shape) - len(box) :]
    inner = [(max(low, 0), min(high, n)) for (low, high), n in zip(box, shape, strict=True)]
    leading = tuple(array.shape[: len(array.shape) - len(box)])
    result = _empty((*leading, *(high - low for low, high in box)), dtype, pinned)
    if inner != list(box):
        result[...] = fill
    if all(low < high for low, high in inner):
        source: tuple[Any, ...] = (Ellipsis, *(slice(low, high) for low, high in inner))
        target: tuple[Any, ...] = (
            Ellipsis,
            *(slice(a - o, b - o) for (a, b), (o, _) in zip(inner, box, strict=True)),
        )
        result[target] = array[source]
    return result


def _empty(shape: tuple[int, ...], dtype: Any, pinned: bool) -> np.ndarray:
    if not pinned:
        return np.empty(shape, dtype)
    import torch

    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    try:
        return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
    except RuntimeError:  # the system allows only so much; the copy to the card then waits
        return np.empty(shape, dtype)


def present(label: np.ndarray) -> tuple[int, ...]:
    """The values that occur in a label, sorted; none may be below -1."""
    low, high = int(label.min()), int(label.max())
    if high - low < 16:  # a few comparisons are faster than counting
        return tuple(value for value in range(low, high + 1) if (label == value).any())
    counts = np.bincount(label.ravel().astype(np.intp) - OUTSIDE)
    return tuple(int(value) + OUTSIDE for value in np.flatnonzero(counts))
