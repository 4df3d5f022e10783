"""Downloads of the SICAS Medical Image Repository (SMIR): a folder for each case, and one for each of its volumes.

The folder and the file in it have one name, such as ``VSD.Brain.XX.O.MR_ADC.128020``: where it was stored (VSD, later
SMIR), the organ, what it is (``MR_`` and a sequence, or ``OT`` for a mask), and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.messages import count_of, some_of

VOLUME = re.compile(r"(?:VSD|SMIR)\.Brain(?:_\w+)?\.XX\.\w+\.(?:MR_(\w+)|(OT))\.\d+", re.IGNORECASE)
MASK = "OT"
ARCHIVE_FOLDERS = (".", "__MACOSX")
"""What folders begin with that archives add."""


@dataclass(frozen=True)
class SmirCase:
    """One case.

    Attributes:
        folder: of the case; its name is that of the case.
        files: path for each of the wanted volumes, and under :data:`MASK` for the mask, where there is one.
    """

    folder: Path
    files: Mapping[str, Path]


def find_cases(root: Path, pattern: str, depth: int) -> list[Path]:
    """Folders of cases by their names, at the root or up to so many folders below it, in natural order.

    Args:
        root: of the download.
        pattern: that their names match in whole.
        depth: folders between root and cases, at most.

    Raises:
        AutosegError: no such folder, or no case in it.
    """
    if not root.is_dir():
        raise AutosegError("there is no such folder", where=str(root), fix="check the path")
    level, found = [root], []
    for _ in range(depth + 1):
        inside = [folder for parent in level for folder in folders_in(parent)]
        found += [folder for folder in inside if re.fullmatch(pattern, folder.name)]
        level = [folder for folder in inside if folder not in found]
    if not found:
        raise AutosegError(
            "there is no case in the expected layout",
            where=str(root),
            found=some_of(sorted(entry.name for entry in root.iterdir())) or "an empty folder",
            expected=f"folders named like {pattern}",
            fix="unpack the archive, and give the folder that it unpacks to",
        )
    return sorted(found, key=natural)


def folders_in(folder: Path) -> list[Path]:
    """Its folders, without those that archives add."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(ARCHIVE_FOLDERS))


def natural(path: Path) -> tuple[int | str, ...]:
    """Sorts ``training_2`` before ``training_10``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name))  # type: ignore[misc]


def read_cases(
    root: Path, folders: Iterable[Path], wanted: Sequence[str], ending: str, unmasked: Iterable[Path] = ()
) -> list[SmirCase]:
    """The volumes of cases.

    Args:
        root: of the download, for messages.
        folders: of the cases.
        wanted: sequences that each case needs, such as ``ADC``; capitals do not matter.
        ending: of the files.
        unmasked: folders of cases that need no mask.

    Raises:
        FaultsError: cases that lack a volume or have it twice, and names that are there twice, all of them.
    """
    faults: list[Fault] = []
    free, seen, cases = set(unmasked), dict[str, Path](), []
    for folder in folders:
        where = folder.relative_to(root).as_posix()
        if (other := seen.setdefault(folder.name, folder)) != folder:
            fix = "give the folder of one release"
            faults.append(Fault(where, "this case is there twice", str(other.relative_to(root)), "once", fix))
        needed = [*wanted, *([] if folder in free else [MASK])]
        files, more = _volumes(folder, where, needed, ending)
        faults += more
        cases.append(SmirCase(folder, files))
    if faults:
        raise FaultsError(
            f"{root}: {count_of(len(faults), 'fault')} in {count_of(len(cases), 'case')}", faults
        )
    return cases


def _volumes(
    folder: Path, where: str, needed: Sequence[str], ending: str
) -> tuple[dict[str, Path], list[Fault]]:
    """The files of a case by what they are, and what is wrong with them."""
    there: dict[str, list[Path]] = {}
    for path in sorted((*folder.glob(f"*{ending}"), *folder.glob(f"*/*{ending}"))):
        found = None if path.name.startswith(".") else VOLUME.fullmatch(path.name.removesuffix(ending))
        if found is not None:
            there.setdefault((found[1] or found[2]).casefold(), []).append(path)
    files, faults = {}, []
    for kind in dict.fromkeys((*needed, MASK)):
        paths = there.get(kind.casefold(), [])
        if len(paths) > 1:
            others = ", ".join(path.name for path in paths)
            fix = "move what is not to be converted out of ROOT"
            faults.append(Fault(where, f"{_title(kind)} is there more than once", others, "one file", fix))
        elif paths:
            files[kind] = paths[0]
    if missing := [kind for kind in needed if not there.get(kind.casefold())]:
        problem = "incomplete: no " + ", no ".join(map(_title, missing))
        expected = ", ".join(
            f"...{kind if kind == MASK else f'MR_{kind}'}.NUMBER{ending}" for kind in missing
        )
        found_names = ", ".join(sorted(there)) or "no volume"
        fix = "complete it from the archive, or move the case out of ROOT"
        faults.append(Fault(where, problem, found_names, expected, fix))
    return files, faults


def _title(kind: str) -> str:
    return "mask" if kind == MASK else kind
