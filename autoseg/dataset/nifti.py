"""One 3D volume out of a NIfTI file, with everything else in its header as it is.

SimpleITK and autoseg read volumes only. Public datasets also come with a fourth axis (channels, or a single volume
with an axis of length 1); here the bytes of one volume are taken out, so that geometry, pixel type and rescaling stay
exactly those of the file.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.dataset.nifti_header import HEADER_BYTES, nibabel_header, parse_header
from autoseg.dataset.nifti_pixels import TYPES, first_voxel, rescaled
from autoseg.dataset.unpacking import GZIP, first_bytes, read_bytes, unpack
from autoseg.errors import AutosegError


def take_volume(path: Path, index: int | None = None) -> bytes:
    """The content of a ``.nii.gz`` file with one volume of a NIfTI file.

    A file that has three axes, or that is not NIfTI or of another pixel type, is returned with its pixels and header
    unchanged: :func:`autoseg.dataset.imageio.read_image` explains what is wrong with it.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        index: which volume, counted from 0 over all axes after the third; None where there must be one only.

    Raises:
        AutosegError: it cannot be read, is truncated or damaged, holds several volumes and no index was given, or has
            no volume of this index.
    """
    content, start = read_bytes(path), first_bytes(path, max(HEADER_BYTES.values()))
    header, fields = parse_header(start), nibabel_header(start)
    as_it_is = content if content[:2] == GZIP else _packed(content)
    if header is None or fields is None:
        return as_it_is
    n_volumes = math.prod(header.dim[3:])
    _refuse_other_volume(path, n_volumes, index)
    if int(fields["dim"][0]) <= 3 or header.datatype not in TYPES:
        return as_it_is
    offset = first_voxel(path, header)
    n_bytes = math.prod(header.dim[:3]) * np.dtype(TYPES[header.datatype]).itemsize
    data = unpack(path, content, offset + n_volumes * n_bytes)
    fields["dim"] = [3, *header.dim[:3], 1, 1, 1, 1]
    fields["intent_code"] = 0  # a vector has become a scalar
    head = fields.binaryblock
    begin = offset + (index or 0) * n_bytes
    return _packed(head + data[len(head) : offset] + data[begin : begin + n_bytes])


def over_volumes(path: Path, how: Literal["mean", "max", "min"]) -> np.ndarray:
    """One volume of all volumes of a NIfTI file, voxel by voxel: their mean, or the largest or least value.

    Args:
        path: ``.nii`` or ``.nii.gz``; the volumes lie along all axes after the third.
        how: see above. A voxel that is NaN in one of them becomes NaN.

    Returns:
        float32 ``[z, y, x]``, rescaled as the header says.

    Raises:
        AutosegError: it is no NIfTI file, cannot be read, is truncated or damaged.
    """
    content, start = read_bytes(path), first_bytes(path, max(HEADER_BYTES.values()))
    header = parse_header(start)
    if header is None or header.datatype not in TYPES:
        raise AutosegError(
            "is no NIfTI file whose volumes can be put together",
            where=str(path),
            found="another format" if header is None else f"NIfTI type code {header.datatype}",
            expected="a NIfTI file of integers or floats",
            fix="convert the file to one of these",
        )
    n_volumes, shape = math.prod(header.dim[3:]), tuple(header.dim[2::-1])
    kind, n = np.dtype(header.order + TYPES[header.datatype]), math.prod(shape)
    offset = first_voxel(path, header)
    data = unpack(path, content, offset + n_volumes * n * kind.itemsize)

    def volume(index: int) -> np.ndarray:
        stored = np.frombuffer(data, kind, n, offset + index * n * kind.itemsize).reshape(shape)
        return rescaled(stored, header.slope, header.intercept)

    combine = {"mean": np.add, "max": np.maximum, "min": np.minimum}[how]
    found = volume(0).astype(np.float64)
    for index in range(1, n_volumes):
        combine(found, volume(index), out=found)
    return (found / n_volumes if how == "mean" else found).astype(np.float32)


def _refuse_other_volume(path: Path, n_volumes: int, index: int | None) -> None:
    if index is None and n_volumes > 1:
        raise AutosegError(
            f"holds {n_volumes} volumes where one is expected",
            where=str(path),
            found=f"a fourth axis of length {n_volumes}",
            expected="one channel",
            fix="choose one, counted from 0, with --channel; where the format has no such option, keep one in the file",
        )
    if index is not None and not 0 <= index < n_volumes:
        raise AutosegError(
            f"has no channel {index}",
            where=str(path),
            found=f"{n_volumes} volumes" if n_volumes > 1 else "one volume",
            expected=f"a channel from 0 to {n_volumes - 1}",
            fix="choose another with --channel",
        )


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)
