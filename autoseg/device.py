"""Which device computes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autoseg.errors import AutosegError

if TYPE_CHECKING:
    import torch


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
    there = {"cuda": torch.cuda.is_available, "cpu": lambda: True, "mps": torch.backends.mps.is_available}
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
