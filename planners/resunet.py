"""The planner ``resunet``: chronic stroke on T1, first on small crops (zoom-in), then on large ones (zoom-out).

Tomita, Jiang, Maeder, Hassanpour, "Automatic post-stroke lesion segmentation on MR images using 3D residual
convolutional neural network", NeuroImage: Clinical 27:102276 (2020). Where the paper and its authors' code differ, the
plan's reasons say which of them it follows; docs/families/resunet.md has the list.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evidence.contrasts import contrast_of
from autoseg.evidence.facts import Evidence
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    QUICK,
    Augmentation,
    Inference,
    Named,
    Normalisation,
    Plan,
    Preprocessing,
    Recipe,
    Sampling,
    Stage,
    Validation,
    replan,
)
from autoseg.planners._memory import BYTES, DEFAULT_MEMORY_GB
from autoseg.planners._resunet_reasons import reasons
from autoseg.planners._resunet_settings import (
    ATLAS_SHAPE,
    COARSEST_MM,
    COST,
    COST_OF_GRID,
    COST_OF_KIND,
    CROP_STEP,
    CROPS,
    CYCLE_EPOCHS,
    EPOCHS,
    HEAD_MM,
    LEARNING_RATES,
    NOT_DONE,
    PREDICTION_ELEMENTS,
    PUBLISHED_MAXIMUM,
    QUICK_CROPS,
    QUICK_GB,
    QUICK_WIDTH,
    SAVING,
    SHARES,
    SILENT_COST,
    SMALLEST_CROP,
    SPACING_MM,
    THIN,
    TILE_ELEMENTS,
    WEIGHT_DECAY,
    WIDTH,
    Intensities,
    ResUNetChoice,
    ResUNetOptions,
)
from autoseg.plugins.planner import Budget, Match, Planner

Shape = tuple[int, int, int]

# ------------------------------------------------------------------------------------------------ whether it fits


def match(fingerprint: Fingerprint) -> Match:
    """Made for one T1 channel of human heads in voxels that are nearly cubes, with one kind of lesion."""
    evidence, (low, high) = Evidence(fingerprint), HEAD_MM
    extent, ratio, n_classes = evidence.extent_mm, evidence.anisotropy, len(evidence.classes)
    size = f"a field of view of {extent:.0f} mm (a human head: {low} to {high} mm)"
    size = "" if low <= extent <= high else size
    thick = "" if ratio < THIN else f"slices {ratio:.1f} times as far apart as pixels"
    labels = "" if n_classes == 1 else f"{n_classes} labels instead of one kind of lesion"
    channels, cost = _other_channels(evidence)
    return Match.weighed(
        (f"one {'' if channels else 'T1 '}channel of human heads ({extent:.0f} mm)", "voxels that are cubes"),
        [(channels, cost), (size, COST_OF_KIND), (thick, COST_OF_GRID), (labels, COST_OF_KIND)],
        made_for="made for one T1 channel of human heads in cubic voxels",
        doubts=evidence.doubts_of_name("T1") if not size and not labels else (),
    )


def is_t1(channel: str) -> bool:
    """Whether a channel is T1-weighted without contrast agent, by its name."""
    return contrast_of(channel) == "T1"


def _other_channels(evidence: Evidence) -> tuple[str, float]:
    """How the channels differ from one T1 channel, empty where they do not; and what that costs."""
    says, names, against = evidence.only_channel("T1"), evidence.channels, not evidence.lesions_as_in("T1")
    dark = ", with bright lesions instead of dark ones" if against else ""
    if says == "several":
        return f"{len(names)} channels ({', '.join(names)}) instead of one", COST_OF_KIND
    if says == "silent":
        return f"{names[0]} does not say that it is T1{dark}", COST_OF_KIND if against else SILENT_COST
    return ("", 0.0) if says == "it" else (f"{names[0]} instead of T1{dark}", COST_OF_GRID)


# ------------------------------------------------------------------------------------------------ the plan


def plan(fingerprint: Fingerprint, budget: Budget, options: ResUNetOptions) -> Plan:
    """Configure the method for a dataset.

    Raises:
        AutosegError: images that are too small for the network, or memory for the smallest crop.
    """
    if budget.quick:
        options = options.model_copy(update={"width": min(options.width, QUICK_WIDTH)})
        budget = replace(budget, memory_gb=min(budget.memory_gb or QUICK_GB, QUICK_GB))
    choice = decide(fingerprint, budget, options)
    full = _full_plan(fingerprint, options, choice)
    return _quick_plan(full, options) if budget.quick else full


def _quick_plan(full: Plan, options: ResUNetOptions) -> Plan:
    changes: dict[str, Any] = {
        "networks.main.arguments.width": options.width,
        "iterations_per_epoch": QUICK_CROPS,
        "schedule.arguments": {},  # the rate falls to 0 within the few epochs
    }
    return replan(full, changes, QUICK)


def _full_plan(fingerprint: Fingerprint, options: ResUNetOptions, choice: ResUNetChoice) -> Plan:
    network = {
        "width": options.width,
        "background_logit": not any(isinstance(value, list) for value in fingerprint.labels.values()),
        "checkpointing": choice.saving,
    }
    return Plan(
        planner="resunet",
        planner_options=options.model_dump(mode="json"),
        trainer="resunet",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        regions_class_order=fingerprint.regions_class_order,
        preprocessing=Preprocessing(
            crop_to_nonzero=False,
            spacing_mm=choice.spacing_mm,
            normalisation=[NORMALISATIONS[name] for name in choice.intensities],
        ),
        networks={"main": Named(name="resunet", arguments=network)},
        recipe=_recipe(options, choice),
        reasons=reasons(fingerprint, options, choice, match(fingerprint)),
    )


NORMALISATIONS: dict[Intensities, Normalisation] = {
    "divide_by_255": Normalisation(scheme="none", factor=1 / 255, expected_maximum=PUBLISHED_MAXIMUM),
    "rescale": Normalisation(scheme="rescale_0_1"),
    "zscore": Normalisation(scheme="zscore", inside_nonzero=True),
}


def _recipe(options: ResUNetOptions, choice: ResUNetChoice) -> Recipe:
    stages = [_stage(name, choice, options) for name in choice.crops]
    for stage in stages[1:]:
        stage.start = "previous"
    for stage in stages[:-1]:
        stage.keep = False
    if options.variant == "ensemble":
        stages[-1].snapshots = list(range(CYCLE_EPOCHS, stages[-1].epochs + 1, CYCLE_EPOCHS))
    elif options.variant == "full":
        stages[-1].save_every = CYCLE_EPOCHS  # so that a prediction can be that of the ensemble
    return Recipe(
        stages=stages,
        fusion=Named(name="mean_probabilities"),
        inference=Inference(
            patch_size=_tile(stages[-1].name, choice),
            tiles="centre" if choice.inference == "centre" else "cover",
            gaussian=choice.inference == "window",
            mirror_axes=(),
        ),
        validation=Validation(cases=4, every=10, view=options.validation),
        precision="float32",
    )


def _tile(stage: str, choice: ResUNetChoice) -> list[int]:
    """What is predicted at once. In the middle it is the large crop for small crops alone too: the paper's Table 5
    compares the two (that it does so on this crop is assumed)."""
    if choice.inference == "whole":
        return []
    if choice.inference == "centre" and stage == "zoom_in":
        return list(wanted_crop("zoom_out", choice.shape))
    return list(choice.crops[stage])


def _stage(name: str, choice: ResUNetChoice, options: ResUNetOptions) -> Stage:
    from_scratch = name == next(iter(choice.crops))
    kind = "zoom_in" if from_scratch else name  # large crops alone are trained as long as the small ones
    return Stage(
        name=name,
        patch_size=list(choice.crops[name]),
        batch_size=1,
        epochs=EPOCHS[kind],
        loss=Named(name="resunet"),
        optimiser=Named(name="adam", arguments={"lr": LEARNING_RATES[kind], "weight_decay": WEIGHT_DECAY}),
        schedule=Named(name="cosine", arguments={"cycle_epochs": CYCLE_EPOCHS}),
        sampling=Sampling(foreground_share=options.foreground_share, nonzero_share=options.rejection),
        augmentation=_augmentation(options),
    )


def _augmentation(options: ResUNetOptions) -> Augmentation:
    """None as published, or nnU-Net's rotation without all else that it does."""
    if not options.rotation:
        return Augmentation(name="none", mirror_axes=())
    arguments = {"rotation_degrees": [-options.rotation, options.rotation], **dict.fromkeys(NOT_DONE, 0.0)}
    return Augmentation(name="nnunet", mirror_axes=(), arguments=arguments)


