"""One case: read its masks, refuse what does not fit, and score it; or only look which values there are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoseg import messages
from autoseg.dataset.imageio import ImageFile, as_labels, read_image
from autoseg.dataset.physical_sense import voxel_fault
from autoseg.dataset.turning import laid_onto
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.evaluation import probabilities
from autoseg.evaluation.case_files import CaseFiles
from autoseg.evaluation.count_masks import read_inside
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.metrics.catalogue import score
from autoseg.evaluation.metrics.lesions import LesionRule
from autoseg.evaluation.metrics.metric import Metric
from autoseg.evaluation.metrics.pair import Pair, union_box
from autoseg.evaluation.summary import CaseScores, defined
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.orientation import turn_into
from autoseg.parallel import each

MOST_CLASSES = 32
"""A file with more different values than this is an image, not a mask."""
START_S = 2.5
"""About what it costs to start processes and load the libraries in them; they start only if they save more."""

Task = TypeVar("Task")
Result = TypeVar("Result")


# ------------------------------------------------------------------------------------------------------- arrays


def score_labels(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    labels: LabelSet,
    metrics: Sequence[Metric],
    shape: Sequence[int] | None = None,
    inside: np.ndarray | None = None,
    n_inside: int | None = None,
) -> dict[str, dict[str, float]]:
    """Class or region to metric to value, for label masks ``[z, y, x]`` whose values are known.

    Voxels that the truth ignores belong to no class in either mask and are no true negatives.

    Args:
        prediction, truth: label values, which may be cut to a box that holds all that is not background.
        spacing_mm: z, y, x.
        labels: the classes.
        metrics: what is computed.
        shape: of the whole volume; None when the masks are not cut.
        inside: bool, cut like the masks: voxels are counted there alone; None for everywhere. What is no count of
            voxels, such as a distance or a volume, is of the whole masks.
        n_inside: voxels inside in the whole volume; None when the masks are not cut.
    """
    shape = shape or truth.shape
    n_scored = math.prod(shape)
    if labels.ignore is not None:
        ignored = truth == labels.ignore
        n_scored -= int(np.count_nonzero(ignored))
        if inside is not None and n_inside is not None:
            n_inside -= int(np.count_nonzero(ignored & inside))
    predicted, true = _masks(prediction, truth, labels)
    scored = {}
    for name in labels.names:
        masks = predicted[name], true[name]
        values = score(Pair(*masks, spacing_mm, n_scored, shape), metrics)
        if inside is not None:
            counted = Pair(masks[0] & inside, masks[1] & inside, spacing_mm, n_inside, shape)
            values |= score(counted, [metric for metric in metrics if metric.group == "overlap"])
        scored[name] = values
    return scored


def _masks(
    prediction: np.ndarray, truth: np.ndarray, labels: LabelSet
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Class or region to its voxels in both masks; what the truth ignores belongs to none."""
    if labels.ignore is not None:
        ignored = truth == labels.ignore
        prediction, truth = np.where(ignored, 0, prediction), np.where(ignored, 0, truth)
    return labels.masks(prediction), labels.masks(truth)


def false_sizes(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    labels: LabelSet,
    rule: LesionRule,
) -> dict[str, list[float]]:
    """Class or region to the sizes of its false lesions, for label masks as of :func:`score_labels`."""
    predicted, true = _masks(prediction, truth, labels)
    return {
        name: rule(Pair(predicted[name], true[name], spacing_mm)).false_sizes.tolist()
        for name in labels.names
    }


def unknown_labels(
    prediction: np.ndarray, truth: np.ndarray, labels: LabelSet, names: tuple[str, str]
) -> list[Fault]:
    """A fault for each mask that holds values without a meaning; a prediction has nothing to ignore.

    Args:
        prediction, truth: label values.
        labels: that are known.
        names: of the two masks, for the faults.
    """
    known = set(labels.known_values)
    return unknown_values(prediction, names[0], labels, known - {labels.ignore}) + unknown_values(
        truth, names[1], labels, known
    )


def unknown_values(mask: np.ndarray, where: str, labels: LabelSet, known: set[int]) -> list[Fault]:
    """One fault, or none.

    Args:
        mask: label values.
        where: its name.
        labels: that are known, for the fault.
        known: values that it may hold.
    """
    if _holds_only(mask, known):
        return []
    expected = "0 background, " + ", ".join(
        f"{'+'.join(map(str, values))} {name}"
        for name, values in zip(labels.names, labels.values, strict=True)
    )
    odd = [(value, n) for value, n in _counted(mask).items() if value not in known]
    found = ", ".join(f"{value} in {count_of(n, 'voxel')}" for value, n in odd[:5])
    fix = "use the dataset.json (-djfile) that these masks were made with, or correct the file"
    return [Fault(where, "label that is not in dataset.json", found, expected, fix)]


