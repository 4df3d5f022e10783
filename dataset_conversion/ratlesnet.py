"""The converter ``ratlesnet``: scans in the layout of RatLesNetv2, and the divisions of its paper.

Valverde et al., "RatLesNetv2: a fully convolutional network for rodent brain lesion segmentation", Frontiers in
Neuroscience 14:610239 (2020), section 2.1. Where the paper says less than the code behind its tables (order of the
scans before they are divided, which mask is used), the code is followed.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg import messages
from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names
from autoseg.messages import count_of
from autoseg.plugins.converter import Conversion, Converter, SourceCase, Volume

LAYOUT = """ROOT/STUDY/TIMEPOINT/SCAN/scan.nii.gz         image: height x width x slices [x channels]
ROOT/STUDY/TIMEPOINT/SCAN/scan_lesion.nii.gz  mask: 0 background, 1 lesion; a sham has none"""

IMAGE, MASK = "scan.nii.gz", "scan_lesion.nii.gz"
REFERENCE = "Valverde et al., Frontiers in Neuroscience 14:610239 (2020)"

EARLY_TIMEPOINTS = ("2h", "24h")
"""The time-points of the study that the homogeneous division trains on."""
TRAIN_SHARE = 0.8
HETEROGENEOUS_TRAIN, HETEROGENEOUS_VALIDATION = 5, 1
"""Lesion scans of each time-point."""
LARGEST_TRAINING_SET = 11
"""T_i has i lesion scans of each time-point; the first 11 of each never test."""


@dataclass(frozen=True)
class Scan:
    """One scan folder.

    Attributes:
        study, timepoint, name: of the three levels of folders.
        image: its path.
        mask: the first of the asked-for mask files that is there.
        others: further NIfTI files in the folder.
        sham: declared to have no lesion.
    """

    study: str
    timepoint: str
    name: str
    image: Path
    mask: Path | None
    others: tuple[str, ...] = ()
    sham: bool = False

    @property
    def path(self) -> str:
        """Below the root."""
        return f"{self.study}/{self.timepoint}/{self.name}"

    @property
    def case(self) -> str:
        """Name of the case; what cannot stand in one is a dash."""
        parts = (self.study, self.timepoint, self.name)
        return "_".join(re.sub(r"[^A-Za-z0-9.+_-]+", "-", part).strip("-") for part in parts)

    @property
    def order(self) -> str:
        """What the authors sorted by: the folder's path, with the slash at its end."""
        return f"{self.path}/"


