"""What the planner ``unet`` knows beforehand: nnU-Net's numbers, presets, options; and what it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    Normalisation,
)
from autoseg.planners._topology import Blocks, Topology, count_feature_map_elements, count_parameters

ANISOTROPY = 3
"""An axis is thick when its spacing is more than this times the others' and it has that much fewer voxels."""

THICK_AXIS_PERCENTILE = 10
MIN_BATCH = 2
MASK_NORMALISATION_BELOW = 0.75
LOWRES_BELOW = 0.25
LOWRES_STEP = 1.03
LOWRES_MIN_GAIN = 2

QUICK_GB = 0.5
"""Memory that the patch of a quick plan may need, with the published width."""
QUICK_FEATURES = (8, 64)
"""Of its first resolution, and at most."""
QUICK_LEARNING_RATE = 0.004
"""With Adam, which gets a network of this width off the ground in a few hundred steps."""

ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres"]


@dataclass(frozen=True)
class UNetPreset:
    """A size of network and of the device it is meant for.

    Attributes:
        residual: residual encoder (ResEnc).
        target_gb: memory of the device.
        elements_3d, elements_2d: feature-map elements that fill it, at the reference batch of 2 in 3D and 12 in 2D.
        largest_share: of the dataset's voxels that one batch may hold.
    """

    residual: bool
    target_gb: float
    elements_3d: float
    elements_2d: float
    largest_share: float


PRESETS = {
    "plain": UNetPreset(False, 8, 560e6, 85e6, 0.05),
    "M": UNetPreset(True, 8, 680e6, 135e6, 1.0),
    "L": UNetPreset(True, 24, 2.1e9, 380e6, 1.0),
    "XL": UNetPreset(True, 40, 3.6e9, 560e6, 1.0),
}


class UNetOptions(BaseModel, extra="forbid"):
    """Set by ``--set planner.NAME=VALUE``.

    Attributes:
        preset: ``plain`` (nnU-Net's default U-Net) or its residual encoder presets ``M``, ``L``, ``XL``, which are
            meant for 8, 24 and 40 GB.
        configuration: ``auto`` takes 3d_fullres, or 2d where the images are single slices.
        target_spacing_mm: z, y, x as in the files, instead of the one derived from the data.
    """

    preset: Literal["plain", "M", "L", "XL"] = "plain"
    configuration: Literal["auto", "2d", "3d_fullres", "3d_lowres"] = "auto"
    target_spacing_mm: tuple[float, float, float] | None = Field(None)


MAP_BYTES, WEIGHT_BYTES = 4, 10
"""Of a training step, at its peak: an element of a feature map is kept in two bytes before its normalisation and after
its activation; a weight in float32 with its momentum, and in two bytes."""
VOXEL_BYTES, CHANNEL_BYTES = 124, 6
"""Of a voxel of the patch: the largest gradients with 32 feature maps, and the loss; of each channel of the image."""


@dataclass(frozen=True)
class WorkingGrid:
    """The working grid of full resolution; working axis order unless said otherwise.

    Attributes:
        transpose: working axis i is file axis ``transpose[i]``.
        spacing_mm, median_shape: of the working grid and of the median case on it.
        thick_axis: the file axis whose spacing is a percentile instead of the median.
        median_spacing_mm, median_file_shape: of the data as they are, file axis order.
        dataset_voxels: of all cases on the working grid, by the median case.
    """

    transpose: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    thick_axis: int | None
    median_spacing_mm: tuple[float, float, float]
    median_file_shape: tuple[float, float, float]
    dataset_voxels: float


@dataclass(frozen=True)
class Configuration:
    """One way to look at the data: 2d, 3d_fullres or 3d_lowres.

    Attributes:
        spacing_mm: of the working grid; the planes only for 2d.
        median_shape: of the median case on it.
        topology: the network's shape, with the patch.
        blocks: what its stages are made of.
        elements: feature-map elements of one sample.
        reference: feature-map elements that fill the memory, at ``reference_batch``.
        fitting_batch: how many samples would fill the memory.
        share_cap: the largest batch by its share of the dataset.
        batch_size: samples per batch.
        batch_dice: whether the Dice loss pools the batch instead of judging each sample.
        first_patch: the patch before it was shrunk to fit the memory.
    """

    name: ConfigurationName
    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    topology: Topology
    blocks: Blocks
    elements: int
    reference: float
    reference_batch: int
    fitting_batch: int
    share_cap: int
    batch_size: int
    batch_dice: bool
    first_patch: tuple[int, ...]

    @property
    def patch_size(self) -> tuple[int, ...]:
        """In voxels."""
        return self.topology.patch_size

    @property
    def n_stages(self) -> int:
        """Resolutions."""
        return self.topology.n_stages

    def memory_gb(self, target_gb: float) -> float:
        """nnU-Net's estimate of the training's memory, by which it chooses patch and batch."""
        return self.elements * self.batch_size / self.reference_batch / self.reference * target_gb

    def counted_gb(self, blocks: Blocks, in_channels: int, n_outputs: int) -> float:
        """What a training step in mixed precision takes, in 1e9 bytes; nothing for what cuDNN needs inside itself.

        Within 2 % of :func:`autoseg.training.step_count.count_step`; a tenth less with residual blocks in 3D, whose
        shortcuts the count averages in float32, as a CPU does.

        Args:
            blocks: of the network that is trained.
            in_channels, n_outputs: of it.
        """
        elements = count_feature_map_elements(self.topology, blocks, n_outputs)
        per_voxel = VOXEL_BYTES * blocks.width / 32 + CHANNEL_BYTES * in_channels
        sample = MAP_BYTES * elements + per_voxel * math.prod(self.patch_size)
        weights = count_parameters(self.topology, blocks, in_channels, n_outputs)
        return (self.batch_size * sample + WEIGHT_BYTES * weights) / 1e9


@dataclass(frozen=True)
class Decisions:
    """Everything that was worked out, for the plan and for the words that explain it.

    Attributes:
        quick: see :class:`autoseg.plugins.planner.Budget`.
    """

    fingerprint: Fingerprint
    options: UNetOptions
    target_gb: float
    geometry: WorkingGrid
    configurations: dict[str, Configuration]
    chosen: Configuration
    normalisation: list[Normalisation]
    quick: bool = False
