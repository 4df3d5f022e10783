"""RatLesNet, the predecessor that RatLesNetv2 was compared with (Valverde et al. 2020, doi 10.3389/fnins.2020.610239).

Dense blocks (convolution, then ReLU; no normalisation), max pooling (ceiling) that keeps its indices, unpooling into
them, concatenation (unpooled first). Among equal voxels of a pooling window the first in order z, y, x wins. Names and
order of the parameters are those of the released weights. Notation as in :mod:`autoseg.networks`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.networks.ratlesnetv2 import initialise
from autoseg.plugins.parts import NetworkPart

CONVOLUTIONS = 2  # of a dense block


class RatLesNet(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``, in both modes.

    Args:
        in_channels, out_channels: of image and logits.
        width: feature maps of the first layer.
        growth: feature maps that each convolution of a dense block adds.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, growth: int) -> None:
        super().__init__()
        new = CONVOLUTIONS * growth
        skip0, skip1 = width + new, width + 2 * new
        self.conv1 = Convolution(in_channels, width, 1)
        self.dense1 = ConcatenatingBlock(width, growth)
        self.dense2 = ConcatenatingBlock(skip0, growth)
        self.bottleneck1 = Convolution(skip1, skip1, 1)
        self.dense3 = ConcatenatingBlock(2 * skip1, growth)
        self.bottleneck2 = Convolution(2 * skip1 + new, skip0, 1)
        self.dense4 = ConcatenatingBlock(2 * skip0, growth)
        self.bottleneck3 = Convolution(2 * skip0 + new, out_channels, 1, activated=False)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        x, levels = self.conv1(image), []
        for dense in (self.dense1, self.dense2):
            skip = dense(x)
            x, indices = _pooled(skip)
            levels.append((indices, skip))
        del skip, indices  # so that they are gone when the last block runs
        x = self.bottleneck1(x)
        x = self.dense3(_unpooled(x, *levels.pop()))
        x = self.bottleneck2(x)
        x = self.dense4(_unpooled(x, *levels.pop()))
        return self.bottleneck3(x)


class Convolution(nn.Module):
    """A convolution that keeps the size, and a ReLU unless ``activated`` is False."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, activated: bool = True) -> None:
        super().__init__()
        conv = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.conv = nn.Sequential(conv, *([nn.ReLU(inplace=True)] if activated else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` with other channels."""
        return self.conv(x)


class ConcatenatingBlock(nn.Module):
    """Each 3x3x3 convolution sees all that came before and adds ``growth`` feature maps to it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(channels + i * growth, growth, kernel_size=3, padding=1), nn.ReLU(inplace=True)
            )
            for i in range(CONVOLUTIONS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` to ``[b, c + 2 growth, z, y, x]``."""
        parts = [x]
        for conv in self.convs:
            parts.append(conv(torch.cat(parts, 1) if len(parts) > 1 else x))
        return torch.cat(parts, 1)


def _pooled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest voxel of each 2x2x2 window, and where in ``x`` it was."""
    return F.max_pool3d(x, kernel_size=2, stride=2, ceil_mode=True, return_indices=True)


def _unpooled(x: torch.Tensor, indices: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Each voxel of ``x`` where its window's largest was, zeros elsewhere, at the size of ``skip``; and ``skip``."""
    full = F.max_unpool3d(x, indices, (2, 2, 2), (2, 2, 2), output_size=list(skip.shape[2:]))
    return torch.cat([full, skip], 1)


def build_ratlesnet(in_channels: int, out_channels: int, width: int = 12, growth: int = 18) -> RatLesNet:
    """RatLesNet as compared in the paper of RatLesNetv2.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        width, growth: see :class:`RatLesNet`.
    """
    return RatLesNet(in_channels, out_channels, width, growth)


NETWORKS = (
    NetworkPart(
        "ratlesnet", build_ratlesnet, "RatLesNet, version 1, as compared in the paper of RatLesNetv2"
    ),
)
