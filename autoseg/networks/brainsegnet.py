"""Brain SegNet, the 3D local refinement network (Hu et al. 2020, BMC Medical Imaging 20:17).

An encoder of 17 pre-activated 3x3x3 convolutions in four blocks; a block halves the resolution in the planes by a
strided convolution and never in depth, so stacks of any number of planes fit. Refinement from coarse to fine: a 1x1x1
convolution brings each block to the same number of feature maps; the coarser result, bilinearly up in the planes, is
added, and a 3x3x3 convolution follows. There is no normalisation in the refinement.

Halves are rounded up, and what is upsampled beyond an odd size is cut off at its end: any size fits, and voxels stay
where they are. An output sees 41 planes, so planes that have 20 others on each side are exact in any part of a stack.

Without gradients the finest resolution, which needs most of the memory, is refined some planes at a time: exact, at
hardly any cost in operations, and a whole head fits where all of its feature maps at once would not.

The paper leaves open what halves the resolution, whether the depth is halved, and where normalisations and biases are.
This is the network of its authors with respect to all of these, and the order of parameters is that of the conformance
numbers. Notation as in :mod:`autoseg.networks`, w the width, r the refinement's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.networks.normalisation import with_normalisation
from autoseg.plugins.parts import NetworkPart

BLOCKS = 4
PLANES = 16  # that are refined at a time


class BrainSegNet(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``, in both modes.

    Args:
        in_channels, out_channels: of image and logits.
        width: w, feature maps of the first block; the next have 2w, 4w and 8w.
        refine_width: r, feature maps of the refinement, the same at each resolution.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, refine_width: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(BLOCKS)]
        self.block1 = _first_block(in_channels, width)
        self.blocks = nn.ModuleList(_block(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.adapt = nn.ModuleList(nn.Conv3d(w, refine_width, kernel_size=1) for w in widths)
        self.refine = nn.ModuleList(
            nn.Conv3d(refine_width, refine_width, kernel_size=3, padding=1) for _ in self.blocks
        )
        self.out = nn.Conv3d(refine_width, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        x = self.block1(image)
        maps = [x]
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        refined = self.adapt[-1](F.relu(maps.pop()))
        del x  # so that the coarsest is gone when the finest are made
        while maps:
            level = len(maps) - 1
            if level == 0 and not torch.is_grad_enabled():
                return self._by_planes(refined, maps.pop())
            joined = upsampled(refined, maps[-1]).add_(self.adapt[level](F.relu(maps.pop())))
            refined = self.refine[level](joined)
            del joined  # not beside the next one
        return self.out(refined)

    def _by_planes(self, coarser: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """The last level and the logits, some planes at a time."""
        starts = range(0, fine.shape[2], PLANES)
        return torch.cat([self._some_planes(coarser, fine, first) for first in starts], 2)

    def _some_planes(self, coarser: torch.Tensor, fine: torch.Tensor, first: int) -> torch.Tensor:
        """The logits of some planes; they see one more plane on both sides, at the ends of the stack zeros."""
        depth = fine.shape[2]
        end = min(first + PLANES, depth)
        seen = slice(max(first - 1, 0), min(end + 1, depth))
        fine = fine[:, :, seen]
        joined = upsampled(coarser[:, :, seen], fine).add_(self.adapt[0](F.relu(fine)))
        ends = (int(first == 0), int(end == depth))
        joined = F.pad(joined, (0, 0, 0, 0, *ends)) if any(ends) else joined
        weight, bias = self.refine[0].parameters()
        return self.out(F.conv3d(joined, weight, bias, padding=(0, 1, 1)))


class PreActivated(nn.Sequential):
    """Normalisation, ReLU, 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> None:
        conv = nn.Conv3d(in_channels, out_channels, 3, stride=(1, stride, stride), padding=1, bias=bias)
        super().__init__(nn.BatchNorm3d(in_channels), nn.ReLU(inplace=True), conv)


class ResBlock(nn.Module):
    """``x + f(x)``, f two pre-activated convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(PreActivated(channels, channels), PreActivated(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]``, as it came."""
        return self.layers(x).add_(x)  # a convolution does not need its own result for its gradient


def upsampled(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A new tensor with twice the resolution in the planes, bilinear, as far as ``like`` reaches."""
    y_size, x_size = like.shape[3:]
    doubled = F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear", align_corners=False)
    return doubled[..., :y_size, :x_size]


def _first_block(in_channels: int, width: int) -> nn.Sequential:
    """Two convolutions, without residual and without biases."""
    first, second = (
        nn.Conv3d(channels, width, 3, padding=1, bias=False) for channels in (in_channels, width)
    )
    return nn.Sequential(first, nn.BatchNorm3d(width), nn.ReLU(inplace=True), second)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Half the resolution in the planes, then two residual blocks."""
    down = PreActivated(in_channels, out_channels, stride=2, bias=True)
    return nn.Sequential(down, ResBlock(out_channels), ResBlock(out_channels))


def build_brainsegnet(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    refine_width: int = 128,
    normalisation: str = "batch",
) -> BrainSegNet:
    """Brain SegNet.

    Args:
        in_channels, out_channels: of image and logits; 6 and 2 (ISLES 2017) or 4 and 5 (BRATS 2015) as published.
        width: feature maps of the first block.
        refine_width: feature maps of the refinement; 64 instead of 128 take 56 % of the operations, and 80 % of the
            memory in training.
        normalisation: "batch" (published, with statistics of 10 sub-volumes) or "instance", see
            :mod:`autoseg.networks.normalisation`.

    Raises:
        AutosegError: a width below 1, or another normalisation.
    """
    if width < 1 or refine_width < 1:
        raise AutosegError(
            "the arguments of Brain SegNet do not fit",
            found=f"width {width}, refine_width {refine_width}",
            expected="at least 1 each",
            fix="correct the arguments in the plan",
        )
    return with_normalisation(BrainSegNet(in_channels, out_channels, width, refine_width), normalisation)


NETWORKS = (
    NetworkPart(
        "brainsegnet", build_brainsegnet, "Brain SegNet for perfusion stroke and tumours (Hu et al. 2020)"
    ),
)
