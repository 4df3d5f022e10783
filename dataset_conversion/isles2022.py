"""The converter ``isles2022``: the public training cases of the ISLES'22 challenge.

Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging stroke lesion segmentation dataset",
Scientific Data 9:762 (2022): 250 cases with DWI, ADC and FLAIR, and a mask drawn on the DWI. There are two releases.
That of Zenodo has the folders ``dwi`` and ``anat`` in each session and writes FLAIR in capitals; that of the challenge
has a folder ``rawdata`` and all files of a session side by side. Both are read, and so is a mixture.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import messages
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.messages import count_of
from autoseg.plugins.converter import Conversion, Converter, SourceCase, Volume

LAYOUT = """as on Zenodo (ISLES-2022):
  ROOT/sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_dwi.nii.gz
  ROOT/sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_adc.nii.gz
  ROOT/sub-strokecase0001/ses-0001/anat/sub-strokecase0001_ses-0001_FLAIR.nii.gz
as from the challenge (dataset-ISLES22^public^unzipped^version):
  ROOT/rawdata/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_dwi.nii.gz, _adc, _flair
both:
  ROOT/derivatives/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_msk.nii.gz  0 background, 1 lesion
ROOT may also be the folder around it, as archives unpack to."""

REFERENCE = "Hernandez Petzsche et al., Scientific Data 9:762 (2022), doi:10.1038/s41597-022-01875-5"

CHANNELS = ("dwi", "adc", "flair")
MASK = "msk"
ELSEWHERE = "flair"
"""The channel with a grid of its own; ADC and mask lie on that of the DWI."""

RAWDATA, DERIVATIVES, PARTICIPANTS = "rawdata", "derivatives", "participants.tsv"
PLACES = (".", "dwi", "anat")
"""Where in a session images may lie."""
ENDINGS = (".nii.gz", ".nii")
FROM_SIDECAR = {
    "manufacturer": "Manufacturer",
    "scanner": "ManufacturerModelName",
    "field_strength_t": "MagneticFieldStrength",
}
"""Columns of groups.csv from the JSON file beside the DWI."""
FROM_PARTICIPANTS = ("sex", "age")
NOT_GIVEN = ("", "n/a")


@dataclass(frozen=True)
class Download:
    """Where the parts of a release lie.

    Attributes:
        root: as the user gave it.
        base: folder of participants.tsv.
        cases: folder of the cases.
        masks: folder of the masks.
    """

    root: Path
    base: Path
    cases: Path
    masks: Path

    def shown(self, path: Path) -> str:
        """A path as the user knows it: below the root."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Subject:
    """One case.

    Attributes:
        name: of its folder.
        files: path for each of the asked-for channels and for the mask.
        unused: endings of further NIfTI files, such as ``flair_registered.nii.gz``.
    """

    name: str
    files: Mapping[str, Path]
    unused: tuple[str, ...] = ()


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--channels",
        nargs="+",
        type=str.lower,
        choices=CHANNELS,
        default=["dwi"],
        metavar="CHANNEL",
        help="of dwi, adc, flair, in the order of the dataset's channels (default: dwi). FLAIR has a grid of its own "
        "and is resampled onto that of the DWI: linearly, by the headers, without registration",
    )


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the cases below ``root``.

    Raises:
        AutosegError: no such folder, no case in it, no masks, channels that do not go together.
        FaultsError: cases that are incomplete or not understood, all of them.
    """
    channels = _checked(options.channels)
    download = find_download(root)
    subjects = find_subjects(download, channels)
    notes = {"reference": REFERENCE}
    if ELSEWHERE in channels:
        notes["resampled"] = "FLAIR onto the grid of the DWI, linearly, by the headers, without registration"
        messages.info(f"resampled: {notes['resampled']}")
    for ending, count in sorted(Counter(e for subject in subjects for e in subject.unused).items()):
        messages.warn(f"{ending} is not used; {count_of(count, 'case has', 'cases have')} it")
    groups = _groups(download, subjects)
    cases = (_case(subject, channels, groups[subject.name]) for subject in subjects)
    return Conversion(
        root=root,
        dataset="ISLES2022",
        channel_names=tuple(channel.upper() for channel in channels),
        labels={"background": 0, "lesion": 1},
        cases=tuple(cases),
        notes=notes,
    )


def _checked(channels: Sequence[str]) -> Sequence[str]:
    if len(set(channels)) < len(channels):
        fix = "name each channel once, in the order of the dataset's channels"
        raise AutosegError("--channels names a channel twice", found=" ".join(channels), fix=fix)
    if tuple(channels) == (ELSEWHERE,):
        raise AutosegError(
            "FLAIR alone cannot be converted: the masks are drawn on the DWI, whose grid is another",
            found="--channels flair",
            expected="dwi or adc among the channels; FLAIR is then resampled onto their grid",
            fix="for example --channels dwi flair",
        )
    return channels


def _case(subject: Subject, channels: Sequence[str], groups: Mapping[str, str]) -> SourceCase:
    images = (Volume(subject.files[channel], resample=channel == ELSEWHERE) for channel in channels)
    return SourceCase(subject.name, tuple(images), Volume(subject.files[MASK]), groups=groups)


# --------------------------------------------------------------------------------------------- what is there


def find_download(root: Path) -> Download:
    """The folders of cases and masks: at the root, or in one folder of it.

    Raises:
        AutosegError: no such folder; no cases, cases in several places, or no masks.
    """
    if not root.is_dir():
        raise AutosegError("there is no such folder", where=str(root), fix="check the path")
    places = _places_of_cases([root]) or _places_of_cases(_folders(root))
    if not places:
        raise AutosegError(
            "there is no case in the layout of ISLES 2022: no sub-*/ses-*",
            where=str(root),
            found=", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "an empty folder",
            expected=f"sub-strokecase0001, sub-strokecase0002, ... there or in {RAWDATA}, and {DERIVATIVES}",
            fix="unpack the archive, and give the folder that it unpacks to",
        )
    if len(places) > 1:
        raise AutosegError(
            "cases lie in more than one folder",
            where=str(root),
            found=", ".join(cases.relative_to(root).as_posix() for _, cases in places),
            expected="one release",
            fix="give the folder of one release",
        )
    ((base, cases),) = places
    if not (base / DERIVATIVES).is_dir():
        inside = root.name in (RAWDATA, DERIVATIVES)
        raise AutosegError(
            "there are cases but no masks",
            where=str(base),
            found=f"no folder {DERIVATIVES}",
            expected=f"{DERIVATIVES}/sub-strokecase0001/ses-0001/..._{MASK}{ENDINGS[0]}",
            fix=f"give the folder above {root.name}" if inside else "unpack the whole archive",
        )
    return Download(root, base, cases, base / DERIVATIVES)


def _places_of_cases(bases: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of a base and the folder of cases in it."""
    pairs = ((base, cases) for base in bases for cases in (base, base / RAWDATA))
    return [(base, cases) for base, cases in pairs if _folders(cases, "sub-")]