@dataclass(frozen=True)
class Division:
    """Which scans train, validate and test."""

    train: tuple[Scan, ...]
    validation: tuple[Scan, ...]
    test: tuple[Scan, ...]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--image", default=IMAGE, metavar="FILE", help="name of the images (default: %(default)s)"
    )
    command.add_argument(
        "--annotator",
        nargs="+",
        default=[MASK],
        metavar="FILE",
        help=f"name of the masks, which tells annotators apart; of several, each scan takes the first that it has "
        f"(default: {MASK})",
    )
    command.add_argument("--channel", type=int, metavar="N", help="which channel, where images have several")
    shams = command.add_mutually_exclusive_group()
    shams.add_argument(
        "--shams",
        metavar="FILE",
        help="text or CSV, whose first column names scans without lesion by path or id",
    )
    shams.add_argument(
        "--shams_without_label", action="store_true", help="declare every scan without mask a sham"
    )
    division = command.add_mutually_exclusive_group()
    division.add_argument(
        "--division",
        choices=("homogeneous", "heterogeneous"),
        help="of the paper: fold 0 trains and validates, all other scans test (default: every scan trains)",
    )
    division.add_argument(
        "--training_set_size",
        type=int,
        metavar="I",
        help="1 to 11: I lesion scans of each time-point train, without validation (fold all)",
    )
    command.add_argument(
        "--study",
        metavar="STUDY",
        help="which study the homogeneous division trains on (default: the one with 2h and 24h)",
    )


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the scans below ``root``.

    Raises:
        AutosegError: no such folder, no scan in it, a division that these scans do not allow.
        FaultsError: folders that are not understood, scans without mask that are not declared shams.
    """
    from autoseg.dataset.folds import Fold

    scans = find_scans(root, options.image, options.annotator)
    scans = declare_shams(scans, options.shams, options.shams_without_label, options.annotator)
    _tell_unused(scans)
    division = _divide(scans, options)
    folds: list[Fold] = []
    if division.validation:
        train, validation = (
            tuple(sorted(s.case for s in part)) for part in (division.train, division.validation)
        )
        folds.append(Fold(train, validation))
    return Conversion(
        root=root,
        dataset=_dataset_name(options),
        channel_names=("T2",),
        labels={"background": 0, "lesion": 1},
        cases=tuple(_cases(division, options.channel)),
        folds=tuple(folds),
        notes={"reference": REFERENCE},
    )


def _cases(division: Division, channel: int | None) -> Iterable[SourceCase]:
    for part, scans in vars(division).items():
        for scan in sorted(scans, key=lambda scan: scan.order):
            yield SourceCase(
                name=scan.case,
                images=(Volume(scan.image, channel),),
                mask=Volume(scan.mask) if scan.mask else None,
                lesion_free=scan.sham,
                test=part == "test",
                groups={
                    "study": scan.study,
                    "timepoint": scan.timepoint,
                    "sham": "yes" if scan.sham else "no",
                },
            )


def _dataset_name(options: argparse.Namespace) -> str:
    if options.training_set_size is not None:
        return f"RatLesNetT{options.training_set_size}"
    return f"RatLesNet{(options.division or '').capitalize()}"


# --------------------------------------------------------------------------------------------- what is there


def find_scans(root: Path, image: str, masks: Sequence[str]) -> list[Scan]:
    """Every scan below the root, in the authors' order.

    Args:
        root: of the download.
        image: name of the image files.
        masks: names of mask files, the preferred first.

    Raises:
        AutosegError: there is no such folder, or no scan in it.
        FaultsError: an image at another depth, or a folder of a scan without image.
    """
    if not root.is_dir():
        raise AutosegError("there is no such folder", where=str(root), fix="check the path")
    scans, faults = [], []
    folders = [root]
    for depth in range(4):
        for folder in folders:
            has_image = (folder / image).is_file()
            if depth < 3 and has_image:
                faults.append(_misplaced(folder / image, root))
            elif depth == 3 and has_image:
                scans.append(_scan(folder, image, masks))
            elif depth == 3 or not _subfolders(folder):
                faults.append(_without_scan(folder, root, depth, image))
        folders = [inner for folder in folders for inner in _subfolders(folder)]
    if not scans:
        raise AutosegError(
            f"there is no scan in the layout of RatLesNetv2: no STUDY/TIMEPOINT/SCAN/{image}",
            where=str(root),
            found=", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "an empty folder",
            expected=f"folders three levels deep with {image} and {masks[0]}",
            fix="give the folder that holds the studies; name other files with --image and --annotator",
        )
    if faults:
        raise FaultsError(f"{root}: {len(faults)} places are not understood", faults)
    return sorted(scans, key=lambda scan: scan.order)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _scan(folder: Path, image: str, masks: Sequence[str]) -> Scan:
    files = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    mask = next((name for name in masks if name in files), None)
    study, timepoint, name = folder.parts[-3:]
    others = (f for f in files if f.endswith((".nii", ".nii.gz")) and f not in (image, *masks))
    return Scan(study, timepoint, name, folder / image, folder / mask if mask else None, tuple(others))


def _misplaced(path: Path, root: Path) -> Fault:
    expected = f"STUDY/TIMEPOINT/SCAN/{path.name}"
    fix = "move it to its study and time-point, or give another ROOT"
    return Fault(path.relative_to(root).as_posix(), "an image at another depth", "", expected, fix)


def _without_scan(folder: Path, root: Path, depth: int, image: str) -> Fault:
    where = folder.relative_to(root).as_posix()
    problem = (
        "is empty",
        "a study without time-points",
        "a time-point without scans",
        "a scan without image",
    )
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:4]) or "an empty folder"
    expected = "/".join(("STUDY", "TIMEPOINT", "SCAN", image)[depth:])
    return Fault(where, problem[depth], found, expected, "complete it, or move it out of the folder")


def _tell_unused(scans: Iterable[Scan]) -> None:
    for name, count in sorted(Counter(name for scan in scans for name in scan.others).items()):
        messages.warn(f"{name} is not used; it lies in {count_of(count, 'scan folder')}")


# -------------------------------------------------------------------------------------------------- the shams


def declare_shams(
    scans: Sequence[Scan], listed_in: str | None, all_without_mask: bool, masks: Sequence[str]
) -> list[Scan]:
    """The scans with their declaration; a scan without mask is a sham only when the user says so.

    Args:
        scans: as found.
        listed_in: a file whose first column names shams.
        all_without_mask: every scan without mask is one.
        masks: names of mask files, for messages.

    Raises:
        FaultsError: entries of the file that mean no scan or several; scans without mask that are not declared.
    """
    shams = _listed_shams(Path(listed_in), scans) if listed_in else set()
    declared, faults = [], []
    for scan in scans:
        sham = scan.path in shams or (all_without_mask and scan.mask is None)
        if scan.mask is None and not sham:
            faults.append(
                Fault(
                    scan.path,
                    "no mask, and not declared a sham",
                    ", ".join((scan.image.name, *scan.others)),
                    " or ".join(masks),
                    "list it in --shams FILE, declare all such scans with --shams_without_label, or add its mask",
                )
            )
        elif scan.mask is None and scan.others and not listed_in:
            fix = "name this annotator with --annotator, or list the shams in --shams FILE"
            found = ", ".join(scan.others)
            faults.append(Fault(scan.path, "another file may be its mask", found, " or ".join(masks), fix))
        declared.append(replace(scan, sham=sham))
    if faults:
        some = count_of(len(faults), f"of {len(scans)} scans has", f"of {len(scans)} scans have")
        raise FaultsError(f"{some} no mask that could be used", faults)
    return declared


def _listed_shams(path: Path, scans: Sequence[Scan]) -> set[str]:
    """Paths of the scans that a file lists, by path or by the end of it."""
    shams, faults = set(), []
    for number, entry in _entries(path):
        fitting = [scan.path for scan in scans if f"/{scan.path}".endswith(f"/{entry}")]
        if len(fitting) == 1:
            shams.add(fitting[0])
            continue
        where = f"{path.name}, line {number}"
        if fitting:
            found = ", ".join(fitting[:4])
            faults.append(
                Fault(where, f"'{entry}' means {len(fitting)} scans", found, "one scan", "give its path")
            )
        else:
            fix = nearest_names(entry, [scan.path for scan in scans][:1000])
            faults.append(Fault(where, f"'{entry}' is no scan", "", "STUDY/TIMEPOINT/SCAN, or SCAN", fix))
    if faults:
        raise FaultsError(
            f"{path}: {count_of(len(faults), 'entry does not fit', 'entries do not fit')}", faults
        )
    return shams


def _entries(path: Path) -> Iterable[tuple[int, str]]:
    """Line number and first column of each line; comments (#), empty lines and a header are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AutosegError(
            "the list of shams cannot be read",
            where=str(path),
            found=error,
            expected="text",
            fix="check the path",
        ) from None
    for number, line in enumerate(lines, start=1):
        entry = re.split(r"[,;\t]", line, maxsplit=1)[0].strip().strip('"').replace("\\", "/").strip("/")
        is_header = number == 1 and entry.casefold() in (
            "scan",
            "scan_id",
            "id",
            "path",
            "case",
            "sham",
            "shams",
        )
        if entry and not entry.startswith("#") and not is_header:
            yield number, entry


