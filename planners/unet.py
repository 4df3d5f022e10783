"""The planner ``unet``: nnU-Net's published rules, for any dataset.

Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z) and, for the presets M, L and XL, 2024 (arXiv 2404.09556); the
rules are those of nnU-Net 2.8.1. The file reads in the order in which decisions are taken: spacing, axis order,
sizes, the configurations 2d, 3d_fullres and 3d_lowres, normalisation, recipe. The words are in ``_unet_reasons``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoseg.errors import AutosegError
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
from autoseg.planners._topology import Blocks, Topology, count_feature_map_elements, find_topology
from autoseg.planners._unet_reasons import reasons, summary_of
from autoseg.planners._unet_settings import (
    ANISOTROPY,
    LOWRES_BELOW,
    LOWRES_MIN_GAIN,
    LOWRES_STEP,
    MASK_NORMALISATION_BELOW,
    MIN_BATCH,
    PRESETS,
    QUICK_FEATURES,
    QUICK_GB,
    QUICK_LEARNING_RATE,
    THICK_AXIS_PERCENTILE,
    Configuration,
    ConfigurationName,
    Decisions,
    UNetOptions,
    UNetPreset,
    WorkingGrid,
)
from autoseg.plugins.planner import Budget, Match, Planner, Verdict


def match(fingerprint: Fingerprint) -> Match:
    """Possible for every dataset: the fall-back where no method was published for such data."""
    return Match(Verdict.POSSIBLE, ("fits any dataset", "the general fall-back"))


def plan(fingerprint: Fingerprint, budget: Budget, options: UNetOptions) -> Plan:
    """Configure the U-Net by nnU-Net's rules.

    Raises:
        AutosegError: the wanted configuration does not exist for these data, or nothing fits the memory.
    """
    decisions = decide(fingerprint, budget, options)
    chosen = decisions.chosen
    full = Plan(
        planner="unet",
        planner_options=options.model_dump(mode="json"),
        trainer="unet",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        regions_class_order=fingerprint.regions_class_order,
        preprocessing=_preprocessing(decisions),
        networks={"main": network_of(chosen)},
        recipe=recipe_of(chosen),
        reasons=reasons(decisions),
        alternatives={name: summary_of(c, decisions) for name, c in decisions.configurations.items()},
    )
    return replan(full, _quick_changes(chosen), QUICK) if budget.quick else full


def _quick_changes(chosen: Configuration) -> dict[str, Any]:
    """A narrow network, and an optimiser that learns in hundreds of steps instead of hundreds of thousands.

    Dice over the batch learns from patches without a lesion too.
    """
    width, widest = QUICK_FEATURES
    return {
        "networks.main.arguments.features_per_stage": [
            min(widest, width * 2**stage) for stage in range(chosen.n_stages)
        ],
        "stages.train.optimiser": {"name": "adam", "arguments": {"lr": QUICK_LEARNING_RATE}},
        "stages.train.loss.arguments.batch_dice": True,
    }


def decide(fingerprint: Fingerprint, budget: Budget, options: UNetOptions) -> Decisions:
    """Work out all configurations and choose one."""
    preset = PRESETS[options.preset]
    target_gb = budget.memory_gb or preset.target_gb
    if budget.quick:
        target_gb = min(target_gb, QUICK_GB)
    geometry = find_geometry(fingerprint, options.target_spacing_mm)
    configurations = find_configurations(geometry, preset, target_gb, fingerprint)
    return Decisions(
        fingerprint=fingerprint,
        options=options,
        target_gb=target_gb,
        geometry=geometry,
        configurations=configurations,
        chosen=_choose(configurations, options.configuration),
        normalisation=find_normalisation(fingerprint),
        quick=budget.quick,
    )


def find_geometry(fingerprint: Fingerprint, target_spacing_mm: Sequence[float] | None) -> WorkingGrid:
    """The spacing of full resolution, the order of the axes and the size of the median case."""
    spacings = np.array([case.spacing_mm for case in fingerprint.cases], np.float64)
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases], np.float64)
    if target_spacing_mm is None:
        target, thick_axis = find_target_spacing(spacings, shapes)
    else:
        target, thick_axis = np.array(target_spacing_mm, np.float64), None
    coarsest = int(np.argmax(target))
    first, second = (axis for axis in range(3) if axis != coarsest)
    transpose = (coarsest, first, second)
    new_shapes = [
        [round(old / new * n) for old, new, n in zip(s, target, shape, strict=True)]
        for s, shape in zip(spacings, shapes, strict=True)
    ]
    median_shape = np.median(new_shapes, axis=0)[list(transpose)]
    return WorkingGrid(
        transpose=transpose,
        spacing_mm=tuple(target[list(transpose)].tolist()),
        median_shape=tuple(median_shape.tolist()),
        thick_axis=thick_axis,
        median_spacing_mm=tuple(np.median(spacings, axis=0).tolist()),
        median_file_shape=tuple(np.median(shapes, axis=0).tolist()),
        dataset_voxels=float(np.prod(median_shape) * len(fingerprint.cases)),
    )


def find_target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The median spacing per axis, except on a thick axis, which keeps nearly its finest.

    Args:
        spacings: ``[cases, 3]`` in mm, file axis order.
        shapes: ``[cases, 3]`` after cropping.

    Returns:
        The spacing, and the thick axis if there is one.
    """
    target, size = np.percentile(spacings, 50, axis=0), np.percentile(shapes, 50, axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    if target[coarsest] <= ANISOTROPY * max(target[others]) or size[coarsest] * ANISOTROPY >= min(
        size[others]
    ):
        return target, None
    finest = float(np.percentile(spacings[:, coarsest], THICK_AXIS_PERCENTILE))
    target[coarsest] = finest if finest >= max(target[others]) else max(target[others]) + 1e-5
    return target, coarsest


def find_configurations(
    geometry: WorkingGrid, preset: UNetPreset, target_gb: float, fingerprint: Fingerprint
) -> dict[str, Configuration]:
    """2d always; 3d_fullres unless the images are single slices; 3d_lowres where the patch sees too little."""
    # with background and ignore, and one for each region, as nnU-Net counts
    n_outputs = len(fingerprint.labels)
    found: dict[str, Configuration] = {}
    spacing, shape = geometry.spacing_mm, geometry.median_shape
    if fits_a_network(spacing[1:], shape[1:]):
        planes = configure(
            "2d", spacing[1:], shape[1:], geometry.dataset_voxels, preset, target_gb, n_outputs
        )
        found["2d"] = replace(planes, batch_dice=True)
    if shape[0] != 1 and fits_a_network(spacing, shape):
        full = configure("3d_fullres", spacing, shape, geometry.dataset_voxels, preset, target_gb, n_outputs)
        low = find_lowres(full, len(fingerprint.cases), preset, target_gb, n_outputs)
        found["3d_fullres"] = replace(full, batch_dice=low is not None)
        if low is not None:
            found["3d_lowres"] = low
    if not found:
        raise AutosegError(
            "the images are too small for a U-Net",
            found=f"a median size of {' x '.join(f'{n:g}' for n in shape)} voxels at the target spacing",
            expected="at least 12 voxels along one axis or 8 along two",
            fix="check the spacing in the image files, or set planner.target_spacing_mm finer",
        )
    return found


def fits_a_network(spacing: Sequence[float], shape: Sequence[float]) -> bool:
    """Whether a median case can be pooled at least once."""
    return find_topology(spacing, shape).n_stages > 1


def configure(
    name: ConfigurationName,
    spacing: Sequence[float],
    median_shape: Sequence[float],
    dataset_voxels: float,
    preset: UNetPreset,
    target_gb: float,
    n_outputs: int,
) -> Configuration:
    """Patch, network and batch for one grid: the largest patch that fits, then as many samples as fit."""
    two_d = len(spacing) == 2
    blocks = Blocks(preset.residual, max_features=512 if two_d else 320)
    reference = (preset.elements_2d if two_d else preset.elements_3d) * target_gb / preset.target_gb
    reference_batch = 12 if two_d else 2
    # ResEnc asks that the reference batch fits, the plain network that a batch of two does.
    largest = reference if preset.residual else reference * reference_batch / MIN_BATCH
    first = find_topology(spacing, first_patch(spacing, median_shape))
    topology = first
    while (elements := count_feature_map_elements(topology, blocks, n_outputs)) > largest:
        topology = _shrink(topology, spacing, median_shape, target_gb)
    fitting = round(reference / elements * reference_batch)
    cap = round(dataset_voxels * preset.largest_share / math.prod(topology.patch_size))
    return Configuration(
        name=name,
        spacing_mm=tuple(spacing),
        median_shape=tuple(median_shape),
        topology=topology,
        blocks=blocks,
        elements=elements,
        reference=reference,
        reference_batch=reference_batch,
        fitting_batch=fitting,
        share_cap=cap,
        batch_size=max(min(fitting, cap), MIN_BATCH),
        batch_dice=False,
        first_patch=first.patch_size,
    )


def first_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    """A patch as cubic in mm as the voxels allow, of 256^3 (2D: 2048^2) voxels, cut to the median case."""
    n_axes = len(spacing)
    voxels = 256**3 if n_axes == 3 else 2048**2
    inverse = 1 / np.array(spacing)
    edges = inverse * (voxels / np.prod(inverse)) ** (1 / n_axes)
    return [min(round(edge), size) for edge, size in zip(edges.tolist(), median_shape, strict=True)]


def _shrink(
    topology: Topology, spacing: Sequence[float], median_shape: Sequence[float], target_gb: float
) -> Topology:
    """The next smaller patch: one step less on the axis that covers most of the median case."""
    patch = list(topology.patch_size)
    covered = [edge / size for edge, size in zip(patch, median_shape, strict=True)]
    axis = max(range(len(patch)), key=lambda a: (covered[a], a))
    trial = list(patch)
    trial[axis] -= topology.divisor[axis]
    # The step itself comes from the smaller patch, which may pool less: 256 goes down by 32, not by 64.
    patch[axis] -= find_topology(spacing, trial).divisor[axis]
    smaller = find_topology(spacing, patch)
    if smaller.n_stages < 2:
        raise AutosegError(
            f"no U-Net fits {target_gb:g} GB",
            expected="about 8 GB; 1 GB is possible with a small patch",
            fix="give -gpu_memory_target a larger number",
        )
    return smaller


def find_lowres(
    full: Configuration, n_cases: int, preset: UNetPreset, target_gb: float, n_outputs: int
) -> Configuration | None:
    """A coarser grid on which the patch sees a quarter of the median case; None where it is not needed."""
    spacing, shape = np.array(full.spacing_mm), np.array(full.median_shape)
    voxels, low = float(np.prod(shape)), None
    patch_voxels = math.prod(full.patch_size)
    while patch_voxels / voxels < LOWRES_BELOW:
        fine = max(spacing) / spacing > 2
        spacing = np.where(fine | (not fine.any()), spacing * LOWRES_STEP, spacing)
        low_shape = full.spacing_mm / spacing * shape
        voxels = float(np.prod(low_shape))
        rounded = [round(n) for n in low_shape.tolist()]
        low = configure(
            "3d_lowres", spacing.tolist(), rounded, voxels * n_cases, preset, target_gb, n_outputs
        )
        patch_voxels = math.prod(low.patch_size)
    gain = float(np.prod(shape)) / voxels
    return low if low is not None and gain >= LOWRES_MIN_GAIN else None


def _choose(configurations: dict[str, Configuration], wanted: str) -> Configuration:
    if wanted == "auto":
        return configurations.get("3d_fullres") or configurations["2d"]
    if wanted not in configurations:
        small = "the images are too small along an axis"
        seen = "on the full grid the patch already sees enough of the median case"
        raise AutosegError(
            f"there is no configuration {wanted} for this dataset",
            found=seen if wanted == "3d_lowres" and "3d_fullres" in configurations else small,
            expected=f"one of {', '.join(configurations)}",
            fix="leave planner.configuration out or set it to one of these",
        )
    return configurations[wanted]


def find_normalisation(fingerprint: Fingerprint) -> list[Normalisation]:
    """The scheme of each channel by its name, as nnU-Net: z-score unless the name says otherwise."""
    schemes = {"ct": "ct", "nonorm": "none", "zscore": "zscore", "rescale_to_0_1": "rescale_0_1"}
    schemes["rgb_to_0_1"] = "rgb_0_1"
    inside = fingerprint.summary.median_relative_size_after_crop < MASK_NORMALISATION_BELOW
    found = []
    for channel, name in enumerate(fingerprint.channel_names):
        scheme = schemes.get(name.casefold(), "zscore")
        statistics = _ct_statistics(fingerprint, channel) if scheme == "ct" else {}
        found.append(
            Normalisation(scheme=scheme, inside_nonzero=inside and scheme == "zscore", statistics=statistics)
        )
    return found


def _ct_statistics(fingerprint: Fingerprint, channel: int) -> dict[str, float]:
    if channel >= len(fingerprint.summary.foreground):
        raise AutosegError(
            "a CT channel is normalised by the intensities inside the lesions, and there are none",
            where=f"channel {channel} ({fingerprint.channel_names[channel]})",
            fix='add masks with lesions, or call the channel "zscore" in dataset.json',
        )
    measured = fingerprint.summary.foreground[channel]
    return measured.model_dump(include={"mean", "std", "percentile_00_5", "percentile_99_5"})


def _preprocessing(decisions: Decisions) -> Preprocessing:
    spacing = decisions.chosen.spacing_mm
    return Preprocessing(
        transpose=decisions.geometry.transpose,
        spacing_mm=spacing if len(spacing) == 3 else (None, *spacing),
        normalisation=decisions.normalisation,
    )


def network_of(configuration: Configuration) -> Named:
    """The network's name and plain arguments."""
    topology, blocks = configuration.topology, configuration.blocks
    n_stages = topology.n_stages
    encoder = "n_blocks_per_stage" if blocks.residual else "n_conv_per_stage"
    arguments: dict[str, Any] = {
        "n_stages": n_stages,
        "features_per_stage": blocks.features(n_stages),
        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
        "strides": [list(stride) for stride in topology.strides],
        encoder: blocks.encoder(n_stages),
        "n_conv_per_stage_decoder": blocks.decoder(n_stages),
        "deep_supervision": True,
    }
    return Named(name="unet_resenc" if blocks.residual else "unet", arguments=arguments)


def recipe_of(configuration: Configuration) -> Recipe:
    """nnU-Net's fixed recipe around the patch and the batch that were found."""
    patch = list(configuration.patch_size)
    axes = tuple(range(3 - len(patch), 3))  # working axes: a plane has y and x
    stage = Stage(
        name="train",
        patch_size=patch,
        batch_size=configuration.batch_size,
        epochs=1000,
        iterations_per_epoch=250,
        loss=Named(
            name="dice_ce", arguments={"batch_dice": configuration.batch_dice, "deep_supervision": True}
        ),
        optimiser=Named(
            name="sgd", arguments={"lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
        ),
        schedule=Named(name="poly", arguments={"exponent": 0.9}),
        gradient_clip=12,
        sampling=Sampling(foreground_share=0.33),
        augmentation=Augmentation(name="nnunet", mirror_axes=axes),
    )
    return Recipe(
        stages=[stage],
        fusion=Named(name="mean_logits"),
        inference=Inference(patch_size=patch, step=0.5, gaussian=True, mirror_axes=axes),
        validation=Validation(cases=4, every=1),
    )


PLANNER = Planner(
    name="unet",
    summary="nnU-Net's published rules: a U-Net for any dataset; the general fall-back and the baseline",
    match=match,
    plan=plan,
    options=UNetOptions,
)
