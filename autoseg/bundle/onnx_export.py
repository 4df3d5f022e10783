"""The way to other programs: every network of a model as ONNX, and one JSON file that says all that is around it.

A folder holds ``FOLD.MEMBER....onnx`` for each weight file, and ``onnx_model.json``: channels, labels, preprocessing,
tiles, fusion and post-processing as the plan has them, numbers that folds have measured, and for each network its input
and a check. The check is a few logits of an input of seeded random numbers, so that whoever runs the file elsewhere,
or :func:`check_onnx`, sees at once whether it gives what autoseg gives.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from autoseg import messages, plugins
from autoseg.bundle.layout import NORMALISATION, PREDICTING_NETWORK, WeightsKind
from autoseg.bundle.networks import build_network, load, network_row
from autoseg.bundle.opening import Model, open_model
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import (
    ExactModel,
    half_made_folder,
    hash_file,
    read_json,
    read_version,
    replace_folder,
    write_json,
)
from autoseg.messages import count_of
from autoseg.names import Name
from autoseg.plan import Plan, hash_plan
from autoseg.plugins.trainer import Trainer
from autoseg.version import __version__

FILE_NAME = "onnx_model.json"
VERSION = 1
CHECKED = 64
"""So many logits of each network are kept for the check."""
TOLERANCE = 1e-4
"""Logits of another program agree when they are no further apart, relative to the largest."""
WHOLE_IMAGE = 64
"""Edge in voxels of the check's input, about, where a network sees whole images."""
AGAIN = 'pip install onnx onnxscript onnxruntime, or "autoseg-lesion[onnx]"'


class OnnxCheck(ExactModel):
    """What a network says to known numbers.

    Attributes:
        seed: of ``numpy.random.default_rng(seed).standard_normal(shape, dtype=float32)``, the input.
        shape: of the input, with the batch.
        places: flat indices into the logits.
        logits: there.
    """

    seed: int
    shape: list[int]
    places: list[int]
    logits: list[float]


class OnnxNetwork(ExactModel):
    """One ONNX file.

    Attributes:
        file: its name.
        sha256: of its bytes.
        network: key in the plan; ``main`` predicts, others serve post-processing.
        weights: the weight file that it was made from.
        fold: of the weights.
        channels: of the image, in the order of the input; a network for post-processing may take more after them.
        input: names of the axes of the input ``image``; with a number where an edge is fixed.
        context: voxels by which the output ``logits`` is shorter at each end of each axis.
        check: see there.
    """

    file: Name
    sha256: str
    network: str
    weights: str
    fold: str
    channels: list[str]
    input: list[str]
    context: list[int]
    check: OnnxCheck


class OnnxModel(ExactModel):
    """onnx_model.json.

    Attributes:
        dataset, model, plan_hash: what was exported.
        describes: the parts of dataset.json and of the plan that a program needs, as they stand there.
        normalisation: of each fold the constants of channels with the scheme ``fixed``.
        learned: for each fold what steps of its post-processing have learned.
        networks: one for each weight file.
    """

    version: Literal[1] = 1
    autoseg_version: str
    dataset: str
    model: str
    plan_hash: str
    describes: dict[str, Any]
    normalisation: dict[str, Any]
    learned: list[dict[str, dict[str, float]]]
    networks: list[OnnxNetwork]


# ------------------------------------------------------------------------------------------------------ export


def export_onnx(
    folder: Path,
    target: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: WeightsKind = "final",
    *,
    overwrite: bool = False,
) -> OnnxModel:
    """Write the networks of a model folder as ONNX.

    Args:
        folder: of the model.
        target: the folder to make.
        folds: None takes every finished fold.
        checkpoint: which weights.
        overwrite: replace an earlier export, never anything else.

    Raises:
        AutosegError: onnx is not installed, the model is incomplete, or the folder is there.
    """
    _refuse_missing("onnx", "onnxscript")
    if target.exists() and not (overwrite and (target / FILE_NAME).is_file()) and any(target.iterdir()):
        raise AutosegError(
            "the folder is there already",
            where=str(target),
            fix="choose another with -o, or replace an earlier export with --overwrite",
        )
    model = open_model(folder, folds, checkpoint)
    trainer: Trainer = plugins.load(plugins.TRAINERS, model.plan.trainer)
    with half_made_folder(target) as temporary:
        made = (
            temporary / "onnx"
        )  # the temporary folder itself is closed to others, and so would the export be
        made.mkdir()
        networks = [_export(model, trainer, made, *what) for what in _weight_files(model)]
        described = _describe(model, networks)
        write_json(made / FILE_NAME, described)
        replace_folder(made, target)
    return described


