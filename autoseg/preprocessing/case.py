"""One case from raw arrays to the working grid, in nnU-Net's order: transpose, crop, normalise, resample.

Notation: ``c`` channels; ``z, y, x`` the axes of the file, which has been turned into the plan's orientation, or of the
working grid, which is the file's transposed as the plan says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.errors import AutosegError, Fault
from autoseg.labels import OUTSIDE
from autoseg.parallel import memory_gb
from autoseg.plan import Preprocessing
from autoseg.preprocessing import crop
from autoseg.preprocessing.lesion_changes import ClassComponents, compare_components, foreground_voxels
from autoseg.preprocessing.mask import mask_of
from autoseg.preprocessing.normalise import fixed_channels, mark_outside, normalise
from autoseg.preprocessing.resample import (
    axis_orders,
    new_shape,
    resample_image,
    resample_label,
    separate_axis,
)
from autoseg.preprocessing.unexpected import UnexpectedRange

if TYPE_CHECKING:
    from autoseg.dataset.imageio import Geometry

T = TypeVar("T")


class CaseProperties(BaseModel):
    """What is needed to bring a result on the working grid back to the file's grid.

    Attributes:
        name: of the case.
        geometry: of the file as it was turned, as :meth:`autoseg.dataset.imageio.Geometry.to_dict` gives it (axes
            z, y, x).
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
        label: int16 ``[z, y, x]``, None without a mask; -1 is background outside the plan's mask, or outside the
            non-zero mask, where a channel is normalised inside it.
        properties: the way back.
        foreground: int32 ``[n, 5]``, see :func:`autoseg.preprocessing.lesion_changes.foreground_voxels`.
        components: what resampling did to the lesions; empty when the grid did not change.
        inside: bool, on the grid of the file: what counts, by the plan's mask; None without one. The way back
            (:mod:`autoseg.preprocessing.restore`) takes it, so that outside there is background.
        lesion_voxels_outside: voxels of the file with a lesion that lies outside the plan's mask.
        unexpected: channels whose intensities are not what the plan was made for, and what was done about it.
    """

    image: np.ndarray
    label: np.ndarray | None
    properties: CaseProperties
    foreground: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int32))
    components: list[ClassComponents] = field(default_factory=list)
    inside: np.ndarray | None = None
    lesion_voxels_outside: int = 0
    unexpected: list[UnexpectedRange] = field(default_factory=list)


def preprocess_case(
    name: str,
    image: np.ndarray,
    geometry: Geometry,
    plan: Preprocessing,
    label: np.ndarray | None = None,
    ignore: int | None = None,
    *,
    channel_names: Sequence[str] = (),
    mask: np.ndarray | None = None,
) -> Preprocessed:
    """Bring a case to the working grid.

    Args:
        name: of the case, for messages.
        image: ``[c, z, y, x]`` as in the file; it is not changed.
        geometry: of the file.
        plan: what to do.
        label: integers ``[z, y, x]`` as in the file.
        ignore: the label value that is neither trained nor scored.
        channel_names: of the image; needed when the plan's mask comes from a channel.
        mask: ``[z, y, x]`` as in the file; needed when the plan's mask comes from a folder.

    Raises:
        AutosegError: the plan does not fit the channels or their intensities; a crop to the head that would cut
            lesions off; a mask that is missing or empty; more voxels on the working grid than the memory holds.
    """
    inside = mask_of(name, image, plan, channel_names, mask)
    inside_nonzero = any(scheme.inside_nonzero for scheme in plan.normalisation)
    nonzero = crop.any_nonzero(image) if plan.crop_to_nonzero or inside_nonzero else None
    box = _box(image, nonzero, plan)
    if label is not None and plan.crop_to_object:
        _refuse_lesions_outside(name, label, box, ignore)
    masks = _Inside(
        _to_working(crop.fill_holes(nonzero), box, plan) if inside_nonzero and nonzero is not None else None,
        _to_working(inside, box, plan) if inside is not None else None,
    )
    # the one copy of the image, which is then changed in place
    working = np.stack([_to_working(channel, box, plan) for channel in image]).astype(np.float32, copy=False)
    try:
        unexpected = normalise(working, plan.normalisation, masks.nonzero, masks.inside)
    except AutosegError as error:
        raise _of_case(name, error) from None
    properties = _properties(name, geometry, plan, box, working.shape[1:])
    refuse_beyond_memory(name, properties.working_shape, len(working))
    before = None
    if label is not None:
        before = _to_working(label, box, plan).astype(np.int16)
        if masks.nonzero is not None:
            before[(before == 0) & ~masks.nonzero] = OUTSIDE
    made = _resample(working, before, properties, plan, ignore)
    _mark_outside(made, plan, masks)
    made.inside, made.unexpected = inside, unexpected
    if inside is not None and label is not None:
        made.lesion_voxels_outside = int(np.count_nonzero(_lesion(label, ignore) & ~inside))
    return made


def refuse_beyond_memory(name: str, shape: Sequence[int], n_values: int) -> None:
    """Refuse a case that cannot fit before the system ends the process for it, and with it all other cases.

    Args:
        name: of the case.
        shape: on the working grid.
        n_values: float32 values of each voxel that are needed at once, at the least.

    Raises:
        AutosegError: all memory of the machine is not enough.
    """
    needed, there = 4e-9 * n_values * math.prod(shape), memory_gb()
    if needed > there:
        raise AutosegError(
            "the main memory is not enough for this case",
            where=name,
            found=f"{' x '.join(map(str, shape))} voxels on the working grid, at least {needed:.0f} GB",
            expected=f"less than the {there:.0f} GB of this machine",
            fix="check the spacing in its header, which may be ten times too large; or crop the image to the brain",
        )


@dataclass(frozen=True)
class _Inside:
    """Of a case, bool ``[z, y, x]`` in working axes, on the grid before resampling; None where nothing asks for it.

    Attributes:
        nonzero: where any channel is not 0, holes filled.
        inside: what counts, by the plan's mask.
    """

    nonzero: np.ndarray | None
    inside: np.ndarray | None


def _mark_outside(made: Preprocessed, plan: Preprocessing, masks: _Inside) -> None:
    """Say where the case does not count: in its label, and in channels that are still to be normalised."""
    shape = made.properties.working_shape
    inside = _nearest(masks.inside, shape) if masks.inside is not None else None
    if fixed_channels(plan):
        nonzero = _nearest(masks.nonzero, shape) if masks.nonzero is not None else None
        mark_outside(made.image, plan, nonzero, inside)
    if inside is not None and made.label is not None:
        made.label[(made.label == 0) & ~inside] = OUTSIDE


def volume_on_working_grid(
    volume: np.ndarray, properties: CaseProperties, plan: Preprocessing, order: int = 1
) -> np.ndarray:
    """Further values of the voxels of a case on its working grid, float32 ``[z, y, x]``.

    Args:
        volume: ``[z, y, x]`` on the grid of the file, in the plan's orientation.
        properties: of the case that was preprocessed.
        plan: by which.
        order: of the spline.
    """
    apart = separate_axis(
        properties.spacing_before_mm(plan), properties.working_spacing_mm, plan.separate_axis_ratio
    )
    cut = _to_working(volume, properties.crop_box, plan)[None].astype(np.float32)
    return resample_image(cut, properties.working_shape, order, apart, plan.separate_axis_order)[0]


def _properties(
    name: str, geometry: Geometry, plan: Preprocessing, box: crop.Box, shape: Sequence[int]
) -> CaseProperties:
    """The way back of a crop of this shape, in working axes."""
    before_mm = permuted(geometry.spacing_mm, plan.transpose)
    z, y, x = (new or old for old, new in zip(before_mm, plan.spacing_mm, strict=True))
    return CaseProperties(
        name=name,
        geometry=geometry.to_dict(),
        crop_box=box,
        shape_before_resampling=permuted(shape, (0, 1, 2)),
        working_shape=new_shape(shape, before_mm, (z, y, x)),
        working_spacing_mm=(z, y, x),
    )


def permuted(values: Sequence[T], order: Sequence[int]) -> tuple[T, T, T]:
    """Three values (of the axes of the file) in another order (of the working axes)."""
    z, y, x = (values[axis] for axis in order)
    return z, y, x


def _box(image: np.ndarray, nonzero: np.ndarray | None, plan: Preprocessing) -> crop.Box:
    """What the plan keeps of a case."""
    if plan.crop_to_object:
        return crop.object_box(image)
    if plan.crop_to_nonzero and nonzero is not None:
        return crop.bounding_box(nonzero) or crop.whole(image.shape[1:])
    return crop.whole(image.shape[1:])


def _refuse_lesions_outside(name: str, label: np.ndarray, box: crop.Box, ignore: int | None) -> None:
    """What is found as the head must hold every lesion."""
    lesion = _lesion(label, ignore)
    n_all, n_inside = int(lesion.sum()), int(lesion[crop.slices(box)].sum())
    if n_inside < n_all:
        raise AutosegError(
            "the crop to the head would cut lesions off",
            where=name,
            found=f"{n_all - n_inside} of {n_all} lesion voxels outside the box {box}",
            expected="a head that stands out from the air in every part",
            fix="--set preprocessing.crop_to_object=false, with the planner ratlesnetv2 planner.crop=none",
        )


def _lesion(label: np.ndarray, ignore: int | None) -> np.ndarray:
    return (label > 0) & (label != ignore) if ignore is not None else label > 0


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


def _nearest(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mask ``[z, y, x]`` on another grid, as bool."""
    return resample_label(mask.astype(np.uint8), shape, order=0) > 0


def _of_case(name: str, error: AutosegError) -> AutosegError:
    """The same error, which also names the case."""
    fault: Fault = error.fault
    where = f"{name}, {fault.where}" if fault.where else name
    return AutosegError(fault.problem, where=where, found=fault.found, expected=fault.expected, fix=fault.fix)
