"""Where results go: checked before any time is spent, and before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
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
    path: Path,
    inputs: Iterable[Path | str],
    folders_of: Callable[[dict[str, Any]], Iterable[str]],
    *,
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Refuse an output that cannot be written, or that would replace results of other inputs or settings.

    The same thing may be made again. Nothing is left behind.

    Args:
        path: the JSON file that will be written; its ``settings`` say how it was made.
        inputs: the folders that the results will be of.
        folders_of: what those of a file that is there already were, from its content.
        settings: see :func:`recorded`.
        overwrite: the user asked for it.

    Raises:
        AutosegError: it is refused.
    """
    check_folder(path.parent)
    if overwrite or not path.is_file():
        return
    try:
        content = read_json(path)
        there, before = [str(one) for one in folders_of(content)], _settings_of(content)
    except (AutosegError, KeyError, TypeError, AttributeError):  # not a file that could still be read
        return
    fix = "give another folder with -o, or replace them with --overwrite"
    if {Path(one).resolve() for one in there} != {Path(one).resolve() for one in inputs}:
        raise AutosegError(
            f"{path.name} is there, of other folders",
            where=str(path.parent),
            found=", ".join(there),
            expected="an empty folder, or the results of the same folders",
            fix=fix,
        )
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if changed:
        raise AutosegError(
            f"{path.name} is there, made with other settings",
            where=str(path.parent),
            found=", ".join(f"{key}: {before.get(key, 'not given')}" for key in changed),
            expected=", ".join(f"{key}: {settings.get(key, 'not given')}" for key in changed),
            fix=fix,
        )


def recorded(**options: Any) -> dict[str, Any]:
    """Options of a command as they stand in the file of its results: plain data, without those at their defaults."""
    plain = json.loads(json.dumps(options, default=str))
    return {
        key: value
        for key, value in plain.items()
        if value is not None and value is not False and value not in ([], {})
    }


def _settings_of(content: dict[str, Any]) -> dict[str, Any]:
    """Of a file of results; of one made from Python or by an earlier autoseg what can be told."""
    found = content.get("settings") or {}
    preset = content.get("preset", {}).get("name")
    return found or ({"preset": preset} if preset else {})