# ---------------------------------------------------------------------------------------------- the divisions


def _divide(scans: Sequence[Scan], options: argparse.Namespace) -> Division:
    if options.study and options.division != "homogeneous":
        raise AutosegError(
            "--study goes with the homogeneous division", fix="add --division homogeneous, or leave it out"
        )
    if options.division:
        homogeneous_wanted = options.division == "homogeneous"
        division = homogeneous(scans, options.study) if homogeneous_wanted else heterogeneous(scans)
        if division.train and division.validation:
            return division
        raise AutosegError(
            f"too few scans for the {options.division} division",
            found=f"{len(division.train)} to train on, {len(division.validation)} to validate",
            expected="at least one of each",
            fix="leave --division out; every scan trains then, and folds are made later",
        )
    if options.training_set_size is not None:
        return training_set(scans, options.training_set_size)
    return Division(tuple(scans), (), ())


def homogeneous(scans: Sequence[Scan], study: str | None = None) -> Division:
    """One study trains, all others test.

    Of each of its time-points, 2h and 24h, and of lesion scans and shams separately, the first int(0.8 n) train and the
    rest validate: 36 and 12 scans of the published study.

    Args:
        scans: all.
        study: None takes the only one that has both time-points.

    Raises:
        AutosegError: no such study, or one with other time-points.
    """
    study = _early_study(scans, study)
    train: list[Scan] = []
    validation: list[Scan] = []
    for timepoint in EARLY_TIMEPOINTS:
        for sham in (False, True):
            group = _ordered(s for s in scans if (s.study, s.timepoint, s.sham) == (study, timepoint, sham))
            n_train = int(len(group) * TRAIN_SHARE)
            train += group[:n_train]
            validation += group[n_train:]
    test = (scan for scan in scans if scan.study != study)
    return Division(tuple(train), tuple(validation), tuple(test))


