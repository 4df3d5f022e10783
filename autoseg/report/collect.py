"""What lies in a folder that can be reported on: a model, one of its folds, scores, a comparison, a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import messages
from autoseg.bundle.layout import CARD, FINGERPRINT
from autoseg.bundle.opening import read_plan, refuse_changed
from autoseg.comparison import comparison_schema as compare_schema
from autoseg.dataset.dataset_json import FILE_ENDINGS, DatasetJson, read_dataset_json
from autoseg.errors import AutosegError
from autoseg.evaluation.false_lesions import FILE_NAME as FALSE_LESIONS_NAME
from autoseg.evaluation.false_lesions import read_false_lesions
from autoseg.evaluation.summary import JSON_NAME, THRESHOLDS_NAME, CaseScores, Summary, read_summary
from autoseg.evaluation.thresholds import Counts, read_thresholds
from autoseg.files import ExactModel, read_json, read_model
from autoseg.fingerprint import Fingerprint
from autoseg.inference.prediction_record import PredictionRecord, read_record
from autoseg.labels import LabelSet
from autoseg.messages import count_of, some_of
from autoseg.report.overlay import find_images
from autoseg.report.pool import Pool, pool
from autoseg.training.curves import read_log

if TYPE_CHECKING:
    from autoseg.comparison.comparison_schema import Comparison
    from autoseg.plan import Plan

PLAN, LOG, FOLD_RECORD, VALIDATION = "plan.json", "log.jsonl", "fold.json", "validation"
LEADERBOARD, COMPARED, TRAINED = "leaderboard.json", "comparison", "folds"
"""Of a study: its table, the folder of its comparison, and that of its models."""
FOLD = "fold_"


@dataclass(frozen=True)
class Training:
    """How one fold was trained.

    Attributes:
        fold: its name, such as ``0`` or ``all``.
        log: the epochs, see :func:`autoseg.training.curves.read_log`.
        record: fold.json; empty while the training is not finished.
    """

    fold: str
    log: tuple[dict[str, Any], ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is called in the report."""
        return f"fold {self.fold}"


class Leaderboard(ExactModel):
    """leaderboard.json of a study.

    Attributes:
        header, rows: of its table.
        notes: what stands below it, a sentence each.
        scored: folder of the chosen method's masks and scores, within the study; empty before anything was chosen.
        models: names of the models whose training is shown.
    """

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = []
    scored: str = ""
    models: list[str] = []


@dataclass(frozen=True)
class FalseLesions:
    """The false lesions of a scored folder, one by one.

    Attributes:
        sizes: case to class to their sizes; a case without any is not there.
        summary: the scores that they belong to, of a preset that lists them.
    """

    sizes: Mapping[str, Mapping[str, Sequence[float]]]
    summary: Summary


@dataclass(frozen=True)
class ScoredFolder:
    """One scored folder of predictions.

    Attributes:
        name: ``fold 0``, or empty when it is no fold.
        folder: in which summary.json lies.
        summary: with the folders of predictions and truths where they are now.
        counts: case to class to counts at all thresholds; None without thresholds.csv.
        images: folder of images; None when it is not known.
        prediction: prediction.json of the masks; None without it.
        false_lesions: of the same masks; None where no preset listed them.
    """

    name: str
    folder: Path
    summary: Summary
    counts: dict[str, dict[str, Counts]] | None = None
    images: Path | None = None
    prediction: PredictionRecord | None = None
    false_lesions: FalseLesions | None = None


@dataclass(frozen=True)
class Material:
    """Everything that a report is made of.

    Attributes:
        folder: that was given.
        kind: what it is, in words.
        plan, info, fingerprint, card: of the model, as far as they are there.
        trainings: of the folds.
        scored: the scored folders by name.
        pool: their cases together; None without scores.
        comparison: of methods; None without comparison.json.
        compared_images: folder of images of its cases; None when it is not known.
        leaderboard: of a study; None of anything else.
        compared_channels: number of each of their channels to its name, as far as it is known.
    """

    folder: Path
    kind: str
    plan: Plan | None = None
    info: DatasetJson | None = None
    fingerprint: Fingerprint | None = None
    card: dict[str, Any] | None = None
    trainings: tuple[Training, ...] = ()
    scored: Mapping[str, ScoredFolder] = field(default_factory=dict)
    pool: Pool | None = None
    comparison: Comparison | None = None
    compared_images: Path | None = None
    leaderboard: Leaderboard | None = None
    compared_channels: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> Summary | None:
        """Of all scored cases."""
        return self.pool.summary if self.pool else None

    @property
    def dataset(self) -> str:
        """Name of the dataset: the plan's, or that of the folder around the truths."""
        if self.plan:
            return self.plan.dataset
        truths = self.comparison.truths if self.comparison else ""
        for scored in self.scored.values():
            truths = scored.summary.truths
        folder = Path(truths)
        return folder.parent.name if folder.name.startswith("labels") else folder.name

    @property
    def channel_names(self) -> dict[str, str]:
        """Number of each channel to its name, as in dataset.json; empty where nothing says it."""
        if self.info is not None:
            return self.info.channel_names
        return {str(i): name for i, name in enumerate(self.plan.channel_names)} if self.plan else {}

    @property
    def outputs(self) -> LabelSet | None:
        """What the outputs of the model are; None where nothing says it."""
        return self.info.label_set if self.info is not None else None

    @property
    def predicted_by(self) -> tuple[PredictionRecord, ...]:
        """prediction.json of the scored folders that have one."""
        return tuple(one.prediction for one in self.scored.values() if one.prediction is not None)

    @property
    def quick(self) -> bool:
        """Whether the model, or what made the masks, has a plan for trying out."""
        return bool(self.plan and self.plan.quick) or any(one.quick for one in self.predicted_by)

    def place(self, case: str) -> tuple[ScoredFolder, CaseScores]:
        """The scored folder of a case of :attr:`summary`, and the case as it is called there."""
        name, original = (self.pool.origin if self.pool else {})[case]
        return self.scored[name], original


