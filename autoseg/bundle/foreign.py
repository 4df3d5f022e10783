"""Weights that others trained become a model: read without running code, recognised by a trainer, written as a bundle.

A file of torch is a pickle, and a pickle can run code when it is opened. Here only torch's own reader for weights opens
it (``weights_only=True``), which knows tensors and containers and refuses everything else; other pickles are not opened
at all. The result holds safetensors and JSON, like every model.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg import messages, plugins
from autoseg.bundle import weights
from autoseg.bundle.card import Imported, ImportedFile, ModelCard, write_model_card
from autoseg.bundle.layout import CARD, PREDICTING_NETWORK, weight_file_name
from autoseg.bundle.networks import build_network
from autoseg.bundle.transfer import DAMAGED, export_bundle
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import half_made_folder, hash_file, read_json, replace_folder, write_error, write_json
from autoseg.messages import count_of
from autoseg.names import refuse_bad_name
from autoseg.plan import Plan, hash_plan
from autoseg.plugins.parts import ImportedWeights
from autoseg.plugins.trainer import Trainer

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch before 1.6 begin: a pickled number that means torch."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"

FOLD = "all"
NO_LICENCE = "not stated; ask those who trained the weights"


@dataclass(frozen=True)
class ForeignFile:
    """One file, read and recognised; ``tensors`` of its weights are on the CPU."""

    path: Path
    sha256: str
    trainer: Trainer
    weights: ImportedWeights


def import_weights(
    files: Sequence[Path], output: Path, *, licence: str = NO_LICENCE, overwrite: bool = False
) -> ModelCard:
    """Make a model of weights that others trained; several files become members of an ensemble.

    Args:
        files: in the order of the members.
        output: a model folder, or a zip where the name ends in ``.zip``.
        licence: of the weights, for the model card.
        overwrite: replace an earlier import.

    Returns:
        The card of the model.

    Raises:
        AutosegError: a file is not torch's, is damaged, would run code, or holds no weights that an installed
            trainer knows; the output is taken or cannot be written.
        FaultsError: the files hold different networks, or one of them is given twice.
    """
    _check_output(output, overwrite)
    sources = [read_source(path) for path in files]
    _refuse_mixture(sources)
    name = output.name.removesuffix(".zip")
    try:
        with half_made_folder(output) as temporary:
            folder = temporary / name
            card = _write_model(folder, sources, licence)
            if output.suffix == ".zip":
                return export_bundle(folder, output, overwrite=overwrite)
            replace_folder(folder, output)
            return card
    except OSError as error:
        raise write_error(output, error) from error


def _check_output(output: Path, overwrite: bool) -> None:
    refuse_bad_name("model", output.name.removesuffix(".zip"), fix="choose another name with -o")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise AutosegError(
            "the output is there already",
            where=str(output),
            fix="choose another name with -o, or replace it with --overwrite",
        )
    if output.is_dir() and not _was_imported(output):
        raise AutosegError(
            "the folder holds something that is not an imported model, which is never overwritten",
            where=str(output),
            fix="choose another name with -o",
        )


def _was_imported(folder: Path) -> bool:
    content = read_json(folder / CARD) if (folder / CARD).is_file() else None
    return isinstance(content, dict) and bool(content.get("imported"))


# ---------------------------------------------------------------------------------------------------- reading


def read_source(path: Path) -> ForeignFile:
    """Read a file and ask the installed trainers whose weights these are.

    Raises:
        AutosegError: see :func:`import_weights`.
    """
    state = read_state(path)
    trainer, recognised = recognise(state, str(path))
    return ForeignFile(path, hash_file(path), trainer, recognised)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that ``torch.save`` wrote from a state dict, by name, on the CPU.

    Raises:
        AutosegError: it is missing, not torch's, truncated, would run code, or holds something else than tensors.
    """
    _refuse_other_files(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise _unreadable(path, error) from None
    return _checked_state(content, path)


def _refuse_other_files(path: Path) -> None:
    """Only what begins as a file of torch is given to torch."""
    if not path.is_file():
        raise AutosegError("there is no such file", where=str(path), fix="check the path")
    with open(path, "rb") as handle:
        start = handle.read(len(LEGACY_TORCH))
    if start == LEGACY_TORCH:
        return
    if start.startswith(ZIP):
        _refuse_other_zips(path)
        return
    if not start:
        problem, found = "the file is empty", "0 bytes"
    elif LEGACY_TORCH.startswith(start):
        problem, found = "the file is truncated", count_of(len(start), "byte")
    elif start.startswith(PICKLE):
        problem = "is a pickle without weights of torch, and was not opened: a pickle can run code"
        found = f"it starts with {start[:8]!r}"
    else:
        problem, found = "is not a file of torch", f"it starts with {start[:8]!r}"
    raise AutosegError(
        problem,
        where=str(path),
        found=found,
        expected="a state dict written by torch.save",
        fix="give the file with the weights, or download it again",
    )


def _refuse_other_zips(path: Path) -> None:
    """torch.save writes zips too, with the pickle as ``data.pkl``; a damaged zip is left to torch's own reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (*DAMAGED, OSError):
        return
    if "constants.pkl" in names:
        problem, fix = "is a TorchScript program, which runs code", "give the state dict of the network alone"
    elif CARD in names:
        problem, fix = "is a model of autoseg already", "use autoseg_predict -m, or autoseg_import"
    elif "data.pkl" not in names:
        problem, fix = "is a zip file, but not one of torch", "give the file with the weights"
    elif unpacked > path.stat().st_size:  # torch stores; what is packed may be made to fill the memory
        problem, fix = f"claims {unpacked} bytes in a file of {path.stat().st_size}", "do not use this file"
    else:
        return
    found, expected = ", ".join(sorted(names)[:4]), "a state dict written by torch.save"
    raise AutosegError(problem, where=str(path), found=found, expected=expected, fix=fix)


def _unreadable(path: Path, error: Exception) -> AutosegError:
    """Torch's error, translated."""
    text = str(error)
    called = re.search(r"GLOBAL `?([A-Za-z_][\w.]*)", text)
    if called:
        return AutosegError(
            "holds more than weights: to open it would run code, so it was not opened",
            where=str(path),
            found=f"a call of {called[1]}",
            expected="tensors by name, as torch.save(network.state_dict(), file) writes them",
            fix="do not use this file; ask its sender for the state dict alone",
        )
    reason = text.split("\n")[0].split(". This is")[0] if "Weights only" not in text else "no whole pickle"
    return AutosegError(
        "the file is truncated or damaged",
        where=str(path),
        found=f"{path.stat().st_size} bytes; {type(error).__name__}: {reason or 'it ends too early'}",
        expected="a whole state dict written by torch.save",
        fix="download or copy it again",
    )


def _checked_state(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The content as plain tensors by name.

    Raises:
        AutosegError: it is something else, such as a checkpoint around the weights, or holds NaN or Inf.
    """
    expected, fix = "a state dict: tensors by name", "save network.state_dict() alone and give that file"
    if not isinstance(content, Mapping) or not content:
        raise AutosegError(
            "holds no weights", where=str(path), found=type(content).__name__, expected=expected, fix=fix
        )
    others = [str(name) for name, value in content.items() if not _is_plain_tensor(name, value)]
    if others:
        of = f"of {len(content)} entries"
        some = count_of(len(others), f"{of} is no plain tensor", f"{of} are no plain tensors")
        found = f"{some}, such as {', '.join(others[:3])}"
        raise AutosegError("is no plain state dict", where=str(path), found=found, expected=expected, fix=fix)
    if claimed := [name for name, value in content.items() if _claims_more_than_it_has(value)]:
        raise AutosegError(
            "tensors claim more numbers than the file has",
            where=str(path),
            found=f"{claimed[0]} of shape {tuple(content[claimed[0]].shape)}",
            expected="every number in the file",
            fix="do not use this file",
        )
    weights.refuse_not_finite(content, where=str(path))
    return dict(content)


def _claims_more_than_it_has(tensor: torch.Tensor) -> bool:
    """Whether numbers are shown several times, which a file of a few bytes could do without end."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _is_plain_tensor(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized and not value.is_complex()


# ------------------------------------------------------------------------------------------------ recognition


def recognise(state: Mapping[str, torch.Tensor], where: str) -> tuple[Trainer, ImportedWeights]:
    """The first installed trainer that knows these weights.

    Raises:
        AutosegError: none does; with the reasons of all that take weights from elsewhere.
    """
    reasons: dict[str, Fault] = {}
    for name in plugins.names(plugins.TRAINERS):
        try:
            trainer: Trainer = plugins.load(plugins.TRAINERS, name)
        except AutosegError as error:
            messages.warn(str(error))  # a broken plug-in costs only itself
            continue
        if trainer.import_weights is None:
            continue
        try:
            return trainer, trainer.import_weights.recognise(state, where)
        except AutosegError as error:
            reasons[name] = error.fault
    if len(reasons) == 1:
        fault = next(iter(reasons.values()))
        raise AutosegError(
            fault.problem, where=fault.where, found=fault.found, expected=fault.expected, fix=fault.fix
        )
    if reasons:
        faults = [Fault(name, f.problem, f.found, f.expected, f.fix) for name, f in reasons.items()]
        raise FaultsError(f"{where}: no installed trainer knows these weights", faults)
    raise AutosegError("no installed trainer takes weights from elsewhere", where=where, fix="install one")


def _refuse_mixture(sources: Sequence[ForeignFile]) -> None:
    """An ensemble has one network, and every file once.

    Raises:
        FaultsError: with one fault for each file that differs from the first or is there twice.
    """
    first, faults = sources[0], []
    seen: dict[str, ForeignFile] = {}
    for source in sources:
        other = seen.setdefault(source.sha256, source)
        if other is not source:
            faults.append(
                Fault(
                    str(source.path), "the same weights twice", f"those of {other.path}", "", "give each once"
                )
            )
        ours, theirs = _network(source), _network(first)
        if ours != theirs:
            fix = "import each network into a bundle of its own"
            faults.append(Fault(str(source.path), "another network than the first file's", ours, theirs, fix))
    if faults:
        raise FaultsError(f"these {len(sources)} files are not one ensemble", faults)
    if len(sources) % 2 == 0:
        messages.warn(f"{len(sources)} members can vote evenly; an even vote is background")


def _network(source: ForeignFile) -> str:
    """A network in words."""
    spec = source.weights.network
    return ", ".join([spec.name, *(f"{key} {value}" for key, value in spec.arguments.items())])


# ---------------------------------------------------------------------------------------------------- writing


def _write_model(folder: Path, sources: Sequence[ForeignFile], licence: str) -> ModelCard:
    """The model folder: plan, dataset.json, weights as fold ``all``, card."""
    trainer, spec = sources[0].trainer, sources[0].weights.network
    if trainer.import_weights is None:
        raise AutosegError(f"the trainer '{trainer.name}' takes no weights from elsewhere")
    plan = trainer.import_weights.plan(spec, len(sources))
    _refuse_misfits(trainer, plan, sources)
    write_json(folder / "plan.json", plan)
    write_json(folder / "dataset.json", _dataset_json(plan))
    stage = plan.recipe.stages[-1]
    for member, source in enumerate(sources):
        weights.save(
            folder / f"fold_{FOLD}" / "weights" / weight_file_name(stage.name, member),
            source.weights.tensors,
            network=PREDICTING_NETWORK,
            stage=stage.name,
            member=member,
            epoch=0,  # not known
            plan_hash=hash_plan(plan),
        )
    files = [
        ImportedFile(member=i, name=s.path.name, sha256=s.sha256, facts=dict(s.weights.facts))
        for i, s in enumerate(sources)
    ]
    return write_model_card(folder, Imported(licence=licence, files=files))


def _refuse_misfits(trainer: Trainer, plan: Plan, sources: Sequence[ForeignFile]) -> None:
    """Try every file in the network of the plan, strictly, before anything is written."""
    network = build_network(plan, PREDICTING_NETWORK, trainer).module
    for source in sources:
        weights.load_network(network, source.weights.tensors, where=str(source.path))


def _dataset_json(plan: Plan) -> dict[str, Any]:
    """What the weights were trained on, as far as it is known."""
    content = {
        "channel_names": {str(i): name for i, name in enumerate(plan.channel_names)},
        "labels": plan.labels,
        "numTraining": 1,  # not known, and it has to be a number
        "file_ending": ".nii.gz",
        "description": "training data of imported weights; not part of this model",
    }
    return {
        **content,
        **({"regions_class_order": plan.regions_class_order} if plan.regions_class_order else {}),
    }
