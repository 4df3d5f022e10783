"""A training and what it starts from: models that are missing are trained first."""

from __future__ import annotations

import json
from typing import Any

from autoseg import messages
from autoseg.plan import ModelStart
from autoseg.training.check_fold_folder import as_begun, set_for_training
from autoseg.training.check_job import check_job
from autoseg.training.job import FoldJob
from autoseg.training.start_model import find_start, job_of_start
from autoseg.training.train_fold import split, train_fold


def train_chain(job: FoldJob) -> dict[str, Any]:
    """Train a fold, and before it the models that its stages start from, as far as their plans name them by options.

    Returns:
        See :func:`autoseg.training.train_fold.train_fold`.

    Raises:
        AutosegError: see there; whatever can be known of the last training is found before the first one begins.
        Interrupted: the user stopped one of them; the same command with ``--c`` goes on with it.
    """
    begun = as_begun(job)
    for start in missing_starts(begun):
        check_job(begun, split(begun), starts=False)
        first = job_of_start(begun, start)
        how = "goes on with its training" if first.resume else "is trained first"
        messages.info(
            f"{job.model.name} starts from {first.model.name}, whose fold {first.fold} is not trained: it {how}"
        )
        if settings := set_for_training(first):
            words = " ".join(f"{path}={json.dumps(value)}" for path, value in settings.items())
            messages.info(f"what was set for {job.model.name} holds for it too: {words}")
        train_chain(first)
        messages.info(f"\n{first.model.name} is trained; now {job.model.name}")
    return train_fold(job)


def missing_starts(job: FoldJob) -> list[ModelStart]:
    """What a fold that is to be trained from its first stage starts from, and is not there."""
    starts = [stage.start for stage in job.plan.recipe.stages if isinstance(stage.start, ModelStart)]
    wanted = [start for start in starts if start.options]
    return [start for start in wanted if find_start(job, start) is None]
