"""What the planner ``ratlesnetv2`` knows beforehand: the published networks, options; and what it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from autoseg.evidence.contrasts import contrast_of
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    Named,
)
from autoseg.planners._memory import ADAM_COPIES, Cost

COST, COST_OF_CHANNELS = 0.1, 0.25
"""What a difference from the published data takes from the score, and further channels; little, as no other family is
made for rodents."""
THICK = 3
"""Slices are thick when they are at least so many times as far apart as the pixels; the published ratio is 8.5."""
PUBLISHED_VOXEL_MM3 = 1.0 * 0.1171875**2
"""Slices of 1 mm, 30 mm in 256 pixels."""
SMALL_VOXELS = 20
OTHER_GRID = 1.1
"""A grid is another when its voxels are so many times as large as the published ones, or as small."""
PATCH_STEP = 8  # three poolings
AUGMENTED_LEARNING_RATE = 1e-3
QUICK_WIDTH, QUICK_LEARNING_RATE, QUICK_BATCHES = 8, 2e-3, 10
"""Of a quick plan: first filters, rate of Adam, images in an epoch."""
FEW_CASES = 20
"""With fewer cases the plan points to options that help; the published trainings have 36 and 40."""

NetworkName = Literal[
    "ratlesnetv2", "lvl2", "lvl2_sameparams", "densenet", "ratlesnet", "voxresnet", "unet3d"
]


@dataclass(frozen=True)
class Variant:
    """A network of the published comparison.

    Attributes:
        network: as registered, with its arguments.
        width: its first filters as published.
        elements_per_voxel: float32 elements that training one voxel of the image needs at the published width,
            at the peak.
        parameters: weights at the published width.
        saving: share of these that is left with ``checkpointing``; 1 where the network has no such option.
        loss: that it was trained with.
        title: for the plan's reasons.
        normalised: whether it has batch normalisation.
    """

    network: Named
    width: int
    elements_per_voxel: float
    parameters: int
    loss: Named
    title: str
    saving: float = 1.0
    normalised: bool = True

    @property
    def cost(self) -> Cost:
        """Of its training with Adam."""
        return Cost(self.elements_per_voxel, self.parameters, self.width, ADAM_COPIES)


CE_DICE = Named(name="ratlesnetv2")
CE = Named(name="ratlesnetv2", arguments={"dice_weight": 0.0})
SAVING, DENSE_SAVING = 0.64, 0.60
HALF_FIELD, DENSE = {"levels": 2}, {"block": "dense"}

VARIANTS: dict[NetworkName, Variant] = {
    "ratlesnetv2": Variant(
        Named(name="ratlesnetv2"), 32, 777.7, 837_026, CE_DICE, "RatLesNetv2", saving=SAVING
    ),
    "lvl2": Variant(
        Named(name="ratlesnetv2", arguments=HALF_FIELD),
        32,
        767.8,
        557_762,
        CE_DICE,
        "RatLesNetv2 with half the receptive field",
        saving=SAVING,
    ),
    "lvl2_sameparams": Variant(
        Named(name="ratlesnetv2", arguments=HALF_FIELD),
        39,
        934.6,
        828_011,
        CE_DICE,
        "RatLesNetv2 with half the receptive field and as many parameters",
        saving=SAVING,
    ),
    "densenet": Variant(
        Named(name="ratlesnetv2", arguments=DENSE),
        26,
        1345.6,
        859_250,
        CE_DICE,
        "RatLesNetv2 with dense blocks",
        saving=DENSE_SAVING,
    ),
    "ratlesnet": Variant(
        Named(name="ratlesnet"), 12, 768.3, 367_334, CE, "RatLesNet (version 1)", normalised=False
    ),
    "voxresnet": Variant(
        Named(name="voxresnet", arguments={"auxiliary_outputs": True}), 32, 267.7, 1_186_344, CE, "VoxResNet"
    ),
    "unet3d": Variant(Named(name="unet3d"), 32, 1181.0, 19_073_730, CE_DICE, "3D U-Net"),
}
"""Elements and parameters as measured on the published networks with an image of 18 x 256 x 256 voxels; savings on
autoseg's (benchmarks/ratlesnetv2.py)."""


class RatLesNetV2Options(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``; ``--set network=voxresnet`` is short for the first.

    Attributes:
        network: RatLesNetv2, one of its ablations (``lvl2``: half the receptive field; ``lvl2_sameparams``: the same
            with as many parameters; ``densenet``: dense instead of residual blocks) or a network that it was compared
            with.
        width: first filters; the published one when left out.
        learning_rate: of the published training: ``code`` is 1e-4, which made the published tables; ``paper`` is the
            printed 1e-5.
        loss: ``published`` trains each network with its own published loss, ``same`` all with that of RatLesNetv2.
        members: independent runs that vote.
        component_size: of the islands and holes that stay: ``published``, 20 voxels of any grid; ``mm3``, the volume of
            20 published voxels; ``measured``, the size that removes 90 % of the islands and holes in predictions of
            the training cases, which is how the published one was chosen; on other than the published grid in mm3.
        training: ``published``, or ``augmented`` for few or varied animals: random changes of the images, instance
            normalisation, a learning rate that starts higher and falls, and an average over mirrored images in
            prediction. Ours, not the paper's.
        intensities: ``published``, the z-score of the whole image; or ``corrected``, for surface coils and animals of
            different size: the bias field is divided out (N4), and the z-score is that of the head, without the air
            around it. Ours, not the paper's.
        crop: ``none`` as published, or ``head``: the air around the head is cut off, which is most of some images.
    """

    network: NetworkName = "ratlesnetv2"
    width: int | None = Field(None, ge=1)
    learning_rate: Literal["code", "paper"] = "code"
    loss: Literal["published", "same"] = "published"
    members: int = Field(3, ge=1)
    component_size: Literal["published", "mm3", "measured"] = "published"
    training: Literal["published", "augmented"] = "published"
    intensities: Literal["published", "corrected"] = "published"
    crop: Literal["none", "head"] = "none"


def is_t2(channel: str) -> bool:
    """Whether a channel is T2-weighted by its name; T2* and FLAIR are other contrasts."""
    return contrast_of(channel) == "T2"


def is_other_grid(fingerprint: Fingerprint) -> bool:
    """Whether the voxels of the median case are larger or smaller than the published ones."""
    ratio = math.prod(entry.median or 1.0 for entry in fingerprint.summary.spacing_mm) / PUBLISHED_VOXEL_MM3
    return not 1 / OTHER_GRID <= ratio <= OTHER_GRID


def find_loss(options: RatLesNetV2Options) -> Named:
    """The network's own published loss, or that of RatLesNetv2 for all of them.

    Auxiliary outputs, which VoxResNet alone has, are weighed by the loss as published (0.001 each) in both cases.
    """
    return CE_DICE if options.loss == "same" else VARIANTS[options.network].loss


# ------------------------------------------------------------------------------------------------ what fits


@dataclass(frozen=True)
class RatLesNetV2Choice:
    """What the memory allows.

    Attributes:
        network: with its arguments, also whether activations are computed twice instead of kept.
        patch_size: empty for the whole image.
        memory_gb, budget_gb: estimated, and there.
        largest_shape: of the cases, working axis order.
    """

    network: Named
    patch_size: tuple[int, ...]
    memory_gb: float
    budget_gb: float
    largest_shape: tuple[int, int, int]
