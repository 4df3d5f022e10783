"""The phase after the last stage: steps of the post-processing that learn numbers from cases with known truth."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg import messages, postprocessing
from autoseg.bundle.fitted import FITTED, FittedStep, FittedSteps, learning_steps
from autoseg.bundle.opening import open_model
from autoseg.dataset.folds import Fold, held_back
from autoseg.dataset.imageio import read_geometry, read_mask
from autoseg.dataset.raw_layout import Case, load_raw
from autoseg.errors import AutosegError
from autoseg.files import atomic_path, read_model, write_json
from autoseg.inference.predictor import Predictor
from autoseg.messages import count_of
from autoseg.orientation import Turn, turn_into
from autoseg.plan import Plan, PostStep
from autoseg.plugins.parts import FitCase, Segmentation, StepPart
from autoseg.training.job import FoldJob
from autoseg.training.validation import mask_of


def fit_steps(job: FoldJob, fold: Fold) -> dict[str, FittedStep]:
    """Let every step of the plan that learns do so, and write fitted.json beside the weights of the fold.

    Nothing is done where no step learns, or where the file that is there was made by the same weights.

    Returns:
        What each step has learned, by name.

    Raises:
        AutosegError: there is no case to learn from; a step that cannot.
        Interrupted: the user stopped it; nothing is lost but the time.
    """
    if not learning_steps(job.plan):
        return {}
    model = open_model(job.model, [job.fold], fitted=False)
    path = job.folder / FITTED
    if path.exists() and (there := read_model(path, FittedSteps)).made_by == model.hash:
        return there.steps
    predictor = Predictor(model, device=job.device)
    raw = {case.name: case for case in load_raw(job.raw).cases}
    folder = job.folder / "fitting"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed, perhaps with other weights
    try:
        found = _fit_all(predictor, job, fold, raw, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(path, FittedSteps(made_by=model.hash, steps=found))
    return found


def fitted_cases(job: FoldJob, fold: Fold) -> set[str]:
    """All cases that the steps learn from by themselves.

    Raises:
        AutosegError: a step has none, and no folds that have learned before.
    """
    steps = [step for step in learning_steps(job.plan) if not of_folds(job, step)]
    return {name for step in steps for name in cases_to_fit(job.plan, fold, step)}


def of_folds(job: FoldJob, step: PostStep) -> dict[int, FittedStep]:
    """What a step has learned in the numbered folds of the model, for the fold ``all``, which validates on no case."""
    if job.fold != "all" or step.fit != "validation":
        return {}
    paths = {int(path.parent.name[5:]): path for path in job.model.glob(f"fold_[0-9]*/{FITTED}")}
    found = {fold: read_model(path, FittedSteps).steps for fold, path in sorted(paths.items())}
    return {fold: steps[step.name] for fold, steps in found.items() if step.name in steps}


def cases_to_fit(plan: Plan, fold: Fold, step: PostStep) -> list[str]:
    """The cases that a step learns from.

    Raises:
        AutosegError: there are none.
    """
    names = set(fold.validation)
    if step.fit == "held_back":
        names = {name for stage in plan.recipe.stages for name in held_back(fold, stage)}
    if step.fit == "train":
        names = set(fold.train)
    if not names:
        raise AutosegError(
            f"the post-processing step '{step.name}' has no case to learn from",
            found=f"fit: {step.fit}, and the fold has no such cases",
            expected="validation cases, or stages that hold cases back",
            fix="train numbered folds first, whose numbers the fold 'all' then takes over (their mean), or "
            f"--set postprocessing.{step.name}.fit=none",
        )
    return sorted(names)


def _fit_all(
    predictor: Predictor, job: FoldJob, fold: Fold, raw: dict[str, Case], folder: Path
) -> dict[str, FittedStep]:
    """Step after step; a later one sees what the earlier ones do with what they have learned."""
    found: dict[str, FittedStep] = {}
    before: list[PostStep] = []
    plan = job.plan
    for step, row in postprocessing.rows(plan.recipe.postprocessing, predictor.trainer):
        if row.on == "logits":
            continue
        if learned_before := of_folds(job, step):
            found[step.name] = _joined(step, row, learned_before)
            step = _with(step, found[step.name].learned)
        elif step.fit != "none" and row.fit is not None:
            names = cases_to_fit(plan, fold, step)
            messages.info(
                f"{step.name} learns from {count_of(len(names), 'case')} ({step.fit.replace('_', ' ')})"
            )
            cases = _FitCases(predictor, [raw[name] for name in names], tuple(before), folder)
            learned = dict(row.fit(cases, plan.label_set, **step.arguments))
            found[step.name] = FittedStep(learned=learned, fit=step.fit, cases=names)
            messages.info(f"{step.name}: {_numbers(learned)}")
            step = _with(step, learned)
        if step.apply:
            before.append(step)
    return found


def _with(step: PostStep, learned: Mapping[str, float]) -> PostStep:
    return step.model_copy(update={"arguments": {**step.arguments, **learned}})


def _numbers(learned: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in learned.items())


def _joined(step: PostStep, row: StepPart, folds: Mapping[int, FittedStep]) -> FittedStep:
    """The numbers of several folds as one, combined as the row says."""
    parts = [one.learned for one in folds.values()]
    learned = {key: row.combine([part[key] for part in parts]) for key in parts[0]}
    told = ", ".join(map(str, folds))
    messages.info(
        f"{step.name}: {_numbers(learned)}, from what {count_of(len(folds), 'fold')} ({told}) learned"
    )
    cases = sorted({name for one in folds.values() for name in one.cases})
    return FittedStep(learned=learned, fit="validation", cases=cases)


@dataclass(frozen=True)
class _FitCases:
    """The cases of one step, to be gone through as often as it likes; each is predicted once.

    Attributes:
        cases: with truth.
        before: the steps on the mask that come first.
        folder: for predictions, which may be too large for the memory.
    """

    predictor: Predictor
    cases: Sequence[Case]
    before: tuple[PostStep, ...]
    folder: Path

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[FitCase]:
        for number, case in enumerate(self.cases):
            if not self._path(case).exists():
                messages.info(f"predicting {case.name} to learn from it ({number + 1} of {len(self)})")
            found = postprocessing.apply(self._predicted(case), self.before, self.predictor.trainer)
            truth, _ = read_mask(mask_of(case))
            yield FitCase(case.name, found, self._turn(case).array(truth))

    def _turn(self, case: Case) -> Turn:
        """From the files of a case into the plan's orientation, in which it is predicted."""
        orientation = self.predictor.plan.preprocessing.orientation
        return turn_into(orientation, read_geometry(case.images[0])) if orientation else Turn()

    def _path(self, case: Case) -> Path:
        return self.folder / f"{case.name}.npz"

    def _predicted(self, case: Case) -> Segmentation:
        """Before any step on the mask."""
        path = self._path(case)
        if not path.exists():
            raw = self.predictor.read(case)
            found = self.predictor.predict(
                case.name, raw.image, raw.geometry, mask=raw.mask, probabilities=True, steps=()
            )
            arrays = {name: value for name, value in vars(found).items() if value is not None}
            with atomic_path(path) as temporary:
                np.savez(temporary, **arrays)
        with np.load(path) as saved:
            z, y, x = saved["spacing_mm"].tolist()
            others = {name: saved[name] for name in saved.files if name != "spacing_mm"}
        return Segmentation(spacing_mm=(z, y, x), **others)
