"""The planner ``deepmedic``: stroke on perfusion maps, two resolutions at once.

Perez Malla, Valdes Hernandez, Rachmadi, Komura, "Evaluation of enhanced learning techniques for segmenting ischaemic
stroke lesions in brain magnetic resonance perfusion images using a convolutional neural network scheme", Frontiers in
Neuroinformatics 13:33 (2019), doi 10.3389/fninf.2019.00033; its experiments E0 to E5. Where the paper and its first
author's code differ, the plan's reasons say which of them it follows; docs/families/deepmedic.md has the list.
"""

from __future__ import annotations

import re
from typing import Any

from autoseg.errors import AutosegError, nearest_names
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
    PostStep,
    Preprocessing,
    Recipe,
    Sampling,
    Stage,
    Validation,
    replan,
)
from autoseg.planners._deepmedic_experiments import EXPERIMENTS, experiment_channels, with_experiment
from autoseg.planners._deepmedic_reasons import reasons
from autoseg.planners._deepmedic_settings import (
    CONTEXT,
    EPOCHS,
    EPS,
    FAITHFUL_TILE,
    HALO,
    HEAD_MM,
    L1,
    L2,
    LAST_RATE,
    LESION_SHARE,
    PATCH,
    QUICK_BATCH,
    QUICK_COMMON,
    QUICK_MAPS,
    RADIUS,
    RHO,
    SAMPLE_SIZE,
    SAMPLES,
    SCALE,
    SEGMENTS,
    SHIFT,
    SPACING_MM,
    SUB_EPOCHS,
    SUBJECTS,
    VALIDATE_EVERY,
    DeepMedicChoice,
    DeepMedicOptions,
    batch_for,
    chunk_for,
)
from autoseg.planners._memory import DEFAULT_MEMORY_GB
from autoseg.plugins.planner import Budget, Match, Planner, Verdict

MAPS = {"ADC": r"adc", "MTT": r"mtt", "rCBF": r"cbf"}
"""What the study's network sees, and how the names of such channels read."""
PERFUSION = r"cbf|cbv|mtt|ttp|tmax"

# ------------------------------------------------------------------------------------------------ whether it fits


def match(fingerprint: Fingerprint) -> Match:
    """Made for ADC and perfusion maps of strokes in human heads, with one kind of lesion."""
    names, found = fingerprint.channel_names, study_maps(fingerprint.channel_names)
    perfusion = [name for name in names if re.search(PERFUSION, name.casefold())]
    if not perfusion or len(names) < 2:
        return Match(
            Verdict.POSSIBLE,
            ("made for ADC and perfusion maps of strokes",),
            (f"channels {', '.join(names)}" if len(names) > 1 else f"one channel ({names[0]})",),
        )
    foreground = [name for name in fingerprint.labels if name not in ("background", "ignore")]
    missing = [kind for kind in MAPS if kind not in found]
    misfits = (
        f"no {' and no '.join(missing)}" if missing else "",
        f"{count_of(len(foreground), 'label')} instead of one kind of lesion" if len(foreground) > 1 else "",
        "" if is_head(fingerprint) else "scans that are no human heads by their size",
        "" if mask_channel(names) else "no TTP to tell the brain by",
    )
    against = tuple(text for text in misfits if text)
    reason = f"{count_of(len(perfusion), 'perfusion map')}" + (" and ADC" if "ADC" in found else "")
    return Match(Verdict.FITS if against else Verdict.MADE_FOR_IT, (reason,), against)


def study_maps(names: list[str]) -> dict[str, str]:
    """ADC, MTT and rCBF to the first channel of each kind."""
    found = {}
    for kind, pattern in MAPS.items():
        channel = next((name for name in names if re.search(pattern, name.casefold())), None)
        if channel is not None:
            found[kind] = channel
    return found


def mask_channel(names: list[str]) -> str:
    """The channel whose voxels above 0 are the brain; empty without one."""
    return next((name for name in names if "ttp" in name.casefold()), "")


