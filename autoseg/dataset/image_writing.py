"""Images and masks as files: atomically, checked by reading them again, where the scan lies.

A mask gets what the header of the scan says of the geometry, word for word: sform, qform, both codes, pixdim and
units. So it lies on the scan for every reader, whichever of these the reader goes by. Where the scan has another
format, or there is none, the geometry alone is written.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.dataset.image_geometry import Geometry
from autoseg.dataset.image_header import NIFTI, HeaderForms, TextForms, open_header
from autoseg.dataset.mask_values import as_labels
from autoseg.dataset.nifti_header import NiftiForms
from autoseg.dataset.text_header import MHA, NRRD
from autoseg.dataset.unpacking import read_bytes
from autoseg.errors import AutosegError
from autoseg.files import atomic_path, refuse_other_encoding

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def write_mask(
    path: Path | str, mask: np.ndarray, geometry: Geometry, forms: HeaderForms | None = None
) -> None:
    """Write a mask ``[z, y, x]`` atomically, as uint8 where the values fit.

    Args:
        path: ends in the format's ending.
        mask: in the order of the scan's file.
        geometry: of the scan's file.
        forms: of the scan's header (:func:`autoseg.dataset.imageio.read_forms`).

    Raises:
        AutosegError: the folder cannot be written to or the disk is full; nothing is left behind then.
        ValueError: the array's shape is not the geometry's, or its type is not an integer.
    """
    if mask.dtype == bool:
        mask = mask.view(np.uint8)
    if mask.dtype.kind not in "iu":
        raise ValueError(f"a mask has an integer type, this one has {mask.dtype}")
    _write(Path(path), as_labels(mask, where=str(path)), geometry, forms)


def write_image(
    path: Path | str, image: np.ndarray, geometry: Geometry, forms: HeaderForms | None = None
) -> None:
    """Write an image ``[z, y, x]`` atomically, as float32.

    Args: as of :func:`write_mask`.

    Raises:
        AutosegError: the folder cannot be written to or the disk is full; nothing is left behind then.
        ValueError: the array's shape is not the geometry's.
    """
    _write(Path(path), image.astype(np.float32, copy=False), geometry, forms)


def _write(path: Path, array: np.ndarray, geometry: Geometry, forms: HeaderForms | None) -> None:
    if array.shape != tuple(geometry.shape):
        raise ValueError(f"array of shape {array.shape} does not fit the geometry's {geometry.shape}")
    refuse_other_encoding(path)
    with atomic_path(path) as temporary:
        temporary.touch()  # an unwritable folder shows here, as an OSError
        try:
            if isinstance(forms, NiftiForms) and path.name.endswith(NIFTI):
                temporary.write_bytes(nifti_bytes(array, forms, packed=path.name.endswith(".gz")))
            else:
                _write_by_itk(temporary, array, geometry, forms if isinstance(forms, TextForms) else None)
            _read_again(temporary)  # ITK is silent when the disk fills up
        except (RuntimeError, AutosegError) as error:
            raise _not_written(path, error) from error


def nifti_bytes(array: np.ndarray, forms: NiftiForms, *, packed: bool) -> bytes:
    """A NIfTI file with the geometry of another, word for word.

    Args:
        array: ``[z, y, x]``.
        forms: of the other's header.
        packed: by gzip.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    header = (Nifti1Header if forms.version == 1 else Nifti2Header)(endianness="<")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header["pixdim"] = forms.pixdim
    header["qform_code"], header["sform_code"] = forms.qform_code, forms.sform_code
    for part, b, offset, row in zip("xyz", "bcd", forms.qoffset, range(0, 12, 4), strict=False):
        header[f"qoffset_{part}"] = offset
        header[f"srow_{part}"] = forms.srow[row : row + 4]
        header[f"quatern_{b}"] = forms.quatern["bcd".index(b)]
    header["xyzt_units"] = forms.xyzt_units
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.single_vox_offset
    content = (
        header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    )
    return gzip.compress(content, 6, mtime=0) if packed else content


def _write_by_itk(path: Path, array: np.ndarray, geometry: Geometry, forms: TextForms | None) -> None:
    image = sitk.GetImageFromArray(array)
    as_text = forms if forms is not None and path.name.endswith((*NRRD, *MHA)) else None
    image.SetSpacing(as_text.spacing if as_text else tuple(reversed(geometry.spacing_mm)))
    image.SetOrigin(as_text.origin if as_text else geometry.origin_mm)
    image.SetDirection(as_text.direction if as_text else geometry.direction)
    sitk.WriteImage(image, str(path), useCompression=True)
    if as_text and as_text.unit != "mm":
        _put_unit(path, as_text.unit)


def _put_unit(path: Path, unit: str) -> None:
    """ITK does not write the unit of a NRRD file."""
    units = " ".join([f'"{unit}"'] * 3)
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"\nspace directions:", f"\nspace units: {units}\nspace directions:".encode(), 1)
    )


def _read_again(path: Path) -> None:
    open_header(path).pixels(path, read_bytes(path))


def _not_written(path: Path, error: Exception) -> AutosegError:
    if isinstance(error, RuntimeError) and "Unable to determine" in str(error):
        return AutosegError(
            "autoseg cannot write this format",
            where=str(path),
            expected="a name that ends in .nii.gz, .nii, .nrrd or .mha",
            fix="change the ending",
        )
    return AutosegError(
        "could not be written completely",
        where=str(path),
        found="an incomplete file, which was removed",
        expected="free space on the disk",
        fix="free some space and run the command again",
    )
