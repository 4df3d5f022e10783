"""Why the planner ``unet`` decided as it did, in words that a researcher can check against the data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from autoseg import messages
from autoseg.messages import count_of
from autoseg.plan import QUICK, Reason
from autoseg.planners._unet_settings import PRESETS, QUICK_FEATURES, Configuration, Decisions

AXES = "zyx"
SMALL_HALF_SHARE = 0.1
"""Sampling by voxel is called into question when the smaller half of the lesions holds less of the volume."""


def reasons(d: Decisions) -> list[Reason]:
    """One reason for each decision, then notes about the background and the lesions."""
    return [
        _configuration(d),
        _preset(d),
        _transpose(d),
        _crop(d),
        _spacing(d),
        _normalisation(d),
        Reason(
            what="preprocessing.image_order",
            value="cubic images, label-wise linear masks",
            why="nnU-Net's rule; across slices more than 3 times as thick as the pixels, nearest neighbour",
        ),
        _network(d.chosen),
        _patch(d),
        _batch(d),
        _memory(d),
        _loss(d),
        *_fixed_recipe(),
        *_background_note(d),
        *_lesion_notes(d),
    ]


def summary_of(configuration: Configuration, d: Decisions) -> dict[str, Any]:
    """A configuration in short, for ``Plan.alternatives``."""
    return {
        "chosen": configuration is d.chosen,
        "spacing_mm": list(configuration.spacing_mm),
        "median_shape": list(configuration.median_shape),
        "patch_size": list(configuration.patch_size),
        "batch_size": configuration.batch_size,
        "batch_dice": configuration.batch_dice,
        "n_stages": configuration.n_stages,
        "memory_gb_estimate": round(configuration.memory_gb(d.target_gb), 1),
    }


def _times(numbers: Iterable[float], digits: int = 0) -> str:
    return " x ".join(f"{n:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{n:.0f}" for n in numbers)


def _configuration(d: Decisions) -> Reason:
    shape, low = d.geometry.median_shape, d.configurations.get("3d_lowres")
    if d.options.configuration != "auto":
        why = "set by planner.configuration"
    elif d.chosen.name == "2d":
        why = f"the images are too thin for three dimensions: {_times(shape)} voxels in the median case"
    else:
        n = len(d.fingerprint.cases)
        volumes = "the image is a volume" if n == 1 else f"the {n} images are volumes"
        why = f"{volumes}, {_times(shape)} voxels in the median case"
        why += "; 3d_lowres exists as well, because the patch sees little of the image" if low else ""
        why += "; planner.configuration takes another"
    return Reason(what="configuration", value=d.chosen.name, why=why)


def _preset(d: Decisions) -> Reason:
    preset = PRESETS[d.options.preset]
    kind = f"ResEnc {d.options.preset}" if preset.residual else "plain U-Net"
    if d.target_gb == preset.target_gb:
        why = f"the preset's own target of {preset.target_gb:g} GB; -gpu_memory_target changes it"
    elif d.quick:
        why = f"{QUICK}: its patch is small; else {preset.target_gb:g} GB"
    else:
        why = f"as asked for, instead of the preset's own {preset.target_gb:g} GB"
    return Reason(what="preset", value=f"{kind} for a device of {d.target_gb:g} GB", why=why)


def _transpose(d: Decisions) -> Reason:
    names = [AXES[axis] for axis in d.geometry.transpose]
    mm = d.geometry.spacing_mm
    equal = max(mm) == min(mm)
    coarse = f"{names[0]} is the coarsest axis ({mm[0]:.4g} mm) and comes first"
    why = f"all axes have the same spacing ({mm[0]:.4g} mm)" if equal else coarse
    return Reason(what="preprocessing.transpose", value=", ".join(names), why=why)


def _crop(d: Decisions) -> Reason:
    share = d.fingerprint.summary.median_relative_size_after_crop
    why = f"the box around non-zero voxels holds {share:.0%} of the median image"
    return Reason(what="preprocessing.crop_to_nonzero", value="yes", why=why)


def _spacing(d: Decisions) -> Reason:
    geometry, chosen = d.geometry, d.chosen
    if d.options.target_spacing_mm is not None:
        why = "set by planner.target_spacing_mm"
    elif geometry.thick_axis is None or _distinct_spacings(d) == 1:
        why = _median_spacing_reason(d)
    else:
        axis, median, size = geometry.thick_axis, geometry.median_spacing_mm, geometry.median_file_shape
        others = [i for i in range(3) if i != axis]
        why = (
            f"{AXES[axis]} spacing {median[axis]:.4g} mm is more than 3 x {max(median[i] for i in others):.4g} mm, and "
            f"the median case has only {size[axis]:.0f} slices for {min(size[i] for i in others):.0f} pixels, so "
            f"{AXES[axis]} takes its 10th percentile and fine series keep their slices; the others take the median"
        )
    if chosen.name == "3d_lowres":
        why += f"; coarsened until the patch sees a quarter of the median case ({_times(chosen.median_shape)} voxels)"
    value = " x ".join(f"{s:.4g}" for s in chosen.spacing_mm) + " mm"
    if chosen.name == "2d":
        value += " in the plane"
        why += "; a 2D network keeps the slices as they are"
    return Reason(what="preprocessing.spacing_mm", value=value, why=why)


def _median_spacing_reason(d: Decisions) -> str:
    n_cases, distinct = len(d.fingerprint.cases), _distinct_spacings(d)
    if distinct == 1:
        return "the spacing of the only case" if n_cases == 1 else f"the spacing of all {n_cases} cases"
    return f"the median of {n_cases} cases with {distinct} different spacings"


def _distinct_spacings(d: Decisions) -> int:
    return len({tuple(round(s, 3) for s in case.spacing_mm) for case in d.fingerprint.cases})


def _normalisation(d: Decisions) -> Reason:
    share = d.fingerprint.summary.median_relative_size_after_crop
    inside = any(n.inside_nonzero for n in d.normalisation)
    schemes = sorted({n.scheme for n in d.normalisation})
    why = (
        "by the names of the channels: z-score of each image unless a name says otherwise (CT, noNorm, ...); "
    )
    if inside:
        why += f"non-zero voxels only, because cropping leaves {share:.0%} of the median image (below 75%)"
    else:
        why += f"over the whole crop, because cropping leaves {share:.0%} of the median image (not below 75%)"
    where = " inside the non-zero mask" if inside else ""
    return Reason(what="preprocessing.normalisation", value=", ".join(schemes) + where, why=why)


def _network(c: Configuration) -> Reason:
    kind = "residual encoder" if c.blocks.residual else "plain convolutions"
    why = (
        f"an axis is halved while it has 8 voxels or more ({_times(c.patch_size)} needs {c.n_stages - 1} times), "
        "coarse axes only once the fine ones have caught up within a factor of 2, and so do their kernels "
        "grow from 1 to 3"
    )
    return Reason(what="networks.main", value=f"{c.n_stages} stages, {kind}", why=why)


def _patch(d: Decisions) -> Reason:
    c = d.chosen
    covered = [min(1.0, edge / size) for edge, size in zip(c.patch_size, c.median_shape, strict=True)]
    sees = math.prod(covered)
    mm = _times(edge * step for edge, step in zip(c.patch_size, c.spacing_mm, strict=True))
    unit = "slice" if c.name == "2d" else "case"
    why = f"{mm} mm; it sees {sees:.0%} of the median {unit} ({_times(c.median_shape, 1)} voxels)"
    if c.first_patch != c.patch_size:
        why += f"; shrunk from {_times(c.first_patch)} until a batch fits the memory"
    else:
        why += ", padded for the poolings" if sees == 1 else ""
    return Reason(what="recipe.stages.0.patch_size", value=_times(c.patch_size), why=why)


def _batch(d: Decisions) -> Reason:
    c = d.chosen
    if c.batch_size == c.fitting_batch:
        why = f"as many as fit {d.target_gb:g} GB by nnU-Net's estimate"
    elif c.batch_size == c.share_cap:
        share = "5% of" if not c.blocks.residual else ""
        why = f"{c.fitting_batch} would fit the memory, but a batch may hold no more than {share} the dataset's voxels"
        why = why.replace("  ", " ")
    else:
        why = (
            "the smallest batch that nnU-Net allows; the memory would hold "
            f"{c.fitting_batch} and the rule of 5% of the dataset's voxels asks for {c.share_cap}"
        )
    return Reason(what="recipe.stages.0.batch_size", value=str(c.batch_size), why=why)


def _memory(d: Decisions) -> Reason:
    c, width, most = d.chosen, *QUICK_FEATURES
    blocks = replace(c.blocks, width=width, max_features=most) if d.quick else c.blocks
    gb = c.counted_gb(blocks, len(d.fingerprint.channel_names), len(d.fingerprint.labels))
    why = (
        "counted for mixed precision, the default on CUDA: leave 1 to 2 GB of room; nnU-Net, whose estimate chose "
        f"patch and batch, reckons with {c.memory_gb(d.target_gb):.1f} GB for {c.elements / 1e6:.0f} million "
        "feature-map elements per sample"
    )
    return Reason(what="memory", value=f"about {gb:.1f} GB", why=why)


def _loss(d: Decisions) -> Reason:
    c = d.chosen
    if c.name == "2d":
        why = "2D: Dice over the whole batch, because single slices are often empty"
    elif c.batch_dice:
        why = "Dice over the whole batch, because the patch sees little of the image and is often empty"
    else:
        why = "Dice for each sample, because the patch sees enough of the image"
    return Reason(what="recipe.stages.0.loss", value="Dice + cross-entropy", why=why)


def _fixed_recipe() -> list[Reason]:
    """What nnU-Net takes for every dataset."""
    fixed = "nnU-Net's, the same for every dataset"
    return [
        Reason(what="recipe.stages.0.epochs", value="1000 x 250 batches", why=fixed),
        Reason(what="recipe.stages.0.optimiser", value="SGD, lr 0.01, poly schedule", why=fixed),
        Reason(
            what="recipe.stages.0.sampling",
            value="a third of each batch is centred on a lesion voxel",
            why=fixed,
        ),
        Reason(
            what="recipe.stages.0.augmentation", value="nnU-Net's transforms, mirrored on all axes", why=fixed
        ),
        Reason(what="recipe.inference", value="tiles at half a patch, mirrored on all axes", why=fixed),
    ]


def _background_note(d: Decisions) -> list[Reason]:
    """Air that is a constant other than 0, as after subtracting the mean: the rules take it for tissue."""
    cases = d.fingerprint.cases
    filled = [case for case in cases if any(value for value in case.background)]
    if 2 * len(filled) < len(cases):
        return []
    values = [value for case in filled for value in case.background if value]
    text = f"air is not 0 in {len(filled)} of {count_of(len(cases), 'case')}"
    messages.warn(f"{text}: nothing is cropped there, and the normalisation counts air as tissue")
    why = (
        f"all corners of an image have one value, from {min(values):.3g} to {max(values):.3g}; nothing is "
        "cropped there, and the normalisation counts air as tissue; set the air to 0 in the files if that is not meant"
    )
    return [Reason(what="note: background", value=text, why=why)]


def _lesion_notes(d: Decisions) -> list[Reason]:
    """What the lesions say about a plan whose rules do not look at them."""
    voxel_mm3 = math.prod(d.chosen.spacing_mm)
    if d.chosen.name == "2d":
        voxel_mm3 *= d.geometry.median_spacing_mm[d.geometry.transpose[0]]
    lesions_mm3 = _lesion_volumes_mm3(d)
    if not lesions_mm3.size:
        return [
            Reason(
                what="note: lesions", value="none", why="no case has a lesion; a network has nothing to learn"
            )
        ]
    median = float(np.median(lesions_mm3))
    why = (
        "nnU-Net's rules look at spacings, sizes and memory, never at the lesions: neither their number nor their size "
        "changed anything above"
    )
    amount = f"{median / 1000:.2g} ml" if median >= 10 else f"{median:.2g} mm3"
    voxels = median / voxel_mm3
    size = f"median {amount} = {voxels:.{0 if voxels >= 10 else 1}f} voxels of the working grid"
    return [
        Reason(what="note: lesions", value=f"{count_of(lesions_mm3.size, 'lesion')}, {size}", why=why),
        *_sub_voxel_note(lesions_mm3, voxel_mm3),
        *_balance_note(d, lesions_mm3),
    ]


def _lesion_volumes_mm3(d: Decisions) -> np.ndarray:
    """Of all components of all cases, ascending."""
    volumes = [
        voxels * math.prod(case.spacing_mm)
        for case in d.fingerprint.cases
        for voxels in case.lesions.component_voxels
    ]
    return np.sort(np.array(volumes, np.float64))


def _sub_voxel_note(lesions_mm3: np.ndarray, voxel_mm3: float) -> list[Reason]:
    lost = int((lesions_mm3 < 0.999 * voxel_mm3).sum())
    if not lost:
        return []
    text = f"{lost} of {count_of(lesions_mm3.size, 'lesion')} smaller than one voxel of the working grid"
    messages.warn(f"{text}: they may vanish in preprocessing")
    why = f"a voxel has {voxel_mm3:.3g} mm3; preprocessing reports which lesions vanish"
    return [
        Reason(
            what="note: small lesions", value=text, why=why + "; planner.target_spacing_mm sets a finer grid"
        )
    ]


def _balance_note(d: Decisions, lesions_mm3: np.ndarray) -> list[Reason]:
    """Suggest balancing by component where the many small lesions are nearly never drawn."""
    with_lesions = sum(case.lesions.n_components > 0 for case in d.fingerprint.cases)
    share = float(lesions_mm3[: lesions_mm3.size // 2].sum() / lesions_mm3.sum())
    if lesions_mm3.size < 2 * with_lesions or share >= SMALL_HALF_SHARE:
        return []
    held = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
    why = (
        f"the smaller half of the lesions holds {held} of the lesion volume, and nnU-Net centres patches on them "
        "as rarely; if finding small lesions matters, try --set stages.train.sampling.balance=component"
    )
    return [Reason(what="note: sampling", value="small lesions are seldom drawn", why=why)]
