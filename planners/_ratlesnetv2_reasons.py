"""Why the planner ``ratlesnetv2`` decided as it did."""

from __future__ import annotations

from autoseg.fingerprint import Fingerprint
from autoseg.plan import Named, Reason
from autoseg.planners._ratlesnetv2_settings import (
    AUGMENTED_LEARNING_RATE,
    CE,
    FEW_CASES,
    PUBLISHED_VOXEL_MM3,
    SMALL_VOXELS,
    VARIANTS,
    RatLesNetV2Choice,
    RatLesNetV2Options,
    Variant,
    find_loss,
    is_other_grid,
    is_t2,
)
from autoseg.plugins.planner import Match, Verdict


def reasons(
    fingerprint: Fingerprint, options: RatLesNetV2Options, choice: RatLesNetV2Choice, fit: Match
) -> list[Reason]:
    """One reason for each decision."""
    variant, axes = VARIANTS[options.network], fingerprint.summary.slices_first
    uncropped = ", for the image before it is cropped" * (options.crop == "head")
    return [
        Reason(
            what="preprocessing.transpose",
            value=", ".join("zyx"[axis] for axis in axes),
            why="the slices come first" if axes == (0, 1, 2) else f"the slices lie along {'zyx'[axes[0]]}",
        ),
        _crop_reason(options),
        Reason(
            what="preprocessing.spacing_mm",
            value="as in each case",
            why="published without resampling; the lesions keep their voxels",
        ),
        _normalisation_reason(options),
        Reason(
            what="networks.main", value=_network_words(choice.network), why=_network_reason(options, variant)
        ),
        _patch_reason(choice),
        Reason(
            what="memory",
            value=f"about {choice.memory_gb:.1f} GB",
            why=f"{_words_of_saving(choice)} of {choice.budget_gb:g} GB{uncropped}; -gpu_memory_target says how much "
            "there is",
        ),
        *_recipe_reasons(options, is_other_grid(fingerprint)),
        *_notes(fingerprint, options, fit),
    ]


def _crop_reason(options: RatLesNetV2Options) -> Reason:
    if options.crop == "head":
        why = "crop=head: the air around it costs time and memory; published without cropping"
        return Reason(what="preprocessing.crop_to_object", value="yes", why=why)
    why = "the network sees the whole image, as published"
    return Reason(what="preprocessing.crop_to_nonzero", value="no", why=why)


def _normalisation_reason(options: RatLesNetV2Options) -> Reason:
    if options.intensities == "corrected":
        return Reason(
            what="preprocessing.normalisation",
            value="N4, then the z-score of the head",
            why="intensities=corrected: brightness that the coil makes and the amount of air around the head do not "
            "count; published is the z-score of the whole image",
        )
    return Reason(
        what="preprocessing.normalisation",
        value="z-score of the whole image",
        why="the released weights were trained on images of mean 0 and variance 1, background included",
    )


def _network_words(network: Named) -> str:
    width = network.arguments["width"]
    normalised = ", instance normalisation" * (network.arguments.get("normalisation") == "instance")
    return f"{network.name}, {width} filters at first{normalised}"


def _network_reason(options: RatLesNetV2Options, variant: Variant) -> str:
    chosen = f"{variant.title}; " if options.network != "ratlesnetv2" else ""
    width = options.width or variant.width
    published = "the published width" if width == variant.width else f"set; published with {variant.width}"
    others = "planner.network takes another network of the published comparison"
    instance = "each image is normalised by itself, as in training so in prediction; "
    augmented = instance * (options.training == "augmented" and variant.normalised)
    return f"{chosen}{published}; {augmented}{others}"


def _patch_reason(choice: RatLesNetV2Choice) -> Reason:
    if not choice.patch_size:
        size = " x ".join(map(str, choice.largest_shape))
        why = f"the largest case ({size} voxels) fits the memory"
        return Reason(what="recipe.stages.0.patch_size", value="the whole image", why=why)
    return Reason(
        what="recipe.stages.0.patch_size",
        value=" x ".join(map(str, choice.patch_size)),
        why="published with whole images, which do not fit the memory; half of the patches are cut around a lesion",
    )


def _words_of_saving(choice: RatLesNetV2Choice) -> str:
    saving = choice.network.arguments.get("checkpointing")
    return "with activations computed twice instead of kept, " * bool(saving) + "batch 1, float32,"


