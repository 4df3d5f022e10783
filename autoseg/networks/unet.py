"""The general U-Nets of nnU-Net, plain and with a residual encoder, from dynamic-network-architectures.

Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z) and 2024 (arXiv 2404.09556). Convolutions with bias, instance
normalisation (eps 1e-5, affine), leaky ReLU (slope 0.01), no dropout; initialised as nnU-Net does. Notation as in
:mod:`autoseg.networks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.messages import count_of
from autoseg.plugins.parts import NetworkPart

MOST_STAGES, MOST_IN_A_STAGE = 16, 64
"""Stages, and convolutions or blocks in one; more would take days to be built alone."""


class UNet(nn.Module):
    """An encoder and a decoder; deep supervision in training mode only.

    ``[b, c, z, y, x]`` becomes ``[b, k, z, y, x]`` in evaluation mode; in training mode a list of such outputs, the
    finest first, each coarser one by the stride of its stage. Every edge of the input must be divisible by
    ``divisor``. The names of the parameters are a subset of nnU-Net's (which holds some of them twice).

    Args:
        body: a U-Net of dynamic-network-architectures.
        strides: per stage and axis.
        deep_supervision: whether training mode puts out all resolutions.
    """

    encoder: Any  # of dynamic-network-architectures, which has no types
    decoder: Any

    def __init__(self, body: Any, strides: Sequence[Sequence[int]], deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = body.encoder
        self.decoder = body.decoder
        self.deep_supervision = deep_supervision
        self.divisor = divisor_of(strides)
        _drop_second_names(self)
        self.train()

    def train(self, mode: bool = True) -> UNet:
        """Switch the mode, and deep supervision with it."""
        super().train(mode)
        self.decoder.deep_supervision = mode and self.deep_supervision
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits, see the class."""
        size = tuple(image.shape[2:])
        if len(size) != len(self.divisor) or any(s % d for s, d in zip(size, self.divisor, strict=True)):
            raise AutosegError(
                "the input does not fit this U-Net",
                found=f"{_times(size)} voxels",
                expected=f"{len(self.divisor)} axes, multiples of {_times(self.divisor)}",
                fix="choose such a patch_size in the plan, or pad the image",
            )
        return self.decoder(self.encoder(image))


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(str(n) for n in numbers)


def _drop_second_names(network: UNet) -> None:
    """Forget modules that are registered a second time, so that every parameter has one name.

    dynamic-network-architectures keeps each convolution under ``conv`` and in ``all_modules`` (which is the one
    that runs), and the encoder again inside the decoder. safetensors refuses such doubles.
    """
    for module in list(network.modules()):
        children = module._modules
        if "all_modules" in children:
            for name in [name for name in children if name != "all_modules"]:
                del children[name]
    network.decoder._modules.pop("encoder", None)