def _early_study(scans: Sequence[Scan], wanted: str | None) -> str:
    timepoints: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        timepoints[scan.study].add(scan.timepoint)
    fitting = [name for name, there in timepoints.items() if there >= set(EARLY_TIMEPOINTS)]
    study = wanted or (fitting[0] if len(fitting) == 1 else None)
    if study is None or timepoints.get(study) != set(EARLY_TIMEPOINTS):
        named = f"the study '{study}'" if study else "no study" if not fitting else "more than one study"
        raise AutosegError(
            "the homogeneous division needs one study with the time-points 2h and 24h, and no others",
            found=f"{named}; "
            + ", ".join(f"{s}: {' '.join(sorted(t))}" for s, t in sorted(timepoints.items())),
            expected=f"the folders {' and '.join(EARLY_TIMEPOINTS)} in one study",
            fix="name the study with --study",
        )
    return study


def heterogeneous(scans: Sequence[Scan]) -> Division:
    """Of the lesion scans of each time-point, over all studies, the first 5 train, the next validates, the rest test.

    All shams test. Published: 8 time-points, so 40 scans train and 8 validate. Because of the order, the studies that
    come first by name make up most of them.

    Raises:
        FaultsError: a time-point with fewer than 6 lesion scans.
    """
    needed = HETEROGENEOUS_TRAIN + HETEROGENEOUS_VALIDATION
    groups = _lesions_by_timepoint(scans, needed)
    train = [scan for group in groups for scan in group[:HETEROGENEOUS_TRAIN]]
    validation = [scan for group in groups for scan in group[HETEROGENEOUS_TRAIN:needed]]
    test = [scan for group in groups for scan in group[needed:]]
    return Division(tuple(train), tuple(validation), (*test, *(s for s in scans if s.sham)))


def training_set(scans: Sequence[Scan], size: int) -> Division:
    """The training set T_i of the study of its size: i lesion scans of each time-point, 8 i with the published eight.

    The test set is the same for all sizes: what the largest, T_11, leaves over (828 scans of the published 916). Which
    scans a set takes was not published; they are the first, in the order of the heterogeneous division, so that each
    set holds the smaller ones.

    Raises:
        AutosegError: the size is not one of 1 to 11.
        FaultsError: a time-point with too few lesion scans.
    """
    if not 1 <= size <= LARGEST_TRAINING_SET:
        raise AutosegError(
            "there is no training set of this size",
            found=size,
            expected=f"1 to {LARGEST_TRAINING_SET}",
            fix="for example --training_set_size 5",
        )
    groups = _lesions_by_timepoint(scans, size)
    train = [scan for group in groups for scan in group[:size]]
    test = [scan for group in groups for scan in group[LARGEST_TRAINING_SET:]]
    return Division(tuple(train), (), (*test, *(s for s in scans if s.sham)))


def _lesions_by_timepoint(scans: Sequence[Scan], needed: int) -> list[list[Scan]]:
    """The lesion scans of each time-point in the authors' order.

    Raises:
        FaultsError: a time-point has fewer than needed.
    """
    groups: dict[str, list[Scan]] = defaultdict(list)
    for scan in _ordered(scan for scan in scans if not scan.sham):
        groups[scan.timepoint].append(scan)
    few = [
        Fault(
            timepoint, "too few lesion scans", str(len(group)), f"at least {needed}", "leave it out of ROOT"
        )
        for timepoint, group in sorted(groups.items())
        if len(group) < needed
    ]
    if few:
        raise FaultsError(f"{len(few)} time-points are too small for this division", few)
    return [groups[timepoint] for timepoint in sorted(groups)]


def _ordered(scans: Iterable[Scan]) -> list[Scan]:
    return sorted(scans, key=lambda scan: scan.order)


CONVERTER = Converter(
    name="ratlesnet",
    summary="rat brain T2 in the layout of RatLesNetv2: study, time-point, scan",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
