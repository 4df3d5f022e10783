"""Which device computes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from autoseg.errors import AutosegError

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]
"""What networks compute in: see :func:`lower_precision`. Weights, losses and sums stay float32 always."""


def lower_precision(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The type below float32 that a network computes in on this device, None for none.

    ``auto`` is mixed precision on CUDA and float32 elsewhere. ``bfloat16`` is taken on a CPU too: with matrix
    instructions for it (AMX) convolutions are several times as fast, without them they may be slower.
    """
    import torch

    if precision == "bfloat16":
        return torch.bfloat16
    return half_precision() if precision == "auto" and device.type == "cuda" else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Mixed precision within, or nothing for None."""
    import torch

    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def place(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """The network on the device, its weights in the order in memory that is fastest there; the values are the same.

    In bfloat16 a CPU convolves about 1.5 times as fast with channels last.
    """
    import torch

    network.to(device)
    if device.type == "cpu" and dtype is torch.bfloat16:
        for parameter in network.parameters():
            if parameter.dim() in (4, 5):
                last = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=last)
    return network


def half_precision() -> torch.dtype:
    """What mixed precision on this machine's CUDA card computes in: bfloat16 where the card has it, else float16.

    Cards before compute capability 8.0 only emulate bfloat16, which is slower than float32.
    """
    import torch

    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_it else torch.float16


def choose_device(name: str | None = None) -> torch.device:
    """The device that was asked for, or the best one at hand (CUDA, else the CPU).

    Args:
        name: ``cuda``, ``cuda:1``, ``cpu``, ``mps`` or None. Under torchrun, ``cuda`` is the local rank's card.

    Raises:
        AutosegError: it is not there.
    """
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "cpu": lambda: True,
        "mps": torch.backends.mps.is_available,
    }
    if kind not in there:
        raise AutosegError(
            f"-device {name}: unknown device", expected="cuda, cuda:N, cpu or mps", fix="choose one of them"
        )
    if not there[kind]():
        raise AutosegError(
            f"-device {name}: there is no such device here",
            found=f"torch {torch.__version__} without a usable {kind} device",
            expected="a device that torch can use",
            fix="use -device cpu, or install a torch build with drivers for your card",
        )
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(name)
