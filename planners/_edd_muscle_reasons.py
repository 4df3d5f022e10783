"""Why the planner ``edd_muscle`` decided as it did.

"The paper" is Chen, Bentley and Rueckert 2017; see :mod:`autoseg.planners.edd_muscle`.
"""

from __future__ import annotations

import math

from autoseg import messages
from autoseg.dataset.folds import N_FOLDS
from autoseg.fingerprint import Fingerprint
from autoseg.messages import count_of
from autoseg.plan import Reason
from autoseg.planners._edd_muscle_settings import (
    CANDIDATES_PER_CASE,
    COMPARATORS,
    EPOCHS,
    FEWEST_CASES,
    FULL_SLICE_PX,
    HELD_BACK,
    ITERATIONS,
    MUSCLE_EPOCHS,
    MUSCLE_ITERATIONS,
    MUSCLE_NET,
    PATIENCE,
    TABLE_3,
    TRAINED_SHARE,
    WIDTHS,
    EDDMuscleChoice,
    EDDMuscleOptions,
    small_px,
)
from autoseg.plugins.planner import Match, Verdict

AXES = "zyx"

Row = tuple[str, str, str]
"""What was decided, its value, and why."""


def reasons(
    fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice, fit: Match
) -> list[Reason]:
    """One reason for each decision, then notes on how the data differ from the paper's."""
    rows = [
        _configuration(options, choice),
        *_preprocessing(fingerprint, options),
        _network(options, choice),
        *_first_stage(fingerprint, options, choice),
        _memory(options, choice),
        *(_second_network(fingerprint, options, choice) if choice.muscle else []),
        *_prediction(fingerprint, options, choice),
        *_notes(fingerprint, options, choice, fit),
    ]
    return [Reason(what=what, value=value, why=why) for what, value, why in rows]


