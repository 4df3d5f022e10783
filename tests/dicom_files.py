"""DICOM series made from arrays, as a scanner would write them, for tests."""

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
OBLIQUE = (0.9396926207859084, 0.0, -0.3420201433256687, 0.0, 1.0, 0.0)
"""Rows and columns of planes that are turned by 20 degrees about the patient's y axis."""


def volume(seed=0, shape=(6, 12, 10)):
    """Whole numbers 0 to 1000."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def uid(*parts):
    """The same for the same parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def _base(pixels, sop_class, number, description, patient, study, fields):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, sop_class
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.PatientID, dataset.PatientName, dataset.Modality = patient, patient, "MR"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.StudyID = "", "", "1"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20260102", "101112", ""
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "none"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(patient, study), uid(patient, study, number)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid(patient, study, "frame"), ""
    dataset.SeriesNumber, dataset.SeriesDescription = number, description
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def places(n, spacing, origin, orientation):
    """ImagePositionPatient of n slices along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [[float(v) for v in np.array(origin) + i * spacing[0] * normal] for i in range(n)]


def write_series(
    folder,
    pixels,
    *,
    number=1,
    description="AX T1",
    patient="P01",
    study=1,
    spacing=(3.0, 0.8, 0.9),
    origin=(-40.0, -50.0, 12.5),
    orientation=OBLIQUE,
    change=None,
    order=None,
    **fields,
):
    """One file for each slice; ``change(index, dataset)`` may change a slice, or return False to leave it out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, position in enumerate(places(len(pixels), spacing, origin, orientation)):
        dataset = _base(pixels, MR, number, description, patient, study, fields)
        dataset.SOPInstanceUID = uid(patient, study, number, i)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = i + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, list(orientation)
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing[1:]), spacing[0]
        dataset.PixelData = pixels[i].astype("<i2").tobytes()
        if change is not None and change(i, dataset) is False:
            continue
        paths.append(folder / f"{number:03d}-{(order or range(len(pixels)))[i]:04d}")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_multi_frame(
    path, pixels, *, number=1, description="AX T1", patient="P01", study=1, spacing=(3.0, 0.8, 0.9),
    origin=(-40.0, -50.0, 12.5), orientation=OBLIQUE, order=None, slopes=None, **fields
):  # fmt: skip
    """An enhanced MR file; ``order`` is that of the frames, ``slopes`` the rescaling of each slice."""
    order = list(order or range(len(pixels)))
    dataset = _base(pixels, ENHANCED_MR, number, description, patient, study, fields)
    dataset.SOPInstanceUID = uid(patient, study, number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.NumberOfFrames = len(pixels)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing[1:]), spacing[0]
    plane.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    where = places(len(pixels), spacing, origin, orientation)
    groups = []
    for i in order:
        group, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = where[i]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = (
            (slopes or {}).get(i, 1.0),
            0.0,
            "US",
        )
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = pixels[order].astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
