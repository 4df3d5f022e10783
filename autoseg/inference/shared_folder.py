"""A folder of predictions that several processes fill, each with a part of the cases.

Each part has a lock and a record of its own, so no two write one file. The last of those at work puts the records
together as prediction.json. A run over all cases and parts of another number have the folder for themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from autoseg.dataset.part import CasesPart
from autoseg.files import exclusive, is_locked
from autoseg.inference import prediction_record as records

LOCK, PARTS_LOCK = ".lock", ".parts.lock"
DOING = "predicting into this folder"


@contextlib.contextmanager
def held(output: Path, part: CasesPart | None) -> Iterator[None]:
    """For the length of the block nobody else predicts these cases into a folder.

    Args:
        output: the folder.
        part: of the cases; None for all.

    Raises:
        AutosegError: another process predicts all cases, this part or one of another number.
    """
    if part is None:
        with exclusive(output / LOCK, doing=DOING):
            _refuse_held(_locks(output))
            records.gather_parts(output)
            yield
        return
    gate = partial(exclusive, output / PARTS_LOCK, doing="beginning or ending a part", wait=True)
    with contextlib.ExitStack() as own:
        with gate():
            own.enter_context(exclusive(_lock(output, part), doing=f"predicting part {part} of these cases"))
            siblings = _siblings(output, part)
            _refuse_held([output / LOCK, *_locks(output, but=[*siblings, _lock(output, part)])])
            _gather_as_last(output, siblings)
        yield
        with gate():
            _gather_as_last(output, siblings)
            own.close()


def _gather_as_last(output: Path, siblings: list[Path]) -> None:
    if not any(is_locked(path) for path in siblings):
        records.gather_parts(output)


def _lock(output: Path, part: CasesPart) -> Path:
    return output / f"{LOCK}.{part.name}"


def _siblings(output: Path, part: CasesPart) -> list[Path]:
    parts = (CasesPart(number, part.of) for number in range(1, part.of + 1) if number != part.number)
    return [_lock(output, one) for one in parts]


def _locks(output: Path, but: Sequence[Path] = ()) -> list[Path]:
    return sorted(set(output.glob(f"{LOCK}.part_*")) - set(but))


def _refuse_held(locks: list[Path]) -> None:
    """Whoever holds one of them predicts some of the same cases."""
    for path in locks:
        if path.exists():
            with exclusive(path, doing=DOING):
                pass
