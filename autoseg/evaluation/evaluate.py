"""Score predicted masks against true ones: arrays from Python, folders from ``autoseg_evaluate``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from autoseg import messages
from autoseg.dataset.imageio import as_labels, differences, read_geometry, read_image
from autoseg.dataset.schema import FILE_ENDINGS, DatasetJson, LabelSet, read_dataset_json
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.evaluation.metrics import Pair, score, union_box
from autoseg.evaluation.summary import CaseScores, Summary, defined, summarise
from autoseg.parallel import each

Labels = Mapping[str, "int | list[int]"]

MOST_CLASSES = 32
"""A file with more different values than this is an image, not a mask."""
LARGE_VOXELS = 100_000_000
"""Fewer voxels than this over all cases are scored faster without processes, which take 1 to 2 s to start."""


# ------------------------------------------------------------------------------------------------------- arrays


@overload
def evaluate_arrays(
    prediction: np.ndarray, truth: np.ndarray, *, spacing_mm: Sequence[float], labels: None = None
) -> dict[str, float]: ...


@overload
def evaluate_arrays(
    prediction: np.ndarray, truth: np.ndarray, *, spacing_mm: Sequence[float], labels: Labels
) -> dict[str, dict[str, float]]: ...


def evaluate_arrays(
    prediction: np.ndarray, truth: np.ndarray, *, spacing_mm: Sequence[float], labels: Labels | None = None
) -> dict[str, float] | dict[str, dict[str, float]]:
    """Score one mask against another.

    Args:
        prediction, truth: ``[z, y, x]``, boolean or label values.
        spacing_mm: z, y, x.
        labels: as in dataset.json, such as ``{"core": 1, "whole": [1, 2]}``, with or without background; an
            ``ignore`` label is left out of the score. Without it the masks must hold one class.

    Returns:
        Metric to value (``nan`` where undefined, see :data:`autoseg.evaluation.metrics.METRICS`); with ``labels``,
        class to that.

    Raises:
        AutosegError: shapes differ or are not 3D, a spacing is not positive, probabilities instead of masks,
            label values that ``labels`` does not name.
    """
    prediction = _checked(prediction, "prediction")
    truth = _checked(truth, "truth")
    if prediction.shape != truth.shape:
        raise AutosegError(
            "prediction and truth have different shapes",
            found=f"prediction {prediction.shape}",
            expected=f"{truth.shape}, as the truth",
            fix="resample the prediction to the grid of the truth",
        )
    spacing = _spacing(spacing_mm)
    if labels is not None:
        label_set = LabelSet.from_labels(dict(labels))
        faults = _unknown(prediction, truth, label_set, ("the prediction", "the truth"))
        if faults:
            raise FaultsError("the masks hold labels that are not known", faults)
        return score_labels(prediction, truth, spacing, label_set)
    values = sorted({int(v) for mask in (prediction, truth) for v in np.unique(mask)} - {0})
    if len(values) > 1:
        raise AutosegError(
            "the masks hold more than one class",
            found=f"label values {', '.join(map(str, values))}",
            expected="one value beside 0, or the names of the labels",
            fix='give labels={"name": value, ...}, or compare with a value first',
        )
    return score(Pair(prediction != 0, truth != 0, spacing))


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
    values = tuple(float(v) for v in spacing_mm)
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise AutosegError(
            "spacing_mm does not fit", found=values, expected="three positive numbers: z, y, x in mm"
        )
    return values  # type: ignore[return-value]


def score_labels(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], labels: LabelSet
) -> dict[str, dict[str, float]]:
    """Class or region to metric to value, for label masks ``[z, y, x]`` whose values are known.

    Voxels that the truth ignores belong to no class in either mask and are no true negatives.
    """
    box = union_box(prediction, truth)
    n_scored, prediction, truth = truth.size, prediction[box], truth[box]
    if labels.ignore is not None:
        ignored = truth == labels.ignore
        n_scored -= int(np.count_nonzero(ignored))
        prediction = np.where(ignored, 0, prediction)
        truth = np.where(ignored, 0, truth)
    predicted, true = labels.masks(prediction), labels.masks(truth)
    return {name: score(Pair(predicted[name], true[name], spacing_mm, n_scored)) for name in labels.names}


def _unknown(
    prediction: np.ndarray, truth: np.ndarray, labels: LabelSet, names: tuple[str, str]
) -> list[Fault]:
    """A fault for each mask that holds values without a meaning."""
    allowed = set(labels.known_values)
    expected = "0 background, " + ", ".join(
        f"{'+'.join(map(str, values))} {name}"
        for name, values in zip(labels.names, labels.values, strict=True)
    )
    faults = []
    for mask, where, in_truth in ((prediction, names[0], False), (truth, names[1], True)):
        known = allowed if in_truth else allowed - {labels.ignore}
        values, counts = np.unique(mask[union_box(mask)], return_counts=True)
        odd = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if int(v) not in known]
        if odd:
            found = ", ".join(f"{value} in {n} voxels" for value, n in odd[:5])
            fix = "use the dataset.json (-djfile) that these masks were made with, or correct the file"
            faults.append(Fault(where, "label that is not in dataset.json", found, expected, fix))
    return faults


# ------------------------------------------------------------------------------------------------------ folders


@dataclass(frozen=True)
class CaseFiles:
    """The two files of a case.

    Attributes:
        labels: what to score; None only looks at which values there are.
    """

    name: str
    prediction: Path
    truth: Path
    labels: LabelSet | None = None


def evaluate_folder(
    predictions: Path | str,
    truths: Path | str,
    info: DatasetJson | None = None,
    *,
    cases: Iterable[str] | None = None,
    processes: int = 1,
    chill: bool = False,
) -> Summary:
    """Score every mask of a folder. Nothing is written; see :meth:`Summary.write`.

    Args:
        predictions, truths: folders of ``CASE.nii.gz`` or another format, the formats may differ.
        info: dataset.json; without it every value that is found in the masks is a class.
        cases: their names; by default every truth is a case.
        processes: at most so many; few or small files are scored without further processes.
        chill: cases without prediction are said and left out.

    Raises:
        AutosegError: a folder is missing or holds no mask.
        FaultsError: with all faults of all cases: a missing file, another grid, unknown labels, probabilities, a
            damaged file.
    """
    predictions, truths = Path(predictions), Path(truths)
    files, ignored, unpredicted = find_cases(predictions, truths, cases, chill=chill)
    processes = _worthwhile(processes, files)
    labels: dict[str, int | list[int]]
    if info is not None:
        labels, labels_from = info.labels, "dataset.json"
        label_set = info.label_set
    else:
        labels, labels_from = find_labels(files, processes), "the values found in the masks"
        label_set = LabelSet.from_labels(labels)
    scored = _all_cases(
        [CaseFiles(f.name, f.prediction, f.truth, label_set) for f in files], processes, "scoring"
    )
    return summarise(
        [case for case in scored if isinstance(case, CaseScores)],
        predictions=predictions,
        truths=truths,
        labels=labels,
        labels_from=labels_from,
        ignored=ignored,
        unpredicted=unpredicted,
    )


def _worthwhile(processes: int, files: Sequence[CaseFiles]) -> int:
    """One process when the cases are small; the first one tells for all."""
    try:
        voxels = math.prod(read_geometry(files[0].truth).shape) * len(files)
    except AutosegError:  # it is explained when the case's turn comes
        return 1
    return processes if voxels > LARGE_VOXELS else 1


def find_dataset_json(predictions: Path | str, truths: Path | str) -> DatasetJson | None:
    """The dataset.json beside the folder of truths, in it, or with the predictions; None without one."""
    truths = Path(truths).resolve()
    for folder in (truths.parent, truths, Path(predictions)):
        if (folder / "dataset.json").is_file():
            messages.info(f"labels from {folder / 'dataset.json'}")
            return read_dataset_json(folder / "dataset.json")
    return None


def find_cases(
    predictions: Path, truths: Path, cases: Iterable[str] | None = None, *, chill: bool = False
) -> tuple[list[CaseFiles], list[str], list[str]]:
    """The cases to score, predictions without truth, and truths without prediction that are left out.

    Raises:
        AutosegError: a folder is missing or holds no mask, or both are the same.
        FaultsError: files are missing, or a case has two.
    """
    if predictions.resolve() == truths.resolve():
        raise AutosegError(
            "predictions and truths are the same folder", where=str(truths), fix="give -p and -g two folders"
        )
    predicted, true = _masks_in(predictions, "predicted masks"), _masks_in(truths, "true masks")
    names = sorted(true if cases is None else set(cases))
    unpredicted = [name for name in names if name not in predicted] if chill else []
    kept = [name for name in names if name not in unpredicted]
    faults = []
    for name in kept:
        for found, what, folder in ((predicted, "prediction", predictions), (true, "truth", truths)):
            faults += _file_faults(name, found.get(name, []), what, folder)
    if faults or not kept:
        missing = faults or [Fault(name, "no prediction", expected=str(predictions)) for name in names]
        raise FaultsError(_missing_title(missing, predicted, names), missing)
    ignored = sorted(set(predicted) - set(names)) if cases is None else []
    if ignored:
        messages.warn(f"{_count(len(ignored), 'prediction')} without truth not scored: {_some(ignored)}")
    if unpredicted:
        messages.warn(
            f"{_count(len(unpredicted), 'truth')} without prediction left out: {_some(unpredicted)}"
        )
    return [CaseFiles(name, predicted[name][0], true[name][0]) for name in kept], ignored, unpredicted


def _file_faults(name: str, files: Sequence[Path], what: str, folder: Path) -> list[Fault]:
    if len(files) == 1:
        return []
    expected = f"{name}{{{','.join(FILE_ENDINGS)}}} in {folder}"
    if not files:
        fix = (
            "predict it, or leave such cases out with --chill"
            if what == "prediction"
            else "add its mask to the truths"
        )
        return [Fault(name, f"the {what} is missing", "no such file", expected, fix)]
    found = " and ".join(file.name for file in files)
    return [Fault(name, f"the {what} is there twice", found, "one file", "remove the one that is outdated")]


def _missing_title(faults: Sequence[Fault], predicted: Mapping[str, object], names: Sequence[str]) -> str:
    title = f"{_count(len(faults), 'file')} missing or doubled"
    if not set(predicted) & set(names):
        title += f"; no prediction has the name of a case (found {_some(sorted(predicted))})"
    return title


def _masks_in(folder: Path, what: str) -> dict[str, list[Path]]:
    """Case name to its files in one of the formats that autoseg reads."""
    if not folder.is_dir():
        raise AutosegError(f"the folder of {what} is missing", where=str(folder), fix="check the path")
    masks: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        ending = next((e for e in FILE_ENDINGS if entry.name.endswith(e)), None)
        if ending and entry.is_file() and not entry.name.startswith("."):
            masks.setdefault(entry.name.removesuffix(ending), []).append(entry)
    if not masks:
        others = sorted(entry.name for entry in folder.iterdir())
        raise AutosegError(
            f"the folder of {what} holds no mask",
            where=str(folder),
            found=_some(others) if others else "an empty folder",
            expected=f"files that end in {', '.join(FILE_ENDINGS)}",
            fix="check the path; probabilities (.npz) are not scored",
        )
    return masks


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# -------------------------------------------------------------------------------------------------- single cases


def find_labels(files: Sequence[CaseFiles], processes: int = 1) -> dict[str, int | list[int]]:
    """``background`` and one label for each value that is found in any of the masks.

    Raises:
        AutosegError: no mask has any value but 0.
        FaultsError: files cannot be read as masks.
    """
    found = _all_cases([CaseFiles(f.name, f.prediction, f.truth) for f in files], processes, "looking")
    values = sorted({value for case in found if isinstance(case, frozenset) for value in case} - {0})
    if not values:
        raise AutosegError(
            "all masks are empty, and there is no dataset.json to name the classes",
            expected="a dataset.json beside the folder of truths",
            fix="give one with -djfile",
        )
    names = {f"label {value}": value for value in values}
    messages.info(f"no dataset.json: the classes are the values found in the masks: {_some(list(names), 40)}")
    return {"background": 0, **names}


def _all_cases(files: Sequence[CaseFiles], processes: int, doing: str) -> list[CaseScores | frozenset[int]]:
    """What each case gives; the faults of all of them are raised together."""
    results: list[CaseScores | frozenset[int]] = []
    faults: list[tuple[int, Fault]] = []
    for index, result in each(_case, files, processes, name_of=lambda f: f.name, doing=doing):
        if isinstance(result, list):
            faults += [(index, fault) for fault in result]
        else:
            results.append(result)
    if faults:
        ordered = [fault for _, fault in sorted(faults, key=lambda pair: pair[0])]
        raise FaultsError(f"the masks cannot be scored: {_count(len(faults), 'fault')}", ordered)
    return results


def _case(files: CaseFiles) -> CaseScores | frozenset[int] | list[Fault]:
    """The scores of a case, or its values when no labels are given, or what is wrong with it."""
    try:
        prediction, truth = read_image(files.prediction), read_image(files.truth)
        faults = [
            Fault(
                files.name,
                f"the prediction's {what} is not that of the truth",
                found,
                expected,
                "resample the prediction to the grid of the truth",
            )
            for what, found, expected in differences(truth.geometry, prediction.geometry)
        ]
        if faults:
            return faults
        predicted = as_labels(prediction.pixels, where=str(files.prediction))
        true = as_labels(truth.pixels, where=str(files.truth))
    except FaultsError as error:
        return list(error.faults)
    except AutosegError as error:
        return [error.fault]
    if files.labels is None:
        return _values(files, predicted, true)
    faults = _unknown(predicted, true, files.labels, (str(files.prediction), str(files.truth)))
    if faults:
        return faults
    classes = score_labels(predicted, true, truth.geometry.spacing_mm, files.labels)
    return CaseScores(
        name=files.name,
        prediction_sha256=prediction.sha256,
        truth_sha256=truth.sha256,
        classes={
            name: {metric: defined(value) for metric, value in scores.items()}
            for name, scores in classes.items()
        },
    )


def _values(files: CaseFiles, prediction: np.ndarray, truth: np.ndarray) -> frozenset[int] | list[Fault]:
    """The label values of a case, refused when they are those of an image."""
    found: set[int] = set()
    for mask, path in ((prediction, files.prediction), (truth, files.truth)):
        values = np.unique(mask[union_box(mask)])
        if len(values) > MOST_CLASSES or (len(values) and values[0] < 0):
            expected = f"a mask of at most {MOST_CLASSES} classes, none below 0"
            text = f"{len(values)} different values from {values[0]} to {values[-1]}"
            return [Fault(str(path), "this looks like an image", text, expected, "give the folder of masks")]
        found |= {int(value) for value in values}
    return frozenset(found)
