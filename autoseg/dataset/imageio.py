"""Image files and their geometry: NIfTI, NRRD and MHA, exactly and in file order.

Arrays are ``[z, y, x]`` (several channels: ``[c, z, y, x]``) in the order in which the file stores them;
nothing is ever reoriented. SimpleITK reads the geometry of every format and the pixels of NRRD and MHA.

The pixels of NIfTI are decoded here, for two reasons that were seen with ITK 5.4: it returns a volume without
complaint when a ``.nii.gz`` file is truncated or damaged, and it takes the pixels of ``a.nii`` for those of
``a.nii.gz`` when both lie in one folder. Here checksum and length are verified.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import atomic_path
from autoseg.messages import count_of
from autoseg.orientation import orientation_of

SPACING_TOLERANCE = 1e-3
"""Spacings differ when they are further apart than this share of the larger one."""
ORIGIN_TOLERANCE_MM = 1e-2
"""Origins differ when a coordinate is further apart than this, in mm."""
DIRECTION_TOLERANCE = 1e-3
"""Directions differ when a cosine is further apart than this (0.06 degrees)."""

AGAIN = "copy, download or export the file again"

sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie in the scanner.

    Attributes:
        shape: voxels, z, y, x.
        spacing_mm: z, y, x.
        origin_mm: of the centre of the first voxel, x, y, z in LPS coordinates.
        direction: 9 cosines, row by row; column i is the direction of file axis i (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]

    @property
    def orientation(self) -> str:
        """Where the file axes x, y, z point to, as three of L R P A S I; the nearest when oblique."""
        return orientation_of(self.direction)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Shape times spacing, z, y, x."""
        z, y, x = (n * mm for n, mm in zip(self.shape, self.spacing_mm, strict=True))
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return math.prod(self.spacing_mm) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; floats keep all their digits."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Geometry:
        """The inverse of :meth:`to_dict`."""
        return cls(**{key: tuple(value) for key, value in content.items()})


@dataclass(frozen=True)
class ImageFile:
    """One file as it was read.

    Attributes:
        pixels: ``[z, y, x]``, read-only; in the file's own type, or float32 where the header rescales.
        geometry: of the file.
        sha256: of the file's bytes.
    """

    pixels: np.ndarray
    geometry: Geometry
    sha256: str


# ------------------------------------------------------------------------------------------------- reading


