"""Why the planner ``resunet`` decided as it did.

"The paper" is Tomita et al. 2020; see :mod:`autoseg.planners.resunet`.
"""

from __future__ import annotations

from autoseg.fingerprint import Fingerprint
from autoseg.messages import some_of
from autoseg.plan import Reason
from autoseg.planners._resunet_settings import (
    ATLAS_SHAPE,
    CROPS,
    CYCLE_EPOCHS,
    EPOCHS,
    SHARES,
    SPACING_MM,
    WIDTH,
    ResUNetChoice,
    ResUNetOptions,
)
from autoseg.plugins.planner import Match, Verdict

Row = tuple[str, str, str]
"""What was decided, its value, and why."""

VARIANTS = {
    "full": (
        "3D-ResU-Net",
        "small crops, then large ones: in the paper Dice 0.64 instead of 0.60, HD 20 instead of 35 mm",
    ),
    "ensemble": (
        "3D-ResU-Net-E",
        "the mean of three snapshots; in the paper no better than the last one (Dice 0.64)",
    ),
    "zoom_in": ("3D-ResU-Net-F", "small crops alone: in the paper Dice 0.60"),
    "large_only": ("large crops alone", "in the paper over three weeks of training, the reason for zoom-in"),
}
INTENSITIES = {
    "divide_by_255": ("divided by 255", "scans of 0 to 255, as published"),
    "rescale": (
        "each scan to 0 to 1",
        "published for scans of 0 to 255, which these are not; the network expects values of 0 to about 1",
    ),
    "zscore": ("z-score of the head", "set; published is a division by 255"),
}


def reasons(
    fingerprint: Fingerprint, options: ResUNetOptions, choice: ResUNetChoice, fit: Match
) -> list[Reason]:
    """One reason for each decision, then notes on how the data differ from the paper's."""
    rows = [
        ("configuration", *VARIANTS[options.variant]),
        *_preprocessing(choice),
        ("networks.main", f"3D-ResU-Net, {options.width} filters at first", _width(options)),
        *(_crop(i, name, options, choice) for i, name in enumerate(choice.crops)),
        _memory(choice),
        *_training(options, choice),
        *_written(options, choice),
        _inference(options, choice),
        *_notes(fit),
    ]
    return [Reason(what=what, value=value, why=why) for what, value, why in rows]


def _preprocessing(choice: ResUNetChoice) -> list[Row]:
    as_it_is = choice.spacing_mm[0] is None
    grid = "as in each case" if as_it_is else f"{SPACING_MM:g} mm"
    why = (
        "no human head, or coarse voxels: the crops follow the voxels"
        if as_it_is
        else "published on the 1 mm grid of MNI space"
    )
    found = [(*INTENSITIES[name], name) for name in dict.fromkeys(choice.intensities)]
    return [
        ("preprocessing.spacing_mm", grid, why),
        *(
            ("preprocessing.normalisation", value, because + _unlike(choice) * (name == "divide_by_255"))
            for value, because, name in found
        ),
    ]


def _unlike(choice: ResUNetChoice) -> str:
    """The scans that are not divided with the others."""
    if not choice.unlike:
        return "; a scan that is not is brought to 0 to 1 by itself, and named"
    return f", but for {some_of(sorted(choice.unlike))}: brought to 0 to 1, each by itself"


def _width(options: ResUNetOptions) -> str:
    return "the published width" if options.width == WIDTH else f"set; published with {WIDTH}"


def _crop(index: int, name: str, options: ResUNetOptions, choice: ResUNetChoice) -> Row:
    if name == "zoom_in" and options.zoom_in is not None:
        why = "set; the paper tried 16 and 32 and rejected them"
    elif name in choice.shrunk:
        before = _size(choice.shrunk[name])
        why = (
            f"the published share of the volume would be {before}, which does not fit {choice.budget_gb:g} GB"
        )
    elif choice.shape == ATLAS_SHAPE and choice.crops[name] == CROPS[name]:
        why = f"as published: {SHARES[name]:.0%} of the volume"
    else:
        why = f"the published share of the volume ({SHARES[name]:.0%} of {_size(choice.shape)})"
    return f"recipe.stages.{index}.patch_size", _size(choice.crops[name]), why


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _memory(choice: ResUNetChoice) -> Row:
    saving = "with activations computed twice instead of kept, " * choice.saving
    why = f"{saving}batch 1, float32, of {choice.budget_gb:g} GB; -gpu_memory_target says how much there is"
    size = "less than 0.1 GB" if choice.memory_gb < 0.05 else f"about {choice.memory_gb:.1f} GB"
    return "memory", size, why


