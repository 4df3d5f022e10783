"""Score predicted masks against true ones: arrays from Python, folders from ``autoseg_evaluate``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import as_labels
from autoseg.dataset.turning import orientation_of_most
from autoseg.errors import AutosegError, FaultsError
from autoseg.evaluation import probabilities
from autoseg.evaluation.case_files import CaseFiles, find_cases, find_dataset_json, true_masks
from autoseg.evaluation.cohort import summarise
from autoseg.evaluation.count_masks import count_masks
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.metrics.catalogue import METRICS, score
from autoseg.evaluation.metrics.pair import Pair, union_box
from autoseg.evaluation.presets import Preset
from autoseg.evaluation.regions import Regions, scored_regions
from autoseg.evaluation.score_case import ScoreTask, find_values, score_cases, score_labels, unknown_labels
from autoseg.evaluation.strata import StrataRule, parse_rule, read_groups
from autoseg.evaluation.summary import CaseScores, Summary
from autoseg.inference.prediction_record import read_record
from autoseg.labels import LabelSet
from autoseg.messages import count_of, some_of

__all__ = ["evaluate", "evaluate_arrays", "evaluate_folder", "find_dataset_json"]

Labels = Mapping[str, "int | list[int]"]

# ------------------------------------------------------------------------------------------------------- arrays


@overload
def evaluate_arrays(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    labels: None = None,
    preset: str | Preset = "autoseg",
) -> dict[str, float]:
    """Without labels: metric to value of one class."""
    ...


@overload
def evaluate_arrays(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    labels: Labels,
    preset: str | Preset = "autoseg",
) -> dict[str, dict[str, float]]:
    """With labels: class to metric to value."""
    ...


def evaluate_arrays(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    labels: Labels | None = None,
    preset: str | Preset = "autoseg",
) -> dict[str, float] | dict[str, dict[str, float]]:
    """Score one mask against another.

    Args:
        prediction, truth: ``[z, y, x]``, boolean or label values.
        spacing_mm: z, y, x.
        labels: as in dataset.json, such as ``{"core": 1, "whole": [1, 2]}``, with or without background; an
            ``ignore`` label is left out of the score. Without it the masks must hold one class, unless the preset
            has regions of its own.
        preset: which metrics, by which definitions, see :mod:`autoseg.evaluation.presets`.

    Returns:
        Metric of the preset to value, ``nan`` where undefined; with ``labels`` or regions, class to that.

    Raises:
        AutosegError: shapes differ or are not 3D, a spacing is not positive, probabilities instead of masks,
            label values that ``labels`` does not name, an unknown preset.
    """
    choice = MetricChoice(preset)
    prediction, truth = _checked(prediction, "prediction"), _checked(truth, "truth")
    if prediction.shape != truth.shape:
        raise AutosegError(
            "prediction and truth have different shapes",
            found=f"prediction {prediction.shape}",
            expected=f"{truth.shape}, as the truth",
            fix="resample the prediction to the grid of the truth",
        )
    spacing, metrics = _spacing(spacing_mm), choice.full_preset.metrics
    if labels is None and (regions := choice.full_preset.regions):
        labels = {name: list(values) for name, values in regions.items()}
    if labels is None:
        _refuse_several_classes(prediction, truth)
        return score(Pair(prediction != 0, truth != 0, spacing), metrics)
    label_set = LabelSet.from_labels(dict(labels))
    box = union_box(prediction, truth)
    faults = unknown_labels(prediction[box], truth[box], label_set, ("the prediction", "the truth"))
    if faults:
        fix = "name all values in labels, or correct the mask"
        faults = [replace(fault, problem="label that is not in labels", fix=fix) for fault in faults]
        raise FaultsError("the masks hold labels that are not known", faults)
    return score_labels(prediction, truth, spacing, label_set, metrics)


evaluate = evaluate_arrays
"""As :func:`autoseg.evaluate`."""


def _checked(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise AutosegError(
            f"the {name} is not a volume",
            found=f"an array of shape {mask.shape}",
            expected="[z, y, x]",
            fix="index or add axes; a single slice is mask[None]",
        )
    return mask if mask.dtype == bool else as_labels(mask, where=f"the {name}")


def _spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(v) for v in np.atleast_1d(spacing_mm))
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise AutosegError(
            "spacing_mm does not fit", found=values, expected="three positive numbers: z, y, x in mm"
        )
    z, y, x = values
    return z, y, x


def _refuse_several_classes(prediction: np.ndarray, truth: np.ndarray) -> None:
    values = sorted({int(v) for mask in (prediction, truth) for v in np.unique(mask)} - {0})
    if len(values) > 1:
        raise AutosegError(
            "the masks hold more than one class",
            found=f"label values {', '.join(map(str, values))}",
            expected="one value beside 0, or the names of the labels",
            fix='give labels={"name": value, ...}, or compare with a value first',
        )


# ------------------------------------------------------------------------------------------------------ folders


def evaluate_folder(
    predictions: Path | str,
    truths: Path | str,
    info: DatasetJson | None = None,
    *,
    preset: str | Preset = "autoseg",
    without: Sequence[str] = (),
    nsd_mm: Sequence[float] = (),
    strata: Sequence[str] = (),
    groups: Path | str | None = None,
    regions: Regions | None = None,
    mask: Path | str | None = None,
    mask_channel: int | None = None,
    cases: Iterable[str] | None = None,
    processes: int = 1,
    chill: bool = False,
    ready: Callable[[], None] | None = None,
) -> Summary:
    """Score every mask of a folder. Nothing is written; see :meth:`Summary.write`.

    All masks are turned into the orientation in which most files of the folder of truths are stored, so that a slice
    means the same in each, whichever cases are scored.

    Args:
        predictions, truths: folders of ``CASE.nii.gz`` or another format, the formats may differ. Probabilities beside
            a predicted mask are counted at thresholds, see :mod:`autoseg.evaluation.probabilities`.
        info: dataset.json; without it every value that is found in the masks is a class.
        preset: which metrics, by which definitions.
        without: groups of metrics that are left out, see :data:`autoseg.evaluation.metrics.metric.GROUPS`.
        nsd_mm: further tolerances of the normalised surface Dice.
        strata: rules such as ``voxels_truth=q4``, see :mod:`autoseg.evaluation.strata`; after those of the preset.
        groups: a CSV with a column ``case``; each other column is a stratum.
        regions: region to the label values that it merges; scored in place of the classes, and of the preset's regions;
            see :func:`autoseg.evaluation.regions.scored_regions`.
        mask: a folder with a mask ``CASE.nii.gz`` of the brain, say, for each case: TP, FP, FN, TN and what follows
            from them are counted inside; on the grid of the truths.
        mask_channel: the folder holds images, and voxels of this channel that are not 0 are inside.
        cases: their names; by default every truth is a case.
        processes: at most so many; they start only where they save time.
        chill: cases without prediction are said and left out.
        ready: called once arguments and folders fit, before any mask is read: what else should be checked then, such as
            where the results go.

    Raises:
        AutosegError: a folder is missing or holds no mask; an unknown preset, group or metric, or a bad rule; regions
            of labels that there are not, or that mean something else.
        FaultsError: with all faults of all cases: a missing file, another grid, unknown labels, probabilities, a
            damaged file.
    """
    predictions, truths, said = Path(predictions), Path(truths), messages.warning_counts()
    choice, rules = _choice_and_rules(preset, without, nsd_mm, strata)
    files, ignored, unpredicted = find_cases(predictions, truths, cases, chill=chill)
    table = read_groups(groups, [file.name for file in files]) if groups is not None else None
    regions = scored_regions(regions, choice.full_preset, info)
    inside = count_masks(mask, mask_channel)
    counted = inside.find(file.name for file in files) if inside is not None else {}
    if ready is not None:
        ready()
    processes = processes if choice.sendable else 1
    classes = _classes(files, info, regions, processes)
    all_truths = (path for paths in true_masks(truths).values() for path in paths)
    orientation = orientation_of_most(all_truths)
    scored = _score(files, classes, choice, predictions, processes, orientation, counted)
    if table is not None:
        scored = [case.model_copy(update={"groups": table.of.get(case.name, {})}) for case in scored]
    summary = summarise(
        scored,
        choice=choice,
        rules=rules,
        groups=table,
        predictions=predictions,
        truths=truths,
        labels=classes.labels,
        labels_from=classes.labels_from,
        ignored=ignored,
        unpredicted=unpredicted,
        inside="" if inside is None else inside.words,
    )
    return summary.model_copy(update={"warnings": messages.warnings_since(said)})


def _choice_and_rules(
    preset: str | Preset, without: Sequence[str], nsd_mm: Sequence[float], strata: Sequence[str]
) -> tuple[MetricChoice, list[StrataRule]]:
    """What is computed, with the quantities that the cases are split by, and how they are split."""
    choice = MetricChoice(preset, tuple(without), tuple(nsd_mm))
    names = [metric.name for metric in choice.metrics]
    texts = dict.fromkeys((*choice.full_preset.strata, *strata))
    rules = [parse_rule(text, dict.fromkeys((*names, *METRICS))) for text in texts]
    return replace(choice, also=tuple(rule.metric for rule in rules)), rules


@dataclass(frozen=True)
class _Classes:
    """What is scored.

    Attributes:
        labels: the classes or regions, as in dataset.json.
        labels_from: where they come from, in words.
        outputs: the classes of dataset.json, whose values are known.
    """

    labels: dict[str, int | list[int]]
    labels_from: str
    outputs: LabelSet

    @property
    def scored(self) -> LabelSet:
        """The classes or regions as a label set."""
        return LabelSet.from_labels(self.labels)


def _classes(
    files: Sequence[CaseFiles], info: DatasetJson | None, regions: Regions | None, processes: int
) -> _Classes:
    """The classes of dataset.json, or those found in the masks, or regions of either."""
    if info is not None:
        labels, labels_from, outputs = info.labels, "dataset.json", info.label_set
    else:
        named = {value for merged in (regions or {}).values() for value in merged}
        labels, labels_from = found_labels(files, processes, named), "the values found in the masks"
        outputs = LabelSet.from_labels(labels)
    if not regions:
        return _Classes(labels, labels_from, outputs)
    labels = {"background": 0, **{name: list(values) for name, values in regions.items()}}
    if outputs.ignore is not None:
        labels["ignore"] = outputs.ignore
    return _Classes(labels, f"regions of {labels_from}", outputs)


def found_labels(
    files: Sequence[CaseFiles], processes: int, named: Iterable[int] = ()
) -> dict[str, int | list[int]]:
    """``background`` and one label for each value that is found in any of the masks or named by a region.

    Raises:
        AutosegError: there is none.
        FaultsError: files cannot be read as masks.
    """
    values = find_values(files, processes)
    if not values:
        raise AutosegError(
            "all masks are empty, and there is no dataset.json to name the classes",
            expected="a dataset.json beside the folder of truths",
            fix="give one with -djfile",
        )
    names = [f"label {value}" for value in values]
    messages.info(f"no dataset.json: the classes are the values found in the masks: {some_of(names, 40)}")
    return {"background": 0, **{f"label {value}": value for value in sorted({*values, *named})}}


def _score(
    files: Sequence[CaseFiles],
    classes: _Classes,
    choice: MetricChoice,
    predictions: Path,
    processes: int,
    orientation: str | None,
    counted: Mapping[str, Path],
) -> list[CaseScores]:
    """The scores of all cases, turned into one orientation; probabilities that do not fit are said and not used."""
    labels, found = classes.scored, _probabilities(predictions, files)
    tasks = [
        ScoreTask(file, labels, classes.outputs, choice, path, orientation, counted.get(file.name))
        for file, path in zip(files, found, strict=True)
    ]
    scored = score_cases(tasks, processes)
    problems = sorted(one.problem for one in scored if one.problem)
    if problems:
        messages.warn(f"probabilities of {count_of(len(problems), 'case')} not used: {some_of(problems, 3)}")
    used = sum(bool(one.case.thresholds) for one in scored)
    if 0 < used < len(scored):
        messages.warn(
            f"what follows from probabilities is over {used} of {len(scored)} cases: others have none"
        )
    return [one.case for one in scored]


def _probabilities(predictions: Path, files: Sequence[CaseFiles]) -> list[Path | None]:
    """For each case the file with its probabilities or their counts."""
    try:
        record = read_record(predictions)
    except AutosegError as error:  # without it one cannot tell which of them belong to the masks
        if any(probabilities.find(predictions, file.name, None) for file in files):
            messages.warn(f"probabilities are not used: the record of the predictions is damaged: {error}")
        return [None] * len(files)
    return [probabilities.find(predictions, file.name, record) for file in files]
