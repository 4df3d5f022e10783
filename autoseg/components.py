"""Connected components of a mask, in the volume or slice by slice."""

from __future__ import annotations

import numpy as np

PER_SLICE = (4, 8)
"""Numbers of neighbours within a slice; 6, 18 and 26 are those in the volume."""


def connected_components(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask.

    Args:
        mask: boolean ``[z, y, x]``.
        connectivity: neighbours of a voxel: 6, 18 or 26; 4 or 8 for components of each slice (of each z) by itself.

    Returns:
        The component of each voxel ``[z, y, x]`` from 1 on, 0 in the background, and the size of each component in
        voxels ``[component]``.
    """
    if connectivity not in PER_SLICE:
        labels, n = _label(mask, connectivity)
    else:  # all slices below one another, with an empty row between them, are labelled in one call
        depth, height, width = mask.shape
        rows = np.zeros((depth, height + 1, width), bool)
        rows[:, :-1] = mask
        labels, n = _label(rows.reshape(depth * (height + 1), width), connectivity)
        labels = labels.reshape(rows.shape)[:, :-1]
    return labels, np.bincount(labels[mask], minlength=n + 1)[1:]


def _label(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, int]:
    import cc3d

    binary = np.ascontiguousarray(mask).view(np.uint8)
    # cc3d itself refuses another number than 4, 6, 8, 18 and 26
    labels, n = cc3d.connected_components(binary, connectivity=connectivity, return_N=True)  # type: ignore[call-overload]
    return labels, int(n)