def _holds_only(mask: np.ndarray, known: set[int]) -> bool:
    """Whether a mask holds no other values; these are consecutive as a rule, and then its range tells."""
    if not mask.size:
        return True
    if known == set(range(len(known))):
        return int(mask.min()) >= 0 and int(mask.max()) < len(known)
    return bool(np.isin(mask, list(known)).all())


def _counted(mask: np.ndarray) -> dict[int, int]:
    """Value to number of voxels."""
    values, counts = np.unique(mask, return_counts=True)
    return {int(value): int(n) for value, n in zip(values, counts, strict=True)}


# -------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class ScoreTask:
    """A case to score, small enough to be sent to a process.

    Attributes:
        files: of the case.
        labels: the classes that are scored.
        outputs: the classes of dataset.json, whose values are known and whose probabilities there may be.
        choice: what is computed.
        probabilities: see :func:`autoseg.evaluation.probabilities.find`.
        orientation: in which the masks are looked at: slices are those along its z. None takes them as the truth is
            stored.
        inside: the file that says where voxels are counted, see :mod:`autoseg.evaluation.count_masks`.
    """

    files: CaseFiles
    labels: LabelSet
    outputs: LabelSet
    choice: MetricChoice
    probabilities: Path | None = None
    orientation: str | None = None
    inside: Path | None = None


@dataclass(frozen=True)
class ScoredCase:
    """A scored case; ``problem`` says why its probabilities were not used."""

    case: CaseScores
    problem: str = ""


def score_cases(tasks: Sequence[ScoreTask], processes: int) -> list[ScoredCase]:
    """Score cases.

    Raises:
        FaultsError: with the faults of all cases.
    """
    return all_cases(_score_case, tasks, processes, "scored", lambda task: task.files.name)


def find_values(files: Sequence[CaseFiles], processes: int) -> list[int]:
    """The values beside 0 that any of the masks holds, sorted.

    Raises:
        FaultsError: files cannot be read as masks, or hold as many values as an image.
    """
    found = all_cases(_look_at_case, files, processes, "read", lambda case: case.name)
    return sorted({value for values in found for value in values} - {0})


def all_cases(
    function: Callable[[Task], Result | list[Fault]],
    tasks: Sequence[Task],
    processes: int,
    done: str,
    name_of: Callable[[Task], str],
) -> list[Result]:
    """What each case gives, in the order of the cases.

    Args:
        function: gives the result of a case, or a list of what is wrong with it.
        tasks: the cases.
        processes: at most so many; they start only where they save time.
        done: what is done with the masks, such as ``scored``.
        name_of: the name of a case.

    Raises:
        FaultsError: with the faults of all cases.
    """
    found: dict[int, Result | list[Fault]] = dict(_each(function, tasks, processes, name_of))
    results: list[Result] = []
    faults: list[Fault] = []
    for _, result in sorted(found.items(), key=lambda item: item[0]):
        if isinstance(result, list):
            faults += result
        else:
            results.append(result)
    if faults:
        raise FaultsError(f"the masks cannot be {done}: {count_of(len(faults), 'fault')}", faults)
    return results


def _each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int,
    name_of: Callable[[Task], str],
) -> Iterator[tuple[int, Result]]:
    """As :func:`autoseg.parallel.each`, in processes only where they save time.

    The first two cases are done here: the second, during which nothing is loaded any more, tells how long the others
    will take.
    """
    n_tried, started = 2, time.perf_counter()
    for index, result in each(function, tasks[:n_tried], 1, name_of=name_of, doing="scoring"):
        seconds, started = time.perf_counter() - started, time.perf_counter()
        yield index, result
    others = tasks[n_tried:]
    if others:
        processes = min(processes, len(others))
        saved_s = seconds * len(others) * (1 - 1 / max(1, processes))
        processes = processes if saved_s > START_S else 1
        for index, result in each(function, others, processes, name_of=name_of, doing="scoring"):
            yield n_tried + index, result


