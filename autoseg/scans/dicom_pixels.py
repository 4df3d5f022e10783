"""The stored values of DICOM frames, unpacked."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.errors import AutosegError
from autoseg.files import readable
from autoseg.scans.dicom_headers import pydicom_module

if TYPE_CHECKING:
    from pydicom import Dataset

_IMAGE_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
_BY_PYDICOM = tuple(f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99", ".5"))
"""Transfer syntaxes that pydicom unpacks by itself: all plain ones, and RLE."""


def stored_frames(path: Path, frames: Sequence[int]) -> list[np.ndarray]:
    """Frames of a file as they are stored, each ``[rows, columns]``, without rescaling.

    Args:
        path: of the file.
        frames: their indices.

    Raises:
        AutosegError: the pixels are missing, damaged, coloured, or packed in a way that nothing here unpacks.
    """
    packed = ""
    try:
        dataset, syntax = _opened(path)
        packed = f" ({syntax.name})"
        if int(dataset.get("SamplesPerPixel", 1)) != 1:
            raise ValueError("colours, where grey values are expected")
        if syntax not in _BY_PYDICOM:
            return [_by_gdcm(dataset, frame) for frame in frames]
        pixels = dataset.pixel_array
        return [pixels] if pixels.ndim == 2 else [pixels[frame] for frame in frames]
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they meet
        raise AutosegError(
            "its pixels cannot be read",
            where=readable(path),
            found=f"{' '.join(str(error).split())[:160] or type(error).__name__}{packed}",
            expected="grey values, plain or packed by RLE, JPEG, JPEG-LS or JPEG 2000",
            fix="export the series again, uncompressed",
        ) from None


def _opened(path: Path) -> tuple[Dataset, Any]:
    """A file and its transfer syntax; where it does not say it, that in which its header could be read."""
    pydicom = pydicom_module()
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        implicit = dataset.original_encoding[0]
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
    return dataset, dataset.file_meta.TransferSyntaxUID


def _by_gdcm(dataset: Dataset, frame: int) -> np.ndarray:
    """One frame, unpacked by the GDCM in SimpleITK: a file of this frame alone, so that nothing else is understood."""
    import pydicom
    import SimpleITK as sitk
    from pydicom.encaps import encapsulate, get_frame

    count = int(dataset.get("NumberOfFrames", 1) or 1)
    alone = pydicom.Dataset()
    for tag in _IMAGE_TAGS:
        if tag in dataset:
            setattr(alone, tag, dataset[tag].value)
    alone.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    alone.PixelData = encapsulate([get_frame(dataset.PixelData, frame, number_of_frames=count)])
    alone["PixelData"].VR = "OB"
    alone.file_meta = pydicom.dataset.FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    alone.file_meta.MediaStorageSOPClassUID = alone.SOPClassUID
    alone.file_meta.MediaStorageSOPInstanceUID = alone.SOPInstanceUID
    with tempfile.TemporaryDirectory(prefix="autoseg-") as folder:
        path = Path(folder) / "frame.dcm"
        alone.save_as(path, enforce_file_format=True)
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return found.reshape(found.shape[-2:])