def read_geometry(path: Path | str) -> Geometry:
    """Read the header only.

    Raises:
        AutosegError: the file is missing, empty, not an image, or not one 3D scalar image.
    """
    path = Path(path)
    _check_is_there(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _header_error(path, str(error)) from None
    n_axes, size, n_components = reader.GetDimension(), reader.GetSize(), reader.GetNumberOfComponents()
    if n_axes != 3 or n_components != 1:
        raise _not_a_volume(path, n_axes, size, n_components)
    geometry = Geometry(
        shape=tuple(reversed(size)),
        spacing_mm=tuple(reversed(reader.GetSpacing())),
        origin_mm=tuple(reader.GetOrigin()),
        direction=tuple(reader.GetDirection()),
    )
    if not all(math.isfinite(v) for v in (*geometry.spacing_mm, *geometry.origin_mm, *geometry.direction)):
        raise AutosegError(
            "the header's geometry holds NaN or Inf", where=str(path), found=geometry, fix=AGAIN
        )
    return geometry


def read_image(path: Path | str) -> ImageFile:
    """Read one file: pixels in their own type, geometry and hash.

    Raises:
        AutosegError: as for :func:`read_geometry`, or the file is truncated or damaged.
    """
    path = Path(path)
    geometry = read_geometry(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AutosegError("cannot be read", where=str(path), found=error.strerror or error) from None
    pixels = _nifti_pixels(path, content, geometry) if path.name.endswith((".nii.gz", ".nii")) else None
    if pixels is None:
        pixels = _itk_pixels(path)
    pixels.flags.writeable = False
    return ImageFile(pixels, geometry, hashlib.sha256(content).hexdigest())


def read_channels(paths: Sequence[Path | str]) -> tuple[np.ndarray, Geometry]:
    """Read the channels of one case.

    Args:
        paths: one file for each channel, in order.

    Returns:
        float32 ``[c, z, y, x]`` and the geometry of the first file.

    Raises:
        AutosegError: a file cannot be read (see :func:`read_image`).
        FaultsError: the geometries of the channels differ.
    """
    first = read_image(paths[0])
    channels = np.empty((len(paths), *first.geometry.shape), np.float32)
    channels[0] = first.pixels
    geometry = first.geometry
    del first
    for i, path in enumerate(paths[1:], start=1):
        further = read_image(path)
        refuse_differences(paths[0], geometry, path, further.geometry)
        channels[i] = further.pixels
    return channels, geometry


def read_mask(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Read a mask.

    Returns:
        ``[z, y, x]``, uint8 where the values fit, else a wider integer type; and the geometry.

    Raises:
        AutosegError: the file cannot be read, or holds values that are not whole numbers.
    """
    file = read_image(path)
    labels = as_labels(file.pixels, where=str(path))
    return (labels if labels.flags.writeable else labels.copy()), file.geometry


def as_labels(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """The pixels of a mask file as integers (uint8 where they fit).

    Raises:
        AutosegError: some values are not whole numbers.
    """
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixels.min(), pixels.max()
    whole = bool(np.isfinite(low) and np.isfinite(high))
    if whole:
        fitting = (np.uint8, np.int16, np.int32, np.int64)
        kind = next(k for k in fitting if np.iinfo(k).min <= low and high <= np.iinfo(k).max or k is np.int64)
        labels = pixels.astype(kind)
        whole = pixels.dtype.kind in "iub" or bool(np.array_equal(labels, pixels))
    if not whole:
        raise AutosegError(
            "the mask holds values that are not whole numbers",
            where=where,
            found=_odd_values(pixels),
            expected="whole numbers, as named in dataset.json",
            fix="write the label values, not probabilities; resample masks with nearest neighbour",
        )
    return labels


def _odd_values(pixels: np.ndarray) -> str:
    odd = pixels[~(np.isfinite(pixels) & (pixels == np.round(pixels)))]
    shown = ", ".join(f"{value:g}" for value in np.unique(odd)[:5])
    return f"{count_of(odd.size, 'voxel')} with such values: {shown}"


# ------------------------------------------------------------------------------------------------- writing


def write_mask(path: Path | str, mask: np.ndarray, geometry: Geometry) -> None:
    """Write a mask ``[z, y, x]`` atomically, as uint8 where the values fit.

    Raises:
        AutosegError: the folder cannot be written to or the disk is full; nothing is left behind then.
        ValueError: the array's shape is not the geometry's, or its type is not an integer.
    """
    if mask.dtype == bool:
        mask = mask.view(np.uint8)
    if mask.dtype.kind not in "iu":
        raise ValueError(f"a mask has an integer type, this one has {mask.dtype}")
    _write(Path(path), as_labels(mask, where=str(path)), geometry)


def write_image(path: Path | str, image: np.ndarray, geometry: Geometry) -> None:
    """Write an image ``[z, y, x]`` atomically, as float32.

    Raises:
        AutosegError: the folder cannot be written to or the disk is full; nothing is left behind then.
        ValueError: the array's shape is not the geometry's.
    """
    _write(Path(path), image.astype(np.float32, copy=False), geometry)


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    if array.shape != tuple(geometry.shape):
        raise ValueError(f"array of shape {array.shape} does not fit the geometry's {geometry.shape}")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(geometry.spacing_mm)))
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    with atomic_path(path) as temporary:
        temporary.touch()  # an unwritable folder shows here, as an OSError
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            read_image(temporary)  # ITK is silent when the disk fills up
        except (RuntimeError, AutosegError) as error:
            if isinstance(error, RuntimeError) and "Unable to determine" in str(error):
                raise AutosegError(
                    "autoseg cannot write this format",
                    where=str(path),
                    expected="a name that ends in .nii.gz, .nii, .nrrd or .mha",
                    fix="change the ending",
                ) from None
            raise AutosegError(
                "could not be written completely",
                where=str(path),
                found="an incomplete file, which was removed",
                expected="free space on the disk",
                fix="free some space and run the command again",
            ) from error


# ---------------------------------------------------------------------------------------------- comparison


def differences(a: Geometry, b: Geometry) -> list[tuple[str, str, str]]:
    """In what ``b`` differs from ``a`` beyond tolerance.

    Returns:
        ``(what, found in b, expected as in a)`` for each of shape, spacing, origin and direction that differs
        by more than :data:`SPACING_TOLERANCE`, :data:`ORIGIN_TOLERANCE_MM`, :data:`DIRECTION_TOLERANCE`.
    """
    found = []
    if tuple(a.shape) != tuple(b.shape):
        found.append(("shape", _axes(b.shape), _axes(a.shape)))
    pairs = list(zip(a.spacing_mm, b.spacing_mm, strict=True))
    if any(abs(x - y) > SPACING_TOLERANCE * max(x, y) for x, y in pairs):
        found.append(("spacing", _axes(b.spacing_mm) + " mm", _axes(a.spacing_mm) + " mm"))
    if _apart(a.origin_mm, b.origin_mm) > ORIGIN_TOLERANCE_MM:
        found.append(("origin", _numbers(b.origin_mm) + " mm", _numbers(a.origin_mm) + " mm"))
    if _apart(a.direction, b.direction) > DIRECTION_TOLERANCE:
        found.append(("direction", _direction(b), _direction(a)))
    return found


def refuse_differences(a_path: Path | str, a: Geometry, b_path: Path | str, b: Geometry) -> None:
    """Raise when two files that must lie on the same grid do not.

    Raises:
        FaultsError: with one fault for each difference.
    """
    faults = [
        Fault(str(b_path), f"its {what} is not that of {Path(a_path).name}", found, expected, "resample it")
        for what, found, expected in differences(a, b)
    ]
    if faults:
        raise FaultsError("files of the same case lie on different grids", faults)


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _axes(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.6g}" for value in values) + " (z, y, x)"


def _direction(geometry: Geometry) -> str:
    return f"{geometry.orientation} ({' '.join(f'{round(v, 3) + 0:.3f}' for v in geometry.direction)})"


# ------------------------------------------------------------------------------------------------- decoding

_NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip


def _itk_pixels(path: Path) -> np.ndarray:
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise AutosegError(
            "the file is truncated or damaged",
            where=str(path),
            found=_itk_reason(str(error)),
            expected="a complete image",
            fix=AGAIN,
        ) from None


def _nifti_pixels(path: Path, content: bytes, geometry: Geometry) -> np.ndarray | None:
    """Decode NIfTI-1; None for NIfTI-2, which is left to ITK after its checksum was verified."""
    data = _gunzip(path, content)
    order = next((o for o in "<>" if struct.unpack_from(o + "i", data)[0] == 348), None)
    if order is None:
        return None
    code = struct.unpack_from(order + "h", data, 70)[0]
    offset, slope, intercept = struct.unpack_from(order + "3f", data, 108)
    if code not in _NIFTI_TYPES:
        raise AutosegError(
            "its pixel type is not supported",
            where=str(path),
            found=f"NIfTI type code {code}",
            expected="integers of 8 to 64 bits or floats of 32 or 64 bits",
            fix="convert the file to one of these",
        )
    kind, n = np.dtype(order + _NIFTI_TYPES[code]), math.prod(geometry.shape)
    missing = int(offset) + n * kind.itemsize - len(data)
    if missing > 0:
        raise _truncated(path, f"{len(data)} bytes, {missing} too few", f"{missing + len(data)} bytes")
    stored = np.frombuffer(data, kind, n, int(offset)).reshape(geometry.shape)
    return _rescaled(stored, slope, intercept)


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """What the header says the pixels mean: ``slope * stored + intercept``, unless the slope is 0."""
    native = stored.dtype.newbyteorder("=")
    unscaled = (
        not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or (slope, intercept) == (1, 0)
    )
    if unscaled:
        return stored.astype(native, copy=False)
    pixels = np.empty(stored.shape, np.float32)
    for plane, out in zip(stored, pixels, strict=True):  # plane by plane: no float64 copy of the whole
        out[...] = plane * np.float64(slope) + intercept
    return pixels


def _gunzip(path: Path, content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise _truncated(path, f"{len(content)} bytes, which end in the middle", "a complete file") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise AutosegError(
            "the file is truncated or damaged",
            where=str(path),
            found=str(error),
            expected="compressed data that match their checksum",
            fix=AGAIN,
        ) from None


# --------------------------------------------------------------------------------------------------- errors


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise AutosegError("the file is missing", where=str(path), fix="check the path")
    if path.stat().st_size == 0:
        raise AutosegError(
            "the file is empty", where=str(path), found="0 bytes", expected="an image", fix=AGAIN
        )


def _truncated(path: Path, found: str, expected: str) -> AutosegError:
    return AutosegError("the file is truncated", where=str(path), found=found, expected=expected, fix=AGAIN)


def _not_a_volume(path: Path, n_axes: int, size: Sequence[int], n_components: int) -> AutosegError:
    found = f"{n_axes}D, {' x '.join(map(str, size))} (in the order of the file)"
    if n_components > 1:
        found += f", {n_components} values per voxel"
    if n_axes < 3:
        fix = "save it as a volume with one slice"
    else:
        fix = "split it into one 3D file per channel: CASE_0000, CASE_0001, and so on"
    return AutosegError(
        "not a 3D image", where=str(path), found=found, expected="3D with one value per voxel", fix=fix
    )


def _header_error(path: Path, text: str) -> AutosegError:
    if "orthonormal" in text:
        return AutosegError(
            "the axes in its header are not at right angles",
            where=str(path),
            found="a sheared or inaccurate sform and qform",
            expected="three orthonormal directions",
            fix="resample the image to a regular grid, or save it again with a corrected header",
        )
    content = path.read_bytes()
    try:
        start = _gunzip(path, content)[:24]  # damaged compression is the better explanation
    except AutosegError as damage:
        return damage
    return AutosegError(
        f"is not a readable {''.join(path.suffixes[-2:])} image",
        where=str(path),
        found=f"it starts with {start!r}",
        expected="NIfTI, NRRD or MHA, named by its ending",
        fix="give the file the ending of its format, or convert it",
    )


def _itk_reason(text: str) -> str:
    """The last telling line of ITK's message; for MHA there is none, its "Reason" is misleading."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Reason:" not in line]
    return lines[-1] if lines and "MetaImage" not in text else "pixels that cannot be read in full"
