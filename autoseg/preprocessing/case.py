"""One case from raw arrays to the working grid, in nnU-Net's order: transpose, crop, normalise, resample.

Notation: ``c`` channels; ``z, y, x`` the axes of the file, or of the working grid, which is the file's transposed as
the plan says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.errors import AutosegError, Fault
from autoseg.plan import Preprocessing
from autoseg.preprocessing import crop
from autoseg.preprocessing.lesion_changes import ClassComponents, compare_components, foreground_voxels
from autoseg.preprocessing.normalise import mark_outside, normalise
from autoseg.preprocessing.resample import (
    axis_orders,
    new_shape,
    resample_image,
    resample_label,
    separate_axis,
)

if TYPE_CHECKING:
    from autoseg.dataset.imageio import Geometry

T = TypeVar("T")


class CaseProperties(BaseModel):
    """What is needed to bring a result on the working grid back to the file's grid.

    Attributes:
        name: of the case.
        geometry: of the file, as :meth:`autoseg.dataset.imageio.Geometry.to_dict` gives it (axes z, y, x).
        crop_box: first and one-past-last voxel for each axis of the file.
        shape_before_resampling: of the crop, in working axes.
        working_shape: in working axes.
        working_spacing_mm: in working axes; what the plan asks for.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    geometry: dict[str, Any]
    crop_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    shape_before_resampling: tuple[int, int, int]
    working_shape: tuple[int, int, int]
    working_spacing_mm: tuple[float, float, float]

    def spacing_before_mm(self, plan: Preprocessing) -> tuple[float, float, float]:
        """The file's spacing in working axes."""
        return permuted(self.geometry["spacing_mm"], plan.transpose)


@dataclass
class Preprocessed:
    """A case on the working grid.

    Attributes:
        image: float32 ``[c, z, y, x]``; channels with the scheme ``fixed`` wait for
            :func:`autoseg.preprocessing.fixed.apply`.
        label: int16 ``[z, y, x]``, None without a mask; -1 is background outside the non-zero mask, where a
            channel is normalised inside it.
        properties: the way back.
        foreground: int32 ``[n, 5]``, see :func:`autoseg.preprocessing.lesion_changes.foreground_voxels`.
        components: what resampling did to the lesions; empty when the grid did not change.
    """

    image: np.ndarray
    label: np.ndarray | None
    properties: CaseProperties
    foreground: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int32))
    components: list[ClassComponents] = field(default_factory=list)


def preprocess_case(
    name: str,
    image: np.ndarray,
    geometry: Geometry,
    plan: Preprocessing,
    label: np.ndarray | None = None,
    ignore: int | None = None,
) -> Preprocessed:
    """Bring a case to the working grid.

    Args:
        name: of the case, for messages.
        image: ``[c, z, y, x]`` as in the file; it is not changed.
        geometry: of the file.
        plan: what to do.
        label: integers ``[z, y, x]`` as in the file.
        ignore: the label value that is neither trained nor scored.

    Raises:
        AutosegError: the plan does not fit the channels or their intensities; a crop to the head that would cut
            lesions off.
    """
    inside_nonzero = any(scheme.inside_nonzero for scheme in plan.normalisation)
    nonzero = crop.any_nonzero(image) if plan.crop_to_nonzero or inside_nonzero else None
    box = _box(image, nonzero, plan)
    filled = _to_working(crop.fill_holes(nonzero), box, plan) if inside_nonzero else None
    if label is not None and plan.crop_to_object:
        _refuse_lesions_outside(name, label, box, ignore)
    # the one copy of the image, which is then changed in place
    working = np.stack([_to_working(channel, box, plan) for channel in image]).astype(np.float32, copy=False)
    try:
        normalise(working, plan.normalisation, filled)
    except AutosegError as error:
        raise _of_case(name, error) from None
    before_mm = permuted(geometry.spacing_mm, plan.transpose)
    after_mm = tuple(new or old for old, new in zip(before_mm, plan.spacing_mm, strict=True))
    properties = CaseProperties(
        name=name,
        geometry=geometry.to_dict(),
        crop_box=box,
        shape_before_resampling=working.shape[1:],
        working_shape=new_shape(working.shape[1:], before_mm, after_mm),
        working_spacing_mm=after_mm,
    )
    if label is not None:
        label = _to_working(label, box, plan).astype(np.int16)
        if filled is not None:
            label[(label == 0) & ~filled] = -1
    made = _resample(working, label, properties, plan, ignore)
    mark_outside(made.image, plan, _nearest(filled, properties.working_shape), None)
    return made


def permuted(values: Sequence[T], order: Sequence[int]) -> tuple[T, T, T]:
    """Three values (of the axes of the file) in another order (of the working axes)."""
    z, y, x = (values[axis] for axis in order)
    return z, y, x


def _box(image: np.ndarray, nonzero: np.ndarray | None, plan: Preprocessing) -> crop.Box:
    """What the plan keeps of a case."""
    if plan.crop_to_object:
        return crop.object_box(image)
    if plan.crop_to_nonzero:
        return crop.bounding_box(nonzero) or crop.whole(image.shape[1:])
    return crop.whole(image.shape[1:])


def _refuse_lesions_outside(name: str, label: np.ndarray, box: crop.Box, ignore: int | None) -> None:
    """What is found as the head must hold every lesion."""
    lesion = (label > 0) & (label != ignore) if ignore is not None else label > 0
    n_all, n_inside = int(lesion.sum()), int(lesion[crop.slices(box)].sum())
    if n_inside < n_all:
        raise AutosegError(
            "the crop to the head would cut lesions off",
            where=name,
            found=f"{n_all - n_inside} of {n_all} lesion voxels outside the box {box}",
            expected="a head that stands out from the air in every part",
            fix="--set preprocessing.crop_to_object=false, with the planner ratlesnetv2 planner.crop=none",
        )


def _to_working(volume: np.ndarray, box: crop.Box, plan: Preprocessing) -> np.ndarray:
    """The crop of ``[z, y, x]`` in working axes; a view."""
    return volume[crop.slices(box)].transpose(plan.transpose)


def _resample(
    image: np.ndarray,
    label: np.ndarray | None,
    properties: CaseProperties,
    plan: Preprocessing,
    ignore: int | None,
) -> Preprocessed:
    before_mm, shape = properties.spacing_before_mm(plan), properties.working_shape
    apart = separate_axis(before_mm, properties.working_spacing_mm, plan.separate_axis_ratio)
    across = plan.separate_axis_order
    resampled = resample_image(image, shape, plan.image_order, apart, across)
    if label is None:
        return Preprocessed(resampled, None, properties)
    moved = resample_label(label, shape, plan.label_order, apart, across)
    changes = []
    if moved is not label:
        voxel_ml = math.prod(before_mm) / 1000
        orders = axis_orders(plan.label_order, apart, across)
        changes = compare_components(label, moved, orders, voxel_ml, ignore)
    moved = np.ascontiguousarray(moved)
    return Preprocessed(resampled, moved, properties, foreground_voxels(moved, ignore), changes)


def _nearest(mask: np.ndarray | None, shape: Sequence[int]) -> np.ndarray | None:
    """A mask ``[z, y, x]`` on the working grid, as bool."""
    return None if mask is None else resample_label(mask.astype(np.uint8), shape, order=0) > 0


def _of_case(name: str, error: AutosegError) -> AutosegError:
    """The same error, which also names the case."""
    fault: Fault = error.fault
    where = f"{name}, {fault.where}" if fault.where else name
    return AutosegError(fault.problem, where=where, found=fault.found, expected=fault.expected, fix=fault.fix)
