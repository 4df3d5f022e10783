"""Which cases train, validate and test: nnU-Net's five folds, folds with a third part, or folds written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import AutosegError, Fault, FaultsError, StaleError, nearest_names
from autoseg.files import read_json, write_json
from autoseg.messages import count_of, some_of
from autoseg.names import EXPECTED, is_name, shown

if TYPE_CHECKING:
    from autoseg.plan import Stage

PARTS = {"train": "train", "val": "validate", "test": "test"}
"""The parts of an entry of splits.json, and what the cases of each do. A third part is optional."""

N_FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """One division of the cases, by name, sorted.

    Attributes:
        train: cases that the weights are learned from.
        validation: cases that a training is watched with, and that thresholds are tuned on where the recipe tunes.
        test: cases that have no part in any choice; empty where the validation cases are scored.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The parts as splits.json names them; without an empty test part."""
        parts = {"train": self.train, "val": self.validation}
        return {**parts, "test": self.test} if self.test else parts


def make_folds(
    names: Iterable[str],
    n_folds: int = N_FOLDS,
    seed: int = 12345,
    *,
    with_test: bool = False,
    subjects: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
) -> list[Fold]:
    """Divide the cases into parts, and let each part validate exactly once (and test once, ``with_test``).

    The defaults give nnU-Net's folds: scikit-learn's shuffled ``KFold`` over the sorted names.

    Args:
        names: of the cases, in any order.
        n_folds: as many folds as subjects when there are fewer subjects.
        seed: of the shuffle.
        with_test: fold i tests on part i, validates on part i + 1 (the last one on part 0) and trains on the rest.
        subjects: case to subject; all cases of a subject are in one part. Cases without one are subjects of their own.
        strata: case to its group; the cases of a group are spread evenly over the parts. None for no groups.

    Returns:
        The folds; none for a single subject, which cannot be divided.

    Raises:
        AutosegError: fewer folds or subjects than there are kinds of parts.
    """
    ordered, needed = sorted(names), 3 if with_test else 2
    groups = _by_subject(ordered, subjects or {})
    if n_folds < needed or (with_test and len(groups) < needed):
        raise AutosegError(
            f"cases cannot be divided into {needed} kinds of parts",
            found=f"{count_of(n_folds, 'fold')} of {count_of(len(groups), 'case or subject', 'cases or subjects')}",
            expected=f"at least {needed} of each",
            fix="ask for more folds, or for folds without a test part",
        )
    if len(groups) < 2:
        return []
    n_parts = min(n_folds, len(groups))
    parts = _parts(groups, n_parts, seed) if strata is None else _spread(groups, n_parts, seed, strata)
    folds = []
    for i, part in enumerate(parts):
        test, held = (part, parts[(i + 1) % len(parts)]) if with_test else ([], part)
        train = sorted(set(ordered) - set(test) - set(held))
        folds.append(Fold(tuple(train), tuple(sorted(held)), tuple(sorted(test))))
    return folds


def _by_subject(ordered: Sequence[str], subjects: Mapping[str, str]) -> list[list[str]]:
    """The cases of each subject, in the order of their first cases."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for name in ordered:
        groups.setdefault((name in subjects, subjects.get(name, name)), []).append(name)
    return list(groups.values())


def _parts(groups: Sequence[Sequence[str]], n_parts: int, seed: int) -> list[list[str]]:
    """Groups put together to parts of about equal size.

    Groups of one size are cut as scikit-learn's KFold does; of groups of many sizes the largest come first, in the
    shuffled order, each into the part that has fewest cases so far.
    """
    from sklearn.model_selection import KFold
    from sklearn.utils import check_random_state

    if len({len(group) for group in groups}) == 1:
        division = KFold(n_parts, shuffle=True, random_state=seed).split(groups)
        return [[name for i in held for name in groups[i]] for _, held in division]
    shuffled = check_random_state(seed).permutation(len(groups)).tolist()
    parts: list[list[str]] = [[] for _ in range(n_parts)]
    for i in sorted(shuffled, key=lambda i: -len(groups[i])):
        min(parts, key=len).extend(groups[i])
    return parts


def _spread(
    groups: Sequence[Sequence[str]], n_parts: int, seed: int, strata: Mapping[str, str]
) -> list[list[str]]:
    """Groups put together to parts that are alike in strata and in size.

    Stratum by stratum, the largest groups first, in the shuffled order, each into the part with the fewest cases of its
    stratum, of several such into the one with the fewest cases so far. A group is of the stratum of most of its cases.
    """
    from sklearn.utils import check_random_state

    of = [Counter(strata[name] for name in group).most_common(1)[0][0] for group in groups]
    shuffled = check_random_state(seed).permutation(len(groups)).tolist()
    parts: list[list[str]] = [[] for _ in range(n_parts)]
    for stratum in sorted(set(of)):
        here = [0] * n_parts
        for i in sorted((i for i in shuffled if of[i] == stratum), key=lambda i: -len(groups[i])):
            part = min(range(n_parts), key=lambda p: (here[p], len(parts[p])))
            parts[part].extend(groups[i])
            here[part] += len(groups[i])
    return parts


