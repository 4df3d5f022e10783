"""What a training step of a plan takes, counted without computing it: memory, multiplications, bytes, kernels.

The step is that of :mod:`autoseg.training.stage`, on tensors that have a shape, a type and no numbers: seconds for a
planned patch, on any machine. Not counted is what an operation needs inside itself, and what an allocator keeps, see
:mod:`autoseg.training.live_memory`.

In float32 these are torch's ``meta`` tensors. Mixed precision does not know them, so there they are fake ones that say
they lie on the CPU. Autograd never adds gradients of those up in place: where activations are computed twice in a
network of many additions, the peak is counted up to a sixth too high.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from autoseg.bundle.networks import network_row
from autoseg.device import autocast
from autoseg.plan import Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.training import losses, optimisers
from autoseg.training.freezing import trained_parameters
from autoseg.training.live_memory import FLOAT32_BYTES, LiveMemory
from autoseg.training.trial_networks import network_on_trial

CPU, META = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class StepCount:
    """Of one training step.

    Attributes:
        peak_gb: of all that lives at once, in 1e9 bytes: weights, gradients, the optimiser's state, the batch, what
            the forward pass keeps, and what the backward pass makes.
        kept_gb: of that, what the forward pass and the loss keep for the backward pass.
        parameters: weights that the network has.
        flop: of convolutions and matrix products, a multiplication and an addition being two.
        moved_gb: that all operations read and write, each for itself.
        kernels: operations that compute something.
    """

    peak_gb: float
    kept_gb: float
    parameters: int
    flop: int
    moved_gb: float
    kernels: int


def count_step(
    plan: Plan,
    stage: Stage,
    trainer: Trainer,
    *,
    dtype: torch.dtype | None = None,
    shape: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> StepCount:
    """Count one step of a stage, the second one: the optimiser has its state by then.

    Args:
        plan: of the stage.
        stage: one of its recipe.
        trainer: of the plan.
        dtype: of mixed precision, None for float32; see :func:`autoseg.device.lower_precision`.
        shape: what an axis that takes the whole image has, z, y, x.
        batch_size: instead of the stage's.

    Raises:
        AutosegError: a part of the plan that cannot be built.
        ValueError: the stage takes whole images, and no shape is given.
    """
    network = network_on_trial(plan, stage.network, trainer)
    loss = losses.build(stage.loss.name, labels=plan.label_set, trainer=trainer, **stage.loss.arguments)
    unbuilt = all(parameter.is_meta for parameter in network.module.parameters())
    exact = dtype is None and unbuilt
    device = META if exact else CPU
    with contextlib.nullcontext() if exact else FakeTensorMode(allow_non_fake_inputs=True):
        module = network.module.to_empty(device=device).train()
        loss = loss.to_empty(device=device) if isinstance(loss, nn.Module) else loss
        trained = list(trained_parameters(module, stage))
        optimiser = optimisers.REGISTRY.build(
            stage.optimiser.name, trained, trainer=trainer, **stage.optimiser.arguments
        )
        batch = batch_of(plan, stage, trainer, device, shape=shape, batch_size=batch_size)
        memory = LiveMemory([*batch, *module.parameters(), *module.buffers()])
        for _ in range(2):
            with memory:
                kept = _step(module, loss, optimiser, batch, dtype, stage, memory)
        with _Work() as work:
            _step(module, loss, optimiser, batch, dtype, stage, memory)
    gb = FLOAT32_BYTES / 1e9
    return StepCount(
        peak_gb=memory.peak * gb,
        kept_gb=kept * gb,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        flop=work.flop,
        moved_gb=work.moved / 1e9,
        kernels=work.kernels,
    )


def _patch(stage: Stage, divisor: Sequence[int], shape: Sequence[int] | None) -> list[int]:
    """The axes of a patch in numbers; whole ones are padded to what the network takes."""
    wanted = stage.patch_size or ["whole"] * len(divisor)
    if "whole" not in wanted:
        return [int(n) for n in wanted]
    if shape is None:
        raise ValueError(f"stage {stage.name} takes whole images: give the shape of one")
    edges = zip(wanted, shape[-len(wanted) :], divisor[-len(wanted) :], strict=True)
    return [-(-n // d) * d if size == "whole" else int(size) for size, n, d in edges]


def batch_of(
    plan: Plan,
    stage: Stage,
    trainer: Trainer,
    device: torch.device,
    *,
    shape: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and targets of the sizes and types that a batch of the stage has, not filled; see :func:`count_step`."""
    row, arguments = network_row(plan, stage.network, trainer), plan.networks[stage.network].arguments
    patch, size = _patch(stage, row.divisor_of(arguments), shape), batch_size or stage.batch_size
    channels = row.channels(len(plan.channels_of(stage.network)), **arguments)
    seen = [n + 2 * around for n, around in zip(patch, row.context_of(arguments), strict=True)]
    target = torch.empty(size, *([] if row.classifies else patch), dtype=torch.int16, device=device)
    return torch.empty(size, channels, *seen, device=device), target


def _step(
    module: nn.Module,
    loss: Any,
    optimiser: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype | None,
    stage: Stage,
    memory: LiveMemory,
) -> int:
    """One step; the float32 elements that the forward pass left alive."""
    images, target = batch
    optimiser.zero_grad(set_to_none=True)
    before = memory.now
    with autocast(CPU, dtype):
        outputs = module(images)
    value = loss(outputs, target)
    del outputs
    kept = memory.now - before
    value.backward()
    if stage.gradient_clip is not None:
        nn.utils.clip_grad_norm_(module.parameters(), stage.gradient_clip)
    optimiser.step()
    return kept


class _Work(TorchDispatchMode):
    """Bytes that operations read and write, multiplications and additions, and how many operations there are; without
    views and empty memory."""

    IDLE = (
        "aten.empty",
        "aten.detach",
        "aten.lift",
        "aten._unsafe_view",
        "aten.is_same_size",
        "prim.",
        "prims.",
    )

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.flop = self.kernels = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        results = function(*args, **(kwargs or {}))
        if not function.is_view and not str(function).startswith(self.IDLE):
            tensors = {id(t): t for t in tree_leaves((args, kwargs, results)) if isinstance(t, torch.Tensor)}
            self.moved += sum(tensor.nbytes for tensor in tensors.values())
            self.kernels += 1
        if (formula := flop_registry.get(function.overloadpacket)) is not None:
            self.flop += formula(*args, **(kwargs or {}), out_val=results)
        return results
