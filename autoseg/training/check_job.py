"""What must hold before a training touches anything.

What can be found wrong here must not be found wrong after days, or after an earlier result was removed.
"""

from __future__ import annotations

from autoseg import plugins
from autoseg.dataset.folds import Fold
from autoseg.training.check_data import (
    refuse_changed_raw,
    refuse_empty_parts,
    refuse_missing_truth,
    refuse_nothing_to_show,
    refuse_other_preparation,
    refuse_stale,
)
from autoseg.training.check_fold_folder import (
    checkpoint_path,
    load_checkpoint,
    refuse_other_plan,
    refuse_redo,
    refuse_to_overwrite,
)
from autoseg.training.check_recipe import check_recipe
from autoseg.training.fit import fitted_cases
from autoseg.training.job import FoldJob
from autoseg.training.start import check_starts
from autoseg.training.weight_maps import check_weight_maps


def check_job(job: FoldJob, fold: Fold, *, starts: bool = True) -> None:
    """Everything that can be known before the first iteration; nothing is written.

    Args:
        job: the run.
        fold: its cases.
        starts: also what the stages start from, which may still have to be trained.

    Raises:
        AutosegError: the fold has a result and nobody said what to do with it; data that are missing or stale; a plan
            of which some part cannot be built; other folds of the model that follow another plan.
    """
    refuse_to_overwrite(job)
    refuse_other_preparation(job)
    refuse_stale(job, [*fold.train, *fold.validation, *fold.test])
    job.prepared.store.hold([*fold.train, *fold.validation, *fold.test])
    refuse_missing_truth(job, fold)
    refuse_changed_raw(job, [*fold.train, *fold.validation, *fold.test])
    if job.resume and checkpoint_path(job).exists():
        load_checkpoint(job, fold)
    if job.redo_from is not None:
        refuse_redo(job, fold)
    refuse_other_plan(job)
    refuse_empty_parts(job.plan, fold)
    trainer = plugins.load(plugins.TRAINERS, job.plan.trainer)
    check_recipe(job.plan, trainer)
    fitted_cases(job, fold)
    check_weight_maps(job, fold, starts=starts)
    if starts:
        check_starts(job, fold, trainer)
    refuse_nothing_to_show(job, fold, trainer)
