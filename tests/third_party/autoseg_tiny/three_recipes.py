"""The recipes of three papers with their published numbers, each as a plan; the networks are stand-ins.

Where a paper is silent or its authors' code differs, the numbers are those of the project's notes on the paper.
"""

from autoseg.plan import (
    Augmentation,
    Inference,
    MaskRole,
    ModelStart,
    Named,
    Normalisation,
    Plan,
    PostStep,
    Preprocessing,
    Recipe,
    Sampling,
    Stage,
    Validation,
)

ISLES = ["ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"]
BRATS = ["FLAIR", "T1", "T1c", "T2"]
BRATS_LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
LESION = {"background": 0, "lesion": 1}

CROSS_ENTROPY = Named(name="dice_ce", arguments={"dice_weight": 0.0, "deep_supervision": False})
NO_CHANGES = Augmentation(name="none", mirror_axes=())


def plan(dataset, channels, labels, network, preprocessing, recipe):
    return Plan(
        planner="three_papers",
        trainer="three_papers",
        dataset=dataset,
        fingerprint_hash="0" * 64,
        channel_names=channels,
        labels=labels,
        preprocessing=preprocessing,
        networks={"main": network},
        recipe=recipe,
    )


# -------------------------------------------------------------------------------------------------- Brain SegNet


def brainsegnet(dataset="Dataset012_ISLES2017"):
    """ISLES 2017: sub-volumes of 7 x 96 x 96, whole stacks in prediction."""
    recipe = curriculum([7, 96, 96], Inference(patch_size=["whole"] * 3, gaussian=False, mirror_axes=()))
    return plan(dataset, ISLES, LESION, Named(name="tiny_brainsegnet"), data_set_constants(6, None), recipe)


def brainsegnet_brats(dataset="Dataset015_BRATS2015"):
    """BRATS 2015: five classes, intensities divided by their mode, 31 planes at once in prediction."""
    parts = Inference(patch_size=[31, "whole", "whole"], step=1.0, gaussian=False, mirror_axes=())
    recipe = curriculum([12, 128, 128], parts)
    return plan(
        dataset, BRATS, BRATS_LABELS, Named(name="tiny_brainsegnet"), data_set_constants(4, 16.0), recipe
    )


def data_set_constants(channels, bin_width):
    fixed = Normalisation(scheme="fixed", spread="mean_absolute_deviation", divide_by_mode=bin_width)
    return Preprocessing(
        crop_to_nonzero=False, spacing_mm=(None, None, None), normalisation=[fixed] * channels
    )


def curriculum(patch, inference):
    """Nothing, half and three quarters of the samples are augmented; the last stage looks at hard voxels."""
    transforms = [
        Named(name="slice_factor", arguments={"low": 0.8, "high": 1.2}),
        Named(name="quarter_turns"),
        Named(name="scale_planes", arguments={"low": 0.5, "high": 1.2}),
        Named(name="flip", arguments={"axis": 2}),
        Named(name="flip", arguments={"axis": 1}),
    ]

    def stage(name, share, loss, **more):
        return Stage(
            name=name,
            patch_size=patch,
            batch_size=40,
            epochs=500,
            loss=loss,
            optimiser=Named(name="adam", arguments={"lr": 1e-4}),
            schedule=Named(name="constant"),
            sampling=Sampling(name="sub_volumes"),
            augmentation=NO_CHANGES.model_copy(update={"share": share, "transforms": transforms}),
            **more,
        )

    stages = [
        stage("plain", 0.0, CROSS_ENTROPY, keep=False),
        stage("half", 0.5, CROSS_ENTROPY, start="previous", optimiser_state="previous", keep=False),
        stage("focal", 0.75, Named(name="focal", arguments={"gamma": 2.0}), start="previous"),
    ]
    return Recipe(stages=stages, inference=inference)


# ----------------------------------------------------------------------------------------------------- DeepMedic

START = {"model": "three_papers__e1", "fold": "same"}
EXPERIMENTS = {
    "e0": {},
    "e1": {},  # its clones are cases of the dataset
    "e2": {"start": START, "frozen": ["normal.*", "low.*"], "lr": 5e-4, "sampling": "error_maps"},
    "e3": {"start": START, "frozen": ["normal.*", "low.*"], "channel": "rCBV"},
    "e4": {"start": START, "frozen": ["normal.[0-3].*", "low.[0-3].*"], "channel": "rCBV"},
    "e5": {"start": START, "channel": "rCBV"},
}