def _weight_files(model: Model) -> list[tuple[str, str, Path]]:
    """Fold, key of the network, and path, each file once."""
    found: dict[Path, tuple[str, str]] = {}
    for member in model.members:
        found.setdefault(member.main, (member.fold, PREDICTING_NETWORK))
        for key, path in member.companions.items():
            found.setdefault(path, (member.fold, key))
    return [(fold, key, path) for path, (fold, key) in found.items()]


def _export(model: Model, trainer: Trainer, folder: Path, fold: str, key: str, path: Path) -> OnnxNetwork:
    """One network as a file of the folder."""
    plan = model.plan
    network = load(build_network(plan, key, trainer), path, key=key)
    patch, context = _input_of(plan, key)
    n_channels = network_row(plan, key, trainer).channels(len(plan.channels_of(key)), **network.arguments)
    batch = _batch(network.takes.divisor, n_channels, patch, context)
    name = f"fold_{fold}.{path.name.removesuffix('.safetensors')}.{key}.onnx"
    messages.info(f"exporting {name}")
    logits = to_onnx(network.module, batch, folder / name, fixed=bool(patch))
    places = np.linspace(0, logits.size - 1, min(CHECKED, logits.size)).astype(int)
    axes = ["y", "x"] if batch.ndim == 4 else ["z", "y", "x"]
    edges = [f"{axis} = {n}" if patch else axis for axis, n in zip(axes, batch.shape[2:], strict=True)]
    return OnnxNetwork(
        file=name,
        sha256=hash_file(folder / name),
        network=key,
        weights=path.relative_to(model.folder).as_posix(),
        fold=fold,
        channels=[plan.channel_names[index] for index in plan.channels_of(key)],
        input=["batch", f"channel = {batch.shape[1]}", *edges],
        context=list(context),
        check=OnnxCheck(
            seed=0,
            shape=list(batch.shape),
            places=places.tolist(),
            logits=logits.ravel()[places].astype(float).tolist(),
        ),
    )


def _input_of(plan: Plan, key: str) -> tuple[list[int], list[int]]:
    """Tile and context of a network; an empty tile is a whole image, or one along any axis."""
    if key == PREDICTING_NETWORK:
        patch, context = plan.recipe.inference.patch_size, plan.recipe.inference.context
    else:
        stage = next(stage for stage in reversed(plan.recipe.stages) if stage.network == key)
        patch, context = stage.patch_size, stage.context
    sizes = [edge for edge in patch if isinstance(edge, int)]
    return (sizes if len(sizes) == len(patch) else []), list(context)


