"""How well raters agree who drew the same lesions, from folders of masks; :mod:`autoseg.comparison.rater_pairs` counts.

A method may stand beside the raters: it is held against each of them, and is in no row about all raters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.comparison.agreement_schema import Agreement, AgreementEntry, PairScores, RaterRow
from autoseg.comparison.comparison_schema import Difference
from autoseg.comparison.methods import method_names
from autoseg.comparison.ranking import against_one
from autoseg.comparison.rater_pairs import ALL, AgreementRow, RaterPair, agreement_table, rater_pairs
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import as_labels, read_image
from autoseg.dataset.turning import laid_onto, orientation_of_most
from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names
from autoseg.evaluation import statistics
from autoseg.evaluation.case_files import CaseFiles, masks_in
from autoseg.evaluation.cohort import metric_row
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.metrics.metric import Better, Metric
from autoseg.evaluation.metrics.pair import union_box
from autoseg.evaluation.metrics.surface import nsd
from autoseg.evaluation.score_case import all_cases, faults_of, score_labels, unknown_values
from autoseg.evaluation.score_masks import found_labels
from autoseg.evaluation.summary import defined
from autoseg.labels import LabelSet
from autoseg.messages import count_of, some_of
from autoseg.orientation import turn_into
from autoseg.version import __version__

SYMMETRIC = (
    "dice",
    "iou",
    "accuracy",
    "mcc",
    "volume_difference_absolute_ml",
    "lesion_count_difference_absolute",
    "hd95_mm",
    "hausdorff_mm",
    "hausdorff_voxels_mm",
    "surface_hausdorff_mm",
    "surface_hd95_mm",
    "assd_mm",
    "assd_mean_mm",
    "hd95_penalised_mm",
    "hausdorff_penalised_mm",
    "hausdorff_voxels_penalised_mm",
    "surface_hausdorff_penalised_mm",
    "surface_hd95_penalised_mm",
    "assd_penalised_mm",
    "nsd_1mm",
)
"""Metrics that do not ask which of two masks is the truth; ``nsd_2mm`` and so on are others."""


BETWEEN = "between"
"""What the mixed pairs are called in tests."""


@dataclass(frozen=True)
class Rater:
    """One who drew masks.

    Attributes:
        name: in the tables.
        folders: one for each time that the cases were drawn.
        method: a program, which is in no row about all raters.
    """

    name: str
    folders: tuple[Path, ...]
    method: bool = False

    @cached_property
    def runs(self) -> dict[str, Path]:
        """Short name of each run to its folder."""
        return dict(zip(method_names(self.folders), self.folders, strict=True))


def parse_rater(words: Sequence[str], *, method: bool = False) -> Rater:
    """``["anna", "anna/run1", "anna/run2"]`` as a rater.

    Raises:
        AutosegError: the name or the folder is missing.
    """
    option = "-m" if method else "-r"
    name, *folders = words
    looks_like_folder = "/" in name or "\\" in name
    if looks_like_folder or not folders:
        raise AutosegError(
            f"{'the name' if looks_like_folder else 'the folder'} is missing",
            where=f"{option} {' '.join(words)}",
            expected=f"{option} NAME FOLDER [FOLDER ...], such as {option} anna anna/run1 anna/run2",
            fix="write who drew these masks before the folders"
            if looks_like_folder
            else f"write the folder with the masks of {name} after the name",
        )
    return Rater(name, tuple(map(Path, folders)), method)


def check_raters(raters: Sequence[Rater]) -> list[Rater]:
    """The raters, methods last.

    Raises:
        AutosegError: two of the same name, a folder that is given twice, or nothing to compare.
    """
    names = [rater.name for rater in raters]
    _check_names(names)
    owner: dict[Path, str] = {}
    for rater in raters:
        for folder in rater.folders:
            if folder.resolve() in owner:
                raise AutosegError(
                    "a folder is given twice",
                    where=str(folder),
                    found=f"for {owner[folder.resolve()]} and for {rater.name}",
                    expected="another folder for each rater and run",
                    fix="check the paths",
                )
            owner[folder.resolve()] = rater.name
    ordered = sorted(raters, key=lambda rater: rater.method)
    if not _pairs(ordered):
        raise AutosegError(
            "there is no rater to hold the methods against",
            found=", ".join(names),
            expected="a rater (-r NAME FOLDER), or two runs of one method",
            fix="methods are compared with each other by autoseg_compare",
        )
    return ordered


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AutosegError(
            "two raters have the same name",
            found=", ".join(twice),
            expected="each rater once, with all folders",
            fix="write all folders of a rater behind one -r",
        )
    if ALL in names:
        raise AutosegError(
            f"a rater cannot be called {ALL}",
            found=", ".join(names),
            expected=f"another name: {ALL} stands for all raters in the results",
            fix="choose another name",
        )


def _pairs(raters: Sequence[Rater]) -> list[RaterPair]:
    """What is compared; two methods are compared by ``autoseg_compare``."""
    methods = {rater.name for rater in raters if rater.method}
    found = rater_pairs({rater.name: list(rater.runs) for rater in raters})
    return [pair for pair in found if pair.kind == "intra" or not {pair.rater_a, pair.rater_b} <= methods]


def symmetric_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics by which agreement is measured, by the default definitions.

    Raises:
        AutosegError: a metric is unknown or depends on which of the masks is the truth.
    """
    chosen: dict[str, Metric] = {}
    for name in names:
        tolerance = re.fullmatch(r"nsd_(\d+(?:\.\d+)?)mm", name)
        if tolerance:
            chosen[name] = replace(nsd(float(tolerance[1])), name=name)
        elif name in SYMMETRIC:
            chosen[name] = METRICS[name]
        elif name in METRICS:
            raise AutosegError(
                f"{name} cannot measure agreement: it depends on which of two masks is the truth",
                where="--metrics",
                expected=f"one of {', '.join(SYMMETRIC)}",
            )
        else:
            raise AutosegError(
                f"there is no metric {name}", where="--metrics", fix=nearest_names(name, SYMMETRIC)
            )
    return chosen