def collect(folder: Path | str, *, images: Path | None = None, truths: Path | None = None) -> Material:
    """Read what lies in a folder.

    Args:
        folder: a model folder, a fold folder, or one with summary.json or comparison.json.
        images, truths: folders of images and of true masks, where they have moved since.

    Raises:
        AutosegError: there is nothing to report on, or a file is damaged or of another version.
        FaultsError: weights of the model are not those of its card.
    """
    folder = Path(folder)
    _refuse_missing(folder, images, truths)
    if (folder / LEADERBOARD).is_file():
        return _collect_study(folder, images, truths)
    folds = _fold_folders(folder)
    scored = {
        s.name: s for s in (_scored(*place, images, truths) for place in _scored_folders(folder, folds))
    }
    trainings = tuple(
        _training(fold) for fold in folds if (fold / LOG).is_file() or (fold / FOLD_RECORD).is_file()
    )
    model = next((f for f in (folder, folder.parent, folder.parent.parent) if _is_model(f, folder)), None)
    compared = (folder / compare_schema.JSON_NAME).is_file()
    if not (scored or trainings or model == folder or compared):
        raise _nothing_there(folder)
    if model and (model / CARD).is_file():
        refuse_changed(
            model, [file for fold in folds for file in sorted((fold / "weights").glob("*.safetensors"))]
        )
    comparison = compare_schema.read_comparison(folder) if compared else None
    if comparison and truths:
        comparison = comparison.model_copy(update={"truths": str(truths)})
    return Material(
        folder=folder,
        kind=_kind(folder, folds, bool(scored)),
        plan=read_plan(model) if model else None,
        info=_info(model, [one.summary for one in scored.values()]),
        fingerprint=_fingerprint(model),
        card=read_json(model / CARD) if model and (model / CARD).is_file() else None,
        trainings=trainings,
        scored=scored,
        pool=_pool(scored) if scored else None,
        comparison=comparison,
        compared_images=(images or find_images(Path(comparison.truths))) if comparison else None,
        compared_channels=about.channel_names
        if (about := _info(None, [comparison] if comparison else []))
        else {},
    )


def _collect_study(folder: Path, images: Path | None, truths: Path | None) -> Material:
    """Of a study: its table, the comparison of its methods, the chosen one's cases, and how its models trained."""
    board = read_model(folder / LEADERBOARD, Leaderboard, made_by="autoseg_run")
    scored = {}
    if board.scored and (folder / board.scored / JSON_NAME).is_file():
        one = _scored(folder / board.scored, "", images, truths)
        scored = {one.name: one}
    summaries = [one.summary for one in scored.values()]
    compared = folder / COMPARED
    found = (
        compare_schema.read_comparison(compared) if (compared / compare_schema.JSON_NAME).is_file() else None
    )
    models = [path for name in board.models for path in (folder / TRAINED).glob(f"*/{name}")]
    return Material(
        folder=folder,
        kind="study",
        info=_info(next(iter(models), None), summaries),
        fingerprint=_fingerprint(next(iter(models), None)),
        trainings=tuple(_training(fold, model.name) for model in models for fold in _fold_folders(model)),
        scored=scored,
        pool=_pool(scored) if scored else None,
        comparison=found,
        compared_images=(images or find_images(Path(found.truths))) if found else None,
        leaderboard=board,
        compared_channels=about.channel_names if (about := _info(None, [found] if found else [])) else {},
    )


# --------------------------------------------------------------------------------------------------- which folders


def _refuse_missing(folder: Path, images: Path | None, truths: Path | None) -> None:
    for place, what in ((folder, "folder"), (images, "folder of images"), (truths, "folder of true masks")):
        if place is not None and not place.is_dir():
            raise AutosegError(f"the {what} is missing", where=str(place), fix="check the path")


