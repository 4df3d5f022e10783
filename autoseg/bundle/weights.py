"""Weight files: safetensors with the facts that they were made from, loaded strictly.

Nothing in a weight file is executed. Parameters that a network reaches under several names (a decoder that
holds its encoder) are stored once, under the first of the names in alphabetical order.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from autoseg import strict_json
from autoseg.bundle.layout import weight_file_name
from autoseg.device import fetch
from autoseg.errors import AutosegError
from autoseg.files import atomic_path
from autoseg.messages import count_of
from autoseg.version import __version__


@dataclass(frozen=True)
class WeightsInfo:
    """What a weight file belongs to; its metadata.

    Attributes:
        network: key of ``Plan.networks``.
        stage: name of the stage that trained it.
        member: counted from 0.
        epoch: how many epochs of the stage were done.
        plan_hash: :func:`autoseg.plan.hash_plan` of the plan; of the whole plan.json where version 1 wrote it.
        autoseg_version: that wrote it.
        facts: what the trainer noted of the training data, such as how many samples of each kind there were.
        start: of weights that were trained on from those of another model: which, see
            :func:`autoseg.training.start.load_start`.
    """

    network: str
    stage: str
    member: int
    epoch: int
    plan_hash: str
    autoseg_version: str
    facts: Mapping[str, int] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
COUNTS = (torch.int64, torch.int32)
"""Types of tensors in weight files: parameters, and what a network counts, such as batches."""

REQUIRED = ("network", "stage", "member", "epoch", "plan_hash", "autoseg_version")


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds; tensors on the CPU by name."""

    info: WeightsInfo
    tensors: dict[str, torch.Tensor]


def plain_name(name: str) -> str:
    """A parameter's name without what ``torch.compile`` and DistributedDataParallel put before it."""
    return name.removeprefix("module.").replace("_orig_mod.", "")


def canonical_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name the first name of the same tensor; tensors that share no memory keep their own."""
    first: dict[object, str] = {}
    canonical: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        identity: object = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        canonical[name] = first.setdefault(identity if tensor.numel() else name, name)
    return canonical


def distinct_tensors(source: nn.Module | Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of the weights on the CPU under plain names, each tensor once: what a weight file holds."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    state = {plain_name(name): tensor.detach() for name, tensor in state.items()}
    canonical = canonical_names(state)
    # the copy also cuts ties between tensors that share a storage
    distinct = {name: tensor for name, tensor in state.items() if canonical[name] == name}
    return {name: tensor.contiguous().clone() for name, tensor in fetch(distinct).items()}


def save(
    path: Path,
    source: nn.Module | Mapping[str, torch.Tensor],
    *,
    network: str,
    stage: str,
    member: int,
    epoch: int,
    plan_hash: str,
    facts: Mapping[str, int] | None = None,
    start: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of a network (or a state dict) atomically.

    Args:
        path: see :func:`autoseg.bundle.layout.weight_file_name`.
        source: the module, also a compiled or distributed one, or its tensors by name.
        network, stage, member, epoch, plan_hash, facts, start: see :class:`WeightsInfo`.

    Raises:
        AutosegError: the file cannot be written.
    """
    metadata = {"network": network, "stage": stage, "member": str(member), "epoch": str(epoch)}
    metadata |= {"plan_hash": plan_hash, "autoseg_version": __version__}
    metadata |= {"facts": json.dumps(dict(facts), sort_keys=True)} if facts else {}
    metadata |= {"start": json.dumps(dict(start), sort_keys=True)} if start else {}
    with atomic_path(path) as temporary:
        write_tensors(temporary, distinct_tensors(source), metadata)
        _sort_header(temporary)


def restamp(path: Path, plan_hash: str) -> None:
    """Say of a weight file that it belongs to another plan, one that would have trained the same weights."""
    file = read(path)
    info = file.info
    save(
        path,
        file.tensors,
        network=info.network,
        stage=info.stage,
        member=info.member,
        epoch=info.epoch,
        plan_hash=plan_hash,
        facts=info.facts,
        start=info.start,
    )


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; within :func:`autoseg.files.atomic_path`, which explains the errors.

    Raises:
        OSError: the disk is full or the folder cannot be written to; safetensors has an error of its own for these.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if (code := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _sort_header(path: Path) -> None:
    """Order the metadata, which safetensors writes in random order: the same weights make the same file."""
    with open(path, "rb+") as handle:
        n_bytes = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(n_bytes))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        if len(text) <= n_bytes:
            handle.seek(8)
            handle.write(text.ljust(n_bytes))


