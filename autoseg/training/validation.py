"""Scores of a few cases during training, and on whole volumes of all of the fold's validation cases after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from autoseg import messages
from autoseg.bundle.networks import ReadyNetwork
from autoseg.dataset.folds import Fold, watched_cases
from autoseg.dataset.raw_layout import Case, load_raw, truth_folder
from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.catalogue import dice
from autoseg.evaluation.probabilities import COUNTS_ENDING, write_counts
from autoseg.evaluation.score_masks import evaluate_folder
from autoseg.evaluation.summary_text import format_table
from autoseg.inference.folder import ExtraFile, predict_cases
from autoseg.inference.predictor import Predictor
from autoseg.inference.tiling import all_of, predict_logits
from autoseg.labels import OUTSIDE
from autoseg.messages import count_of
from autoseg.plan import Inference, Stage
from autoseg.preprocessing.centre_tile import beyond_centre, told
from autoseg.training.interrupt import StopRequest
from autoseg.training.job import FoldJob
from autoseg.training.lesion_crop import crop_around_lesion
from autoseg.training.progress import FoldProgress
from autoseg.training.stage_run import fold_store


class Validator:
    """Dice of a fixed subset of cases, on the working grid, for one stage: of whole volumes, or as the plan's
    ``validation.view`` says of one crop each.

    The cases are those that the stage leaves out of its training, else the fold's validation cases. The subset is
    spread over the range of lesion volumes, so that small and large lesions are both seen. Voxels with the ignore label
    are not scored.
    """

    def __init__(
        self,
        job: FoldJob,
        fold: Fold,
        stage: Stage,
        stop: StopRequest,
        progress: FoldProgress | None = None,
    ) -> None:
        self.job, self.stop, self.store, self.progress = job, stop, fold_store(job), progress
        self.stage = stage
        self.cases = spread(job, watched_cases(fold, stage), job.plan.recipe.validation.cases)
        self._said: set[str] = set()

    def __call__(self, network: ReadyNetwork) -> dict[str, float | None]:
        """Class to mean Dice over the cases (a class absent from truth and prediction scores 1).

        Raises:
            Interrupted: the user asked for a stop meanwhile.
        """
        labels = self.job.plan.label_set
        scores: dict[str, list[float]] = {name: [] for name in labels.names}
        for number, name in enumerate(self.cases):
            self._tell(number)
            image, stored, inference, inside = self._view(name, network)
            logits = predict_logits(
                network.module,
                image,
                inference,
                labels.n_outputs,
                self.job.device,
                mirror=False,
                takes=network.takes,
                regions=labels.has_regions,
                progress=lambda *_: self.stop.check(),
                precision=self.job.plan.recipe.precision,
            )
            decided = labels.decide(logits[all_of(inside)].numpy())
            if labels.ignore is not None:
                decided[stored == labels.ignore] = 0
            if self.job.plan.preprocessing.mask is not None:
                decided[stored == OUTSIDE] = 0
            truth, predicted = labels.masks(stored), labels.masks(decided)
            for label in labels.names:
                scores[label].append(dice(predicted[label], truth[label]))
        self._tell(len(self.cases))
        return {label: (sum(values) / len(values) if values else None) for label, values in scores.items()}

    def _view(
        self, name: str, network: ReadyNetwork
    ) -> tuple[torch.Tensor, np.ndarray, Inference, tuple[slice, ...]]:
        """Image ``[c, z, y, x]``, label ``[z, y, x]``, how to predict it, and where the label lies in the image."""
        case, recipe = self.store.read(name), self.job.plan.recipe
        if recipe.validation.view == "whole" or not self.stage.patch_size:
            return torch.from_numpy(case.image[...]), case.label[...], recipe.inference, (slice(None),) * 3
        crop = crop_around_lesion(
            case.image,
            case.label[...],
            self.stage,
            recipe.inference,
            network.takes.divisor,
            self.job.plan.label_set.ignore,
        )
        if not crop.has_lesion and name not in self._said:
            self._said.add(name)
            messages.info(f"{name} has no lesion: the crop in its middle is watched")
        return crop.image, crop.label, crop.inference, crop.inside

    def _tell(self, number: int) -> None:
        """The case with this number, from 0, comes next."""
        if self.progress is not None:
            self.progress.validating(number, len(self.cases))


def spread(job: FoldJob, names: Sequence[str], count: int | Literal["all"]) -> list[str]:
    """``count`` of the cases, or all, evenly spread over the order of their lesion volumes."""
    volume = {case.name: case.lesions.volume_voxels for case in job.prepared.fingerprint.cases}
    ordered = sorted(names, key=lambda name: (volume.get(name, 0), name))
    if count == "all" or count >= len(ordered):
        return ordered
    if count == 1:
        return [ordered[len(ordered) // 2]]
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]


def mask_of(case: Case) -> Path:
    """The true mask of a training case.

    Raises:
        AutosegError: it has none.
    """
    if case.mask is None:
        raise AutosegError("the case has no mask", where=case.name, fix="put it back into labelsTr")
    return case.mask


def scored_cases(fold: Fold) -> tuple[str, ...]:
    """The cases of the final scores: the test part, or the validation cases where the fold has none."""
    return fold.test or fold.validation


def validate_fold(job: FoldJob, fold: Fold) -> dict[str, Any]:
    """Predict the cases that the fold is scored on as a user would, and score them on their original grids.

    Label voxels that one tile in the centre never sees are counted and said, in the summary too. The trainer's preset,
    where it has one, has its own summary in a folder of its name beside the general one. Of the probabilities only what
    the precision-recall curve needs is kept, ``CASE.thresholds.json``, unless the job saves them all.
    """
    raw = load_raw(job.raw)
    names = scored_cases(fold)
    cases = [case for case in raw.cases if case.name in set(names)]
    folder = job.folder / "validation"
    part = "test" if fold.test else "validation"
    messages.info(f"predicting {count_of(len(cases), f'{part} case')} of fold {job.fold}")
    predictor = Predictor(job.model, folds=[job.fold], device=job.device)

    def write(path: Path, case: Case, probabilities: np.ndarray) -> None:
        write_counts(path, probabilities, mask_of(case), job.plan.label_set)

    counts = ExtraFile(COUNTS_ENDING, write)
    predict_cases(
        predictor,
        cases,
        folder,
        continue_prediction=True,
        save_probabilities=job.save_probabilities,
        overwrite=True,
        extra=counts,
    )
    summary = evaluate_folder(folder, truth_folder(raw), job.prepared.info, cases=names)
    store = job.prepared.store
    if lost := told(beyond_centre(job.plan, names, lambda name: store.read(name).label[...])):
        messages.warn(lost)
        summary = summary.model_copy(update={"warnings": [*summary.warnings, lost]})
    summary.write(folder)
    messages.info(f"\n{format_table(summary)}")
    if preset := predictor.trainer.preset:
        own = evaluate_folder(folder, truth_folder(raw), job.prepared.info, preset=preset, cases=names)
        (folder / preset).mkdir(exist_ok=True)
        own.write(folder / preset)
        messages.info(f"\n{format_table(own)}")
    return summary.means()
