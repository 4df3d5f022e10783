"""Which device computes, what it can do, and the way of numbers to it and back.

Nothing else asks what kind a device is: what the rest of autoseg wants to know has a function here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from autoseg.errors import AutosegError
from autoseg.messages import count_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]
"""What networks compute in: see :func:`lower_precision`. Weights, losses and sums stay float32 always."""

KEPT_SHARE = 0.25
"""Of a card's free memory, for what is kept there to save copies; the rest is for the work itself."""


def lower_precision(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The type below float32 that a network computes in on this device, None for none.

    ``auto`` is mixed precision on CUDA and float32 elsewhere. ``bfloat16`` is taken on a CPU too: with matrix
    instructions for it (AMX) convolutions are several times as fast, without them they may be slower.
    """
    import torch

    if precision == "bfloat16":
        return torch.bfloat16
    return half_precision(device) if precision == "auto" and is_card(device) else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Mixed precision within, or nothing for None."""
    import torch

    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def refuse_tf32(device: torch.device, dtype: torch.dtype | None) -> None:
    """float32 means float32 on a card too: from here on this process rounds nothing to TF32 there.

    By default cuDNN convolves float32 with the 10 bits of mantissa of TF32, on cards that have it (since Ampere).
    Nothing changes where a network computes in less than float32 anyhow.
    """
    import torch

    if is_card(device) and dtype is None:
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def place(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """The network on the device, its weights in the order in memory that is fastest there; the values are the same.

    In bfloat16 a CPU convolves about 1.5 times as fast with channels last. For float32 see :func:`refuse_tf32`.
    """
    import torch

    refuse_tf32(device, dtype)

    network.to(device)
    if device.type == "cpu" and dtype is torch.bfloat16:
        for parameter in network.parameters():
            if parameter.dim() in (4, 5):
                last = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=last)
    return network


def half_precision(device: torch.device) -> torch.dtype:
    """What mixed precision on a card computes in: bfloat16 where the card has it, else float16.

    NVIDIA's cards before compute capability 8.0 only emulate bfloat16, which is slower than float32.
    """
    import torch

    has_it = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if has_it else torch.float16


# ------------------------------------------------------------------------------------------------ what it can do


def accelerates(device: torch.device) -> bool:
    """Whether it works beside the CPU: the CPU had better not wait for it, and mirrored tiles cost little."""
    return device.type != "cpu"


def is_card(device: torch.device) -> bool:
    """Whether it is one of CUDA's: with memory of its own, copies from page-locked memory, mixed precision."""
    return device.type == "cuda"


def fuses(device: torch.device) -> bool:
    """Whether an optimiser's step has kernels there that update many weights at once."""
    import torch

    return is_card(device) and torch.version.cuda is not None


def try_convolutions(device: torch.device, alike: bool) -> None:
    """Whether cuDNN tries its ways to convolve when it sees a size for the first time, and takes the fastest.

    Args:
        device: nothing changes where it is no card.
        alike: all inputs have one of a few sizes; with images of any size each would be tried.
    """
    import torch

    if is_card(device):
        torch.backends.cudnn.benchmark = alike


def device_name(device: torch.device) -> str:
    """What rounds alike has the same name: the model of a card, else the kind of device."""
    import torch

    return torch.cuda.get_device_name(device) if is_card(device) else device.type


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch holds of a card's memory without using it."""
    import torch

    if is_card(device):
        torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    """Wait until a card has done all its work; others have."""
    import torch

    if is_card(device):
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """From here on :func:`peak_memory_gb` counts anew."""
    import torch

    if is_card(device):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float | None:
    """The most that tensors took on a card since the process began, or forgot; None on others."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e9 if is_card(device) else None


def free_memory(device: torch.device) -> int:
    """Bytes of a card that nobody uses now; 0 on other devices, which have no memory of their own."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if is_card(device) else 0


def card_facts(device: torch.device) -> dict[str, float]:
    """What a record says of a card beside its name: the version of cuDNN, and the most that tensors took since the
    process began; nothing of others."""
    import torch

    peak = peak_memory_gb(device)
    if peak is None:
        return {}
    return {"cudnn_version": torch.backends.cudnn.version() or 0, "peak_device_memory_gb": peak}


def has_float64(device: torch.device) -> bool:
    """Whether it computes in double precision."""
    return device.type != "mps"


# ------------------------------------------------------------------------------------------------ there and back


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. A card copies while the CPU goes on: from page-locked memory, and unasked.

    Any other copy waits until the card has done all its work, and the next step cannot be launched meanwhile.
    """
    if not is_card(device) or is_card(tensor.device):
        return tensor.to(device)
    return page_locked(tensor).to(device, non_blocking=True)


def page_locked(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory of the CPU that a card can read by itself, or as it is where there is none left."""
    if tensor.is_pinned():
        return tensor
    try:
        return tensor.pin_memory()
    except RuntimeError:  # the system allows only so much
        return tensor


def keep_on_card(
    sets: Sequence[Mapping[str, torch.Tensor]], device: torch.device
) -> list[dict[str, torch.Tensor]]:
    """Sets of tensors that are used again and again: on the card if all take no more than a share of its free memory.

    Returns:
        The same on the card, else as they are.
    """
    n_bytes = sum(tensor.nbytes for tensors in sets for tensor in tensors.values())
    if n_bytes > KEPT_SHARE * free_memory(device):
        return [dict(tensors) for tensors in sets]
    return [{name: send(tensor, device) for name, tensor in tensors.items()} for tensors in sets]


def fetch(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU, with one wait for the card in all. What lies on the CPU already is handed on as it is."""
    import torch

    there = [tensor.device for tensor in tensors.values() if is_card(tensor.device)]
    fetched = {}
    for name, tensor in tensors.items():
        if is_card(tensor.device):
            copy = page_locked(torch.empty_like(tensor, device="cpu"))
            fetched[name] = copy.copy_(tensor, non_blocking=True)
        else:
            fetched[name] = tensor.cpu()
    for device in set(there):
        torch.cuda.synchronize(device)
    return fetched


# ------------------------------------------------------------------------------------------------ choosing one


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
    if kind == "cuda":
        return _card(name)
    return torch.device(name)


def _card(name: str) -> torch.device:
    """The card ``cuda:N``, or of ``cuda`` that of this process.

    Raises:
        AutosegError: there is no such card; several processes would share one.
    """
    import torch

    number, several = name.partition(":")[2], int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and number:
        raise AutosegError(
            f"-device {name}: several processes cannot share one card",
            found=f"{os.environ['WORLD_SIZE']} processes, started by torchrun",
            expected="a card for each",
            fix="use -device cuda: each process then takes its own",
        )
    index = number or os.environ.get("LOCAL_RANK")
    if index is None:
        return torch.device("cuda")
    there = range(torch.cuda.device_count())
    if not index.isdecimal() or int(index) not in there:
        raise AutosegError(
            f"-device {name}: there is no such card here",
            found=count_of(len(there), "card") + ("" if number else f", and process {index} of torchrun"),
            expected=" or ".join(f"cuda:{n}" for n in there),
            fix="choose one that is there" if number else "start fewer processes",
        )
    return torch.device("cuda", int(index))
