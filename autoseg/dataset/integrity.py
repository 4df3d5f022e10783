"""What can be wrong with a raw dataset. All faults of all cases are collected, never the first one only.

A case is checked on the pass that measures it (:mod:`autoseg.dataset.examine`), so each file is read once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import Geometry, ImageFile, as_labels, differences, read_image
from autoseg.dataset.intensities import refuse_beyond_range
from autoseg.dataset.raw_layout import IMAGES, MASKS, Case, RawDataset, lists_its_cases, split_name
from autoseg.errors import AutosegError, Fault
from autoseg.files import hash_json, readable
from autoseg.messages import count_of, some_of
from autoseg.orientation import Turn, turn_into


@dataclass(frozen=True)
class Loaded:
    """A case without faults.

    Attributes:
        name: of the case.
        image: float32 ``[c, z, y, x]``, in the orientation that was asked for.
        mask: integers ``[z, y, x]``, read-only, turned likewise.
        geometry: of these arrays.
        content_hash: over the bytes of its files, whatever they are called.
        channel_hashes: for each channel, over its shape and pixels, whatever the file format and its orientation.
        orientation: of the files.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    geometry: Geometry
    content_hash: str
    channel_hashes: list[str]
    orientation: str


def hash_case(file_hashes: Sequence[str]) -> str:
    """The content hash of a case from the SHA-256 of its files: the channels in order, then the mask."""
    return hash_json(list(file_hashes))


# --------------------------------------------------------------------------------------------- the file names


def check_layout(raw: RawDataset) -> list[Fault]:
    """Faults that show in the names of the files alone. Unknown files are warned of."""
    faults = [fault for case in raw.cases for fault in _missing_files(case, raw.info)]
    if not lists_its_cases(raw.info):
        faults += _further_images(raw)
        _warn_of_unknown_masks(raw)
    if len(raw.cases) != raw.info.numTraining:
        fix = "correct numTraining, or find the missing cases"
        found, expected = count_of(len(raw.cases), "case"), f"numTraining: {raw.info.numTraining}"
        faults.append(Fault("dataset.json", "there are other cases than it says", found, expected, fix))
    return faults


def _missing_files(case: Case, info: DatasetJson) -> list[Fault]:
    expected = [
        f"{path.name} ({name})" for path, name in zip(case.images, info.channel_names.values(), strict=False)
    ]
    # of a dangling link its reading tells
    there = [path.is_file() or path.is_symlink() for path in case.images]
    faults = []
    if not any(there):
        fix = "add the images, or remove the mask"
        faults.append(Fault(case.name, "a mask without images", _name(case.mask), ", ".join(expected), fix))
    elif not all(there) or len(there) != len(info.channel_names):
        found = ", ".join(path.name for path, is_there in zip(case.images, there, strict=True) if is_there)
        missing = len(info.channel_names) - sum(there)
        problem = f"{missing} of {len(info.channel_names)} channels missing"
        faults.append(
            Fault(case.name, problem, found, ", ".join(expected), "add the file, or remove the case")
        )
    if case.mask is None or not (case.mask.is_file() or case.mask.is_symlink()):
        wanted = _name(case.mask) if case.mask else f"{MASKS}/{case.name}{info.file_ending}"
        faults.append(
            Fault(case.name, "images without a mask", "no mask", wanted, "add it, or remove the images")
        )
    return faults


def _further_images(raw: RawDataset) -> list[Fault]:
    """Files with a channel number that dataset.json does not know are faults, all else is warned of."""
    n_channels, faults = len(raw.info.channel_names), []
    for entry in sorted((raw.folder / IMAGES).iterdir()):
        parts = split_name(entry.name, (raw.info.file_ending,))
        if entry.name.startswith("."):
            continue
        if parts is None or parts[1] is None or not (entry.is_file() or entry.is_symlink()):
            _warn_of_unknown(entry, f"expected CASE_0000{raw.info.file_ending}")
        elif parts[1] >= n_channels:
            expected = f"{count_of(n_channels, 'channel')}, _0000 to _{n_channels - 1:04d}"
            fix = "name the channel in dataset.json, or remove the file"
            faults.append(
                Fault(parts[0], "a channel that dataset.json does not name", entry.name, expected, fix)
            )
    return faults


