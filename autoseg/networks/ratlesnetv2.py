"""RatLesNetv2 and the variants of its ablation study (Valverde et al. 2020, doi 10.3389/fnins.2020.610239).

A U-shaped network of two-convolution blocks in the order ReLU, batch normalisation, convolution: a 1x1x1 stem, one
block and one max pooling (ceiling) per level, nothing at the bottom; then per level a 1x1x1 squeeze, trilinear
upsampling to the size of the skip, concatenation (upsampled first) and one block; a 1x1x1 head. Because sizes are
rounded up on the way down and taken from the skips on the way up, any size fits, also a single slice.

The names and the order of the parameters are those of the weights that the authors released, so that these load as
they are. Notation as in :mod:`autoseg.networks`; V is the number of voxels, w the width.

Memory, exact in value: the concatenations are made where they are read and not kept. Without gradients in evaluation
mode the normalisation overwrites its input, which is always a tensor of the block's own. ``checkpointing`` keeps only
what stands between the convolutions and computes activation, normalisation and concatenation again in the backward
pass; no convolution runs twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from autoseg.errors import AutosegError, nearest_names
from autoseg.networks.normalisation import with_normalisation
from autoseg.plugins.parts import NetworkPart

LEVELS = (1, 2, 3)


class RatLesNetv2(nn.Module):
    """Image ``[b, c, z, y, x]`` of any size to logits ``[b, k, z, y, x]``, in both modes.

    Args:
        in_channels, out_channels: of image and logits.
        width: w, the feature maps of the encoder; blocks of the decoder have 2w.
        levels: how often the resolution is halved; 3 as published, 2 in the ablation with half the receptive field.
        block: makes a block from its number of feature maps and ``checkpointing``.
        checkpointing: trade time for memory in training, see the module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        levels: int,
        block: Callable[[int, bool], nn.Module],
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.conv1 = nn.Conv3d(in_channels, width, 1)
        for i in range(1, levels + 1):
            self.add_module(f"block{i}", block(width, checkpointing))
        for i in range(4 - levels, 4):  # the released ablations with fewer levels lack the first numbers
            channels = width if i == 4 - levels else 2 * width
            self.add_module(f"bottleneck{i}", Squeeze(channels, width, checkpointing))
            self.add_module(f"block{i + 3}", block(2 * width, checkpointing))
        self.bottleneck4 = Squeeze(2 * width, out_channels, checkpointing)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        x = self.conv1(image)
        skips = []
        for i in range(1, self.levels + 1):
            x = self.get_submodule(f"block{i}")(x)
            skips.append(x)
            x = F.max_pool3d(x, kernel_size=2, stride=2, ceil_mode=True)
        for i in range(4 - self.levels, 4):
            x = self.get_submodule(f"bottleneck{i}")(x)
            if torch.is_grad_enabled():  # upsampled once, for one backward pass through it; else at each use
                x = resized(x, skips[-1])
            x = self.get_submodule(f"block{i + 3}")(x, skips.pop())
        return self.bottleneck4(x)


class ResidualBlock(nn.Module):
    """``x + f(x)``, f twice (ReLU, normalisation, 3x3x3 convolution); x is what :func:`joined` makes of the inputs."""

    def __init__(self, channels: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.seq = nn.Sequential(*_layers(channels, channels), *_layers(channels, channels))

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]``; one input with c channels, or two with c together."""
        _, norm1, conv1, _, norm2, conv2 = self.seq
        hidden = _step(_convolved_activation(norm1, conv1), parts, norm1, self.checkpointing)
        hidden = F.relu(hidden, inplace=True)  # a convolution does not need its own result for its gradient
        hidden = _step(lambda h: conv2(_normalised(norm2, h)), (hidden,), norm2, self.checkpointing)
        return _added(hidden, *parts)


class DenseBlock(nn.Module):
    """The block of the ablation "DenseNet": each convolution sees all that came before, a 1x1x1 one ends it.

    There is no residual addition, and no ReLU before the last normalisation.
    """

    def __init__(self, channels: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.seq = nn.Sequential(
            nn.Sequential(*_layers(channels, channels)),
            nn.Sequential(*_layers(2 * channels, channels)),
            nn.Sequential(*_layers(3 * channels, channels, kernel=1)[1:]),
        )

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]``; one input with c channels, or two with c together."""
        first, second, last = (list(layers.children()) for layers in self.seq)
        for _, norm, conv in (first, second):
            parts = (*parts, _step(_convolved_activation(norm, conv), parts, norm, self.checkpointing))
        norm, conv = last
        return _step(lambda *p: conv(_normalised(norm, joined(*p))), parts, norm, self.checkpointing)


