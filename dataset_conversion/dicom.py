"""The converter ``dicom``: DICOM series as they come from a scanner or an archive, masks as DICOM-SEG or NIfTI."""

from __future__ import annotations

import argparse
import filecmp
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli.common import parse_pairs
from autoseg.dataset_conversion import _own_data as own
from autoseg.errors import AutosegError, Fault
from autoseg.files import files_below
from autoseg.messages import some_of
from autoseg.plugins.converter import Conversion, Converter, LeftOut, SourceCase, Volume

if TYPE_CHECKING:
    from autoseg.scans.dicom_cases import DicomStudy
    from autoseg.scans.dicom_series import DicomStack

LAYOUT = """ROOT/**                  DICOM files at any depth: patients and studies are cases, series are channels
masks                    DICOM-SEG files among them, on the series of the first channel
--masks FOLDER           instead: FOLDER/CASE.nii.gz on the grid of the first channel, CASE as conversion.csv names it
Cases of one patient stay together in folds."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--channels",
        nargs="+",
        required=True,
        metavar="NAME",
        help="such as T1 FLAIR; masks lie on the first",
    )
    command.add_argument(
        "--series",
        nargs="+",
        default=[],
        metavar="NAME=WHICH",
        help="the series of a channel, by number or by a pattern for its description",
    )
    command.add_argument("--masks", metavar="FOLDER", help="NIfTI masks, one called after each case")
    command.add_argument(
        "--resample_channels", action="store_true", help="put further channels onto the grid of the first"
    )
    own.add_labels(command)


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the studies below ``root``.

    Raises:
        AutosegError: there is no series, no folder of masks, or no training case is left.
    """
    from autoseg.scans.dicom_cases import find_studies

    if options.masks and not Path(options.masks).is_dir():
        raise AutosegError("there is no such folder", where=f"--masks {options.masks}", fix="check the path")
    chosen = parse_pairs("--series", options.series)
    studies = find_studies(root)
    segmentations = {} if options.masks else _segmentations(root)
    own.say_merged(options)
    cases, left_out = [], []
    for study in studies:
        left_out += [LeftOut(study.name, text) for text in study.left_out if "modality SEG" not in text]
        case = _case(study, options, chosen, segmentations)
        if isinstance(case, str):
            left_out.append(LeftOut(study.name, case))
        else:
            cases.append(case)
    return own.conversion(root, options.channels, own.labels_of(options), cases, left_out)


def _case(
    study: DicomStudy,
    options: argparse.Namespace,
    chosen: Mapping[str, str],
    segmentations: Mapping[str, Sequence[Path]],
) -> SourceCase | str:
    """A case, or why it is none."""
    from autoseg.scans.dicom_cases import channel_of

    stacks: list[DicomStack] = []
    for name in options.channels:
        found = channel_of(study, name, chosen.get(name), alone=len(options.channels) == 1)
        if isinstance(found, Fault):
            return f"{found.problem}: {found.found}; {found.fix}"
        stacks.append(found[0])
    try:
        for stack in stacks:
            stack.geometry()
        mask = _mask(study, stacks[0], options, segmentations)
    except AutosegError as error:
        return f"{error.fault.where}: {error.fault.problem} ({error.fault.found})"
    images = [
        Volume(stack.slices[0].path, resample=options.resample_channels and i > 0, series=stack)
        for i, stack in enumerate(stacks)
    ]
    if isinstance(mask, str):
        return mask
    kept = own.mask_of([mask], options) if options.masks else mask
    return SourceCase(
        study.name, tuple(images), kept, groups={"subject": study.subject, "date": stacks[0].facts.date}
    )


def _mask(
    study: DicomStudy,
    stack: DicomStack,
    options: argparse.Namespace,
    segmentations: Mapping[str, Sequence[Path]],
) -> Volume | str:
    """The mask of a case, or why it has none."""
    if options.masks:
        paths = [
            Path(options.masks) / f"{study.name}{ending}" for ending in (".nii.gz", ".nii", ".nrrd", ".mha")
        ]
        there = [path for path in paths if path.is_file()]
        if len(there) > 1:
            return f"{len(there)} masks for one scan: {some_of([path.name for path in there])}"
        return Volume(there[0]) if there else f"no mask: there is no {paths[0].name} in {options.masks}"
    from autoseg.scans.dicom_masks import DicomSeg, segments_of

    found = segmentations.get(stack.facts.uid) or segmentations.get(f"study {stack.facts.study}") or ()
    if len(found) != 1:
        several = some_of([path.name for path in found])
        return (
            f"{len(found)} masks for one scan: {several}" if found else f"no DICOM-SEG lies on {stack.label}"
        )
    values = None
    if options.labels:
        named = own.labels_of(options)
        segments = segments_of(found[0])
        unknown = [label for label in segments.values() if label not in named]
        if unknown:
            return f"segments that --labels does not name: {some_of(unknown)}"
        values = {number: named[label] for number, label in segments.items()}
    return Volume(found[0], series=DicomSeg(found[0], stack, values))


def _segmentations(root: Path) -> dict[str, list[Path]]:
    """The DICOM-SEG files by the series that they lie on, and by their study where they do not say; copies once."""
    from autoseg.scans.dicom_headers import read_file
    from autoseg.scans.dicom_masks import referenced_series

    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_below(root):
        header = read_file(path)
        if header is not None and header.facts.modality == "SEG":
            for key in referenced_series(path) or [f"study {header.facts.study}"]:
                if not any(filecmp.cmp(path, other, shallow=False) for other in found[key]):
                    found[key].append(path)
    return found


CONVERTER = Converter(
    name="dicom",
    summary="DICOM series with masks as DICOM-SEG or NIfTI",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