def _warn_of_unknown_masks(raw: RawDataset) -> None:
    known = {case.mask.name for case in raw.cases if case.mask}
    for entry in sorted((raw.folder / MASKS).iterdir()):
        if entry.name not in known and not entry.name.startswith("."):
            _warn_of_unknown(entry, f"expected CASE{raw.info.file_ending}")


def _warn_of_unknown(entry: Path, expected: str) -> None:
    messages.warn(f"{_name(entry)} is not used: {expected}")


def _name(path: Path | None) -> str:
    """A file as the user knows it: with its folder, without the way there."""
    return readable(f"{path.parent.name}/{path.name}") if path else "no file"


# ------------------------------------------------------------------------------------------------- the pixels


def check_case(
    case: Case, info: DatasetJson, orientation: str | None = None
) -> tuple[Loaded | None, list[Fault]]:
    """Read a case and check everything about it.

    Args:
        case: its files.
        info: dataset.json.
        orientation: that the case is turned into; None leaves it as it is stored.

    Returns:
        The case, or None when it has faults or when files are missing; and its faults. Missing files are left
        to :func:`check_layout`.
    """
    reading = _Reading(case, orientation)
    for channel, path in enumerate(case.images):
        if path.is_file() or path.is_symlink():
            reading.add_channel(channel, path)
    if case.mask is not None and (case.mask.is_file() or case.mask.is_symlink()):
        reading.add_mask(case.mask, info)
    return reading.result(), reading.faults


class _Reading:
    """A case while it is read: what is there so far and what was wrong with it."""

    def __init__(self, case: Case, orientation: str | None) -> None:
        self.case, self.orientation = case, orientation
        self.faults: list[Fault] = []
        self.first: tuple[Path, Geometry] | None = None
        self.image: np.ndarray | None = None
        self.mask: np.ndarray | None = None
        self.file_hashes: list[str] = []
        self.channel_hashes: list[str] = []

    def add_channel(self, channel: int, path: Path) -> None:
        """Read and check one channel."""
        file = self._read(path)
        if file is None or not self._fits(path, file.geometry):
            return
        self.faults += intensity_faults(_name(path), file.pixels)
        pixels = self.turn.view(file.pixels)
        if self.image is None:
            self.image = np.empty((len(self.case.images), *pixels.shape), np.float32)
        with np.errstate(over="ignore"):  # such values are among the faults
            self.image[channel] = pixels
        shape = np.asarray(pixels.shape, np.int64)
        self.channel_hashes.append(
            hashlib.sha256(shape.tobytes() + self.image[channel].data).hexdigest()[:32]
        )

    def add_mask(self, path: Path, info: DatasetJson) -> None:
        """Read and check the mask."""
        file = self._read(path, is_mask=True)
        if file is None:
            return
        fits = self._fits(path, file.geometry)
        try:
            mask = as_labels(file.pixels, where=_name(path))
        except AutosegError as error:
            self.faults.append(error.fault)
            return
        self.faults += _label_faults(path, mask, info)
        self.mask = self.turn.array(mask) if fits else None

    @property
    def turn(self) -> Turn:
        """Of all files of the case: that of its first image."""
        return turn_into(self.orientation, self.first[1]) if self.first else Turn()

    def result(self) -> Loaded | None:
        """The case, when it is whole and without faults."""
        whole = len(self.channel_hashes) == len(self.case.images) and self.mask is not None
        if self.faults or not whole or self.first is None or self.image is None or self.mask is None:
            return None
        stored = self.first[1]
        return Loaded(
            self.case.name,
            self.image,
            self.mask,
            self.turn.geometry(stored),
            hash_case(self.file_hashes),
            list(self.channel_hashes),
            stored.orientation,
        )

    def _read(self, path: Path, *, is_mask: bool = False) -> ImageFile | None:
        try:
            file = read_image(path, is_mask=is_mask)
        except AutosegError as error:
            fault = error.fault
            self.faults.append(Fault(_name(path), fault.problem, fault.found, fault.expected, fault.fix))
            return None
        self.file_hashes.append(file.sha256)
        return file

    def _fits(self, path: Path, geometry: Geometry) -> bool:
        """Whether a file lies on the grid of the first channel."""
        if self.first is None:
            self.first = path, geometry
            return True
        unlike = differences(self.first[1], geometry)
        self.faults += [
            Fault(
                _name(path),
                f"its {what} is not that of {self.first[0].name}",
                found,
                expected,
                "resample it to that grid, or correct the header that is wrong",
            )
            for what, found, expected in unlike
        ]
        return not any(what == "shape" for what, *_ in unlike)


