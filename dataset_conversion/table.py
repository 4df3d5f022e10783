"""The converter ``table``: a CSV of image and mask paths, the simplest way from one's own files to a dataset."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from autoseg import messages
from autoseg.dataset.text_table import read_table
from autoseg.dataset_conversion import _own_data as own
from autoseg.errors import AutosegError
from autoseg.files import readable
from autoseg.messages import some_of
from autoseg.plugins.converter import Conversion, Converter, LeftOut, SourceCase
from autoseg.scans.case_table import CASE, IMAGE, TableLine, read_lines, resolved, title_of
from autoseg.scans.ordinary_files import stem_of

LAYOUT = """ROOT is the table itself, a line for each case, such as
  case,T1,FLAIR,mask,subject
  pat01_a,scans/01a_t1.nii.gz,scans/01a_fl.nii.gz,masks/01a.nii.gz,pat01
Paths are relative to its folder, or absolute; a path to a folder is that of a DICOM series.
Columns: case (else the name of the first file); a column for each channel; mask (or label, seg);
subject (cases of one stay together in folds); set with the word test for test cases.
All others go to groups.csv. Commas, semicolons or tabs; as Excel saves it."""

MASK = ("mask", "label", "seg", "segmentation", "msk", "lesion_mask")
SUBJECT = ("subject", "patient", "subject_id", "patient_id", "participant_id")
PART = ("set", "split", "part")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--channels",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns with images, in the order of the channels (default: all that hold paths of images)",
    )
    command.add_argument(
        "--mask", metavar="COLUMN", help="column with the masks (default: mask, label or seg)"
    )
    command.add_argument(
        "--no_mask_is_no_lesion", action="store_true", help="a blank mask says that there is no lesion"
    )
    command.add_argument(
        "--resample_channels", action="store_true", help="put further channels onto the grid of the first"
    )
    own.add_labels(command)


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the cases of the table ``root``.

    Raises:
        AutosegError: it is no table, or its columns are not understood.
    """
    header, rows = read_table(root, "table")
    mask = _column(root, header, options.mask, MASK, "masks", "--mask")
    channels = options.channels or _image_columns(root, header, rows, mask)
    for title in options.channels:
        _column(root, header, title, (), "channels", "--channels")
    own.say_merged(options)
    lines = read_lines(root, [*channels, mask])
    counts = Counter(line.case.casefold() for line in lines)
    cases, left_out = [], []
    for line in lines:
        why = _why_not(line, channels, mask, counts, options)
        case = why if why else _case(line, channels, mask, options)
        if isinstance(case, str):
            left_out.append(LeftOut(f"{line.case} (line {line.number})", case))
        else:
            cases.append(case)
    names = [_channel_name(title) for title in channels]
    return own.conversion(
        root.parent, names, own.labels_of(options), cases, left_out, dataset=own.dataset_name(root)
    )


def _column(
    root: Path, header: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, option: str
) -> str:
    """The title of a column: the one that was asked for, or one of the usual."""
    title = title_of(header, wanted) if wanted else title_of(header, *usual)
    if title is None:
        raise AutosegError(
            f"has no column {wanted}" if wanted else f"has no column with the {what}",
            where=readable(root),
            found=", ".join(header),
            expected=wanted or ", ".join(usual[:3]),
            fix=f"name the column with {option}",
        )
    return title


def _image_columns(
    root: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]], mask: str
) -> list[str]:
    """Columns of which every cell that is not blank names an image or a folder that is there; they are said."""
    found = []
    for index, title in enumerate(header):
        cells = [row[index] for _, row in rows if row[index]]
        if (
            title != mask
            and title.casefold() not in CASE
            and cells
            and all(_is_image(c, root.parent) for c in cells)
        ):
            found.append(title)
    if not found:
        raise AutosegError(
            "has no column with images",
            where=readable(root),
            found=", ".join(header),
            expected="a column for each channel, with paths",
            fix="name the columns with --channels",
        )
    messages.info(f"channels: {', '.join(found)}, in this order; --channels chooses others")
    return found


def _is_image(cell: str, folder: Path) -> bool:
    return stem_of(Path(cell)) is not None or resolved(cell, folder).is_dir()


def _channel_name(title: str) -> str:
    """A channel is called like its column; one that says nothing of the sequence is warned of."""
    if title.casefold() in IMAGE:
        messages.warn(
            f"the channel is called {title} like its column; call the column T1, FLAIR, CT or what it is"
        )
    return title


def _why_not(
    line: TableLine, channels: Sequence[str], mask: str, counts: Counter[str], options: argparse.Namespace
) -> str:
    """Why a line becomes no case; empty where it does."""
    if counts[line.case.casefold()] > 1:
        return "the same case twice"
    if missing := [title for title in channels if title not in line.files]:
        return f"no file for {', '.join(missing)}"
    if mask not in line.files and not options.no_mask_is_no_lesion and not _is_test(line):
        return "no mask"
    if any(line.files[title] == line.files.get(mask) for title in channels):
        return "the mask is the image itself"
    gone = [path for path in line.files.values() if not path.exists()]
    return f"there is no file {some_of([readable(path) for path in gone])}" if gone else ""


def _is_test(line: TableLine) -> bool:
    return any(line.words[title].casefold() == "test" for title in line.words if title.casefold() in PART)


def _case(
    line: TableLine, channels: Sequence[str], mask: str, options: argparse.Namespace
) -> SourceCase | str:
    """A case, or why it is none."""
    try:
        images = [
            own.volume_of(line.files[title], resample=options.resample_channels and i > 0)
            for i, title in enumerate(channels)
        ]
        masks = [own.volume_of(line.files[mask])] if mask in line.files else []
    except AutosegError as error:
        return f"{error.fault.where} {error.fault.problem}: {error.fault.found}"
    subject = title_of(list(line.words), *SUBJECT)
    groups = {"subject": line.words[subject]} if subject else {}
    groups |= {title: word for title, word in line.words.items() if title not in (subject, "case", "subject")}
    return SourceCase(
        name=line.case,
        images=tuple(images),
        mask=own.mask_of(masks, options) if masks else None,
        lesion_free=not masks and options.no_mask_is_no_lesion,
        test=_is_test(line),
        groups=groups,
    )


CONVERTER = Converter(
    name="table",
    summary="a CSV of image and mask paths, a line for each case",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
