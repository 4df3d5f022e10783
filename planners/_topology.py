"""The shape of nnU-Net's U-Nets and their cost, by arithmetic alone (no torch).

``size`` and ``spacing`` have two or three entries, in the order of the working axes. The rules are nnU-Net v2's
(Isensee et al. 2021, doi 10.1038/s41592-020-01008-z; version 2.8.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_EDGE = 4
"""Smallest edge, in voxels, of the feature maps at the bottom of the network."""

COMPARABLE = 2
"""Axes whose spacings differ by less than this factor are pooled and convolved alike."""


@dataclass(frozen=True)
class Topology:
    """How the network pools a patch.

    Attributes:
        patch_size: padded up, so that every pooling halves it exactly.
        strides: per stage and axis; the first stage does not pool.
        kernel_sizes: per stage and axis.
        divisor: per axis, what the patch must be divisible by.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    divisor: tuple[int, ...]

    @property
    def n_stages(self) -> int:
        """Resolutions, the finest included."""
        return len(self.strides)


@dataclass(frozen=True)
class Blocks:
    """What the stages are made of.

    Attributes:
        residual: a residual encoder (ResEnc) instead of a plain one.
        max_features: feature maps of a stage, at most.
        width: feature maps of the first stage.
    """

    residual: bool
    max_features: int
    width: int = 32

    def features(self, n_stages: int) -> list[int]:
        """Feature maps per stage: the width, doubled from stage to stage."""
        return [min(self.max_features, self.width * 2**stage) for stage in range(n_stages)]

    def encoder(self, n_stages: int) -> list[int]:
        """Convolutions (plain) or residual blocks per stage of the encoder."""
        return ([1, 3, 4] + [6] * n_stages)[:n_stages] if self.residual else [2] * n_stages

    def decoder(self, n_stages: int) -> list[int]:
        """Convolutions per stage of the decoder."""
        return [1 if self.residual else 2] * (n_stages - 1)


def find_topology(spacing: Sequence[float], size: Sequence[float]) -> Topology:
    """Pool every axis as often as its size allows, coarse axes later than fine ones.

    Args:
        spacing: of the working grid in mm.
        size: wanted patch in voxels; need not be whole.
    """
    n_axes = len(size)
    spacing, current = list(spacing), list(size)
    pools, kernel = [0] * n_axes, [1] * n_axes
    strides, kernels = [(1,) * n_axes], []
    while axes := _axes_to_pool(spacing, current):
        kernel = [
            3 if k == 3 or s / min(spacing) < COMPARABLE else 1 for k, s in zip(kernel, spacing, strict=True)
        ]
        for axis in axes:
            pools[axis] += 1
            spacing[axis] *= 2
            current[axis] = math.ceil(current[axis] / 2)
        strides.append(tuple(2 if axis in axes else 1 for axis in range(n_axes)))
        kernels.append(tuple(kernel))
    kernels.append((3,) * n_axes)
    divisor = tuple(2**n for n in pools)
    patch = tuple(math.ceil(s / d) * d for s, d in zip(size, divisor, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels), divisor)


def _axes_to_pool(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    """The axes that the next stage halves; none when the network ends here."""
    large = [axis for axis, edge in enumerate(size) if edge >= 2 * MIN_EDGE]
    if not large:
        return []
    finest = min(spacing[axis] for axis in large)
    axes = [axis for axis in large if spacing[axis] / finest < COMPARABLE]
    if len(axes) == 1 and size[axes[0]] < 3 * MIN_EDGE:
        return []
    return axes


def count_feature_map_elements(
    topology: Topology, blocks: Blocks, n_outputs: int, size: Sequence[int] | None = None
) -> int:
    """Elements of all feature maps that convolutions write for one sample: nnU-Net's measure of memory.

    Equal to ``compute_conv_feature_map_size`` of the networks in dynamic-network-architectures, without building
    them. Sizes are divided with the remainder dropped. Deep supervision is not counted.

    Args:
        topology: of the network.
        blocks: what its stages are made of.
        n_outputs: channels that it puts out.
        size: of the input; the topology's patch when None.
    """
    n_stages = topology.n_stages
    features = blocks.features(n_stages)
    voxels = _voxels_per_stage(size or topology.patch_size, topology.strides)
    elements = [f * v for f, v in zip(features, voxels, strict=True)]
    total = 0
    for stage, count in enumerate(blocks.encoder(n_stages)):
        total += _encoder_outputs(stage, count, features, topology.strides, blocks.residual) * elements[stage]
    # Each decoder stage writes at the resolution of its skip: one transposed convolution, then the others.
    total += sum((count + 1) * e for count, e in zip(blocks.decoder(n_stages), elements[:-1], strict=True))
    return total + n_outputs * voxels[0]


def _voxels_per_stage(size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    voxels = []
    for stride in strides:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    return voxels


def _encoder_outputs(
    stage: int, count: int, features: Sequence[int], strides: Sequence[Sequence[int]], residual: bool
) -> int:
    """How many convolutions of one encoder stage write a feature map of that stage's size."""
    if not residual:
        return count
    if stage == 0:
        return 1 + 2 * count  # the stem, then two convolutions per block
    projects = features[stage] != features[stage - 1] or any(step != 1 for step in strides[stage])
    return 2 * count + projects  # the first block's shortcut counts where it changes size or features


def count_parameters(topology: Topology, blocks: Blocks, in_channels: int, n_outputs: int) -> int:
    """Weights of the network, deep supervision included; without building it.

    Each convolution has a bias and a normalisation with a scale and a shift for each feature map; a shortcut that
    changes the number of feature maps has the normalisation alone.
    """
    features, strides = blocks.features(topology.n_stages), topology.strides
    taps = [math.prod(kernel) for kernel in topology.kernel_sizes]
    first = features[0] if blocks.residual else in_channels
    total = _convolution(taps[0], in_channels, first) if blocks.residual else 0
    for stage, count in enumerate(blocks.encoder(topology.n_stages)):
        before, own = features[stage - 1] if stage else first, features[stage]
        convolutions = 2 * count if blocks.residual else count
        total += _convolution(taps[stage], before, own)
        total += (convolutions - 1) * _convolution(taps[stage], own, own)
        total += (before * own + 2 * own) if blocks.residual and before != own else 0
    for stage, count in enumerate(blocks.decoder(topology.n_stages)):
        own, below = features[stage], features[stage + 1]
        total += math.prod(strides[stage + 1]) * below * own + own
        total += _convolution(taps[stage], 2 * own, own)
        total += (count - 1) * _convolution(taps[stage], own, own)
        total += (own + 1) * n_outputs
    return total


def _convolution(taps: int, before: int, after: int) -> int:
    """Weights and bias, and those of the normalisation behind it."""
    return taps * before * after + 3 * after
