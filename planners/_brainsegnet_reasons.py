"""Why the planner ``brainsegnet`` decided as it did.

"The paper" is Hu et al. 2020; see :mod:`autoseg.planners.brainsegnet`.
"""

from __future__ import annotations

import math

from autoseg.dataset.folds import N_FOLDS
from autoseg.fingerprint import Fingerprint
from autoseg.messages import count_of
from autoseg.plan import Reason
from autoseg.planners._brainsegnet_settings import (
    BATCH,
    BATCH_FROM_SCRATCH,
    BATCH_OF_STATISTICS,
    EPOCHS,
    EPOCHS_AT_ONCE,
    EPOCHS_BASELINE,
    HALO,
    PAPERS_PLANES,
    PATCHES,
    REFINE_WIDTH,
    WIDTH,
    BrainSegNetChoice,
    BrainSegNetOptions,
)
from autoseg.plugins.planner import Match, Verdict

Row = tuple[str, str, str]
"""What was decided, its value, and why."""

AXES = "zyx"

TRAININGS = {
    "curriculum": (
        "the curriculum: plain, half augmented, focal",
        "as published: in its tables the focal loss of the last stage makes Dice 0.30 of 0.26 (ISLES 2017), and of the "
        "core 0.72 of 0.69 (BRATS 2015)",
    ),
    "no_focal": (
        "the curriculum without focal loss",
        'set: "no focal" of the paper\'s tables; the last stage keeps its augmentation (the paper does not say)',
    ),
    "at_once": (
        "focal loss and augmentation from the start",
        "set: in the paper without obvious gains; every sample augmented as in its authors' code, as long as the three "
        "stages together",
    ),
    "baseline": (
        "cross-entropy, nothing augmented",
        "set: neither curriculum nor focal loss, as in the authors' code",
    ),
}
AUGMENTED = (
    "nnU-Net's augmentation, instance normalisation, focal loss and Dice",
    "set: what is known since the paper, whose batch normalisation needs large batches",
)
WHOLE = {
    True: "as published for thin stacks",
    False: f"the paper predicts heads in chunks of {PAPERS_PLANES} planes (planner.inference=concatenate)",
}
"""Of one pass, by whether the scans are thin stacks."""
INTENSITIES = {
    "constants": (
        "mean and mean absolute deviation of the training cases",
        "over all voxels of all scans, as in the authors' code (the paper is silent); measured anew in each fold",
    ),
    "mode": (
        "divided by the most frequent intensity, then by the constants of the training cases",
        "as in the authors' code for BRATS (the paper is silent)",
    ),
    "zscore": ("z-score of the brain", "set; the authors' code has constants of the data set"),
}


def reasons(
    fingerprint: Fingerprint, options: BrainSegNetOptions, choice: BrainSegNetChoice, fit: Match
) -> list[Reason]:
    """One reason for each decision, then notes on how the data differ from the paper's."""
    published = options.training == "published"
    rows = [
        ("configuration", *(TRAININGS[options.kind] if published else AUGMENTED)),
        *_preprocessing(fingerprint, choice),
        (
            "networks.main",
            f"Brain SegNet, {options.width} and {options.refine_width} filters",
            _widths(options),
        ),
        *_first_stage(options, choice),
        *_further_stages(options),
        _memory(choice),
        _prediction(options, choice),
        ("recipe.members", "one", "as published; no post-processing, no mirrored images"),
        *_notes(options, choice, fit),
        *_more_than_once(fingerprint, options, choice),
    ]
    return [Reason(what=what, value=value, why=why) for what, value, why in rows]


def _preprocessing(fingerprint: Fingerprint, choice: BrainSegNetChoice) -> list[Row]:
    axes = fingerprint.summary.slices_first
    first = "the slices come first" if axes == (0, 1, 2) else f"the slices lie along {AXES[axes[0]]}"
    kinds = dict.fromkeys(choice.intensities)
    value = "; ".join(INTENSITIES[kind][0] for kind in kinds)
    why = "; ".join(INTENSITIES[kind][1] for kind in kinds)
    if choice.scored and "constants" in kinds:
        why += "; some contrasts have values below 0, so they are not divided by their mode"
    mask = (
        "preprocessing.mask",
        choice.mask,
        "set: the paper has none; outside it, nothing is learned and predicted",
    )
    return [
        *([mask] if choice.mask else []),
        ("preprocessing.transpose", ", ".join(AXES[axis] for axis in axes), first),
        (
            "preprocessing.crop_to_nonzero",
            "no",
            "the constants are those of whole scans, background included",
        ),
        ("preprocessing.spacing_mm", "as in each case", "as published: nothing is resampled"),
        ("preprocessing.normalisation", value, why),
    ]