def divide_once(
    names: Iterable[str],
    shares: Sequence[int],
    seed: int = 12345,
    *,
    subjects: Mapping[str, str] | None = None,
) -> Fold:
    """Divide the cases once, in given proportions, with the cases of a subject together.

    Subjects come in a shuffled order, those with most cases first, each into the part that lags furthest behind its
    share. So subjects with many cases are spread over the parts as the others are, the numbers of the proportions are
    met exactly where they add up to the number of cases and each subject has one, and no part is empty.

    Args:
        names: of the cases, in any order.
        shares: of train, validation and test, such as 182, 26, 31; or of train and validation.
        seed: of the shuffle.
        subjects: see :func:`make_folds`.

    Raises:
        AutosegError: fewer subjects than parts.
    """
    from sklearn.utils import check_random_state

    groups = _by_subject(sorted(names), subjects or {})
    if len(groups) < len(shares):
        raise AutosegError(
            f"cases cannot be divided into {len(shares)} parts",
            found=count_of(len(groups), "case or subject", "cases or subjects"),
            expected=f"at least {len(shares)}",
            fix="ask for fewer parts, or leave the proportions out",
        )
    shuffled = check_random_state(seed).permutation(len(groups)).tolist()
    parts: list[list[str]] = [[] for _ in shares]
    for i in sorted(shuffled, key=lambda i: -len(groups[i])):
        lag = [len(part) / share for part, share in zip(parts, shares, strict=True)]
        parts[lag.index(min(lag))].extend(groups[i])
    return Fold(*(tuple(sorted(part)) for part in parts))


def left_out(names: Iterable[str], part: tuple[int, int] | None) -> tuple[str, ...]:
    """Part k of n of the cases, ``part = (k, n)``: every n-th by name from the k-th on; none for None."""
    return () if part is None else tuple(sorted(names)[part[0] :: part[1]])


def held_back(fold: Fold, stage: Stage) -> tuple[str, ...]:
    """The training cases of a fold that a stage does not train on, by ``leave_out`` and ``leave_out_in``."""
    if stage.leave_out is None or (stage.leave_out_in == "two_part_folds" and fold.test):
        return ()
    return left_out(fold.train, stage.leave_out)


def watched_cases(fold: Fold, stage: Stage) -> tuple[str, ...]:
    """The cases that a stage is validated on while it trains: those it leaves out, else the validation part."""
    return held_back(fold, stage) or fold.validation or fold.train


def load_or_make_folds(
    path: Path, names: Iterable[str], subjects: Mapping[str, str] | None = None
) -> list[Fold]:
    """The folds of a dataset, written once and then kept.

    Args:
        path: ``splits.json``, a list of ``{"train": [...], "val": [...]}`` as nnU-Net's ``splits_final.json``; an entry
            may have a third part, ``test``.
        names: of all cases of the dataset.
        subjects: see :func:`make_folds`.

    Raises:
        FaultsError: the file, perhaps written by hand, contradicts itself or tears a subject apart.
        StaleError: the dataset has other cases than the file.
    """
    names = sorted(names)
    if path.exists():
        return read_folds(path, names, subjects)
    folds = make_folds(names, subjects=subjects)
    if folds:
        write_folds(path, folds)
    return folds


def read_folds(path: Path, names: Iterable[str], subjects: Mapping[str, str] | None = None) -> list[Fold]:
    """The folds of a file.

    Raises: as :func:`load_or_make_folds`.
    """
    folds = _read(path)
    _refuse_stale(path, folds, sorted(names))
    refuse_torn(path, folds, subjects or {})
    return folds


def write_folds(path: Path, folds: Iterable[Fold]) -> None:
    """Write splits.json."""
    write_json(path, [{part: list(names) for part, names in fold.parts.items()} for fold in folds])


def take_given_folds(
    given: Path, path: Path, names: Iterable[str], subjects: Mapping[str, str] | None = None
) -> None:
    """Let a training use the folds that came with the raw dataset.

    Args:
        given: ``splits.json`` in the raw dataset; nothing happens without one.
        path: ``splits.json`` of the prepared dataset, which the training reads; written when it is not there.
        names: of all cases of the dataset.
        subjects: see :func:`make_folds`.

    Raises:
        FaultsError: the given file contradicts itself or tears a subject apart.
        StaleError: it does not fit the cases, or other folds are in use already.
    """
    if not given.exists():
        return
    folds = read_folds(given, names, subjects)
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


