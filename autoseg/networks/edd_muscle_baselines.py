"""U-Net, FCN and DeepLab as EDD Net was compared with them (Chen et al. 2017, doi 10.1016/j.nicl.2017.06.016).

They are cut down to the receptive field of a DeconvNet: 46, 52 and 44 pixels at the deepest feature map. Layers,
initialisation and notation as in :mod:`autoseg.networks.edd_muscle`. The paper gives their receptive fields and that
DeepLab goes without its conditional random field; the layers are the plainest ones with those receptive fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.networks.edd_muscle import check_size, initialise, stack
from autoseg.plugins.parts import NetworkPart

DILATIONS = (1, 2, 3)  # of DeepLab's parallel convolutions


class PatchUNet(nn.Module):
    """U-Net: image ``[b, c, y, x]`` of any size to logits ``[b, k, y, x]``, in both modes.

    Three resolutions of three convolutions; bilinear upsampling, concatenation (upsampled first), three convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.encoder = nn.ModuleList(
            [stack(in_channels, w, w, w), stack(w, *[2 * w] * 3), stack(2 * w, *[4 * w] * 3)]
        )
        self.decoder = nn.ModuleList([stack(6 * w, *[2 * w] * 3), stack(3 * w, w, w, w)])
        self.score = nn.Conv2d(w, out_channels, 3, padding=1)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        *skips, x = encoded(self.encoder, image)
        for convolutions in self.decoder:
            skip = skips.pop()
            x = convolutions(torch.cat([resized(x, skip.shape[2:]), skip], 1))
        return self.score(x)


class FCN(nn.Module):
    """FCN: image ``[b, c, y, x]`` of any size to logits ``[b, k, y, x]``, in both modes.

    Four resolutions of 2, 2, 2 and 1 convolutions; the last three are scored by 1x1 convolutions, and each score,
    upsampled (bilinear), is added to the next finer one.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.encoder = nn.ModuleList(
            [
                stack(in_channels, w, w),
                stack(w, 2 * w, 2 * w),
                stack(2 * w, 4 * w, 4 * w),
                stack(4 * w, 8 * w),
            ]
        )
        self.scores = nn.ModuleList(nn.Conv2d(maps, out_channels, 1) for maps in (2 * w, 4 * w, 8 * w))
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        features = encoded(self.encoder, image)[1:]
        finer, middle, total = (score(x) for score, x in zip(self.scores, features, strict=True))
        total = resized(total, middle.shape[2:]) + middle
        total = resized(total, finer.shape[2:]) + finer
        return resized(total, image.shape[2:])


class DeepLab(nn.Module):
    """DeepLab without its random field: image ``[b, c, y, x]`` of any size to logits ``[b, k, y, x]``, in both modes.

    Half resolution from the first pooling on; the second pooling has stride 1, the convolutions after it a dilation
    of 2. Three parallel convolutions with dilations 1, 2 and 3 are scored by 1x1 convolutions; the sum of the scores
    is upsampled (bilinear).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.fine = stack(in_channels, w, w)
        self.coarse = stack(w, 2 * w, 2 * w)
        self.atrous = stack(2 * w, 4 * w, 4 * w, dilation=2)
        self.parallel = nn.ModuleList(stack(4 * w, 4 * w, dilation=dilation) for dilation in DILATIONS)
        self.scores = nn.ModuleList(nn.Conv2d(4 * w, out_channels, 1) for _ in DILATIONS)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        check_size(image, poolings=1)
        x = self.coarse(F.max_pool2d(self.fine(image), kernel_size=2))
        # a row and a column more, so that the size stays; after a ReLU zeros do not change a maximum
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=2, stride=1)
        x = self.atrous(x)
        scored = zip(self.parallel, self.scores, strict=True)
        total = torch.stack([score(convolution(x)) for convolution, score in scored]).sum(0)
        return resized(total, image.shape[2:])


def encoded(encoder: nn.ModuleList, image: torch.Tensor) -> list[torch.Tensor]:
    """The features of each stack, the finest first; 2x2 max pooling lies between."""
    check_size(image, poolings=len(encoder) - 1)
    features = [encoder[0](image)]
    for convolutions in encoder[1:]:
        features.append(convolutions(F.max_pool2d(features[-1], kernel_size=2)))
    return features


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """``x`` at another size, bilinear."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def build_edd_unet(in_channels: int, out_channels: int, width: int = 32) -> PatchUNet:
    """U-Net as compared in the paper of EDD Net, see :class:`PatchUNet`; not the general network "unet".

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        width: feature maps of the finest resolution, doubled by each pooling.
    """
    return PatchUNet(in_channels, out_channels, width)


def build_edd_fcn(in_channels: int, out_channels: int, width: int = 32) -> FCN:
    """FCN as compared in the paper of EDD Net, see :class:`FCN`; arguments as of :func:`build_edd_unet`."""
    return FCN(in_channels, out_channels, width)


def build_edd_deeplab(in_channels: int, out_channels: int, width: int = 32) -> DeepLab:
    """DeepLab as compared in the paper of EDD Net, see :class:`DeepLab`; arguments as of :func:`build_edd_unet`."""
    return DeepLab(in_channels, out_channels, width)


NETWORKS = (
    NetworkPart("edd_unet", build_edd_unet, "U-Net as compared in the paper of EDD Net", divisor=(1, 1)),
    NetworkPart("edd_fcn", build_edd_fcn, "FCN as compared in the paper of EDD Net", divisor=(1, 1)),
    NetworkPart(
        "edd_deeplab", build_edd_deeplab, "DeepLab as compared in the paper of EDD Net", divisor=(1, 1)
    ),
)