class Squeeze(nn.Module):
    """ReLU, normalisation, 1x1x1 convolution. It overwrites its input, which nothing else may need."""

    def __init__(self, in_channels: int, out_channels: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.seq = nn.Sequential(*_layers(in_channels, out_channels, kernel=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` with other channels."""
        _, norm, conv = self.seq
        x = F.relu(x, inplace=True)
        return _step(lambda x: conv(_normalised(norm, x)), (x,), norm, self.checkpointing)


def joined(*parts: torch.Tensor) -> torch.Tensor:
    """One feature map out of several: the first upsampled to the second's size, then all concatenated."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([resized(parts[0], parts[1]), *parts[1:]], 1)


def resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` at the size of ``like``, trilinear; itself when it has that size."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="trilinear", align_corners=False)


def initialise(module: nn.Module) -> None:
    """The authors' initialisation of a convolution: normal with variance 2 / fan-in (He), bias 0.

    Other layers keep PyTorch's, transposed convolutions too.
    """
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _layers(in_channels: int, out_channels: int, kernel: int = 3) -> list[nn.Module]:
    """ReLU, normalisation, convolution; the ReLU has no parameters but a place in the released names."""
    conv = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2)
    return [nn.ReLU(), nn.BatchNorm3d(in_channels), conv]


def _convolved_activation(norm: nn.Module, conv: nn.Module) -> Callable[..., torch.Tensor]:
    """ReLU of the joined inputs, normalisation, convolution; the inputs stay as they are."""

    def apply(*parts: torch.Tensor) -> torch.Tensor:
        its_own = len(parts) > 1  # a concatenation is a copy already
        return conv(_normalised(norm, F.relu(joined(*parts), inplace=its_own)))

    return apply


def _normalised(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """``norm(x)``; by running averages, without gradients, in the place of ``x``."""
    if norm.training or torch.is_grad_enabled() or not norm.track_running_stats:
        return norm(x)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    as_channels = (1, -1, *[1] * (x.ndim - 2))
    return torch.addcmul(shift.view(as_channels), x, scale.view(as_channels), out=x)


def _added(total: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
    """``total``, which is overwritten, plus the joined parts."""
    if len(parts) == 1 or torch.is_grad_enabled():
        return total.add_(joined(*parts))
    low, skip = parts
    first, second = total.split([low.shape[1], skip.shape[1]], dim=1)
    first.add_(resized(low, skip))
    second.add_(skip)
    return total


def _step(
    function: Callable[..., torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
    norm: nn.Module,
    checkpointing: bool,
) -> torch.Tensor:
    """``function(*inputs)``; with checkpointing all that comes before its last operation is not kept.

    Under ``torch.compile`` the compiler chooses what is kept.

    Args:
        norm: the normalisation in it, whose running statistics must not move a second time.
    """
    wanted = checkpointing and norm.training and torch.is_grad_enabled()
    if not wanted or torch.compiler.is_compiling():
        return function(*inputs)
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(norm)),
    )


@contextlib.contextmanager
def _statistics_kept(norm: nn.Module) -> Iterator[None]:
    """Within it ``norm`` moves copies of its running statistics."""
    originals = dict(norm.named_buffers(recurse=False))
    for name, value in originals.items():
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for name, value in originals.items():
            setattr(norm, name, value)


BLOCKS: dict[str, Callable[[int, bool], nn.Module]] = {"residual": ResidualBlock, "dense": DenseBlock}


def build_ratlesnetv2(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    levels: int = 3,
    block: str = "residual",
    checkpointing: bool = False,
    normalisation: str = "batch",
) -> RatLesNetv2:
    """RatLesNetv2 and its ablations: width 28 and 36; levels 2 with width 32 and 39; block "dense" with width 26.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        width: feature maps of the encoder.
        levels: 1, 2 or 3.
        block: "residual" or "dense".
        checkpointing: the same results with about half the activations kept in training, somewhat slower.
        normalisation: "batch" (published) or "instance", see :mod:`autoseg.networks.normalisation`.

    Raises:
        AutosegError: levels, block or normalisation that do not exist, a width under 1.
    """
    if levels not in LEVELS or width < 1:
        raise AutosegError(
            "the arguments of RatLesNetv2 do not fit",
            found=f"levels {levels}, width {width}",
            expected="1, 2 or 3 levels and a width of at least 1",
            fix="correct the arguments in the plan",
        )
    if block not in BLOCKS:
        raise AutosegError(
            f"RatLesNetv2 has no block '{block}'",
            expected=" or ".join(BLOCKS),
            fix=nearest_names(block, BLOCKS),
        )
    network = RatLesNetv2(in_channels, out_channels, width, levels, BLOCKS[block], checkpointing)
    return with_normalisation(network, normalisation)


NETWORKS = (
    NetworkPart("ratlesnetv2", build_ratlesnetv2, "RatLesNetv2 and its ablations (Valverde et al. 2020)"),
)
