"""The planner ``edd_muscle``: acute lesions in diffusion-weighted slices, found by one network, judged by a second.

Chen, Bentley, Rueckert, "Fully automatic acute ischemic lesion segmentation in DWI using convolutional neural
networks", NeuroImage: Clinical 15:633-643 (2017), doi 10.1016/j.nicl.2017.06.016. EDD Net segments whole slices after
training on patches around lesions; MUSCLE Net looks at every small component and decides whether it is a lesion. The
networks of the paper's comparison are single networks with the same training. What the paper leaves open is chosen
here, and the plan's reasons say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autoseg.errors import AutosegError
from autoseg.evidence.contrasts import contrast_of
from autoseg.evidence.facts import HEAD_MM, Evidence
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
from autoseg.planners._edd_muscle_reasons import reasons
from autoseg.planners._edd_muscle_settings import (
    CANDIDATES_PER_CASE,
    COMPARATORS,
    COST,
    DECONVNETS,
    EPOCHS,
    FEWEST_CASES,
    FULL_SLICE_PX,
    HELD_BACK,
    ITERATIONS,
    MUSCLE_BATCH,
    MUSCLE_EPOCHS,
    MUSCLE_ITERATIONS,
    MUSCLE_NET,
    PATIENCE,
    QUICK_BATCH,
    QUICK_BATCHES,
    QUICK_WIDTH,
    SILENT_COST,
    TABLE_3,
    THICK,
    TRAINED_SHARE,
    WIDTHS,
    EDDMuscleChoice,
    EDDMuscleOptions,
    candidates,
)
from autoseg.planners._memory import DEFAULT_MEMORY_GB, Cost
from autoseg.plugins.planner import Budget, Match, Planner, Verdict

# ------------------------------------------------------------------------------------------------ whether it fits


def match(fingerprint: Fingerprint) -> Match:
    """Made for one DWI channel of human heads in thick slices, with one kind of lesion."""
    if problem := find_problem(fingerprint):
        return Match(Verdict.CANNOT, against=(problem,))
    evidence, (low, high) = Evidence(fingerprint), HEAD_MM
    extent, apart = evidence.slice_extent_mm, _slice_distance(evidence)
    thin = "" if evidence.single_slices or evidence.slice_ratio >= THICK else f"{apart} (under {THICK:g})"
    size = "" if low <= extent <= high else f"slices of {extent:.0f} mm (a human head: {low} to {high} mm)"
    channels, cost = _other_channels(evidence)
    return Match.weighed(
        (f"one {'' if channels else 'DWI '}channel of human heads ({extent:.0f} mm)", apart),
        [(channels, cost), (thin, COST), (size, COST)],
        made_for="made for one DWI channel of human heads in thick slices",
        doubts=evidence.doubts_of_name("DWI") if not thin and not size else (),
    )


def find_problem(fingerprint: Fingerprint) -> str:
    """Why the method cannot be used at all, empty where it can."""
    foreground = [n for n in fingerprint.labels if n not in ("background", "ignore")]
    if any(isinstance(value, list) for value in fingerprint.labels.values()):
        return "it has no overlapping regions"
    if len(foreground) != 1:
        return f"it tells lesion from background, and there are {len(foreground)} labels: {', '.join(foreground)}"
    if not any(case.lesions.n_components for case in fingerprint.cases):
        return "it learns from the pixels of lesions, and no case has a lesion"
    return ""


def is_dwi(channel: str) -> bool:
    """Whether a channel is diffusion-weighted (b = 1000, trace) by its name; b = 0 and ADC are other contrasts."""
    return contrast_of(channel) == "DWI"


def _other_channels(evidence: Evidence) -> tuple[str, float]:
    """How the channels differ from one DWI channel, empty where they do not; and what that costs."""
    says, names, against = evidence.only_channel("DWI"), evidence.channels, not evidence.lesions_as_in("DWI")
    if says == "several":
        return f"{len(names)} channels ({', '.join(names)}) instead of one", COST
    bright = ", with dark lesions instead of bright ones" if against else ""
    if says == "silent":
        return f"{names[0]} does not say that it is DWI{bright}", COST if against else SILENT_COST
    if evidence.contrasts == ["ADC"]:
        return f"{names[0]} instead of DWI, with the contrast of lesions reversed", COST
    return ("", 0.0) if says == "it" else (f"{names[0]} instead of DWI{bright}", COST)


def _slice_distance(evidence: Evidence) -> str:
    """How far slices are apart in the median case, in words."""
    if evidence.single_slices:
        return "single slices"
    return f"slices {evidence.slice_ratio:.1f} times as far apart as the pixels"


# ------------------------------------------------------------------------------------------------ the plan


def plan(fingerprint: Fingerprint, budget: Budget, options: EDDMuscleOptions) -> Plan:
    """Configure the method for a dataset.

    Raises:
        AutosegError: regions, several labels or no lesion; options that contradict each other; memory that is too
            small.
    """
    if budget.quick:
        options = options.model_copy(update=_quick_options(options))
    choice = decide(fingerprint, budget, options)
    networks = {"main": choice.network}
    if choice.muscle:
        networks["muscle"] = Named(name="muscle", arguments=dict(MUSCLE_NET))
    full = Plan(
        planner="edd_muscle",
        planner_options=options.model_dump(mode="json"),
        trainer="edd_muscle",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        preprocessing=Preprocessing(
            transpose=fingerprint.summary.slices_first,
            crop_to_nonzero=False,
            spacing_mm=(None, options.spacing_mm, options.spacing_mm),
            normalisation=[Normalisation(scheme="zscore") for _ in fingerprint.channel_names],
            image_order=1,
            label_order=1,
            logits_order=1,
        ),
        networks=networks,
        recipe=_recipe(options, choice),
        reasons=reasons(fingerprint, options, choice, match(fingerprint)),
    )
    return replan(full, _quick_changes(full, options), QUICK) if budget.quick else full


def _quick_options(options: EDDMuscleOptions) -> dict[str, int]:
    """A narrow network and small batches, unless they were set."""
    quick = {"width": QUICK_WIDTH, "batch_size": QUICK_BATCH}
    return {name: value for name, value in quick.items() if name not in options.model_fields_set}


def _quick_changes(full: Plan, options: EDDMuscleOptions) -> dict[str, Any]:
    """Stages that go over lesion pixels do not go over all of them in an epoch."""
    pixels = [stage.name for stage in full.recipe.stages if stage.sampling.name == "lesion_pixels"]
    return {
        "networks.main.arguments.width": full.networks["main"].arguments["width"],
        **{f"stages.{name}.batch_size": options.batch_size for name in pixels},
        **{f"stages.{name}.iterations_per_epoch": QUICK_BATCHES for name in pixels},
    }


def _recipe(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Recipe:
    """One stage for each network; with cross-fitting two more of EDD Net between them."""
    first = _main_stage(options, choice)
    stages, steps = [first], []
    if choice.muscle:
        parts = [
            first.model_copy(
                update={
                    "name": f"edd_part{k}",
                    "leave_out": (k, 2),
                    "leave_out_in": "all_folds",
                    "keep": False,
                }
            )
            for k in range(2 if options.cross_fitting else 0)
        ]
        finders = [stage.name for stage in parts or [first]]
        stages += [*parts, _muscle_stage(choice, finders, options.spacing_mm)]
        steps = [Named(name="muscle", arguments={"rule": "component", **candidates(options.spacing_mm)})]
    return Recipe(
        stages=stages,
        members=1,
        fusion=Named(name="mean_probabilities"),
        postprocessing=steps,
        inference=_inference(options),
        validation=Validation(cases="all", every=1),
    )


def _inference(options: EDDMuscleOptions) -> Inference:
    """Whole slices, or the middle of each."""
    if options.slices == "whole":
        return Inference(patch_size=[], mirror_axes=(), batch_size=8)
    middle = [FULL_SLICE_PX, FULL_SLICE_PX]
    return Inference(patch_size=middle, tiles="centre", gaussian=False, mirror_axes=(), batch_size=8)


def _main_stage(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Stage:
    """Patches around every lesion pixel, turned by any angle and flipped."""
    return Stage(
        name="edd" if options.network == "edd" else "train",
        patch_size=[options.patch_size, options.patch_size],
        batch_size=options.batch_size,
        epochs=choice.epochs,
        iterations_per_epoch=None,
        loss=Named(name="edd_muscle"),
        optimiser=_optimiser(),
        schedule=Named(name="constant"),
        sampling=Sampling(name="lesion_pixels", arguments={"outside": "minimum", **_where(options)}),
        augmentation=Augmentation(name="nnunet", mirror_axes=(2,), arguments=_rotation_only()),
        leave_out=HELD_BACK if choice.stops_early else None,
        leave_out_in="two_part_folds"
        if choice.stops_early and options.stopping == "validation"
        else "all_folds",
        patience=PATIENCE if choice.stops_early else None,
    )


def _where(options: EDDMuscleOptions) -> dict[str, str]:
    """Patches that are the full slice lie where the prediction looks."""
    full = options.slices == "centre" and options.patch_size == FULL_SLICE_PX
    return {"where": "centre"} if full else {}


def _muscle_stage(choice: EDDMuscleChoice, finders: Sequence[str], spacing_mm: float) -> Stage:
    """Patches around what the stages ``finders`` have found in the training cases."""
    return Stage(
        name="muscle",
        network="muscle",
        patch_size=[16, 16],
        batch_size=MUSCLE_BATCH,
        epochs=choice.muscle_epochs,
        iterations_per_epoch=None,
        loss=Named(name="edd_muscle"),
        optimiser=_optimiser(),
        schedule=Named(name="constant"),
        sampling=Sampling(name="candidates", arguments={"stages": list(finders), **candidates(spacing_mm)}),
        augmentation=Augmentation(name="none", mirror_axes=()),
    )


def _optimiser() -> Named:
    return Named(name="sgd", arguments={"lr": 0.05, "momentum": 0.9})


def _rotation_only() -> dict[str, Any]:
    """All other transforms of the augmentation are off; flips follow its ``mirror_axes``."""
    others = [
        "scaling",
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    ]
    return {"rotation_p": 1.0, "rotation_degrees": [-180, 180], **{f"{name}_p": 0.0 for name in others}}


# ------------------------------------------------------------------------------------------------ what is chosen


def lesion_sizes(fingerprint: Fingerprint, spacing_mm: float) -> tuple[float, ...]:
    """The sizes of all lesions in pixels of the working grid, ascending.

    A lesion is a component of the volume, its size that of all its slices together; the fingerprint does not know the
    sizes in each slice, which are smaller.
    """
    _, *plane = fingerprint.summary.slices_first
    sizes = [
        voxels * math.prod(case.spacing_mm[axis] for axis in plane) / spacing_mm**2
        for case in fingerprint.cases
        for voxels in case.lesions.component_voxels
    ]
    return tuple(sorted(sizes))


def decide(fingerprint: Fingerprint, budget: Budget, options: EDDMuscleOptions) -> EDDMuscleChoice:
    """Check the options against each other and the dataset, then choose what they leave open.

    Raises:
        AutosegError: see :func:`plan`.
    """
    if problem := find_problem(fingerprint):
        raise AutosegError(
            f"edd_muscle cannot be used here: {problem}",
            where=fingerprint.dataset,
            expected="one label beside the background, and lesions",
            fix="use the planner unet, or change labels and masks",
        )
    field = _receptive_field(options)
    size = _size(options, field)
    budget_gb = budget.memory_gb or DEFAULT_MEMORY_GB
    width = _choose_width(options, size, budget_gb)
    lesions_px = lesion_sizes(fingerprint, options.spacing_mm)
    iterations = math.ceil(TRAINED_SHARE * sum(lesions_px) / options.batch_size)
    n_candidates = TRAINED_SHARE * len(fingerprint.cases) * CANDIDATES_PER_CASE
    return EDDMuscleChoice(
        network=_network(options, field, width),
        receptive_field=field,
        muscle=_has_muscle(options),
        memory_gb=memory_gb(options, size, width),
        budget_gb=budget_gb,
        lesions_px=lesions_px,
        iterations=iterations,
        epochs=_epochs(ITERATIONS, iterations, EPOCHS),
        muscle_epochs=_epochs(MUSCLE_ITERATIONS, math.ceil(n_candidates / MUSCLE_BATCH), MUSCLE_EPOCHS),
        stops_early=options.stopping != "none" and len(fingerprint.cases) >= FEWEST_CASES,
    )


def _epochs(total: int, iterations: int, bounds: tuple[int, int]) -> int:
    """As many passes as make up ``total`` iterations, within bounds."""
    low, high = bounds
    return min(max(round(total / iterations), low), high)


def _has_muscle(options: EDDMuscleOptions) -> bool:
    """Whether MUSCLE Net follows; cross-fitting is for it alone."""
    muscle = options.network == "edd" and options.muscle
    if options.cross_fitting and not muscle:
        alone = "planner.muscle=false" if options.network == "edd" else f"planner.network={options.network}"
        raise AutosegError(
            "cross-fitting is for MUSCLE Net, and the plan has none",
            found=f"planner.cross_fitting=true with {alone}",
            fix="leave one of them out",
        )
    return muscle


def _receptive_field(options: EDDMuscleOptions) -> int:
    """In pixels; where it can be chosen and is not, that of the patch's highest Dice, the larger of equal ones."""
    wanted, published = options.receptive_field, TABLE_3[options.patch_size]
    if options.network in COMPARATORS:
        field = COMPARATORS[options.network].receptive_field
        if wanted not in (None, field):
            raise AutosegError(
                f"the network '{options.network}' has a receptive field of {field} pixels, as published",
                found=f"planner.receptive_field={wanted}",
                fix="leave planner.receptive_field out; with edd and deconvnet it can be chosen",
            )
        return field
    if wanted is None:
        return max(published, key=lambda field: (published[field], field))
    if wanted not in published:
        pairs = "; ".join(
            f"patch {patch}: {', '.join(map(str, fields))}" for patch, fields in TABLE_3.items()
        )
        raise AutosegError(
            f"the paper has no receptive field of {wanted} pixels with patches of {options.patch_size}",
            found=f"planner.patch_size={options.patch_size}, planner.receptive_field={wanted}",
            expected=f"a pair of Table 3: {pairs}",
            fix="choose one of these, or leave planner.receptive_field out for the best one of the patch",
        )
    return wanted