# ------------------------------------------------------------------------------------------------ what fits


def decide(fingerprint: Fingerprint, budget: Budget, options: ResUNetOptions) -> ResUNetChoice:
    """Grid, crops and prediction.

    Raises:
        AutosegError: see :func:`plan`; an edge of small crops for a training without them.
    """
    spacing_mm, shape = working_grid(fingerprint)
    if options.variant == "large_only" and options.zoom_in is not None:
        raise AutosegError(
            "planner.zoom_in and planner.variant=large_only do not go together",
            found=f"planner.zoom_in={options.zoom_in}",
            expected="a training that has small crops",
            fix="leave one of the two out",
        )
    names = {"zoom_in": ["zoom_in"], "large_only": ["zoom_out"]}.get(options.variant, ["zoom_in", "zoom_out"])
    wanted = {name: wanted_crop(name, shape) for name in names}
    if options.zoom_in is not None and "zoom_in" in wanted:
        z, y, x = (min(options.zoom_in, n) for n in shape)
        wanted["zoom_in"] = (z, y, x)
    budget_gb = budget.memory_gb or DEFAULT_MEMORY_GB
    crops, saving = fitting(wanted, budget_gb, options.width)
    return ResUNetChoice(
        spacing_mm=spacing_mm,
        shape=shape,
        crops=crops,
        saving=saving,
        memory_gb=max(memory_gb(crop, options.width, saving) for crop in crops.values()),
        budget_gb=budget_gb,
        prediction_gb=prediction_gb(shape, options.width),
        shrunk={name: wanted[name] for name in names if wanted[name] != crops[name]},
        inference="window" if options.inference == "auto" else options.inference,
        intensities=tuple(
            _intensities(fingerprint, i, options) for i in range(len(fingerprint.channel_names))
        ),
        unlike=tuple(
            {name for i in range(len(fingerprint.channel_names)) for name in unlike_published(fingerprint, i)}
        ),
    )