def _configuration(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Row:
    if choice.muscle:
        value = "EDD Net, then MUSCLE Net"
        why = (
            "EDD Net segments slices, MUSCLE Net judges the small findings: in the paper 3.27 instead of 5.89 false "
            "components in a test scan, Dice 0.67 instead of 0.63"
        )
    elif options.network == "edd":
        value, why = "EDD Net alone", "set; in the paper its test Dice was 0.63, with MUSCLE Net 0.67"
    else:
        value, why = f"{_title(options)} alone", "set; a network of the paper's comparison"
    return "configuration", value, why


def _title(options: EDDMuscleOptions) -> str:
    if options.network in COMPARATORS:
        return COMPARATORS[options.network].title
    return {"edd": "EDD Net", "deconvnet": "DeconvNet"}[options.network]


def _preprocessing(fingerprint: Fingerprint, options: EDDMuscleOptions) -> list[Row]:
    axes, published = fingerprint.summary.slices_first, options.spacing_mm == 1.6
    return [
        (
            "preprocessing.transpose",
            ", ".join(AXES[axis] for axis in axes),
            "the slices come first" if axes == (0, 1, 2) else f"the slices lie along {AXES[axes[0]]}",
        ),
        ("preprocessing.crop_to_nonzero", "no", "whole slices, as published"),
        (
            "preprocessing.spacing_mm",
            f"pixels of {options.spacing_mm:g} mm, slices as they are",
            f"{'as published' if published else 'set; 1.6 mm in the paper'}; the networks see one slice at a time",
        ),
        (
            "preprocessing.normalisation",
            "z-score of the whole volume",
            "each image, as published; no brain mask is mentioned, so air counts. Before the resampling to pixels of "
            "1.6 mm, the paper after it: interpolation leaves an SD a little below 1 (0.985 to 0.997 in a DWI dataset)",
        ),
        (
            "preprocessing.image_order",
            "linear",
            "as published for images; lesion is what is at least half lesion",
        ),
    ]


def _network(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Row:
    field, width = choice.receptive_field, choice.network.arguments["width"]
    if options.network == "edd":
        what = f"two DeconvNets with a receptive field of {field} pixels, fused, refined beside the image"
    else:
        what = f"receptive field {field} pixels"
    if width == WIDTHS[0]:
        words = f"width {width} as in the paper's figures"
    elif options.width is not None:
        words = f"width {width} as set, {WIDTHS[0]} otherwise"
    else:
        words = (
            f"width {width} because {WIDTHS[0]}, as in the paper, does not fit {choice.budget_gb:g} GB with batches of "
            f"{options.batch_size}; it would with a smaller planner.batch_size"
        )
    value = f"{_title(options)}, receptive field {field}, width {width}"
    return "networks.main", value, f"{what}; {words}"


# ------------------------------------------------------------------------------------------------ training


def _first_stage(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice) -> list[Row]:
    stage = "recipe.stages.0"
    outputs = " of the refined, the fused and both branches' outputs, equally weighed"
    return [
        _patch(options, choice),
        (
            f"{stage}.batch_size",
            str(options.batch_size),
            "not in the paper" if options.batch_size == 128 else "set; not in the paper",
        ),
        _length(choice),
        *_stopping(fingerprint, options, choice),
        (
            f"{stage}.loss",
            "cross-entropy",
            f"cross-entropy{outputs * (options.network == 'edd')}, as published",
        ),
        (f"{stage}.optimiser", "SGD, lr 0.05, momentum 0.9, constant", "as published, without weight decay"),
        (
            f"{stage}.sampling",
            "one patch for every lesion pixel",
            "one patch for every lesion pixel, which lies anywhere in it, as published; beyond the slice lies the "
            "smallest intensity of the volume",
        ),
        (
            f"{stage}.augmentation",
            "turned by any angle, flipped left-right",
            "turned (by any angle: the paper names none) and flipped, as published, nothing else; taken from the "
            "slice, so without empty corners",
        ),
    ]


def _patch(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Row:
    patch, field = options.patch_size, choice.receptive_field
    dice = {(p, f): d for p, fields in TABLE_3.items() for f, d in fields.items()}
    best = max(dice, key=dice.__getitem__)
    if options.network in COMPARATORS:
        why = "as in the paper's comparison" if patch == 64 else "set; 64 in the paper's comparison"
    elif (patch, field) == best:
        why = (
            f"{patch} with a receptive field of {field} had the highest test Dice of the paper's Table 3, "
            f"{dice[best]}; patches of 128 missed more lesions (Dice 0.47 to 0.48), those of 32 found more than five "
            "times as many false ones (Dice 0.36)"
        )
    else:
        why = (
            f"set; with a receptive field of {field} the test Dice was {dice[patch, field]} in the paper's Table 3, "
            f"the best ({best[0]} with {best[1]}) {dice[best]}"
        )
    return "recipe.stages.0.patch_size", f"{patch} x {patch}", why


def _length(choice: EDDMuscleChoice) -> Row:
    low, high = EPOCHS
    bound = {low: f", at least {low} epochs", high: f", at most {high} epochs"}.get(choice.epochs, "")
    why = (
        f"about {ITERATIONS} batches{bound} (not in the paper): {choice.iterations} in an epoch, for "
        f"{TRAINED_SHARE:.0%} of {sum(choice.lesions_px):.0f} lesion pixels"
    )
    return "recipe.stages.0.epochs", f"{choice.epochs} passes", why


def _stopping(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice) -> list[Row]:
    """When the first stage ends before that, and which cases say so."""
    if options.stopping == "none":
        return [("recipe.stages.0.patience", "all epochs", "set: all training cases train, none ends it")]
    if not choice.stops_early:
        why = f"{len(fingerprint.cases)} cases are too few (under {FEWEST_CASES}) to hold some back"
        return [("recipe.stages.0.patience", "all epochs", why)]
    why = (
        "of all cases that stop it; the best weights for them count (the paper does not say when it stopped)"
    )
    return [
        ("recipe.stages.0.patience", f"{PATIENCE} epochs without a better Dice", why),
        ("recipe.stages.0.leave_out", *_held_back(len(fingerprint.cases), options)),
    ]


def _held_back(n_cases: int, options: EDDMuscleOptions) -> tuple[str, str]:
    """Which cases stop the first stage, and how many train, stop and score."""
    score = math.ceil(n_cases / N_FOLDS)
    stop = math.ceil((n_cases - score) / HELD_BACK[1])
    counts = (
        f"{n_cases - score - stop} of {n_cases} cases train, {stop} stop, {score} score in one of five folds"
    )
    if options.stopping == "held_back":
        return "one training case in five", f"set; {counts}, with a test part or without"
    return (
        "one training case in five, in folds without a test part",
        f"{counts}, whose scores stay honest so; in a fold with a test part all its training cases train, as "
        "published, its validation part stops, and the test part scores",
    )


def _memory(options: EDDMuscleOptions, choice: EDDMuscleChoice) -> Row:
    edge = options.patch_size
    why = (
        f"of {choice.budget_gb:g} GB (-gpu_memory_target), counted for {options.batch_size} patches of {edge} x {edge} "
        "pixels in float32; mixed precision, the default on CUDA, takes less"
    )
    return "memory", f"about {choice.memory_gb:.1f} GB", why


def _second_network(
    fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice
) -> list[Row]:
    n_stages = 4 if options.cross_fitting else 2
    stage, (low, high) = f"recipe.stages.{n_stages - 1}", MUSCLE_EPOCHS
    small = small_px(options.spacing_mm)
    windows = MUSCLE_NET["image_windows_px"]
    n_channels = len(windows) * len(fingerprint.channel_names) + len(MUSCLE_NET["probability_windows_px"])
    parts = [
        (
            f"recipe.stages.{k}.leave_out",
            "one half of the cases",
            "it finds the candidates of these cases and is not used otherwise",
        )
        for k in range(1, n_stages - 1)
    ]
    return [
        (
            "networks.muscle",
            "MUSCLE Net, 16 x 16 pixels",
            f"sees windows of {', '.join(map(str, windows))} pixels around a candidate (the paper does not name "
            f"its three scales) and EDD Net's probability in the first, each as 16 x 16: {n_channels} channels",
        ),
        _cross_fitting(options),
        *parts,
        (f"{stage}.patch_size", "16 x 16", "as in the paper's figures"),
        (f"{stage}.batch_size", "128", "not in the paper"),
        (
            f"{stage}.epochs",
            f"{choice.muscle_epochs} passes",
            f"about {MUSCLE_ITERATIONS} batches (not in the paper) with {CANDIDATES_PER_CASE} candidates in a "
            f"case, which is a guess; {low} to {high} epochs",
        ),
        (f"{stage}.loss", "cross-entropy", "cross-entropy, as published"),
        (f"{stage}.optimiser", "SGD, lr 0.05, momentum 0.9, constant", "as for EDD Net"),
        (
            f"{stage}.sampling",
            f"what EDD Net finds, up to {small} pixels",
            f"what EDD Net finds in a slice, up to {small} pixels as 99 % of its false components in the "
            "paper's validation; half of a batch real, half false, which the prediction corrects for",
        ),
        (
            f"{stage}.augmentation",
            "flips and quarter turns",
            "the sampling flips and makes quarter turns; the paper says nothing",
        ),
    ]


def _cross_fitting(options: EDDMuscleOptions) -> Row:
    fewer = "where it makes fewer false components (in the paper 3.78 in a scan, 5.67 in validation)"
    if options.cross_fitting:
        value = "two EDD Nets, each without half of the cases"
        why = (
            "set: they find the candidates in the cases that they have not seen, instead of EDD Net in those that it "
            f"has learnt from, {fewer}; training takes about twice as long"
        )
    else:
        value = "off"
        why = (
            f"as published: MUSCLE Net learns from the cases that EDD Net has learnt from, {fewer}; "
            "planner.cross_fitting=true avoids that and takes about twice as long"
        )
    return "cross-fitting", value, why


# ------------------------------------------------------------------------------------------------ prediction, notes


def _prediction(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice) -> list[Row]:
    rows, columns = _slice_px(fingerprint, options)
    small = small_px(options.spacing_mm)
    judged = (
        f"findings of up to {small} pixels stay, with all their pixels, when they are more likely real than not, by "
        "Bayes' rule (no formula in the paper), larger ones always; postprocessing.muscle=off gives EDD Net alone"
    )
    return [
        _field_of_view(options, rows, columns),
        (
            "recipe.precision",
            "float32, on CUDA mixed precision",
            "not in the paper; --set precision=float32 trains and predicts in float32 everywhere",
        ),
        (
            "recipe.members",
            "one",
            "as published" + "; EDD Net is an ensemble itself" * (options.network == "edd"),
        ),
        (
            "recipe.postprocessing",
            "MUSCLE Net judges small findings" if choice.muscle else "none",
            judged if choice.muscle else "no second network",
        ),
    ]


def _field_of_view(options: EDDMuscleOptions, rows: int, columns: int) -> Row:
    """How much of a slice is predicted."""
    there = f"the median slice has {rows} x {columns} pixels"
    if options.slices == "centre":
        edge = f"{FULL_SLICE_PX} x {FULL_SLICE_PX}"
        why = f"set: what the paper calls the full slice, and nothing is found beyond it; {there}"
        return "recipe.inference", f"the middle {edge} pixels of each slice, not mirrored", why
    why = f"as published; {there} (128 x 128 in the paper; planner.slices=centre sees so much of it)"
    return "recipe.inference", "whole slices, not mirrored", why


def _slice_px(fingerprint: Fingerprint, options: EDDMuscleOptions) -> tuple[int, int]:
    """Rows and columns of the median slice on the working grid."""
    extents = [entry.median or 0.0 for entry in fingerprint.summary.extent_mm]
    rows, columns = (extents[axis] / options.spacing_mm for axis in fingerprint.summary.slices_first[1:])
    return max(1, round(rows)), max(1, round(columns))


def _notes(
    fingerprint: Fingerprint, options: EDDMuscleOptions, choice: EDDMuscleChoice, fit: Match
) -> list[Row]:
    notes, sizes = [], choice.lesions_px
    if fit.verdict is not Verdict.MADE_FOR_IT:
        why = "; here ".join((*fit.reasons, ", ".join(fit.against)))
        notes.append(("note: data", "not the published kind", why))
    rows, columns = _slice_px(fingerprint, options)
    if min(rows, columns) < (edge := options.patch_size):
        value = f"larger than the slices of {rows} x {columns} pixels"
        why = f"beyond them lies the smallest intensity; planner.patch_size takes a smaller one than {edge}"
        notes.append(("note: patch", value, why))
    if choice.muscle:
        notes.append(_small_lesions(sizes, options.spacing_mm))
    if lost := sum(size < 0.999 for size in sizes):
        value = f"{lost} of {count_of(len(sizes), 'lesion')} smaller than a pixel"
        messages.warn(f"{value} of {options.spacing_mm:g} mm: they may vanish in preprocessing")
        why = "they may vanish in preprocessing; planner.spacing_mm sets a finer grid"
        notes.append(("note: lost lesions", value, why))
    return notes


def _small_lesions(sizes_px: tuple[float, ...], spacing_mm: float) -> Row:
    """How much there surely is for MUSCLE Net to learn from."""
    limit = small_px(spacing_mm)
    n, small = len(sizes_px), sum(size <= limit for size in sizes_px)
    counted = f"all slices of a lesion together, pixels of {spacing_mm:g} mm"
    if small:
        why = f"MUSCLE Net judges findings of this size ({counted})"
        return (
            "note: small lesions",
            f"{count_of(small, f'of {n} has', f'of {n} have')} at most {limit} pixels",
            why,
        )
    value = f"none of {n} has at most {limit} pixels"
    messages.warn(f"no lesion has at most {limit} pixels: MUSCLE Net has few or no small ones to learn from")
    why = (
        f"{counted}; MUSCLE Net learns from their outermost slices alone and may remove real small lesions of other "
        "patients: planner.muscle=false leaves it out"
    )
    return "note: small lesions", value, why