# --------------------------------------------------------------------------------------------------- files and cases


@dataclass(frozen=True)
class RatedCase:
    """One case, small enough to be sent to a process.

    Attributes:
        name: of the case.
        files: run (rater, run) to the mask; at least two.
        pairs: that are compared, of these runs.
        labels: the classes.
        metrics: names.
        orientation: in which the masks are looked at; None takes them as the first one is stored.
    """

    name: str
    files: dict[tuple[str, str], Path]
    pairs: tuple[RaterPair, ...]
    labels: LabelSet
    metrics: tuple[str, ...]
    orientation: str | None = None


Files = Mapping[str, Mapping[tuple[str, str], Path]]
"""Case to run (rater, run) to its mask."""


def find_masks(raters: Sequence[Rater]) -> dict[str, dict[tuple[str, str], Path]]:
    """The masks of each case, of as many runs as drew it.

    Raises:
        AutosegError: a folder is missing or holds no mask.
        FaultsError: a run has a case twice.
    """
    files: dict[str, dict[tuple[str, str], Path]] = {}
    faults = []
    for rater in raters:
        for run, folder in rater.runs.items():
            for case, paths in masks_in(folder, f"masks of {rater.name}").items():
                if len(paths) > 1:
                    found = " and ".join(path.name for path in paths)
                    faults.append(
                        Fault(f"{folder}: {case}", "is there twice", found, "one file", "remove one")
                    )
                files.setdefault(case, {})[rater.name, run] = paths[0]
    if faults:
        raise FaultsError(f"{count_of(len(faults), 'case')} doubled", faults)
    return dict(sorted(files.items()))


def _shared_cases(files: Files, pairs: Sequence[RaterPair]) -> tuple[list[str], list[str]]:
    """Cases that some pair has in common, and those that none has; both are said where it matters."""
    shared = [case for case, of_runs in files.items() if any(_has(of_runs, pair) for pair in pairs)]
    alone = [case for case in files if case not in shared]
    if not shared:
        raise AutosegError(
            "no case was drawn twice",
            found=f"{count_of(len(files), 'case')}, such as {some_of(list(files), 3)}",
            expected="files of the same names in the folders",
            fix="check the paths and the names of the files",
        )
    if alone:
        messages.warn(f"{count_of(len(alone), 'case')} drawn once only and left out: {some_of(alone)}")
    n_runs = len({run for of_runs in files.values() for run in of_runs})
    partly = [case for case in shared if len(files[case]) < n_runs]
    if partly:
        messages.warn(
            f"{count_of(len(partly), 'case')} not drawn in every run: {some_of(partly)}; "
            "rows are over different cases, see their n"
        )
    return shared, alone


def _has(of_runs: Mapping[tuple[str, str], Path], pair: RaterPair) -> bool:
    return (pair.rater_a, pair.run_a) in of_runs and (pair.rater_b, pair.run_b) in of_runs


def _labels(
    files: Files, cases: Sequence[str], info: DatasetJson | None, processes: int
) -> dict[str, int | list[int]]:
    if info is not None:
        return info.labels
    looked_at = []
    for case in cases:
        first, *others = files[case].values()
        looked_at += [CaseFiles(case, other, first) for other in others]
    return found_labels(looked_at, processes)


