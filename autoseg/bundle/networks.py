"""The networks of a plan: built from their rows, loaded from a bundle, placed and ready to predict.

The one place where a plan's network comes from, for training, prediction and import alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoseg import networks
from autoseg.bundle import weights
from autoseg.device import lower_precision, place
from autoseg.errors import AutosegError
from autoseg.plan import Plan
from autoseg.plugins.parts import NetworkInput, NetworkPart
from autoseg.plugins.registry import refuse_misfits
from autoseg.plugins.trainer import Trainer


@dataclass(frozen=True)
class ReadyNetwork:
    """A network of a plan.

    Attributes:
        module: the network.
        takes: its divisor and channels.
        arguments: as the plan has them.
    """

    module: nn.Module
    takes: NetworkInput
    arguments: Mapping[str, Any]


def build_network(plan: Plan, key: str, trainer: Trainer | None = None) -> ReadyNetwork:
    """The network under this key of ``Plan.networks``, freshly initialised, on the CPU.

    Raises:
        AutosegError: an unknown network, or arguments that do not fit.
    """
    row, spec = network_row(plan, key, trainer), plan.networks[key]
    what, arguments = f"the network '{spec.name}'", spec.arguments
    channels = plan.channels_of(key)
    refuse_misfits(what, row.channels, len(channels), **arguments)
    try:
        sizes = {
            "in_channels": row.channels(len(channels), **arguments),
            "out_channels": plan.label_set.n_outputs,
        }
        refuse_misfits(what, row.build, **sizes, **arguments)
        module = row.build(**sizes, **arguments)
        return ReadyNetwork(module, NetworkInput(row.divisor_of(arguments), channels), arguments)
    except AutosegError:
        raise
    except Exception as error:  # values of another kind or range than the network was written for
        raise AutosegError(
            f"{what} cannot be built from its arguments",
            where=f"networks.{key}.arguments",
            found=f"{arguments} ({type(error).__name__}: {error})",
            fix="correct the arguments in the plan",
        ) from error


def network_row(plan: Plan, key: str, trainer: Trainer | None = None) -> NetworkPart:
    """The row of the network under this key.

    Raises:
        AutosegError: nobody has such a network.
    """
    return networks.REGISTRY.get(plan.networks[key].name, trainer)


def load(
    network: ReadyNetwork, file: Path | weights.WeightFile, *, key: str | None = None, where: str = ""
) -> ReadyNetwork:
    """Put the weights of a file into the network, strictly.

    Args:
        network: of a plan.
        file: its path, or its content.
        key: of the network, which a file that is read must be of; None does not ask.
        where: the file, for messages about its content.

    Raises:
        AutosegError: the file is missing or damaged, or does not fit.
    """
    content = weights.read(file, key) if isinstance(file, Path) else file
    weights.load_network(network.module, content.tensors, where=where or str(file))
    return network


def make_ready(network: ReadyNetwork, device: torch.device, plan: Plan) -> ReadyNetwork:
    """Place the network on the device as the plan's precision wants it, in evaluation mode."""
    place(network.module, device, lower_precision(device, plan.recipe.precision)).eval()
    return network


def refuse_classifier(plan: Plan, key: str, trainer: Trainer | None = None) -> None:
    """The network that predicts must return logits on the grid of its patch.

    Raises:
        AutosegError: it classifies whole patches.
    """
    if network_row(plan, key, trainer).classifies:
        raise AutosegError(
            f"the network '{plan.networks[key].name}' cannot predict a mask",
            where=f"networks.{key}",
            found="a network that says one thing of each patch",
            expected="logits for each voxel",
            fix="choose another network",
        )
