"""What the planner ``brainsegnet`` knows beforehand: the published numbers and options; and what it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from autoseg.planners._memory import ADAM_COPIES, BYTES

Shape = tuple[int, int, int]

PATCHES: dict[str, Shape] = {"stack": (7, 96, 96), "head": (12, 128, 128)}
"""The published sub-volumes, z, y, x: of thin stacks (ISLES 2017) and of heads in cubic voxels (BRATS 2015)."""
PATCH_STEP, SMALLEST_EDGE = 8, 32
"""In the planes: what a smaller patch is a multiple of (three halvings), and where it ends."""
BATCH = 40
BATCH_FROM_SCRATCH = 36
"""Of the authors' script that begins with the focal loss."""
BATCH_OF_STATISTICS, SMALLEST_BATCH = 10, 2
"""What one of the paper's four cards normalised by; and what a normalisation of single samples is content with."""

EPOCHS = 500
"""Of each of three stages."""
EPOCHS_AT_ONCE, EPOCHS_BASELINE = 3 * EPOCHS, 2000
"""Without curriculum: as long as its stages together; of the authors' script without augmentation."""
LEARNING_RATE = 1e-4
FALLING_FROM = 2e-4
"""With the exponent 0.9 the mean is the published rate."""
GAMMA = 2.0
HALF, MOST = 0.5, 0.75
"""Of the samples of the second and the third stage that are augmented."""

WIDTH, REFINE_WIDTH = 32, 128
HALO = 20
"""Planes on each side that an output sees."""
PLANES_AT_ONCE = 16
"""That the network refines at a time in a prediction, see :mod:`autoseg.networks.brainsegnet`."""
PAPERS_PLANES = 31
"""Of the chunks into which the paper cuts a scan."""
FEWEST_PLANES = 8
"""Of a chunk with halo: below, nearly all is halo."""
MODE_BIN = 16.0

QUICK_WIDTH, QUICK_REFINE_WIDTH, QUICK_GB = 8, 16, 0.06
QUICK_BATCH, QUICK_BATCHES = 4, 6
QUICK_RATE = 1e-3
"""Of a quick plan: widths, the memory of a batch, its size, batches in an epoch; the rate of a narrow network."""

COST, COST_OF_SIZE = 0.2, 0.3
"""What a difference from the published data takes from the score; and scans of another size."""
THIN, FEW_SLICES = 2, 40
"""Slices that are at least so many times as far apart as pixels, or at most so many, make a thin stack."""

Inputs = Literal["maps", "maps+pwi", "pwi"]
Intensities = Literal["constants", "mode", "zscore"]
Way = Literal["whole", "chunks", "concatenate"]