def _fold_folders(folder: Path) -> list[Path]:
    """The folder itself when it is a fold's, or those in it, by number."""
    if (
        (folder / LOG).is_file()
        or (folder / VALIDATION / JSON_NAME).is_file()
        or (folder / FOLD_RECORD).is_file()
    ):
        return [folder]
    found = [path for path in folder.glob(f"{FOLD}*") if path.is_dir()]
    return sorted(found, key=lambda p: (not _fold_name(p).isdigit(), _fold_name(p).zfill(6)))


def _fold_name(folder: Path) -> str:
    return folder.name.removeprefix(FOLD)


def _scored_folders(folder: Path, folds: list[Path]) -> list[tuple[Path, str]]:
    """Folders with summary.json and their names; scores beside the folds come before those in them."""
    if (folder / JSON_NAME).is_file():
        return [(folder, "")]
    return [
        (f / VALIDATION, f"fold {_fold_name(f)}") for f in folds if (f / VALIDATION / JSON_NAME).is_file()
    ]


def _is_model(candidate: Path, folder: Path) -> bool:
    """Whether a folder is the model that ``folder`` is, or belongs to as ``fold_N`` or ``fold_N/validation``."""
    if not (candidate / PLAN).is_file():
        return False
    return candidate == folder or folder.relative_to(candidate).parts[0].startswith(FOLD)


def _kind(folder: Path, folds: list[Path], scored: bool) -> str:
    if folds == [folder]:
        return f"fold {_fold_name(folder)} of a model"
    if folds:
        return f"model with {count_of(len(folds), 'fold')}"
    if scored:
        return "scored predictions"
    return "model without folds" if (folder / PLAN).is_file() else "comparison of methods"


def _nothing_there(folder: Path) -> AutosegError:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return AutosegError(
        "there is nothing to report on",
        where=str(folder),
        found=some_of(names) or "an empty folder",
        expected=f"{PLAN} with folders {FOLD}N (a model of autoseg_train), {LOG} (one of its folds), "
        f"{JSON_NAME} (of autoseg_evaluate) or {compare_schema.JSON_NAME} (of autoseg_compare)",
        fix="give such a folder; masks become one by: autoseg_evaluate -p MASKS -g TRUTHS",
    )


# ---------------------------------------------------------------------------------------------------- what is in them


def _training(folder: Path, model: str = "") -> Training:
    """Of a fold; of several models each says whose it is."""
    log, record = folder / LOG, folder / FOLD_RECORD
    return Training(
        f"{_fold_name(folder)} of {model}" if model else _fold_name(folder),
        tuple(read_log(log)) if log.is_file() else (),
        read_json(record) if record.is_file() else {},
    )


def _scored(folder: Path, name: str, images: Path | None, truths: Path | None) -> ScoredFolder:
    """Scores, with the folders of their files where they are now."""
    summary = read_summary(folder)
    true = truths or Path(summary.truths)
    predictions = Path(summary.predictions)
    if not _holds_masks(predictions, summary):  # moved, or given relative to another folder
        predictions = folder if _holds_masks(folder, summary) else predictions
    thresholds = folder / THRESHOLDS_NAME
    return ScoredFolder(
        name=name,
        folder=folder,
        summary=summary.model_copy(update={"predictions": str(predictions), "truths": str(true)}),
        counts=read_thresholds(thresholds) if thresholds.is_file() else None,
        images=images or find_images(true),
        prediction=read_record(predictions),
        false_lesions=_false_lesions(folder, of_fold=bool(name)),
    )


def _false_lesions(folder: Path, *, of_fold: bool) -> FalseLesions | None:
    """Those that lie beside the scores, or beside those by the preset of the trainer in a folder of a fold's."""
    places = [folder, *(sorted(path for path in folder.iterdir() if path.is_dir()) if of_fold else ())]
    for place in places:
        if (place / FALSE_LESIONS_NAME).is_file() and (place / JSON_NAME).is_file():
            return FalseLesions(read_false_lesions(place / FALSE_LESIONS_NAME), read_summary(place))
    return None


def _pool(scored: Mapping[str, ScoredFolder]) -> Pool:
    return pool({n: s.summary for n, s in scored.items()}, {n: s.counts for n, s in scored.items()})


def _holds_masks(folder: Path, summary: Summary) -> bool:
    return any((folder / f"{summary.cases[0].name}{ending}").is_file() for ending in FILE_ENDINGS)


def _info(model: Path | None, about: Sequence[Summary | Comparison]) -> DatasetJson | None:
    """dataset.json of the model, or the one beside the truths or the predictions."""
    places = [model] if model else []
    for one in about:
        places += [Path(one.truths).parent, Path(one.truths)]
        places += [Path(one.predictions)] if isinstance(one, Summary) else []
    found = next((p / "dataset.json" for p in places if (p / "dataset.json").is_file()), None)
    try:
        return read_dataset_json(found) if found else None
    except AutosegError as error:  # the report is not about it
        messages.warn(f"dataset.json is left out of the report: {error}")
        return None


def _fingerprint(model: Path | None) -> Fingerprint | None:
    path = model / FINGERPRINT if model else None
    return read_model(path, Fingerprint) if path and path.is_file() else None
