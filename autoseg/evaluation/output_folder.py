"""Where results go: checked before any time is spent, and before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from autoseg.files import check_writable, read_json


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written to, or not be made; it is not made yet.

    Raises:
        AutosegError: it is refused.
    """
    folder = folder.resolve()
    check_writable(next(part for part in (folder, *folder.parents) if part.exists()))


def check_output(
    path: Path, inputs: Iterable[Path | str], folders_of: Callable[[dict[str, Any]], Iterable[str]]
) -> None:
    """Refuse an output that cannot be written, or that would replace results of other inputs.

    The same thing may be made again, with other options too. Nothing is left behind.

    Args:
        path: the JSON file that will be written.
        inputs: the folders that the results will be of.
        folders_of: what those of a file that is there already were, from its content.

    Raises:
        AutosegError: it is refused.
    """
    check_folder(path.parent)
    if not path.is_file():
        return
    try:
        there = [str(one) for one in folders_of(read_json(path))]
    except (AutosegError, KeyError, TypeError, AttributeError):  # not a file that could still be read
        return
    if {Path(one).resolve() for one in there} != {Path(one).resolve() for one in inputs}:
        raise AutosegError(
            f"{path.name} is there, of other folders",
            where=str(path.parent),
            found=", ".join(there),
            expected="an empty folder, or the results of the same folders",
            fix="give another folder with -o, or remove that file",
        )