def is_head(fingerprint: Fingerprint) -> bool:
    """Whether the longest edge of the median scan is that of a human head."""
    low, high = HEAD_MM
    return low <= max(entry.median or 0.0 for entry in fingerprint.summary.extent_mm) <= high


# ------------------------------------------------------------------------------------------------ the plan


def plan(fingerprint: Fingerprint, budget: Budget, options: DeepMedicOptions) -> Plan:
    """Configure the method for a dataset.

    Raises:
        AutosegError: channels that are asked for and not there.
    """
    choice = decide(fingerprint, budget, options)
    full = Plan(
        planner="deepmedic",
        planner_options=_recorded(options),
        trainer="deepmedic",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        regions_class_order=fingerprint.regions_class_order,
        preprocessing=_preprocessing(fingerprint, choice),
        networks={"main": Named(name="deepmedic")},
        recipe=Recipe(
            stages=[with_experiment(_stage(options, choice), options)],
            fusion=Named(name="mean_probabilities"),
            postprocessing=_steps(fingerprint, options) if choice.one_lesion else [],
            inference=_inference(options, choice),
            validation=Validation(
                cases="all", every=VALIDATE_EVERY, samples=SAMPLES, sample_size=list(SAMPLE_SIZE)
            ),
        ),
        reasons=reasons(fingerprint, options, choice, match(fingerprint), quick=budget.quick),
    )
    return replan(full, _quick_changes(), QUICK) if budget.quick else full


FIRST_OPTIONS = {"channels", "mask", "schedule", "inference", "decision", "border"}
"""Those of the first version, which are always recorded."""


def _recorded(options: DeepMedicOptions) -> dict[str, Any]:
    """The options for the plan; later ones where they are not as usual, so that plans from before stay the same."""
    usual = DeepMedicOptions().model_dump(mode="json")
    found = options.model_dump(mode="json")
    return {name: value for name, value in found.items() if name in FIRST_OPTIONS or value != usual[name]}


def _quick_changes() -> dict[str, Any]:
    """A narrow network, as far as its arguments go."""
    arguments = {"feature_maps": list(QUICK_MAPS), "common_maps": list(QUICK_COMMON)}
    return {"networks.main.arguments": arguments, "stages.train.batch_size": QUICK_BATCH}


def _preprocessing(fingerprint: Fingerprint, choice: DeepMedicChoice) -> Preprocessing:
    inside = "inside_mask" if choice.mask else "inside_nonzero"
    return Preprocessing(
        crop_to_nonzero=False,
        spacing_mm=(SPACING_MM,) * 3 if choice.is_head else (None, None, None),
        normalisation=[Normalisation(scheme="zscore", **{inside: True}) for _ in fingerprint.channel_names],
        image_order=3,
        label_order=0,
        separate_axis_ratio=1000.0,  # one interpolation for thick slices too
        mask=MaskRole(channel=choice.mask, dilation=1, fill_holes=True) if choice.mask else None,
    )