def _widths(options: BrainSegNetOptions) -> str:
    as_published = (options.width, options.refine_width) == (WIDTH, REFINE_WIDTH)
    return "as published" if as_published else f"set; published with {WIDTH} and {REFINE_WIDTH}"


# ------------------------------------------------------------------------------------------------ training


def _first_stage(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> list[Row]:
    stage = "recipe.stages.0"
    rows = [
        (f"{stage}.patch_size", _size(choice.patch), _patch(choice)),
        (f"{stage}.batch_size", str(choice.batch), _batch(options, choice)),
        (f"{stage}.epochs", _length(options), _epochs(options)),
        (f"{stage}.optimiser", *_optimiser(options)),
        (f"{stage}.sampling", *_sampling(options)),
        (f"{stage}.loss", *_loss(options)),
        (f"{stage}.augmentation", *_augmentation(options, choice)),
    ]
    if choice.channels:
        rows.append((f"{stage}.channels", ", ".join(choice.channels), f"planner.inputs={options.inputs}"))
    return rows


def _patch(choice: BrainSegNetChoice) -> str:
    published = PATCHES["stack" if choice.thin else "head"]
    data = "thin stacks" if choice.thin else "scans in cubic voxels"
    if choice.patch == published:
        return f"as published for {data}"
    if choice.patch == choice.wanted:
        return f"{_size(published)} as published for {data}, within the median scan of {_size(choice.shape)}"
    return f"{_size(choice.wanted)}, for {data}, does not fit {choice.budget_gb:g} GB with this batch"


def _batch(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> str:
    most = BATCH_FROM_SCRATCH if options.kind == "at_once" else BATCH
    if choice.batch == most:
        return "as in the authors' code" if options.kind == "at_once" else "as published"
    return f"{most} published, on four cards; what fits {choice.budget_gb:g} GB (-gpu_memory_target)"


def _length(options: BrainSegNetOptions) -> str:
    if options.training == "augmented":
        return f"{EPOCHS_AT_ONCE}"
    return {"at_once": f"{EPOCHS_AT_ONCE}", "baseline": f"{EPOCHS_BASELINE}"}.get(
        options.kind, f"3 x {EPOCHS}"
    )


def _epochs(options: BrainSegNetOptions) -> str:
    length = {
        "at_once": "as long as the three stages together (the authors' code has up to 3000)",
        "baseline": "as in the authors' code",
    }.get(options.kind, "as published")
    if options.training == "augmented":
        length = "as long as the three stages of the paper"
    if options.epoch == "all_subvolumes":
        return f"{length}; an epoch shows all sub-volumes of each scan, as the paper's text says"
    why = "as the paper's training time and its authors' code say"
    return f"{length}; an epoch shows one sub-volume of each scan, {why}"


def _optimiser(options: BrainSegNetOptions) -> tuple[str, str]:
    if options.training == "augmented":
        return "Adam, lr 2e-4, falling", "the mean rate is the published 1e-4"
    return "Adam, lr 1e-4, constant", "as published; the refinement has no normalisation, 1e-3 blows it up"


def _sampling(options: BrainSegNetOptions) -> tuple[str, str]:
    if options.crops == "around_voxel":
        return (
            "around a lesion or a background voxel",
            "set: the authors' code; the paper crops around whole lesions",
        )
    return (
        "equal parts of the depth, crops that show the lesion",
        "as published, in all stages: sampling, not augmentation; the last part is shifted to fit",
    )


def _loss(options: BrainSegNetOptions) -> tuple[str, str]:
    if options.training == "augmented":
        return "focal loss, gamma 2, and Dice", "equal weights"
    if options.kind == "at_once":
        return "focal loss, gamma 2", "gamma of the authors' code; the paper names none"
    return "cross-entropy", "as published" if options.kind != "baseline" else "set"


def _augmentation(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> tuple[str, str]:
    if options.training == "augmented":
        return "nnU-Net's", "set"
    if options.kind in ("curriculum", "no_focal"):
        return "none", "as published: the first stage learns from what it is"
    if options.kind == "baseline":
        return "none", "set"
    return "every sample", "as in the authors' code"


def _further_stages(options: BrainSegNetOptions) -> list[Row]:
    if options.training == "augmented" or options.kind not in ("curriculum", "no_focal"):
        return []
    transforms = (
        "a factor for each slice (on raw intensities where the normalisation is that of the data set, else about the "
        "mean), quarter turns, size in the planes 0.5 to 1.2, flips"
    )
    last = ("focal loss, gamma 2", "the gamma of the authors' code; the paper names none")
    carried = (
        "Adam's state goes on, as set" if options.carry_optimizer else "a new Adam, as in the authors' code"
    )
    if not options.focal:
        last, carried = ("cross-entropy", "set"), "Adam's state goes on"
    if options.focal and options.carry_optimizer:
        carried += "; its authors make a new one"
    return [
        ("recipe.stages.1.augmentation", "half of the samples", f"as published: {transforms}"),
        ("recipe.stages.1.start", "weights and Adam's state of plain", "the weights as published"),
        ("recipe.stages.2.augmentation", "three quarters of the samples", "as published"),
        ("recipe.stages.2.start", "weights of half", carried),
        ("recipe.stages.2.loss", *last),
    ]


def _memory(choice: BrainSegNetChoice) -> Row:
    why = (
        f"of {choice.budget_gb:g} GB (-gpu_memory_target), counted for {choice.batch} sub-volumes of "
        f"{_size(choice.patch)} in float32; mixed precision, the default on CUDA, takes less"
    )
    return "memory", f"about {choice.memory_gb:.1f} GB", why


# ------------------------------------------------------------------------------------------------ prediction, notes


def _prediction(options: BrainSegNetOptions, choice: BrainSegNetChoice) -> Row:
    found = choice.prediction
    if found.way == "whole":
        why = f"the largest takes about {found.whole_gb:.1f} GB of {choice.budget_gb:g}; {WHOLE[choice.thin]}"
        if found.whole_gb > choice.budget_gb:
            why = f"set; {why}; planner.inference=chunks gives the same in less"
        return "recipe.inference", "whole scans in one pass", why
    if found.way == "chunks":
        why = (
            f"one pass over the largest would take {found.whole_gb:.1f} GB of {choice.budget_gb:g}, a chunk takes "
            f"{found.chunk_gb:.1f}; an output sees {HALO} planes on each side, so chunks with that halo are equal to "
            "one pass"
        )
        return "recipe.inference", f"chunks of {found.planes} planes with a halo of {HALO}", why
    if found.chunk_gb == found.whole_gb:
        why = f"set, as published; no scan has more than {PAPERS_PLANES} planes, so each is one chunk without seams"
        return "recipe.inference", f"chunks of up to {PAPERS_PLANES} planes side by side", why
    why = (
        f"set, as published ({PAPERS_PLANES} planes): at a seam about 7 planes on each side, up to {HALO}, lack what "
        "the next chunk shows; planner.inference=chunks has no seams"
    )
    return "recipe.inference", f"chunks of {found.planes} planes side by side", why


def _notes(options: BrainSegNetOptions, choice: BrainSegNetChoice, fit: Match) -> list[Row]:
    notes = []
    if fit.verdict is not Verdict.MADE_FOR_IT:
        notes.append(("note: data", "not quite the published kind", ", ".join(fit.against)))
    if choice.batch < BATCH_OF_STATISTICS and options.training == "published":
        why = (
            f"batch normalisation was published with statistics of {BATCH_OF_STATISTICS} sub-volumes, here of "
            f"{choice.batch}; planner.training=augmented normalises each by itself"
        )
        notes.append(("note: small batches", str(choice.batch), why))
    return notes


def _more_than_once(
    fingerprint: Fingerprint, options: BrainSegNetOptions, choice: BrainSegNetChoice
) -> list[Row]:
    """Batches are full, also where there are fewer scans."""
    n_cases = len(fingerprint.cases)
    training = n_cases - math.ceil(n_cases / N_FOLDS)
    if options.epoch != "one_per_scan" or not 0 < training < choice.batch:
        return []
    why = (
        f"batches are full, so an epoch is one step that shows each of about {count_of(training, 'training scan')} "
        f"{choice.batch / training:.1f} times, not once; batch_size={training} shows each once"
    )
    return [("note: large batch", str(choice.batch), why)]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