def read_info(path: Path) -> WeightsInfo:
    """The facts of a weight file, from its header alone.

    Raises:
        AutosegError: it is missing, damaged, not written by autoseg, or lies under the name of another.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            info = _info(path, handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    _refuse_other_name(Path(path), info)
    return info


def _refuse_other_name(path: Path, info: WeightsInfo) -> None:
    """A file that is called as the layout wants it is what its name says."""
    if not re.match(r"member\d+\.", path.name):
        return
    names = [
        weight_file_name(info.stage, info.member),
        weight_file_name(info.stage, info.member, best=True),
        weight_file_name(info.stage, info.member, snapshot_epoch=info.epoch),
    ]
    if path.name not in names:
        raise AutosegError(
            "the weight file lies under the name of another",
            where=str(path),
            found=f"weights of member {info.member}, stage {info.stage}, epoch {info.epoch}",
            expected=f"the name {names[0]}, or that of the best weights or of a snapshot",
            fix="put the files of the fold back under their names, or train the fold again with --overwrite",
        )


def _info(path: Path, metadata: dict[str, str]) -> WeightsInfo:
    try:
        values: dict[str, Any] = {name: metadata[name] for name in REQUIRED}
        numbers = {name: int(values[name]) for name in ("member", "epoch")}
        facts = {key: int(value) for key, value in strict_json.parse(metadata.get("facts", "{}")).items()}
        start = dict(strict_json.parse(metadata.get("start", "{}")).items())
        if min(numbers.values()) < 0:
            raise ValueError(f"{numbers} are counted from 0")
        return WeightsInfo(**{**values, **numbers, "facts": facts, "start": start})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise AutosegError(
            "the weight file does not say what it belongs to",
            where=str(path),
            found=f"metadata {sorted(metadata)} ({type(error).__name__}: {error})",
            expected=", ".join(REQUIRED),
            fix="use a file written by autoseg_train",
        ) from None


def read(path: Path, network: str | None = None) -> WeightFile:
    """A whole weight file.

    Args:
        path: of the file.
        network: key of the network that it must be of; None takes any.

    Raises:
        AutosegError: it is missing, damaged, not written by autoseg, of another network or not of finite numbers.
    """
    info = read_info(path)
    if network not in (None, info.network):
        raise AutosegError(
            "the weights are of another network",
            where=str(path),
            found=f"network '{info.network}'",
            expected=f"network '{network}', as the plan has it for stage '{info.stage}'",
            fix="use the plan.json that the weights were trained with",
        )
    try:
        tensors = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    refuse_not_finite(tensors, where=str(path))
    return WeightFile(info, tensors)


def refuse_not_finite(tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Weights are finite numbers.

    Args:
        tensors: by name.
        where: the file, for the message.

    Raises:
        AutosegError: some hold NaN or Inf, or are of a type that no network is trained in.
    """
    others = [f"{n}: {t.dtype}" for n, t in tensors.items() if t.dtype not in (*FLOATS, *COUNTS)]
    if others:
        raise AutosegError(
            "the weights are of a type that is not known",
            where=where,
            found=f"{count_of(len(others), 'tensor')}, such as {others[0]}",
            expected=", ".join(str(kind).removeprefix("torch.") for kind in (*FLOATS, *COUNTS)),
            fix="copy or import the file again",
        )
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AutosegError(
            "the weights hold NaN or Inf",
            where=where,
            found=f"{count_of(len(broken), 'tensor')}, such as {broken[0]}",
            expected="finite numbers",
            fix="copy or import the file again; if it was trained so, train again with a lower learning rate",
        )


def load_network(network: nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Put weights into a network; every difference in names, shapes and kinds is an error that says all of them.

    Args:
        network: it is changed only when everything fits.
        tensors: by name, as of :func:`read`.
        where: the file, for the message.

    Raises:
        AutosegError: something is missing, left over, of another shape, or whole numbers in place of fractions.
    """
    own = {plain_name(name): tensor for name, tensor in network.state_dict().items()}
    canonical = canonical_names(own)
    missing = sorted(name for name in set(canonical.values()) if name not in tensors)
    unknown = sorted(set(tensors) - set(own))
    shapes = [
        f"{name}: {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(tensors))
        if own[name].shape != tensors[name].shape
    ]
    kinds = [
        f"{name}: {tensors[name].dtype} instead of {own[name].dtype}"
        for name in sorted(set(own) & set(tensors))
        if own[name].is_floating_point() != tensors[name].is_floating_point()
    ]
    if missing or unknown or shapes or kinds:
        parts = (
            (missing, "missing"),
            (unknown, "unknown"),
            (shapes, "of another shape"),
            (kinds, "of another kind"),
        )
        raise AutosegError(
            "the weights do not fit the network of the plan",
            where=where,
            found="; ".join(f"{len(p)} {title} (first: {', '.join(p[:3])})" for p, title in parts if p),
            expected=f"{len(set(canonical.values()))} tensors as the plan's network has them",
            fix="use the plan.json that the weights were trained with",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def load_some(network: nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """As :func:`load_network`, for some of the network's tensors; the others stay."""
    own = {plain_name(name): tensor for name, tensor in network.state_dict().items()}
    stay = {name: own[name] for name in canonical_names(own).values()}
    load_network(network, {**stay, **tensors}, where=where)


def _unreadable(path: Path, error: Exception) -> AutosegError:
    if isinstance(error, FileNotFoundError):
        return AutosegError(
            "the weight file is missing",
            where=str(path),
            fix="finish the training, or choose other folds or -chk",
        )
    return AutosegError(
        "the weight file is damaged",
        where=str(path),
        found=f"{type(error).__name__}: {error}",
        expected="a whole safetensors file",
        fix="copy or import it again, or repeat the training of this fold",
    )
