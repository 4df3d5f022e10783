"""A stack of DICOM slices as an image: sorted by position, with everything refused that is no regular grid."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.dataset.image_geometry import Geometry, at_right_angles
from autoseg.errors import AutosegError
from autoseg.messages import count_of
from autoseg.scans.dicom_headers import SeriesFacts, Slice
from autoseg.scans.dicom_pixels import stored_frames

GAP_SHARE = 0.05
"""Distances of slices that differ by more than this share are those of no regular grid."""
TILT_DEGREES = 0.3
"""Slices whose positions drift by more than this angle from their normal were taken with a tilted gantry."""
ORIENTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class DicomStack:
    """Slices of one series that belong to one image.

    Attributes:
        facts: of the series.
        parted_by: what parts it from other stacks of the series, for people; empty where there is one.
        slices: not sorted yet.
    """

    facts: SeriesFacts
    parted_by: str
    slices: tuple[Slice, ...]

    @property
    def label(self) -> str:
        """How messages call it: ``series 5 'ep2d_diff' b1000``."""
        number = "" if self.facts.number is None else f" {self.facts.number}"
        text = f"series{number} '{self.facts.description or 'without description'}'"
        return f"{text} {self.parted_by}".rstrip()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in the order of the slices."""
        return tuple(dict.fromkeys(one.path for one in self.sorted_slices()))

    def sorted_slices(self) -> list[Slice]:
        """Along the normal of the planes, from its start.

        Raises:
            AutosegError: the slices are no regular grid, or do not say where they lie.
        """
        slices = list(self.slices)
        self._refuse_silence(slices)
        normal = _normal(slices[0])
        slices.sort(key=lambda one: float(np.dot(normal, one.position or ())))
        if len(slices) > 1:
            self._refuse_irregular(slices, normal)
        return slices

    def geometry(self) -> Geometry:
        """Where the voxels lie.

        Raises:
            AutosegError: as of :meth:`sorted_slices`.
        """
        return self._geometry(self.sorted_slices())

    def read(self) -> tuple[np.ndarray, Geometry]:
        """The image, float32 ``[z, y, x]``, rescaled as each slice says.

        Raises:
            AutosegError: as of :meth:`sorted_slices`, or the pixels cannot be read.
        """
        slices = self.sorted_slices()
        geometry = self._geometry(slices)
        volume = np.empty(geometry.shape, np.float32)
        by_file: dict[Path, list[int]] = defaultdict(list)
        for index, one in enumerate(slices):
            by_file[one.path].append(index)
        for path, indices in by_file.items():
            frames = stored_frames(path, [slices[index].frame for index in indices])
            for index, frame in zip(indices, frames, strict=True):
                if frame.shape != volume.shape[1:]:
                    raise self._refused(
                        f"slice {slices[index].number} has another size", str(frame.shape), ""
                    )
                volume[index] = frame * np.float64(slices[index].slope) + slices[index].intercept
        return volume, geometry

    def _geometry(self, slices: Sequence[Slice]) -> Geometry:
        first, last = slices[0], slices[-1]
        rows, columns = np.array(first.orientation).reshape(2, 3)
        normal = _normal(first)
        distance = first.thickness_mm or 0.0
        if len(slices) > 1:
            distance = float(np.dot(normal, np.subtract(last.position, first.position))) / (len(slices) - 1)  # type: ignore[arg-type]
        direction = at_right_angles(np.stack([rows, columns, normal], axis=1))
        between_rows, between_columns = first.pixel_spacing_mm or (0.0, 0.0)
        origin = first.position or ()
        return Geometry(
            shape=(len(slices), *first.size),
            spacing_mm=(distance, between_rows, between_columns),
            origin_mm=(origin[0], origin[1], origin[2]),
            direction=tuple(direction.ravel().tolist()),
        )

    # ------------------------------------------------------------------------------------------------ refusals

    def _refused(self, problem: str, found: str, expected: str, fix: str = "") -> AutosegError:
        again = "export the series again, or convert it with dcm2niix and look at the result"
        return AutosegError(problem, where=self.label, found=found, expected=expected, fix=fix or again)

    def _refuse_silence(self, slices: Sequence[Slice]) -> None:
        """Refuse slices without position, orientation, spacing or size, and those that differ in them."""
        for one in slices:
            if one.position is None or one.orientation is None:
                what = (
                    "position (ImagePositionPatient)" if one.position is None else "ImageOrientationPatient"
                )
                raise self._refused(f"a slice does not say its {what}", one.path.name, "it in each slice")
            if one.pixel_spacing_mm is None or min(one.pixel_spacing_mm) <= 0:
                raise self._refused(
                    "has no spacing (PixelSpacing)", one.path.name, "the size of the pixels in mm"
                )
        if len(slices) == 1 and not (slices[0].thickness_mm or 0) > 0:
            expected = "SpacingBetweenSlices or SliceThickness"
            raise self._refused("one slice that does not say how thick it is", slices[0].path.name, expected)
        for name in ("size", "pixel_spacing_mm"):
            if len(found := {getattr(one, name) for one in slices}) > 1:
                raise self._refused(f"slices of different {name}", str(sorted(found)), "one grid")

    def _refuse_irregular(self, slices: Sequence[Slice], normal: np.ndarray) -> None:
        """Refuse duplicate positions, missing slices, uneven distances and a tilted gantry."""
        positions = np.array([one.position for one in slices])
        along = positions @ normal
        gaps = np.diff(along)
        usual = float(np.median(gaps))
        same = [pair for pair, gap in zip(pairwise(slices), gaps, strict=True) if gap < 1e-3]
        if same:
            a, b = same[0]
            raise self._refused(
                f"{count_of(len(same), 'position holds', 'positions hold')} two different slices",
                f"slices {a.number} and {b.number} at {along[slices.index(a)]:.2f} mm",
                "one slice at each position",
                "give one acquisition only; b-values, echoes or points in time are mixed in this series",
            )
        wide = [i for i, gap in enumerate(gaps) if gap > usual * 1.5]
        n_missing = sum(round(gaps[i] / usual) - 1 for i in wide)
        if wide:
            a, b = slices[wide[0]], slices[wide[0] + 1]
            raise self._refused(
                f"{count_of(n_missing, 'slice is', 'slices are')} missing",
                f"{gaps[wide[0]]:.2f} mm between slices {a.number} and {b.number}, where {usual:.2f} mm is usual",
                f"{len(slices) + n_missing} slices at even distances, {len(slices)} are there",
                "copy the series again, with all its files",
            )
        if np.abs(gaps - usual).max() > GAP_SHARE * usual:
            found = f"{gaps.min():.3f} to {gaps.max():.3f} mm"
            raise self._refused("the slices lie at uneven distances", found, "even distances")
        self._refuse_tilt(positions[-1] - positions[0], normal)

    def _refuse_tilt(self, way: np.ndarray, normal: np.ndarray) -> None:
        cosine = float(np.clip(np.dot(way, normal) / np.linalg.norm(way), -1, 1))
        if (degrees := float(np.degrees(np.arccos(cosine)))) > TILT_DEGREES:
            raise self._refused(
                "the slices are sheared, as a tilted gantry makes them",
                f"a tilt of {degrees:.1f} degrees",
                "slices behind one another along their normal",
                "convert it with dcm2niix, which corrects the tilt, and predict the file that ends in _Tilt",
            )