# -------------------------------------------------------------------------------------------------------- one case


ClassScores = dict[str, dict[str, float]]
"""Class to metric to value."""


def score_case(task: RatedCase) -> dict[RaterPair, ClassScores] | list[Fault]:
    """The scores of all pairs of one case, or what is wrong with its masks."""
    try:
        read = {run: read_image(path, is_mask=True) for run, path in task.files.items()}
        stored = {run: as_labels(image.pixels, where=str(task.files[run])) for run, image in read.items()}
    except AutosegError as error:
        return faults_of(error)
    first = next(iter(read.values())).geometry
    turn = turn_into(task.orientation, first)
    geometry = turn.geometry(first)
    laid = {run: laid_onto(mask, read[run].geometry, first) for run, mask in stored.items()}
    masks = {run: turn.array(mask) for run, (mask, _) in laid.items()}
    faults = _grid_faults(task, {run: unlike for run, (_, unlike) in laid.items()})
    faults = faults or _label_faults(task, masks)
    if faults:
        return faults
    box = union_box(*masks.values())
    masks = {run: mask[box] for run, mask in masks.items()}
    metrics = list(symmetric_metrics(task.metrics).values())
    scores = {}
    for pair in task.pairs:
        a, b = masks[pair.rater_a, pair.run_a], masks[pair.rater_b, pair.run_b]
        if task.labels.ignore is not None:  # what either of them ignores counts nowhere
            b = np.where(a == task.labels.ignore, task.labels.ignore, b)
        scores[pair] = score_labels(a, b, geometry.spacing_mm, task.labels, metrics, geometry.shape)
    return scores


def _grid_faults(
    task: RatedCase, unlike: Mapping[tuple[str, str], Sequence[tuple[str, str, str]]]
) -> list[Fault]:
    """Masks that do not lie on the grid of the first one, by what of each is unlike."""
    first = next(iter(unlike))
    fix = "resample one of them to the grid of the other"
    return [
        Fault(str(task.files[run]), f"the {what} is not that of {task.files[first]}", found, expected, fix)
        for run, found_unlike in unlike.items()
        for what, found, expected in found_unlike
    ]


def _label_faults(task: RatedCase, masks: Mapping[tuple[str, str], np.ndarray]) -> list[Fault]:
    known = set(task.labels.known_values)
    return [
        fault
        for run, mask in masks.items()
        for fault in unknown_values(mask, str(task.files[run]), task.labels, known)
    ]


# -------------------------------------------------------------------------------------------------------- the table


def rate_folders(
    raters: Sequence[Rater],
    info: DatasetJson | None = None,
    *,
    metrics: Sequence[str] = ("dice",),
    processes: int = 1,
    ready: Callable[[], None] | None = None,
) -> Agreement:
    """Measure the agreement of raters. Nothing is written.

    Args:
        raters: at least two, or one with at least two folders.
        info: dataset.json; without it every value that is found in the masks is a class.
        metrics: see :data:`SYMMETRIC`.
        processes: at most so many.
        ready: called once arguments and folders fit, before any mask is read: what else should be checked then, such as
            where the results go.

    Raises:
        AutosegError: raters, folders or metrics do not fit; see :func:`check_raters` and :func:`symmetric_metrics`.
        FaultsError: with all faults of all masks.
    """
    said, chosen, raters = messages.warning_counts(), symmetric_metrics(metrics), check_raters(raters)
    pairs, files = _pairs(raters), find_masks(raters)
    cases, alone = _shared_cases(files, pairs)
    if ready is not None:
        ready()
    labels = _labels(files, cases, info, processes)
    label_set = LabelSet.from_labels(labels)
    orientation = orientation_of_most(next(iter(files[case].values())) for case in cases)
    tasks = [
        RatedCase(
            case,
            files[case],
            tuple(p for p in pairs if _has(files[case], p)),
            label_set,
            tuple(chosen),
            orientation,
        )
        for case in cases
    ]
    scored = all_cases(score_case, tasks, processes, "compared", lambda task: task.name)
    scores = dict(zip(cases, scored, strict=True))
    rows = [
        _entry(row, label, metric)
        for label in label_set.names
        for metric in chosen
        for row in _rows(raters, {p: _values(scores, p, label, metric) for p in pairs})
    ]
    return Agreement(
        autoseg_version=__version__,
        raters=[
            RaterRow(name=r.name, method=r.method, runs={run: str(path) for run, path in r.runs.items()})
            for r in raters
        ],
        cases=cases,
        left_out=alone,
        labels=labels,
        labels_from="the values found in the masks" if info is None else "dataset.json",
        metrics={name: metric_row(metric) for name, metric in chosen.items()},
        interval=statistics.describe_interval(),
        warnings=messages.warnings_since(said),
        rows=rows,
        tests=_tests(raters, scores, pairs, label_set.names, chosen),
        pairs=[_pair_scores(scores, pair, label_set.names, list(chosen)) for pair in pairs],
    )


