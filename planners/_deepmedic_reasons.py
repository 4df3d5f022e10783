"""Why the planner ``deepmedic`` decided as it did.

"The study" is Perez Malla et al. 2019; see :mod:`autoseg.planners.deepmedic`.
"""

from __future__ import annotations

from autoseg.fingerprint import Fingerprint
from autoseg.plan import Reason
from autoseg.planners._deepmedic_experiments import EXPERIMENTS, frozen_layers, starts_from
from autoseg.planners._deepmedic_settings import (
    BATCH,
    CONTEXT,
    EPOCHS,
    FAITHFUL_TILE,
    HALO,
    LAST_RATE,
    PATCH,
    QUICK_BATCH,
    RADIUS,
    SAMPLES,
    SCALE,
    SEGMENT,
    SEGMENTS,
    SHIFT,
    SPACING_MM,
    SUB_EPOCHS,
    SUBJECTS,
    VALIDATE_EVERY,
    DeepMedicChoice,
    DeepMedicOptions,
    training_gb,
)
from autoseg.plugins.planner import Match, Verdict

Row = tuple[str, str, str]
"""What was decided, its value, and why."""

AXES = "zyx"
DECISIONS = {
    "base": ("the likelier class (Base)", "set; the study's starting point"),
    "tht0": (
        "a threshold by precision and recall (THT0)",
        "set; about the Dice of Base in the study, more sensitive",
    ),
    "tht1": (
        "a threshold by true and false positive rate (THT1)",
        "set; in the study it finds nearly every lesion voxel and predicts far too much (Dice 0.12 of 0.29)",
    ),
    "fh": (
        "the likelier class after closing (FH)",
        "the best of the study's four (Dice 0.32 of 0.29); thresholds are learned too and can be asked for",
    ),
}


def reasons(
    fingerprint: Fingerprint, options: DeepMedicOptions, choice: DeepMedicChoice, fit: Match, *, quick: bool
) -> list[Reason]:
    """One reason for each decision, then notes on how the data differ from the study's."""
    rows = [
        _configuration(options),
        *_preprocessing(choice),
        (
            "networks.main",
            "DeepMedic, two resolutions",
            "as the study ran it; 1 051 088 parameters with 3 channels",
        ),
        *_training(options, choice),
        _memory(fingerprint, choice, quick),
        *_going_on(options),
        _prediction(options, choice),
        _decision(options, choice),
        (
            "recipe.validation",
            f"{SAMPLES} segments after each epoch, all validation scans every {VALIDATE_EVERY}",
            "as the study, which took segments after each sub-epoch; they are for curves, no weights are chosen",
        ),
        *_notes(fit),
    ]
    return [Reason(what=what, value=value, why=why) for what, value, why in rows]


def _configuration(options: DeepMedicOptions) -> Row:
    name = options.experiment
    if name == "E0":
        return "configuration", name, "the study's first experiment: from scratch, without clones"
    return "configuration", name, f"an experiment of the study: {EXPERIMENTS[name].what}"


def _going_on(options: DeepMedicOptions) -> list[Row]:
    """What E2 to E5 take over, and what of it trains."""
    rows, starts, layers = [], starts_from(options), frozen_layers(options)
    if EXPERIMENTS[options.experiment].clones:
        first = options.experiment == "E1"
        why = "as the study: their lesion voxels are drawn anew, by mean and deviation"
        more = "" if first else "; that E2 to E5 keep the clones of E1 follows from its software"
        rows.append(("recipe.stages.0.sampling.clones", "one of each training case", why + more))
    if starts:
        best = len(starts) > 1
        why = (
            "set: the study's pairs, the better of what is trained by its Dice of the validation cases; the optimiser "
            "begins anew"
            if best
            else "as the study; the optimiser and the epochs begin anew"
        )
        names = ", ".join(str(entry["experiment"]) for entry in starts)
        rows.append(("recipe.stages.0.start", f"the best of {names}" if best else names, why))
    if layers:
        set_by = "set" if options.frozen_layers is not None else "as the study"
        why = f"{set_by}: no update of weights, slopes and normalisation; its running statistics go on"
        told = ", ".join(map(str, layers))
        rows.append(("recipe.stages.0.frozen", f"layers {told} of both pathways", why))
    return rows


def _preprocessing(choice: DeepMedicChoice) -> list[Row]:
    grid = (
        (f"{SPACING_MM:.4f} mm", "as the study: 1 mm, then a factor of 0.7, here in one interpolation")
        if choice.is_head
        else ("as in each case", "the study's 1.43 mm are of human heads")
    )
    inside = (
        ("z-score inside the mask, 0 outside", "as the study's software")
        if choice.mask
        else (
            "z-score of the voxels that are not 0",
            "there is no mask; the study takes the brain by TTP above 0",
        )
    )
    rows = [
        ("preprocessing.spacing_mm", *grid),
        ("preprocessing.normalisation", *inside),
        (
            "preprocessing.crop_to_nonzero",
            "no",
            "patches around voxels at the edge of the brain need what lies beyond",
        ),
    ]
    if choice.mask:
        rows.append(
            (
                "preprocessing.mask",
                f"{choice.mask} above 0, grown by one voxel, holes filled",
                "as the study says; the size of the growth is not stated",
            )
        )
    return rows


