"""Ordinary image files, of any name: one case for each file of a folder, or one case of files that are named."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg import messages
from autoseg.dataset.dataset_json import FILE_ENDINGS
from autoseg.dataset.images_to_predict import folder_entries
from autoseg.dataset.raw_layout import Case, Origin, name_fault
from autoseg.errors import AutosegError, Fault
from autoseg.files import readable
from autoseg.messages import count_of, some_of

MASK = re.compile(r"(^|[ ._-])(mask|msk|seg|dseg|label|labels|lesion)$", re.I)
"""How the names of masks end, which may lie beside the scans."""


def stem_of(path: Path) -> str | None:
    """The name of an image file without its ending, capitals or not; None for other files."""
    ending = next((e for e in FILE_ENDINGS if path.name.lower().endswith(e)), None)
    return path.name[: -len(ending)] if ending and path.name[: -len(ending)] else None


def ordinary_cases(folder: Path) -> list[Case]:
    """A case for each image file of a folder, for a model of one channel; the files that are left out are named.

    Left out are files that are no images, and those that are called like masks.

    Returns:
        Empty where there is no image.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    left_out = []
    for path in folder_entries(folder):
        stem = stem_of(path)
        if stem is None or path.is_dir() or MASK.search(stem):
            left_out.append(path)
        else:
            found[stem].append(path)
    if found and left_out:
        names = "".join(f"\n    {readable(p.name)}: {_why(p)}" for p in left_out)
        messages.warn(f"files of {readable(folder)} that are not used: {len(left_out)}{names}")
    return [_case(stem, paths) for stem, paths in sorted(found.items())]


def _case(stem: str, paths: Sequence[Path]) -> Case:
    fault = name_fault(stem)
    if fault is None and len(paths) > 1:
        there = ", ".join(readable(path.name) for path in paths)
        fault = Fault(stem, "one name, several files", there, "one file for each scan", "rename one of them")
    return Case(readable(stem), tuple(paths), fault=fault, origin=Origin(tuple(p.name for p in paths)))


def _why(path: Path) -> str:
    if path.is_dir():
        return "a folder; give it with -i by itself"
    if stem_of(path) is not None:
        return "called like a mask; if it is a scan, rename it or give it with -i by itself"
    return f"its ending is none of {', '.join(FILE_ENDINGS)}"


# ------------------------------------------------------------------------------------------------- named files


def case_of_channels(channels: Mapping[str, str], names: Sequence[str]) -> Case:
    """The case whose files are named, one for each channel; it is called like the first.

    Args:
        channels: name of a channel to its file.
        names: of the model's channels, in order.

    Raises:
        AutosegError: a channel is missing.
    """
    missing = [name for name in names if name not in channels]
    if missing:
        raise AutosegError(
            f"{count_of(len(missing), 'channel')} of the model without a file",
            where="--channels",
            found=some_of(list(channels)) or "no file",
            expected=" ".join(f"{name}=FILE" for name in names),
            fix=f"add {' '.join(f'{name}=FILE' for name in missing)}",
        )
    paths = tuple(Path(channels[name]).expanduser() for name in names)
    for name, path in zip(names, paths, strict=True):
        if not path.exists() and not path.is_symlink():
            raise AutosegError(
                "there is no such file",
                where=f"--channels {name}",
                found=readable(path),
                fix="check the path",
            )
        if path.is_dir():
            raise AutosegError(
                "is a folder",
                where=f"--channels {name}",
                found=readable(path),
                expected="an image file",
                fix="of DICOM give the folder around all series with -i, and say with --series which is which",
            )
    return named_case(stem_of(paths[0]) or paths[0].stem, paths)


def named_case(name: str, paths: tuple[Path, ...]) -> Case:
    """A case of files that somebody named one by one."""
    name = re.sub(r"(?<=.)_\d{4}$", "", name)
    return Case(readable(name), paths, fault=name_fault(name), origin=Origin(tuple(p.name for p in paths)))
