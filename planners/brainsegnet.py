"""The planner ``brainsegnet``: stroke on perfusion maps and tumours with sub-regions, trained by a curriculum.

Hu, Luo, Hu, Guo, Huang, Scott, Wiest, Dahlweid, Reyes, "Brain SegNet: 3D local refinement network for brain lesion
segmentation", BMC Medical Imaging 20:17 (2020), doi 10.1186/s12880-020-0409-2. Three stages of 500 epochs: plain, half
of the samples augmented, three quarters augmented with the focal loss. What the paper leaves open is that of its
authors' code or chosen here; the plan's reasons say which, and docs/families/brainsegnet.md has the list.
"""

from __future__ import annotations

import math
import re
from typing import Any

from autoseg.errors import AutosegError, nearest_names
from autoseg.evidence import contrasts
from autoseg.evidence.contrasts import MAPS, PERFUSION
from autoseg.evidence.facts import HEAD_MM, Evidence
from autoseg.fingerprint import Fingerprint
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.plan import (
    QUICK,
    Augmentation,
    Inference,
    MaskRole,
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
from autoseg.planners._brainsegnet_reasons import reasons
from autoseg.planners._brainsegnet_settings import (
    BATCH,
    BATCH_FROM_SCRATCH,
    BATCH_OF_STATISTICS,
    COST,
    COST_OF_SIZE,
    EPOCHS,
    EPOCHS_AT_ONCE,
    EPOCHS_BASELINE,
    FALLING_FROM,
    FEW_SLICES,
    FEWEST_PLANES,
    GAMMA,
    HALF,
    HALO,
    LEARNING_RATE,
    MODE_BIN,
    MOST,
    PAPERS_PLANES,
    PATCH_STEP,
    PATCHES,
    QUICK_BATCH,
    QUICK_BATCHES,
    QUICK_GB,
    QUICK_RATE,
    QUICK_REFINE_WIDTH,
    QUICK_WIDTH,
    SMALLEST_BATCH,
    SMALLEST_EDGE,
    THIN,
    BrainSegNetChoice,
    BrainSegNetOptions,
    Intensities,
    PredictionChoice,
    Shape,
    Way,
    prediction_gb,
    training_gb,
)
from autoseg.planners._memory import DEFAULT_MEMORY_GB
from autoseg.plugins.planner import OTHER_KIND, Budget, Match, Planner

# ------------------------------------------------------------------------------------------------ whether it fits

CONTRASTS = ("FLAIR", "T1c", "T1", "T2")
"""The four of BRATS."""


def match(fingerprint: Fingerprint) -> Match:
    """Made for perfusion and diffusion maps of strokes, and for MR contrasts of tumours with sub-regions."""
    evidence = Evidence(fingerprint)
    (low, high), extent = HEAD_MM, evidence.extent_mm
    size = "" if low <= extent <= high else f"scans of {extent:.0f} mm (a human head: {low} to {high} mm)"
    if found := _as_maps(evidence) or _as_contrasts(evidence):
        reason, differences, doubts = found
        costs = [(text, COST) for text in differences]
        return Match.weighed([reason], [*costs, (size, COST_OF_SIZE)], doubts=doubts)
    made_for = "made for perfusion and diffusion maps, or for MR contrasts with sub-regions"
    return Match.weighed([], [(_other_data(evidence), OTHER_KIND)], made_for=made_for)


Likeness = tuple[str, list[str], tuple[str, ...]]
"""What the data are like in words, how they differ from the published ones, and what is not sure about it."""


def _as_maps(evidence: Evidence) -> Likeness | None:
    """Perfusion and diffusion maps, by their names or, where these say nothing, by their looks."""
    maps = [kind for kind in evidence.contrasts if kind in MAPS]
    others = len(evidence.channels) - len(maps)
    if len(maps) > 1 and any(kind in PERFUSION for kind in maps):
        few = f"{len(maps)} maps instead of six" if len(maps) < 3 else ""
        more = count_of(others, "channel that is no map", "channels that are no maps") if others else ""
        return f"{len(maps)} perfusion and diffusion maps", [few, more], ()
    if evidence.names_are_silent and evidence.looks_like_maps and len(evidence.classes) == 1:
        doubt = (
            "no channel's name says its contrast; by lesions that are bright in some and dark in others, maps"
        )
        looks = f"{len(evidence.channels)} channels that look like perfusion and diffusion maps"
        return looks, ["names that do not say so", ""], (doubt,)
    return None


def _as_contrasts(evidence: Evidence) -> Likeness | None:
    """MR contrasts with sub-regions; a name that says nothing counts as a contrast that is not known."""
    kinds = sorted({kind for kind in evidence.contrasts if kind in CONTRASTS})
    silent, n_channels = evidence.names_are_silent, len(evidence.channels)
    if len(evidence.classes) < 2 or (len(kinds) < 2 and not (silent and n_channels > 1)):
        return None
    number = n_channels if silent else len(kinds)
    named = "" if silent else f" ({', '.join(kinds)})"
    few = f"{number} MR contrasts{named} instead of four" if number < 4 else ""
    far = "slices far apart or few" if is_thin(evidence.fingerprint) else ""
    unknown = "names that do not say which" if silent else ""
    doubts = ("no channel's name says its contrast",) if silent else ()
    return f"{number} MR contrasts with {len(evidence.classes)} sub-regions", [few, far, unknown], doubts


def contrast_of(channel: str) -> str:
    """FLAIR, T1c, T1 or T2 by the name of a channel; empty for others."""
    kind = contrasts.contrast_of(channel)
    return kind if kind in CONTRASTS else ""


def is_thin(fingerprint: Fingerprint) -> bool:
    """Whether the median scan is a stack of slices that are far apart, or few."""
    evidence = Evidence(fingerprint)
    return evidence.slice_ratio >= THIN or evidence.n_slices <= FEW_SLICES


def _other_data(evidence: Evidence) -> str:
    names = evidence.channels
    said = f"one channel ({names[0]})" if len(names) == 1 else f"channels {', '.join(names)}"
    return said if len(evidence.classes) > 1 else f"{said} with one kind of lesion"


# ------------------------------------------------------------------------------------------------ the plan


def plan(fingerprint: Fingerprint, budget: Budget, options: BrainSegNetOptions) -> Plan:
    """Configure the method for a dataset.

    Raises:
        AutosegError: channels that are asked for and not there; memory that is too small.
    """
    if budget.quick:
        widths = {"width": QUICK_WIDTH, "refine_width": QUICK_REFINE_WIDTH}
        changes = {name: n for name, n in widths.items() if name not in options.model_fields_set}
        options = options.model_copy(update=changes)
    choice = decide(fingerprint, budget, options)
    full = Plan(
        planner="brainsegnet",
        planner_options=options.model_dump(mode="json"),
        trainer="brainsegnet",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        regions_class_order=fingerprint.regions_class_order,
        preprocessing=_preprocessing(fingerprint, options, choice),
        networks={"main": _network(options)},
        recipe=Recipe(
            stages=_stages(options, choice),
            inference=_inference(choice.prediction),
            validation=Validation(cases=4, every=25),
        ),
        reasons=reasons(fingerprint, options, choice, match(fingerprint)),
    )
    return replan(full, _quick_changes(full), QUICK) if budget.quick else full


def _preprocessing(
    fingerprint: Fingerprint, options: BrainSegNetOptions, choice: BrainSegNetChoice
) -> Preprocessing:
    """Whole scans on their own grids, slices first."""
    return Preprocessing(
        transpose=fingerprint.summary.slices_first,
        crop_to_nonzero=False,
        spacing_mm=(None, None, None),
        normalisation=[_normalisation(name, choice) for name in choice.intensities],
        mask=MaskRole(channel=choice.mask, dilation=1) if choice.mask else None,
        may_be_missing=_may_be_missing(fingerprint, options, choice),
    )


NORMALISATIONS: dict[Intensities, Normalisation] = {
    "constants": Normalisation(scheme="fixed", spread="mean_absolute_deviation"),
    "mode": Normalisation(scheme="fixed", spread="mean_absolute_deviation", divide_by_mode=MODE_BIN),
    "zscore": Normalisation(scheme="zscore", inside_nonzero=True),
}


def _normalisation(name: Intensities, choice: BrainSegNetChoice) -> Normalisation:
    """With a mask of the brain the z-score is that inside it."""
    if name == "zscore" and choice.mask:
        return Normalisation(scheme="zscore", inside_mask=True)
    return NORMALISATIONS[name].model_copy()


def _network(options: BrainSegNetOptions) -> Named:
    arguments: dict[str, Any] = {"width": options.width, "refine_width": options.refine_width}
    if options.training == "augmented":
        arguments["normalisation"] = "instance"
    return Named(name="brainsegnet", arguments=arguments)


def _quick_changes(full: Plan) -> dict[str, Any]:
    stages = full.recipe.stages
    return {
        "networks.main.arguments": dict(full.networks["main"].arguments),
        **{f"stages.{stage.name}.batch_size": stage.batch_size for stage in stages},
        **{f"stages.{stage.name}.patch_size": list(stage.patch_size) for stage in stages},
        **{f"stages.{stage.name}.optimiser.arguments.lr": QUICK_RATE for stage in stages},
        "iterations_per_epoch": QUICK_BATCHES,
    }


CROSS_ENTROPY = Named(name="brainsegnet", arguments={"gamma": 0.0})
FOCAL = Named(name="brainsegnet", arguments={"gamma": GAMMA})
FOCAL_AND_DICE = Named(name="brainsegnet", arguments={"gamma": GAMMA, "dice_weight": 1.0})


def _stages(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> list[Stage]:
    """The curriculum, or what stands in its place."""

    def stage(name: str, share: float, loss: Named, epochs: int = EPOCHS, **more: Any) -> Stage:
        return Stage(
            name=name,
            channels=list(choice.channels),
            patch_size=list(choice.patch),
            batch_size=choice.batch,
            epochs=epochs,
            loss=loss,
            optimiser=Named(name="adam", arguments={"lr": LEARNING_RATE}),
            schedule=Named(name="constant"),
            sampling=_sampling(options, choice),
            augmentation=_augmentation(share, options, choice),
            **more,
        )

    if options.training == "augmented":
        return [_augmented(stage("train", 1.0, FOCAL_AND_DICE, EPOCHS_AT_ONCE), options)]
    if options.kind == "baseline":
        return [stage("baseline", 0.0, CROSS_ENTROPY, EPOCHS_BASELINE)]
    if options.kind == "at_once":
        return [stage("focal", 1.0, FOCAL, EPOCHS_AT_ONCE)]
    onward: dict[str, Any] = {"start": "previous", "optimiser_state": "previous"}
    focal = onward | {"optimiser_state": "previous" if options.carry_optimizer else "fresh"}
    return [
        stage("plain", 0.0, CROSS_ENTROPY, keep=False),
        stage("half", HALF, CROSS_ENTROPY, keep=False, **onward),
        stage("focal", MOST, FOCAL, **focal)
        if options.focal
        else stage("most", MOST, CROSS_ENTROPY, **onward),
    ]


def _sampling(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> Sampling:
    """What lies beyond a scan is background: its least value, and 0 where its mean is 0."""
    arguments = {"rule": options.crops, "epoch": options.epoch}
    scored = choice.scored or "zscore" in choice.intensities
    return Sampling(name="sub_volumes", arguments=arguments | ({"outside": "zero"} if scored else {}))


def _augmentation(share: float, options: BrainSegNetOptions, choice: BrainSegNetChoice) -> Augmentation:
    """The paper's transforms in its order; of channels that may be missing after them."""
    transforms = [
        Named(name="slice_factor", arguments={"low": 0.8, "high": 1.2, "about": "raw_zero"}),
        Named(name="quarter_turns"),
        Named(name="rescale", arguments={"low": 0.5, "high": 1.2}),
        Named(name="flip", arguments={"axis": 2}),
        Named(name="flip", arguments={"axis": 1}),
        *_missing(options),
    ]
    return Augmentation(name="none", mirror_axes=(), share=share, transforms=transforms if share else [])


def _missing(options: BrainSegNetOptions) -> list[Named]:
    return (
        [Named(name="missing_channels", arguments={"p": options.map_dropout})] if options.map_dropout else []
    )


def _may_be_missing(
    fingerprint: Fingerprint, options: BrainSegNetOptions, choice: BrainSegNetChoice
) -> list[str]:
    """Channels without which the network learns to do, in part of its samples; not that of the mask."""
    seen = list(choice.channels) or fingerprint.channel_names
    return [name for name in seen if name != choice.mask] if options.map_dropout else []


def _augmented(stage: Stage, options: BrainSegNetOptions) -> Stage:
    """What is known since: nnU-Net's augmentation and a rate that falls."""
    changes = {
        "augmentation": Augmentation(name="nnunet", transforms=_missing(options)),
        "optimiser": Named(name="adam", arguments={"lr": FALLING_FROM}),
        "schedule": Named(name="poly", arguments={"exponent": 0.9}),
    }
    return stage.model_copy(update=changes)


def _inference(chosen: PredictionChoice) -> Inference:
    if chosen.way == "whole":
        return Inference(patch_size=[], gaussian=False, mirror_axes=())
    return Inference(
        patch_size=[chosen.planes, "whole", "whole"],
        tiles="chunks",
        halo=[HALO, 0, 0] if chosen.way == "chunks" else [],
        gaussian=False,
        mirror_axes=(),
    )


# ------------------------------------------------------------------------------------------------ what is chosen


def decide(fingerprint: Fingerprint, budget: Budget, options: BrainSegNetOptions) -> BrainSegNetChoice:
    """Sub-volume, batch, channels, normalisation and prediction.

    Raises:
        AutosegError: see :func:`plan`.
    """
    axes, thin = fingerprint.summary.slices_first, is_thin(fingerprint)
    z, y, x = (max(1, round(fingerprint.summary.shape[axis].median or 1)) for axis in axes)
    channels = _channels(fingerprint, options)
    n_channels = len(channels) or len(fingerprint.channel_names)
    outputs = LabelSet.from_labels(fingerprint.labels, fingerprint.regions_class_order).n_outputs
    wanted = wanted_patch(thin, (z, y, x))
    patch, batch = fitting(wanted, budget, options, n_channels, outputs)
    intensities, scored = _intensities(fingerprint, options)
    budget_gb = budget.memory_gb or DEFAULT_MEMORY_GB
    return BrainSegNetChoice(
        thin=thin,
        shape=(z, y, x),
        wanted=wanted,
        patch=patch,
        batch=batch,
        memory_gb=training_gb(batch * math.prod(patch), options, n_channels, outputs),
        budget_gb=budget_gb,
        prediction=_prediction(largest_scan(fingerprint), options, n_channels, outputs, budget_gb),
        channels=channels,
        intensities=intensities,
        mask=_mask(fingerprint, options),
        scored=scored,
    )


def _mask(fingerprint: Fingerprint, options: BrainSegNetOptions) -> str:
    """The channel of the brain's mask; empty for none."""
    names = fingerprint.channel_names
    if options.mask in ("none", "auto"):
        series = (name for name in names if "ttp" in name.casefold() and options.mask == "auto")
        return next(series, "")
    if options.mask not in names:
        raise AutosegError(
            f"the dataset does not have the channel of planner.mask={options.mask}",
            where=fingerprint.dataset,
            found=", ".join(names),
            fix=nearest_names(options.mask, names),
        )
    return options.mask


def largest_scan(fingerprint: Fingerprint) -> Shape:
    """Voxels of the largest scan, slices first."""
    across, first, second = fingerprint.summary.slices_first
    shapes = ((case.shape[across], case.shape[first], case.shape[second]) for case in fingerprint.cases)
    return max(shapes, key=math.prod)


def wanted_patch(thin: bool, shape: Shape) -> Shape:
    """The published sub-volume; an axis of the scans that is shorter is taken whole, to the next multiple of 8."""
    depth, *plane = PATCHES["stack" if thin else "head"]
    y, x = (min(edge, _up(n)) for edge, n in zip(plane, shape[1:], strict=True))
    return min(depth, shape[0]), y, x


def _up(n: int) -> int:
    return math.ceil(n / PATCH_STEP) * PATCH_STEP


def fitting(
    wanted: Shape, budget: Budget, options: BrainSegNetOptions, in_channels: int, outputs: int
) -> tuple[Shape, int]:
    """The sub-volume and the batch that fit: first fewer samples, then smaller planes, then fewer samples still.

    Batch normalisation was published with statistics of 10 samples; fewer than those come last.

    Raises:
        AutosegError: not even the smallest fits.
    """
    memory = budget.memory_gb or DEFAULT_MEMORY_GB
    most, few = BATCH, BATCH_OF_STATISTICS
    if options.training == "augmented":
        few = SMALLEST_BATCH
    elif options.kind == "at_once":
        most = BATCH_FROM_SCRATCH
    if budget.quick:
        most, few, memory = QUICK_BATCH, QUICK_BATCH, min(memory, QUICK_GB)

    def largest_batch(patch: Shape) -> int:
        """As many samples as fit, up to the published number."""
        sizes = range(most, 0, -1)
        return next(
            (n for n in sizes if training_gb(n * math.prod(patch), options, in_channels, outputs) <= memory),
            0,
        )

    patches = _smaller(wanted)
    for least in (few, SMALLEST_BATCH):
        for patch in patches:
            if (batch := largest_batch(patch)) >= least:
                return patch, batch
    least_gb = training_gb(SMALLEST_BATCH * math.prod(patches[-1]), options, in_channels, outputs)
    raise AutosegError(
        "Brain SegNet does not fit the memory",
        found=f"{memory:g} GB",
        expected=f"at least {least_gb:.2g} GB",
        fix="give -gpu_memory_target a larger number, or --set planner.width=16 planner.refine_width=64",
    )


def _smaller(patch: Shape) -> list[Shape]:
    """The patch, and smaller ones of the same depth, down to 32 voxels in the planes."""
    z, y, x = patch
    found = [patch]
    while max(y, x) > SMALLEST_EDGE:
        y, x = (n - PATCH_STEP if n == max(y, x) and n > SMALLEST_EDGE else n for n in (y, x))
        found.append((z, y, x))
    return found


def _prediction(
    largest: Shape, options: BrainSegNetOptions, in_channels: int, outputs: int, budget_gb: float
) -> PredictionChoice:
    """How scans are predicted; chunks are as thick as the memory allows for the largest scan, and alike."""
    depth, y, x = largest

    def gb(planes: int) -> float:
        return prediction_gb(planes, y * x, options, in_channels, outputs)

    way: Way = "whole" if gb(depth) <= budget_gb else "chunks"
    way = way if options.inference == "auto" else options.inference
    planes = seen = depth
    if way == "concatenate":
        planes = seen = min(depth, PAPERS_PLANES)
    elif way == "chunks":
        fitting = (n for n in range(depth, FEWEST_PLANES, -1) if gb(min(depth, n + 2 * HALO)) <= budget_gb)
        planes = math.ceil(depth / math.ceil(depth / next(fitting, FEWEST_PLANES)))
        seen = min(depth, planes + 2 * HALO)
    return PredictionChoice(way, planes, whole_gb=gb(depth), chunk_gb=gb(seen))


def is_series(channel: str) -> bool:
    """Whether a channel comes from the 4D perfusion series itself (its mean, largest or least value over time)."""
    return re.match(r"pwi", channel.casefold()) is not None


def _channels(fingerprint: Fingerprint, options: BrainSegNetOptions) -> tuple[str, ...]:
    """Those that the network sees; empty for all."""
    names = fingerprint.channel_names
    series = [name for name in names if is_series(name)]
    chosen = {"maps": [n for n in names if n not in series], "pwi": series, "maps+pwi": names}[options.inputs]
    if not chosen or (options.inputs != "maps" and not series):
        raise AutosegError(
            f"the dataset does not have the channels of planner.inputs={options.inputs}",
            where=fingerprint.dataset,
            found=", ".join(names),
            expected="PWI_mean, PWI_max and PWI_min" if options.inputs != "maps" else "maps or MR contrasts",
            fix="convert it with autoseg_convert isles2017 --pwi, or choose other inputs",
        )
    return () if chosen == names else tuple(chosen)


def _intensities(
    fingerprint: Fingerprint, options: BrainSegNetOptions
) -> tuple[tuple[Intensities, ...], bool]:
    """For each channel how it is normalised; and whether intensities that are normalised already are among them."""
    kinds: list[Intensities] = []
    scored = False
    for channel, name in enumerate(fingerprint.channel_names):
        seen = [(case.everywhere or case.brain)[channel] for case in fingerprint.cases]
        below = min(entry.min for entry in seen) < 0
        raw = bool(contrast_of(name)) and not below and all(entry.mode for entry in seen)
        scored |= bool(contrast_of(name)) and below
        kinds.append("mode" if raw else "constants")
    if options.normalisation != "auto":
        kinds = [options.normalisation] * len(kinds)
    return tuple(kinds), scored


PLANNER = Planner(
    name="brainsegnet",
    summary="Brain SegNet with curriculum and focal loss: stroke on perfusion maps, tumours with sub-regions",
    match=match,
    plan=plan,
    options=BrainSegNetOptions,
)
