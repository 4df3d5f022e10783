"""What a trainer plug-in is: the parts that are particular to a paper, built from the plan's plain arguments.

It contains no loop, no argument parsing and no file handling. Every field has a default that looks the
name up in autoseg's own registries, so a family states only what it does differently.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from autoseg import networks, postprocessing
from autoseg.labels import LabelSet
from autoseg.plan import Named, Plan, Stage
from autoseg.plugins.parts import Batch, CaseStore, SamplerPart, TransformPart
from autoseg.training import losses, optimisers, schedules

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


class Source(Protocol):
    """Where the batches of a stage come from; :class:`autoseg.sampling.loader.BatchSource` unless a trainer brings one.

    Attributes:
        iterations: batches in an epoch.
        facts: kept with the weights of the stage and given back when these are used.
        nothing_to_learn: why there is nothing to train on, in words; the stage then keeps the weights it starts from,
            and the training goes on. Empty otherwise.
    """

    iterations: int
    facts: Mapping[str, int]
    nothing_to_learn: str

    def batches(self, epoch: int, start_iteration: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from ``start_iteration`` on: the same ones whenever they are asked for."""
        ...

    def close(self) -> None:
        """End threads and processes."""
        ...


@dataclass(frozen=True)
class SourceContext:
    """What a source is made from.

    Attributes:
        plan, stage: the stage is that of the batches.
        cases: names of the stage's training cases.
        store: of the preprocessed cases.
        network_of: loads the network that an earlier stage of the same member has trained, in evaluation mode on the
            device.
        seed_key: the root of the source's random numbers.
        device, workers, rank, world_size: see :class:`autoseg.sampling.loader.BatchSource`.
        check_stop: raises Interrupted when the user wants to stop; for work that takes long.
    """

    plan: Plan
    stage: Stage
    cases: tuple[str, ...]
    store: CaseStore
    network_of: Callable[[str], nn.Module]
    seed_key: tuple[int, ...]
    device: torch.device
    workers: int
    rank: int
    world_size: int
    check_stop: Callable[[], None]


@dataclass(frozen=True)
class Companion:
    """A network that looks at what the predicting network of the same member found.

    Attributes:
        network: in evaluation mode, on its device.
        arguments: of the network in the plan.
        facts: of its training, see :class:`Source`.
    """

    network: nn.Module
    arguments: Mapping[str, Any]
    facts: Mapping[str, int]


Refinement = Callable[..., torch.Tensor]
"""``refine(logits, image, companions, **arguments)`` to logits: a post-processing step on the working grid.

``logits`` ``[k, z, y, x]`` of one member and ``image`` ``[c, z, y, x]`` are float32 on the CPU; ``companions`` maps the
keys of ``Plan.networks`` to :class:`Companion`. An attribute ``needs`` of the function names those that it cannot do
without. It must not change its input.
"""


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
        refinements: steps of the plan's post-processing that see each member's logits, by name; see
            :data:`Refinement`. They come before all others.
        sources: what a stage's ``sampling.name`` may be beside autoseg's samplers: a source with batches of its own.
            Its attribute ``check(plan, stage)``, if it has one, refuses before the training what cannot work.
        samplers, transforms: rows of :class:`autoseg.plugins.parts.SamplerPart` and
            :class:`autoseg.plugins.parts.TransformPart`.
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
    refinements: Mapping[str, Refinement] = field(default_factory=dict)
    sources: Mapping[str, Callable[[SourceContext], Source]] = field(default_factory=dict)
    samplers: tuple[SamplerPart, ...] = ()
    transforms: tuple[TransformPart, ...] = ()
    import_weights: WeightsImport | None = None