def deepmedic(experiment, dataset="Dataset013_ISLES2017", maps="error_maps", network=None):
    """One of the experiments E0 to E5; each is a model of its own."""
    says = EXPERIMENTS[experiment]
    network = network or Named(name="tiny_deepmedic", arguments={"layers": 8, "factor": 3})
    lr, sampling = says.get("lr", 1e-3), says.get("sampling", "half_inside_the_mask")
    stage = Stage(
        name="train",
        start=ModelStart(**says["start"]) if "start" in says else "scratch",
        channels=["ADC", "MTT", says.get("channel", "rCBF")],
        patch_size=[9, 9, 9],
        context=[24, 24, 24],
        batch_size=24,
        epochs=35,
        iterations_per_epoch=820,
        loss=CROSS_ENTROPY,
        optimiser=Named(
            name="normalised_rmsprop", arguments={"lr": lr, "rho": 0.9, "eps": 1e-4, "l1": 1e-6, "l2": 1e-4}
        ),
        schedule=Named(name="exponential_with_momentum", arguments={"end_factor": 1e-4 / lr}),
        sampling=Sampling(name=sampling, arguments={"folder": maps} if sampling == "error_maps" else {}),
        augmentation=Augmentation(
            name="none",
            mirror_axes=(),
            transforms=[
                Named(name="flip", arguments={"axis": 2}),
                Named(
                    name="channel_shift_scale", arguments={"shift_deviation": 0.05, "scale_deviation": 0.01}
                ),
            ],
        ),
        frozen=says.get("frozen", []),
    )
    recipe = Recipe(
        stages=[stage],
        fusion=Named(name="mean_probabilities"),
        postprocessing=[PostStep(name="study_decision", arguments={"mode": "fh"}, fit="validation")],
        inference=Inference(
            patch_size=[27, 27, 27],
            context=[24, 24, 24],
            step=1.0,
            gaussian=False,
            mirror_axes=(),
            batch_size=24,
        ),
        validation=Validation(cases=9, every=5),
    )
    return plan(dataset, ISLES, LESION, network, inside_the_brain(), recipe)


def inside_the_brain():
    return Preprocessing(
        crop_to_nonzero=False,
        spacing_mm=(1 / 0.7,) * 3,
        normalisation=[Normalisation(scheme="zscore", inside_mask=True)] * len(ISLES),
        image_order=3,
        label_order=0,
        separate_axis_ratio=1000.0,
        mask=MaskRole(channel="TTP", dilation=1, fill_holes=True),
    )


# ------------------------------------------------------------------------------------------------- 3D-ResU-Net


def resunet(dataset="Dataset016_ATLAS"):
    """Zoom-in on 128 voxels an edge, zoom-out on 144 x 172 x 168 in the file's x, y, z, and its three snapshots."""

    def stage(name, patch, epochs, lr, **more):
        return Stage(
            name=name,
            patch_size=patch,
            batch_size=1,
            epochs=epochs,
            loss=Named(name="bce_dice", arguments={"bce_weight": 0.1, "dice_weight": 0.9}),
            optimiser=Named(name="adam", arguments={"lr": lr, "weight_decay": 1e-4}),
            schedule=Named(name="cosine", arguments={"cycle_epochs": 50}),
            sampling=Sampling(foreground_share=0.0),
            augmentation=NO_CHANGES,
            **more,
        )

    stages = [
        stage("zoom_in", [128, 128, 128], 1200, 1e-3, keep=False),
        stage("zoom_out", [168, 172, 144], 150, 1e-4, start="previous", snapshots=[50, 100, 150]),
    ]
    recipe = Recipe(
        stages=stages,
        fusion=Named(name="mean_probabilities"),
        inference=Inference(patch_size=[168, 172, 144], tiles="centre", gaussian=False, mirror_axes=()),
    )
    preprocessing = Preprocessing(
        crop_to_nonzero=False,
        spacing_mm=(1.0, 1.0, 1.0),
        normalisation=[Normalisation(scheme="none", factor=1 / 255)],
    )
    return plan(dataset, ["T1"], LESION, Named(name="tiny_resunet"), preprocessing, recipe)


PLANS = {
    "brainsegnet": brainsegnet,
    "brainsegnet_brats": brainsegnet_brats,
    **{name: (lambda name=name, **more: deepmedic(name, **more)) for name in EXPERIMENTS},
    "resunet": resunet,
}
"""Name to a function that gives the plan; ``dataset`` is its one argument that all take."""
