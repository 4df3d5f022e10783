"""The raw layout, nnU-Net's: ``dataset.json``, ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from autoseg.dataset.dataset_json import FILE_ENDINGS, DatasetJson, read_dataset_json
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import is_utf8, readable
from autoseg.messages import count_of
from autoseg.names import EXPECTED, is_name, refuse_bad_name, shown

if TYPE_CHECKING:
    import numpy as np

    from autoseg.dataset.image_geometry import Geometry

IMAGES, MASKS = "imagesTr", "labelsTr"


class Readable(Protocol):
    """What a channel is made from where it is no image file, such as a DICOM series."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, in the order of the slices."""

    def read(self) -> tuple[np.ndarray, Geometry]:
        """The image ``[z, y, x]`` and its geometry."""


@dataclass(frozen=True)
class Origin:
    """Where the channels of a case come from, when the names of its files do not say it all.

    Attributes:
        channels: for each channel what was taken for it, for messages and the record.
        series: for each channel what it is made from; None for an image file.
        resample: put the channels onto the grid of the first.
        entities: of BIDS, such as ``sub`` and ``ses``.
        root: the folder that was given, to which files are named.
        beside: the folder of the first file that was given, where a mask of the plan may lie, when the images are made.
    """

    channels: tuple[str, ...]
    series: tuple[Readable | None, ...] = ()
    resample: bool = False
    entities: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    beside: Path | None = None


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes:
        name: what its files have in common.
        images: one path for each channel, in order; whether they exist is for the integrity check.
        mask: None when there is none.
        fault: why a case cannot be predicted, where the names of its files say so already.
        origin: where its channels come from, when there is more to say; their files may have to be made first then
            (:func:`autoseg.scans.staging.staged`), and ``images`` are the first of those that were given.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None
    fault: Fault | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class RawDataset:
    """A raw dataset as found on disk; nothing but dataset.json has been opened.

    Attributes:
        folder: ``.../DatasetNNN_Name``.
        name: of the folder.
        info: dataset.json.
        cases: every case that has an image or a mask, sorted by name.
    """

    folder: Path
    name: str
    info: DatasetJson
    cases: tuple[Case, ...]