def _batch(
    divisor: Sequence[int], n_channels: int, patch: Sequence[int], context: Sequence[int]
) -> torch.Tensor:
    """The input of the check: two of them, so that the batch is seen to be free."""
    edges = list(patch) or [WHOLE_IMAGE] * len(divisor)
    divisor = divisor[-len(edges) :]
    around = (list(context) or [0] * len(edges))[-len(edges) :]
    space = [-(-edge // d) * d + 2 * c for edge, d, c in zip(edges, divisor, around, strict=True)]
    return check_input(0, [2, n_channels, *space])


def check_input(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """The random numbers of a check."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))


def to_onnx(network: torch.nn.Module, batch: torch.Tensor, path: Path, *, fixed: bool = True) -> np.ndarray:
    """Write a network as one ONNX file with the input ``image`` and the output ``logits``.

    Args:
        network: on the CPU; it is put into evaluation mode.
        batch: ``[b, c, z, y, x]`` or ``[b, c, y, x]``, two or more of them; the number of the batch stays free.
        path: of the file.
        fixed: the edges of the input stay as they are; else they are free, in steps that the network takes.

    Returns:
        The logits that torch gives for the batch.

    Raises:
        AutosegError: the network has something that ONNX has no word for.
    """
    network.eval()
    free = [0] if fixed else [0, *range(2, batch.ndim)]
    shapes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        output = network(batch)
    logits = output[0] if isinstance(output, (list, tuple)) else output
    try:
        with _quiet():
            torch.onnx.export(
                network,
                (batch,),
                str(path),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=(shapes,),
                external_data=False,
                dynamo=True,
            )
    except Exception as error:  # exporters raise whatever they meet
        raise AutosegError(
            f"the network {type(network).__name__} cannot become ONNX",
            where=path.name,
            found=" ".join(str(error).split())[:200],
            fix="report this with the plan",
        ) from error
    return logits.numpy()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints of its steps."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _describe(model: Model, networks: list[OnnxNetwork]) -> OnnxModel:
    plan = model.plan
    recipe = plan.recipe
    constants = {fold: model.folder / f"fold_{fold}" / NORMALISATION for fold in model.folds}
    return OnnxModel(
        autoseg_version=__version__,
        dataset=plan.dataset,
        model=model.folder.resolve().name,
        plan_hash=hash_plan(plan),
        describes={
            "channel_names": plan.channel_names,
            "labels": model.info.labels,
            "regions_class_order": model.info.regions_class_order,
            "preprocessing": plan.preprocessing.model_dump(mode="json"),
            "inference": recipe.inference.model_dump(mode="json"),
            "fusion": recipe.model_dump(mode="json")["fusion"],
            "postprocessing": recipe.model_dump(mode="json")["postprocessing"],
            "words": "docs/formats/plan_json.md and docs/preprocessing.md of autoseg explain each",
        },
        normalisation={fold: read_json(path) for fold, path in constants.items() if path.is_file()},
        learned=[{name: step.learned for name, step in fold.items()} for fold in model.fitted],
        networks=networks,
    )


# ------------------------------------------------------------------------------------------------------- check


def check_onnx(folder: Path) -> dict[str, float]:
    """Hold every network of an export against its check.

    Args:
        folder: of :func:`export_onnx`.

    Returns:
        File to the largest difference of its logits, relative to the largest of them (or to 1).

    Raises:
        AutosegError: onnxruntime is not installed; the folder is no export.
        FaultsError: files that are missing, changed or give other logits.
    """
    _refuse_missing("onnxruntime")
    described = read_version(
        folder / FILE_NAME, OnnxModel, VERSION, what="the export is", made_by="autoseg_export --onnx"
    )
    apart, faults = {}, []
    for network in described.networks:
        path, fix = folder / network.file, "export it again"
        if not path.is_file() or hash_file(path) != network.sha256:
            found = "another SHA-256" if path.is_file() else "no such file"
            faults.append(
                Fault(network.file, "is not the file that was exported", found, network.sha256[:12], fix)
            )
            continue
        apart[network.file] = _apart(path, network.check)
        if not apart[network.file] <= TOLERANCE:
            faults.append(
                Fault(
                    network.file,
                    "gives other logits",
                    f"{apart[network.file]:.2g}",
                    f"at most {TOLERANCE:g}",
                    fix,
                )
            )
    if faults:
        raise FaultsError(
            f"{folder}: {count_of(len(faults), 'network')} of {len(described.networks)}", faults
        )
    return apart


def _apart(path: Path, check: OnnxCheck) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits, *_) = session.run(None, {"image": check_input(check.seed, check.shape).numpy()})
    expected = np.array(check.logits)
    found = logits.ravel()[check.places]
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _refuse_missing(*modules: str) -> None:
    import importlib.util

    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise AutosegError(f"ONNX needs {' and '.join(missing)}, which is not installed", fix=AGAIN)
