"""The converter ``bids``: a BIDS dataset with masks of lesions, among the scans or in derivatives.

Masks are known by their names: ``label-L_mask`` and ``label-lesion_mask`` of the specification, and the spellings of
public datasets: ``_msk`` and ``_lesion-msk`` (ISLES), ``desc-T1lesion_mask`` (ATLAS), ``label-lesion_roi`` (Aphasia).
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import messages
from autoseg.dataset_conversion import _own_data as own
from autoseg.errors import AutosegError
from autoseg.files import files_below, readable
from autoseg.messages import some_of
from autoseg.plugins.converter import Conversion, Converter, LeftOut, SourceCase, Volume
from autoseg.scans.bids_layout import MASKS, BidsFile, BidsPattern, bids_files, group_by_case
from autoseg.scans.kinds import kind_of_name

LAYOUT = """ROOT/sub-01[/ses-1]/anat/sub-01[_ses-1]_T1w.nii.gz          scans, also in dwi or perf
ROOT/derivatives/NAME/sub-01[/ses-1]/anat/sub-01[_ses-1]_label-L_mask.nii.gz
  or beside the scans; also ..._msk, ..._lesion-msk, ..._desc-T1lesion_mask, ..._label-lesion_roi
Sessions and runs are cases; cases of one subject stay together in folds."""

SUFFIXES = ("mask", "msk", "roi", "dseg", "seg")
LESION = re.compile(r"label-(L|lesion)_|lesion|stroke|infarct", re.I)
"""Words of the names of masks of lesions; the suffix ``msk`` needs none."""
_LESION_MSK = re.compile(r"(?P<start>sub-.+)_lesion-msk(?P<ending>\.nii(?:\.gz)?)")


@dataclass(frozen=True)
class BidsImages:
    """The images of a dataset.

    Attributes:
        scans: all images that are no masks.
        masks: those of lesions.
    """

    scans: tuple[BidsFile, ...]
    masks: tuple[BidsFile, ...]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--channels",
        nargs="+",
        required=True,
        metavar="NAME",
        help="such as T1 FLAIR, found by suffix; or NAME=PATTERN, such as T1=acq-3d_T1w. Masks lie on the first",
    )
    command.add_argument(
        "--mask",
        metavar="PATTERN",
        help="which masks, by entities and suffix, such as label-L_desc-manual_mask",
    )
    command.add_argument(
        "--resample_channels", action="store_true", help="put further channels onto the grid of the first"
    )
    own.add_labels(command)


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the sessions below ``root``.

    Raises:
        AutosegError: there is no image, or no training case is left.
    """
    pairs = [word.partition("=") for word in options.channels]
    patterns = {name: BidsPattern.parse(text) for name, _, text in pairs if text}
    names = [name for name, _, _ in pairs]
    found = _find(root, options)
    own.say_merged(options)
    wanted = [scan for scan in found.scans if any(_is_channel(scan, name, patterns) for name in names)]
    if not wanted:
        raise AutosegError(
            f"no scan is {' or '.join(names)}",
            where=readable(root),
            found=some_of(sorted({scan.short for scan in found.scans}), 12) or "no scan",
            expected="a suffix for each channel",
            fix=f"say which one it is: --channels {names[0]}=SUFFIX or acq-3d_SUFFIX",
        )
    masks = _masks_by_session(found.masks)
    cases, left_out = [], []
    for name, scans in sorted(group_by_case(wanted).items()):
        case = _case(name, scans, names, patterns, masks, options)
        if isinstance(case, str):
            left_out.append(LeftOut(name, case))
        else:
            cases.append(case)
    _say_unused(found.masks, cases)
    return own.conversion(root, names, own.labels_of(options), cases, left_out)


def _is_channel(scan: BidsFile, name: str, patterns: Mapping[str, BidsPattern]) -> bool:
    return patterns[name].fits(scan) if name in patterns else scan.kind == kind_of_name(name)


