"""What there is to predict: the cases of a folder by the names of its files, and every file that is left out."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoseg import messages
from autoseg.dataset.dataset_json import FILE_ENDINGS, DatasetJson
from autoseg.dataset.raw_layout import Case, name_fault, split_name
from autoseg.dataset.unread_layouts import is_dicom, unread_layout
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import files_below, readable
from autoseg.messages import count_of

Channels = dict[int, list[Path]]
"""Channel number to the files that claim to be it, sorted."""


def list_images(path: Path | str, info: DatasetJson) -> list[Case]:
    """The cases to predict. Files of a folder that are left out are named in a warning.

    Args:
        path: a folder of ``CASE_0000.nii.gz`` and so on in any format that autoseg reads; or one such file,
            which stands for its case. With one channel a single file may have any name, and files whose number is
            not 0000 are cases of their own where there is no such file.
        info: what the model was trained on.

    Returns:
        Sorted by name. Those with a fault cannot be predicted; at least one has none.

    Raises:
        AutosegError: there is nothing to predict.
        FaultsError: no case can be predicted.
    """
    path, n_channels = Path(path), len(info.channel_names)
    _refuse_missing(path)
    found = _in_folder(path, info) if path.is_dir() else _of_file(path, info)
    if not found:
        raise _nothing_to_predict(path, info.channel_names)
    if n_channels == 1:
        found = _own_cases(found)
    cases = [_case(name, files, info.channel_names) for name, files in sorted(found.items())]
    faults = [case.fault for case in cases if case.fault]
    if len(faults) == len(cases):
        title = f"{count_of(len(cases), 'case')}, of which none can be predicted"
        raise FaultsError(f"{readable(path)}: {title}", faults)
    return cases


def refuse_missing_images(path: Path) -> None:
    """Refuse what needs no model to be seen.

    Raises:
        AutosegError: there is nothing, or an empty folder.
    """
    _refuse_missing(path)
    with contextlib.suppress(OSError):  # of a folder that cannot be read its reading tells
        if path.is_dir() and not any(path.iterdir()):
            raise AutosegError(
                "there is nothing to predict",
                where=readable(path),
                found="an empty folder",
                expected=f"for each case CASE_0000 and so on, ending in {', '.join(FILE_ENDINGS)}",
                fix="check the path",
            )


def _refuse_missing(path: Path) -> None:
    if not path.exists() and not path.is_symlink():  # of a link that points nowhere its reading tells
        raise AutosegError("there is no such file or folder", where=readable(path), fix="check the path")


# ------------------------------------------------------------------------------------------- files to cases


def folder_entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but for what is hidden.

    Raises:
        AutosegError: it cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise AutosegError(
            "the folder cannot be read", where=readable(folder), found=error.strerror or error
        ) from None


def numbered_files(folder: Path) -> bool:
    """Whether a folder holds files that are called ``CASE_0000.nii.gz`` and so on."""
    return bool(_sort_files(folder)[0])


def _in_folder(folder: Path, info: DatasetJson) -> dict[str, Channels]:
    """Case to its files; the other files of the folder are warned of."""
    cases, unused = _sort_files(folder)
    if cases:
        _warn_of_unused(folder, unused)
    return cases


def _of_file(path: Path, info: DatasetJson) -> dict[str, Channels]:
    """The case of one file, with its other channels beside it; empty for a name that does not fit."""
    parts, n_channels = split_name(path.name), len(info.channel_names)
    if parts is None or (parts[1] is None and n_channels > 1):
        return {}
    name, number, _ = parts
    if number is None:
        return {name: {0: [path]}}
    channels = _sort_files(path.parent)[0].get(name, {})
    if n_channels == 1 and number and 0 not in channels:  # others of such names are not asked for
        return {name: {number: [path]}}
    return {name: channels}


def _sort_files(folder: Path) -> tuple[dict[str, Channels], list[Path]]:
    """The files of a folder by case and channel, and those that are of no case; hidden ones are neither.

    With the latter are folders that are called like scans.
    """
    cases: dict[str, Channels] = defaultdict(lambda: defaultdict(list))
    unused = []
    for entry in folder_entries(folder):
        parts = split_name(entry.name)
        if entry.is_dir():  # others are ordinary subfolders
            unused += [entry] if parts is not None else []
        elif parts is None or parts[1] is None:
            unused.append(entry)
        else:
            cases[parts[0]][parts[1]].append(entry)
    return dict(cases), unused


def _own_cases(found: dict[str, Channels]) -> dict[str, Channels]:
    """For one channel: numbers are those of scans where none is 0000, as in ``rat_0012``, ``rat_0013``."""
    cases, taken = {}, []
    for name, channels in found.items():
        if 0 in channels:
            cases[name] = channels
            continue
        for number, files in channels.items():
            cases[f"{name}_{number:04d}"] = {0: files}
            taken += files
    if taken:
        names = _lines(readable(file.name) for file in taken)
        messages.warn(
            f"taken for cases of their own, as the model has one channel and no file is _0000: {len(taken)}{names}"
        )
    return cases


def _case(name: str, files: Channels, channels: dict[str, str]) -> Case:
    """A case of a model with these channels, with its fault if it has one."""
    paths = [path for number in sorted(files) for path in files[number]]
    fault = name_fault(name) or _channel_fault(name, files, channels)
    return Case(readable(name), tuple(paths), fault=fault)


# ----------------------------------------------------------------------------------------------- what is wrong


def _channel_fault(name: str, files: Channels, channels: dict[str, str]) -> Fault | None:
    expected = ", ".join(f"_{int(i):04d} ({channel})" for i, channel in channels.items())
    found = ", ".join(f"_{i:04d}" for i in sorted(files))
    if sorted(files) != list(range(len(channels))):
        fix = "give the model the channels that it was trained with"
        if max(files) >= len(channels):  # a number that is no channel of the model: perhaps that of a scan
            fix += f"; a scan whose own number is {max(files):04d} is called {name}_{max(files):04d}_0000"
        problem = f"{count_of(len(files), 'channel')} where the model needs {len(channels)}"
        return Fault(name, problem, found, expected, fix)
    twice = [entry.name for entries in files.values() if len(entries) > 1 for entry in entries]
    if twice:
        fix = "keep one of them in the folder"
        return Fault(name, "one channel in two files", ", ".join(twice), "one file per channel", fix)
    return None


# ------------------------------------------------------------------------------------------- what is left out


def _warn_of_unused(folder: Path, unused: Sequence[Path]) -> None:
    if unused:
        lines = _lines(f"{readable(path.name)}: {_why_unused(path)}" for path in unused)
        messages.warn(f"files of {readable(folder)} that are of no case and not used: {len(unused)}{lines}")


def _why_unused(path: Path) -> str:
    """What a file should be called to be a case, or what it is."""
    name = readable(path.name)
    if path.is_dir():
        return "a folder, where a file is expected"
    ending = next((e for e in FILE_ENDINGS if name.lower().endswith(e)), None)
    if ending is None:
        dicom = "a DICOM file, convert it with dcm2niix"
        return dicom if is_dicom(path) else f"its ending is none of {', '.join(FILE_ENDINGS)}"
    stem = name[: -len(ending)]
    numbered = re.fullmatch(r"(.+)_(\d+)", stem)
    if numbered and len(numbered[2]) != 4 and int(numbered[2]) < 10_000:
        return f"a channel has four digits, expected {numbered[1]}_{int(numbered[2]):04d}{ending}"
    if not re.fullmatch(r".+_\d{4}", stem):
        stem += "_0000"
    return f"expected {stem}{ending}" + ("" if name.endswith(ending) else ", with a lower-case ending")


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"\n    {text}" for text in texts)


def _nothing_to_predict(path: Path, channels: dict[str, str]) -> AutosegError:
    names = ", ".join(f"CASE_{int(i):04d} ({channel})" for i, channel in channels.items())
    expected = f"for each case: {names}; ending in {', '.join(FILE_ENDINGS)}"
    if (error := unread_layout(path, expected)) is not None:
        return error
    found = f"{path.name}: {_why_unused(path)}"
    if path.is_dir():
        unused = _sort_files(path)[1]
        found = "no file with such a name" + _lines(f"{readable(p.name)}: {_why_unused(p)}" for p in unused)
        inner = next((p for p in files_below(path) if p.parent != path and split_name(p.name)), None)
        found += f"; deeper within lies {readable(inner.relative_to(path))}" if inner is not None else ""
    return AutosegError(
        "there is nothing to predict",
        where=readable(path),
        found=found,
        expected=expected,
        fix="name the files by case and channel, or name them to autoseg_predict: --channels, or a table with -i"
        + ("; no _0000 is needed for a model of one channel" if len(channels) == 1 else ""),
    )
