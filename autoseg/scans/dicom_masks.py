"""DICOM-SEG objects as masks on the slices of a series: frames are put where their positions say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.dataset.image_geometry import Geometry
from autoseg.errors import AutosegError
from autoseg.files import readable
from autoseg.scans.dicom_headers import pydicom_module
from autoseg.scans.dicom_series import DicomStack

SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
PLACE_TOLERANCE_MM = 0.1
"""A frame lies on a slice when their positions are no further apart."""
HALF = 0.5
"""Fractional segments count from this probability."""


@dataclass(frozen=True)
class DicomSeg:
    """A DICOM-SEG object on the grid of a series.

    Attributes:
        path: of the object.
        stack: whose slices it lies on.
        values: number of a segment to its value in the mask; None makes every segment 1.
    """

    path: Path
    stack: DicomStack
    values: dict[int, int] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The object's file."""
        return (self.path,)

    def read(self) -> tuple[np.ndarray, Geometry]:
        """The mask, uint8 ``[z, y, x]``; later segments lie over earlier ones.

        Raises:
            AutosegError: the object cannot be read, or does not lie on the slices of the series.
        """
        slices, geometry = self.stack.sorted_slices(), self.stack.geometry()
        places = np.array([one.position for one in slices])
        mask = np.zeros(geometry.shape, np.uint8)
        for place, number, frame in self._frames():
            index = int(np.argmin(np.linalg.norm(places - place, axis=1)))
            apart = float(np.linalg.norm(places[index] - place))
            if apart > PLACE_TOLERANCE_MM or frame.shape != mask.shape[1:]:
                raise AutosegError(
                    "lies on another grid than its series",
                    where=readable(self.path.name),
                    found=f"a frame of {frame.shape[0]} x {frame.shape[1]} pixels, {apart:.2f} mm from the next slice",
                    expected=f"frames on the slices of {self.stack.label}",
                    fix="leave it out, or resample it onto the series",
                )
            value = 1 if self.values is None else self.values.get(number, 0)
            if value:
                mask[index][frame] = value
        return mask, geometry

    def _frames(self) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """Position, number of the segment and pixels of each frame."""
        try:
            dataset = pydicom_module().dcmread(self.path)
            pixels = np.asarray(dataset.pixel_array)
            pixels = pixels[None] if pixels.ndim == 2 else pixels
            full = float(dataset.get("MaximumFractionalValue", 1) or 1)
            groups = dataset.PerFrameFunctionalGroupsSequence
            shared = dataset.get("SharedFunctionalGroupsSequence") or [None]
            return [
                (_place(group, shared[0]), _number(group, shared[0]), frame >= HALF * full)
                for group, frame in zip(groups, pixels, strict=True)
            ]
        except AutosegError:
            raise
        except Exception as error:  # of a damaged file anything may come
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise AutosegError(
                "is no DICOM-SEG that can be read", where=readable(self.path), found=found
            ) from None


def _place(group: Any, shared: Any) -> np.ndarray:
    holder = group if "PlanePositionSequence" in group else shared
    return np.array([float(v) for v in holder.PlanePositionSequence[0].ImagePositionPatient])


def _number(group: Any, shared: Any) -> int:
    holder = group if "SegmentIdentificationSequence" in group else shared
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def segments_of(path: Path) -> dict[int, str]:
    """Number to label of the segments of an object; empty for what is none.

    Raises:
        AutosegError: pydicom is not installed.
    """
    try:
        dataset = pydicom_module().dcmread(path, stop_before_pixels=True)
        if str(dataset.get("SOPClassUID")) != SEG_STORAGE:
            return {}
        return {int(one.SegmentNumber): str(one.get("SegmentLabel", "")) for one in dataset.SegmentSequence}
    except AutosegError:
        raise
    except Exception:  # whatever it is, it is no DICOM-SEG
        return {}


def referenced_series(path: Path) -> Sequence[str]:
    """The series that an object says it lies on; empty where it does not say."""
    try:
        dataset = pydicom_module().dcmread(path, stop_before_pixels=True)
        return [str(one.SeriesInstanceUID) for one in dataset.get("ReferencedSeriesSequence", [])]
    except Exception:  # it then lies on the series whose slices it fits
        return []
