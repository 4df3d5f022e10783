"""Images in NRRD and MHA files: what the fields of their headers mean, and their pixels.

Decoded here and not by SimpleITK: ITK 5.4 was seen to end the process on damaged headers of MHA, and it does not say
when a file holds more than its header. The numbers are those that ITK reads.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.text_header import TextHeader
from autoseg.dataset.unpacking import GZIP, PADDING, check_length, explained, refuse_more_than_memory, unpack
from autoseg.errors import AutosegError

NRRD_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
MHA_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
"""The signs that turn coordinates of NRRD into LPS; those of other spaces are taken as they are."""
EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class TextImage:
    """How a NRRD or MHA file stores an image.

    Attributes:
        size: lengths of the axes, x first.
        n_components: values for each voxel.
        kind: pixel type with its byte order.
        spacing, origin: x, y, z in the header's unit; LPS.
        direction: 9 cosines, row by row.
        encoding: ``raw``, ``gzip`` (or zlib) or ``text``.
        skip: bytes before the pixels; -1 where they end the file.
    """

    size: tuple[int, ...]
    n_components: int
    kind: np.dtype
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    encoding: str
    skip: int


def understand(path: Path, header: TextHeader) -> TextImage:
    """What the fields of a header mean.

    Raises:
        AutosegError: a field is missing or makes no sense.
    """
    fields = _Fields(path, header.fields)
    return _nrrd_image(fields) if header.is_nrrd else _mha_image(fields)


def decode_text(path: Path, content: bytes, header: TextHeader, image: TextImage) -> np.ndarray:
    """The pixels ``[z, y, x]`` of a 3D image in the file's own type.

    Args:
        path: of the file.
        content: the file with the pixels.
        header: of it.
        image: what it means.

    Raises:
        AutosegError: the file is truncated, damaged or too long.
    """
    n = math.prod(image.size) * image.kind.itemsize
    refuse_more_than_memory(path, n)
    data = content[header.n_bytes or 0 :]
    data = data[len(data) - n :] if image.skip < 0 and len(data) >= n else data[max(0, image.skip) :]
    if image.encoding == "text":
        pixels = _from_text(path, data, image)
    else:
        pixels = np.frombuffer(_plain(path, data, n, image.encoding), image.kind, math.prod(image.size))
    return pixels.reshape(image.size[::-1]).astype(image.kind.newbyteorder("="), copy=False)


def _plain(path: Path, data: bytes, n: int, encoding: str) -> bytes:
    if encoding == "gzip" and data[:2] == GZIP:
        return unpack(path, data, n)
    if encoding == "gzip":
        with explained(path, len(data)):
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, n + PADDING + 1)
            if not unpacker.eof and len(data) <= n + PADDING:
                raise EOFError
    check_length(path, data, n)
    return data


def _from_text(path: Path, data: bytes, image: TextImage) -> np.ndarray:
    n, words = math.prod(image.size), data.split()
    try:
        if len(words) == n:
            return np.array([float(word) for word in words]).astype(image.kind)
    except ValueError:
        pass
    raise AutosegError(
        "the file is truncated or damaged",
        where=str(path),
        found=f"{len(words)} words",
        expected=f"{n} numbers",
        fix="save it as raw or gzip",
    )


# ------------------------------------------------------------------------------------------------- the fields


@dataclass(frozen=True)
class _Fields:
    """Fields of a header, as numbers."""

    path: Path
    values: dict[str, str]

    def text(self, *names: str, default: str | None = None) -> str:
        """The first of these that is there."""
        for name in names:
            if name in self.values:
                return self.values[name]
        if default is None:
            raise self.refused(names[0], "a value")
        return default

    def numbers(self, *names: str, n: int | None, default: str | None = None) -> tuple[float, ...]:
        """So many numbers."""
        try:
            found = tuple(float(word) for word in self.text(*names, default=default).split())
        except ValueError:
            found = ()
        if not found or (n is not None and len(found) != n):
            raise self.refused(names[0], f"{n or 'some'} numbers")
        return found

    def wholes(self, *names: str, n: int | None, default: str | None = None) -> tuple[int, ...]:
        """So many whole numbers."""
        numbers = self.numbers(*names, n=n, default=default)
        if not all(math.isfinite(v) and v == int(v) for v in numbers):
            raise self.refused(names[0], "whole numbers")
        return tuple(int(v) for v in numbers)

    def is_true(self, *names: str) -> bool:
        """A yes or no of MHA; no by default."""
        return self.text(*names, default="False")[:1].lower() in ("t", "1")

    def refused(self, name: str, expected: str) -> AutosegError:
        """What to raise for the field ``name``, which is not as ``expected``."""
        return AutosegError(
            "its header cannot be read",
            where=str(self.path),
            found=f"{name}: {self.values[name][:80]!r}" if name in self.values else f"no {name}",
            expected=expected,
            fix="correct the header, or export the image again",
        )


def _nrrd_image(fields: _Fields) -> TextImage:
    kinds = {name: kind for kind, names in NRRD_TYPES.items() for name in names.split(",")}
    kind = kinds.get(fields.text("type").lower())
    if kind is None:
        raise fields.refused("type", "integers of 8 to 64 bits or floats of 32 or 64 bits")
    encoding = {
        "raw": "raw",
        "gzip": "gzip",
        "gz": "gzip",
        "ascii": "text",
        "txt": "text",
        "text": "text",
    }.get(fields.text("encoding").lower())
    if encoding is None:
        raise fields.refused("encoding", "raw, gzip or ascii")
    n_axes = fields.wholes("dimension", n=1)[0]
    size = fields.wholes("sizes", n=n_axes)
    spacing, origin, direction = _nrrd_grid(fields) if n_axes == 3 else ((1.0,) * 3, (0.0,) * 3, EYE)
    return TextImage(
        size=size,
        n_components=1,
        kind=np.dtype((">" if fields.text("endian", default="little").lower() == "big" else "<") + kind),
        spacing=spacing,
        origin=origin,
        direction=direction,
        encoding=encoding,
        skip=fields.wholes("byte skip", "byteskip", n=1, default="0")[0],
    )


def _nrrd_grid(fields: _Fields) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Spacing, origin and direction, in LPS."""
    signs = SPACES.get(fields.text("space", default="lps").lower(), (1, 1, 1))
    text = fields.text("space origin", default="(0,0,0)")
    origin = tuple(s * v for s, v in zip(signs, _vector(fields, "space origin", text), strict=True))
    if "space directions" not in fields.values:
        return fields.numbers("spacings", n=3, default="1 1 1"), origin, EYE
    vectors = re.findall(r"\([^)]*\)", fields.text("space directions"))
    if len(vectors) != 3:
        raise fields.refused("space directions", "three vectors, such as (1,0,0) (0,1,0) (0,0,2)")
    columns = [_vector(fields, "space directions", vector) for vector in vectors]
    spacing = tuple(math.sqrt(sum(v * v for v in column)) for column in columns)
    lengths = [mm or 1.0 for mm in spacing]
    rows = [[sign * columns[k][i] / lengths[k] for k in range(3)] for i, sign in enumerate(signs)]
    return spacing, origin, tuple(cosine for row in rows for cosine in row)