def load_raw(folder: Path | str) -> RawDataset:
    """Read dataset.json and list the cases.

    Raises:
        AutosegError: the folder, dataset.json or imagesTr is missing, or there is no case.
        FaultsError: dataset.json does not fit its schema; names of cases that lead elsewhere.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AutosegError("the folder of the dataset is missing", where=str(folder), fix="check the path")
    if not (folder / "dataset.json").is_file():
        raise AutosegError(
            "there is no dataset.json",
            where=str(folder),
            found=", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "an empty folder",
            expected="dataset.json, imagesTr and labelsTr",
            fix="write one that names channels and labels; docs/formats/dataset_json.md has an example",
        )
    info = read_dataset_json(folder / "dataset.json")
    cases = _listed_cases(folder, info) or _found_cases(folder, info)
    if not cases:
        raise _no_case(folder / IMAGES, info)
    refuse_bad_name("dataset", folder.name, where=str(folder), fix="rename the folder")
    refuse_bad_names(folder, (case.name for case in cases))
    return RawDataset(folder, folder.name, info, tuple(cases))


def refuse_bad_names(where: Path, names: Iterable[str]) -> None:
    """Refuse cases whose names cannot be those of files that are made for them.

    Args:
        where: the folder that names them, for the message.
        names: of the cases.

    Raises:
        FaultsError: some are none.
    """
    faults = [fault for name in names if (fault := name_fault(name))]
    if faults:
        raise FaultsError(f"{where}: {len(faults)} names of cases cannot be used", faults)


def name_fault(name: str) -> Fault | None:
    """The fault of a name that no case can have; None for a good one."""
    if not is_utf8(name):
        found, fix = "bytes of another encoding", "rename its files, in letters without accents for example"
        return Fault(readable(name), "the name of its files is not UTF-8", found, "a name in UTF-8", fix)
    fix = "rename its files, and the case where dataset.json lists it"
    return None if is_name(name) else Fault(shown(name), "cannot name a case", "", EXPECTED, fix)


def truth_folder(raw: RawDataset) -> Path:
    """Where scores find the true masks of a raw dataset, as ``-g`` of ``autoseg_evaluate`` takes it.

    labelsTr; the dataset itself where dataset.json lists the files of its cases, see :func:`listed_cases`.
    """
    return raw.folder if lists_its_cases(raw.info) else raw.folder / MASKS


def lists_its_cases(info: DatasetJson) -> bool:
    """Whether dataset.json itself lists the files of its cases under ``dataset``, as nnU-Net allows.

    An empty list lists none: the cases are then those of the folders, as without it.
    """
    listed = (info.model_extra or {}).get("dataset")
    return isinstance(listed, dict) and bool(listed)


def listed_cases(folder: Path) -> dict[str, Case]:
    """The cases of a raw dataset whose dataset.json lists their files, by name; empty for every other folder.

    Raises:
        AutosegError: dataset.json cannot be read.
        FaultsError: it does not fit its schema.
    """
    path = Path(folder) / "dataset.json"
    cases = _listed_cases(Path(folder), read_dataset_json(path)) if path.is_file() else []
    return {case.name: case for case in cases}


def refuse_taken_number(target: Path, option: str) -> None:
    """Refuse to give one number to two datasets.

    Args:
        target: ``RAW/DatasetNNN_Name``, which may be there itself.
        option: of the command, by which the user chooses another number.

    Raises:
        AutosegError: another dataset beside the target has its number.
    """
    number = re.match(r"Dataset0*(\d+)_", target.name)
    if number is None or not target.parent.is_dir():
        return
    for entry in sorted(target.parent.iterdir()):
        if re.match(rf"Dataset0*{number[1]}_", entry.name) and entry.name != target.name:
            raise AutosegError(
                f"the number {number[1]} is taken",
                where=str(target.parent),
                found=entry.name,
                expected="one dataset for each number",
                fix=f"choose another number with {option}",
            )


def split_name(file_name: str, endings: tuple[str, ...] = FILE_ENDINGS) -> tuple[str, int | None, str] | None:
    """``CASE_0001.nii.gz`` as case, channel and ending; the channel is None without ``_NNNN``.

    Returns None for hidden files and for other endings.
    """
    ending = next((e for e in endings if file_name.endswith(e)), None)
    if ending is None or file_name.startswith("."):
        return None
    stem = file_name.removesuffix(ending)
    numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (numbered[1], int(numbered[2]), ending) if numbered else (stem, None, ending)


def _found_cases(folder: Path, info: DatasetJson) -> list[Case]:
    images, masks = folder / IMAGES, folder / MASKS
    for needed in (images, masks):
        if not needed.is_dir():
            raise AutosegError(
                f"the folder {needed.name} is missing",
                where=str(folder),
                found=", ".join(sorted(entry.name for entry in folder.iterdir())[:8]),
                expected="imagesTr with the images and labelsTr with the masks",
                fix="move the training images into imagesTr and their masks into labelsTr",
            )
    ending = info.file_ending
    parts = (split_name(entry.name, (ending,)) for entry in images.iterdir())
    with_image = {part[0] for part in parts if part and part[1] is not None}
    hidden = tuple(entry.name for entry in masks.iterdir() if entry.name.startswith("."))
    with_mask = {
        entry.name.removesuffix(ending)
        for entry in masks.iterdir()
        if entry.name.endswith(ending) and entry.name not in hidden
    }
    n_channels = len(info.channel_names)
    return [
        Case(
            name=name,
            images=tuple(images / f"{name}_{channel:04d}{ending}" for channel in range(n_channels)),
            mask=masks / f"{name}{ending}" if name in with_mask else None,
        )
        for name in sorted(with_image | with_mask)
    ]


def _listed_cases(folder: Path, info: DatasetJson) -> list[Case]:
    """The cases that dataset.json lists, see :func:`lists_its_cases`."""
    if not lists_its_cases(info):
        return []
    faults, cases = [], []
    for name, files in sorted((info.model_extra or {})["dataset"].items()):
        try:
            images = tuple(folder / path for path in files["images"])
            cases.append(Case(name, images, folder / files["label"]))
        except (KeyError, TypeError):
            expected = '{"images": [one path per channel], "label": path}'
            faults.append(Fault(f"dataset.{name}", "does not name its files", repr(files)[:60], expected))
    if faults:
        raise FaultsError(
            f"{folder / 'dataset.json'}: {count_of(len(faults), 'entry does not fit', 'entries do not fit')}",
            faults,
        )
    return cases


def _no_case(images: Path, info: DatasetJson) -> AutosegError:
    files = sorted(entry.name for entry in images.iterdir() if not entry.name.startswith("."))
    found = f"{count_of(len(files), 'file')}, such as {files[0]}" if files else "an empty folder"
    return AutosegError(
        "there is no case",
        where=str(images),
        found=found,
        expected=f"names such as CASE_0000{info.file_ending}, one file for each channel",
        fix="rename the files, or correct file_ending in dataset.json",
    )
