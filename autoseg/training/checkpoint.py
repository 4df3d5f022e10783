"""Checkpoints without pickle: one safetensors file with weights, optimiser state and position.

A checkpoint holds all that the next iteration depends on, so that a continued run ends with the same weights
as one that was never stopped. It carries a checksum of its content, which is verified when it is read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from autoseg.bundle import weights
from autoseg.device import accelerates, device_name, fetch
from autoseg.errors import AutosegError
from autoseg.files import atomic_path

CHECKPOINT_VERSION = "1"


@dataclass
class Position:
    """Where in the run the next iteration is.

    Attributes:
        member, stage, epoch, iteration: counted from 0.
        loss_sum: of the iterations of this epoch that are done.
        seconds, wait_seconds: spent in this epoch before the interruption.
        best: highest validation Dice of this stage so far, -1 before the first.
        best_epoch: that had it.
    """

    member: int = 0
    stage: int = 0
    epoch: int = 0
    iteration: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    best: float = -1.0
    best_epoch: int = 0


@dataclass
class Checkpoint:
    """What is saved. ``plan_hash`` and ``cases_hash`` tell whether it belongs to the plan and the cases at hand.

    Attributes:
        network: empty before the first step of a training.
        made_on: see :func:`surroundings`.
        start: of a stage that goes on from another model: which, see :func:`autoseg.training.start.load_start`.
    """

    position: Position
    plan_hash: str
    network: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any] = field(default_factory=dict)
    rng_state: torch.Tensor | None = None
    cases_hash: str = ""
    made_on: dict[str, str] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)


def surroundings(
    device: torch.device, dtype: torch.dtype | None, processes: int, workers: int
) -> dict[str, str]:
    """On what sums are rounded: where two trainings differ in it, their weights differ in the last digits.

    Args:
        device, dtype: where and in what networks compute, see :func:`autoseg.device.lower_precision`.
        processes, workers: their numbers.
    """
    on_cpu = {
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return {
        "device": device_name(device),
        "precision": str(dtype or torch.float32).removeprefix("torch."),
        **({} if accelerates(device) else on_cpu),
        "torch": torch.__version__,
        "processes": str(processes),
        "workers": "some" if workers else "none",
    }


def before_first_step(position: Position, plan_hash: str, cases_hash: str) -> Checkpoint:
    """What a training that has learned nothing yet goes on from: its plan, its cases, and the stage to begin with."""
    nothing: dict[str, Any] = {"state": {}, "param_groups": []}
    return Checkpoint(position, plan_hash, network={}, optimiser=nothing, cases_hash=cases_hash)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; the one before stays until it is whole."""
    tensors = {f"network/{name}": value for name, value in checkpoint.network.items()}
    plain: dict[str, Any] = {}
    for index, state in checkpoint.optimiser["state"].items():
        for name, value in state.items():
            key = f"optimiser/{index}/{name}"
            if isinstance(value, torch.Tensor):
                tensors[key] = value
            else:
                plain[key] = value
    if checkpoint.rng_state is not None:
        tensors["rng_state"] = checkpoint.rng_state
    metadata = {
        "version": CHECKPOINT_VERSION,
        "position": json.dumps(asdict(checkpoint.position)),
        "plan_hash": checkpoint.plan_hash,
        "cases_hash": checkpoint.cases_hash,
        "optimiser_groups": json.dumps(checkpoint.optimiser["param_groups"]),
        "optimiser_plain": json.dumps(plain),
        "scaler": json.dumps(checkpoint.scaler),
        "start": json.dumps(checkpoint.start),
        "made_on": json.dumps(checkpoint.made_on),
    }
    tensors = {n: v.contiguous() for n, v in fetch({n: v.detach() for n, v in tensors.items()}).items()}
    metadata["checksum"] = _checksum(tensors, metadata)
    with atomic_path(path) as temporary:
        weights.write_tensors(temporary, tensors, metadata)


def _checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 over all that a checkpoint says: names, types, shapes, bytes, and the metadata."""
    said = sorted(item for item in metadata.items() if item[0] != "checksum")
    found = zlib.crc32(json.dumps(said).encode("utf-8"))
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def has_learned(path: Path) -> bool:
    """Whether a checkpoint holds anything that a new start would lose; a damaged one may."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return any(name.startswith("network/") for name in handle.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return True


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        AutosegError: it is missing, damaged or of another version.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        _verify(tensors, metadata)
        return _assemble(path, metadata, tensors)
    except FileNotFoundError:
        raise AutosegError(
            "there is no checkpoint to continue from",
            where=str(path),
            fix="start the training without --c",
        ) from None
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OSError,
    ) as error:
        raise AutosegError(
            "the checkpoint is damaged",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            expected="a checkpoint written by autoseg_train",
            fix="start this fold again with --overwrite",
        ) from None


def _verify(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Raises ValueError where the content is not what was written. Earlier versions of autoseg left no checksum."""
    expected = metadata.get("checksum")
    if expected is not None and (found := _checksum(tensors, metadata)) != expected:
        raise ValueError(f"its content has the checksum {found}, it was written with {expected}")


def _assemble(path: Path, metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> Checkpoint:
    if metadata.get("version") != CHECKPOINT_VERSION:
        raise AutosegError(
            "the checkpoint is of another version",
            where=str(path),
            found=f"version {metadata.get('version')}",
            expected=f"version {CHECKPOINT_VERSION}",
            fix="continue with the autoseg that wrote it, or start again with --overwrite",
        )
    state: dict[int, dict[str, Any]] = {}
    entries = {n: v for n, v in tensors.items() if n.startswith("optimiser/")}
    for key, value in {**entries, **json.loads(metadata["optimiser_plain"])}.items():
        _, index, name = key.split("/", 2)
        state.setdefault(int(index), {})[name] = value
    return Checkpoint(
        position=_position(metadata["position"]),
        plan_hash=metadata["plan_hash"],
        cases_hash=metadata["cases_hash"],
        network={n.removeprefix("network/"): v for n, v in tensors.items() if n.startswith("network/")},
        optimiser={"state": state, "param_groups": json.loads(metadata["optimiser_groups"])},
        scaler=json.loads(metadata["scaler"]),
        rng_state=tensors.get("rng_state"),
        start=json.loads(metadata.get("start", "{}")),
        made_on=json.loads(metadata.get("made_on", "{}")),
    )


def _position(text: str) -> Position:
    """The position in a checkpoint.

    Raises:
        TypeError: it has other entries, or such that are no numbers.
        ValueError: numbers that count something are negative.
    """
    position = Position(**json.loads(text))
    for name, default in asdict(Position()).items():
        value = getattr(position, name)
        if isinstance(value, bool) or not isinstance(value, (int, type(default))):
            raise TypeError(f"{name} is {value!r:.60}")
        if isinstance(default, int) and value < 0:
            raise ValueError(f"{name} is {value}")
    return position
