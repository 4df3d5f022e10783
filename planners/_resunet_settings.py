"""What the planner ``resunet`` knows beforehand: the published numbers and options; and what it decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from autoseg.planners._memory import ADAM_COPIES, Cost

ATLAS_SHAPE = (189, 233, 197)
"""Voxels of the published grid (MNI space, 1 mm), z, y, x."""
CROPS: dict[str, tuple[int, int, int]] = {"zoom_in": (128, 128, 128), "zoom_out": (168, 172, 144)}
"""The published crops on that grid, z, y, x: 24 % and 48 % of the volume."""
SHARES = {"zoom_in": 0.2417, "zoom_out": 0.4796}
"""Of the volume."""
EPOCHS = {"zoom_in": 1200, "zoom_out": 150}
LEARNING_RATES = {"zoom_in": 1e-3, "zoom_out": 1e-4}
CYCLE_EPOCHS = 50
WEIGHT_DECAY = 1e-4
NOT_DONE = (
    *("scaling_p", "noise_p", "blur_p", "brightness_p", "contrast_p"),
    *("low_resolution_p", "gamma_inverted_p", "gamma_p", "mirror_p"),
)
"""What nnU-Net's augmentation does beside rotation."""
PUBLISHED_MAXIMUM = (1.5, 255.5)
"""Of the intensities of a scan of 0 to 255: what lies above the first number, and not above the second."""
WIDTH = 32
QUICK_WIDTH, QUICK_GB, QUICK_CROPS = 8, 0.2, 20
"""Of a quick plan: feature maps of the first block, the memory that its crops may need, crops in an epoch."""
SPACING_MM = 1.0
COARSEST_MM = 1.5
"""Scans whose voxels are larger on every axis stay on their own grid: finer voxels would hold no more."""
SMALLEST_CROP = 8  # three poolings
CROP_STEP = 4
HEAD_MM = (120, 280)
"""The longest edge of a scan of a human head."""
COST_OF_KIND, COST_OF_GRID, SILENT_COST = 0.6, 0.5, 0.2
"""What other channels, labels and sizes take from the score; thick slices, or the name of another contrast; and a name
that does not say the contrast."""
THIN = 2
"""Voxels are cubes when the longest edge is less than so many times the shortest."""

COST = Cost(elements_per_voxel=750.0, parameters=18_438_561, width=WIDTH, weight_copies=ADAM_COPIES)
"""Of a training step at batch 1, the loss included (benchmarks/live_memory.py)."""
SAVING = 0.716
"""Share of the peak that is left with ``checkpointing``. Of what the forward pass keeps 0.53 is left, but the backward
pass then needs more than without it to take one block back, and the peak lies there."""
PREDICTION_ELEMENTS, TILE_ELEMENTS = 81.0, 4.0
"""Float32 elements that predicting one voxel needs: of the network at the published width, and of what gathers logits.

Counted by benchmarks/live_memory.py: what an operation needs inside itself is not in it.
"""

Intensities = Literal["auto", "divide_by_255", "rescale", "zscore"]
InferenceName = Literal["auto", "centre", "whole", "window"]


class ResUNetOptions(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``.

    Attributes:
        variant: ``full`` trains on small crops, then goes on with large ones and predicts with the last weights; a
            prediction can choose those of the next two, which are written as well. ``ensemble`` (3D-ResU-Net-E)
            averages the three snapshots of the second stage; ``zoom_in`` (3D-ResU-Net-F) has no second stage;
            ``large_only`` trains on large crops from scratch.
        zoom_in: edge of the small crops in voxels; 16 and 32 were tried and rejected in the paper. Chosen from data
            and memory when left out.
        inference: ``centre`` predicts one crop in the middle, as published, and takes all outside for background;
            ``window`` overlapping tiles of the size of the large crop; ``whole`` the whole volume at once, of which the
            normalisation sees more air than of any crop that it learned from; ``auto`` is ``window``.
        intensities: ``divide_by_255`` as published, for scans of 0 to 255 (a scan among them that is not is brought to
            0 to 1 by itself, and named); ``rescale`` turns the least and the
            largest value of a scan into 0 and 1; ``zscore``; ``auto`` looks at the data.
        foreground_share: of the crops that are centred on a lesion; 0 as published.
        rejection: a crop of which a smaller share is not 0 is drawn again; the authors' code has 0.7 as an option, and
            takes every crop as it comes, which is 0.
        rotation: crops are turned by up to so many degrees about each axis, one crop in five; 0 as published, the paper
            names it as a next step.
        validation: what chooses the best weights: ``whole`` scans, or ``lesion_crop``, as in the authors' code one crop
            of each, centred on its lesion. Scores after the training are of whole scans in both cases.
        width: feature maps of the first block, a multiple of 8; 32 as published.
    """

    variant: Literal["full", "ensemble", "zoom_in", "large_only"] = "full"
    zoom_in: int | None = Field(None, ge=SMALLEST_CROP)
    inference: InferenceName = "auto"
    intensities: Intensities = "auto"
    foreground_share: float = Field(0.0, ge=0, le=1)
    rejection: float = Field(0.0, ge=0, le=1)
    rotation: float = Field(0.0, ge=0, le=180)
    validation: Literal["whole", "lesion_crop"] = "whole"
    width: int = Field(WIDTH, ge=8, multiple_of=8)


@dataclass(frozen=True)
class ResUNetChoice:
    """What data and memory allow.

    Attributes:
        spacing_mm: of the working grid; None leaves that of the case.
        shape: voxels of the median case on the working grid, z, y, x.
        crops: of each stage that is trained.
        saving: whether activations are computed twice instead of kept.
        memory_gb, budget_gb: of the largest crop, estimated, and there.
        prediction_gb: of the whole median volume at once.
        shrunk: what the crops were before they were made to fit the memory; empty where they fitted.
        inference: how a case is predicted.
        intensities: of each channel.
        unlike: names of the scans that are not of 0 to 255.
    """

    spacing_mm: tuple[float | None, float | None, float | None]
    shape: tuple[int, int, int]
    crops: dict[str, tuple[int, int, int]]
    saving: bool
    memory_gb: float
    budget_gb: float
    prediction_gb: float
    shrunk: dict[str, tuple[int, int, int]]
    inference: InferenceName
    intensities: tuple[Intensities, ...]
    unlike: tuple[str, ...] = ()
