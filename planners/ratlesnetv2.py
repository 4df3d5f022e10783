"""The planner ``ratlesnetv2``: whole T2 scans of rat brains.

Valverde et al., "RatLesNetv2: a fully convolutional network for rodent brain lesion segmentation", Frontiers in
Neuroscience 14:610239 (2020), with its ablations and the networks it was compared with. Grids are left as they are,
the whole image is the patch, three runs vote. Where the paper and the code behind its tables differ, the plan follows
the code and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from autoseg.errors import AutosegError
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    Augmentation,
    Inference,
    Named,
    Normalisation,
    Plan,
    Preprocessing,
    Reason,
    Recipe,
    Sampling,
    Stage,
    Validation,
)
from autoseg.plugins.planner import Budget, Match, Planner

LARGEST_RODENT_MM = 60
"""A field of view of at most this is a rodent's; the published one is 30 mm, a human head needs over 150 mm."""
THICK = 3
"""Slices are thick when they are at least so many times as far apart as the pixels; the published ratio is 8.5."""
DEFAULT_MEMORY_GB = 8.0
BYTES = 4  # float32
WEIGHT_COPIES = 4  # the weights, their gradients and the two moments of Adam
PATCH_STEP = 8  # three poolings
AUGMENTED_LEARNING_RATE = 1e-3
FEW_CASES = 20
"""With fewer cases the plan points to options that help; the published trainings have 36 and 40."""

NetworkName = Literal[
    "ratlesnetv2", "lvl2", "lvl2_sameparams", "densenet", "ratlesnet", "voxresnet", "unet3d"
]


@dataclass(frozen=True)
class Variant:
    """A network of the published comparison.

    Attributes:
        network: as registered, with its arguments.
        width: its first filters as published.
        elements_per_voxel: float32 elements that training one voxel of the image needs at the published width,
            at the peak.
        parameters: weights at the published width.
        saving: share of these that is left with ``checkpointing``; 1 where the network has no such option.
        loss: that it was trained with.
        title: for the plan's reasons.
        normalised: whether it has batch normalisation.
    """

    network: Named
    width: int
    elements_per_voxel: float
    parameters: int
    loss: Named
    title: str
    saving: float = 1.0
    normalised: bool = True


CE_DICE = Named(name="ratlesnetv2")
CE = Named(name="ratlesnetv2", arguments={"dice_weight": 0.0})
SAVING, DENSE_SAVING = 0.64, 0.60
HALF_FIELD, DENSE = {"levels": 2}, {"block": "dense"}

VARIANTS: dict[NetworkName, Variant] = {
    "ratlesnetv2": Variant(
        Named(name="ratlesnetv2"), 32, 777.7, 837_026, CE_DICE, "RatLesNetv2", saving=SAVING
    ),
    "lvl2": Variant(
        Named(name="ratlesnetv2", arguments=HALF_FIELD),
        32,
        767.8,
        557_762,
        CE_DICE,
        "RatLesNetv2 with half the receptive field",
        saving=SAVING,
    ),
    "lvl2_sameparams": Variant(
        Named(name="ratlesnetv2", arguments=HALF_FIELD),
        39,
        934.6,
        828_011,
        CE_DICE,
        "RatLesNetv2 with half the receptive field and as many parameters",
        saving=SAVING,
    ),
    "densenet": Variant(
        Named(name="ratlesnetv2", arguments=DENSE),
        26,
        1345.6,
        859_250,
        CE_DICE,
        "RatLesNetv2 with dense blocks",
        saving=DENSE_SAVING,
    ),
    "ratlesnet": Variant(
        Named(name="ratlesnet"), 12, 768.3, 367_334, CE, "RatLesNet (version 1)", normalised=False
    ),
    "voxresnet": Variant(
        Named(name="voxresnet", arguments={"auxiliary_outputs": True}), 32, 267.7, 1_186_344, CE, "VoxResNet"
    ),
    "unet3d": Variant(Named(name="unet3d"), 32, 1181.0, 19_073_730, CE_DICE, "3D U-Net"),
}
"""Elements and parameters as measured on the published networks with an image of 18 x 256 x 256 voxels; savings on
autoseg's (benchmarks/ratlesnetv2.py)."""