@dataclass(frozen=True)
class _Masks:
    """Both masks of a case as label values ``[z, y, x]``, and the files that they were read from.

    Attributes:
        prediction, truth: in the orientation that was asked for.
        spacing_mm: of these.
        truth_as_predicted: the truth as the file of the prediction stores its voxels.
        prediction_file, truth_file: see above.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float]
    truth_as_predicted: np.ndarray
    prediction_file: ImageFile
    truth_file: ImageFile


def _read(files: CaseFiles, orientation: str | None = None) -> _Masks:
    prediction, truth = read_image(files.prediction, is_mask=True), read_image(files.truth, is_mask=True)
    predicted = as_labels(prediction.pixels, where=str(files.prediction))
    true = as_labels(truth.pixels, where=str(files.truth))
    laid, unlike = laid_onto(predicted, prediction.geometry, truth.geometry)
    faults = [
        Fault(
            files.name,
            f"the prediction's {what} is not that of the truth",
            found,
            expected,
            "resample the prediction to the grid of the truth",
        )
        for what, found, expected in unlike
    ]
    if faults:
        raise FaultsError("the grids differ", faults)
    if fault := voxel_fault(files.name, truth.geometry.spacing_mm, truth.geometry.shape, files.truth):
        messages.note(f"{fault.problem}: {fault.found}, where {fault.expected} are expected", files.name)
    turn = turn_into(orientation, truth.geometry)
    return _Masks(
        turn.array(laid),
        turn.array(true),
        turn.geometry(truth.geometry).spacing_mm,
        laid_onto(true, truth.geometry, prediction.geometry)[0],
        prediction,
        truth,
    )


def faults_of(error: AutosegError) -> list[Fault]:
    """The faults that an error is about."""
    return list(error.faults) if isinstance(error, FaultsError) else [error.fault]


def _score_case(task: ScoreTask) -> ScoredCase | list[Fault]:
    """The scores of a case, or what is wrong with it."""
    files = task.files
    try:
        masks = _read(files, task.orientation)
        inside = _inside(task, masks)
    except AutosegError as error:
        return faults_of(error)
    box = union_box(masks.prediction, masks.truth)
    prediction, truth = masks.prediction[box], masks.truth[box]
    faults = unknown_labels(prediction, truth, task.outputs, (str(files.prediction), str(files.truth)))
    if faults:
        return faults
    metrics, shape = task.choice.metrics, masks.truth.shape
    counted = (None, None) if inside is None else (inside[box], int(np.count_nonzero(inside)))
    scores = score_labels(prediction, truth, masks.spacing_mm, task.labels, metrics, shape, *counted)
    counts, problem = _counts(task, masks)
    listed = task.choice.false_lesions
    case = CaseScores(
        name=files.name,
        prediction_sha256=masks.prediction_file.sha256,
        truth_sha256=masks.truth_file.sha256,
        classes={
            name: {metric: defined(value) for metric, value in values.items()}
            for name, values in scores.items()
        },
        thresholds=counts,
        false_sizes=false_sizes(prediction, truth, masks.spacing_mm, task.labels, listed.rule)
        if listed
        else None,
    )
    return ScoredCase(case, problem)


def _inside(task: ScoreTask, masks: _Masks) -> np.ndarray | None:
    """Where voxels are counted, turned as the masks are; None for everywhere."""
    if task.inside is None:
        return None
    found = read_inside(task.files.name, task.inside, masks.truth_file)
    return turn_into(task.orientation, masks.truth_file.geometry).array(found)


def _counts(task: ScoreTask, masks: _Masks) -> tuple[dict[str, probabilities.Rows], str]:
    """Counts at thresholds, where there are usable probabilities; otherwise why there are none."""
    if task.probabilities is None:
        return {}, ""
    try:
        return probabilities.read_counts(
            task.probabilities, masks.truth_as_predicted, masks.truth_file.sha256, task.outputs, task.labels
        ), ""
    except AutosegError as error:
        return {}, f"{task.probabilities.name}: {error.fault.problem}"


def _look_at_case(files: CaseFiles) -> frozenset[int] | list[Fault]:
    """The label values of a case, refused when they are those of an image."""
    try:
        masks = _read(files)
    except AutosegError as error:
        return faults_of(error)
    found: set[int] = set()
    for mask, path in ((masks.prediction, files.prediction), (masks.truth, files.truth)):
        values = np.unique(mask[union_box(mask)]).tolist()
        if len(values) > MOST_CLASSES or (values and values[0] < 0):
            expected = f"a mask of at most {MOST_CLASSES} classes, none below 0"
            text = f"{len(values)} different values from {values[0]} to {values[-1]}"
            return [Fault(str(path), "this looks like an image", text, expected, "give the folder of masks")]
        found |= set(values)
    return frozenset(found)
