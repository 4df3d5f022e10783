"""The header of an image file of any format: its geometry, what of it is written back, what to warn of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.dataset.image_geometry import (
    EXACT_COSINE,
    SHEAR_COSINE,
    Geometry,
    at_right_angles,
    check_spacing,
    largest_cosine,
    sheared,
)
from autoseg.dataset.nifti_header import (
    HEADER_BYTES,
    SLIGHTLY_SHEARED,
    NiftiForms,
    NiftiHeader,
    nifti_geometry,
    parse_header,
)
from autoseg.dataset.nifti_pixels import decode
from autoseg.dataset.text_header import TextHeader, read_text_header
from autoseg.dataset.text_image import TextImage, decode_text, understand
from autoseg.dataset.unpacking import AGAIN, first_bytes
from autoseg.errors import AutosegError
from autoseg.files import refuse_other_encoding

NIFTI = (".nii.gz", ".nii")
COLOURS = {128: 3, 2304: 4}
"""NIfTI pixel types with several values for each voxel."""
POINTERS = {
    b"/annex/objects/": ("git-annex", "git annex get, or datalad get"),
    b"../.git/annex": ("git-annex", "git annex get, or datalad get"),
    b"version https://git-lfs": ("Git LFS", "git lfs pull"),
}
"""How files start that only say where the true one is kept: by what, and how it is fetched."""


@dataclass(frozen=True)
class TextForms:
    """What a NRRD or MHA header says of where its voxels lie: what a mask of the image gets.

    Attributes:
        spacing: x, y, z in the header's unit.
        origin: x, y, z in the header's unit.
        direction: 9 cosines, row by row, whether or not they are at right angles.
        unit: of NRRD, as written; ``mm`` where none is.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    unit: str


