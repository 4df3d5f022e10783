"""A BIDS dataset, raw or derivatives: files by the entities of their names, sessions as cases, suffixes as channels.

Names are those of the BIDS specification: ``sub-01_ses-1_acq-3d_FLAIR.nii.gz``. Nothing but names is looked at, so a
dataset need not be valid. Several files that could be one channel are never chosen from: the message says how to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg import messages
from autoseg.dataset.raw_layout import Case, Origin, name_fault
from autoseg.errors import AutosegError, Fault
from autoseg.files import files_below, readable
from autoseg.messages import count_of, some_of
from autoseg.scans.kinds import kind_of_name

_NAME = re.compile(r"(?P<entities>sub-[^_]+(?:_[a-zA-Z]+-[^_]+)*)_(?P<suffix>[a-zA-Z0-9]+)\.nii(?:\.gz)?")
MASKS = ("mask", "dseg", "probseg", "msk")
"""Suffixes of what is no scan."""
OF_CASE = ("sub", "ses")
NO_SCANS = ("derivatives", "sourcedata", "code")
"""Folders of a dataset that hold no scans of it."""
RUN = "run"


@dataclass(frozen=True)
class BidsFile:
    """An image of a BIDS dataset.

    Attributes:
        path: of the file.
        entities: such as ``{"sub": "01", "ses": "1"}``, in the order of the name.
        suffix: such as ``T1w``.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def kind(self) -> str:
        """The kind of sequence; T1 with a contrast agent (``ce-``) is its own."""
        kind = kind_of_name(self.suffix)
        return "t1c" if kind == "t1" and "ce" in self.entities else kind

    @property
    def short(self) -> str:
        """The name without the entities of its case: ``acq-3d_FLAIR``."""
        return "_".join([*(f"{key}-{value}" for key, value in self.own_entities.items()), self.suffix])

    @property
    def own_entities(self) -> dict[str, str]:
        """The entities that are not those of its case."""
        return {key: value for key, value in self.entities.items() if key not in OF_CASE}


@dataclass(frozen=True)
class BidsPattern:
    """Which files are meant: ``FLAIR``, ``acq-3d_FLAIR``, ``desc-preproc_T1w``.

    Attributes:
        entities: that a file must have, with these values.
        suffix: None takes any.
    """

    entities: Mapping[str, str] = field(default_factory=dict)
    suffix: str | None = None

    @classmethod
    def parse(cls, text: str) -> BidsPattern:
        """From entities and a suffix, set apart by ``_``.

        Raises:
            AutosegError: it has more than one suffix.
        """
        parts = re.sub(r"\.nii(\.gz)?$", "", text).split("_")
        pairs = [part.partition("-") for part in parts if part]
        suffixes = [key for key, dash, _ in pairs if not dash]
        if len(suffixes) > 1:
            raise AutosegError(
                "more than one suffix",
                where=text,
                found=", ".join(suffixes),
                expected="entities and one suffix, such as acq-3d_T1w",
                fix="write the name of the file from its first entity on, without sub- and ses-",
            )
        return cls({key: value for key, dash, value in pairs if dash}, suffixes[-1] if suffixes else None)

    def fits(self, file: BidsFile) -> bool:
        """Whether a file is meant."""
        same = all(file.entities.get(key) == value for key, value in self.entities.items())
        return same and self.suffix in (None, file.suffix)

    def among(self, files: Sequence[BidsFile]) -> list[BidsFile]:
        """The files of one case that are meant: the one that has these entities and no others, else all that fit."""
        found = [file for file in files if self.fits(file)]
        own = {key: value for key, value in self.entities.items() if key not in OF_CASE}
        return [file for file in found if file.own_entities == own and self.suffix == file.suffix] or found


def bids_files(folder: Path) -> list[BidsFile]:
    """All images with a BIDS name below a folder, but those in ``derivatives`` and ``sourcedata`` and hidden ones.

    Raises:
        AutosegError: there is none.
    """
    found = []
    for path in files_below(folder, NO_SCANS):
        name = _NAME.fullmatch(path.name)
        if name:
            entities = dict(part.split("-", 1) for part in name["entities"].split("_"))
            found.append(BidsFile(path, entities, name["suffix"]))
    if not found:
        inner = sorted(p.name for p in (folder / "derivatives").glob("*") if p.is_dir())
        raise AutosegError(
            "there is no image in this BIDS dataset",
            where=readable(folder),
            found=f"derivatives of {some_of(inner)}"
            if inner
            else "no file such as sub-01/anat/sub-01_T1w.nii.gz",
            expected="images called sub-LABEL_..._SUFFIX.nii.gz",
            fix="give the folder of the derivatives itself" if inner else "check the path",
        )
    return found


