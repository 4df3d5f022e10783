"""The recipe of a plan, built on trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from autoseg import postprocessing
from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.bundle.networks import ReadyNetwork, network_row, refuse_classifier
from autoseg.errors import AutosegError
from autoseg.inference import fusion
from autoseg.inference.tiling import refuse_cut_steps
from autoseg.plan import Augmentation, Named, Plan, PostStep, Stage
from autoseg.plugins.parts import Restore, Segmentation
from autoseg.plugins.trainer import Trainer
from autoseg.preprocessing.normalise import SCHEMES, where_of
from autoseg.sampling import samplers, transforms
from autoseg.training import losses, optimisers, schedules
from autoseg.training.freezing import trained_parameters
from autoseg.training.sources import source_part
from autoseg.training.trial_networks import network_on_trial, try_patches


def check_recipe(plan: Plan, trainer: Trainer) -> None:
    """Build every part of the recipe once: a mistyped name in the last stage would show only after days.

    Raises:
        AutosegError: a part that is not known or whose arguments do not fit.
    """
    networks: dict[str, ReadyNetwork] = {}
    for stage in plan.recipe.stages:
        if stage.network not in networks:
            networks = {stage.network: network_on_trial(plan, stage.network, trainer)}
        _check_context(plan, trainer, stage)
        try_patches(plan, stage, networks[stage.network], trainer)
        _check_stage(plan, trainer, stage, networks[stage.network].module)
    if PREDICTING_NETWORK in plan.networks:
        refuse_classifier(plan, PREDICTING_NETWORK, trainer)
    postprocessing.check(plan.recipe, trainer)
    _predict_nothing(plan, trainer)


def _check_context(plan: Plan, trainer: Trainer, stage: Stage) -> None:
    """The plan gives a network as much context as it takes, in training and prediction, and chunks of its steps."""
    spec = plan.networks[stage.network]
    row = network_row(plan, stage.network, trainer)
    takes = row.context_of(spec.arguments)
    given = {f"stages.{stage.name}.context": stage.context}
    if stage.network == PREDICTING_NETWORK:
        given["inference.context"] = plan.recipe.inference.context
        refuse_cut_steps(plan.recipe.inference, row.divisor_of(spec.arguments))
    for path, context in given.items():
        if tuple(context or [0] * len(takes)) != takes:
            raise AutosegError(
                f"the context does not fit the network '{spec.name}'",
                where=path,
                found=context or "none",
                expected=f"{list(takes)}: what it sees around its patch and does not predict",
                fix=f"--set {path}='{list(takes)}'",
            )


def _check_stage(plan: Plan, trainer: Trainer, stage: Stage, network: nn.Module) -> None:
    if stage.patience is not None and (
        stage.network != PREDICTING_NETWORK or not plan.recipe.validation.cases
    ):
        raise AutosegError(
            f"stage '{stage.name}' has patience, but no validation that could run out of it",
            found=f"network {stage.network}, validation.cases {plan.recipe.validation.cases}",
            expected=f"network {PREDICTING_NETWORK}, and validation cases",
            fix=f"--set stages.{stage.name}.patience=null",
        )

    _refuse_samples_without_size(plan, stage)

    def optimiser(spec: Named) -> Any:
        trained = trained_parameters(network, stage)
        return optimisers.REGISTRY.build(spec.name, trained, trainer=trainer, **spec.arguments)

    def schedule(spec: Named) -> Any:
        built = schedules.REGISTRY.build(spec.name, epochs=stage.epochs, trainer=trainer, **spec.arguments)
        for progress in (0.0, stage.epochs / 2, stage.epochs - 0.5):
            settings = built(progress)
            if not all(np.isrealobj(value) and np.isfinite(value) for value in settings.values()):
                raise ValueError(f"epoch {progress:g} gives {settings}")

    def loss(spec: Named) -> Any:
        return losses.build(spec.name, labels=plan.label_set, trainer=trainer, **spec.arguments)

    def augmentation(spec: Augmentation) -> Any:
        return transforms.check_augmentation(stage, len(plan.channels_of(stage.network)), trainer)

    _on_trial("optimiser", optimiser, stage.optimiser)
    _on_trial("schedule", schedule, stage.schedule)
    _on_trial("loss", loss, stage.loss)
    source = source_part(stage.sampling.name, trainer)
    if source is not None:
        _refuse_clones(stage)
        source.check(plan, stage)
    else:
        _on_trial("sampler", samplers.check, stage.sampling, trainer)
        _refuse_uncountable(plan, stage)
    _on_trial("augmentation", augmentation, stage.augmentation)


def _refuse_samples_without_size(plan: Plan, stage: Stage) -> None:
    """A sample is a patch around a voxel; whole images and whole axes have none."""
    validation = plan.recipe.validation
    size = validation.sample_size or stage.patch_size
    if validation.samples and stage.network == PREDICTING_NETWORK and (not size or "whole" in size):
        raise AutosegError(
            f"stage '{stage.name}' is validated on samples, and they have no size",
            where="validation.sample_size",
            found=f"{validation.sample_size or 'that of the stage'}, patch_size {list(stage.patch_size)}",
            expected="numbers of voxels",
            fix="--set validation.sample_size='[...]' or validation.samples=0",
        )


def _refuse_clones(stage: Stage) -> None:
    """Clones are cases for a sampler; a source finds its batches by itself."""
    if stage.sampling.clones is not None:
        raise AutosegError(
            f"stage '{stage.name}' has clones, and no sampler that could show them",
            found=f"sampling.name {stage.sampling.name}, a source of batches of its own",
            expected=f"a sampler: {', '.join(samplers.REGISTRY.names())}",
            fix=f"--set stages.{stage.name}.sampling.clones=null",
        )


def _refuse_uncountable(plan: Plan, stage: Stage) -> None:
    """Voxels that are not 0 can be counted where 0 is still 0 after the normalisation, in all channels of the stage."""
    if not stage.sampling.nonzero_share:
        return
    for number in plan.channels_of(stage.network):
        entry = plan.preprocessing.normalisation[number]
        if where_of(entry) == "everywhere" and not SCHEMES[entry.scheme].keeps_zero:
            keeping = [scheme.name for scheme in SCHEMES.values() if scheme.keeps_zero]
            raise AutosegError(
                f"stage '{stage.name}' counts voxels that are not 0, and the normalisation leaves no 0",
                found=f"channel {plan.channel_names[number]}: {entry.scheme} of all voxels",
                expected=f"{', '.join(keeping)}, or inside_nonzero",
                fix=f"--set stages.{stage.name}.sampling.nonzero_share=0, or another normalisation",
            )


def _predict_nothing(plan: Plan, trainer: Trainer) -> None:
    """Fuse and post-process an empty case: what cannot work must not show after the training."""
    labels, shape = plan.label_set, (8, 8, 8)
    restore = Restore(mask=labels.decide, probabilities=lambda logits: logits)
    _on_trial("fusion", fusion.build, plan.recipe.fusion, labels, restore, trainer)
    case = Segmentation(
        mask=np.zeros(shape, np.uint8),
        spacing_mm=(1.0, 1.0, 1.0),
        probabilities=np.zeros((labels.n_outputs, *shape), np.float32),
        image=np.zeros((plan.in_channels, *shape), np.float32),
    )

    def step(spec: PostStep) -> Segmentation:
        return postprocessing.apply(case, [spec], trainer)

    for spec, row in postprocessing.rows(plan.recipe.postprocessing, trainer):
        if row.on == "mask":
            _on_trial("post-processing step", step, spec)


def _on_trial(kind: str, make: Callable[..., Any], spec: Any, *others: Any) -> Any:
    """``make(spec, *others)``; arguments whose values it cannot work with are refused like unknown ones."""
    try:
        return make(spec, *others)
    except AutosegError:
        raise
    except Exception as error:
        raise AutosegError(
            f"the {kind} '{spec.name}' cannot work with its arguments",
            found=f"{spec.arguments} ({type(error).__name__}: {error})",
            fix="correct the arguments in the plan",
        ) from error
