"""Counts at all thresholds for a case: from the probabilities beside its mask, or made when it was predicted.

Probabilities of a whole validation set take gigabytes, their counts a few kilobytes. ``CASE.npz`` (of
``autoseg_predict --save_probabilities``) is counted when the case is scored; after a training only the counts are
kept, in ``CASE.thresholds.json``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.dataset.imageio import as_labels, read_image
from autoseg.errors import AutosegError
from autoseg.evaluation.thresholds import THRESHOLDS, Counts, count
from autoseg.files import ExactModel, read_model, write_json
from autoseg.inference.prediction_record import PredictionRecord
from autoseg.labels import LabelSet

COUNTS_ENDING, PROBABILITIES_ENDING = ".thresholds.json", ".npz"
Rows = list[tuple[int, int, int]]


class CaseCounts(ExactModel):
    """CASE.thresholds.json.

    Attributes:
        truth_sha256: of the true mask that was counted against.
        labels: class to the label values that belong to it.
        classes: class to (tp, fp, fn) at each of :data:`autoseg.evaluation.thresholds.THRESHOLDS`.
    """

    version: Literal[1] = 1
    truth_sha256: str
    labels: dict[str, list[int]]
    classes: dict[str, Rows]


def find(
    folder: Path,
    name: str,
    record: PredictionRecord | None,
    endings: Sequence[str] = (COUNTS_ENDING, PROBABILITIES_ENDING),
) -> Path | None:
    """The file that counts of a case come from: finished counts before probabilities; None without either.

    A file that the folder's prediction.json does not list for the case is of an earlier prediction and is passed over.

    Args:
        folder: of the masks.
        name: of the case.
        record: prediction.json; None where there is none.
        endings: of the files that are looked for, in this order.
    """
    for ending in endings:
        path = folder / f"{name}{ending}"
        listed = record is None or (name in record.cases and path.name in record.cases[name].files)
        if listed and path.is_file():
            return path
    return None


def write_counts(path: Path, probabilities: np.ndarray, truth: Path, labels: LabelSet) -> None:
    """Count a predicted case against its true mask and write CASE.thresholds.json.

    Args:
        path: the file.
        probabilities: ``[k, z, y, x]`` on the grid of the truth.
        truth: the true mask.
        labels: what the outputs are.

    Raises:
        AutosegError: the truth cannot be read or lies on another grid.
    """
    file = read_image(truth, is_mask=True)
    counts = count_classes(probabilities, as_labels(file.pixels, where=str(truth)), labels, labels)
    content = CaseCounts(
        truth_sha256=file.sha256,
        labels=_values(labels),
        classes={name: as_rows(one) for name, one in counts.items()},
    )
    write_json(path, content)


def read_counts(
    path: Path, truth: np.ndarray, truth_sha256: str, outputs: LabelSet, scored: LabelSet
) -> dict[str, Rows]:
    """The counts of each scored class, from either kind of file.

    Args:
        path: what :func:`find` returned.
        truth: label values ``[z, y, x]``.
        truth_sha256: of its file.
        outputs: what the model's outputs are.
        scored: the classes, which may be regions of these.

    Raises:
        AutosegError: the file is damaged, of another truth, of other classes or of another grid.
    """
    if path.name.endswith(COUNTS_ENDING):
        content = read_model(path, CaseCounts)
        if content.truth_sha256 != truth_sha256:
            raise AutosegError("the true mask has changed since it was counted")
        return _same_classes(content, scored)
    counts = count_classes(read_probabilities(path), truth, outputs, scored)
    return {name: as_rows(one) for name, one in counts.items()}


def _same_classes(content: CaseCounts, scored: LabelSet) -> dict[str, Rows]:
    """Counts by the names of the scored classes, which are told by their label values."""
    counted = {tuple(sorted(values)): content.classes[name] for name, values in content.labels.items()}
    wanted = {name: tuple(sorted(values)) for name, values in _values(scored).items()}
    if any(values not in counted or len(counted[values]) != len(THRESHOLDS) for values in wanted.values()):
        raise AutosegError(f"counted for other classes ({', '.join(content.labels)})")
    return {name: counted[values] for name, values in wanted.items()}


def read_probabilities(path: Path) -> np.ndarray:
    """``CASE.npz``: ``[k, z, y, x]``.

    Raises:
        AutosegError: the file is damaged.
    """
    if not zipfile.is_zipfile(path):  # numpy would take it for another format
        raise AutosegError("damaged: not a .npz file")
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["probabilities"]
    except KeyError:
        raise AutosegError("there is no array 'probabilities' in it") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise AutosegError(f"damaged: {error}") from None


def count_classes(
    probabilities: np.ndarray, truth: np.ndarray, outputs: LabelSet, scored: LabelSet
) -> dict[str, Counts]:
    """Counts at all thresholds for each class; ignored voxels count nowhere.

    Args:
        probabilities: ``[k, z, y, x]``, in the order of ``outputs``.
        truth: label values ``[z, y, x]``.
        outputs: what the ``k`` outputs are.
        scored: the classes; one that merges several plain classes has the sum of their probabilities.

    Raises:
        AutosegError: another number of outputs or another shape, no probabilities, or a class that the outputs do
            not make up.
    """
    ignore = None if scored.ignore is None else truth == scored.ignore
    masks = scored.masks(truth)
    of_classes = _of_classes(probabilities, truth.shape, outputs, scored)
    return {name: count(probability, masks[name], ignore) for name, probability in of_classes}


def read_of_classes(
    path: Path, shape: tuple[int, ...], outputs: LabelSet, scored: LabelSet
) -> dict[str, np.ndarray]:
    """The probability ``[z, y, x]`` of each class, from ``CASE.npz``.

    Args:
        path: the file.
        shape: of the mask.
        outputs, scored: as of :func:`count_classes`.

    Raises:
        AutosegError: the file is damaged, of other classes or of another grid.
    """
    return dict(_of_classes(read_probabilities(path), shape, outputs, scored))


def _of_classes(
    probabilities: np.ndarray, shape: tuple[int, ...], outputs: LabelSet, scored: LabelSet
) -> Iterator[tuple[str, np.ndarray]]:
    """Each class and its probability, one after the other."""
    expected = (outputs.n_outputs, *shape)
    if probabilities.shape != expected or probabilities.dtype.kind != "f":
        raise AutosegError(f"{probabilities.dtype} {probabilities.shape} instead of probabilities {expected}")
    for name, values in zip(scored.names, scored.values, strict=True):
        chosen = probabilities[_channels(name, values, outputs)]
        yield name, chosen[0] if len(chosen) == 1 else chosen.sum(0, dtype=np.float32)


def _channels(name: str, values: tuple[int, ...], outputs: LabelSet) -> list[int]:
    """The outputs whose probabilities add up to that of a class."""
    groups = [set(group) for group in outputs.values]
    if outputs.has_regions:  # regions overlap, so there is no adding up
        found = [i for i, group in enumerate(groups) if group == set(values)]
    else:
        found = [i + 1 for i, group in enumerate(groups) if group <= set(values)]
        if not set(values) <= set().union(*(groups[i - 1] for i in found)):
            found = []
    if not found:
        raise AutosegError(f"no outputs make up {name}")
    return found


def as_rows(counts: Counts) -> Rows:
    """(tp, fp, fn) at each threshold, as plain numbers."""
    return [(int(tp), int(fp), int(fn)) for tp, fp, fn in zip(counts.tp, counts.fp, counts.fn, strict=True)]


def _values(labels: LabelSet) -> dict[str, list[int]]:
    return {name: list(values) for name, values in zip(labels.names, labels.values, strict=True)}
