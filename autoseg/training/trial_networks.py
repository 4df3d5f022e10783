"""The networks of a plan on trial: built and run with torch's ``meta`` tensors, which have shapes and no memory.

So a plan is held against its networks in a second on any machine, however large they and their patches are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.bundle.networks import ReadyNetwork, build_network, network_row
from autoseg.errors import AutosegError
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer

MOST_PARAMETERS = 4_000_000_000
"""Of a network; 16 GB of weights."""


def network_on_trial(plan: Plan, key: str, trainer: Trainer) -> ReadyNetwork:
    """The network under this key, without memory where it can be built so.

    Raises:
        AutosegError: arguments that do not fit, or a network that no machine can hold.
    """
    try:
        with torch.device("meta"):
            network = build_network(plan, key, trainer)
    except AutosegError as error:
        if not _is_about_meta(error.__cause__):
            raise
        return build_network(plan, key, trainer)  # it looks at its own numbers while it is built
    size = sum(parameter.numel() for parameter in network.module.parameters())
    if size > MOST_PARAMETERS:
        raise AutosegError(
            f"the network '{plan.networks[key].name}' is too large",
            where=f"networks.{key}",
            found=f"{size:.1e} parameters",
            expected=f"up to {MOST_PARAMETERS:.0e}",
            fix="correct the arguments in the plan",
        )
    return network


def try_patches(plan: Plan, stage: Stage, network: ReadyNetwork, trainer: Trainer) -> None:
    """Show a network patches as the stage has them, and as the prediction has them where it predicts.

    Sizes that follow from the images (``whole``) are not known here.

    Raises:
        AutosegError: it cannot take them, or puts out something of another shape.
    """
    inference, validation = plan.recipe.inference, plan.recipe.validation
    network.module.train()
    path = f"stages.{stage.name}.patch_size"
    _try_patch(plan, stage, network, trainer, path, stage.patch_size, stage.batch_size)
    if stage.network == PREDICTING_NETWORK:
        network.module.eval()
        path = "inference.patch_size"
        _try_patch(plan, stage, network, trainer, path, inference.patch_size, inference.batch_size)
        if validation.samples:
            path = "validation.sample_size"
            _try_patch(plan, stage, network, trainer, path, validation.sample_size, stage.batch_size)
        network.module.train()


def _try_patch(
    plan: Plan,
    stage: Stage,
    network: ReadyNetwork,
    trainer: Trainer,
    where: str,
    patch_size: Sequence[Any],
    batch_size: int,
) -> None:
    row, axes = network_row(plan, stage.network, trainer), len(network.takes.divisor)
    if patch_size and len(patch_size) != axes:
        raise _misfit(plan, stage, where, patch_size, f"{axes} numbers, one for each axis of the network")
    if not patch_size or "whole" in patch_size:
        return
    channels = row.channels(len(plan.channels_of(stage.network)), **network.arguments)
    seen = [n + 2 * c for n, c in zip(patch_size, row.context_of(network.arguments), strict=True)]
    batch = min(batch_size, 2)
    try:
        found = _first_shape(network.module, [batch, channels, *seen])
    except AutosegError as error:
        raise _misfit(plan, stage, where, patch_size, error.fault.expected) from None
    except Exception as error:  # whatever a network does with a size that it was not made for
        if _is_about_meta(error):
            return
        raise _misfit(plan, stage, where, patch_size, f"another size ({error})") from error
    wanted = [batch, plan.label_set.n_outputs, *([] if row.classifies else patch_size)]
    if found is not None and found != wanted:
        raise _misfit(plan, stage, where, patch_size, f"{wanted} to come out of it, not {found}")


def _first_shape(module: nn.Module, shape: Sequence[int]) -> list[int] | None:
    """The shape of what counts of a network's output; None where it is no tensor or list of tensors."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("meta"))
    if device.type != "meta":
        return None
    with torch.no_grad():
        output = module(torch.empty(*shape, device="meta"))
    first = output[0] if isinstance(output, (list, tuple)) else output
    return list(first.shape) if isinstance(first, torch.Tensor) else None


def _misfit(plan: Plan, stage: Stage, where: str, patch_size: Sequence[Any], expected: str) -> AutosegError:
    return AutosegError(
        f"the network '{plan.networks[stage.network].name}' cannot take this patch",
        where=where,
        found=list(patch_size),
        expected=expected,
        fix="choose another size, or correct the arguments of the network",
    )


def _is_about_meta(error: BaseException | None) -> bool:
    """Whether an error says only that there are no numbers to look at."""
    return isinstance(error, NotImplementedError) or "meta" in str(error or "")
