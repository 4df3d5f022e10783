"""The pixels of a NIfTI file, decoded here for two reasons that were seen with ITK 5.4: it returns a volume without
complaint when a ``.nii.gz`` file is truncated or damaged, and it takes the pixels of ``a.nii`` for those of
``a.nii.gz`` when both lie in one folder. Here checksum and length are verified.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from autoseg.dataset.nifti_header import FIRST_VOXEL, NiftiHeader
from autoseg.dataset.unpacking import unpack
from autoseg.errors import AutosegError

TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""Codes of pixel types."""
LAST_OFFSET = 1 << 26
"""No header with its extensions is longer than 64 MiB."""


def decode(path: Path, content: bytes, header: NiftiHeader) -> np.ndarray:
    """The pixels ``[z, y, x]`` in the file's own type, or float32 where the header rescales.

    Args:
        path: of the file, for messages.
        content: the file, packed or not.
        header: of it, with three axes.

    Raises:
        AutosegError: the pixel type or the place of the pixels makes no sense; the file is too short, too long or
            damaged.
    """
    if header.datatype not in TYPES:
        raise AutosegError(
            "its pixel type is not supported",
            where=str(path),
            found=f"NIfTI type code {header.datatype}",
            expected="integers of 8 to 64 bits or floats of 32 or 64 bits",
            fix="convert the file to one of these",
        )
    kind, n = np.dtype(header.order + TYPES[header.datatype]), math.prod(header.dim)
    offset = first_voxel(path, header)
    data = unpack(path, content, offset + n * kind.itemsize)
    stored = np.frombuffer(data, kind, n, offset).reshape(header.dim[::-1])
    return rescaled(stored, header.slope, header.intercept)


def first_voxel(path: Path, header: NiftiHeader) -> int:
    """Where in the file the pixels begin.

    Raises:
        AutosegError: they lie in another file, or the header does not say where.
    """
    least, offset = FIRST_VOXEL[header.forms.version], header.vox_offset
    if not header.magic.startswith(b"n+"):
        raise AutosegError(
            "is the header of a pair of files (.hdr, .img), which is not read",
            where=str(path),
            found=f"magic {header.magic!r}",
            expected="a single file, n+1 or n+2",
            fix="save it as one .nii.gz file",
        )
    if not (least <= offset <= LAST_OFFSET and offset == int(offset)):
        raise AutosegError(
            "its vox_offset does not say where the pixels begin",
            where=str(path),
            found=f"vox_offset {offset:g}",
            expected=f"a whole number, {least} or more",
            fix=f"correct it in the header ({least} where no extension follows), or export the image again",
        )
    return int(offset)


def rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """What the header says the pixels mean: ``slope * stored + intercept``, unless the slope is 0."""
    native = stored.dtype.newbyteorder("=")
    unscaled = (
        not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or (slope, intercept) == (1, 0)
    )
    if unscaled:
        return stored.astype(native, copy=False)
    pixels = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf are refused by name
        for plane, out in zip(stored, pixels, strict=True):  # plane by plane: no float64 copy of the whole
            out[...] = plane * np.float64(slope) + intercept
    return pixels
