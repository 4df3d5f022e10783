"""Steps on connected components: small islands, small holes, the largest component."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cc3d
import numpy as np

from autoseg.plugins.parts import Segmentation, StepPart


def small_components(mask: np.ndarray, fewer_than_voxels: int, connectivity: int = 26) -> np.ndarray:
    """Which voxels of a boolean mask ``[z, y, x]`` lie in components of fewer voxels than given."""
    components = _components(mask, connectivity)
    sizes = np.bincount(components.ravel())
    small = sizes < fewer_than_voxels
    small[0] = False
    return small[components]


def _components(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """The component of each voxel, 0 in the background; connectivity 6, 18 or 26."""
    count: Any = cc3d.connected_components  # its types name the connectivities one by one
    return count(np.ascontiguousarray(mask, np.uint8), connectivity=connectivity)


def remove_small_components(
    case: Segmentation, *, fewer_than_voxels: int, connectivity: int = 26
) -> Segmentation:
    """Components of all foreground with fewer voxels than given become background."""
    islands = small_components(case.mask > 0, fewer_than_voxels, connectivity)
    return replace(case, mask=np.where(islands, 0, case.mask).astype(np.uint8))


def fill_small_holes(
    case: Segmentation, *, fewer_than_voxels: int, connectivity: int = 26, value: int = 1
) -> Segmentation:
    """Components of the background with fewer voxels than given become ``value``.

    A component that is cut off by the border of the image counts as a hole too, as in the code of Valverde et al. 2020.
    """
    holes = small_components(case.mask == 0, fewer_than_voxels, connectivity)
    return replace(case, mask=np.where(holes, value, case.mask).astype(np.uint8))


def keep_largest_component(case: Segmentation, *, connectivity: int = 26) -> Segmentation:
    """All foreground but its largest component becomes background."""
    components = _components(case.mask > 0, connectivity)
    sizes = np.bincount(components.ravel())
    if len(sizes) < 2:
        return case
    sizes[0] = 0
    return replace(case, mask=np.where(components == sizes.argmax(), case.mask, 0).astype(np.uint8))


STEPS = (
    StepPart("remove_small_components", remove_small_components, summary="small islands become background"),
    StepPart("fill_small_holes", fill_small_holes, summary="small holes become lesion"),
    StepPart("keep_largest_component", keep_largest_component, summary="all but the largest component goes"),
)
