"""A second family in a package of its own: two stages, two members, snapshots, majority vote, own steps.

It uses every part of the recipe that autoseg's own ``unet`` does not.
"""

from autoseg.plan import (
    Augmentation,
    Inference,
    Named,
    Normalisation,
    Plan,
    Preprocessing,
    Reason,
    Recipe,
    Stage,
    Validation,
)
from autoseg.plugins.planner import Match, Planner, Verdict


def match(fingerprint):
    small = max(max(case.shape) for case in fingerprint.cases) <= 64
    reason = "made for images of at most 64 voxels an edge"
    return Match(Verdict.MADE_FOR_IT, (reason,)) if small else Match(Verdict.CANNOT, against=(reason,))


def stage(name, **changes):
    parts = {
        "name": name,
        "patch_size": [8, 16, 16],
        "batch_size": 2,
        "epochs": 2,
        "iterations_per_epoch": 4,
        "loss": Named(name="tiny_cross_entropy", arguments={"lesion_weight": 3.0}),
        "optimiser": Named(name="adam", arguments={"lr": 0.01}),
        "schedule": Named(name="constant"),
        "augmentation": Augmentation(name="none"),
    }
    return Stage(**{**parts, **changes})


def plan(fingerprint, budget, options):
    return Plan(
        planner="tiny",
        trainer="tiny",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        preprocessing=Preprocessing(
            spacing_mm=(None, None, None), normalisation=[Normalisation() for _ in fingerprint.channel_names]
        ),
        networks={"main": Named(name="tiny_net", arguments={"width": 4})},
        recipe=Recipe(
            stages=[
                stage("zoom_in", keep=False),
                stage(
                    "zoom_out", start="previous", patch_size=[8, 24, 24], frozen=["first.*"], snapshots=[1]
                ),
            ],
            members=2,
            fusion=Named(name="majority"),
            postprocessing=[
                Named(name="tiny_drop_first_slice"),
                Named(name="remove_small_components", arguments={"fewer_than_voxels": 2}),
            ],
            inference=Inference(patch_size=[]),
            validation=Validation(cases=1, every=2),
        ),
        reasons=[Reason(what="family", value="tiny", why="the images are tiny")],
    )


PLANNER = Planner("tiny", "a tiny two-stage method", match, plan)
