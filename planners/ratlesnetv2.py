"""The planner ``ratlesnetv2``: whole T2 scans of rat brains.

Valverde et al., "RatLesNetv2: a fully convolutional network for rodent brain lesion segmentation", Frontiers in
Neuroscience 14:610239 (2020), with its ablations and the networks it was compared with. Grids are left as they are,
the whole image is the patch, three runs vote. Where the paper and the code behind its tables differ, the plan follows
the code and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evidence.facts import Evidence
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    QUICK,
    Augmentation,
    Inference,
    Named,
    Normalisation,
    Plan,
    PostStep,
    Preprocessing,
    Reason,
    Recipe,
    Sampling,
    Stage,
    Validation,
    replan,
)
from autoseg.planners._memory import DEFAULT_MEMORY_GB
from autoseg.planners._ratlesnetv2_reasons import reasons
from autoseg.planners._ratlesnetv2_settings import (
    AUGMENTED_LEARNING_RATE,
    COST,
    COST_OF_CHANNELS,
    PATCH_STEP,
    PUBLISHED_VOXEL_MM3,
    QUICK_BATCHES,
    QUICK_LEARNING_RATE,
    QUICK_WIDTH,
    SMALL_VOXELS,
    THICK,
    VARIANTS,
    RatLesNetV2Choice,
    RatLesNetV2Options,
    find_loss,
    is_other_grid,
)
from autoseg.plugins.planner import Budget, Match, Planner, Verdict


def match(fingerprint: Fingerprint) -> Match:
    """Made for T2 scans of rodents in thick slices, one channel, one kind of lesion."""
    evidence = Evidence(fingerprint)
    extent, ratio, n_classes = evidence.extent_mm, evidence.slice_ratio, len(evidence.classes)
    if not evidence.is_rodent:
        return Match(Verdict.CANNOT, against=(f"made for rodents; the images span {extent:.0f} mm",))
    if evidence.has_regions:
        return Match(Verdict.CANNOT, against=("it has no overlapping regions",))
    channels, cost = _other_channels(evidence)
    apart = f"slices {ratio:.1f} times as far apart as the pixels"
    size, is_thick = f"the size of a rodent's head ({extent:.0f} mm)", ratio >= THICK
    return Match.weighed(
        [size, *["one T2 channel"] * (not channels), *[apart] * is_thick],
        [
            (channels, cost),
            ("" if is_thick else apart, COST),
            ("" if n_classes == 1 else f"{n_classes} labels instead of one kind of lesion", COST),
        ],
        doubts=_doubts(evidence),
    )


def _other_channels(evidence: Evidence) -> tuple[str, float]:
    """How the channels differ from one T2 channel, empty where they do not; and what that costs."""
    says, names = evidence.only_channel("T2"), evidence.channels
    if says == "several":
        return f"{len(names)} channels instead of one", COST_OF_CHANNELS
    if says == "silent":
        return f"{names[0]} does not say that it is T2", COST
    return ("", 0.0) if says == "it" else (f"one channel, {names[0]} instead of the published T2", 2 * COST)


def _doubts(evidence: Evidence) -> tuple[str, ...]:
    """A scan of a rodent that is no T2 may be a scan of a person in a wrong unit."""
    if evidence.only_channel("T2") == "other":
        return (
            f"{evidence.channels[0]} of this size: a rodent, or a person with a wrong unit of the spacing?",
        )
    return evidence.doubts_of_name("T2")


def plan(fingerprint: Fingerprint, budget: Budget, options: RatLesNetV2Options) -> Plan:
    """Configure the network for a dataset.

    Raises:
        AutosegError: overlapping regions, options that contradict each other, a width that the network does not have,
            not even one slice fits.
    """
    if options.training == "augmented" and options.learning_rate == "paper":
        raise AutosegError(
            "learning_rate=paper belongs to the published training",
            where=fingerprint.dataset,
            found="training=augmented",
            fix="leave one of them out, or set stages.train.optimiser.arguments",
        )
    if any(isinstance(value, list) for value in fingerprint.labels.values()):
        raise AutosegError(
            "ratlesnetv2 has no overlapping regions",
            where=fingerprint.dataset,
            found="regions in dataset.json",
            expected="one value for each label",
            fix="use the planner unet, or give each label one value",
        )
    if budget.quick:
        options = options.model_copy(update={"width": options.width or QUICK_WIDTH})
    choice = choose_memory(fingerprint, budget, options)
    full = build_plan(
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        network=choice.network,
        options=options,
        patch_size=choice.patch_size,
        transpose=fingerprint.summary.slices_first,
        other_grid=is_other_grid(fingerprint),
        why=reasons(fingerprint, options, choice, match(fingerprint)),
    )
    changes = {
        "networks.main.arguments.width": options.width,
        "optimiser.arguments.lr": QUICK_LEARNING_RATE,
        "iterations_per_epoch": QUICK_BATCHES,
    }
    return replan(full, changes, QUICK) if budget.quick else full


def build_plan(
    *,
    dataset: str,
    fingerprint_hash: str,
    channel_names: Sequence[str],
    labels: dict[str, int | list[int]],
    network: Named,
    options: RatLesNetV2Options,
    patch_size: Sequence[int] = (),
    transpose: tuple[int, int, int] = (0, 1, 2),
    other_grid: bool = False,
    why: Sequence[Reason] = (),
) -> Plan:
    """The published way from raw image to mask around a network; also for imported weights.

    Args:
        network: as registered, with its arguments.
        patch_size: empty for whole images.
        transpose: working axis i is file axis ``transpose[i]``.
        other_grid: whether the voxels have another size than the published ones.
        why: for each decision.
    """
    return Plan(
        planner="ratlesnetv2",
        planner_options=options.model_dump(mode="json"),
        trainer="ratlesnetv2",
        dataset=dataset,
        fingerprint_hash=fingerprint_hash,
        channel_names=list(channel_names),
        labels=labels,
        preprocessing=Preprocessing(
            transpose=transpose,
            crop_to_nonzero=False,
            crop_to_object=options.crop == "head",
            spacing_mm=(None, None, None),
            normalisation=[find_normalisation(options) for _ in channel_names],
        ),
        networks={"main": network},
        recipe=_recipe(options, list(patch_size), labels, other_grid),
        reasons=list(why),
    )


def _recipe(
    options: RatLesNetV2Options, patch: list[int], labels: dict[str, int | list[int]], other_grid: bool
) -> Recipe:
    """The training of the paper, where it differs from the scripts behind its tables that of the scripts."""
    augmented = options.training == "augmented"
    mirrored = (0, 1, 2) if augmented else ()
    augmentation = Augmentation(name="none", mirror_axes=())
    if augmented:  # the slices are thick, whatever the first image's shape says
        augmentation = Augmentation(name="nnunet", mirror_axes=mirrored, arguments={"in_plane": True})
    stage = Stage(
        name="train",
        patch_size=patch,
        batch_size=1,
        epochs=700,
        iterations_per_epoch=None,
        loss=find_loss(options),
        optimiser=Named(name="adam", arguments={"lr": find_learning_rate(options)}),
        schedule=Named(name="poly" if augmented else "constant"),
        sampling=Sampling(foreground_share=0.0 if not patch else 0.5),
        augmentation=augmentation,
    )
    return Recipe(
        stages=[stage],
        members=options.members,
        fusion=Named(name="majority"),
        postprocessing=find_postprocessing(options, labels, other_grid),
        inference=Inference(patch_size=patch, mirror_axes=mirrored),
        validation=Validation(cases=4, every=10),
        precision="float32",
    )


def find_normalisation(options: RatLesNetV2Options) -> Normalisation:
    """Of each channel."""
    if options.intensities == "corrected":
        return Normalisation(scheme="zscore_object", bias_correction="n4")
    return Normalisation(scheme="zscore")


def find_learning_rate(options: RatLesNetV2Options) -> float:
    """Of Adam; the published rates are for a training without schedule."""
    if options.training == "augmented":
        return AUGMENTED_LEARNING_RATE
    return 1e-4 if options.learning_rate == "code" else 1e-5


def find_postprocessing(
    options: RatLesNetV2Options, labels: dict[str, int | list[int]], other_grid: bool
) -> list[PostStep]:
    """Small islands go, then holes are filled; with several labels it is open by which."""
    foreground = [value for name, value in labels.items() if value != 0 and name != "ignore"]
    size: dict[str, Any] = {"fewer_than_voxels": SMALL_VOXELS}
    if options.component_size == "mm3" or (options.component_size == "measured" and other_grid):
        size["voxel_mm3"] = PUBLISHED_VOXEL_MM3
    fit: Literal["train", "none"] = "train" if options.component_size == "measured" else "none"
    steps = [PostStep(name="remove_small_components", arguments=size, fit=fit)]
    if len(foreground) == 1:
        steps.append(PostStep(name="fill_small_holes", arguments={**size, "value": foreground[0]}, fit=fit))
    return steps


def choose_memory(fingerprint: Fingerprint, budget: Budget, options: RatLesNetV2Options) -> RatLesNetV2Choice:
    """Whole images if they fit, then whole images without keeping every activation, then the largest patch.

    Raises:
        AutosegError: no patch fits; a width for a network that has only one.
    """
    variant, budget_gb = VARIANTS[options.network], budget.memory_gb or DEFAULT_MEMORY_GB
    axes = fingerprint.summary.slices_first
    shapes = np.array([[case.shape[axis] for axis in axes] for case in fingerprint.cases])
    slices, rows, columns = shapes[np.argmax(np.prod(shapes, axis=1))].tolist()
    largest = (slices, rows, columns)
    for saving in (False, True) if variant.saving < 1 else (False,):
        network = _network(options, saving)
        need = memory_gb(options, int(np.prod(largest)), saving)
        if need <= budget_gb:
            return RatLesNetV2Choice(network, (), need, budget_gb, largest)
    return _largest_patch(network, options, largest, budget_gb, saving)


def _largest_patch(
    network: Named, options: RatLesNetV2Options, largest: tuple[int, int, int], budget_gb: float, saving: bool
) -> RatLesNetV2Choice:
    """All slices as long as they fit, and the largest square of pixels."""
    slices, *plane = largest
    edge = max(plane) // PATCH_STEP * PATCH_STEP
    while edge >= 4 * PATCH_STEP:
        patch = (slices, *(min(edge, n) for n in plane))
        need = memory_gb(options, int(np.prod(patch)), saving)
        if need <= budget_gb:
            return RatLesNetV2Choice(network, patch, need, budget_gb, largest)
        edge -= PATCH_STEP
    raise AutosegError(
        f"{options.network} does not fit the memory",
        found=f"{budget_gb:g} GB",
        expected=f"at least {need:.2g} GB, for {slices} slices of {edge + PATCH_STEP} pixels",
        fix="give -gpu_memory_target a larger number",
    )


def memory_gb(options: RatLesNetV2Options, voxels: int, saving: bool) -> float:
    """Memory of a training step on one image of so many voxels."""
    variant = VARIANTS[options.network]
    return variant.cost.gb(voxels, options.width or variant.width, variant.saving if saving else 1)


def _network(options: RatLesNetV2Options, saving: bool) -> Named:
    variant = VARIANTS[options.network]
    arguments = {**variant.network.arguments, "width": options.width or variant.width}
    if variant.saving < 1:
        arguments["checkpointing"] = saving
    if options.training == "augmented" and variant.normalised:
        arguments["normalisation"] = "instance"
    return Named(name=variant.network.name, arguments=arguments)


PLANNER = Planner(
    name="ratlesnetv2",
    summary="RatLesNetv2 and the networks it was compared with: whole T2 scans of rodents",
    match=match,
    plan=plan,
    options=RatLesNetV2Options,
)