def refuse_damaged(path: Path) -> None:
    """A splits.json that cannot be read is found when planning, not when training; nothing happens without one.

    Raises:
        AutosegError: it cannot be read.
        FaultsError: some of its entries are no folds.
    """
    if path.exists():
        _read(path)


def _read(path: Path) -> list[Fold]:
    try:
        content = read_json(path)
    except AutosegError as error:
        fault = error.fault
        fix = (
            "correct folds that you gave; else delete it: the default folds, always the same, are made again; others "
            "by the --folds that made them"
        )
        raise AutosegError(fault.problem, where=fault.where, found=fault.found, fix=fix) from None
    return checked_folds(path, content)


def checked_folds(path: Path, content: Any) -> list[Fold]:
    """What a file in the form of splits.json says.

    Args:
        path: of the file, for messages.
        content: of the file.

    Raises:
        AutosegError: it is not a list of folds.
        FaultsError: some of its entries are no folds.
    """
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
        raise FaultsError(f"{path}: {count_of(len(faults), 'fault')}", faults)
    return [Fold(*(tuple(sorted(entry.get(part, ()))) for part in PARTS)) for entry in content]


def _faults(where: str, entry: Any) -> list[Fault]:
    if not isinstance(entry, dict) or set(entry) not in ({"train", "val"}, set(PARTS)):
        keys = ", ".join(entry) if isinstance(entry, dict) else repr(entry)[:60]
        fix = "name the lists train and val, and test if there is a third"
        return [Fault(where, "has other parts", keys, "train and val, or train, val and test", fix)]
    faults = []
    for key, cases in entry.items():
        if not isinstance(cases, list) or not cases or not all(isinstance(name, str) for name in cases):
            expected = "a list of at least one case name"
            fix = "name the cases" + (", or leave test out" if key == "test" else "")
            faults.append(Fault(where, f"{key} names no cases", repr(cases)[:60], expected, fix))
        elif bad := [shown(name) for name in cases if not is_name(name)]:
            faults.append(
                Fault(where, f"{key} has names that no case has", some_of(bad), EXPECTED, "correct them")
            )
        elif len(set(cases)) < len(cases):
            twice = some_of(sorted(name for name, n in Counter(cases).items() if n > 1))
            faults.append(Fault(where, f"{key} names a case twice", twice, "every case once", "remove one"))
    for a, b in combinations([part for part in PARTS if part in entry], 2) if not faults else ():
        if both := sorted(set(entry[a]) & set(entry[b])):
            problem = f"cases {PARTS[a]} and {PARTS[b]}"
            faults.append(
                Fault(where, problem, some_of(both), "one or the other", f"take them out of {a} or {b}")
            )
    return faults


def refuse_torn(path: Path, folds: Sequence[Fold], subjects: Mapping[str, str]) -> None:
    """All cases of a subject do the same in a fold.

    Raises:
        FaultsError: of some subject they do not.
    """
    faults = []
    for i, fold in enumerate(folds):
        parts: dict[str, dict[str, str]] = {}
        for part, names in fold.parts.items():
            for name in names:
                if name in subjects:
                    parts.setdefault(subjects[name], {}).setdefault(part, name)
        for subject, of in sorted(parts.items()):
            if len(of) > 1:
                found = ", ".join(f"{name} in {part}" for part, name in of.items())
                fix = "put them together, or rename the column subject of groups.csv"
                faults.append(Fault(f"fold {i}", f"subject {subject} is torn apart", found, "one part", fix))
    if faults:
        raise FaultsError(f"{path}: {count_of(len(faults), 'fault')}", faults)


def _refuse_stale(path: Path, folds: Sequence[Fold], names: Sequence[str]) -> None:
    divided = {name for fold in folds for part in fold.parts.values() for name in part}
    new, gone = sorted(set(names) - divided), sorted(divided - set(names))
    if not new and not gone:
        return
    changes = [f"not in the file: {some_of(new)}"] if new else []
    changes += [f"no longer in the dataset: {some_of(gone)}"] if gone else []
    hint = f" ({nearest_names(gone[0], names)})" if len(gone) == 1 else ""
    raise StaleError(
        "the folds were made from other cases than the dataset has now",
        where=str(path),
        found="; ".join(changes) + hint,
        expected=f"the {len(names)} cases of the dataset, each in at least one fold",
        fix="edit the file to keep the folds of trained models, or delete it to have new folds made",
    )
