"""Weights that the authors of RatLesNetv2 released, or that their code trained, for ``autoseg_import_weights``.

The files are state dicts of torch, without anything around them. The network follows from the names and shapes in the
file: RatLesNetv2 of any width, its ablations, RatLesNet, VoxResNet or the 3D U-Net of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.networks.ratlesnetv2 import LEVELS
from autoseg.plan import Named, Plan, Reason
from autoseg.plugins.parts import ImportedWeights, WeightsImport

DATASET = "RatLesNet"
CHANNELS, LABELS = ["T2"], {"background": 0, "lesion": 1}
AUTHORS_AXES = (0, 2, 1)
"""The authors' arrays are slices, file axis x, file axis y; in autoseg's order z, y, x the last two change places."""


def recognise(state: Mapping[str, torch.Tensor], where: str) -> ImportedWeights:
    """The network of a state dict.

    Raises:
        AutosegError: none of this family, other tensors than it has, or another number of channels or classes.
    """
    name, arguments = recognise_network(state, where)
    channels = {key: arguments.pop(key) for key in ("in_channels", "out_channels")}
    if channels != {"in_channels": len(CHANNELS), "out_channels": len(LABELS)}:
        raise AutosegError(
            f"the weights of this '{name}' are for other channels or classes",
            where=where,
            found="{in_channels} image channels, {out_channels} outputs".format(**channels),
            expected="one image channel (T2), two outputs (background and lesion)",
            fix="train with autoseg_train; several channels were normalised together in the authors' code",
        )
    return ImportedWeights(Named(name=name, arguments=arguments), state, _facts(state))


def recognise_network(state: Mapping[str, torch.Tensor], where: str = "") -> tuple[str, dict[str, Any]]:
    """Which network of the study some weights belong to: its registered name and all its arguments.

    ``networks.build(name, **arguments)`` then takes them by ``load_state_dict``.

    Args:
        state: a state dict as the authors saved it.
        where: the file, for messages.

    Raises:
        AutosegError: not the weights of one of these networks, or not all of them.
    """
    name, arguments = _guess(state, where)
    with torch.device("meta"):
        network = networks.build(name, **arguments)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if found != expected:
        raise AutosegError(
            f"these are not the weights of a '{name}'",
            where=where,
            found=_differences(found, expected),
            expected=f"the {len(expected)} tensors of {name} with {arguments}",
            fix="give the file as the authors released it",
        )
    return name, arguments


def _guess(state: Mapping[str, torch.Tensor], where: str) -> tuple[str, dict[str, Any]]:
    """The network that the telling names and shapes point to."""
    stems = {
        "ratlesnet": ("conv1.conv.0.weight", "bottleneck3.conv.0.weight"),
        "voxresnet": ("seq1.0.weight", "transposed1.bias"),
        "unet3d": ("block1.seq.0.weight", "last.weight"),
        "ratlesnetv2": ("conv1.weight", "bottleneck4.seq.2.weight"),
    }
    for name, (first, last) in stems.items():
        if first in state and last in state and state[first].ndim == 5:
            width, in_channels = state[first].shape[:2]
            arguments: dict[str, Any] = {
                "in_channels": in_channels,
                "out_channels": state[last].shape[0],
                "width": width,
            }
            if name == "ratlesnetv2":
                arguments["levels"] = sum(
                    f"block{i}.seq.{j}.weight" in state for i in LEVELS for j in ("1", "0.1")
                )
                arguments["block"] = "dense" if "block1.seq.0.1.weight" in state else "residual"
            return name, arguments
    raise AutosegError(
        "these are not weights of RatLesNetv2 or of a network that was compared with it",
        where=where,
        found=", ".join(list(state)[:3]) + (", ..." if len(state) > 3 else "") if state else "no tensors",
        expected="the names of " + ", ".join(f"{name} ({first}, ...)" for name, (first, _) in stems.items()),
        fix="give a file of the authors' repository (github.com/jmlipman/RatLesNetv2, trained_models)",
    )


def _differences(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, too much or of another shape, in a line."""
    kinds = {
        "missing": [key for key in expected if key not in found],
        "unknown": [key for key in found if key not in expected],
        "of another shape": [key for key in expected if key in found and found[key] != expected[key]],
    }
    return "; ".join(f"{len(keys)} {kind}, such as {keys[0]}" for kind, keys in kinds.items() if keys)


def _facts(state: Mapping[str, torch.Tensor]) -> dict[str, int | str]:
    counters = [int(value) for key, value in state.items() if key.endswith("num_batches_tracked")]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(value.numel() for key, value in state.items() if not key.endswith(buffers))
    return {"parameters": parameters, **({"training_steps": max(counters)} if counters else {})}


def plan(network: Named, members: int) -> Plan:
    """The published way from scan to mask around imported weights."""
    from autoseg.planners._ratlesnetv2_settings import RatLesNetV2Options
    from autoseg.planners.ratlesnetv2 import build_plan

    options = RatLesNetV2Options(network=_variant(network), width=network.arguments["width"], members=members)
    return build_plan(
        dataset=DATASET,
        fingerprint_hash="imported",
        channel_names=CHANNELS,
        labels=dict(LABELS),
        network=network,
        options=options,
        transpose=AUTHORS_AXES,
        why=_reasons(members),
    )


def _variant(network: Named) -> str:
    """What the planner calls this network."""
    if network.name != "ratlesnetv2":
        return network.name
    if network.arguments["block"] == "dense":
        return "densenet"
    if network.arguments["levels"] == 2:
        return "lvl2_sameparams" if network.arguments["width"] == 39 else "lvl2"
    return "ratlesnetv2"


def _reasons(members: int) -> list[Reason]:
    rows = (
        ("weights", f"{members} imported", "trained by others; where they come from is on the model card"),
        (
            "transpose",
            "z, x, y",
            "the authors' arrays are slices, then file axis x, then y, and a convolution is not symmetric",
        ),
        ("crop, resampling", "none", "as published: whole images, 18 x 256 x 256 at 1 x 0.117 x 0.117 mm"),
        ("normalisation", "z-score over the whole image", "as published, background included"),
        ("fusion", "majority", "as published: masks vote, an even vote is background"),
        ("postprocessing", "islands and holes under 20 voxels", "as published, once, after the vote"),
    )
    return [Reason(what=what, value=value, why=why) for what, value, why in rows]


IMPORT = WeightsImport(recognise=recognise, plan=plan)
