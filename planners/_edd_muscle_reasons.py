"""Why the planner ``edd_muscle`` decided as it did.

"The paper" is Chen, Bentley and Rueckert 2017; see :mod:`autoseg.planners.edd_muscle`.
"""

from __future__ import annotations

from autoseg import messages
from autoseg.fingerprint import Fingerprint
from autoseg.plan import Reason
from autoseg.planners.edd_muscle import (
    CANDIDATES_PER_CASE,
    COMPARATORS,
    EPOCHS,
    FITS,
    ITERATIONS,
    MUSCLE_EPOCHS,
    MUSCLE_ITERATIONS,
    SMALL_PX,
    SMALL_SUBJECT_PX,
    TABLE_3,
    THICK,
    TRAINED_SHARE,
    WIDTHS,
    Choice,
    EDDMuscleOptions,
    match,
    slice_ratio,
    slices_first,
)

AXES = "zyx"


def reasons(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    """One reason for each decision, then notes on how the data differ from the paper's."""
    return [
        _configuration(options, choice),
        *_preprocessing(fingerprint, options),
        _network(options, choice),
        *_first_stage(options, choice),
        _memory(options, choice),
        *(_second_network(fingerprint, options, choice) if choice.muscle else []),
        *_prediction(fingerprint, options, choice),
        *_notes(fingerprint, options, choice),
    ]


def _configuration(options: EDDMuscleOptions, choice: Choice) -> Reason:
    if options.network != "edd":
        why = "set; a network of the paper's comparison, trained alone in the same way"
        return Reason(what="configuration", value=f"{_title(options)} alone", why=why)
    if not choice.muscle:
        why = "set by planner.muscle; in the paper EDD Net alone had a test Dice of 0.63, MUSCLE Net made it 0.67"
        return Reason(what="configuration", value="EDD Net alone", why=why)
    why = (
        "EDD Net finds lesions slice by slice, MUSCLE Net then judges the small ones; in the paper that left 3.27 "
        "instead of 5.89 false components in a test scan and raised the Dice from 0.63 to 0.67"
    )
    return Reason(what="configuration", value="EDD Net, then MUSCLE Net", why=why)


def _title(options: EDDMuscleOptions) -> str:
    if options.network in COMPARATORS:
        return COMPARATORS[options.network].title
    return {"edd": "EDD Net", "deconvnet": "DeconvNet"}[options.network]


def _preprocessing(fingerprint: Fingerprint, options: EDDMuscleOptions) -> list[Reason]:
    axes, mm = slices_first(fingerprint), f"{options.spacing_mm:g} mm"
    coarse = f"{AXES[axes[0]]} has the largest spacing and counts as the slices"
    ratio = slice_ratio(fingerprint)
    apart = f", and they lie {ratio:.1f} times as far apart as the pixels" if ratio >= THICK else ""
    return [
        Reason(
            what="preprocessing.transpose",
            value=", ".join(AXES[axis] for axis in axes),
            why="the slices come first" if axes == (0, 1, 2) else coarse,
        ),
        Reason(
            what="preprocessing.crop_to_nonzero",
            value="no",
            why="the networks see whole slices, as published",
        ),
        Reason(
            what="preprocessing.spacing_mm",
            value=f"pixels of {mm}, slices as they are",
            why=f"{'as published' if options.spacing_mm == 1.6 else 'set; 1.6 mm in the paper'}; slices are not "
            f"resampled: the networks see one at a time{apart}",
        ),
        Reason(
            what="preprocessing.normalisation",
            value="z-score of the whole volume",
            why="mean 0 and variance 1 in each image, as published, which mentions no brain mask: air counts",
        ),
        Reason(
            what="preprocessing.image_order",
            value="linear",
            why="as published; for masks the paper says nothing: linear, lesion from 0.5 on",
        ),
    ]


def _network(options: EDDMuscleOptions, choice: Choice) -> Reason:
    field, width = choice.receptive_field, choice.width
    if options.network == "edd":
        what = f"two DeconvNets of {field} pixels, fused, then refined beside the image; each output has its own loss"
    else:
        what = f"{_title(options)} of the paper's comparison, {field} pixels"
    layers = "" if options.network in COMPARATORS else "; of several ways to make this field the plainest"
    if width == WIDTHS[0]:
        words = f"width {width}, {'as in the paper' if options.network == 'edd' else 'that of EDD Net'}"
    elif options.width is not None:
        words = f"width {width}, as set; otherwise {WIDTHS[0]}"
    else:
        words = (
            f"width {width}, because {WIDTHS[0]} as in the paper does not fit {choice.budget_gb:g} GB with batches of "
            f"{options.batch_size}; a smaller planner.batch_size or a larger -gpu_memory_target keeps it"
        )
    return Reason(
        what="networks.main",
        value=f"{_title(options)}, receptive field {field}, width {width}",
        why=f"{what}{layers}; {words}",
    )


def _first_stage(options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    stage = "recipe.stages.0"
    outputs = "the sum over refined, fused and both branches' outputs, equally weighed, as published"
    return [
        _patch(options, choice),
        Reason(
            what=f"{stage}.batch_size",
            value=str(options.batch_size),
            why="the paper states none"
            if options.batch_size == 128
            else "set; 128 otherwise, the paper states none",
        ),
        _epochs(options, choice),
        Reason(
            what=f"{stage}.loss",
            value="cross-entropy",
            why=outputs if options.network == "edd" else "as published for single networks",
        ),
        Reason(
            what=f"{stage}.optimiser",
            value="SGD, lr 0.05, momentum 0.9, constant",
            why="as published, without weight decay; if the loss is no number any more, a lower rate is needed",
        ),
        Reason(
            what=f"{stage}.sampling",
            value="one patch for every lesion pixel",
            why="as published: the pixel lies anywhere in its patch, and no patch is without lesion; beyond the slice "
            "lies the smallest intensity of the volume",
        ),
        Reason(
            what=f"{stage}.augmentation",
            value="turned by any angle, flipped left-right",
            why="rotation and horizontal flips as published, which gives no angles; nothing else. Sampled from the "
            "slice, so that a turned patch has no empty corners",
        ),
    ]


def _patch(options: EDDMuscleOptions, choice: Choice) -> Reason:
    patch, field = options.patch_size, choice.receptive_field
    value = f"{patch} x {patch}"
    if options.network in COMPARATORS:
        why = "the patch of the paper's comparison" if patch == 64 else "set; 64 in the paper's comparison"
        return Reason(what="recipe.stages.0.patch_size", value=value, why=why)
    dice = {(p, f): d for p, fields in TABLE_3.items() for f, d in fields.items()}
    own, best = dice[patch, field], max(dice, key=dice.__getitem__)
    pairs = f"of the {len(dice)} pairs of patch and receptive field in Table 3"
    if (patch, field) == best:
        why = (
            f"{pairs} this one ({patch} and {field} pixels) had the highest test Dice, {own}; larger patches "
            "(128: 0.47 to 0.48) missed lesions, smaller ones (32: 0.36) found five to six times as many false ones"
        )
    else:
        why = f"set; {pairs} this one ({patch} and {field} pixels) had a test Dice of {own}, the best "
        why += f"({best[0]} and {best[1]}) {dice[best]}"
    return Reason(what="recipe.stages.0.patch_size", value=value, why=why)


def _epochs(options: EDDMuscleOptions, choice: Choice) -> Reason:
    batches = f"about {choice.iterations} batch{'es' * (choice.iterations > 1)}"
    trained = f"an epoch shows every lesion pixel of a fold's training cases once, {batches}"
    if options.epochs is not None:
        why = f"set; {trained}"
    else:
        low, high = EPOCHS
        bound = {low: f", at least {low} epochs", high: f", at most {high} epochs"}.get(choice.epochs, "")
        why = (
            f"the paper says neither how long it trained nor when it stopped; here {ITERATIONS} batches{bound}: "
            f"{trained} ({TRAINED_SHARE:.0%} of {choice.lesions.pixels:.0f} pixels), "
            f"{choice.epochs * choice.iterations} in all; stages.0.patience=10 ends it when the validation Dice has "
            "not grown for 10 epochs"
        )
    return Reason(what="recipe.stages.0.epochs", value=f"{choice.epochs} passes", why=why)


def _memory(options: EDDMuscleOptions, choice: Choice) -> Reason:
    edge = options.patch_size
    why = (
        f"of {choice.budget_gb:g} GB, for {options.batch_size} patches of {edge} x {edge} pixels in float32, from "
        "counted activations; mixed precision, the default on CUDA, takes less; -gpu_memory_target says how much "
        "there is"
    )
    return Reason(what="memory", value=f"about {choice.memory_gb:.1f} GB", why=why)


# ------------------------------------------------------------------------------------------------ MUSCLE Net


def _second_network(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    stage = f"recipe.stages.{3 if options.cross_fitting else 1}"
    n_channels = 3 * len(fingerprint.channel_names) + options.probability_windows
    seen = "at 16" if options.probability_windows == 1 else "at all three"
    four = "the paper's figures have four channels, its text may mean six (planner.probability_windows=3)"
    return [
        Reason(
            what="networks.muscle",
            value="MUSCLE Net, 16 x 16 pixels",
            why="a candidate with its surroundings: windows of 16, 32 and 64 pixels (the paper says three scales, not "
            f"which), each made 16 x 16, and EDD Net's probability {seen}: {n_channels} channels; {four}",
        ),
        Reason(
            what=f"{stage}.sampling",
            value=f"what EDD Net finds, up to {SMALL_PX} pixels",
            why=f"99 % of EDD Net's false components in the paper's validation scans had at most {SMALL_PX} pixels "
            "(mean 8.87); components within a slice, 8-connected, above 0.5 (the paper gives no threshold); half of "
            "each batch real, half false, corrected for in the prediction",
        ),
        _cross_fitting(options),
        _muscle_epochs(options, choice, stage),
        Reason(
            what=f"{stage}.augmentation",
            value="flips and quarter turns",
            why="by the sampling itself; the paper says nothing",
        ),
    ]


def _cross_fitting(options: EDDMuscleOptions) -> Reason:
    fewer = "3.78 a scan in the paper, 5.67 in validation"
    if options.cross_fitting:
        value = "two EDD Nets, each without half of the cases"
        why = (
            f"set: EDD Net makes fewer false components in cases that it has learnt from ({fewer}), so two more of "
            "them, used for this alone, find the candidates in the cases that they have not seen; training takes "
            "about twice as long"
        )
    else:
        value = "off"
        why = (
            "as published: MUSCLE Net learns from the cases that EDD Net has learnt from, where it makes fewer false "
            f"components ({fewer}); planner.cross_fitting=true avoids that for about twice the training time"
        )
    return Reason(what="cross-fitting", value=value, why=why)


def _muscle_epochs(options: EDDMuscleOptions, choice: Choice, stage: str) -> Reason:
    if options.muscle_epochs is not None:
        why = "set; an epoch has as many samples as there are candidates"
    else:
        low, high = MUSCLE_EPOCHS
        why = (
            f"the paper says nothing; about {MUSCLE_ITERATIONS} batches, between {low} and {high} epochs: an epoch has "
            f"as many samples as there are candidates, with {CANDIDATES_PER_CASE} a scan (a guess: nothing is found "
            f"yet) {choice.muscle_iterations} batch{'es' * (choice.muscle_iterations > 1)}"
        )
    return Reason(what=f"{stage}.epochs", value=f"{choice.muscle_epochs} passes", why=why)


# ------------------------------------------------------------------------------------------------ prediction, notes


def _prediction(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    rows, columns = _slice_px(fingerprint, options)
    found = [
        Reason(
            what="recipe.inference",
            value="whole slices, not mirrored",
            why=f"as published: trained on patches, predicting whole slices ({rows} x {columns} pixels in the median "
            "case); the networks take any size",
        ),
        Reason(
            what="recipe.members",
            value="one",
            why="as published; EDD Net is an ensemble itself" if options.network == "edd" else "as published",
        ),
    ]
    if choice.muscle:
        why = (
            f"components of at most {SMALL_PX} pixels take MUSCLE Net's judgement by Bayes' rule, larger ones stay as "
            "they are; the paper prints no formula: here a component stays when it is more likely real than not; "
            "postprocessing.muscle=off gives EDD Net alone"
        )
        found.append(
            Reason(what="recipe.postprocessing", value="MUSCLE Net judges small components", why=why)
        )
    else:
        found.append(Reason(what="recipe.postprocessing", value="none", why="no second network"))
    return found


def _slice_px(fingerprint: Fingerprint, options: EDDMuscleOptions) -> tuple[int, int]:
    """Rows and columns of the median slice on the working grid."""
    extents = [entry.median or 0.0 for entry in fingerprint.summary.extent_mm]
    rows, columns = (
        max(1, round(extents[axis] / options.spacing_mm)) for axis in slices_first(fingerprint)[1:]
    )
    return rows, columns


def _notes(fingerprint: Fingerprint, options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    notes = []
    if (fit := match(fingerprint)).score < FITS:
        notes.append(Reason(what="note: data", value="not the published kind", why=fit.reason))
    rows, columns = _slice_px(fingerprint, options)
    if min(rows, columns) < options.patch_size:
        why = (
            f"the median slice has {rows} x {columns} pixels, a patch {options.patch_size} x {options.patch_size}; "
            "beyond the slice lies the smallest intensity of the volume; planner.patch_size takes a smaller patch"
        )
        notes.append(Reason(what="note: patch", value="larger than the slices", why=why))
    return [
        *notes,
        _lesion_note(options, choice),
        _small_cases_note(choice),
        *_lost_lesions_note(options, choice),
    ]


def _lesion_note(options: EDDMuscleOptions, choice: Choice) -> Reason:
    """How much there is for MUSCLE Net to learn from."""
    n, small = len(choice.lesions.sizes_px), choice.lesions.n_small
    value = f"{small} of {n} lesions of at most {SMALL_PX} pixels"
    counted = f"all slices of a lesion together, pixels of {options.spacing_mm:g} mm"
    if not choice.muscle:
        return Reason(what="note: lesions", value=value, why=counted)
    if small:
        why = (
            f"{counted}; MUSCLE Net judges what has at most {SMALL_PX} pixels in one slice, so these are real ones for "
            "it to learn from, with the outermost slices of larger lesions"
        )
        return Reason(what="note: lesions", value=value, why=why)
    value = f"none of {n} lesion{'s' * (n > 1)} has at most {SMALL_PX} pixels"
    messages.warn(f"{value}: MUSCLE Net has few or no small lesions to learn from")
    why = (
        f"{counted}; MUSCLE Net has nothing real to learn from but the outermost slices of these lesions, and may "
        "then remove real small ones elsewhere. If the training finds no real or no false candidates it says so and "
        "goes on without MUSCLE Net; planner.muscle=off leaves it out"
    )
    return Reason(what="note: lesions", value=value, why=why)


def _small_cases_note(choice: Choice) -> Reason:
    small, n = choice.lesions.n_small_cases, len(choice.lesions.case_means_px)
    why = (
        f"mean lesion below {SMALL_SUBJECT_PX} pixels: in the paper 271 of 361 test subjects (75 %), with a Dice of "
        "0.61 after MUSCLE Net (0.56 before), the others 0.83; the paper means lesions in one slice, here whole "
        "ones were counted, so there may be more"
    )
    value = f"at least {small} of {n} cases ({small / n:.0%})" if small else f"none of {n} cases for certain"
    return Reason(what="note: small cases", value=value, why=why)


def _lost_lesions_note(options: EDDMuscleOptions, choice: Choice) -> list[Reason]:
    sizes = choice.lesions.sizes_px
    lost = sum(size < 0.999 for size in sizes)
    if not lost:
        return []
    text = f"{lost} of {len(sizes)} lesions smaller than a pixel"
    messages.warn(f"{text} of {options.spacing_mm:g} mm: they may vanish in preprocessing")
    why = f"they may vanish on the grid of {options.spacing_mm:g} mm; planner.spacing_mm sets a finer one"
    return [Reason(what="note: lost lesions", value=text, why=why)]