def _vector(fields: _Fields, name: str, text: str) -> tuple[float, ...]:
    """``(x,y,z)``."""
    try:
        found = tuple(float(word) for word in text.strip().strip("()").split(","))
    except ValueError:
        found = ()
    if len(found) != 3:
        raise fields.refused(name, "three numbers in each vector")
    return found


def _mha_image(fields: _Fields) -> TextImage:
    n_axes = fields.wholes("NDims", n=1)[0]
    kind = MHA_TYPES.get(fields.text("ElementType"))
    if kind is None:
        raise fields.refused("ElementType", ", ".join(MHA_TYPES))
    big = fields.is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    binary = fields.text("BinaryData", default="True")[:1].lower() in ("t", "1")
    straight = n_axes == 3
    rows = (
        fields.numbers("TransformMatrix", "Rotation", "Orientation", n=9, default=_EYE_TEXT)
        if straight
        else EYE
    )
    return TextImage(
        size=fields.wholes("DimSize", n=n_axes),
        n_components=fields.wholes("ElementNumberOfChannels", n=1, default="1")[0],
        kind=np.dtype((">" if big else "<") + kind),
        spacing=fields.numbers("ElementSpacing", "ElementSize", n=3, default="1 1 1")
        if straight
        else (1.0,) * 3,
        origin=fields.numbers("Offset", "Position", "Origin", n=3, default="0 0 0")
        if straight
        else (0.0,) * 3,
        direction=tuple(np.reshape(rows, (3, 3)).T.ravel().tolist()),
        encoding=("gzip" if fields.is_true("CompressedData") else "raw") if binary else "text",
        skip=fields.wholes("HeaderSize", n=1, default="0")[0],
    )


_EYE_TEXT = "1 0 0 0 1 0 0 0 1"
