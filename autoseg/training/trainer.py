"""What a trainer plug-in is: the parts that are particular to a paper, built from the plan's plain arguments.

It contains no loop, no argument parsing and no file handling. Every field has a default that looks the
name up in autoseg's own registries, so a family states only what it does differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoseg import losses, networks, postprocessing
from autoseg.dataset.schema import LabelSet
from autoseg.plan import Named, Plan
from autoseg.training import optimisers, schedules

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
Schedule = Callable[[float], dict[str, float]]


def default_network(spec: Named, in_channels: int, out_channels: int) -> nn.Module:
    """The registered network ``spec.name`` with ``spec.arguments``."""
    return networks.build(spec.name, in_channels=in_channels, out_channels=out_channels, **spec.arguments)


def default_loss(spec: Named, labels: LabelSet) -> Loss:
    """The registered loss ``spec.name`` with ``spec.arguments``."""
    return losses.build(spec.name, labels=labels, **spec.arguments)


def default_optimiser(spec: Named, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The registered optimiser ``spec.name`` with ``spec.arguments``."""
    return optimisers.build(spec.name, parameters, **spec.arguments)


def default_schedule(spec: Named, epochs: int) -> Schedule:
    """The registered schedule ``spec.name``: progress in epochs to optimiser settings such as ``lr``."""
    return schedules.build(spec.name, epochs=epochs, **spec.arguments)


@dataclass(frozen=True)
class ImportedWeights:
    """Weights from elsewhere, recognised.

    Attributes:
        network: as the plan will name it.
        tensors: by the names of that network.
        facts: what the file says of itself, for the model card.
    """

    network: Named
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsImport:
    """How a family takes weights that others trained.

    Attributes:
        recognise: ``(state dict, file name)`` to the weights; an AutosegError says why they are none of the family's.
        plan: ``(network, number of members)`` to the plan around them, from raw image to mask.
    """

    recognise: Callable[[Mapping[str, torch.Tensor], str], ImportedWeights]
    plan: Callable[[Named, int], Plan]


@dataclass(frozen=True)
class Trainer:
    """A trainer plug-in.

    Attributes:
        name: as of the entry point.
        summary: one line for lists and help.
        build_network: ``(spec, in_channels, out_channels)`` to a module ``[b, c, *patch] -> [b, k, *patch]``,
            or in training mode a list of such outputs, the first of which counts (deep supervision, auxiliary outputs).
        build_loss: ``(spec, labels)`` to ``loss(outputs, target)``; target is ``[b, *patch]`` integer.
        build_optimiser: ``(spec, parameters)``.
        build_schedule: ``(spec, epochs)`` to a function of the progress in epochs (0 to epochs, fractional
            within an epoch) that returns optimiser settings by name.
        fusions: further fusions by name, see :mod:`autoseg.inference.fusion`.
        postprocessing: further steps by name, see :mod:`autoseg.postprocessing`.
        import_weights: for ``autoseg_import_weights``; None where the family takes no weights from elsewhere.
    """

    name: str
    summary: str
    build_network: Callable[[Named, int, int], nn.Module] = default_network
    build_loss: Callable[[Named, LabelSet], Loss] = default_loss
    build_optimiser: Callable[[Named, Iterable[nn.Parameter]], torch.optim.Optimizer] = default_optimiser
    build_schedule: Callable[[Named, int], Schedule] = default_schedule
    fusions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    postprocessing: Mapping[str, postprocessing.Step] = field(default_factory=dict)
    import_weights: WeightsImport | None = None
