"""raw_files.json: size and time of each raw file when the dataset was prepared, so that a change is noticed at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from autoseg import messages
from autoseg.dataset.examine import hash_files
from autoseg.dataset.raw_layout import Case, RawDataset
from autoseg.dataset.text_header import files_of
from autoseg.errors import AutosegError
from autoseg.files import ExactModel, read_model
from autoseg.fingerprint import Fingerprint

FILE_NAME = "raw_files.json"


class RawFiles(ExactModel):
    """raw_files.json.

    Attributes:
        cases: case to file (relative to the raw dataset) to its size in bytes and its time of change in ns.
    """

    version: Literal[1] = 1
    cases: dict[str, dict[str, tuple[int, int]]]


def look_at_files(raw: RawDataset, names: Iterable[str] | None = None) -> RawFiles:
    """Size and time of the files of these cases, or of all; no pixels are read. Files that are missing are left out."""
    wanted = None if names is None else set(names)
    return RawFiles(
        cases={
            case.name: _look_at(case, raw.folder)
            for case in raw.cases
            if wanted is None or case.name in wanted
        }
    )


def _look_at(case: Case, folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for image in (*case.images, *([case.mask] if case.mask else [])):
        for path in _files_of(image) if image.is_file() else []:
            state = path.stat()
            found[os.path.relpath(path, folder)] = (state.st_size, state.st_mtime_ns)
    return found


def _files_of(image: Path) -> list[Path]:
    """With the file that a header names for its pixels; alone where that cannot be told."""
    try:
        return files_of(image)
    except (AutosegError, OSError):
        return [image]


def changed_cases(raw: RawDataset, fingerprint: Fingerprint, folder: Path, names: Sequence[str]) -> list[str]:
    """Which of the cases have other raw files than those that were prepared.

    Cases without any raw file are passed over: the data may lie on another machine.

    Args:
        raw: the dataset as it is now.
        fingerprint: of the dataset as it was prepared.
        folder: of the prepared dataset.
        names: the cases to look at.
    """
    now, before = look_at_files(raw, names).cases, _read(folder).cases
    doubtful = [case for case in raw.cases if now.get(case.name) and now[case.name] != before.get(case.name)]
    if not doubtful:
        return []
    messages.info(
        f"comparing {len(doubtful)} of {len(names)} cases with the prepared ones by hash: "
        "their raw files have other times or sizes"
    )
    hashes = {case.name: case.content_hash for case in fingerprint.cases}
    return [case.name for case in doubtful if hash_files(case) != hashes.get(case.name)]


def _read(folder: Path) -> RawFiles:
    """As it was written; empty for what an earlier autoseg prepared, so that the hashes decide."""
    path = folder / FILE_NAME
    try:
        return read_model(path, RawFiles) if path.exists() else RawFiles(cases={})
    except AutosegError:
        return RawFiles(cases={})