def _folders(folder: Path, start: str = "") -> list[Path]:
    """Folders in a folder, which may be missing; not that of the masks, nor what archives of macOS add."""
    if not folder.is_dir():
        return []
    found = (entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith(start))
    return sorted(f for f in found if not f.name.startswith((".", "__MACOSX")) and f.name != DERIVATIVES)


def find_subjects(download: Download, channels: Sequence[str]) -> list[Subject]:
    """Every case, in order of names.

    Args:
        download: of :func:`find_download`.
        channels: that are asked for; others need not be there.

    Raises:
        FaultsError: cases without or with several sessions, with files missing, twice or of another case; masks
            without case.
    """
    faults: list[Fault] = []
    folders = _folders(download.cases, "sub-")
    subjects = [_subject(folder, download, channels, faults) for folder in folders]
    names = {folder.name for folder in folders}
    for folder in _folders(download.masks, "sub-"):
        if folder.name not in names:
            expected = download.shown(download.cases / folder.name)
            fix = "add the images, or move this folder out of ROOT"
            faults.append(Fault(download.shown(folder), "a mask without images", "", expected, fix))
    if faults:
        raise FaultsError(
            f"{download.root}: {count_of(len(faults), 'fault')} in {count_of(len(folders), 'case')}", faults
        )
    return [subject for subject in subjects if subject]


