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
backward pass, exactly; no convolution runs twice.

Where nothing is trained (evaluation mode, no gradients) the same is computed in less than half the memory: each
convolution goes through its input in slabs of planes and writes over what it has read, a skip is never copied to be
concatenated, normalisation and activation work in place. Results are those of the plain way but for rounding.
Notation as in :mod:`autoseg.networks`, w the width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from autoseg.errors import AutosegError
from autoseg.networks.ratlesnetv2 import resized
from autoseg.plugins.parts import NetworkPart

GROUPS = 8
SMALLEST = 8  # voxels of an axis that three halvings leave one of
SLAB_MAPS = 4
"""Feature maps of the finest resolution, at width 32, that a slab of a convolution without training may weigh."""
SMALL_SLAB = 2**22
"""Elements that are no matter, 16 MB: a volume below is not divided. CPUs convolve very thin slabs slowly."""


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
        self.width, self.background_logit = width, background_logit

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
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            logits = self._plain(padded)[inside]
        else:
            logits = self._lean(padded)[inside]
        if not self.background_logit:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)

    def _plain(self, image: torch.Tensor) -> torch.Tensor:
        """As published: what a backward pass needs is kept."""
        fine = self.ec0(image)
        middle = self.ec1_2(self.ec1(_pooled(fine)))
        coarse = self.ec2_2(self.ec2(_pooled(middle)))
        x = self.ec3_2(self.ec3(_pooled(coarse)))
        x = self.dc3_2(self.dc3(x))
        x = self.dc2_2(self.dc2.joined(self.up3, x, coarse))
        del coarse  # so that they are gone when the last blocks run
        x = self.dc1_2(self.dc1.joined(self.up2, x, middle))
        del middle
        result: torch.Tensor = self.dc0b(self.dc0a.joined(self.up1, x, fine))
        return result

    def _lean(self, image: torch.Tensor) -> torch.Tensor:
        """The same for a prediction, see the module."""
        room = max(SMALL_SLAB, SLAB_MAPS * self.width * image[:, 0].numel() // 32)
        fine = self.ec0.lean(image, room)
        middle = self.ec1_2.lean(self.ec1.lean(_pooled(fine), room), room)
        coarse = self.ec2_2.lean(self.ec2.lean(_pooled(middle), room), room)
        x = self.ec3_2.lean(self.ec3.lean(_pooled(coarse), room), room)
        x = self.dc3_2.lean(self.dc3.lean(x, room), room)
        x = self.dc2_2.lean(self.dc2.lean_joined(_lean_up(self.up3, x, coarse), coarse, room), room)
        del coarse
        x = self.dc1_2.lean(self.dc1.lean_joined(_lean_up(self.up2, x, middle), middle, room), room)
        del middle
        up = _lean_up(self.up1, x, fine)
        del x
        result: torch.Tensor = self.dc0b(self.dc0a.lean_joined(up, fine, room))
        return result


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

    def lean(self, x: torch.Tensor, room: int) -> torch.Tensor:
        """The same without gradients, in less memory; ``x`` stays as it is. ``room``: elements of a slab."""
        hidden = x.new_empty((len(x), self.conv2.out_channels, *x.shape[2:]))
        return self._lean([x], hidden, room)

    def lean_joined(self, up: torch.Tensor, skip: torch.Tensor, room: int) -> torch.Tensor:
        """The same for ``[up, skip]`` concatenated, each with the block's output channels; written over ``up``."""
        return self._lean([up, skip], up, room)

    def _lean(self, parts: list[torch.Tensor], hidden: torch.Tensor, room: int) -> torch.Tensor:
        """The block for concatenated feature maps, of which the last part holds what the shortcut carries."""
        _convolve(self.conv1, parts, hidden, room)
        _normalise(self.gn1, hidden)
        _convolve(self.conv2, [hidden], hidden, room)
        _normalise(self.gn2, hidden).relu_()
        carried = parts[-1][:, -hidden.shape[1] :]
        hidden[:, -carried.shape[1] :] += carried
        return hidden

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


def _convolve(conv: nn.Conv3d, parts: list[torch.Tensor], out: torch.Tensor, room: int) -> None:
    """``conv(relu(parts))`` written to ``out``, slab by slab along z.

    Args:
        conv: 3x3x3 with a padding of 1.
        parts: ``[b, c, z, y, x]`` each, concatenated the input; one of them may be ``out``.
        out: ``[b, k, z, y, x]``.
        room: elements that a slab of the input may have.
    """
    planes = out.shape[2]
    thick = max(1, room // sum(part[:, :, 0].numel() for part in parts))
    before = torch.zeros_like(torch.cat([part[:, :, :1] for part in parts], 1))  # the padding
    for first in range(0, planes, thick):
        last = min(first + thick, planes)
        slab = _slab(before, parts, first, last).relu_()
        before = slab[:, :, -2:-1].clone()  # ``out`` may lie over what the next slab sees of this one
        out[:, :, first:last] = F.conv3d(slab, conv.weight, conv.bias, padding=(0, 1, 1))


def _slab(before: torch.Tensor, parts: list[torch.Tensor], first: int, last: int) -> torch.Tensor:
    """Planes from the one before ``first`` to ``last``, zeros beyond the end: ``[b, c, last - first + 2, y, x]``."""
    slab = before.new_zeros((*before.shape[:2], last - first + 2, *before.shape[3:]))
    slab[:, :, :1] = before
    maps = 0
    for part in parts:
        seen = part[:, :, first : last + 1]
        slab[:, maps : maps + part.shape[1], 1 : 1 + seen.shape[2]] = seen
        maps += part.shape[1]
    return slab


def _normalise(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """GroupNorm of ``[b, c, z, y, x]`` in place."""
    variance, mean = torch.var_mean(x.reshape(len(x), norm.num_groups, -1), dim=2, correction=0)
    each = x.shape[1] // norm.num_groups
    scale = (variance + norm.eps).rsqrt().repeat_interleave(each, 1) * norm.weight
    shift = norm.bias - mean.repeat_interleave(each, 1) * scale
    return x.mul_(scale[:, :, None, None, None]).add_(shift[:, :, None, None, None])


def _lean_up(upsampling: nn.Sequential, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """``x`` through :func:`_upsampling`, resized to the skip, one group of feature maps at a time."""
    conv, norm = cast(nn.ConvTranspose3d, upsampling[0]), cast(nn.GroupNorm, upsampling[1])
    bias = cast(torch.Tensor, conv.bias)
    up = torch.empty_like(skip)
    each = up.shape[1] // GROUPS
    for group in range(GROUPS):
        part = slice(group * each, (group + 1) * each)
        one = F.conv_transpose3d(x, conv.weight[:, part], bias[part], stride=2).to(x.dtype)
        one = F.relu(F.group_norm(one, 1, norm.weight[part], norm.bias[part], norm.eps), inplace=True)
        up[:, part] = resized(one, skip)
    return up


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
