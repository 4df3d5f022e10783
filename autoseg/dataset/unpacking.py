"""The bytes of image files: unpacked no further than the header asks for, complete and checked."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import AutosegError

AGAIN = "copy, download or export the file again"

GZIP = b"\x1f\x8b"
PADDING = 512
"""So many zeros after the last voxel are padding; more, or anything else, are pixels that the header leaves out."""


def first_bytes(path: Path, n: int) -> bytes:
    """The first bytes of a file, unpacked; fewer where it is shorter.

    Raises:
        AutosegError: it cannot be read, or is truncated or damaged before that.
    """
    with explained(path), open(path, "rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        return gzip.GzipFile(fileobj=file).read(n) if packed else file.read(n)


def read_bytes(path: Path) -> bytes:
    """A file as it is.

    Raises:
        AutosegError: it cannot be read.
    """
    with explained(path):
        return path.read_bytes()


def unpack(path: Path, content: bytes, n: int) -> bytes:
    """The bytes that a header asks for, checked against the checksum of what follows.

    Args:
        path: of the file, for messages.
        content: the file, packed by gzip or not.
        n: from the start of the file to the end of its last voxel.

    Raises:
        AutosegError: there are fewer bytes or more than padding, or they do not match their checksum.
    """
    refuse_more_than_memory(path, n)
    data = content
    if content[:2] == GZIP:
        with explained(path, len(content)):
            data = gzip.GzipFile(fileobj=io.BytesIO(content)).read(n + PADDING + 1)
    check_length(path, data, n)
    return data


def check_length(path: Path, data: bytes, n: int) -> None:
    """Refuse data that are shorter or longer than the header says.

    Args:
        path: of the file.
        data: unpacked, at least as far as one byte beyond what may be padding.
        n: how many bytes the header asks for.

    Raises:
        AutosegError: there are fewer, or more than padding after them.
    """
    if len(data) < n:
        raise truncated(path, f"{len(data)} bytes, {n - len(data)} too few", f"{n} bytes")
    _refuse_more(path, data[n : n + PADDING + 1], n)


def _refuse_more(path: Path, rest: bytes, n: int) -> None:
    if len(rest) > PADDING or any(rest):
        more = f"at least {len(rest)}" if len(rest) > PADDING else str(len(rest))
        raise AutosegError(
            "the file holds more pixels than its header says",
            where=str(path),
            found=f"{more} bytes after the last voxel",
            expected=f"{n} bytes, by the shape and the pixel type in the header",
            fix="correct the shape (dim) in the header, or export the image again",
        )


def refuse_more_than_memory(path: Path, n: int) -> None:
    """Refuse an image that cannot be held.

    Raises:
        AutosegError: its header asks for more than the main memory of this machine.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return  # not on Windows
    if n > there:
        raise AutosegError(
            "the header asks for more than the main memory of this machine",
            where=str(path),
            found=f"{n / 1e9:.3g} GB of pixels",
            expected=f"less than {there / 1e9:.3g} GB",
            fix="correct the shape (dim) in the header, or crop the image",
        )


def truncated(path: Path, found: str, expected: str) -> AutosegError:
    """The error of a file that ends too early."""
    return AutosegError("the file is truncated", where=str(path), found=found, expected=expected, fix=AGAIN)


@contextlib.contextmanager
def explained(path: Path, n_packed: int | None = None) -> Iterator[None]:
    """What goes wrong in reading and unpacking, with the file and a remedy.

    Args:
        path: of the file.
        n_packed: length of what is unpacked, if it is not the whole file.
    """
    try:
        yield
    except EOFError:
        size = path.stat().st_size if n_packed is None else n_packed
        raise truncated(path, f"{size} bytes, which end in the middle", "a complete file") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise AutosegError(
            "the file is truncated or damaged",
            where=str(path),
            found=str(error),
            expected="compressed data that match their checksum",
            fix=AGAIN,
        ) from None
    except OSError as error:
        raise AutosegError(
            "cannot be read", where=str(path), found=error.strerror or error, fix="check the path"
        ) from None
    except MemoryError:
        raise AutosegError(
            "the main memory is not enough for this image",
            where=str(path),
            fix="close other programs, or crop the image",
        ) from None
