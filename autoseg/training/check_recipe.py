"""The recipe of a plan, built on trial."""

from __future__ import annotations

from torch import nn

from autoseg import postprocessing
from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.errors import AutosegError
from autoseg.inference import fusion
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import samplers, transforms
from autoseg.training.freezing import trained_parameters


def check_recipe(plan: Plan, trainer: Trainer) -> None:
    """Build every part of the recipe once: a mistyped name in the last stage would show only after days.

    Raises:
        AutosegError: a part that is not known or whose arguments do not fit.
    """
    networks: dict[str, nn.Module] = {}
    for stage in plan.recipe.stages:
        if stage.network not in networks:
            networks = {stage.network: _network(plan, trainer, stage)}  # one at a time: they may be large
        _check_stage(plan, trainer, stage, networks[stage.network])
    if plan.recipe.fusion.name not in trainer.fusions:
        fusion.REGISTRY.get(plan.recipe.fusion.name)
    postprocessing.check(plan.recipe, trainer.postprocessing, trainer.refinements)


def _network(plan: Plan, trainer: Trainer, stage: Stage) -> nn.Module:
    return trainer.build_network(plan.networks[stage.network], plan.in_channels, plan.label_set.n_outputs)


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
    trained = trained_parameters(network, stage)
    trainer.build_optimiser(stage.optimiser, trained)
    trainer.build_schedule(stage.schedule, stage.epochs)(0.0)
    trainer.build_loss(stage.loss, plan.label_set)
    if stage.sampling.name not in trainer.sources:
        samplers.check(stage.sampling, trainer)
    elif (check := getattr(trainer.sources[stage.sampling.name], "check", None)) is not None:
        check(plan, stage)
    transforms.check_augmentation(stage, len(plan.channels_of(stage.network)), trainer)
