"""The mask role: which part of a case counts, by one of its channels or by a file of its own.

Notation: ``c`` channels; ``z, y, x`` voxels of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.dataset_json import FILE_ENDINGS
from autoseg.dataset.raw_layout import Case, split_name
from autoseg.errors import AutosegError
from autoseg.plan import MaskRole, Preprocessing
from autoseg.preprocessing.crop import bounding_box, slices

if TYPE_CHECKING:
    from autoseg.dataset.imageio import Geometry


def mask_of(
    name: str,
    image: np.ndarray,
    plan: Preprocessing,
    channel_names: Sequence[str] = (),
    given: np.ndarray | None = None,
) -> np.ndarray | None:
    """Which voxels of a case count, on the grid of its file: the plan's mask, grown and without holes.

    Args:
        name: of the case, for messages.
        image: ``[c, z, y, x]``.
        plan: whose ``mask`` says where it comes from.
        channel_names: of the image; needed for a mask from a channel.
        given: ``[z, y, x]``, what the file of a mask from a folder holds; voxels above 0 are the mask.

    Returns:
        bool ``[z, y, x]``; None for a plan without mask.

    Raises:
        AutosegError: the mask is not there, is empty or has another shape.
    """
    role = plan.mask
    if role is None:
        return None
    where, source = f"folder {role.folder}", given
    if role.channel is not None:
        where = f"channel {role.channel}"
        source = image[channel_names.index(role.channel)] if role.channel in channel_names else None
    if source is None:
        raise AutosegError("the plan's mask is not there", where=name, expected=f"a mask from {where}")
    if source.shape != image.shape[1:]:
        raise AutosegError(
            "the mask does not fit the image",
            where=name,
            found=f"shape {source.shape}",
            expected=f"shape {image.shape[1:]}",
            fix="resample it to the grid of the image",
        )
    mask = np.asarray(source > 0)
    if not mask.any():
        raise AutosegError(
            "the mask is empty, so nothing of the case would count",
            where=f"{name}, {where}",
            found="no voxel above 0",
            expected="voxels above 0 in the tissue",
            fix="correct it, or plan without: --set preprocessing.mask=null",
        )
    return grown(mask, role, plan.transpose[0])


def grown(mask: np.ndarray, role: MaskRole, axis: int) -> np.ndarray:
    """The mask after its dilation, and with the holes of each plane across ``axis`` filled."""
    if role.dilation:
        from scipy import ndimage

        cross = ndimage.generate_binary_structure(3, 1)
        mask = ndimage.binary_dilation(mask, cross, iterations=role.dilation)
    return fill_holes_of_planes(mask, axis) if role.fill_holes else mask


def fill_holes_of_planes(mask: np.ndarray, axis: int) -> np.ndarray:
    """A mask ``[z, y, x]`` with the holes of each plane across an axis filled.

    A hole is background that cannot reach the border of its plane from pixel to pixel through their edges.
    """
    from scipy import ndimage

    box = bounding_box(mask)
    if box is None:
        return mask
    planes = np.moveaxis(mask[slices(box)], axis, 0)
    background = np.pad(~planes, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    components, _ = ndimage.label(background, in_plane)
    filled = np.zeros_like(mask)
    rim = components[:, :1, :1]  # of each plane, the component around its box
    filled[slices(box)] = np.moveaxis((components != rim)[:, 1:-1, 1:-1], 0, axis)
    return filled


# -------------------------------------------------------------------------------------------------- the files


def mask_in_dataset(folder: Path, case: str, ending: str, role: MaskRole) -> Path | None:
    """Where the mask of a case lies in its raw dataset, whether it is there or not; None for a mask from a channel."""
    return None if role.folder is None else folder / role.folder / f"{case}{ending}"


def mask_beside_images(case: Case, role: MaskRole) -> Path | None:
    """The mask file of a case that is to be predicted, in any of the formats.

    It is looked for in the mask's folder within the folder of the images, then in that beside the folder of the images.

    Args:
        case: with its images.
        role: of the plan.

    Returns:
        None for a mask from a channel.

    Raises:
        AutosegError: there is no such file.
    """
    if role.folder is None:
        return None
    images = (case.origin.beside if case.origin else None) or case.images[0].parent
    parts = split_name(case.images[0].name)
    endings = sorted(FILE_ENDINGS, key=lambda ending: parts is None or ending != parts[2])
    folders = (images / role.folder, images.parent / role.folder)
    paths = [folder / f"{case.name}{ending}" for folder in folders for ending in endings]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise _no_file(case.name, paths[0])
    return found


def read_mask_file(path: Path, geometry: Geometry, case: str) -> np.ndarray:
    """What a mask file holds, ``[z, y, x]``.

    Args:
        path: of the file.
        geometry: of the image of the case.
        case: its name.

    Raises:
        AutosegError: it is missing, cannot be read or does not lie on the grid of the image.
    """
    from autoseg.dataset.imageio import differences, read_mask

    if not path.is_file():
        raise _no_file(case, path)
    mask, own = read_mask(path)
    for what, found, expected in differences(geometry, own):
        raise AutosegError(
            f"its {what} is not that of the image",
            where=str(path),
            found=found,
            expected=expected,
            fix="resample it to that grid, or correct the header that is wrong",
        )
    return mask


def _no_file(case: str, expected: Path) -> AutosegError:
    return AutosegError(
        "the case has no mask file, which the plan asks for",
        where=case,
        found=f"no {expected.name}",
        expected=str(expected),
        fix="add it, or plan without: --set preprocessing.mask=null",
    )