HeaderForms = NiftiForms | TextForms


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        geometry: in mm, at right angles.
        forms: word for word, for :func:`autoseg.dataset.image_writing.write_mask`.
        notes: what is to be warned of.
        nifti: the header of a NIfTI file; None for other formats.
        text, image: the header of a NRRD or MHA file and what it means; None for other formats.
    """

    geometry: Geometry
    forms: HeaderForms
    notes: list[str] = field(default_factory=list)
    nifti: NiftiHeader | None = None
    text: TextHeader | None = None
    image: TextImage | None = None

    def pixels(self, path: Path, content: bytes) -> np.ndarray:
        """The pixels ``[z, y, x]`` of the file that this is the header of.

        Args:
            path: of the file.
            content: the file, or the one that its header names for the pixels.

        Raises:
            AutosegError: the file is truncated, damaged or too long; its pixel type is not supported.
        """
        if self.text is not None and self.image is not None:
            return decode_text(path, content, self.text, self.image)
        if self.nifti is not None:
            return decode(path, content, self.nifti)
        raise ValueError(f"{path}: a header of no format")


def open_header(path: Path, *, is_mask: bool = False) -> ImageHeader:
    """Read a header.

    Args:
        path: of the image.
        is_mask: for the remedy of an image that is not 3D.

    Raises:
        AutosegError: the file is missing, empty, not an image, not one 3D scalar image, or its geometry is unusable.
    """
    _check_is_there(path)
    if path.name.endswith(NIFTI):
        return _open_nifti(path, is_mask)
    text = read_text_header(path)
    if text is None:
        raise _not_an_image(path)
    return _open_text(path, text, is_mask)


def _open_nifti(path: Path, is_mask: bool) -> ImageHeader:
    header = parse_header(first_bytes(path, max(HEADER_BYTES.values())))
    if header is None:
        raise _not_an_image(path)
    _check_volume(path, header.dim, COLOURS.get(header.datatype, 1), is_mask)
    geometry, notes = nifti_geometry(header, str(path))
    return ImageHeader(geometry, header.forms, notes, nifti=header)


def _open_text(path: Path, header: TextHeader, is_mask: bool) -> ImageHeader:
    image = understand(path, header)
    _check_volume(path, image.size, image.n_components, is_mask)
    (unit, scale), (field, written) = header.unit, header.spacing_field
    (nx, ny, nz), (x, y, z) = image.size, (mm * scale for mm in image.spacing)
    check_spacing(str(path), (z, y, x), field=field, written=written, unit=unit)
    direction, notes = _right_angles(path, image.direction)
    left, back, up = (mm * scale for mm in image.origin)
    if not all(math.isfinite(mm) for mm in (left, back, up)):
        raise AutosegError(
            "the header's origin holds NaN or Inf",
            where=str(path),
            found=image.origin,
            expected="finite numbers",
            fix="correct the header, or export the image again",
        )
    return ImageHeader(
        Geometry((nz, ny, nx), (z, y, x), (left, back, up), direction),
        TextForms(image.spacing, image.origin, image.direction, unit),
        notes,
        text=header,
        image=image,
    )


def _right_angles(path: Path, direction: Sequence[float]) -> tuple[tuple[float, ...], list[str]]:
    """Cosines as they are, or the nearest at right angles where they are off by rounding."""
    matrix = np.array(direction).reshape(3, 3)
    lengths = np.linalg.norm(matrix, axis=0)
    has_axes = np.isfinite(lengths).all() and lengths.min() > 0
    cosine = largest_cosine(matrix / lengths) if has_axes else 0.0
    if cosine > SHEAR_COSINE:
        raise sheared(str(path), cosine)
    if not np.abs(lengths - 1).max() <= SHEAR_COSINE:
        raise AutosegError(
            "the axes in its header have no length of 1",
            where=str(path),
            found=" ".join(f"{v:.4g}" for v in direction),
            expected="three orthonormal directions",
            fix="save the image again with a corrected header",
        )
    if cosine <= EXACT_COSINE:
        return tuple(direction), []
    return tuple(at_right_angles(matrix).ravel().tolist()), [SLIGHTLY_SHEARED]


# --------------------------------------------------------------------------------------------------- errors


def _check_is_there(path: Path) -> None:
    refuse_other_encoding(path)
    if path.is_symlink() and not path.exists():
        raise AutosegError(
            "the link points nowhere",
            where=str(path),
            found=f"a link to {path.readlink()}, which is not there",
            expected="an image",
            fix="fetch the file (git annex get, datalad get), or copy it here",
        )
    if not path.is_file():
        raise AutosegError("the file is missing", where=str(path), fix="check the path")
    if path.stat().st_size == 0:
        raise AutosegError(
            "the file is empty", where=str(path), found="0 bytes", expected="an image", fix=AGAIN
        )


def _check_volume(path: Path, size: Sequence[int], n_components: int, is_mask: bool) -> None:
    """Refuse all but 3D images of one value per voxel; ``size`` is in the order of the file."""
    if len(size) == 3 and n_components == 1 and min(size) > 0:
        return
    found = f"{len(size)}D, {' x '.join(map(str, size))} (in the order of the file)"
    if n_components > 1:
        found += f", {n_components} values per voxel"
    if min(size) < 1:
        fix = "correct the shape (dim) in the header, or export the image again"
    elif len(size) < 3:
        fix = "save it as a volume with one slice"
    elif is_mask:
        fix = "join the layers into one mask of whole numbers, such as 0 background, 1 lesion"
    else:
        fix = "split it into one 3D file per channel: CASE_0000, CASE_0001, and so on"
    raise AutosegError(
        "not a 3D image", where=str(path), found=found, expected="3D with one value per voxel", fix=fix
    )


def _not_an_image(path: Path) -> AutosegError:
    start = first_bytes(path, 24)  # damaged compression is the better explanation
    for beginning, (keeper, command) in POINTERS.items():
        if start.startswith(beginning):
            return AutosegError(
                f"is a pointer of {keeper}, not the file itself",
                where=str(path),
                found=f"it starts with {start!r}",
                expected="an image",
                fix=f"fetch it: {command}",
            )
    return AutosegError(
        f"is not a readable {''.join(path.suffixes[-2:])} image",
        where=str(path),
        found=f"it starts with {start!r}",
        expected="NIfTI, NRRD or MHA, named by its ending",
        fix="give the file the ending of its format, or convert it",
    )