class BrainSegNetOptions(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``.

    Attributes:
        training: ``published``, or ``augmented``: one stage with nnU-Net's augmentation, instance normalisation, focal
            loss and Dice, and a rate that falls.
        focal: off: the last stage keeps the cross-entropy ("no focal" of the paper's tables).
        curriculum: off: one stage, focal loss and every sample augmented from the start.
        baseline: both off: one stage, cross-entropy, nothing augmented.
        carry_optimizer: the stage with focal loss goes on with Adam's state; off as its authors ran it.
        epoch: ``one_per_scan`` shows one sub-volume of each scan in an epoch, ``all_subvolumes`` all depths of each.
        crops: ``around_lesion``, the paper's: equal parts of the depth, in the planes a crop that shows all of the
            lesion; ``around_voxel``, its authors' code: around a lesion or a background voxel, each as often.
        inputs: the ``maps`` (or contrasts), the three channels of the 4D perfusion series, or both.
        normalisation: ``constants`` of the data set, ``mode`` (the same after each scan was divided by its most
            frequent intensity), ``zscore`` of each scan's brain; ``auto`` looks at the data.
        mask: ``none`` as published; the name of a channel, or ``auto`` for TTP where it is there: what lies more than a
            voxel outside of its positive voxels is background, the rule of the planner ``deepmedic``.
        map_dropout: of the augmented samples, how often each channel is left out, for clinical data with missing maps:
            images to predict may then have channels of zeros.
        inference: the ``whole`` scan in one pass; ``chunks`` of planes with a halo, equal to it; ``concatenate``, the
            paper's chunks side by side, with seams; ``auto``: whole where it fits the memory, else chunks.
        width, refine_width: feature maps of the first block and of the refinement; 32 and 128 as published.
    """

    training: Literal["published", "augmented"] = "published"
    focal: bool = True
    curriculum: bool = True
    baseline: bool = False
    carry_optimizer: bool = False
    epoch: Literal["one_per_scan", "all_subvolumes"] = "one_per_scan"
    crops: Literal["around_lesion", "around_voxel"] = "around_lesion"
    inputs: Inputs = "maps"
    normalisation: Literal["auto", "constants", "mode", "zscore"] = "auto"
    mask: str = "none"
    map_dropout: float = Field(0.0, ge=0, le=1)
    inference: Literal["auto", "whole", "chunks", "concatenate"] = "auto"
    width: int = Field(WIDTH, ge=1)
    refine_width: int = Field(REFINE_WIDTH, ge=1)

    @model_validator(mode="after")
    def _ablations_are_of_the_published_training(self) -> BrainSegNetOptions:
        told = [
            name for name in ("focal", "curriculum") if name in self.model_fields_set and getattr(self, name)
        ]
        if self.baseline and told:
            raise ValueError(f"baseline is without focal loss and curriculum, found {' and '.join(told)} on")
        if self.training != "published" and self.kind != "curriculum":
            raise ValueError("focal, curriculum and baseline are ablations of training=published")
        return self

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> BrainSegNetOptions:
        if self.carry_optimizer and (self.training != "published" or self.kind in ("at_once", "baseline")):
            raise ValueError("carry_optimizer is of the curriculum, found a training of one stage")
        if self.map_dropout and self.kind == "baseline":
            raise ValueError("map_dropout is of augmented samples, and baseline augments none")
        return self

    @property
    def kind(self) -> Literal["curriculum", "no_focal", "at_once", "baseline"]:
        """Which of the paper's trainings it is."""
        if self.baseline or not (self.focal or self.curriculum):
            return "baseline"
        if not self.curriculum:
            return "at_once"
        return "curriculum" if self.focal else "no_focal"


@dataclass(frozen=True)
class PredictionChoice:
    """How scans are predicted.

    Attributes:
        way: see :class:`BrainSegNetOptions`.
        planes: of a chunk.
        whole_gb: memory of one pass over the largest scan.
        chunk_gb: of a chunk with its halo; the same as ``whole_gb`` in one pass.
    """

    way: Way
    planes: int
    whole_gb: float
    chunk_gb: float


@dataclass(frozen=True)
class BrainSegNetChoice:
    """What data and memory allow.

    Attributes:
        thin: whether the scans are thin stacks.
        shape: voxels of the median scan on the working grid, z, y, x.
        wanted: the sub-volume as published, within the median scan.
        patch, batch: that are trained on.
        memory_gb, budget_gb: of a training step, estimated, and there.
        prediction: see there.
        channels: that the network sees; empty for all.
        intensities: of each channel of the data set.
        mask: channel of the brain's mask; empty for none.
        scored: whether MR contrasts have values below 0, so that they were normalised before.
    """

    thin: bool
    shape: Shape
    wanted: Shape
    patch: Shape
    batch: int
    memory_gb: float
    budget_gb: float
    prediction: PredictionChoice
    channels: tuple[str, ...]
    intensities: tuple[Intensities, ...]
    mask: str
    scored: bool


def training_gb(voxels: int, options: BrainSegNetOptions, in_channels: int, outputs: int) -> float:
    """Memory of a training step with Adam on a batch of so many voxels, float32, in 1e9 bytes.

    Counted operation by operation (benchmarks/live_memory.py): exact for these widths and numbers of channels.
    """
    width, refined = options.width, options.refine_width
    elements = 14.375 * width + 3.3125 * refined + 2 * outputs + in_channels + 0.5
    return (elements * voxels + ADAM_COPIES * parameters(width, refined, in_channels, outputs)) * BYTES / 1e9


def prediction_gb(
    planes: int, plane_voxels: int, options: BrainSegNetOptions, in_channels: int, outputs: int
) -> float:
    """Memory of predicting a stack of planes at once, float32, in 1e9 bytes; counted, exact to 4 %.

    The network refines its finest maps some planes at a time, which see one more on both sides: the most that is there
    is all of its coarser maps, or the finest of its encoder and those of some planes beside the logits that are done.
    """
    width, refined = options.width, options.refine_width
    parts = math.ceil(planes / PLANES_AT_ONCE)
    seen = planes if parts == 1 else PLANES_AT_ONCE + min(parts - 1, 2)
    done = PLANES_AT_ONCE * max(parts - 2, 0)
    coarser = max(3 * width, 2 * width + 0.4375 * refined) * planes
    finest = (width + 0.25 * refined) * planes + (width + 2 * refined) * seen + outputs * done
    return (in_channels * planes + max(coarser, finest)) * plane_voxels * BYTES / 1e9


def parameters(width: int, refine_width: int, in_channels: int, outputs: int) -> int:
    """Of the network: 11 878 018 as published with 6 channels and 2 classes."""
    first = 27 * width * (in_channels + width) + 2 * width
    blocks = 0
    for narrow, wide in ((width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)):
        down = 2 * narrow + 27 * narrow * wide + wide
        blocks += down + 4 * (2 * wide + 27 * wide * wide)
    adapted = 15 * width * refine_width + 4 * refine_width
    refined = 3 * (27 * refine_width + 1) * refine_width
    return first + blocks + adapted + refined + (refine_width + 1) * outputs
