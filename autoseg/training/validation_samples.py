"""Validation on samples: a few thousand patches of the validation cases after each epoch, for curves alone.

DeepMedic's way (Kamnitsas et al. 2017), as the study of Perez Malla et al. 2019 ran it: 5000 segments around voxels
that are drawn uniformly inside the brain. It takes a fraction of the time of whole scans. No weights are chosen by it.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.bundle.networks import ReadyNetwork
from autoseg.dataset.folds import watched_cases
from autoseg.device import autocast, lower_precision
from autoseg.inference.tiling import evaluating
from autoseg.plan import Augmentation, Sampling, Stage, Validation
from autoseg.plugins.parts import Outside
from autoseg.sampling import samplers
from autoseg.sampling.case_cache import available_gb
from autoseg.training.sources import patches_of, source_part
from autoseg.training.stage_run import StageRun

SHARE_OF_MEMORY = 1 / 8
"""Of what is free, for the cases that are sampled; training keeps a half."""
KINDS = ("tp", "fp", "fn", "tn")

NOT_TRAINING = 1
"""At the end of the key of the random numbers, which are not those of the training."""

SampleScores = dict[str, dict[str, float | None]]
"""Class to accuracy, tpr, tnr and dice; None where nothing could be measured."""


class SampleValidator:
    """Scores samples of the cases by which a stage is watched: patches around voxels that count, of each case equally
    many, drawn anew for each epoch. Their voxels are counted together; those with the ignore label are not scored.

    Args:
        run: the stage that is trained.
    """

    def __init__(self, run: StageRun) -> None:
        self._run, validation = run, run.plan.recipe.validation
        self.count = validation.samples
        self._source = patches_of(
            run,
            watched_cases(run.fold, run.stage),
            sampled_stage(run.stage, validation, _outside(run)),
            (*run.seed_key, NOT_TRAINING),
            cache_gb=SHARE_OF_MEMORY * available_gb(),
        )

    def __call__(self, network: ReadyNetwork, epoch: int) -> SampleScores:
        """The scores after an epoch.

        Raises:
            Interrupted: the user asked for a stop meanwhile.
        """
        labels, run = self._run.plan.label_set, self._run
        counts = {name: dict.fromkeys(KINDS, 0) for name in labels.names}
        left, dtype = self.count, lower_precision(run.device, run.plan.recipe.precision)
        with contextlib.closing(self._source.batches(epoch)) as batches, evaluating(network.module):
            for batch in batches:
                run.check_stop()
                with torch.inference_mode(), autocast(run.device, dtype):
                    found = network.module(batch.images)
                found = found[0] if isinstance(found, (list, tuple)) else found
                logits = found[:left].float().transpose(0, 1).flatten(2).cpu().numpy()
                truth = batch.target[:left].flatten(1).cpu().numpy()
                left -= len(truth)
                counting = truth != labels.ignore if labels.ignore is not None else np.ones(truth.shape, bool)
                predicted, true = labels.masks(labels.decide(logits)), labels.masks(truth)
                for name in labels.names:
                    _count(counts[name], predicted[name][counting], true[name][counting])
        return {name: scores_of(**of_class) for name, of_class in counts.items()}

    def close(self) -> None:
        """End threads."""
        self._source.close()


def open_samples(run: StageRun) -> SampleValidator | None:
    """What scores samples after each epoch, in the process that leads; None where none are asked for."""
    wanted = run.plan.recipe.validation.samples and run.stage.network == PREDICTING_NETWORK
    return SampleValidator(run) if wanted and run.world.leads else None


def sampled_stage(stage: Stage, validation: Validation, outside: Outside) -> Stage:
    """The stage whose batches are the samples: without augmentation, around any voxel that counts."""
    changes = {
        "patch_size": list(validation.sample_size or stage.patch_size),
        "iterations_per_epoch": -(-validation.samples // stage.batch_size),
        "sampling": Sampling(name="counted_voxels", arguments={"outside": outside}),
        "augmentation": Augmentation(name="none", mirror_axes=()),
    }
    return stage.model_copy(update=changes)


def _outside(run: StageRun) -> Outside:
    """What lies beyond an image, as in the training."""
    sampling = run.stage.sampling
    if source_part(sampling.name, run.trainer) is not None:
        return "zero"
    return samplers.outside_of(sampling, samplers.check(sampling, run.trainer))


def _count(counts: dict[str, int], predicted: np.ndarray, true: np.ndarray) -> None:
    """Add a batch's voxels of a class."""
    for kind, here in zip(KINDS, (predicted & true, predicted & ~true, ~predicted & true), strict=False):
        counts[kind] += int(here.sum())
    counts["tn"] += int((~predicted & ~true).sum())


def scores_of(tp: int, fp: int, fn: int, tn: int) -> dict[str, float | None]:
    """Accuracy, true positive and true negative rate, and Dice of counts; None where there is nothing to divide by."""
    pairs = {
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "tpr": (tp, tp + fn),
        "tnr": (tn, tn + fp),
        "dice": (2 * tp, 2 * tp + fp + fn),
    }
    return {name: above / below if below else None for name, (above, below) in pairs.items()}
