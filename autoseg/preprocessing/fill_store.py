"""Bring the store of a dataset up to date: only what is missing or stale is made, in processes of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg import messages
from autoseg.dataset.part import CasesPart
from autoseg.dataset.raw_layout import Case, RawDataset
from autoseg.dataset.text_header import hash_image
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.fingerprint import Fingerprint
from autoseg.messages import count_of, millilitres, some_of
from autoseg.parallel import each
from autoseg.plan import Plan, Preprocessing
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.centre_tile import BeyondCentre, beyond_centre, told
from autoseg.preprocessing.lesion_changes import ClassComponents
from autoseg.preprocessing.mask import mask_in_dataset
from autoseg.preprocessing.raw_case import read_raw_case
from autoseg.preprocessing.store import CaseKey, Store
from autoseg.preprocessing.unexpected import UnexpectedRange, warning

VALUES_PER_PROCESS = 12_000_000
"""A process must have this many raw values to work on, or starting it costs more time than it saves."""
SHOWN = 5


@dataclass
class PreprocessReport:
    """What was done.

    Attributes:
        done: cases that were made.
        reused: cases that were up to date.
        stale: why cases that had been made before were made again.
        extra: stored cases that the raw data no longer have; they are ignored.
        lost: for each case the components of which no voxel is left on the working grid.
        outside: for each case the lesion voxels that lie outside the plan's mask.
        unexpected: for each case the channels whose intensities are not what the plan was made for.
        beyond: cases with lesions, where the plan predicts one tile in their centre: what lies outside of it.
        class_names: label value to name.
        seconds: it took.
    """

    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    stale: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    lost: dict[str, list[ClassComponents]] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    unexpected: dict[str, list[UnexpectedRange]] = field(default_factory=dict)
    beyond: list[BeyondCentre] = field(default_factory=list)
    class_names: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def summary(self) -> str:
        """For the terminal; lost lesions are left to the warning."""
        lines = [
            f"{count_of(len(self.done), 'case')} preprocessed in {self.seconds:.1f} s, "
            f"{count_of(len(self.reused), 'was', 'were')} up to date"
        ]
        lines += [f"  made again: {line}" for line in _grouped(self.stale)]
        if self.extra:
            lines.append(f"  ignored, no longer in the raw data: {some_of(self.extra)}")
        return "\n".join(lines)

    def lost_lesions(self) -> str:
        """What resampling lost, in one sentence and a line for each case; empty when it lost nothing."""
        if not self.lost:
            return ""
        parts = [part for parts in self.lost.values() for part in parts]
        n, largest = sum(part.n_lost for part in parts), max(part.lost_voxels[-1] for part in parts)
        volume = sum(part.lost_ml for part in parts)
        lines = [
            f"{count_of(n, 'lesion component')} of {count_of(len(self.lost), 'case')}{self._counting()} "
            f"{'has' if n == 1 else 'have'} no voxel left on the working grid "
            f"(the largest had {count_of(largest, 'voxel')}; {millilitres(volume)} in all)"
        ]
        for name, found in list(self.lost.items())[:SHOWN]:
            told = ", ".join(self._told(part) for part in found)
            lines.append(f"    {name}: {told}")
        if len(self.lost) > SHOWN:
            lines.append(
                f"    and {count_of(len(self.lost) - SHOWN, 'more case')}; each is in its record in the store"
            )
        return "\n".join(lines)

    def lesions_outside(self) -> str:
        """How much of the lesions no prediction can find; empty when they all lie inside the mask."""
        if not self.outside:
            return ""
        n, cases = sum(self.outside.values()), len(self.outside)
        worst = sorted(self.outside, key=lambda name: (-self.outside[name], name))
        told = some_of([f"{name} ({self.outside[name]})" for name in worst])
        return (
            f"{count_of(n, 'lesion voxel')} of {count_of(cases, 'case')} {'lies' if n == 1 else 'lie'} outside the "
            f"plan's mask, where nothing is predicted: {told}; "
            "a larger preprocessing.mask.dilation takes them in"
        )

    def _counting(self) -> str:
        """Touching classes are one lesion in the plan's table; resampling may lose each by itself."""
        return ", counted class by class," if len(self.class_names) > 2 else ""

    def _told(self, part: ClassComponents) -> str:
        label = self.class_names.get(part.label, f"label {part.label}")
        sizes = " ".join(str(voxels) for voxels in part.lost_voxels[-SHOWN:])
        more, unit = "... " if part.n_lost > SHOWN else "", "voxel" if sizes == "1" else "voxels"
        return (
            f"{part.n_lost} of {part.before} of {label} ({more}{sizes} {unit}, {millilitres(part.lost_ml)})"
        )


