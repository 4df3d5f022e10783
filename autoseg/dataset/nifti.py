"""One 3D volume out of a NIfTI file, with everything else in its header as it is.

SimpleITK and autoseg read volumes only. Public datasets also come with a fourth axis (channels, or a single volume
with an axis of length 1); here the bytes of one volume are taken out, so that geometry, pixel type and rescaling stay
exactly those of the file.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from autoseg.errors import AutosegError

HEADER_BYTES = 348
DIM, INTENT, BITPIX, VOX_OFFSET = 40, 68, 72, 108


def take_volume(path: Path, index: int | None = None) -> bytes:
    """The content of a ``.nii.gz`` file with one volume of a NIfTI file.

    A file that has three axes, or that cannot be decoded here (NIfTI-2, damaged), is returned with its pixels and
    header unchanged: :func:`autoseg.dataset.imageio.read_image` explains what is wrong with it.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        index: which volume, counted from 0 over all axes after the third; None where there must be one only.

    Raises:
        AutosegError: it cannot be read, holds several volumes and no index was given, or has no volume of this index.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AutosegError(
            "cannot be read", where=str(path), found=error.strerror or error, fix="check the path"
        ) from None
    data = _plain(content)
    order = _byte_order(data)
    if order is None:
        return content if content[:2] == b"\x1f\x8b" else _packed(content)
    dim = struct.unpack_from(f"{order}8h", data, DIM)
    n_volumes = math.prod(dim[4 : 1 + dim[0]])
    _refuse_other_volume(path, n_volumes, index)
    if dim[0] <= 3:
        return content if data is not content else _packed(content)
    return _packed(_cut(data, order, dim, index or 0))


def _cut(data: bytes, order: str, dim: tuple[int, ...], index: int) -> bytes:
    """Header of a volume, and the bytes of one volume."""
    (bits,) = struct.unpack_from(f"{order}h", data, BITPIX)
    (offset,) = struct.unpack_from(f"{order}f", data, VOX_OFFSET)
    n_bytes, start = math.prod(dim[1:4]) * bits // 8, int(offset)
    head = bytearray(data[:start])
    struct.pack_into(f"{order}8h", head, DIM, 3, *dim[1:4], 1, 1, 1, 1)
    struct.pack_into(f"{order}h", head, INTENT, 0)  # a vector has become a scalar
    start += index * n_bytes
    return bytes(head) + data[start : start + n_bytes]


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


def _plain(content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""


def _byte_order(data: bytes) -> str | None:
    """``<`` or ``>`` of a NIfTI-1 header; None for anything else."""
    if len(data) < HEADER_BYTES:
        return None
    orders = (o for o in "<>" if struct.unpack_from(f"{o}i", data)[0] == HEADER_BYTES)
    order = next(orders, None)
    if order and 1 <= struct.unpack_from(f"{order}h", data, DIM)[0] <= 7:
        return order
    return None


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)
