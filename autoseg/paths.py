"""Where the files of a project lie: three folders, from options or from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from autoseg.errors import AutosegError, nearest_names

KINDS = ("raw", "preprocessed", "results")
LONGEST_NUMBER = 9  # digits of the number of a dataset


def roots(**given: str | Path | None) -> list[Path]:
    """The folders of several kinds; all that are not known are said at once.

    Args:
        given: by kind, as of :func:`root`.

    Raises:
        AutosegError: some are not there.
    """
    chosen = {kind: folder or os.environ.get(f"autoseg_{kind}") for kind, folder in given.items()}
    missing = [kind for kind, folder in chosen.items() if not folder]
    if missing:
        variables, several = [f"autoseg_{kind}" for kind in missing], len(missing) > 1
        settings = (f"autoseg_{kind}=$HOME/autoseg/{kind}" for kind in missing)
        raise AutosegError(
            f"the folder{'s' * several} for {' and '.join(missing)} data {'are' if several else 'is'} not known",
            found=f"no environment variable{'s' * several} {', '.join(variables)}",
            expected=f"{'folders' if several else 'a folder'}, for example: export {' '.join(settings)}",
            fix=f"set {' and '.join(variables)}, or give the option{'s' * several} "
            + " ".join(f"--{kind} FOLDER" for kind in missing),
        )
    return [Path(folder).expanduser() for folder in chosen.values() if folder]


def root(kind: str, given: str | Path | None = None) -> Path:
    """The folder for ``kind`` (raw, preprocessed or results).

    Args:
        kind: which of the three.
        given: the folder when an option named it; otherwise the environment decides.

    Raises:
        AutosegError: neither is there.
    """
    return roots(**{kind: given})[0]


def dataset_name(folder: Path, id_or_name: str | int, *, first: str = "") -> str:
    """The full name (``Dataset011_RatT2``) of the dataset in ``folder`` with this id or name.

    Args:
        folder: one of the three roots.
        id_or_name: ``11``, ``011``, ``RatT2`` or ``Dataset011_RatT2``.
        first: what puts a dataset there, to be done where there is none; nothing for raw data.

    Raises:
        AutosegError: none or more than one fits.
    """
    wanted = str(id_or_name)
    if not folder.is_dir():
        raise AutosegError(
            "the folder of datasets is missing",
            where=str(folder),
            fix=first or "check the folder; it holds one folder for each dataset, such as Dataset001_Name",
        )
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    fitting = [name for name in names if _fits(name, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise AutosegError(
            f"more than one dataset fits '{wanted}'",
            where=str(folder),
            found=", ".join(fitting),
            expected="one",
            fix="give the full name, or renumber one of them",
        )
    hint = nearest_names(wanted, names) if names else "check the path"
    if first and not hint.startswith("did you mean"):
        hint = ""  # what stands there is said already
    raise AutosegError(
        f"there is no dataset '{wanted}'",
        where=str(folder),
        found=", ".join(names) or "no dataset at all",
        expected=f"a folder DatasetNNN_Name{'' if first else ' with dataset.json, imagesTr and labelsTr'}",
        fix=" Or ".join(filter(None, (hint, first))),
    )


def _fits(name: str, wanted: str) -> bool:
    parts = re.fullmatch(r"Dataset(\d{3,})_(.+)", name)
    if name == wanted or parts is None:
        return name == wanted
    if wanted.isdecimal() and len(wanted) <= LONGEST_NUMBER:
        return int(wanted) == int(parts[1])
    return wanted == parts[2]
