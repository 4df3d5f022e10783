"""Plans and amounts of work with round numbers, for tests that work out times by hand."""

from autoseg.plan import Inference, Named, Normalisation, Plan, Preprocessing, Recipe, Stage, Validation
from autoseg.training.estimate import Amounts


def stage(name: str = "train", **changes) -> Stage:
    parts = {
        "name": name,
        "patch_size": [8, 8, 8],
        "batch_size": 2,
        "epochs": 10,
        "iterations_per_epoch": 100,
        "loss": Named(name="dice_ce"),
        "optimiser": Named(name="sgd", arguments={"lr": 0.01}),
        "schedule": Named(name="poly"),
    }
    return Stage(**{**parts, **changes})


def plan(*stages: Stage, every: int = 4, mirror=(), **recipe) -> Plan:
    return Plan(
        planner="unet",
        trainer="unet",
        dataset="Dataset001_A",
        fingerprint_hash="x",
        channel_names=["T2"],
        labels={"background": 0, "lesion": 1},
        preprocessing=Preprocessing(spacing_mm=(1, 1, 1), normalisation=[Normalisation()]),
        networks={"main": Named(name="unet"), "second": Named(name="unet")},
        recipe=Recipe(
            stages=list(stages or [stage()]),
            inference=Inference(patch_size=[8, 8, 8], mirror_axes=mirror),
            validation=Validation(every=every),
            **recipe,
        ),
    )


def amounts(**changes) -> Amounts:
    parts = {
        "validated": {0: 2, 1: 2},
        "scored": 3,
        "fitted": 0,
        "mirrorings": 1,
        "batch_voxels": {0: 1000.0, 1: 500.0},
        "case_voxels": 6000.0,
    }
    return Amounts(**{**parts, **changes})