def working_grid(fingerprint: Fingerprint) -> tuple[tuple[float | None, float | None, float | None], Shape]:
    """Spacing and the shape of the median case: 1 mm for human heads, else, and if they are coarse, their own grids."""
    summary = fingerprint.summary
    shape = [entry.median or 1.0 for entry in summary.shape]
    extent = [entry.median or 0.0 for entry in summary.extent_mm]
    coarse = min(entry.median or 0.0 for entry in summary.spacing_mm) > COARSEST_MM
    if coarse or not HEAD_MM[0] <= max(extent) <= HEAD_MM[1]:
        z, y, x = (round(n) for n in shape)
        return (None, None, None), (z, y, x)
    z, y, x = (max(1, round(mm / SPACING_MM)) for mm in extent)
    return (SPACING_MM, SPACING_MM, SPACING_MM), (z, y, x)


def wanted_crop(name: str, shape: Shape) -> Shape:
    """The published crop on the published grid; on others the same share of the volume.

    Small crops are cubes as far as the axes go, large ones have the proportions of the volume.
    """
    if shape == ATLAS_SHAPE:
        return CROPS[name]
    voxels = SHARES[name] * float(np.prod(shape))
    if name == "zoom_out":
        scale = SHARES[name] ** (1 / 3)
        return _rounded([n * scale for n in shape], shape)
    return _rounded(_cube(voxels, shape), shape)


