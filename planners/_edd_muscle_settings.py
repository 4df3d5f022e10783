"""What the planner ``edd_muscle`` knows beforehand: the paper, options, what networks need; and what it decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from autoseg.plan import (
    Named,
)
from autoseg.planners._memory import SGD_COPIES, Cost

COST, SILENT_COST = 0.5, 0.2
"""What a difference from the published data takes from the score; and a name that does not say the contrast."""
THICK = 2.5
"""Slices are thick when they are at least so many times as far apart as the pixels; 3.3 to 4.6 times in the paper."""

WIDTHS = (32, 24, 16, 8)
"""Feature maps of the finest resolution: the published number, then what is tried while the memory is too small."""
QUICK_WIDTH, QUICK_BATCH, QUICK_BATCHES = 8, 32, 20
"""Of a quick plan: feature maps, patches in a batch, batches in an epoch."""

SMALL_PX = 60
"""MUSCLE Net judges components of at most so many pixels: 99 % of EDD Net's false ones in the paper's validation."""
TRAINED_SHARE = 0.8
"""Of the cases, in one of five folds; only the length of the training is estimated from it."""
ITERATIONS, EPOCHS = 20_000, (10, 1000)
PATIENCE, HELD_BACK, FEWEST_CASES = 10, (0, 5), 12
"""Epochs without a better Dice; cases that are held back for it where the fold has no test part, one in five; with
fewer cases than these all epochs are trained."""
MUSCLE_ITERATIONS, MUSCLE_EPOCHS = 1000, (50, 300)
CANDIDATES_PER_CASE = 10
"""A guess: 3.78 false components in a training scan of the paper (Table 4), and some more small real ones."""
MUSCLE_BATCH = 128
MUSCLE_NET: dict[str, Any] = {
    "patch_size": 16,
    "width": 32,
    "dropout": 0.5,
    "image_windows_px": [16, 32, 64],
    "probability_windows_px": [16],
}
FULL_SLICE_PX = 128
"""Edge of what the paper calls the full slice; 230 and 267 mm are 144 and 167 pixels of 1.6 mm."""
PIXEL_MM = 1.6
"""The published grid, in which sizes in pixels are meant."""


def small_px(spacing_mm: float) -> int:
    """How many pixels of a grid have the area of :data:`SMALL_PX` pixels of the published one."""
    return round(SMALL_PX * (PIXEL_MM / spacing_mm) ** 2)


def candidates(spacing_mm: float) -> dict[str, Any]:
    """Which components are candidates on a grid: the same in training and prediction."""
    return {"threshold": 0.5, "largest_px": small_px(spacing_mm), "connectivity": 8}


TABLE_3 = {
    32: {18: 0.36, 32: 0.36},
    64: {32: 0.55, 44: 0.55, 64: 0.58},
    96: {44: 0.54, 64: 0.52, 96: 0.51},
    128: {64: 0.47, 96: 0.48, 128: 0.47},
}
"""Edge of the patch and receptive field, in pixels, to the Dice of a DeconvNet in the test set (paper, Table 3)."""


def cost(elements_per_pixel: int, parameters: int) -> Cost:
    """Of a training with SGD, counted at the published width."""
    return Cost(elements_per_pixel, parameters, WIDTHS[0], SGD_COPIES)


@dataclass(frozen=True)
class DeconvVariant:
    """A DeconvNet of Table 3: convolutions at each resolution, alone and as EDD Net's two branches."""

    stacks: tuple[int, ...]
    single: Cost
    edd: Cost


DECONVNETS = {
    18: DeconvVariant((1, 1, 1), cost(349, 195_106), cost(771, 400_710)),
    32: DeconvVariant((2, 2, 2), cost(573, 583_074), cost(1219, 1_176_646)),
    44: DeconvVariant((2, 3, 3), cost(669, 952_482), cost(1411, 1_915_462)),
    64: DeconvVariant((2, 4, 5), cost(797, 1_617_314), cost(1667, 3_245_126)),
    96: DeconvVariant((2, 3, 3, 3), cost(727, 3_904_418), cost(1527, 7_819_334)),
    128: DeconvVariant((4, 4, 4, 4), cost(1095, 5_491_618), cost(2263, 10_993_734)),
}
"""By receptive field. Elements were counted in the networks, operation by operation (benchmarks/live_memory.py)."""


@dataclass(frozen=True)
class Comparator:
    """A network of the paper's Table 2, as registered, with the receptive field that it has."""

    registered: str
    title: str
    receptive_field: int
    size: Cost


COMPARATORS = {
    "unet": Comparator("edd_unet", "U-Net", 46, cost(869, 712_418)),
    "fcn": Comparator("edd_fcn", "FCN", 52, cost(307, 583_206)),
    "deeplab": Comparator("edd_deeplab", "DeepLab without random field", 44, cost(667, 730_790)),
}


class EDDMuscleOptions(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``; ``--set network=unet`` is short for the first.

    Attributes:
        network: EDD Net, or a single network of the paper's comparison: DeconvNet, or U-Net, FCN, DeepLab with about
            its receptive field.
        patch_size: edge of the training patches in pixels.
        receptive_field: of ``edd`` and ``deconvnet``, in pixels, as in Table 3 for the patch; the one with the highest
            Dice there when left out.
        width: feature maps of the finest resolution; 32 or as many as fit the memory when left out.
        batch_size: patches in a batch.
        muscle: whether MUSCLE Net follows EDD Net; the other networks are always alone.
        cross_fitting: MUSCLE Net learns from what EDD Nets find in cases that they have not seen.
        stopping: which cases say when EDD Net ends and which of its weights count: ``validation``, the fold's
            validation part where it has a test part to be scored on, and else one training case in five, held back;
            ``held_back``, these in every fold; ``none``, all epochs and the last weights.
        slices: ``whole``; or ``centre``, the middle 128 x 128 pixels of each, padded where it is smaller: what the
            paper calls the full slice. Beyond it nothing is found; patches of 128 pixels then show just that.
        spacing_mm: pixels of the working grid; slices stay.
    """

    network: Literal["edd", "deconvnet", "unet", "fcn", "deeplab"] = "edd"
    patch_size: Literal[32, 64, 96, 128] = 64
    receptive_field: int | None = None
    width: int | None = Field(None, ge=1)
    batch_size: int = Field(128, ge=1)
    muscle: bool = True
    cross_fitting: bool = False
    stopping: Literal["validation", "held_back", "none"] = "validation"
    slices: Literal["whole", "centre"] = "whole"
    spacing_mm: float = Field(PIXEL_MM, ge=0.2, le=5)


@dataclass(frozen=True)
class EDDMuscleChoice:
    """What was chosen.

    Attributes:
        network: the one that predicts, with its arguments.
        receptive_field: its receptive field in pixels.
        muscle: whether MUSCLE Net follows.
        memory_gb, budget_gb: estimated, and there.
        lesions_px: see :func:`autoseg.planners.edd_muscle.lesion_sizes`.
        iterations, epochs: of the first stage; batches in an epoch are estimated.
        muscle_epochs: of MUSCLE Net.
        stops_early: whether some cases say when the first stage ends.
    """

    network: Named
    receptive_field: int
    muscle: bool
    memory_gb: float
    budget_gb: float
    lesions_px: tuple[float, ...]
    iterations: int
    epochs: int
    muscle_epochs: int
    stops_early: bool