class RatLesNetV2Options(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``; ``--set network=voxresnet`` is short for the first.

    Attributes:
        network: RatLesNetv2, one of its ablations (``lvl2``: half the receptive field; ``lvl2_sameparams``: the same
            with as many parameters; ``densenet``: dense instead of residual blocks) or a network that it was compared
            with.
        width: first filters; the published one when left out.
        learning_rate: of the published training: ``code`` is 1e-4, which made the published tables; ``paper`` is the
            printed 1e-5.
        loss: ``published`` trains each network with its own published loss, ``same`` all with that of RatLesNetv2.
        members: independent runs that vote.
        training: ``published``, or ``augmented`` for few or varied animals: random changes of the images, instance
            normalisation, a learning rate that starts higher and falls, and an average over mirrored images in
            prediction. Ours, not the paper's.
        intensities: ``published``, the z-score of the whole image; or ``corrected``, for surface coils and animals of
            different size: the bias field is divided out (N4), and the z-score is that of the head, without the air
            around it. Ours, not the paper's.
        crop: ``none`` as published, or ``head``: the air around the head is cut off, which is most of some images.
    """

    network: NetworkName = "ratlesnetv2"
    width: int | None = Field(None, ge=1)
    learning_rate: Literal["code", "paper"] = "code"
    loss: Literal["published", "same"] = "published"
    members: int = Field(3, ge=1)
    training: Literal["published", "augmented"] = "published"
    intensities: Literal["published", "corrected"] = "published"
    crop: Literal["none", "head"] = "none"


def match(fingerprint: Fingerprint) -> Match:
    """Made for T2 scans of rodents in thick slices, one channel, one kind of lesion."""
    extent = max(entry.median or 0.0 for entry in fingerprint.summary.extent_mm)
    if extent > LARGEST_RODENT_MM:
        return Match(0.0, f"made for rodents; the images span {extent:.0f} mm")
    if any(isinstance(value, list) for value in fingerprint.labels.values()):
        return Match(0.0, "it has no overlapping regions")
    score, why = 0.5, [f"the size of a rodent's head ({extent:.0f} mm)"]
    if len(fingerprint.channel_names) == 1:
        score += 0.2
        if is_t2(fingerprint.channel_names[0]):
            score += 0.15
            why.append("one T2 channel")
        else:
            why.append(f"one channel, {fingerprint.channel_names[0]} instead of the published T2")
    else:
        why.append(f"{len(fingerprint.channel_names)} channels instead of one")
    ratio = _slice_ratio(fingerprint)
    score += 0.1 if ratio >= THICK else 0.0
    why.append(f"slices {ratio:.1f} times as far apart as the pixels")
    return Match(round(score, 2), ", ".join(why))


def is_t2(channel: str) -> bool:
    """Whether a channel is T2-weighted by its name; T2* and FLAIR are other contrasts."""
    name = channel.casefold()
    return "t2" in name and "*" not in name and "star" not in name and "flair" not in name


def _slice_ratio(fingerprint: Fingerprint) -> float:
    spacing = sorted(entry.median or 1.0 for entry in fingerprint.summary.spacing_mm)
    return spacing[2] / spacing[1]


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
    from autoseg.planners._ratlesnetv2_reasons import reasons

    choice = choose_memory(fingerprint, budget, options)
    return build_plan(
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        network=choice.network,
        options=options,
        patch_size=choice.patch_size,
        transpose=slices_first(fingerprint),
        reasons=reasons(fingerprint, options, choice),
    )


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
    reasons: Sequence[Reason] = (),
) -> Plan:
    """The published way from raw image to mask around a network; also for imported weights.

    Args:
        network: as registered, with its arguments.
        patch_size: empty for whole images.
        transpose: working axis i is file axis ``transpose[i]``.
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
        recipe=_recipe(options, list(patch_size), labels),
        reasons=list(reasons),
    )


def _recipe(options: RatLesNetV2Options, patch: list[int], labels: dict[str, int | list[int]]) -> Recipe:
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
        postprocessing=find_postprocessing(labels),
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


