"""DICOM and BIDS: recognised, with what to do about them where a command does not read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.files import files_below, readable
from autoseg.messages import count_of

LOOKED_AT = 500
"""So many files are looked at before a folder is taken for none of these."""
_STARTS = (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x12\0")


def unread_layout(path: Path, expected: str) -> AutosegError | None:
    """What to say of a DICOM file, a folder of them or a BIDS dataset; None for anything else.

    Args:
        path: a file or a folder.
        expected: what autoseg reads instead.
    """
    if path.is_dir() and is_bids(path):
        return _bids(path, expected)
    found = [file for file in _files(path) if is_dicom(file)]
    return _dicom(path, found, expected) if found else None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its mark (``DICM`` at byte 128) or by its name."""
    if path.suffix.lower() == ".dcm" or path.name == "DICOMDIR":
        return True
    return starts_as_dicom(path)


def starts_as_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes: the mark, or without preamble a tag of group 2 or 8."""
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (len(start) == 132 and start[:4] in _STARTS)


def _files(path: Path) -> Iterator[Path]:
    """The file, or some of those in a folder and in the folders within it."""
    if not path.is_dir():
        return iter([path])
    return itertools.islice((entry for entry in files_below(path) if entry.is_file()), LOOKED_AT)


def _dicom(path: Path, found: list[Path], expected: str) -> AutosegError:
    folder, first = path if path.is_dir() else path.parent, readable(found[0].name)
    more = f"{'at least ' * (len(found) == LOOKED_AT)}{len(found)} files, such as {first}"
    return AutosegError(
        f"this is a {'folder of DICOM files' if path.is_dir() else 'DICOM file'}, which autoseg_predict alone reads",
        where=readable(path),
        found=more if len(found) > 1 else first,
        expected=expected,
        fix="convert each series with dcm2niix, once for each channel of a case: "
        f"dcm2niix -z y -f CASE_0000 -o images {readable(folder)}; then give the folder images with -i",
    )


def has_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or one of the first files in a folder and in the folders within it."""
    return any(is_dicom(file) for file in _files(path))


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS dataset: by its description, or by folders of subjects with images in BIDS names."""
    if (folder / "dataset_description.json").is_file():
        return True
    inside = [f"sub-*/**/{kind}/sub-*_*.nii*" for kind in ("anat", "dwi", "perf", "swi")]
    inside += ["**/sub-*_*.nii*"] if folder.name.startswith("sub-") else []  # one subject alone
    return any(next(folder.glob(pattern), None) is not None for pattern in inside)


def _bids(folder: Path, expected: str) -> AutosegError:
    subjects = sorted(entry.name for entry in folder.glob("sub-*") if entry.is_dir())
    images = sorted(folder.glob("sub-*/**/anat/*.nii*"))
    found = count_of(len(subjects), "subject")
    example = readable(images[0].relative_to(folder)) if images else "sub-01/anat/sub-01_T1w.nii.gz"
    return AutosegError(
        "this is a BIDS dataset, which autoseg_predict alone reads",
        where=readable(folder),
        found=f"{found}, such as {example}" if images else found,
        expected=expected,
        fix="copy or link the images into one folder, one file for each subject and channel: "
        f"{example} becomes {example.split('/')[0]}_0000.nii.gz for the first channel, _0001 for the second",
    )
