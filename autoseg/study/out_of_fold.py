"""Out-of-fold predictions of one or several models: each case as the fold that had not seen it predicts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.bundle.opening import read_plan
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import Geometry, HeaderForms, as_labels, read_image
from autoseg.dataset.raw_layout import Case, load_raw
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.evaluation.probabilities import PROBABILITIES_ENDING, read_probabilities
from autoseg.files import read_json, read_model
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.study.fuse import fuse

AGAIN = "train the folds with autoseg_train ... --save_probabilities"


@dataclass(frozen=True)
class OutOfFoldCase:
    """One case.

    Attributes:
        name: of it.
        part: the fold that predicted it.
        truth: path of its true mask.
        masks: as each model predicts it, with the post-processing of its plan.
        probabilities: ``CASE.npz`` of each model.
    """

    name: str
    part: int
    truth: Path
    masks: tuple[Path, ...]
    probabilities: tuple[Path, ...]


@dataclass(frozen=True)
class Arrays:
    """What a case holds.

    Attributes:
        truth: label values ``[z, y, x]``.
        planned: the mask with the plan's post-processing; of several models, what their probabilities decide.
        decided: what the probabilities decide.
        probabilities: float32 ``[k, z, y, x]``, fused.
        geometry, forms: of the mask's file.
    """

    truth: np.ndarray
    planned: np.ndarray
    decided: np.ndarray
    probabilities: np.ndarray
    geometry: Geometry
    forms: HeaderForms


@dataclass(frozen=True)
class OutOfFold:
    """All cases of some models.

    Attributes:
        cases: sorted by name.
        info: dataset.json of the models.
        fusion: how several become one.
    """

    cases: tuple[OutOfFoldCase, ...]
    info: DatasetJson
    fusion: str

    @property
    def labels(self) -> LabelSet:
        """The classes."""
        return self.info.label_set

    def read(self, case: OutOfFoldCase) -> Arrays:
        """The arrays of a case.

        Raises:
            AutosegError: a file is missing or damaged, or lies on another grid.
        """
        truth = read_image(case.truth, is_mask=True)
        file = read_image(case.masks[0], is_mask=True)
        planned = as_labels(file.pixels, where=str(case.masks[0]))
        maps = [read_probabilities(path) for path in case.probabilities]
        shapes = {one.shape for one in maps} | {(self.labels.n_outputs, *planned.shape)}
        if len(shapes) > 1 or truth.pixels.shape != planned.shape:
            raise AutosegError(
                "probabilities, masks and truth do not lie on one grid",
                where=case.name,
                found=", ".join(map(str, [*shapes, truth.pixels.shape])),
                fix=AGAIN,
            )
        probabilities, decided = fuse(maps, self.labels, self.fusion)
        return Arrays(
            truth=as_labels(truth.pixels, where=str(case.truth)),
            planned=planned if len(maps) == 1 else decided,
            decided=decided,
            probabilities=probabilities,
            geometry=file.geometry,
            forms=file.forms,
        )


def collect(models: Sequence[Path], raw: Path, fusion: str) -> OutOfFold:
    """The out-of-fold predictions of models of one dataset.

    Args:
        models: their folders, each with at least one finished fold.
        raw: the root of raw data.
        fusion: of several.

    Raises:
        AutosegError: the models are of different data or classes, or have no common case.
        FaultsError: probabilities that are missing.
    """
    infos = [read_model(model / "dataset.json", DatasetJson) for model in models]
    datasets = {read_plan(model).dataset for model in models}
    if len(datasets) > 1 or any(info.labels != infos[0].labels for info in infos):
        raise AutosegError(
            "the models are of different data or classes",
            found=", ".join(sorted(datasets)),
            expected="models of one dataset",
            fix="give models of one dataset",
        )
    cases = {case.name: case for case in load_raw(raw / datasets.pop()).cases}
    places = [dict(_places(model)) for model in models]
    names = sorted(set(cases).intersection(*places))
    if not names:
        raise AutosegError(
            "no case was predicted out of fold",
            where=", ".join(map(str, models)),
            expected="finished folds of the same cross-validation",
            fix=AGAIN,
        )
    found = tuple(_case(cases[name], [place[name] for place in places], infos[0]) for name in names)
    _refuse_missing(found)
    return OutOfFold(found, infos[0], fusion)


def _places(model: Path) -> Iterator[tuple[str, tuple[int, Path]]]:
    """Case to its fold and the folder of its prediction."""
    for record in sorted(model.glob("fold_*/fold.json")):
        fold = record.parent.name.removeprefix("fold_")
        if fold.isdecimal():
            content = read_json(record)
            for name in content.get("test_cases") or content["validation_cases"]:
                yield name, (int(fold), record.parent / "validation")


def _case(case: Case, places: Sequence[tuple[int, Path]], info: DatasetJson) -> OutOfFoldCase:
    if case.mask is None:
        raise AutosegError("the case has no mask", where=case.name, fix="put it back into labelsTr")
    return OutOfFoldCase(
        name=case.name,
        part=places[0][0],
        truth=case.mask,
        masks=tuple(folder / f"{case.name}{info.file_ending}" for _, folder in places),
        probabilities=tuple(folder / f"{case.name}{PROBABILITIES_ENDING}" for _, folder in places),
    )


def _refuse_missing(cases: Sequence[OutOfFoldCase]) -> None:
    missing = [
        Fault(case.name, "is missing", str(path), fix=AGAIN)
        for case in cases
        for path in (*case.masks, *case.probabilities)
        if not path.is_file()
    ]
    if missing:
        raise FaultsError(
            f"{count_of(len(missing), 'file')} of the out-of-fold predictions missing", missing[:10]
        )
