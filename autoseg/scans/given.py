"""What was given, as cases: the one place that knows numbered files, ordinary files, tables, BIDS and DICOM apart.

All that follows goes through the cases in the same way; a case whose channels are no image files yet says so in its
origin (:class:`autoseg.dataset.raw_layout.Origin`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.images_to_predict import (
    folder_entries,
    list_images,
    numbered_files,
    refuse_missing_images,
)
from autoseg.dataset.raw_layout import Case, Origin
from autoseg.dataset.unread_layouts import has_dicom, is_bids
from autoseg.errors import AutosegError, FaultsError, nearest_names
from autoseg.files import readable
from autoseg.messages import count_of, some_of
from autoseg.scans.case_table import TABLES, cases_of_table
from autoseg.scans.ordinary_files import case_of_channels, ordinary_cases, stem_of


@dataclass(frozen=True)
class GivenScans:
    """What the user gave.

    Attributes:
        path: a folder or a file; None where ``channels`` name the files.
        channels: name of a channel to a file, or in a BIDS dataset to the suffix and entities of its files.
        series: name of a channel to the DICOM series that it is.
        resample: put the channels of a case onto the grid of the first.
    """

    path: Path | None
    channels: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, str] = field(default_factory=dict)
    resample: bool = False


def cases_of(given: GivenScans, info: DatasetJson) -> list[Case]:
    """The cases to predict, sorted by name; those with a fault cannot be. What was taken for what is said.

    Args:
        given: by the user.
        info: what the model was trained on.

    Raises:
        AutosegError: there is nothing to predict, or an option does not go with what was given.
        FaultsError: no case can be predicted.
    """
    names = list(info.channel_names.values())
    _refuse_unknown_channels("--channels", given.channels, names)
    _refuse_unknown_channels("--series", given.series, names)
    cases = _sorted_out(given, info, names)
    faults = [case.fault for case in cases if case.fault]
    if cases and len(faults) == len(cases):
        title = f"{count_of(len(cases), 'case')}, of which none can be predicted"
        raise FaultsError(f"{readable(given.path or 'the files of --channels')}: {title}", faults)
    return [_resampled(case, names) for case in cases] if given.resample else cases


def _sorted_out(given: GivenScans, info: DatasetJson, names: Sequence[str]) -> list[Case]:
    """By what lies there."""
    path = given.path
    if path is None:
        return [case_of_channels(given.channels, names)]
    refuse_missing_images(path)
    if path.is_dir() and is_bids(path):
        from autoseg.scans.bids_layout import bids_cases

        _refuse_option(given, "--series", given.series, "a BIDS dataset")
        return bids_cases(path, names, given.channels)
    if _is_dicom(path):
        from autoseg.scans.dicom_cases import dicom_cases

        _refuse_option(given, "--channels", given.channels, "DICOM")
        return dicom_cases(path, names, given.series)
    _refuse_option(given, "--series", given.series, "files that are no DICOM")
    _refuse_option(given, "--channels", given.channels, "-i with files that are no BIDS dataset")
    if path.is_file() and path.suffix.lower() in TABLES:
        return cases_of_table(path, names)
    if path.is_dir() and len(names) == 1 and not numbered_files(path):
        return ordinary_cases(path) or list_images(path, info)
    return list_images(path, info)


def _is_dicom(path: Path) -> bool:
    """Whether DICOM was given: a file, or a folder without numbered files that holds some.

    Raises:
        AutosegError: a folder holds image files beside them, of which nobody says which are meant.
    """
    if not has_dicom(path) or (path.is_dir() and numbered_files(path)):
        return False
    images = (
        [entry for entry in folder_entries(path) if stem_of(entry) and entry.is_file()]
        if path.is_dir()
        else []
    )
    if images:
        raise AutosegError(
            "the folder holds DICOM and other image files",
            where=readable(path),
            found=f"{count_of(len(images), 'image file')}, such as {readable(images[0].name)}, beside DICOM",
            expected="one of both",
            fix="give a folder of one kind with -i, or name the files with --channels",
        )
    return True


def _refuse_unknown_channels(option: str, words: Mapping[str, str], names: Sequence[str]) -> None:
    for name in words:
        if name not in names:
            raise AutosegError(
                f"the model has no channel {name}",
                where=option,
                found=name,
                expected=", ".join(names),
                fix=nearest_names(name, names),
            )


def _refuse_option(given: GivenScans, option: str, words: Mapping[str, str], what: str) -> None:
    if words:
        raise AutosegError(
            f"{option} does not go with {what}",
            where=readable(given.path or ""),
            found=f"{option} {' '.join(f'{name}={word}' for name, word in words.items())}",
            fix=f"leave {option} out"
            if option == "--series"
            else "leave -i out, and name a file for each channel",
        )


def _resampled(case: Case, names: Sequence[str]) -> Case:
    """The case with the wish that its channels come onto one grid."""
    origin = case.origin or Origin(tuple(path.name for path in case.images))
    return replace(case, origin=replace(origin, resample=len(names) > 1))


def tell_origins(cases: Sequence[Case], names: Sequence[str]) -> None:
    """Say what was taken for which channel: for each case where the headers decided it, else by an example."""
    told = [case for case in cases if case.origin is not None and case.fault is None]
    for case in told:
        if case.origin and any(case.origin.series):
            pairs = zip(names, case.origin.channels, strict=True)
            messages.info(f"{case.name}: " + "; ".join(f"{name} is {text}" for name, text in pairs))
    plain = [case for case in told if case.origin and not any(case.origin.series)]
    if plain and plain[0].origin:
        first = plain[0]
        pairs = zip(names, first.origin.channels if first.origin else (), strict=True)
        taken = ", ".join(f"{name} from {text}" for name, text in pairs)
        messages.info(
            f"{count_of(len(plain), 'case')}: {some_of([c.name for c in plain])}; in {first.name} {taken}"
        )