def _tests(
    raters: Sequence[Rater],
    scores: Mapping[str, Mapping[RaterPair, ClassScores]],
    pairs: Sequence[RaterPair],
    labels: Sequence[str],
    chosen: Mapping[str, Metric],
) -> dict[str, dict[str, list[Difference]]]:
    """Class to metric to the tests of pairs within raters against mixed pairs; without what cannot be tested."""
    people = {rater.name for rater in raters if not rater.method}
    own = [pair for pair in pairs if {pair.rater_a, pair.rater_b} <= people]
    found: dict[str, dict[str, list[Difference]]] = {}
    for name, metric in chosen.items():
        values = {label: {pair: _values(scores, pair, label, name) for pair in own} for label in labels}
        for label, tests in within_against_between(values, list(scores), metric.better or "higher").items():
            found.setdefault(label, {})[name] = tests
    return found


def within_against_between(
    values: Mapping[str, Mapping[RaterPair, Mapping[str, float]]], cases: Sequence[str], better: Better
) -> dict[str, list[Difference]]:
    """Whether raters agree with themselves more than with each other, as Valverde et al. 2020 (RatLesNetv2) test it.

    Of each case the mean over the pairs within one rater (and of all raters) minus the mean over the mixed pairs,
    paired sign-flip permutation test over cases, Holm over raters and classes.

    Args:
        values: class to pair to case to score.
        cases: all of them.
        better: what a better agreement has.

    Returns:
        Class to tests; empty where there are no pairs of one kind.
    """
    within: dict[str, dict[str, np.ndarray]] = {}
    between: dict[str, np.ndarray] = {}
    for label, of_pairs in values.items():
        groups: dict[str, list[Mapping[str, float]]] = {}
        for pair, of_cases in of_pairs.items():
            if pair.kind == "intra":
                groups.setdefault(pair.rater_a, []).append(of_cases)
        mixed = [of_cases for pair, of_cases in of_pairs.items() if pair.kind == "inter"]
        if not groups or not mixed:
            return {}
        if len(groups) > 1:
            groups[ALL] = [of_cases for group in groups.values() for of_cases in group]
        within[label] = {rater: _means(group, cases) for rater, group in groups.items()}
        between[label] = _means(mixed, cases)
    return against_one(within, between, BETWEEN, better, "permutation")


def _means(group: Sequence[Mapping[str, float]], cases: Sequence[str]) -> np.ndarray:
    """``[n cases]``: of each case the mean over the pairs; ``nan`` where none is defined."""
    found = [[v for of_cases in group if not np.isnan(v := of_cases.get(case, np.nan))] for case in cases]
    return np.array([np.mean(known) if known else np.nan for known in found])


def _values(
    scores: Mapping[str, Mapping[RaterPair, ClassScores]], pair: RaterPair, label: str, metric: str
) -> dict[str, float]:
    """Case to value, of the cases that both runs of the pair drew."""
    return {case: of_pairs[pair][label][metric] for case, of_pairs in scores.items() if pair in of_pairs}


def _rows(raters: Sequence[Rater], values: Mapping[RaterPair, Mapping[str, float]]) -> list[AgreementRow]:
    """The rows about the raters, then those of each method against them."""
    people = {rater.name for rater in raters if not rater.method}
    rows = agreement_table({p: v for p, v in values.items() if {p.rater_a, p.rater_b} <= people})
    for method in (rater.name for rater in raters if rater.method):
        of_method = agreement_table({p: v for p, v in values.items() if method in (p.rater_a, p.rater_b)})
        rows += [replace(row, rater_b=method) if row.rater_a == ALL else row for row in of_method]
    return rows


def _entry(row: AgreementRow, label: str, metric: str) -> AgreementEntry:
    content = {name: defined(v) if isinstance(v, float) else v for name, v in asdict(row).items()}
    return AgreementEntry(label=label, metric=metric, **content)


def _pair_scores(
    scores: Mapping[str, Mapping[RaterPair, ClassScores]],
    pair: RaterPair,
    labels: Sequence[str],
    metrics: Sequence[str],
) -> PairScores:
    return PairScores(
        **pair._asdict(),
        scores={
            label: {
                metric: {case: defined(value) for case, value in _values(scores, pair, label, metric).items()}
                for metric in metrics
            }
            for label in labels
        },
    )
