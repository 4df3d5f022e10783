"""Steps on connected components: small islands, small holes, the largest component."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import cc3d
import numpy as np

from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation, StepPart

SHARE = 0.9
"""Of islands or holes that the learned size removes (Valverde et al. 2020, by which 20 voxels were chosen)."""


def small_components(mask: np.ndarray, fewer_than_voxels: float, connectivity: int = 26) -> np.ndarray:
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
    case: Segmentation, *, fewer_than_voxels: float, connectivity: int = 26, voxel_mm3: float | None = None
) -> Segmentation:
    """Components of all foreground with fewer voxels than given become background.

    Args:
        case: any number of classes.
        fewer_than_voxels: the size from which on they stay; it can be learned.
        connectivity: 6, 18 or 26.
        voxel_mm3: volume of the voxels that are counted, so that the same volume counts on every grid; None for those
            of the case.
    """
    fewer = fewer_than_voxels / voxels_counted(case, voxel_mm3)
    islands = small_components(case.mask > 0, fewer, connectivity)
    return replace(case, mask=np.where(islands, 0, case.mask).astype(np.uint8))


def fill_small_holes(
    case: Segmentation,
    *,
    fewer_than_voxels: float,
    connectivity: int = 26,
    value: int = 1,
    voxel_mm3: float | None = None,
) -> Segmentation:
    """Components of the background with fewer voxels than given become ``value``.

    A component that is cut off by the border of the image counts as a hole too, as in the code of Valverde et al. 2020.

    Args:
        case: any number of classes.
        fewer_than_voxels, connectivity, voxel_mm3: as of :func:`remove_small_components`.
        value: of the voxels that are filled.
    """
    fewer = fewer_than_voxels / voxels_counted(case, voxel_mm3)
    holes = small_components(case.mask == 0, fewer, connectivity)
    return replace(case, mask=np.where(holes, value, case.mask).astype(np.uint8))


# ------------------------------------------------------------------------------------------------ what can be learned


def fit_islands(
    cases: Iterable[FitCase],
    labels: LabelSet,
    *,
    fewer_than_voxels: float,
    connectivity: int = 26,
    voxel_mm3: float | None = None,
) -> dict[str, float]:
    """The size below which :data:`SHARE` of the islands in predictions lie; see :func:`size_that_removes`.

    An island is a component of the lesion beside the largest of its case; the truth is not asked.
    """
    sizes = [
        size * voxels_counted(entry.case, voxel_mm3)
        for entry in cases
        for size in _beside_largest(entry.case.mask > 0, connectivity)
    ]
    return {"fewer_than_voxels": size_that_removes(sizes, fewer_than_voxels, whole=voxel_mm3 is None)}


def fit_holes(
    cases: Iterable[FitCase],
    labels: LabelSet,
    *,
    fewer_than_voxels: float,
    connectivity: int = 26,
    value: int = 1,
    voxel_mm3: float | None = None,
) -> dict[str, float]:
    """The same of holes: components of the background beside the largest of its case."""
    sizes = [
        size * voxels_counted(entry.case, voxel_mm3)
        for entry in cases
        for size in _beside_largest(entry.case.mask == 0, connectivity)
    ]
    return {"fewer_than_voxels": size_that_removes(sizes, fewer_than_voxels, whole=voxel_mm3 is None)}


def size_that_removes(sizes: Sequence[float], planned: float, *, whole: bool = True) -> float:
    """The least size of which :data:`SHARE` of the components are smaller; ``planned`` where there is none.

    Args:
        sizes: of components, in voxels.
        planned: what stands in the plan.
        whole: sizes are whole numbers.
    """
    if not sizes:
        return planned
    largest = sorted(sizes)[math.ceil(SHARE * len(sizes)) - 1]
    return largest + 1 if whole else largest * (1 + 1e-6)


def voxels_counted(case: Segmentation, voxel_mm3: float | None) -> float:
    """How many of the voxels that are counted one voxel of the case is."""
    return math.prod(case.spacing_mm) / voxel_mm3 if voxel_mm3 else 1.0


def _beside_largest(mask: np.ndarray, connectivity: int) -> list[int]:
    """Sizes of all components but the largest, in voxels."""
    return sorted(np.bincount(_components(mask, connectivity).ravel())[1:].tolist())[:-1]


def keep_largest_component(case: Segmentation, *, connectivity: int = 26) -> Segmentation:
    """All foreground but its largest component becomes background."""
    components = _components(case.mask > 0, connectivity)
    sizes = np.bincount(components.ravel())
    if len(sizes) < 2:
        return case
    sizes[0] = 0
    return replace(case, mask=np.where(components == sizes.argmax(), case.mask, 0).astype(np.uint8))


STEPS = (
    StepPart(
        "remove_small_components",
        remove_small_components,
        fit=fit_islands,
        summary="small islands become background",
    ),
    StepPart("fill_small_holes", fill_small_holes, fit=fit_holes, summary="small holes become lesion"),
    StepPart("keep_largest_component", keep_largest_component, summary="all but the largest component goes"),
)