def _training(options: DeepMedicOptions, choice: DeepMedicChoice) -> list[Row]:
    channels = ", ".join(choice.channels) or "all"
    seen = (
        "as the study, which had memory for three maps" if choice.channels and not options.channels else "set"
    )
    if EXPERIMENTS[options.experiment].other_map:
        seen = "as the study: another map in the place of rCBF, whose filters it takes over"
    text = options.schedule == "text"
    ends = f"to {LAST_RATE:g}" if text else f"to {EXPERIMENTS[options.experiment].lr * LAST_RATE:g}"
    why = (
        "as the study says; its software read the number as a share of the first rate and ended at 1e-7"
        if text
        else "set: as the study's models were trained; three quarters of their training ran below 1e-4"
    )
    flip = (
        ("left and right swapped for half of the patches", "as the study")
        if choice.left_right is not None
        else ("none", "the files do not agree on where left and right are")
    )
    fits = (
        "as the study"
        if choice.batch == BATCH
        else f"{BATCH} in the study; {choice.budget_gb:g} GB hold no more"
    )
    stage = "recipe.stages.0"
    return [
        (
            f"{stage}.channels",
            channels,
            seen if choice.channels else "none of the study's three maps are there together",
        ),
        (
            f"{stage}.patch_size",
            f"{PATCH} x {PATCH} x {PATCH} voxels, {CONTEXT} more seen on each side",
            f"segments of {SEGMENT} voxels as in the study; the coarse pathway sees every third voxel around them",
        ),
        (f"{stage}.batch_size", f"{choice.batch}", fits),
        (
            f"{stage}.epochs",
            f"{EPOCHS}",
            f"as the study, each {SUB_EPOCHS} sub-epochs of {SEGMENTS} segments",
        ),
        (f"{stage}.loss", "cross-entropy", "as the study: no weights, no Dice"),
        (
            f"{stage}.optimiser",
            "RMSProp with Nesterov momentum, L1 and L2 of the convolutions",
            f"as the study; the rate falls {ends}: {why}",
        ),
        _sampling(options),
        (f"{stage}.augmentation", *flip),
        (
            f"{stage}.augmentation.transforms",
            f"intensities shifted by {SHIFT:g} and scaled by {SCALE:g} (standard deviations)",
            "as the study, for each segment and channel",
        ),
    ]


def _sampling(options: DeepMedicOptions) -> Row:
    where, half = "recipe.stages.0.sampling", "half of the segments around lesion voxels"
    if not EXPERIMENTS[options.experiment].errors:
        why = f"as the study: the rest around background of the brain, dealt out over up to {SUBJECTS} cases"
        return where, half, why
    if options.error_maps:
        why = "as the study says; its own models were never trained so, as its software left the maps out"
        return where, f"{half}, of both kinds rather where the start errs", why
    return where, half, "set: as the study's software ran E2, without the error maps that the study speaks of"


def _memory(fingerprint: Fingerprint, choice: DeepMedicChoice, quick: bool) -> Row:
    batch, channels = (
        QUICK_BATCH if quick else choice.batch,
        len(choice.channels or fingerprint.channel_names),
    )
    gb = training_gb(batch, channels, quick)
    why = (
        f"of {choice.budget_gb:g} GB (-gpu_memory_target), counted for {batch} segments of {SEGMENT} voxels in "
        "float32; mixed precision, the default on CUDA, takes less, and a chunk of the prediction more"
    )
    return "memory", f"about {gb:.1f} GB", why


def _prediction(options: DeepMedicOptions, choice: DeepMedicChoice) -> Row:
    if options.inference == "faithful":
        return (
            "recipe.inference",
            f"tiles of {FAITHFUL_TILE} voxels, the last flush with the border",
            "set: as the software; voxels depend on where their tile lies",
        )
    chunk = " x ".join(str(n) for n in choice.chunk)
    return (
        "recipe.inference",
        f"chunks of {chunk} voxels with a halo of {HALO}",
        "equal to one pass over the whole image, whatever the chunks; those of the software differ at their rims and "
        "in where the coarse pathway starts",
    )


def _decision(options: DeepMedicOptions, choice: DeepMedicChoice) -> Row:
    if not choice.one_lesion:
        return "recipe.postprocessing", "none", "the study's steps are for one kind of lesion"
    value, why = DECISIONS[options.decision]
    if options.decision == "fh":
        kept = "set: as the study's software" if options.border == "scipy" else "lesions at the border stay"
        value += f", a ball of {RADIUS} voxels, border {options.border} ({kept})"
    return "recipe.postprocessing", value, why


def _notes(fit: Match) -> list[Row]:
    if fit.verdict is Verdict.MADE_FOR_IT:
        return []
    return [("note: data", "not the published kind", ", ".join(fit.against))]
