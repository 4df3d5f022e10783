"""3D-ResU-Net for chronic stroke on T1 (Tomita et al. 2020, NeuroImage: Clinical 27:102276).

A U-Net of two-convolution residual blocks: pre-activated, GroupNorm after each convolution, nothing after the addition.
Three max poolings (floor), two blocks at each resolution below the first, two more at the bottom; a transposed
convolution up, resized to the skip where its size is odd, concatenated with it (upsampled first). Any size fits: an
axis of fewer than 8 voxels is padded with zeros on both sides.

The shortcut of a block has no weights. Where the feature maps get more, zeros come in front and the input lies last;
where they get fewer, the last ones are kept, which in the decoder are exactly the skip. The paper does not say so; its
networks can only be those of its authors in this way. Names and order of the parameters are theirs.

GroupNorm sees the whole crop: results depend on it everywhere, beyond the receptive field of the convolutions too.

``checkpointing`` keeps only what stands between the convolutions and computes activation and normalisation again in the
backward pass, exactly; no convolution runs twice. Notation as in :mod:`autoseg.networks`, w the width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from autoseg.errors import AutosegError
from autoseg.networks.ratlesnetv2 import resized
from autoseg.plugins.parts import NetworkPart

GROUPS = 8
SMALLEST = 8  # voxels of an axis that three halvings leave one of


class ResUNet(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``, in both modes.

    Args:
        in_channels, out_channels: of image and logits.
        width: w, feature maps of the first block; those below have 2w, 4w and 8w.
        background_logit: the logit of the background is 0 and no output of the network, so that the softmax over it
            and one lesion is the published sigmoid. False for regions, each a sigmoid of its own.
        checkpointing: trade time for memory in training, see the module.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, background_logit: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        self.background_logit = background_logit

        def block(before: int, after: int) -> ResUNetBlock:
            return ResUNetBlock(before, after, checkpointing)

        w = width
        self.ec0 = block(in_channels, w)
        self.ec1, self.ec1_2 = block(w, 2 * w), block(2 * w, 2 * w)
        self.ec2, self.ec2_2 = block(2 * w, 4 * w), block(4 * w, 4 * w)
        self.ec3, self.ec3_2 = block(4 * w, 8 * w), block(8 * w, 8 * w)
        self.dc3, self.dc3_2 = block(8 * w, 8 * w), block(8 * w, 8 * w)
        self.up3 = _upsampling(8 * w, 4 * w)
        self.dc2, self.dc2_2 = block(8 * w, 4 * w), block(4 * w, 4 * w)
        self.up2 = _upsampling(4 * w, 2 * w)
        self.dc1, self.dc1_2 = block(4 * w, 2 * w), block(2 * w, 2 * w)
        self.up1 = _upsampling(2 * w, w)
        self.dc0a = block(2 * w, w)
        self.dc0b = nn.Sequential(nn.ConvTranspose3d(w, out_channels - background_logit, kernel_size=1))
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        padded, inside = _padded(image)
        fine = self.ec0(padded)
        middle = self.ec1_2(self.ec1(_pooled(fine)))
        coarse = self.ec2_2(self.ec2(_pooled(middle)))
        x = self.ec3_2(self.ec3(_pooled(coarse)))
        x = self.dc3_2(self.dc3(x))
        x = self.dc2_2(self.dc2.joined(self.up3, x, coarse))
        del coarse  # so that they are gone when the last blocks run
        x = self.dc1_2(self.dc1.joined(self.up2, x, middle))
        del middle
        logits = self.dc0b(self.dc0a.joined(self.up1, x, fine))[inside]
        if not self.background_logit:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


class ResUNetBlock(nn.Module):
    """``shortcut(x) + f(x)``, f a ReLU and two times (3x3x3 convolution, GroupNorm, ReLU); see the module."""

    def __init__(self, in_channels: int, out_channels: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
        self.gn1 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel_size=3, padding=1)
        self.gn2 = nn.GroupNorm(GROUPS, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` to the block's number of feature maps."""
        hidden = self._second_half(self._step(lambda x: self.conv1(F.relu(x)), x))
        return hidden + shortcut(x, hidden.shape[1])

    def joined(self, upsampling: nn.Sequential, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """The block of ``[upsampled x, skip]`` that gives as many feature maps as the skip has.

        Those are the last ones of its input, so the shortcut is the skip itself, and with checkpointing nothing keeps
        the concatenated volume.
        """
        convolution, norm, activation = upsampling
        hidden = self._step(
            lambda up, skip: self.conv1(F.relu(_joined(activation(norm(up)), skip))), convolution(x), skip
        )
        return self._second_half(hidden) + skip

    def _second_half(self, hidden: torch.Tensor) -> torch.Tensor:
        """From the first convolution to the addition."""
        hidden = self._step(lambda h: self.conv2(F.relu(self.gn1(h), inplace=True)), hidden)
        return self._step(lambda h: F.relu(self.gn2(h), inplace=True), hidden)

    def _step(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """``function(*inputs)``; with checkpointing all that comes before its last operation is not kept."""
        wanted = self.checkpointing and self.training and torch.is_grad_enabled()
        if not wanted or torch.compiler.is_compiling():
            return function(*inputs)
        result: torch.Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result


def shortcut(x: torch.Tensor, channels: int) -> torch.Tensor:
    """``[b, c, z, y, x]`` with so many channels: zeros in front where there are fewer, else the last ones."""
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, 0, 0, missing, 0)) if missing > 0 else x[:, -channels:]


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool3d(x, kernel_size=2, stride=2)


def _joined(up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return torch.cat([resized(up, skip), skip], 1)


def _upsampling(in_channels: int, out_channels: int) -> nn.Sequential:
    """To twice the resolution."""
    conv = nn.ConvTranspose3d(in_channels, out_channels, kernel_size=2, stride=2)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out_channels), nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    """The authors': normal with variance 2 / fan-out; of a transposed convolution PyTorch's fan-out is its fan-in.

    Biases and GroupNorm keep PyTorch's.
    """
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _padded(image: torch.Tensor) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """The image with at least 8 voxels on each axis, and where in that it lies."""
    size = image.shape[2:]
    before = [max(0, SMALLEST - n) // 2 for n in size]
    after = [max(0, SMALLEST - n) - first for n, first in zip(size, before, strict=True)]
    inside = tuple(slice(first, first + n) for n, first in zip(size, before, strict=True))
    if not any(after):
        return image, (slice(None), slice(None), *inside)
    sides = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return F.pad(image, sides), (slice(None), slice(None), *inside)


def build_resunet(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    background_logit: bool = True,
    checkpointing: bool = False,
) -> ResUNet:
    """3D-ResU-Net.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 (background and lesion) for the published network.
        width: feature maps of the first block, a multiple of 8.
        background_logit: False where the outputs are regions, see :class:`ResUNet`.
        checkpointing: the same results, with 0.53 of the activations kept and 0.72 of the peak in training, somewhat
            slower.

    Raises:
        AutosegError: a width that is not a multiple of 8.
    """
    if width < GROUPS or width % GROUPS:
        raise AutosegError(
            "the arguments of 3D-ResU-Net do not fit",
            found=f"width {width}",
            expected=f"a multiple of {GROUPS}: each normalisation has {GROUPS} groups of feature maps",
            fix="correct the arguments in the plan",
        )
    return ResUNet(in_channels, out_channels, width, background_logit, checkpointing)


NETWORKS = (NetworkPart("resunet", build_resunet, "3D-ResU-Net for ATLAS (Tomita et al. 2020)"),)
