"""Folders of images that autoseg does not read yet, DICOM and BIDS: recognised, with what to do about them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.files import readable
from autoseg.messages import count_of

LOOKED_AT = 500
"""So many files are looked at before a folder is taken for none of these."""


def unread_layout(path: Path, expected: str) -> AutosegError | None:
    """What to say of a DICOM file, a folder of them or a BIDS dataset; None for anything else.

    Args:
        path: a file or a folder.
        expected: what autoseg reads instead.
    """
    if path.is_dir() and _is_bids(path):
        return _bids(path, expected)
    found = [file for file in _files(path) if is_dicom(file)]
    return _dicom(path, found, expected) if found else None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its mark (``DICM`` at byte 128) or by its name."""
    if path.suffix.lower() == ".dcm" or path.name == "DICOMDIR":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _files(path: Path) -> Iterator[Path]:
    """The file, or some of those in a folder and in the folders within it."""
    if not path.is_dir():
        return iter([path])
    return itertools.islice((entry for entry in path.rglob("*") if entry.is_file()), LOOKED_AT)


def _dicom(path: Path, found: list[Path], expected: str) -> AutosegError:
    folder, first = path if path.is_dir() else path.parent, readable(found[0].name)
    more = f"{'at least ' * (len(found) == LOOKED_AT)}{len(found)} files, such as {first}"
    return AutosegError(
        f"this is a {'folder of DICOM files' if path.is_dir() else 'DICOM file'}, which autoseg does not read yet",
        where=readable(path),
        found=more if len(found) > 1 else first,
        expected=expected,
        fix="convert each series with dcm2niix, once for each channel of a case: "
        f"dcm2niix -z y -f CASE_0000 -o images {readable(folder)}; then give the folder images with -i",
    )


def _is_bids(folder: Path) -> bool:
    described = (folder / "dataset_description.json").is_file()
    return described or next(folder.glob("sub-*/**/anat"), None) is not None


def _bids(folder: Path, expected: str) -> AutosegError:
    subjects = sorted(entry.name for entry in folder.glob("sub-*") if entry.is_dir())
    images = sorted(folder.glob("sub-*/**/anat/*.nii*"))
    found = count_of(len(subjects), "subject")
    example = readable(images[0].relative_to(folder)) if images else "sub-01/anat/sub-01_T1w.nii.gz"
    return AutosegError(
        "this is a BIDS dataset, which autoseg does not read yet",
        where=readable(folder),
        found=f"{found}, such as {example}" if images else found,
        expected=expected,
        fix="copy or link the images into one folder, one file for each subject and channel: "
        f"{example} becomes {example.split('/')[0]}_0000.nii.gz for the first channel, _0001 for the second",
    )