def _cube(voxels: float, shape: Shape) -> list[float]:
    """Edges of a cube of so many voxels; an axis that is shorter is taken whole and the others grow."""
    edges, left = [0.0, 0.0, 0.0], voxels
    for n_free, axis in zip((3, 2, 1), sorted(range(3), key=lambda axis: shape[axis]), strict=True):
        edges[axis] = min(left ** (1 / n_free), shape[axis])
        left /= edges[axis]
    return edges


def _rounded(edges: list[float], shape: Shape) -> Shape:
    """To multiples of 4, within the image but for the 8 voxels that the network needs."""
    rounded = (round(edge / CROP_STEP) * CROP_STEP for edge in edges)
    z, y, x = (max(SMALLEST_CROP, min(edge, n)) for edge, n in zip(rounded, shape, strict=True))
    return z, y, x


def fitting(wanted: dict[str, Shape], budget_gb: float, width: int) -> tuple[dict[str, Shape], bool]:
    """The crops, smaller where they do not fit the memory, and whether activations are computed twice.

    Raises:
        AutosegError: not even the smallest crop fits.
    """
    for saving in (False, True):
        if all(memory_gb(crop, width, saving) <= budget_gb for crop in wanted.values()):
            return dict(wanted), saving
    return {name: _smaller(crop, budget_gb, width) for name, crop in wanted.items()}, True


def _smaller(crop: Shape, budget_gb: float, width: int) -> Shape:
    """The largest crop of about the same proportions that fits."""
    for percent in range(100, 0, -1):
        found = _rounded([n * percent / 100 for n in crop], crop)
        if memory_gb(found, width, saving=True) <= budget_gb:
            return found
    raise AutosegError(
        "3D-ResU-Net does not fit the memory",
        found=f"{budget_gb:g} GB",
        expected=f"at least {memory_gb((SMALLEST_CROP,) * 3, width, saving=True):.2g} GB",
        fix="give -gpu_memory_target a larger number, or --set planner.width=16",
    )


def memory_gb(crop: Shape, width: int, saving: bool) -> float:
    """Memory of a training step on one crop."""
    return COST.gb(int(np.prod(crop)), width, SAVING if saving else 1)


def prediction_gb(shape: Shape, width: int) -> float:
    """Memory of predicting a whole volume at once."""
    elements = PREDICTION_ELEMENTS * width / WIDTH + TILE_ELEMENTS
    return elements * float(np.prod(shape)) * BYTES / 1e9


def _intensities(fingerprint: Fingerprint, channel: int, options: ResUNetOptions) -> Intensities:
    """Where most scans are of 0 to 255 as published; else they are brought to 0 to 1, as the first ReLU and the raw
    shortcut expect."""
    if options.intensities != "auto":
        return options.intensities
    n_unlike = len(unlike_published(fingerprint, channel))
    return "divide_by_255" if 2 * n_unlike < len(fingerprint.cases) else "rescale"


def unlike_published(fingerprint: Fingerprint, channel: int) -> list[str]:
    """Names of the scans that are not of 0 to 255."""
    entry = NORMALISATIONS["divide_by_255"]
    seen = {case.name: (case.everywhere or case.brain)[channel] for case in fingerprint.cases}
    return [name for name, found in seen.items() if not entry.expects(found.min, found.max)]


PLANNER = Planner(
    name="resunet",
    summary="3D-ResU-Net with zoom-in and zoom-out: chronic stroke on T1",
    match=match,
    plan=plan,
    options=ResUNetOptions,
)
