"""Where the files of a project lie: three folders, from options or from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from autoseg.errors import AutosegError, nearest_names

KINDS = ("raw", "preprocessed", "results")
LONGEST_NUMBER = 9  # digits of the number of a dataset


def root(kind: str, given: str | Path | None = None) -> Path:
    """The folder for ``kind`` (raw, preprocessed or results).

    Args:
        kind: which of the three.
        given: the folder when an option named it; otherwise the environment decides.

    Raises:
        AutosegError: neither is there.
    """
    variable = f"autoseg_{kind}"
    chosen = given or os.environ.get(variable)
    if not chosen:
        raise AutosegError(
            f"the folder for {kind} data is not known",
            found=f"no environment variable {variable}",
            expected=f"a folder, for example: export {variable}=$HOME/autoseg/{kind}",
            fix=f"set {variable}, or give the option --{kind} FOLDER",
        )
    return Path(chosen).expanduser()


def dataset_name(folder: Path, id_or_name: str | int) -> str:
    """The full name (``Dataset011_RatT2``) of the dataset in ``folder`` with this id or name.

    Args:
        folder: one of the three roots.
        id_or_name: ``11``, ``011``, ``RatT2`` or ``Dataset011_RatT2``.

    Raises:
        AutosegError: none or more than one fits.
    """
    wanted = str(id_or_name)
    if not folder.is_dir():
        raise AutosegError(
            "the folder of datasets is missing",
            where=str(folder),
            fix="check the folder; it holds one folder for each dataset, such as Dataset001_Name",
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
    raise AutosegError(
        f"there is no dataset '{wanted}'",
        where=str(folder),
        found=", ".join(names) or "no dataset at all",
        expected="a folder DatasetNNN_Name with dataset.json, imagesTr and labelsTr",
        fix=nearest_names(wanted, names),
    )


def _fits(name: str, wanted: str) -> bool:
    parts = re.fullmatch(r"Dataset(\d{3,})_(.+)", name)
    if name == wanted or parts is None:
        return name == wanted
    if wanted.isdecimal() and len(wanted) <= LONGEST_NUMBER:
        return int(wanted) == int(parts[1])
    return wanted == parts[2]