def bids_cases(folder: Path, names: Sequence[str], chosen: Mapping[str, str]) -> list[Case]:
    """The cases of a dataset: each session, or each subject without sessions; runs are cases of their own.

    Args:
        folder: the dataset, one of its derivatives, or one subject.
        names: of the model's channels.
        chosen: name of a channel to a pattern (:class:`BidsPattern`); others are found by the kind of the suffix.

    Raises:
        AutosegError: there is no image, or none that a channel could be.
    """
    files = [file for file in bids_files(folder) if file.suffix not in MASKS and "label" not in file.entities]
    meant = {name: [file for file in files if _is_meant(file, name, chosen)] for name in names}
    missing = [name for name in names if not meant[name]]
    if missing:
        raise AutosegError(
            f"no file for the model's channel {', '.join(missing)}"
            + (f" (--channels {missing[0]}={chosen[missing[0]]})" if missing[0] in chosen else ""),
            where=readable(folder),
            found=f"suffixes {some_of(sorted({file.short for file in files}), 12)}"
            if files
            else "masks only",
            expected=f"for each case {', '.join(names)}",
            fix=f"say which suffix and entities it has: --channels {missing[0]}=SUFFIX or acq-3d_SUFFIX",
        )
    groups = group_by_case(file for found in meant.values() for file in found)
    cases = [_case(name, group, folder, names, chosen) for name, group in sorted(groups.items())]
    others = {_case_name(file, False) for file in files} - {
        _case_name(f, False) for g in groups.values() for f in g
    }
    if others:
        messages.info(f"without any channel of the model, and left out: {some_of(sorted(others))}")
    return cases


def _is_meant(file: BidsFile, name: str, chosen: Mapping[str, str]) -> bool:
    if name in chosen:
        return BidsPattern.parse(chosen[name]).fits(file)
    return file.kind == kind_of_name(name)


def _meant(files: Sequence[BidsFile], name: str, chosen: Mapping[str, str]) -> list[BidsFile]:
    """The files of one case that could be a channel."""
    if name in chosen:
        return BidsPattern.parse(chosen[name]).among(files)
    return [file for file in files if _is_meant(file, name, chosen)]


def group_by_case(files: Iterable[BidsFile]) -> dict[str, list[BidsFile]]:
    """Case name to its files: by subject and session, and by run where one suffix has several runs."""
    sessions: dict[str, dict[Path, BidsFile]] = defaultdict(dict)
    for file in files:
        sessions[_case_name(file, False)][file.path] = file
    groups: dict[str, list[BidsFile]] = defaultdict(list)
    for found in sessions.values():
        runs = {file.entities[RUN] for file in found.values() if RUN in file.entities}
        split = len(runs) > 1 and all(RUN in file.entities for file in found.values())
        for file in found.values():
            groups[_case_name(file, split)].append(file)
    return dict(groups)


def _case_name(file: BidsFile, with_run: bool) -> str:
    keys = (*OF_CASE, RUN) if with_run else OF_CASE
    return "_".join(f"{key}-{file.entities[key]}" for key in keys if key in file.entities)


def _case(
    case: str, files: Sequence[BidsFile], folder: Path, names: Sequence[str], chosen: Mapping[str, str]
) -> Case:
    """A case, or what keeps its files from being one."""
    found = [_meant(files, name, chosen) for name in names]
    first = [one[0] for one in found if one]
    fault = name_fault(case)
    for name, candidates in zip(names, found, strict=True):
        if fault is None and not candidates:
            there = ", ".join(file.short for file in files)
            fault = Fault(
                case, f"has no {name}", there, f"{', '.join(names)}", "add the scan, or leave the case out"
            )
        elif fault is None and len(candidates) > 1:
            there = some_of([file.short for file in candidates])
            fix = f"say which one it is: --channels {name}={candidates[0].short}"
            fault = Fault(case, f"{len(candidates)} files could be {name}", there, "one file", fix)
    shared = {
        key: value
        for key, value in (first[0].entities if first else {}).items()
        if all(file.entities.get(key) == value for file in first)
    }
    origin = Origin(tuple(file.short for file in first), entities=shared, root=folder)
    return Case(readable(case), tuple(file.path for file in first), fault=fault, origin=origin)


def describe_found(files: Sequence[BidsFile]) -> str:
    """How many images of which suffix, for messages."""
    counts: dict[str, int] = defaultdict(int)
    for file in files:
        counts[file.suffix] += 1
    return ", ".join(f"{count_of(n, 'file')} {suffix}" for suffix, n in sorted(counts.items()))