def _training(options: ResUNetOptions, choice: ResUNetChoice) -> list[Row]:
    epochs = (
        " + ".join(str(EPOCHS[name]) for name in choice.crops)
        if "zoom_in" in choice.crops
        else EPOCHS["zoom_in"]
    )
    return [
        (
            "recipe.stages.0.loss",
            "0.1 cross-entropy + 0.9 Dice",
            "the weights of the authors' code; the paper names none",
        ),
        (
            "recipe.stages.0.optimiser",
            f"Adam, cosine with restarts every {CYCLE_EPOCHS} epochs",
            "as the paper says; the authors' code lets the rate rise again instead of restarting",
        ),
        (
            "recipe.stages.0.epochs",
            f"{epochs} epochs of one crop of each scan",
            "as published" + "; no augmentation" * (not options.rotation),
        ),
        *_next_steps(options),
    ]


def _next_steps(options: ResUNetOptions) -> list[Row]:
    """What was set beyond the published training."""
    sampling = [
        (
            options.foreground_share,
            f"{options.foreground_share:.0%} of the crops on lesions",
            "the paper names crops that are aware of the foreground as a next step",
        ),
        (
            options.rejection,
            f"crops of which less than {options.rejection:.0%} is not 0 are drawn again",
            "drawing again is an option of the authors' code that is off by default",
        ),
    ]
    values, whys = zip(*[row[1:] for row in sampling if row[0]] or [("", "")], strict=True)
    rows = [
        (
            any(values),
            "recipe.stages.0.sampling",
            ", ".join(values),
            f"set; {'; '.join(whys)}",
        ),
        (
            options.rotation,
            "recipe.stages.0.augmentation",
            f"one crop in five is turned by up to {options.rotation:g} degrees about each axis",
            "set; the paper names rotation as a next step",
        ),
        (
            options.validation == "lesion_crop",
            "validation",
            "one crop of each case, centred on its lesion",
            "set, as in the authors' code; it chooses the best weights, and all scores are of whole scans",
        ),
    ]
    return [(what, value, why) for there, what, value, why in rows if there]


def _written(options: ResUNetOptions, choice: ResUNetChoice) -> list[Row]:
    """Why there are weights that take no part in the prediction."""
    if options.variant != "full":
        return []
    why = "one training holds 3D-ResU-Net, -E and -F: autoseg_predict --set stages.zoom_out.keep=[50,100,150]"
    return [
        (
            f"recipe.stages.{len(choice.crops) - 1}.save_every",
            f"after every {CYCLE_EPOCHS} epochs, for a prediction to choose among",
            f"{why}, or stages.zoom_in.keep=true stages.zoom_out.keep=false",
        )
    ]


def _inference(options: ResUNetOptions, choice: ResUNetChoice) -> Row:
    depends = "normalisation sees the whole crop, so the ways of predicting differ everywhere"
    if choice.inference == "centre":
        why = f"as published: lesions outside the crop are lost; {depends}"
        return "recipe.inference", "one crop in the middle", why
    published = "the published crop in the middle (planner.inference=centre) loses lesions outside it"
    if choice.inference == "whole":
        return (
            "recipe.inference",
            f"the whole volume, {choice.prediction_gb:.1f} GB",
            f"set; {published}; {depends}: more air than in any crop of the training",
        )
    why = f"{published}; tiles of its size show the normalisation what it has learned from, the whole volume does not"
    return "recipe.inference", "overlapping tiles", why if options.inference == "auto" else f"set; {depends}"


def _notes(fit: Match) -> list[Row]:
    if fit.verdict is Verdict.MADE_FOR_IT:
        return []
    return [("note: data", "not the published kind", ", ".join(fit.against))]
