"""Image files and their geometry: NIfTI, NRRD and MHA, exactly and in file order.

Arrays are ``[z, y, x]`` (several channels: ``[c, z, y, x]``) in the order in which the file stores them;
nothing is ever reoriented here. This is the door; behind it lie

- ``image_geometry`` the numbers, and what makes two grids different;
- ``image_header`` the header of a file of any format; ``nifti_header`` of NIfTI, ``text_header`` of NRRD and MHA;
- ``nifti_pixels``, ``text_image`` and ``unpacking`` the pixels; ``mask_values`` those of masks;
- ``image_writing`` files that lie where the scan lies, for every reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.dataset.image_geometry import Geometry, differences, refuse_differences
from autoseg.dataset.image_header import HeaderForms, open_header
from autoseg.dataset.image_writing import write_image, write_mask
from autoseg.dataset.intensities import refuse_beyond_range
from autoseg.dataset.mask_values import as_labels
from autoseg.dataset.text_header import hash_image
from autoseg.dataset.unpacking import read_bytes

__all__ = [
    "Geometry",
    "HeaderForms",
    "ImageFile",
    "as_labels",
    "differences",
    "hash_image",
    "read_channels",
    "read_forms",
    "read_geometry",
    "read_image",
    "read_mask",
    "refuse_differences",
    "write_image",
    "write_mask",
]

ON_ONE_GRID = (
    "resample it; autoseg_predict does so with --resample_channels, where the scans are co-registered"
)
"""What to do with a channel on another grid."""


@dataclass(frozen=True)
class ImageFile:
    """One file as it was read.

    Attributes:
        pixels: ``[z, y, x]``, read-only; in the file's own type, or float32 where the header rescales.
        geometry: of the file.
        sha256: of the file's bytes, and of those of the file that its header names for the pixels.
        forms: what the header says of the geometry, word for word, for :func:`write_mask`.
    """

    pixels: np.ndarray
    geometry: Geometry
    sha256: str
    forms: HeaderForms


def read_geometry(path: Path | str) -> Geometry:
    """Read the header only.

    Raises:
        AutosegError: the file is missing, empty, not an image, not one 3D scalar image, or its geometry is unusable.
    """
    return open_header(Path(path)).geometry


def read_forms(path: Path | str) -> HeaderForms:
    """What a header says of the geometry, word for word: a mask that is written with it lies on the image.

    Raises:
        AutosegError: as for :func:`read_geometry`.
    """
    return open_header(Path(path)).forms


def read_image(path: Path | str, *, is_mask: bool = False) -> ImageFile:
    """Read one file: pixels in their own type, geometry and hash.

    What is odd in a header but understood is noted (:func:`autoseg.messages.note`).

    Args:
        path: of the file.
        is_mask: for the remedies in messages.

    Raises:
        AutosegError: as for :func:`read_geometry`, or the file is truncated or damaged.
    """
    path = Path(path)
    header = open_header(path, is_mask=is_mask)
    content = read_bytes(path)
    digest = hashlib.sha256(content)
    if header.text and header.text.data_file:
        content = read_bytes(header.text.data_file)
        digest.update(content)
    pixels = header.pixels(path, content)
    pixels.flags.writeable = False
    for note in header.notes:
        messages.note(note, f"{path.parent.name}/{path.name}")
    return ImageFile(pixels, header.geometry, digest.hexdigest(), header.forms)


def read_channels(paths: Sequence[Path | str]) -> tuple[np.ndarray, Geometry]:
    """Read the channels of one case.

    Args:
        paths: one file for each channel, in order.

    Returns:
        float32 ``[c, z, y, x]`` and the geometry of the first file.

    Raises:
        AutosegError: a file cannot be read (see :func:`read_image`), or holds values of a size that no scan has.
        FaultsError: the geometries of the channels differ.
    """
    first = read_image(paths[0])
    channels = np.empty((len(paths), *first.geometry.shape), np.float32)
    channels[0] = _in_range(first, paths[0])
    geometry = first.geometry
    del first
    for i, path in enumerate(paths[1:], start=1):
        further = read_image(path)
        refuse_differences(paths[0], geometry, path, further.geometry, ON_ONE_GRID)
        channels[i] = _in_range(further, path)
    return channels, geometry


def _in_range(file: ImageFile, path: Path | str) -> np.ndarray:
    """The pixels, of a size that single precision and sums over them can hold."""
    refuse_beyond_range(file.pixels, where=str(path))
    return file.pixels


def read_mask(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Read a mask.

    Returns:
        ``[z, y, x]``, uint8 where the values fit, else a wider integer type; and the geometry.

    Raises:
        AutosegError: the file cannot be read, or holds values that are not whole numbers.
    """
    file = read_image(path, is_mask=True)
    labels = as_labels(file.pixels, where=str(path))
    return (labels if labels.flags.writeable else labels.copy()), file.geometry