def build_unet(
    in_channels: int,
    out_channels: int,
    features_per_stage: Sequence[int] = (32, 64, 128, 256),
    kernel_sizes: Sequence[Sequence[int]] = ((3, 3, 3),) * 4,
    strides: Sequence[Sequence[int]] = ((1, 1, 1), *((2, 2, 2),) * 3),
    n_stages: int | None = None,
    n_conv_per_stage: Sequence[int] | int = 2,
    n_conv_per_stage_decoder: Sequence[int] | int = 2,
    deep_supervision: bool = True,
) -> UNet:
    """nnU-Net's plain convolutional U-Net, 2D or 3D by the length of the kernels.

    Args:
        in_channels, out_channels: of image and logits.
        features_per_stage: feature maps of each stage; as many entries as stages.
        kernel_sizes, strides: per stage and axis.
        n_stages: may be left out; checked against the lists.
        n_conv_per_stage, n_conv_per_stage_decoder: convolutions per stage; the decoder has one stage less.
        deep_supervision: whether training mode puts out all resolutions.
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    shape = _shape(n_stages, features_per_stage, kernel_sizes, strides)
    body = PlainConvUNet(
        in_channels,
        n_conv_per_stage=_per_stage("n_conv_per_stage", n_conv_per_stage, shape["n_stages"]),
        n_conv_per_stage_decoder=_per_stage(
            "n_conv_per_stage_decoder", n_conv_per_stage_decoder, shape["n_stages"] - 1
        ),
        num_classes=out_channels,
        **shape,
        **_layers(kernel_sizes),
    )
    body.apply(PlainConvUNet.initialize)
    return UNet(body, strides, deep_supervision)


def build_unet_resenc(
    in_channels: int,
    out_channels: int,
    features_per_stage: Sequence[int] = (32, 64, 128, 256),
    kernel_sizes: Sequence[Sequence[int]] = ((3, 3, 3),) * 4,
    strides: Sequence[Sequence[int]] = ((1, 1, 1), *((2, 2, 2),) * 3),
    n_stages: int | None = None,
    n_blocks_per_stage: Sequence[int] | int | None = None,
    n_conv_per_stage_decoder: Sequence[int] | int = 1,
    deep_supervision: bool = True,
) -> UNet:
    """nnU-Net's U-Net with a residual encoder, 2D or 3D by the length of the kernels.

    Args:
        n_blocks_per_stage: residual blocks of each encoder stage; None for nnU-Net's 1, 3, 4, 6, 6, ...
        (the others): as of :func:`build_unet`.
    """
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    shape = _shape(n_stages, features_per_stage, kernel_sizes, strides)
    if n_blocks_per_stage is None:
        n_blocks_per_stage = ([1, 3, 4] + [6] * shape["n_stages"])[: shape["n_stages"]]
    body = ResidualEncoderUNet(
        in_channels,
        n_blocks_per_stage=_per_stage("n_blocks_per_stage", n_blocks_per_stage, shape["n_stages"]),
        n_conv_per_stage_decoder=_per_stage(
            "n_conv_per_stage_decoder", n_conv_per_stage_decoder, shape["n_stages"] - 1
        ),
        num_classes=out_channels,
        **shape,
        **_layers(kernel_sizes),
    )
    body.apply(ResidualEncoderUNet.initialize)
    return UNet(body, strides, deep_supervision)


def _shape(
    n_stages: int | None,
    features: Sequence[int],
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """The lists that give a network its shape, checked against each other."""
    n_stages = len(features) if n_stages is None else n_stages
    lengths = {
        "features_per_stage": len(features),
        "kernel_sizes": len(kernel_sizes),
        "strides": len(strides),
    }
    n_axes = {len(entry) for entry in (*kernel_sizes, *strides)}
    if not 2 <= n_stages <= MOST_STAGES or any(length != n_stages for length in lengths.values()):
        raise AutosegError(
            "the arguments of the U-Net do not fit each other",
            found=f"n_stages {n_stages}; "
            + ", ".join(f"{k}: {count_of(v, 'entry', 'entries')}" for k, v in lengths.items()),
            expected=f"2 to {MOST_STAGES} stages, and one entry per stage in each list",
            fix="correct the arguments in the plan",
        )
    if len(n_axes) != 1 or not n_axes <= {2, 3}:
        raise AutosegError(
            "the arguments of the U-Net do not fit each other",
            found=f"kernel_sizes and strides with {sorted(n_axes)} numbers",
            expected="2 numbers each for a 2D network, 3 for a 3D one",
            fix="correct the arguments in the plan",
        )
    return {
        "n_stages": n_stages,
        "features_per_stage": list(features),
        "kernel_sizes": [list(kernel) for kernel in kernel_sizes],
        "strides": [list(stride) for stride in strides],
    }


def _per_stage(name: str, value: Sequence[int] | int, length: int) -> list[int]:
    entries = [value] * length if isinstance(value, int) else list(value)
    if len(entries) != length or not all(isinstance(n, int) and 1 <= n <= MOST_IN_A_STAGE for n in entries):
        raise AutosegError(
            "the arguments of the U-Net do not fit each other",
            found=f"{name}: {count_of(len(entries), 'entry', 'entries')}, {entries[:MOST_STAGES]}",
            expected=f"{length} entries, each from 1 to {MOST_IN_A_STAGE}",
            fix="correct the arguments in the plan",
        )
    return entries


def _layers(kernel_sizes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The layers that all of nnU-Net's U-Nets share."""
    three_d = len(kernel_sizes[0]) == 3
    return {
        "conv_op": nn.Conv3d if three_d else nn.Conv2d,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if three_d else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": LeakyReLU,
        "nonlin_kwargs": {},
    }


class _Leaky(torch.autograd.Function):
    """A leaky ReLU that keeps its result alone, which the next convolution keeps anyhow."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slope: float) -> torch.Tensor:
        """Any shape."""
        result = F.leaky_relu(x, slope)
        ctx.save_for_backward(result)
        ctx.slope = slope
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Of the input; a result has the sign of what it was made of."""
        (result,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(gradients[0], result, ctx.slope, True), None


class LeakyReLU(nn.LeakyReLU):
    """The same values and gradients, and of memory what ``inplace=True`` takes.

    In place it would change a view: that is what instance normalisation returns. The backward pass then copies each
    feature map twice more, a quarter of all bytes that a training step moves.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape; without gradients in place."""
        if torch.compiler.is_compiling():  # it chooses itself what is kept
            return F.leaky_relu(x, self.negative_slope)
        if not torch.is_grad_enabled():
            return F.leaky_relu_(x, self.negative_slope)
        result: torch.Tensor = _Leaky.apply(x, self.negative_slope)
        return result


def divisor_of(
    strides: Sequence[Sequence[int]] = ((1, 1, 1), *((2, 2, 2),) * 3), **others: Any
) -> tuple[int, ...]:
    """What the edges of the input must be multiples of: the product of all strides, per axis."""
    return tuple(math.prod(steps) for steps in zip(*strides, strict=True))


NETWORKS = (
    NetworkPart("unet", build_unet, "nnU-Net's plain U-Net", divisor=divisor_of),
    NetworkPart(
        "unet_resenc", build_unet_resenc, "nnU-Net's U-Net with a residual encoder", divisor=divisor_of
    ),
)