def _stage(options: DeepMedicOptions, choice: DeepMedicChoice) -> Stage:
    lr = EXPERIMENTS[options.experiment].lr
    end_factor = LAST_RATE / lr if options.schedule == "text" else LAST_RATE
    optimiser = {"lr": lr, "rho": RHO, "eps": EPS, "l1": L1, "l2": L2}
    flip = (
        []
        if choice.left_right is None
        else [Named(name="flip", arguments={"axis": choice.left_right, "p": 0.5})]
    )
    noise = Named(name="channel_shift_scale", arguments={"shift_deviation": SHIFT, "scale_deviation": SCALE})
    return Stage(
        name="train",
        channels=list(choice.channels),
        patch_size=[PATCH] * 3,
        context=[CONTEXT] * 3,
        batch_size=choice.batch,
        epochs=EPOCHS,
        iterations_per_epoch=SUB_EPOCHS * (SEGMENTS // choice.batch),
        loss=Named(name="dice_ce", arguments={"dice_weight": 0.0, "deep_supervision": False}),
        optimiser=Named(name="rmsprop_nesterov", arguments=optimiser),
        schedule=Named(name="exponential", arguments={"end_factor": end_factor}),
        sampling=Sampling(
            name="sub_epochs",
            foreground_share=LESION_SHARE,
            arguments={"segments": SEGMENTS, "subjects": SUBJECTS},
        ),
        augmentation=Augmentation(name="none", mirror_axes=(), transforms=[*flip, noise]),
    )


def _steps(fingerprint: Fingerprint, options: DeepMedicOptions) -> list[PostStep]:
    """All learn; the one that is chosen is applied. Thresholds decide anew, so that they come last."""
    value = LabelSet.from_labels(fingerprint.labels, fingerprint.regions_class_order).values[0][0]
    further = {} if value == 1 else {"value": value}
    closing = {"radius": RADIUS, "border": options.border, **further}
    chosen = {"fh": "closing", "tht0": "threshold_precision_recall", "tht1": "threshold_youden"}
    arguments = {"closing": closing, "threshold_precision_recall": further, "threshold_youden": further}
    return [
        PostStep(name=name, arguments=values, fit="validation", apply=chosen.get(options.decision) == name)
        for name, values in arguments.items()
    ]


def _inference(options: DeepMedicOptions, choice: DeepMedicChoice) -> Inference:
    faithful = options.inference == "faithful"
    return Inference(
        patch_size=[FAITHFUL_TILE] * 3 if faithful else list(choice.chunk),
        context=[CONTEXT] * 3,
        tiles="flush" if faithful else "chunks",
        halo=[] if faithful else [HALO] * 3,
        gaussian=False,
        mirror_axes=(),
    )


# ------------------------------------------------------------------------------------------------ what is chosen


def decide(fingerprint: Fingerprint, budget: Budget, options: DeepMedicOptions) -> DeepMedicChoice:
    """Channels, mask, grid, batch and chunks.

    Raises:
        AutosegError: see :func:`plan`.
    """
    names, head = fingerprint.channel_names, is_head(fingerprint)
    found = study_maps(names)
    wanted = options.channels or (list(found.values()) if len(found) == len(MAPS) else [])
    _refuse_unknown(wanted, names, "channels")
    _refuse_unknown([] if options.other_map == "auto" else [options.other_map], names, "other_map")
    wanted = experiment_channels(names, wanted, options)
    mask = mask_channel(names) if options.mask == "auto" else "" if options.mask == "none" else options.mask
    _refuse_unknown([mask] if mask else [], names, "mask")
    entries = fingerprint.summary.extent_mm if head else fingerprint.summary.shape
    z, y, x = (max(1, round((entry.median or 1.0) / (SPACING_MM if head else 1))) for entry in entries)
    budget_gb = budget.memory_gb or DEFAULT_MEMORY_GB
    labels = LabelSet.from_labels(fingerprint.labels, fingerprint.regions_class_order)
    return DeepMedicChoice(
        channels=() if wanted == names else tuple(wanted),
        mask=mask,
        is_head=head,
        shape=(z, y, x),
        chunk=chunk_for((z, y, x), budget_gb),
        batch=batch_for(budget_gb),
        left_right=left_right_axis(fingerprint),
        budget_gb=budget_gb,
        one_lesion=labels.n_outputs == 2 and not labels.has_regions,
    )


def left_right_axis(fingerprint: Fingerprint) -> int | None:
    """The array axis (0, 1, 2 for z, y, x) from left to right; None where cases do not agree."""
    stored = {case.orientation for case in fingerprint.cases}
    orientation = fingerprint.orientation or (stored.pop() if len(stored) == 1 else "")
    at = [index for index, letter in enumerate(orientation or "") if letter in "LR"]
    return 2 - at[0] if len(at) == 1 else None


def _refuse_unknown(wanted: list[str], names: list[str], option: str) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise AutosegError(
            f"planner.{option} names a channel that is not there",
            found=", ".join(unknown),
            expected=", ".join(names),
            fix=nearest_names(unknown[0], names),
        )


PLANNER = Planner(
    name="deepmedic",
    summary="DeepMedic, two resolutions at once: stroke on perfusion maps",
    match=match,
    plan=plan,
    options=DeepMedicOptions,
)
