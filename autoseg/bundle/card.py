"""The model card: what a model is, what it was trained on, and the hash of each of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from autoseg.bundle.layout import CARD
from autoseg.bundle.opening import read_plan
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.files import hash_file, read_json, read_model, write_json
from autoseg.names import NAME, Name
from autoseg.plan import hash_plan
from autoseg.version import __version__

_FOLD = r"fold_(?:\d+|all)"
ALLOWED = tuple(
    re.compile(pattern)
    for pattern in (
        r"plan\.json",
        r"dataset\.json",
        r"model_card\.json",
        r"postprocessing\.json",
        rf"{_FOLD}/weights/{NAME}\.safetensors",
        rf"{_FOLD}/validation/summary\.json",
        rf"{_FOLD}/fitted\.json",
        rf"{_FOLD}/normalisation\.json",
    )
)
"""The only files that a bundle may hold."""


class FoldCard(BaseModel):
    """One trained fold.

    Attributes:
        n_validation_cases: scored cases; None when the fold was not validated.
        validation: the fold's mean scores, as evaluation wrote them.
        start: of weights that were trained on from those of another model: its name, file, hash and plan, and in
            ``start`` what those were trained on from. Left out where there is none.
    """

    model_config = ConfigDict(extra="forbid")

    fold: str
    n_validation_cases: int | None = None
    validation: dict[str, Any] | None = None
    start: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _without_start_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return content if self.start else {key: value for key, value in content.items() if key != "start"}


class ImportedFile(BaseModel):
    """A file that weights were imported from: its member, name, hash, and what it says of itself."""

    model_config = ConfigDict(extra="forbid")

    member: int
    name: str
    sha256: str
    facts: dict[str, int | str] = {}


class Imported(BaseModel):
    """Where the weights of a model come from that autoseg did not train."""

    model_config = ConfigDict(extra="forbid")

    licence: str
    files: list[ImportedFile]


class ModelCard(BaseModel):
    """model_card.json.

    Attributes:
        bundle_version: of this format.
        autoseg_version: that wrote it.
        name: of the model folder, ``TRAINER__PLAN``.
        dataset, channel_names, labels, spacing_mm: what it was trained on; spacing of the working grid, None where
            it follows the case.
        plan_hash, data_hash: of plan.json, and of the fingerprint of the training data.
        seed: the root of all random numbers of the training.
        length: ``quick`` for a plan that was made for trying out; its scores say nothing about the method.
        licence: of the model, and what dataset.json says about the data.
        imported: of weights that autoseg did not train; the licence is theirs then.
        folds: with their validation scores.
        files: every other file of the bundle with its SHA-256.
    """

    model_config = ConfigDict(extra="forbid")

    bundle_version: Literal[1] = 1  # BUNDLE_VERSION
    autoseg_version: str
    name: Name
    dataset: Name
    trainer: Name
    channel_names: list[str]
    labels: dict[str, int | list[int]]
    spacing_mm: list[float | None]
    plan_hash: str
    data_hash: str
    seed: int
    length: Literal["full", "quick"] = "full"
    licence: str
    intended_use: str = "research only; not a medical device"
    imported: Imported | None = None
    folds: list[FoldCard]
    files: dict[str, str]


# ---------------------------------------------------------------------------------------------- the model card


def write_model_card(
    folder: Path, imported: Imported | None = None, *, finished: Mapping[str, Any] | None = None
) -> ModelCard:
    """Describe a model folder in its model_card.json, from what lies in it now.

    Args:
        folder: of the model.
        imported: where weights come from that autoseg did not train.
        finished: the record of a fold that is about to be written, as fold.json, after the card.

    Raises:
        AutosegError: plan.json or dataset.json is missing or does not fit.
    """
    card = make_card(folder, bundle_files(folder), imported)
    if finished is not None:
        new = _scores(str(finished["fold"]), finished)
        card = card.model_copy(update={"folds": [new if one.fold == new.fold else one for one in card.folds]})
    write_json(folder / CARD, card)
    return card


def bundle_files(folder: Path, folds: Sequence[str] | None = None) -> list[str]:
    """Names of all files of a model folder that belong into a bundle, the card left out.

    Args:
        folder: of the model.
        folds: which; None takes all.
    """
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = sorted(name for name in found if name != CARD and is_allowed(name))
    if folds is None:
        return names
    wanted = tuple(f"fold_{fold}/" for fold in folds)
    return [name for name in names if "/" not in name or name.startswith(wanted)]


def is_allowed(name: str) -> bool:
    """Whether a bundle may hold a file of this name."""
    return any(pattern.fullmatch(name) for pattern in ALLOWED)


def make_card(folder: Path, names: Sequence[str], imported: Imported | None = None) -> ModelCard:
    """The card of a bundle with these files; where imported weights come from stays as an earlier card has it."""
    plan, info = read_plan(folder), read_model(folder / "dataset.json", DatasetJson)
    if imported is None and (folder / CARD).is_file():
        imported = read_model(folder / CARD, ModelCard).imported
    folds = dict.fromkeys(name.split("/")[0].removeprefix("fold_") for name in names if "/" in name)
    return ModelCard(
        autoseg_version=__version__,
        name=folder.resolve().name,
        dataset=plan.dataset,
        trainer=plan.trainer,
        channel_names=plan.channel_names,
        labels=plan.labels,
        spacing_mm=list(plan.preprocessing.spacing_mm),
        plan_hash=hash_plan(plan),
        data_hash=plan.fingerprint_hash,
        seed=plan.seed,
        length="quick" if plan.quick else "full",
        licence=imported.licence if imported else _licence(info),
        imported=imported,
        folds=[_fold_card(folder, fold) for fold in folds],
        files={name: hash_file(folder / name) for name in names},
    )


def _licence(info: DatasetJson) -> str:
    extra = info.model_extra or {}
    said = next((extra[key] for key in ("licence", "license") if extra.get(key)), "")
    return f"set by who trained it; the training data: {said or 'dataset.json names no licence'}"


def _scores(fold: str, record: Mapping[str, Any]) -> FoldCard:
    cases = record.get("test_cases") or record.get("validation_cases") or []
    scores = record.get("validation")
    return FoldCard(
        fold=fold,
        n_validation_cases=len(cases) if scores else None,
        validation=scores,
        start=record.get("start"),
    )


def _fold_card(folder: Path, fold: str) -> FoldCard:
    """A fold's scores as the training left them in fold.json, or as an earlier card has them."""
    path = folder / f"fold_{fold}" / "fold.json"
    if path.is_file():
        return _scores(fold, read_json(path))
    if (folder / CARD).is_file():
        earlier = read_model(folder / CARD, ModelCard)
        return next((card for card in earlier.folds if card.fold == fold), FoldCard(fold=fold))
    return FoldCard(fold=fold)