def _size(options: EDDMuscleOptions, field: int) -> Cost:
    if options.network in COMPARATORS:
        return COMPARATORS[options.network].size
    return DECONVNETS[field].edd if options.network == "edd" else DECONVNETS[field].single


def _choose_width(options: EDDMuscleOptions, size: Cost, budget_gb: float) -> int:
    """The width that was set, or the largest of :data:`WIDTHS` that fits."""
    widths = WIDTHS if options.width is None else (options.width,)
    for width in widths:
        if (need := memory_gb(options, size, width)) <= budget_gb:
            return width
    raise AutosegError(
        f"{options.network} does not fit the memory",
        found=f"{budget_gb:g} GB",
        expected=f"at least {math.ceil(10 * need) / 10:g} GB, for width {width} and batches of "
        f"{options.batch_size} patches of {options.patch_size} x {options.patch_size} pixels",
        fix="give -gpu_memory_target a larger number, or planner.batch_size"
        + (" or planner.width" if options.width else "")
        + " a smaller one",
    )


def memory_gb(options: EDDMuscleOptions, size: Cost, width: int) -> float:
    """Memory of a training step in float32."""
    return size.gb(options.batch_size * options.patch_size**2, width)


def _network(options: EDDMuscleOptions, field: int, width: int) -> Named:
    if options.network in COMPARATORS:
        return Named(name=COMPARATORS[options.network].registered, arguments={"width": width})
    arguments: dict[str, Any] = {"stacks": list(DECONVNETS[field].stacks), "width": width}
    if options.network == "edd":
        arguments |= {"branches": 2, "fusion": "mean_logits", "output": "refined"}
    return Named(name=options.network, arguments=arguments)


PLANNER = Planner(
    name="edd_muscle",
    summary="EDD Net and MUSCLE Net: acute lesions in thick DWI slices, small findings judged again",
    match=match,
    plan=plan,
    options=EDDMuscleOptions,
)
