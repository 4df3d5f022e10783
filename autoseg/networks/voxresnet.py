"""VoxResNet as RatLesNetv2 was compared with it (Valverde et al. 2020, doi 10.3389/fnins.2020.610239).

After Chen et al. 2018: pre-activated residual blocks (a 1x3x3 and a 3x3x3 convolution) at four resolutions, each halved
by a strided convolution; a transposed convolution brings each to full size, and the four logits are summed. Names and
order of the parameters are those of the authors' weights. Notation as in :mod:`autoseg.networks`.

The authors' output paddings fit only depths of 2 modulo 8 with heights and widths that are multiples of 8; the rule
:func:`output_padding` gives their values there and fits every size. Their transposed convolutions have a kernel of 3 at
strides of 4 and 8 too, so that most voxels of the two coarse logits get nothing but the bias; ``upsampling_kernel``
"double_stride" mends this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.networks.normalisation import with_normalisation
from autoseg.networks.ratlesnetv2 import initialise
from autoseg.plugins.parts import NetworkPart

STRIDES = (1, 2, 4, 8)


class VoxResNet(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``.

    Args:
        in_channels, out_channels: of image and logits.
        width: w, feature maps of the finest resolution; the others have 2w.
        double_stride: whether kernels of the upsampling are twice their stride, instead of 3.
        auxiliary_outputs: whether training mode puts out a list, the logits and those of each resolution, all of
            full size, for a loss that trains each resolution too.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, double_stride: bool, auxiliary_outputs: bool
    ) -> None:
        super().__init__()
        self.auxiliary_outputs = auxiliary_outputs
        self.seq1 = nn.Sequential(
            nn.Conv3d(in_channels, width, kernel_size=3, padding=1),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            _in_plane(width),
        )
        self.seq2 = _resolution(width, 2 * width)
        self.seq3 = _resolution(2 * width, 2 * width)
        self.seq4 = _resolution(2 * width, 2 * width)
        for i, stride in enumerate(STRIDES):
            channels = width if i == 0 else 2 * width
            self.add_module(f"transposed{i + 1}", _upsampling(channels, out_channels, stride, double_stride))
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits, see the class."""
        size = image.shape[2:]
        several = self.auxiliary_outputs and self.training
        x, total = image, torch.zeros(())
        outputs: list[torch.Tensor] = []
        for i in range(1, 5):
            x = self.get_submodule(f"seq{i}")(x)
            output = upsampled(self.get_submodule(f"transposed{i}"), x, size)
            total = output if i == 1 else total + output
            if several:
                outputs.append(output)
        return [total, *outputs] if several else total


class VoxResBlock(nn.Module):
    """``x + f(x)``, f two times (normalisation, ReLU, convolution), first within slices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            _in_plane(channels),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels, channels, kernel_size=3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]``, as it came."""
        return x + self.seq(x)


def output_padding(size: Sequence[int], stride: int) -> tuple[int, ...]:
    """What a transposed convolution (kernel 3, padding 1) adds at the end to arrive at ``size``, per axis.

    >>> output_padding((18, 256, 256), 8)
    (1, 7, 7)
    """
    return tuple((n - 1) % stride for n in size)


def upsampled(layer: Any, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A coarse feature map as logits of ``size``; voxel i of it lies at voxel ``stride * i``."""
    stride = layer.stride[0]
    missing = output_padding(size, stride)
    # one voxel longer than a kernel of 3 makes it, to be cut off where not needed
    if layer.kernel_size[0] > 3:
        missing = tuple(max(0, n - 1) for n in missing)
    full = F.conv_transpose3d(x, layer.weight, layer.bias, stride, layer.padding, missing)
    return full[:, :, : size[0], : size[1], : size[2]]


def _in_plane(channels: int) -> nn.Conv3d:
    """A convolution within slices."""
    return nn.Conv3d(channels, channels, kernel_size=(1, 3, 3), padding=(0, 1, 1))


def _resolution(in_channels: int, channels: int) -> nn.Sequential:
    """Down to half the resolution, and two residual blocks there."""
    return nn.Sequential(
        nn.BatchNorm3d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv3d(in_channels, channels, kernel_size=3, stride=2, padding=1),
        VoxResBlock(channels),
        VoxResBlock(channels),
    )


def _upsampling(channels: int, out_channels: int, stride: int, double_stride: bool) -> nn.ConvTranspose3d:
    """The transposed convolution of one resolution, padded so that coarse voxel i lies at voxel ``stride * i``."""
    if double_stride and stride > 1:
        return nn.ConvTranspose3d(
            channels, out_channels, kernel_size=2 * stride, stride=stride, padding=stride - 1
        )
    return nn.ConvTranspose3d(channels, out_channels, kernel_size=3, stride=stride, padding=1)


def build_voxresnet(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    upsampling_kernel: str = "published",
    auxiliary_outputs: bool = False,
    normalisation: str = "batch",
) -> VoxResNet:
    """VoxResNet as compared in the paper of RatLesNetv2.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        width: feature maps of the finest resolution, half of the others'.
        upsampling_kernel: "published" (3 everywhere) or "double_stride" (no gaps between coarse voxels).
        auxiliary_outputs: see :class:`VoxResNet`; True in the paper. It needs a loss that knows them, such as
            "ratlesnetv2".
        normalisation: "batch" (published) or "instance", see :mod:`autoseg.networks.normalisation`.

    Raises:
        AutosegError: another upsampling_kernel or normalisation.
    """
    kernels = ("published", "double_stride")
    if upsampling_kernel not in kernels:
        raise AutosegError(
            "the arguments of VoxResNet do not fit",
            found=f"upsampling_kernel '{upsampling_kernel}'",
            expected=" or ".join(kernels),
            fix="correct the arguments in the plan",
        )
    network = VoxResNet(
        in_channels, out_channels, width, upsampling_kernel == "double_stride", auxiliary_outputs
    )
    return with_normalisation(network, normalisation)


NETWORKS = (NetworkPart("voxresnet", build_voxresnet, "VoxResNet as compared in the paper of RatLesNetv2"),)
