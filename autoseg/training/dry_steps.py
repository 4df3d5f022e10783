"""A few training steps of a plan on random numbers, before anything is prepared: how long one takes on this device.

On a card the steps are those of the plan. On a CPU, where one of them may take a minute, they see two smaller patches,
and the time is scaled by the voxels that the network sees: the augmentation and what a smaller patch saves in the
caches are not in it, so that it is right to within a factor of two, no more. What the training then takes is measured
when it begins.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.bundle.networks import build_network, network_row
from autoseg.device import (
    accelerates,
    autocast,
    forget_peak,
    lower_precision,
    peak_memory_gb,
    place,
    synchronise,
)
from autoseg.errors import AutosegError
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.training import optimisers
from autoseg.training.amounts import patch_of
from autoseg.training.freezing import trained_parameters

ENOUGH_VOXELS = (20_000, 80_000)
"""That the network sees in two steps on a CPU."""
MOST_SECONDS, MOST_STEPS = 0.2, 5
"""The timed steps end when they took so long together, or are so many; a single one when it took five times as long.
None follow a first one of 25 times as long."""
CLASSIFIED = 64
"""Patches in a step of a network that says one thing of each."""


@dataclass(frozen=True)
class DryStep:
    """One step, as it was measured.

    Attributes:
        seconds: of a step of the plan, scaled where a smaller one was taken.
        peak_gb: memory of a card at its peak; None on others.
        scale: how many times the plan's step has the voxels of the larger one that was measured.
    """

    seconds: float
    peak_gb: float | None
    scale: float


def measure_step(
    plan: Plan, stage: Stage, trainer: Trainer, device: torch.device, shape: tuple[int, ...]
) -> DryStep:
    """Time a stage's training step on random numbers.

    Args:
        plan: the plan.
        stage: of it.
        trainer: of the plan.
        device: where.
        shape: of the median case on the working grid, z, y, x, for patches that take whole images.

    Raises:
        AutosegError: the network cannot be built, or its step does not fit the memory.
    """
    row, spec = network_row(plan, stage.network, trainer), plan.networks[stage.network]
    divisor, context = row.divisor_of(spec.arguments), row.context_of(spec.arguments)
    patch = _rounded(patch_of(stage.patch_size, shape), divisor)
    whole = stage.batch_size * _voxels(patch, context)
    sizes = [(min(stage.batch_size, CLASSIFIED) if row.classifies else stage.batch_size, patch)]
    if not row.classifies and not accelerates(device):
        sizes = [_smaller(patch, stage.batch_size, divisor, context, most) for most in ENOUGH_VOXELS]
    forget_peak(device)
    channels = row.channels(len(plan.channels_of(stage.network)), **spec.arguments)
    times: dict[float, float] = {}
    with torch.random.fork_rng(devices=[]), _explained(stage):
        module = build_network(plan, stage.network, trainer).module
        network = place(module, device, lower_precision(device, plan.recipe.precision))
        for batch, edges in sizes:
            seen = [n + 2 * c for n, c in zip(edges, context, strict=True)]
            voxels = batch * _voxels(edges, context)
            if voxels not in times:
                images = torch.randn(batch, channels, *seen).to(device)
                times[voxels] = _time(plan, stage, trainer, network, images)
    return DryStep(scaled(times, whole), peak_memory_gb(device), whole / max(times))


def scaled(times: Mapping[float, float], voxels: float) -> float:
    """Seconds of a step that sees so many voxels, from those of one or two steps that see fewer.

    Part of a step costs the same whatever it sees, such as the update of the weights: the straight line through both
    tells it. At most three quarters of the larger step are taken to be such, as small times are noisy.

    Args:
        times: voxels to seconds.
        voxels: of the step that is asked for.
    """
    large = max(times)
    small = min(times)
    slope = times[large] / large
    if large > small:
        slope = min(slope, max(slope / 4, (times[large] - times[small]) / (large - small)))
    return times[large] + slope * (voxels - large)


@contextlib.contextmanager
def _explained(stage: Stage) -> Iterator[None]:
    """What torch says of memory that runs out becomes an error that says what to do.

    Raises:
        AutosegError: any error of torch within.
    """
    try:
        yield
    except RuntimeError as error:
        raise AutosegError(
            "a training step does not fit this device",
            where=f"stage {stage.name}",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            fix="plan with a smaller -gpu_memory_target",
        ) from error


def _time(plan: Plan, stage: Stage, trainer: Trainer, network: nn.Module, images: torch.Tensor) -> float:
    """Seconds of the fastest of some steps, after one that sets up."""
    device, dtype = images.device, lower_precision(images.device, plan.recipe.precision)
    spec, parameters = stage.optimiser, trained_parameters(network, stage)
    optimiser = optimisers.REGISTRY.build(spec.name, parameters, trainer=trainer, **spec.arguments)
    network.train()
    times: list[float] = []
    for _ in range(MOST_STEPS + 1):
        started = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            outputs = network(images)
        _any_loss(outputs).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        synchronise(device)
        times.append(time.perf_counter() - started)
        enough = MOST_SECONDS if len(times) > 2 else 5 * MOST_SECONDS
        if sum(times[1:]) >= enough or times[0] >= 25 * MOST_SECONDS:
            break
    return min(times[1:] or times)


def _any_loss(outputs: object) -> torch.Tensor:
    """A number that depends on all outputs; what a loss itself costs is little beside a network."""
    found = [outputs] if isinstance(outputs, torch.Tensor) else list(_tensors(outputs))
    return torch.stack([tensor.float().mean() for tensor in found]).sum()


def _tensors(outputs: object) -> Sequence[torch.Tensor]:
    parts = outputs if isinstance(outputs, (list, tuple)) else ()
    return [
        tensor for part in parts for tensor in ([part] if isinstance(part, torch.Tensor) else _tensors(part))
    ]


def _smaller(
    patch: Sequence[int], batch: int, divisor: Sequence[int], context: Sequence[int], most: float
) -> tuple[int, list[int]]:
    """A batch and a patch with at most about so many voxels: fewer samples, then ever half of the longest edge."""
    edges, batch = list(patch), max(1, min(batch, int(most / _voxels(patch, context))))
    while _voxels(edges, context) > most:
        longest = max(range(len(edges)), key=lambda axis: edges[axis] // divisor[axis])
        halves = edges[longest] // 2 // divisor[longest] * divisor[longest]
        smaller = [*edges[:longest], halves, *edges[longest + 1 :]]
        if _voxels(smaller, [0] * len(smaller)) < 2 * _voxels(divisor, [0] * len(smaller)):
            break  # what is normalised by itself needs two voxels at the coarsest resolution
        edges = smaller
    return batch, edges


def _rounded(patch: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """Up to what the network takes: images that are taken whole are padded so."""
    patch = list(patch)[-len(divisor) :]
    return [-(-n // step) * step for n, step in zip(patch, divisor, strict=True)]


def _voxels(patch: Sequence[int], context: Sequence[int]) -> float:
    volume = 1.0
    for edge, extra in zip(patch, context, strict=True):
        volume *= edge + 2 * extra
    return volume