def _find(root: Path, options: argparse.Namespace) -> BidsImages:
    """Scans of the dataset, and masks of it and of its derivatives."""
    files = _files(root)
    derived = [file for folder in _derivatives(root) for file in _files(folder)]
    if not files and not derived:
        bids_files(root)  # says what is missing
    wanted = BidsPattern.parse(options.mask) if options.mask else None
    masks = [f for f in (*files, *derived) if (wanted.fits(f) if wanted else _is_lesion_mask(f))]
    scans = [f for f in files if f.suffix not in (*SUFFIXES, *MASKS) and "label" not in f.entities]
    return BidsImages(tuple(scans), tuple(masks))


def _derivatives(root: Path) -> list[Path]:
    """Each dataset of derivatives, or their folder itself where masks lie in it without one."""
    folder = root / "derivatives"
    if not folder.is_dir():
        return []
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "sub-")))
    return [*inner, folder] if any(folder.glob("sub-*")) else inner


def _files(folder: Path) -> list[BidsFile]:
    """The images of a folder, and with them masks that are called ``..._lesion-msk``, which BIDS does not know."""
    try:
        found = bids_files(folder)
    except AutosegError:
        found = []
    for path in files_below(folder, ("derivatives",)):
        name = _LESION_MSK.fullmatch(path.name)
        if name:
            entities = dict(part.split("-", 1) for part in name["start"].split("_") if "-" in part)
            found.append(BidsFile(path, {**entities, "desc": "lesion"}, "msk"))
    return found


def _is_lesion_mask(file: BidsFile) -> bool:
    return file.suffix == "msk" or (file.suffix in SUFFIXES and LESION.search(file.path.name) is not None)


def _session(file: BidsFile) -> tuple[str, str]:
    return file.entities["sub"], file.entities.get("ses", "")


def _masks_by_session(masks: Sequence[BidsFile]) -> dict[tuple[str, str], list[BidsFile]]:
    found: dict[tuple[str, str], list[BidsFile]] = defaultdict(list)
    for mask in masks:
        found[_session(mask)].append(mask)
    return found


def _case(
    name: str,
    scans: Sequence[BidsFile],
    names: Sequence[str],
    patterns: Mapping[str, BidsPattern],
    masks: Mapping[tuple[str, str], Sequence[BidsFile]],
    options: argparse.Namespace,
) -> SourceCase | str:
    """A case, or why it is none."""
    chosen = []
    for channel in names:
        found = [scan for scan in scans if _is_channel(scan, channel, patterns)]
        found = patterns[channel].among(found) if channel in patterns else found
        if len(found) != 1:
            several = some_of([scan.short for scan in found])
            if not found:
                return f"no {channel}"
            return f"{len(found)} files could be {channel}: {several}; say which: --channels {channel}={found[0].short}"
        chosen.append(found[0])
    session = _session(scans[0])
    there = [mask for mask in masks.get(session, ()) if _same_run(mask, chosen[0])]
    there = BidsPattern.parse(options.mask).among(there) if options.mask else there
    if len(there) != 1:
        several = some_of([mask.short for mask in there])
        return (
            f"{len(there)} masks for one scan: {several}; say which: --mask {there[0].short}"
            if there
            else "no mask of lesions"
        )
    images = [
        Volume(scan.path, resample=options.resample_channels and i > 0) for i, scan in enumerate(chosen)
    ]
    groups = {"subject": f"sub-{session[0]}"} | ({"session": session[1]} if session[1] else {})
    return SourceCase(name, tuple(images), own.mask_of([Volume(there[0].path)], options), groups=groups)


def _same_run(mask: BidsFile, scan: BidsFile) -> bool:
    """Whether a mask may be of this scan, by run and space, where both say them."""
    both = [key for key in ("run", "space") if key in mask.entities and key in scan.entities]
    return all(mask.entities[key] == scan.entities[key] for key in both)


def _say_unused(masks: Sequence[BidsFile], cases: Sequence[SourceCase]) -> None:
    subjects = {case.groups["subject"] for case in cases}
    unused = [mask.path.name for mask in masks if f"sub-{mask.entities['sub']}" not in subjects]
    if unused:
        messages.warn(f"masks of no case: {some_of(unused)}")


CONVERTER = Converter(
    name="bids",
    summary="a BIDS dataset with masks of lesions, among the scans or in derivatives",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