@dataclass(frozen=True)
class _StoreTask:
    case: Case
    key: CaseKey
    plan: Preprocessing
    folder: Path
    channel_names: tuple[str, ...] = ()
    mask: Path | None = None


def preprocess_dataset(
    raw: RawDataset,
    fingerprint: Fingerprint,
    plan: Plan,
    folder: Path,
    processes: int,
    part: CasesPart | None = None,
) -> PreprocessReport:
    """Make every case of the store that is missing, stale or damaged.

    Interrupted and called again it goes on where it was. Stored cases that the raw data no longer have are left
    alone and named.

    Args:
        raw: the raw data.
        fingerprint: of the same data.
        plan: how to preprocess.
        folder: of the store.
        processes: worker processes at most; fewer where cases are few or small.
        part: of the cases; others may make the other parts at the same time. None makes all.

    Raises:
        FaultsError: some cases could not be made; all others are.
        AutosegError: a worker process died or the folder cannot be written to; finished cases are kept.
    """
    started = time.monotonic()
    store, all_names = Store(folder), {case.name for case in raw.cases}
    raw = replace(raw, cases=tuple(part.take(raw.cases))) if part is not None else raw
    names = [case.name for case in raw.cases]
    if part is None:
        store.remove_leftovers()
    masks = _mask_files(raw, plan.preprocessing)
    keys = case_keys(fingerprint, plan, {name: _hash(path) for name, path in masks.items()})
    reasons = _stale(store, keys, names, verify=True)
    report = PreprocessReport(
        reused=[name for name in names if name not in reasons],
        stale={name: why for name, why in reasons.items() if why != "not preprocessed yet"},
        extra=sorted(set(store.names()) - all_names),
        class_names=_class_names(raw),
    )
    tasks = [
        _StoreTask(
            case,
            keys[case.name],
            plan.preprocessing,
            Path(folder),
            tuple(plan.channel_names),
            masks.get(case.name),
        )
        for case in raw.cases
        if case.name in reasons
    ]
    faults = _work_through(tasks, _useful(processes, tasks, fingerprint), report)
    report.seconds = time.monotonic() - started
    _find_lost(store, report)
    if plan.preprocessing.mask is not None:
        _find_outside(store, report)
    _find_unexpected(store, report, plan)
    made = sorted((*report.done, *report.reused))
    report.beyond = beyond_centre(plan, made, lambda name: store.read(name).label[...])
    if lost := told(report.beyond):
        messages.warn(lost)
    if faults:
        raise FaultsError(
            f"{len(faults)} of {count_of(len(tasks), 'case')} could not be preprocessed; all others are in the store",
            faults,
        )
    return report


def stale_cases(
    store: Store, fingerprint: Fingerprint, plan: Plan, names: Sequence[str], raw: RawDataset | None = None
) -> dict[str, str]:
    """Which of the cases must be made (again), and why; empty when the store is as the plan wants it.

    Args:
        store: of the plan.
        fingerprint: of the dataset as it is now.
        plan: as it is now.
        names: the cases to look at.
        raw: the raw data, where they are at hand: only they tell whether the file of a case's mask has changed.
    """
    masks = _mask_files(raw, plan.preprocessing) if raw is not None else {}
    hashes = {name: _hash(path) for name, path in masks.items() if name in set(names) and path.is_file()}
    return _stale(store, case_keys(fingerprint, plan, hashes), names)


def _stale(
    store: Store, keys: Mapping[str, CaseKey], names: Sequence[str], *, verify: bool = False
) -> dict[str, str]:
    found = {
        name: store.is_current(name, keys[name], verify=verify) if name in keys else "not in the fingerprint"
        for name in names
    }
    return {name: why for name, why in found.items() if why}


def case_keys(
    fingerprint: Fingerprint, plan: Plan, mask_hashes: Mapping[str, str] | None = None
) -> dict[str, CaseKey]:
    """What each stored case depends on.

    Args:
        fingerprint: of the dataset.
        plan: how to preprocess.
        mask_hashes: case to hash of the file of its mask; without them a change of these files is not asked for.
    """
    # the order for logits, which only matters on the way back, is left out by the key
    preprocessing = plan.preprocessing.model_dump(mode="json")
    # what a case that lies that way already depends on
    turned_nothing = {
        **preprocessing,
        "orientation": None,
    }
    wanted, ignore = plan.preprocessing.orientation, plan.label_set.ignore
    return {
        case.name: CaseKey(
            content_hash=case.content_hash,
            preprocessing=turned_nothing if case.orientation == wanted else preprocessing,
            ignore=ignore,
            mask_hash=(mask_hashes or {}).get(case.name),
        )
        for case in fingerprint.cases
    }


