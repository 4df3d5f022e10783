"""The folders of one dataset: what was prepared, and where its models go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg import paths
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.folds import Fold, load_or_make_folds
from autoseg.dataset.subjects import GROUPS, read_subjects
from autoseg.errors import AutosegError, StaleError, nearest_names
from autoseg.files import read_model
from autoseg.fingerprint import Fingerprint
from autoseg.messages import count_of
from autoseg.names import refuse_bad_name
from autoseg.plan import Plan

if TYPE_CHECKING:
    from autoseg.preprocessing.store import Store

PLAN_COMMAND = "autoseg_plan_and_preprocess"


@dataclass(frozen=True)
class Prepared:
    """A dataset with one of its plans, as ``autoseg_plan_and_preprocess`` left it.

    Attributes:
        folder: ``preprocessed/DatasetNNN_Name``.
        plan_name: the plan is ``folder/plan_name/plan.json``, the store lies beside it.

    Raises:
        AutosegError: the plan has a name that leads elsewhere.
    """

    folder: Path
    plan_name: str

    def __post_init__(self) -> None:
        refuse_bad_name("plan", self.plan_name, fix="choose another name with -p")

    @property
    def dataset(self) -> str:
        """Full name of the dataset."""
        return self.folder.name

    @property
    def plan_path(self) -> Path:
        """Where plan.json lies."""
        return self.folder / self.plan_name / "plan.json"

    @cached_property
    def plan(self) -> Plan:
        """The plan.

        Raises:
            StaleError: it was made from another fingerprint than the one beside it.
        """
        plan = read_model(self.plan_path, Plan, made_by=f"{PLAN_COMMAND} -d {self.dataset}")
        if plan.fingerprint_hash != self.fingerprint.content_hash:
            raise StaleError(
                "the plan was made from an earlier state of the dataset",
                where=str(self.plan_path),
                found=f"fingerprint {plan.fingerprint_hash[:12]}",
                expected=f"fingerprint {self.fingerprint.content_hash[:12]}",
                fix=f"run {PLAN_COMMAND} -d {self.dataset} -p {self.plan_name} again, with the --set options that you "
                "want; it redoes only what changed",
            )
        return plan

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint."""
        return read_model(
            self.folder / "fingerprint.json", Fingerprint, made_by=f"{PLAN_COMMAND} -d {self.dataset}"
        )

    @cached_property
    def info(self) -> DatasetJson:
        """dataset.json as it was when the dataset was prepared."""
        return read_model(
            self.folder / "dataset.json", DatasetJson, made_by=f"{PLAN_COMMAND} -d {self.dataset}"
        )

    @cached_property
    def store(self) -> Store:
        """The preprocessed cases."""
        from autoseg.preprocessing.store import Store

        return Store(self.folder / self.plan_name / "store")

    @property
    def splits_path(self) -> Path:
        """Where splits.json lies, which all plans of the dataset share."""
        return self.folder / "splits.json"

    @property
    def folds(self) -> list[Fold]:
        """All numbered ones; none for a single case."""
        names = [case.name for case in self.fingerprint.cases]
        return load_or_make_folds(self.splits_path, names, read_subjects(self.folder / GROUPS, names))

    def fold(self, fold: int | str) -> Fold:
        """The cases of a fold; ``all`` trains on every case and validates on some of the same.

        Raises:
            AutosegError: there is no such fold.
        """
        names = [case.name for case in self.fingerprint.cases]
        if fold == "all":
            return Fold(tuple(names), ())
        folds = self.folds
        if not folds or not 0 <= int(fold) < len(folds):
            raise AutosegError(
                f"there is no fold {fold}",
                where=self.dataset,
                found=f"{count_of(len(names), 'case')}, {count_of(len(folds), 'fold')}",
                expected=f"a fold from 0 to {len(folds) - 1}, or all"
                if folds
                else "at least two cases for folds",
                fix="use the fold 'all', which trains on every case and has no honest validation",
            )
        return folds[int(fold)]


def open_prepared(preprocessed: Path, id_or_name: str, plan_name: str | None = None) -> Prepared:
    """Find a prepared dataset and one of its plans.

    Args:
        preprocessed: the root of preprocessed data.
        id_or_name: of the dataset.
        plan_name: may be left out when there is only one plan.

    Raises:
        AutosegError: nothing is prepared, or the plan is not clear.
    """
    folder = preprocessed / _planned_name(preprocessed, id_or_name)
    plans = sorted(path.parent.name for path in folder.glob("*/plan.json"))
    if plan_name is None and len(plans) == 1:
        plan_name = plans[0]
    if plan_name in plans:
        return Prepared(folder, plan_name)
    if not plans:
        raise AutosegError(
            "the dataset has no plan yet", where=folder.name, fix=f"run {PLAN_COMMAND} -d {id_or_name} first"
        )
    if plan_name is None:
        raise AutosegError(
            "the dataset has more than one plan",
            where=folder.name,
            found=", ".join(plans),
            fix=f"choose one with -p, such as -p {plans[0]}",
        )
    raise AutosegError(
        f"there is no plan '{plan_name}'",
        where=folder.name,
        found=", ".join(plans),
        fix=nearest_names(plan_name, plans),
    )


def plan_to_continue(
    preprocessed: Path, results: Path, id_or_name: str, fold: int | str, trainer: str | None = None
) -> str | None:
    """The one plan of a dataset of which this fold was begun and not finished, by the names of the models.

    Args:
        preprocessed, results: the roots.
        id_or_name: of the dataset.
        fold: of it.
        trainer: None for any.

    Returns:
        None where there is none, or more than one.
    """
    dataset = _planned_name(preprocessed, id_or_name)
    begun = (
        path.parents[2].name.split("__", 1)[1]
        for path in (results / dataset).glob(f"{trainer or '*'}__*/fold_{fold}/checkpoint/latest.safetensors")
        if not (path.parents[1] / "fold.json").exists()
    )
    plans = {name for name in begun if (preprocessed / dataset / name / "plan.json").exists()}
    return plans.pop() if len(plans) == 1 else None


def _planned_name(preprocessed: Path, id_or_name: str) -> str:
    """The full name of a dataset that was planned."""
    return paths.dataset_name(
        preprocessed, id_or_name, first=f"plan it first: {PLAN_COMMAND} -d {id_or_name}"
    )


def model_folder(
    results: Path, dataset: str, trainer: str, plan_name: str, model_name: str | None = None
) -> Path:
    """Where the models of a trainer and plan go; this folder is the bundle.

    Args:
        results: root of the results.
        dataset: full name of the dataset.
        trainer, plan_name: the name of the folder, unless the user gave one.
        model_name: that of the user.

    Raises:
        AutosegError: the name leads elsewhere.
    """
    name = f"{trainer}__{plan_name}" if model_name is None else model_name
    return results / dataset / refuse_bad_name("model", name, fix="choose another name with -name")
