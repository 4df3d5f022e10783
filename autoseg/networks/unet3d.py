"""The 3D U-Net that RatLesNetv2 was compared with (Valverde et al. 2020, doi 10.3389/fnins.2020.610239).

After Cicek et al. 2016: blocks of two (convolution, batch normalisation, ReLU), max pooling (ceiling), three levels;
up by trilinear interpolation to the size of the skip and a 2x2x2 convolution, then concatenation (skip first). Names
and order of the parameters are those of the authors' network; they released no weights of it. Notation as in
:mod:`autoseg.networks`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.networks.normalisation import with_normalisation
from autoseg.networks.ratlesnetv2 import initialise, resized
from autoseg.plugins.parts import NetworkPart


class UNet3D(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``, in both modes.

    Args:
        in_channels, out_channels: of image and logits.
        width: w, feature maps of the first convolution; the levels have 2w, 4w, 8w, the bottom 16w.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.block1 = Block(in_channels, w, 2 * w)
        self.block2 = Block(2 * w, 2 * w, 4 * w)
        self.block3 = Block(4 * w, 4 * w, 8 * w)
        self.bottleneck = Block(8 * w, 8 * w, 16 * w)
        self.upconv1 = UpConvolution(16 * w)
        self.block4 = Block(24 * w, 8 * w, 8 * w)
        self.upconv2 = UpConvolution(8 * w)
        self.block5 = Block(12 * w, 4 * w, 4 * w)
        self.upconv3 = UpConvolution(4 * w)
        self.block6 = Block(6 * w, 2 * w, 2 * w)
        self.last = nn.Conv3d(2 * w, out_channels, 1)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        x, skips = image, []
        for block in (self.block1, self.block2, self.block3):
            x = block(x)
            skips.append(x)
            x = F.max_pool3d(x, kernel_size=2, stride=2, ceil_mode=True)
        x = self.bottleneck(x)
        ups = (self.upconv1, self.upconv2, self.upconv3)
        for up, block in zip(ups, (self.block4, self.block5, self.block6), strict=True):
            x = block(_joined(up, x, skips.pop()))
        return self.last(x)


class UpConvolution(nn.Module):
    """Trilinear upsampling to a given size, and a 2x2x2 convolution whose window begins at its voxel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, kernel_size=2, padding=1)

    def forward(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """``x`` at the size of ``like``, with as many channels as before."""
        return self.conv(resized(x, like))[:, :, 1:, 1:, 1:]  # so that zeros are padded at the ends alone


def _joined(up: UpConvolution, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """The skip and the upsampled ``x``; here, so that the parts are gone when the block runs."""
    return torch.cat([skip, up(x, skip)], 1)


class Block(nn.Module):
    """Twice (3x3x3 convolution, normalisation, ReLU); ``seq`` because the authors named it so."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(*_layers(in_channels, hidden), *_layers(hidden, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` with other channels."""
        return self.seq(x)


def _layers(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
    return [conv, nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True)]


def build_unet3d(
    in_channels: int, out_channels: int, width: int = 32, normalisation: str = "batch"
) -> UNet3D:
    """The 3D U-Net as compared in the paper of RatLesNetv2.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        width: feature maps of the first convolution.
        normalisation: "batch" (published) or "instance", see :mod:`autoseg.networks.normalisation`.

    Raises:
        AutosegError: another normalisation.
    """
    return with_normalisation(UNet3D(in_channels, out_channels, width), normalisation)


NETWORKS = (NetworkPart("unet3d", build_unet3d, "the 3D U-Net as compared in the paper of RatLesNetv2"),)