def intensity_faults(where: str, pixels: np.ndarray) -> list[Fault]:
    """What no network can be shown, of one channel ``[z, y, x]`` that is called ``where``."""
    low, high = pixels.min(), pixels.max()  # a NaN makes both NaN
    try:
        refuse_beyond_range(pixels, where=where)
    except AutosegError as error:
        return [error.fault]
    if not (np.isfinite(low) and np.isfinite(high)):
        n_nan, n_inf = int(np.isnan(pixels).sum()), int(np.isinf(pixels).sum())
        found = f"{count_of(n_nan, 'voxel')} NaN, {n_inf} Inf, of {pixels.size}"
        fix = "replace these values (outside the brain by 0), or remove the case"
        return [Fault(where, "holds NaN or Inf", found, "finite intensities", fix)]
    if low == high:
        fix = "export the channel again, or remove the case"
        return [Fault(where, "a constant image", f"every voxel is {low:g}", "an image with contrast", fix)]
    return []


def _label_faults(path: Path, mask: np.ndarray, info: DatasetJson) -> list[Fault]:
    known = info.label_set.known_values
    if mask.size == 0 or (known[0] <= mask.min() and mask.max() <= known[-1]):
        return []  # the known values have no gaps
    values, counts = np.unique(mask, return_counts=True)
    unknown = [
        f"{v} ({count_of(int(n), 'voxel')})" for v, n in zip(values, counts, strict=True) if v not in known
    ]
    found = some_of(unknown)
    names = ", ".join(f"{value} {name}" for name, value in info.labels.items())
    fix = "correct the mask, or name the label in dataset.json"
    if values.tolist() in ([255], [0, 255]) and known == (0, 1):
        fix = (
            'write 1 instead of 255 if it is the lesion; write 2, and "ignore": 2 in dataset.json, if nothing is to be '
            "learned from these voxels"
        )
    return [Fault(_name(path), "label values that dataset.json does not name", found, names, fix)]


# ------------------------------------------------------------------------------------------ across the cases


def duplicate_faults(channel_hashes: Mapping[str, Sequence[str]], raw: RawDataset) -> list[Fault]:
    """Images that are there more than once, within a case or in two cases.

    Args:
        channel_hashes: by case (see :class:`Loaded`).
        raw: for the names of the files.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for case in raw.cases:
        for path, key in zip(case.images, channel_hashes.get(case.name, ()), strict=False):
            files[key].append(_name(path))
    fix = "remove one; a copy that trains and validates makes scores look better than they are"
    return [
        Fault(
            same[0],
            "the same image more than once",
            ", ".join(same[1:]),
            "different pixels in every file",
            fix,
        )
        for same in files.values()
        if len(same) > 1
    ]


def emptiness_faults(foreground_voxels: Iterable[int]) -> list[Fault]:
    """The fault of a dataset without a single lesion voxel; cases without a lesion are fine."""
    counts = list(foreground_voxels)
    if not counts or any(counts):
        return []
    found, expected = f"{count_of(len(counts), 'mask')}, all empty", "at least one case with a lesion"
    return [
        Fault("all cases", "no lesion anywhere", found, expected, "check that the masks are the right files")
    ]