def find_loss(options: RatLesNetV2Options) -> Named:
    """The network's own published loss, or that of RatLesNetv2 for all of them.

    Auxiliary outputs, which VoxResNet alone has, are weighed by the loss as published (0.001 each) in both cases.
    """
    return CE_DICE if options.loss == "same" else VARIANTS[options.network].loss


def find_postprocessing(labels: dict[str, int | list[int]]) -> list[Named]:
    """Islands of fewer than 20 voxels go, then holes are filled; with several labels it is open by which."""
    foreground = [value for name, value in labels.items() if value != 0 and name != "ignore"]
    steps = [Named(name="remove_small_components", arguments={"fewer_than_voxels": 20})]
    if len(foreground) == 1:
        fill = {"fewer_than_voxels": 20, "value": foreground[0]}
        steps.append(Named(name="fill_small_holes", arguments=fill))
    return steps


# ------------------------------------------------------------------------------------------------ what fits


@dataclass(frozen=True)
class RatLesNetV2Choice:
    """What the memory allows.

    Attributes:
        network: with its arguments, also whether activations are computed twice instead of kept.
        patch_size: empty for the whole image.
        memory_gb, budget_gb: estimated, and there.
        largest_shape: of the cases, working axis order.
    """

    network: Named
    patch_size: tuple[int, ...]
    memory_gb: float
    budget_gb: float
    largest_shape: tuple[int, int, int]


def choose_memory(fingerprint: Fingerprint, budget: Budget, options: RatLesNetV2Options) -> RatLesNetV2Choice:
    """Whole images if they fit, then whole images without keeping every activation, then the largest patch.

    Raises:
        AutosegError: no patch fits; a width for a network that has only one.
    """
    variant, budget_gb = VARIANTS[options.network], budget.memory_gb or DEFAULT_MEMORY_GB
    axes = slices_first(fingerprint)
    shapes = np.array([[case.shape[axis] for axis in axes] for case in fingerprint.cases])
    largest = tuple(int(n) for n in shapes[np.argmax(np.prod(shapes, axis=1))])
    for saving in (False, True) if variant.saving < 1 else (False,):
        network = _network(options, saving)
        need = memory_gb(options, int(np.prod(largest)), saving)
        if need <= budget_gb:
            return RatLesNetV2Choice(network, (), need, budget_gb, largest)
    return _largest_patch(network, options, largest, budget_gb, saving)


def _largest_patch(
    network: Named, options: RatLesNetV2Options, largest: tuple[int, ...], budget_gb: float, saving: bool
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
    """Memory of a training step on one image: activations in proportion to its voxels, and the weights."""
    variant = VARIANTS[options.network]
    wider = (options.width or variant.width) / variant.width
    activations = variant.elements_per_voxel * wider * voxels * (variant.saving if saving else 1)
    return (activations + WEIGHT_COPIES * variant.parameters * wider**2) * BYTES / 1e9


def _network(options: RatLesNetV2Options, saving: bool) -> Named:
    variant = VARIANTS[options.network]
    arguments = {**variant.network.arguments, "width": options.width or variant.width}
    if variant.saving < 1:
        arguments["checkpointing"] = saving
    if options.training == "augmented" and variant.normalised:
        arguments["normalisation"] = "instance"
    return Named(name=variant.network.name, arguments=arguments)


def slices_first(fingerprint: Fingerprint) -> tuple[int, int, int]:
    """The file axis across the slices comes first, the others keep their order.

    It is the one with the largest spacing; that of single slices is the one along which no image has a second voxel.
    """
    single = [axis for axis, n in enumerate(fingerprint.summary.shape) if n.max == 1]
    spacing = [entry.median or 1.0 for entry in fingerprint.summary.spacing_mm]
    thick = int(np.argmax(spacing)) if max(spacing) > 1.01 * sorted(spacing)[1] else 0
    across = single[0] if len(single) == 1 else thick
    return (across, *(axis for axis in range(3) if axis != across))  # type: ignore[return-value]


PLANNER = Planner(
    name="ratlesnetv2",
    summary="RatLesNetv2 and the networks it was compared with: whole T2 scans of rodents",
    match=match,
    plan=plan,
    options=RatLesNetV2Options,
)