def _mask_files(raw: RawDataset, plan: Preprocessing) -> dict[str, Path]:
    """Case to the file of its mask, which need not be there; empty where the plan's mask is no file."""
    if plan.mask is None:
        return {}
    paths = {
        case.name: mask_in_dataset(raw.folder, case.name, raw.info.file_ending, plan.mask)
        for case in raw.cases
    }
    return {name: path for name, path in paths.items() if path is not None}


def _hash(path: Path) -> str:
    """Of a file; empty when it cannot be read, which is said when the case is made."""
    try:
        return hash_image(path)
    except (OSError, AutosegError):
        return ""


def _work_through(tasks: Sequence[_StoreTask], processes: int, report: PreprocessReport) -> list[Fault]:
    """Make the cases; what is wrong with some does not stop the others."""
    from threadpoolctl import threadpool_limits

    faults = []
    # the products of one case are too small for several threads, which would only wait for each other
    with threadpool_limits(1):
        results = each(_make, tasks, processes, name_of=lambda task: task.case.name, doing="preprocessing")
        for i, found in results:
            if found:
                faults += found
            else:
                report.done.append(tasks[i].case.name)
    report.done.sort()
    return faults


def _make(task: _StoreTask) -> list[Fault]:
    """Read, preprocess and store one case; what a worker process does. Returns its faults."""
    name, case = task.case.name, task.case
    try:
        if case.mask is None:
            raise AutosegError("the mask is missing", where=name)
        raw = read_raw_case(name, case.images, task.plan, label=case.mask, mask=task.mask)
        made = preprocess_case(
            name,
            raw.image,
            raw.geometry,
            task.plan,
            raw.label,
            task.key.ignore,
            channel_names=task.channel_names,
            mask=raw.mask,
        )
        del raw
    except FaultsError as error:
        return list(error.faults)
    except AutosegError as error:
        return [error.fault]
    except MemoryError:
        return [Fault(name, "memory ran out", fix="use fewer processes (-np)")]
    except Exception as error:  # whatever it is, the other cases go on
        messages.LOGGER.debug("preprocessing %s", name, exc_info=True)
        return [Fault(name, "could not be preprocessed", f"{type(error).__name__}: {error}")]
    Store(task.folder).write(name, made, task.key)  # a folder that cannot be written to stops the whole
    return []


def _useful(processes: int, tasks: Sequence[_StoreTask], fingerprint: Fingerprint) -> int:
    """How many processes are worth starting."""
    values = {case.name: math.prod(case.shape) * len(fingerprint.channel_names) for case in fingerprint.cases}
    total = sum(values.get(task.case.name, 0) for task in tasks)
    return max(1, min(processes, len(tasks), total // VALUES_PER_PROCESS))


def _find_lost(store: Store, report: PreprocessReport) -> None:
    """Note and warn of lesions that are lost on the working grid, of cases made now or before."""
    for name in sorted((*report.done, *report.reused)):
        lost = [part for part in store.record(name).components if part.n_lost]
        if lost:
            report.lost[name] = lost
    if report.lost:
        messages.warn(report.lost_lesions())


def _find_outside(store: Store, report: PreprocessReport) -> None:
    """Note and warn of lesions outside the plan's mask, of cases made now or before."""
    for name in sorted((*report.done, *report.reused)):
        n = store.record(name).lesion_voxels_outside
        if n:
            report.outside[name] = n
    if report.outside:
        messages.warn(report.lesions_outside())


def _find_unexpected(store: Store, report: PreprocessReport, plan: Plan) -> None:
    """Note and warn of intensities that the plan was not made for, of cases made now or before."""
    entries = plan.preprocessing.normalisation
    if all(entry.expected_maximum is None for entry in entries):
        return
    for name in sorted((*report.done, *report.reused)):
        if found := store.record(name).unexpected:
            report.unexpected[name] = found
    if report.unexpected:
        messages.warn(warning(report.unexpected, entries, plan.channel_names))


def _class_names(raw: RawDataset) -> dict[int, str]:
    values = {}
    for label, value in raw.info.labels.items():
        if isinstance(value, int):
            values[value] = label
    return values


def _grouped(reasons: dict[str, str]) -> list[str]:
    """Cases with the same reason in one line."""
    groups: dict[str, list[str]] = {}
    for name, why in reasons.items():
        groups.setdefault(why, []).append(name)
    return [f"{some_of(names)}: {why}" for why, names in groups.items()]
