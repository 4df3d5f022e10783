"""Which cases train and which validate: nnU-Net's five folds, or folds written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, Fault, FaultsError, StaleError, nearest_names
from autoseg.files import read_json, write_json


@dataclass(frozen=True)
class Fold:
    """One division of the cases, by name, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_folds(names: Iterable[str], n_folds: int = 5, seed: int = 12345) -> list[Fold]:
    """Divide the cases so that each validates exactly once.

    The defaults give nnU-Net's folds: scikit-learn's shuffled ``KFold`` over the sorted names.

    Args:
        names: of the cases, in any order.
        n_folds: as many folds as cases when there are fewer cases.
        seed: of the shuffle.

    Returns:
        The folds; none for a single case, which cannot be divided.
    """
    from sklearn.model_selection import KFold

    ordered = sorted(names)
    if len(ordered) < 2:
        return []
    division = KFold(min(n_folds, len(ordered)), shuffle=True, random_state=seed).split(ordered)
    return [
        Fold(tuple(ordered[i] for i in train), tuple(ordered[i] for i in held)) for train, held in division
    ]


def left_out(names: Iterable[str], part: tuple[int, int] | None) -> tuple[str, ...]:
    """Part k of n of the cases, ``part = (k, n)``: every n-th by name from the k-th on; none for None."""
    return () if part is None else tuple(sorted(names)[part[0] :: part[1]])


def load_or_make_folds(path: Path, names: Iterable[str]) -> list[Fold]:
    """The folds of a dataset, written once and then kept.

    Args:
        path: ``splits.json``, a list of ``{"train": [...], "val": [...]}`` as nnU-Net's ``splits_final.json``.
        names: of all cases of the dataset.

    Raises:
        FaultsError: the file, perhaps written by hand, contradicts itself.
        StaleError: the dataset has other cases than the file.
    """
    names = sorted(names)
    if path.exists():
        folds = _read(path)
        _refuse_stale(path, folds, names)
        return folds
    folds = make_folds(names)
    if folds:
        write_folds(path, folds)
    return folds


def write_folds(path: Path, folds: Iterable[Fold]) -> None:
    """Write splits.json."""
    write_json(path, [{"train": list(fold.train), "val": list(fold.validation)} for fold in folds])


def take_given_folds(given: Path, path: Path, names: Iterable[str]) -> None:
    """Let a training use the folds that came with the raw dataset.

    Args:
        given: ``splits.json`` in the raw dataset; nothing happens without one.
        path: ``splits.json`` of the prepared dataset, which the training reads; written when it is not there.
        names: of all cases of the dataset.

    Raises:
        FaultsError: the given file contradicts itself.
        StaleError: it does not fit the cases, or other folds are in use already.
    """
    if not given.exists():
        return
    folds = _read(given)
    _refuse_stale(given, folds, sorted(names))
    if not path.exists():
        write_folds(path, folds)
    elif _read(path) != folds:
        raise StaleError(
            "the folds in use are not those that came with the raw dataset",
            where=str(path),
            found="other folds",
            expected=f"those of {given}",
            fix="delete the first file to use the folds of the raw dataset, or the second to keep those in use",
        )


def _read(path: Path) -> list[Fold]:
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise AutosegError(
            "is not a list of folds",
            where=str(path),
            found=repr(content)[:60],
            expected='[{"train": [case, ...], "val": [case, ...]}, ...]',
            fix="correct the file, or delete it to have folds made",
        )
    faults = [fault for i, entry in enumerate(content) for fault in _faults(f"fold {i}", entry)]
    if faults:
        raise FaultsError(f"{path}: {len(faults)} faults", faults)
    return [Fold(*(tuple(sorted(entry[key])) for key in ("train", "val"))) for entry in content]


def _faults(where: str, entry: Any) -> list[Fault]:
    if not isinstance(entry, dict) or set(entry) != {"train", "val"}:
        keys = ", ".join(entry) if isinstance(entry, dict) else repr(entry)[:60]
        return [Fault(where, "has other parts", keys, "train and val", "name the two lists train and val")]
    faults = []
    for key, cases in entry.items():
        if not isinstance(cases, list) or not cases or not all(isinstance(name, str) for name in cases):
            expected = "a list of at least one case name"
            faults.append(Fault(where, f"{key} names no cases", repr(cases)[:60], expected, "name the cases"))
        elif len(set(cases)) < len(cases):
            twice = _some(sorted({name for name in cases if cases.count(name) > 1}))
            faults.append(Fault(where, f"{key} names a case twice", twice, "every case once", "remove one"))
    if not faults and (both := sorted(set(entry["train"]) & set(entry["val"]))):
        fix = "take them out of train or val"
        faults.append(Fault(where, "cases train and validate", _some(both), "one or the other", fix))
    return faults


def _refuse_stale(path: Path, folds: Sequence[Fold], names: Sequence[str]) -> None:
    divided = {name for fold in folds for name in (*fold.train, *fold.validation)}
    new, gone = sorted(set(names) - divided), sorted(divided - set(names))
    if not new and not gone:
        return
    changes = [f"not in the file: {_some(new)}"] if new else []
    changes += [f"no longer in the dataset: {_some(gone)}"] if gone else []
    hint = f" ({nearest_names(gone[0], names)})" if len(gone) == 1 else ""
    raise StaleError(
        "the folds were made from other cases than the dataset has now",
        where=str(path),
        found="; ".join(changes) + hint,
        expected=f"the {len(names)} cases of the dataset, each in at least one fold",
        fix="edit the file to keep the folds of trained models, or delete it to have new folds made",
    )


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