def _subject(
    folder: Path, download: Download, channels: Sequence[str], faults: list[Fault]
) -> Subject | None:
    """One case; None and further faults where it is not as it should be."""
    session = _only_session(folder, download, faults)
    if session is None:
        return None
    stem, n_faults = f"{folder.name}_{session}_", len(faults)
    images = [path for place in PLACES for path in _images(folder / session / place)]
    masks = _images(download.masks / folder.name / session)
    files = {channel: [path for path in images if _kind(path) == channel] for channel in channels}
    files[MASK] = [path for path in masks if _kind(path) == MASK]
    missing = [kind for kind, paths in files.items() if not paths]
    if missing:
        found = ", ".join(path.name.replace(stem, "..._", 1) for path in (*images, *masks)) or "no image"
        problem = "incomplete: no " + ", no ".join("mask" if k == MASK else k.upper() for k in missing)
        expected = ", ".join(f"..._{kind}{ENDINGS[0]}" for kind in missing)
        fix = "complete it from the archive, or move the case out of ROOT"
        faults.append(Fault(download.shown(folder), problem, found, expected, fix))
    for paths in files.values():
        faults += _file_faults(paths, stem, download)
    if len(faults) > n_faults:
        return None
    others = [path for path in images if _kind(path) not in CHANNELS]
    others += [path for path in masks if _kind(path) != MASK]
    unused = tuple(path.name.removeprefix(stem) for path in others)
    return Subject(folder.name, {kind: paths[0] for kind, paths in files.items()}, unused)


def _only_session(folder: Path, download: Download, faults: list[Fault]) -> str | None:
    """Name of the one session that images and masks of a case have; None and a fault where there is not one."""
    places = (folder, download.masks / folder.name)
    sessions = sorted({session.name for place in places for session in _folders(place, "ses-")})
    if len(sessions) == 1:
        return sessions[0]
    problem, fix = "no session", "complete the case, or move it out of ROOT"
    if sessions:
        problem, fix = "more than one session", "move those that are not to be converted out of ROOT"
    faults.append(Fault(download.shown(folder), problem, ", ".join(sessions), "one, such as ses-0001", fix))
    return None


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.name.endswith(ENDINGS) and not f.name.startswith("."))


def _kind(path: Path) -> str:
    """What a file is by the last part of its name, in small letters: ``dwi``, ``adc``, ``flair``, ``msk``, others."""
    return path.name.partition(".")[0].rpartition("_")[2].casefold()


def _file_faults(paths: Sequence[Path], stem: str, download: Download) -> list[Fault]:
    """What is wrong with the files that a case has for one channel or for its mask."""
    faults, fix = [], "put it where it belongs, or rename it"
    for path in paths:
        if not path.name.startswith(stem):
            problem = "its name is not that of its case and session"
            faults.append(Fault(download.shown(path), problem, path.name, f"{stem}...", fix))
    if len(paths) > 1:
        where, *others = (download.shown(path) for path in paths)
        fix = "move what is not to be converted out of ROOT"
        faults.append(Fault(where, "there is another for the same", ", ".join(others), "one file", fix))
    return faults


# ------------------------------------------------------------------------------------------------- the groups


def _groups(download: Download, subjects: Sequence[Subject]) -> dict[str, dict[str, str]]:
    """Case to column to value, of what the release says of scanner and patient; columns without any value go."""
    people = _participants(download)
    rows = {s.name: {**_sidecar(s, download), **people.get(s.name, {})} for s in subjects}
    columns = [c for c in (*FROM_SIDECAR, *FROM_PARTICIPANTS) if any(row.get(c) for row in rows.values())]
    return {name: {column: row.get(column, "") for column in columns} for name, row in rows.items()}


def _sidecar(subject: Subject, download: Download) -> dict[str, str]:
    """The scanner, from the JSON file beside the DWI, or beside the first channel without it; some cases have none."""
    image = subject.files.get("dwi") or next(iter(subject.files.values()))
    path = image.with_name(image.name.partition(".")[0] + ".json")
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        messages.warn(f"{download.shown(path)} is not used: it cannot be read ({error})")
        return {}
    if not isinstance(content, dict):
        return {}
    values = {column: content.get(key) for column, key in FROM_SIDECAR.items()}
    return {
        column: f"{value:g}" if isinstance(value, float) else str(value).strip()
        for column, value in values.items()
        if value is not None
    }


def _participants(download: Download) -> dict[str, dict[str, str]]:
    """Sex and age, from participants.tsv where it is there and has such columns."""
    path = download.base / PARTICIPANTS
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        messages.warn(f"{PARTICIPANTS} is not used: it cannot be read ({error})")
        return {}
    if rows and "participant_id" not in rows[0]:
        messages.warn(f"{PARTICIPANTS} is not used: it has no column participant_id")
        return {}
    known = {}
    for row in rows:
        values = {column: (row.get(column) or "").strip() for column in FROM_PARTICIPANTS}
        known[row["participant_id"]] = {c: v for c, v in values.items() if v not in NOT_GIVEN}
    return known


CONVERTER = Converter(
    name="isles2022",
    summary="stroke DWI, ADC, FLAIR of ISLES 2022 (BIDS-like), from Zenodo or the challenge",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
