"""Masks as DICOM-SEG objects: each class a segment with coded terms, frame by frame on the slices of the scan.

highdicom writes them. Only what comes from DICOM can become DICOM-SEG: it names the scan's own slices.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import atomic_path
from autoseg.inference.output_layout import FinishedCase, FurtherFile
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.scans.dicom_series import DicomStack
from autoseg.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

ENDING = ".seg.dcm"
CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = ("52988006", "SCT", "Lesion")
TERMS = {
    ("edema", "oedema"): ("79654002", "SCT", "Edema"),
    ("necrosis", "necrotic", "core"): ("6574001", "SCT", "Necrosis"),
    ("tumor", "tumour", "neoplasm"): ("108369006", "SCT", "Neoplasm"),
    ("infarct", "infarction", "stroke"): ("55641003", "SCT", "Infarct"),
}
"""Words in the names of classes to terms of SNOMED CT; all others are lesions."""
MAY_LACK = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
"""Fields that must be there and may be empty; files that were made anonymous often lack them."""


def refuse_other_sources(cases: Sequence[Case]) -> None:
    """Refuse cases that are not DICOM, and a missing highdicom, before time is spent.

    Raises:
        AutosegError: highdicom is not installed.
        FaultsError: there are cases of other files.
    """
    _highdicom()
    faults = [
        Fault(case.name, "is not DICOM", str(case.images[0].name), "a DICOM series", "leave --dicom_seg out")
        for case in cases
        if case.fault is None and not isinstance(_stack(case), DicomStack)
    ]
    if faults:
        title = f"--dicom_seg: {count_of(len(faults), 'case does', 'cases do')} not come from DICOM"
        raise FaultsError(title, faults[:10])


def seg_file(case: Case, labels: LabelSet, model: str) -> FurtherFile:
    """The DICOM-SEG of a case, ``CASE.seg.dcm``."""

    def write(path: Path, finished: FinishedCase) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names of patients, which are not ours to correct
            made = make_seg(finished, labels, model)
        with atomic_path(path) as temporary:
            made.save_as(temporary)

    return FurtherFile(case.name + ENDING, write)


def make_seg(finished: FinishedCase, labels: LabelSet, model: str) -> Any:
    """The object, one segment for each class.

    Raises:
        AutosegError: the scan's files lack what DICOM-SEG asks for.
    """
    hd = _highdicom()
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    stack = _stack(finished.case)
    if not isinstance(stack, DicomStack):
        raise AutosegError("is not DICOM", where=finished.case.name, fix="leave --dicom_seg out")
    values = sorted({v for of_class in labels.values for v in of_class})
    sources, mask = _on_sources(stack, finished.mask)
    pixels = np.stack([mask == value for value in values], axis=-1)
    try:
        return hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels.astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(hd, i, labels, value, model) for i, value in enumerate(values, 1)],
            series_instance_uid=generate_uid(),
            series_number=(stack.facts.number or 0) + 1000,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="autoseg",
            manufacturer_model_name=model,
            software_versions=__version__,
            device_serial_number="0",
            series_description=f"autoseg: {', '.join(labels.names)}"[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise AutosegError(
            "no DICOM-SEG can be made for this series",
            where=f"{finished.case.name}, {stack.label}",
            found=" ".join(str(error).split())[:200],
            expected="files with the fields that DICOM asks of an image",
            fix="predict without --dicom_seg; the NIfTI mask lies on the scan as well",
        ) from error


def _stack(case: Case) -> object:
    """The series that the mask lies on."""
    return case.origin.series[0] if case.origin is not None and case.origin.series else None


def _on_sources(stack: DicomStack, mask: np.ndarray) -> tuple[Sequence[Dataset], np.ndarray]:
    """The scan's files, and the mask in the order of their frames."""
    import pydicom

    slices = stack.sorted_slices()
    files = list(dict.fromkeys(one.path for one in slices))
    datasets = [pydicom.dcmread(path, force=True) for path in files]
    for dataset in datasets:
        for name in MAY_LACK:
            if name not in dataset:
                setattr(dataset, name, "")
    n_frames = int(datasets[0].get("NumberOfFrames", 1) or 1)
    if n_frames == 1:
        return datasets, mask
    frames = np.zeros((n_frames, *mask.shape[1:]), mask.dtype)
    for index, one in enumerate(slices):
        frames[one.frame] = mask[index]
    return datasets, frames


def _segment(hd: Any, number: int, labels: LabelSet, value: int, model: str) -> Any:
    from pydicom.sr.codedict import codes

    named = [name for name, values in zip(labels.names, labels.values, strict=True) if value in values]
    label = " and ".join(named)[:64]
    term = next((t for words, t in TERMS.items() if any(w in label.casefold() for w in words)), LESION)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=hd.sr.CodedConcept(CATEGORY[0], CATEGORY[1], CATEGORY[2]),
        segmented_property_type=hd.sr.CodedConcept(*term),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"autoseg {model}"[:64], version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{label} {number}",
    )


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError:
        fix = 'pip install highdicom, or "autoseg-lesion[dicom]"'
        raise AutosegError("DICOM-SEG is written by highdicom, which is not installed", fix=fix) from None
    return highdicom