def _normal(one: Slice) -> np.ndarray:
    rows, columns = np.array(one.orientation).reshape(2, 3)
    normal = np.cross(rows, columns)
    return normal / np.linalg.norm(normal)


def _without_copies(facts: SeriesFacts, slices: Sequence[Slice]) -> list[Slice]:
    """The slices, copies once: those of one instance that differ in nothing but the file.

    Programs that remove names may give all files of a series the same instance, or none; these are no copies.
    """
    found: dict[Slice, Slice] = {}
    for one in slices:
        found.setdefault(replace(one, path=Path()) if one.instance else one, one)
    if len(found) < len(slices):
        n = count_of(len(slices) - len(found), "copy", "copies")
        messages.warn(f"{DicomStack(facts, '', ()).label}: {n} of files that are there already, left out")
    return list(found.values())


def stacks_of(facts: SeriesFacts, slices: Sequence[Slice]) -> list[DicomStack]:
    """The stacks of a series: one, or one for each orientation, kind of image, b-value, echo and point in time."""
    parts: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for one in _without_copies(facts, slices):
        turned = tuple(round(v / ORIENTATION_TOLERANCE / 10) for v in one.orientation or ())
        parts[(turned, one.size, one.parted_by)].append(one)
    varying = [len({key[2][i] for key in parts}) > 1 for i in range(4)]  # type: ignore[index]
    labels = {
        key: " ".join(word for word, varies in zip(key[2], varying, strict=True) if varies and word)  # type: ignore[arg-type,call-overload]
        for key in parts
    }
    twice = {label for label, n in Counter(labels.values()).items() if n > 1}
    stacks = []
    for index, (key, found) in enumerate(parts.items()):
        label = f"{labels[key]} part {index + 1}".strip() if labels[key] in twice else labels[key]
        stacks.append(DicomStack(facts, label, tuple(found)))
    return stacks
