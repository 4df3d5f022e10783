"""Weights that the authors of RatLesNetv2 released, or that their code trained, for ``autoseg_import_weights``.

The files are state dicts of torch, without anything around them. The network follows from the names and shapes in the
file: RatLesNetv2 of any width, its ablations, RatLesNet, VoxResNet or the 3D U-Net of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autoseg.errors import AutosegError
from autoseg.networks import ratlesnetv2
from autoseg.plan import Named, Plan, Reason
from autoseg.plugins.trainer import ImportedWeights, WeightsImport

DATASET = "RatLesNet"
CHANNELS, LABELS = ["T2"], {"background": 0, "lesion": 1}
AUTHORS_AXES = (0, 2, 1)
"""The authors' arrays are slices, file axis x, file axis y; in autoseg's order z, y, x the last two change places."""


def recognise(state: Mapping[str, torch.Tensor], where: str) -> ImportedWeights:
    """The network of a state dict.

    Raises:
        AutosegError: none of this family, other tensors than it has, or another number of channels or classes.
    """
    name, arguments = ratlesnetv2.recognise(state, where)
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


def _facts(state: Mapping[str, torch.Tensor]) -> dict[str, int | str]:
    counters = [int(value) for key, value in state.items() if key.endswith("num_batches_tracked")]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(value.numel() for key, value in state.items() if not key.endswith(buffers))
    return {"parameters": parameters, **({"training_steps": max(counters)} if counters else {})}


def plan(network: Named, members: int) -> Plan:
    """The published way from scan to mask around imported weights."""
    from autoseg.planners.ratlesnetv2 import RatLesNetV2Options, build_plan

    options = RatLesNetV2Options(network=_variant(network), width=network.arguments["width"], members=members)
    return build_plan(
        dataset=DATASET,
        fingerprint_hash="imported",
        channel_names=CHANNELS,
        labels=dict(LABELS),
        network=network,
        options=options,
        transpose=AUTHORS_AXES,
        reasons=_reasons(members),
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
