"""A model folder made by hand: a pointwise network whose mask is ``image > threshold``, one threshold per fold."""

import torch

from autoseg import networks
from autoseg.bundle import weights
from autoseg.bundle.card import write_model_card
from autoseg.bundle.layout import weight_file_name
from autoseg.files import write_json
from autoseg.plan import Inference, Named, Normalisation, Plan, Preprocessing, Recipe, Stage, hash_plan
from autoseg.plugins.parts import NetworkPart


def pointwise(in_channels, out_channels):
    """Logits from the first channel alone, voxel by voxel."""
    return torch.nn.Conv3d(in_channels, out_channels, 1)


networks.REGISTRY._own["test_pointwise"] = NetworkPart("test_pointwise", pointwise)


def make_plan(channels=("T2",), patch=(8, 8, 8), spacing_mm=(None, None, None), **recipe):
    stage = Stage(
        name="train",
        patch_size=list(patch) or [8, 8, 8],
        batch_size=2,
        epochs=3,
        loss=Named(name="dice_ce"),
        optimiser=Named(name="sgd"),
        schedule=Named(name="poly"),
    )
    return Plan(
        planner="unet",
        trainer="unet",
        dataset="Dataset900_Tiny",
        fingerprint_hash="f" * 64,
        channel_names=list(channels),
        labels={"background": 0, "lesion": 1},
        preprocessing=Preprocessing(
            spacing_mm=spacing_mm,
            crop_to_nonzero=True,
            normalisation=[Normalisation(scheme="none") for _ in channels],
        ),
        networks={"main": Named(name="test_pointwise")},
        recipe=Recipe(**{"stages": [stage], "inference": Inference(patch_size=list(patch)), **recipe}),
    )


def threshold_network(n_channels, threshold, steepness=4.0):
    """Background logit 0, lesion logit ``steepness * (image - threshold)``."""
    network = pointwise(n_channels, 2)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[1, 0] = steepness
        network.bias.copy_(torch.tensor([0.0, -steepness * threshold]))
    return network


def write_weights(path, network, plan, **changes):
    facts = {"network": "main", "stage": "train", "member": 0, "epoch": 3, "plan_hash": hash_plan(plan)}
    weights.save(path, network, **{**facts, **changes})


def make_model(results, thresholds=(0.5,), plan=None, file_ending=".nii.gz", folds=None, **more):
    """Write ``results/Dataset900_Tiny/unet__tiny`` with one fold for each threshold."""
    plan = plan or make_plan()
    folder = results / plan.dataset / "unet__tiny"
    write_json(folder / "plan.json", plan)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(i): name for i, name in enumerate(plan.channel_names)},
            "labels": plan.labels,
            "numTraining": 4,
            "file_ending": file_ending,
            "licence": "CC0",
            **more,
        },
    )
    for fold, threshold in zip(folds or range(len(thresholds)), thresholds, strict=True):
        place = folder / f"fold_{fold}"
        network = threshold_network(plan.in_channels, threshold)
        write_weights(place / "weights" / weight_file_name("train"), network, plan)
        write_json(
            place / "fold.json",
            {"validation_cases": ["a", "b"], "validation": {"lesion": {"dice": 0.5}}},
        )
    write_model_card(folder)
    return folder
