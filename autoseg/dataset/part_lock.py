"""A folder that several processes fill, each with a part of the cases: predictions, or the store of a plan.

Each part has a lock of its own. A run over all cases and parts of another number have the folder for themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from autoseg.dataset.part import CasesPart
from autoseg.files import exclusive, is_locked

LOCK, PARTS_LOCK = ".lock", ".parts.lock"


@contextlib.contextmanager
def exclusive_part(
    folder: Path, part: CasesPart | None, *, doing: str, alone: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """For the length of the block nobody else works on these cases of a folder.

    Args:
        folder: that is filled.
        part: of the cases; None for all.
        doing: what is being done, for the message to whoever comes second.
        alone: called while nobody else is at work: at the beginning, and by the last of the parts at its end.

    Raises:
        AutosegError: another process works on all cases, this part or one of another number.
    """
    if part is None:
        with exclusive(folder / LOCK, doing=doing):
            _refuse_held(_locks(folder), doing)
            alone()
            yield
        return
    gate = partial(exclusive, folder / PARTS_LOCK, doing="beginning or ending a part", wait=True)
    own, siblings = _lock(folder, part), _siblings(folder, part)
    with contextlib.ExitStack() as held:
        with gate():
            held.enter_context(exclusive(own, doing=f"{doing}, part {part}"))
            _refuse_held([folder / LOCK, *_locks(folder, but=[*siblings, own])], doing)
            _call_alone(alone, siblings)
        yield
        with gate():
            _call_alone(alone, siblings)
            held.close()


def _call_alone(alone: Callable[[], object], siblings: Sequence[Path]) -> None:
    if not any(is_locked(path) for path in siblings):
        alone()


def _lock(folder: Path, part: CasesPart) -> Path:
    return folder / f"{LOCK}.{part.name}"


def _siblings(folder: Path, part: CasesPart) -> list[Path]:
    parts = (CasesPart(number, part.of) for number in range(1, part.of + 1) if number != part.number)
    return [_lock(folder, one) for one in parts]


def _locks(folder: Path, but: Sequence[Path] = ()) -> list[Path]:
    return sorted(set(folder.glob(f"{LOCK}.part_*")) - set(but))


def _refuse_held(locks: Sequence[Path], doing: str) -> None:
    """Whoever holds one of them works on some of the same cases."""
    for path in locks:
        if path.exists():
            with exclusive(path, doing=doing):
                pass