def _recipe_reasons(options: RatLesNetV2Options, other_grid: bool) -> list[Reason]:
    return [
        _loss_reason(options),
        *(_augmented_reasons() if options.training == "augmented" else _published_reasons(options)),
        Reason(
            what="recipe.members",
            value=f"{options.members} runs, majority vote",
            why="three independent runs in the paper" if options.members == 3 else "set; three in the paper",
        ),
        _small_reason(options, other_grid),
    ]


def _small_reason(options: RatLesNetV2Options, other_grid: bool) -> Reason:
    """Which islands and holes are small, and what that is on a grid of another resolution."""
    volume = f"{SMALL_VOXELS * PUBLISHED_VOXEL_MM3:.3f} mm3"
    published = "as published, once, on the vote; the text says 20 voxels or fewer, the code fewer than 20"
    grid = f"; there they were {volume}, which planner.component_size=mm3 takes" * other_grid
    value, why = {
        "published": (f"fewer than {SMALL_VOXELS} voxels", published + grid),
        "mm3": (
            f"less than {volume}",
            f"set: the volume of the published {SMALL_VOXELS} voxels on every grid",
        ),
        "measured": (
            "as many voxels as remove 90 % of them" + ", in mm3" * other_grid,
            f"set: measured in predictions of the training cases after the training; published are {SMALL_VOXELS}",
        ),
    }[options.component_size]
    return Reason(what="recipe.postprocessing", value=f"islands, then holes of {value}", why=why)


def _loss_reason(options: RatLesNetV2Options) -> Reason:
    parts = "cross-entropy" if find_loss(options) == CE else "cross-entropy + Dice of both classes"
    same = "that of RatLesNetv2, as set for every network"
    why = same if options.loss == "same" else "the network's published loss"
    return Reason(what="recipe.stages.0.loss", value=parts, why=why)


def _published_reasons(options: RatLesNetV2Options) -> list[Reason]:
    rate = {
        "code": (
            "1e-4",
            "the rate of the code and, by their batch statistics, of the released weights; the paper prints 1e-5",
        ),
        "paper": ("1e-5", "as printed; the code behind the tables used 1e-4"),
    }[options.learning_rate]
    return [
        Reason(what="recipe.stages.0.optimiser", value=f"Adam, {rate[0]}, constant", why=rate[1]),
        Reason(
            what="recipe.stages.0.epochs",
            value="700 epochs of one pass, batch 1, no augmentation",
            why="as published; the last epoch is the model",
        ),
    ]


def _augmented_reasons() -> list[Reason]:
    """What planner.training=augmented changes; see docs/families/ratlesnetv2.md."""
    rate = f"Adam, {AUGMENTED_LEARNING_RATE:g} falling to 0"
    return [
        Reason(
            what="recipe.stages.0.optimiser",
            value=rate,
            why="training=augmented: higher than published, because it falls",
        ),
        Reason(
            what="recipe.stages.0.epochs",
            value="700 epochs of one pass, batch 1",
            why="as published",
        ),
        Reason(
            what="recipe.stages.0.augmentation",
            value="nnU-Net's",
            why="training=augmented: few animals are shown in many ways, turned within the slices",
        ),
        Reason(
            what="recipe.inference",
            value="mirrored on all axes",
            why="training=augmented: trained on mirrored images, so predictions are averaged over them",
        ),
    ]


def _notes(fingerprint: Fingerprint, options: RatLesNetV2Options, fit: Match) -> list[Reason]:
    """What differs from the published data."""
    notes = []
    if fit.verdict is Verdict.CANNOT:
        notes.append(Reason(what="note: data", value="not the published kind", why=fit.words))
    channels = fingerprint.channel_names
    if len(channels) > 1 or not is_t2(channels[0]):
        why = (
            f"published for one T2 channel, this dataset has {', '.join(channels)}; each is normalised alone"
        )
        notes.append(Reason(what="note: contrast", value="not the published one", why=why))
    n_cases = len(fingerprint.cases)
    if n_cases < FEW_CASES and options.training == "published":
        why = (
            "published with 36 to 40 for the training; made for few animals: --set planner.training=augmented "
            "planner.intensities=corrected planner.crop=head"
        )
        notes.append(Reason(what="note: few cases", value=str(n_cases), why=why))
    return notes
