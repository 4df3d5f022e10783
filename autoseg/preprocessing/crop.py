"""Where a case is not empty: the non-zero mask, the object in the air, and boxes.

Notation: ``c`` channels; ``z, y, x`` voxels of any grid. A box is a pair (first, one past last) for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

MARGIN = 0.1
"""Around the object, as a share of its edges: what is as dark as air at its rim stays in the crop."""


def any_nonzero(image: np.ndarray) -> np.ndarray:
    """Where any channel of ``[c, z, y, x]`` is not 0, as bool ``[z, y, x]``; holes are left as they are."""
    mask = image[0] != 0
    for channel in image[1:]:
        mask |= channel != 0
    return mask


def object_mask(values: np.ndarray) -> np.ndarray:
    """Which voxels belong to the object, not to the air around it: those above Otsu's threshold.

    Args:
        values: of one channel, any shape, float32.

    Returns:
        bool, of the same shape; False everywhere in an image of one value.
    """
    import SimpleITK as sitk

    if not values.size or values.min() == values.max():
        return np.zeros(values.shape, bool)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(values.reshape(1, -1)))
    return values > otsu.GetThreshold()


def object_box(image: np.ndarray) -> Box:
    """The box around the object in any channel of ``[c, z, y, x]``, with :data:`MARGIN`; without object everything."""
    mask = np.any([object_mask(channel.astype(np.float32, copy=False)) for channel in image], axis=0)
    box = bounding_box(mask)
    if box is None:
        return whole(mask.shape)
    margins = [math.ceil(MARGIN * (stop - start)) for start, stop in box]
    z, y, x = (
        (max(0, start - more), min(n, stop + more))
        for (start, stop), more, n in zip(box, margins, mask.shape, strict=True)
    )
    return z, y, x


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box around the True voxels of ``[z, y, x]``; None when there are none."""
    plane = np.any(mask, axis=0)
    lines = (np.any(mask, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0))
    if not lines[1].any():
        return None
    z, y, x = ((int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in lines)
    return z, y, x


def whole(shape: Sequence[int]) -> Box:
    """The box that holds everything."""
    z, y, x = ((0, int(n)) for n in shape)
    return z, y, x


def slices(box: Sequence[Sequence[int]]) -> tuple[slice, slice, slice]:
    """A box as an index."""
    z, y, x = (slice(start, stop) for start, stop in box)
    return z, y, x


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask ``[z, y, x]`` with its holes filled: background that cannot reach the border through faces.

    The same as ``scipy.ndimage.binary_fill_holes``, which takes many times as long.
    """
    import cc3d

    box = bounding_box(mask)
    if box is None or mask.all():
        return mask
    inside = slices(box)
    outside = np.pad(~mask[inside], 1, constant_values=True)
    components = cc3d.connected_components(outside.view(np.uint8), connectivity=6)
    filled = np.zeros_like(mask)
    filled[inside] = (components != components[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled
