"""DICOM files by their headers: every slice, of single files and of enhanced multi-frame ones, as one kind of record.

pydicom reads the headers, because those of multi-frame files lie in sequences, which SimpleITK does not hand out;
SimpleITK's GDCM unpacks the pixels that pydicom alone cannot (:mod:`autoseg.scans.dicom_pixels`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import messages
from autoseg.dataset.unread_layouts import starts_as_dicom
from autoseg.errors import AutosegError
from autoseg.files import readable

if TYPE_CHECKING:
    from pydicom import Dataset

IMAGES = ("MR", "CT", "PT")
"""Modalities that are scans."""


@dataclass(frozen=True)
class Slice:
    """One plane of an image.

    Attributes:
        path, frame: where its pixels are; frames count from 0.
        instance: SOP Instance UID of the file.
        number: Instance Number, or the frame's, for messages.
        position: ImagePositionPatient, LPS mm; None where there is none.
        orientation: ImageOrientationPatient, six cosines.
        pixel_spacing_mm: between rows, between columns.
        thickness_mm: distance of slices as the header says, for a stack of one.
        size: rows, columns.
        slope, intercept: of the stored values.
        parted_by: what parts the stacks of a series, such as ``b1000``; words for people.
    """

    path: Path
    frame: int
    instance: str
    number: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    size: tuple[int, int]
    slope: float
    intercept: float
    parted_by: tuple[str, ...]


@dataclass(frozen=True)
class SeriesFacts:
    """What the first file of a series says of all of it.

    Attributes:
        patient, study, uid: who and when; the last is the Series Instance UID.
        date: of the study.
        number: Series Number; None where there is none.
        description: Series Description, or the protocol's name.
        modality: such as ``MR``.
        sop_class: UID of the kind of object.
        image_type: words such as ``DERIVED``.
        contrast: a contrast agent is named.
        frame: UID of the frame of reference, in which positions of several series can be compared.
        times_ms: repetition, echo and inversion time; None where not said.
    """

    patient: str
    study: str
    uid: str
    date: str
    number: int | None
    description: str
    modality: str
    sop_class: str
    image_type: tuple[str, ...]
    contrast: bool
    times_ms: tuple[float | None, float | None, float | None]
    frame: str = ""


def pydicom_module() -> Any:
    """pydicom, where it is installed; its own warnings of odd headers are kept quiet.

    Raises:
        AutosegError: it is not.
    """
    try:
        import pydicom
    except ImportError:
        raise AutosegError(
            "DICOM is read by pydicom, which is not installed", fix="pip install pydicom"
        ) from None
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


@dataclass(frozen=True)
class ReadFile:
    """A DICOM file by its header.

    Attributes:
        facts: of its series.
        slices: of the file; empty where the modality is that of no image, or ``problem`` says why.
        problem: what is wrong with its slices.
    """

    facts: SeriesFacts
    slices: tuple[Slice, ...] = ()
    problem: str = ""


def read_file(path: Path) -> ReadFile | None:
    """The header of a DICOM file, without its pixels; None for what is none, such as a DICOMDIR.

    A damaged file is warned of and is none.
    """
    if path.name.upper() == "DICOMDIR" or not starts_as_dicom(path):
        return None
    pydicom = pydicom_module()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd headers, where what is needed can be read
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if "SOPClassUID" not in dataset or "SeriesInstanceUID" not in dataset:
                return None
            facts = facts_of(dataset)
            if facts.modality not in IMAGES:
                return ReadFile(facts)
            try:
                return ReadFile(facts, tuple(slices_of(path, dataset)))
            except AutosegError as error:
                return ReadFile(facts, problem=f"{error.fault.where}: {error.fault.problem}")
    except Exception as error:  # of a hostile file anything may come; the others are read
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        messages.warn(f"{readable(path)} is not read: {why}")
        return None


def facts_of(dataset: Dataset) -> SeriesFacts:
    """What a header says of its series."""
    text = (
        _text(dataset, "SeriesDescription")
        or _text(dataset, "ProtocolName")
        or _text(dataset, "SequenceName")
    )
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    timing = _first(shared.get("MRTimingAndRelatedParametersSequence")) if shared is not None else None
    number = _number(dataset.get("SeriesNumber"))
    return SeriesFacts(
        patient=_text(dataset, "PatientID") or _text(dataset, "PatientName"),
        study=_text(dataset, "StudyInstanceUID"),
        uid=_text(dataset, "SeriesInstanceUID"),
        date=_text(dataset, "StudyDate"),
        number=int(number) if number is not None else None,
        description=text,
        modality=_text(dataset, "Modality"),
        sop_class=_text(dataset, "SOPClassUID"),
        image_type=tuple(str(word).upper() for word in _values(dataset.get("ImageType"))),
        contrast=bool(_text(dataset, "ContrastBolusAgent") or dataset.get("ContrastBolusAgentSequence")),
        times_ms=(
            _number(
                dataset.get("RepetitionTime", timing.get("RepetitionTime") if timing is not None else None)
            ),
            _number(dataset.get("EchoTime")),
            _number(dataset.get("InversionTime")),
        ),
        frame=_text(dataset, "FrameOfReferenceUID"),
    )


def slices_of(path: Path, dataset: Dataset) -> list[Slice]:
    """The slices of a file: one, or one for each frame of a multi-frame file.

    Raises:
        AutosegError: a file with several frames that do not say where they lie.
    """
    frames = int(_number(dataset.get("NumberOfFrames")) or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames > 1:
        raise AutosegError(
            "has several frames that do not say where they lie",
            where=readable(path),
            found=f"{frames} frames, no functional groups",
            expected="single slices, or enhanced multi-frame files",
            fix="export the series again, or convert it with dcm2niix",
        )
    if groups is None:
        return [_slice(path, 0, dataset, [dataset])]
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    return [
        _slice(path, i, dataset, [group, *([shared] if shared is not None else []), dataset])
        for i, group in enumerate(groups)
    ]


def _slice(path: Path, frame: int, dataset: Dataset, places: list[Any]) -> Slice:
    """A slice by the first place that says it: the frame's groups, the shared ones, the file."""

    def said(sequence: str, tag: str) -> Any:
        for place in places:
            inner = _first(place.get(sequence)) if sequence in place else place if place is dataset else None
            if inner is not None and inner.get(tag) is not None:
                return inner.get(tag)
        return None

    spacing = _numbers(said("PixelMeasuresSequence", "PixelSpacing"), 2)
    between = _number(said("PixelMeasuresSequence", "SpacingBetweenSlices"))
    slope = _number(said("PixelValueTransformationSequence", "RescaleSlope"))
    number = int(_number(dataset.get("InstanceNumber")) or 0)
    return Slice(
        path=path,
        frame=frame,
        instance=_text(dataset, "SOPInstanceUID"),
        number=frame + 1 if len(places) > 1 else number,
        position=_numbers(said("PlanePositionSequence", "ImagePositionPatient"), 3),
        orientation=_numbers(said("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        pixel_spacing_mm=spacing,
        thickness_mm=between or _number(said("PixelMeasuresSequence", "SliceThickness")),
        size=(int(_number(dataset.get("Rows")) or 0), int(_number(dataset.get("Columns")) or 0)),
        slope=1.0 if slope is None else slope,
        intercept=_number(said("PixelValueTransformationSequence", "RescaleIntercept")) or 0.0,
        parted_by=tuple(_parts(dataset, said)),
    )


def _parts(dataset: Dataset, said: Any) -> Iterator[str]:
    """What parts the stacks of one series: the kind of image, diffusion weighting, echo, point in time."""
    words = [
        str(w).upper()
        for w in _values(said("MRImageFrameTypeSequence", "FrameType") or dataset.get("ImageType"))
    ]
    yield "/".join(word for word in words[2:] if word not in ("NONE", "NORM", "OTHER"))
    b_value = _number(said("MRDiffusionSequence", "DiffusionBValue"))
    yield f"b{b_value:g}" if b_value is not None else ""
    echo = _number(said("MREchoSequence", "EffectiveEchoTime")) or _number(dataset.get("EchoTime"))
    yield f"echo time {echo:g} ms" if echo is not None else ""
    time = _number(said("FrameContentSequence", "TemporalPositionIndex")) or _number(
        dataset.get("TemporalPositionIdentifier")
    )
    yield f"time point {time:g}" if time is not None else ""


# ----------------------------------------------------------------------------------------------- values of fields


def _first(sequence: Any) -> Any:
    """The first item of a sequence; None where there is none."""
    value = getattr(sequence, "value", sequence)
    return value[0] if value else None


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def _text(dataset: Dataset, tag: str) -> str:
    return " ".join(str(dataset.get(tag) or "").split())


def _number(value: Any) -> float | None:
    """A field of one number; None where it has none."""
    try:
        return float(_values(value)[0])
    except (IndexError, TypeError, ValueError):
        return None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """A field of several numbers; None where it has not so many."""
    try:
        found = tuple(float(one) for one in _values(value))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None
