"""EDD Net and MUSCLE Net for acute lesions in DWI (Chen, Bentley, Rueckert 2017, doi 10.1016/j.nicl.2017.06.016).

EDD Net segments a slice: an ensemble of DeconvNets (Noh et al. 2015) and a refinement of what they agree on. MUSCLE
Net judges a small patch around something that EDD Net found: a lesion or not. The networks of the paper's first
comparison are in :mod:`autoseg.networks.edd_muscle_baselines`.

All convolutions and deconvolutions are 3x3 with stride 1, each but the last of a network followed by batch
normalisation and ReLU. Any size of slice fits: pooling drops an odd last row, unpooling brings it back as zeros.
Notation as in :mod:`autoseg.networks`; w is the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError, nearest_names
from autoseg.plugins.parts import NetworkPart

IMAGE_WINDOWS_PX, PROBABILITY_WINDOWS_PX = (16, 32, 64), (16,)
"""Sides of the windows around a candidate that MUSCLE Net sees of the image and of the probability."""

STACKS: dict[int, tuple[int, ...]] = {
    18: (1, 1, 1),
    32: (2, 2, 2),
    44: (2, 3, 3),
    64: (2, 4, 5),
    96: (2, 3, 3, 3),
    128: (4, 4, 4, 4),
}
"""Receptive field in pixels to the convolutions at each resolution: the DeconvNets of the paper's Table 3."""


def receptive_field(stacks: Sequence[int]) -> int:
    """The pixels, along one axis, that one unit of the deepest feature map depends on.

    Args:
        stacks: number of 3x3 convolutions at each resolution; 2x2 max pooling lies between.

    >>> receptive_field((2, 4, 5))
    64
    """
    convolutions = sum(2 * n * 2**level for level, n in enumerate(stacks))
    return 1 + convolutions + sum(2**level for level in range(len(stacks) - 1))


MOST_BRANCHES = 64


class DeconvNet(nn.Module):
    """Image ``[b, c, y, x]`` of any size to logits ``[b, k, y, x]``, in both modes.

    The encoder's stacks of convolutions are mirrored by stacks of deconvolutions; unpooling puts every value where
    its maximum was and zeros elsewhere.

    Args:
        in_channels, out_channels: of image and logits.
        stacks: convolutions at each resolution, the finest first.
        width: w, feature maps of the finest resolution, doubled by each pooling.

    Raises:
        AutosegError: fewer than two stacks, an empty stack, a width under 1; stacks that would take days to build.
    """

    def __init__(self, in_channels: int, out_channels: int, stacks: Sequence[int], width: int) -> None:
        super().__init__()
        if not 2 <= len(stacks) <= 16 or not 1 <= min(stacks) <= max(stacks) <= 64 or width < 1:
            raise AutosegError(
                "the arguments of DeconvNet do not fit",
                found=f"stacks {list(stacks)}, width {width}",
                expected="2 to 16 stacks of 1 to 64 convolutions, and a width of at least 1",
                fix="correct the arguments in the plan",
            )
        maps = [width * 2**level for level in range(len(stacks))]
        before = [in_channels, *maps[:-1]]
        after = [maps[0], *maps[:-1]]  # unpooling needs as many maps as were pooled
        self.encoder = nn.ModuleList(
            stack(first, *[m] * n) for first, m, n in zip(before, maps, stacks, strict=True)
        )
        self.decoder = nn.ModuleList(
            stack(*[m] * n, last, layer=nn.ConvTranspose2d)
            for m, n, last in reversed(list(zip(maps, stacks, after, strict=True)))
        )
        self.score = nn.Conv2d(width, out_channels, 3, padding=1)
        self.apply(initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        check_size(image, poolings=len(self.encoder) - 1)
        x, pooled = image, []
        for level, convolutions in enumerate(self.encoder):
            if level:
                size = x.shape[2:]
                x, indices = F.max_pool2d(x, kernel_size=2, return_indices=True)
                pooled.append((indices, size))
            x = convolutions(x)
        for level, deconvolutions in enumerate(self.decoder):
            if level:
                indices, size = pooled.pop()
                x = F.max_unpool2d(x, indices, kernel_size=(2, 2), output_size=size)
            x = deconvolutions(x)
        return self.score(x)


class EDDNet(nn.Module):
    """Several DeconvNets, their fusion, and a refinement that sees the image beside the fused probability.

    Image ``[b, c, y, x]`` of any size to logits ``[b, k, y, x]``. Training mode puts out a list, each of full size:
    the refined logits, the fused ones, and those of each branch; gradients flow through all of them. Outputs are
    classes that exclude each other (softmax), the first of them background.

    Args:
        branches: DeconvNets with the same channels, each with its own weights.
        in_channels, out_channels: of image and logits.
        width: feature maps of the refinement's hidden layers.
        fuse: logits of all branches to fused logits.
        output: what evaluation mode puts out; 0 is refined, 1 fused, 2 and more a branch.
    """

    def __init__(
        self,
        branches: Sequence[DeconvNet],
        in_channels: int,
        out_channels: int,
        width: int,
        fuse: Callable[[Sequence[torch.Tensor]], torch.Tensor],
        output: int,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.refinement = nn.Sequential(
            stack(in_channels + out_channels - 1, width, width),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )
        self.refinement.apply(initialise)
        self.fuse = fuse
        self.output = output

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits, see the class."""
        if not self.training and self.output > 1:
            return self.branches[self.output - 2](image)
        scores = [branch(image) for branch in self.branches]
        fused = self.fuse(scores)
        if not self.training and self.output == 1:
            return fused
        lesion = fused.softmax(1)[:, 1:]
        refined = self.refinement(torch.cat([image, lesion], 1))
        return [refined, fused, *scores] if self.training else refined


def mean_logits(scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the logits."""
    return torch.stack(list(scores)).mean(0)


def sum_logits(scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of the logits: the decisions of the mean, with more confidence."""
    return torch.stack(list(scores)).sum(0)


def mean_probabilities(scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits whose softmax is the mean of the probabilities; in float32 at least."""
    logarithms = torch.stack([score.to(at_least_float32(score)).log_softmax(1) for score in scores])
    return logarithms.logsumexp(0) - math.log(len(scores))


def at_least_float32(x: torch.Tensor) -> torch.dtype:
    """Float32, or float64 where ``x`` is."""
    return torch.promote_types(x.dtype, torch.float32)


FUSIONS: dict[str, Callable[[Sequence[torch.Tensor]], torch.Tensor]] = {
    "mean_logits": mean_logits,
    "sum_logits": sum_logits,
    "mean_probabilities": mean_probabilities,
}


class MUSCLENet(nn.Module):
    """A classifier of patches: ``[b, c, n, n]`` to logits ``[b, k]``, in both modes.

    Args:
        in_channels, out_channels: of patch and logits.
        patch_size: n, an even number; the network takes no other.
        width: feature maps of the first two convolutions, half of those of the last two.
        dropout: share of the hidden units of the fully connected layers that is left out in training.
    """

    def __init__(
        self, in_channels: int, out_channels: int, patch_size: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.size = (patch_size, patch_size)
        self.convolutions = nn.Sequential(
            stack(in_channels, width, width), nn.MaxPool2d(2), stack(width, 2 * width, 2 * width)
        )
        self.judgement = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * (patch_size // 2) ** 2, 256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64, out_channels),
        )
        self.apply(initialise)

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        if tuple(patch.shape[2:]) != self.size:
            raise AutosegError(
                "the patch does not fit this MUSCLE Net",
                found=" x ".join(str(n) for n in patch.shape[2:]) + " pixels",
                expected=" x ".join(str(n) for n in self.size) + " pixels",
                fix="resize the patches, or change the network's patch_size in the plan",
            )
        return self.judgement(self.convolutions(patch))


def stack(
    *maps: int, layer: type[nn.Conv2d] | type[nn.ConvTranspose2d] = nn.Conv2d, dilation: int = 1
) -> nn.Sequential:
    """3x3 convolutions that keep the size, each with normalisation and ReLU.

    Args:
        maps: feature maps, from the input of the first layer to the output of the last.
        layer: convolution or deconvolution.
        dilation: of those.
    """
    modules: list[nn.Module] = []
    for before, after in zip(maps, maps[1:], strict=False):
        conv = layer(before, after, 3, padding=dilation, dilation=dilation, bias=False)
        modules += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def check_size(image: torch.Tensor, poolings: int) -> None:
    """Refuse an image of which pooling leaves nothing.

    Raises:
        AutosegError: it is smaller than that.
    """
    least = 2**poolings
    if min(image.shape[2:]) < least:
        raise AutosegError(
            f"the image is too small for a network with {poolings} poolings",
            found=" x ".join(str(n) for n in image.shape[2:]) + " pixels",
            expected=f"at least {least} x {least} pixels",
            fix="pad the slices, or use a network with fewer poolings",
        )


def initialise(module: nn.Module) -> None:
    """Xavier's initialisation as Caffe has it, uniform in +-sqrt(3 / fan-in); bias 0.

    Caffe's fan-in is the number of weights divided by their first axis, for deconvolutions too, whose first axis is
    the input.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_deconvnet(
    in_channels: int, out_channels: int, stacks: Sequence[int] = STACKS[64], width: int = 32
) -> DeconvNet:
    """One DeconvNet, see :class:`DeconvNet`; :data:`STACKS` has those of the paper.

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        stacks: convolutions at each resolution; (2, 3, 3) in the paper's Table 2, (2, 4, 5) in EDD Net.
        width: feature maps of the finest resolution.
    """
    return DeconvNet(in_channels, out_channels, stacks, width)


def build_edd(
    in_channels: int,
    out_channels: int,
    stacks: Sequence[int] = STACKS[64],
    width: int = 32,
    branches: int = 2,
    fusion: str = "mean_logits",
    output: str = "refined",
) -> EDDNet:
    """EDD Net, see :class:`EDDNet`. Its loss is "edd_muscle".

    Args:
        in_channels, out_channels: of image and logits; 1 and 2 in the paper.
        stacks, width: of each DeconvNet; the width is that of the refinement too.
        branches: number of DeconvNets.
        fusion: "mean_logits", "sum_logits" or "mean_probabilities".
        output: what evaluation mode puts out: "refined", "fused" or "branch1", "branch2", ...: the columns of the
            paper's Table 4. The weights are the same.

    Raises:
        AutosegError: no branch or too many, a fusion or an output that does not exist.
    """
    if not 1 <= branches <= MOST_BRANCHES:
        raise AutosegError(
            "the arguments of EDD Net do not fit",
            found=f"branches {branches}",
            expected=f"1 to {MOST_BRANCHES}",
            fix="correct the arguments in the plan",
        )
    outputs = ["refined", "fused", *(f"branch{i + 1}" for i in range(branches))]
    for name, value, known in (("fusion", fusion, list(FUSIONS)), ("output", output, outputs)):
        if value not in known:
            raise AutosegError(
                f"EDD Net has no {name} '{value}'",
                expected=" or ".join(known),
                fix=nearest_names(value, known),
            )
    networks = [DeconvNet(in_channels, out_channels, stacks, width) for _ in range(branches)]
    return EDDNet(networks, in_channels, out_channels, width, FUSIONS[fusion], outputs.index(output))


def build_muscle(
    in_channels: int,
    out_channels: int,
    patch_size: int = 16,
    width: int = 32,
    dropout: float = 0.5,
    image_windows_px: Sequence[int] = IMAGE_WINDOWS_PX,
    probability_windows_px: Sequence[int] = PROBABILITY_WINDOWS_PX,
) -> MUSCLENet:
    """MUSCLE Net, see :class:`MUSCLENet`. Its loss is "edd_muscle".

    Args:
        in_channels: 4 for the image at three scales and the probability at the finest, 6 for both at three scales.
        out_channels: 2: no lesion, lesion.
        image_windows_px, probability_windows_px: what ``in_channels`` follows from, see :func:`muscle_channels`.
        patch_size, width, dropout: see :class:`MUSCLENet`.

    Raises:
        AutosegError: an odd patch_size, a width under 1, a dropout outside [0, 1).
    """
    if patch_size < 2 or patch_size % 2 or width < 1 or not 0 <= dropout < 1:
        raise AutosegError(
            "the arguments of MUSCLE Net do not fit",
            found=f"patch_size {patch_size}, width {width}, dropout {dropout}",
            expected="an even patch_size, a width of at least 1, a dropout from 0 to below 1",
            fix="correct the arguments in the plan",
        )
    return MUSCLENet(in_channels, out_channels, patch_size, width, dropout)


def muscle_channels(
    image_channels: int,
    image_windows_px: Sequence[int] = IMAGE_WINDOWS_PX,
    probability_windows_px: Sequence[int] = PROBABILITY_WINDOWS_PX,
    **others: Any,
) -> int:
    """Channels of a patch: each image channel in some windows, then the probability in some."""
    return image_channels * len(image_windows_px) + len(probability_windows_px)


def muscle_divisor(patch_size: int = 16, **others: Any) -> tuple[int, int]:
    """MUSCLE Net takes patches of one size."""
    return patch_size, patch_size


NETWORKS = (
    NetworkPart(
        "deconvnet", build_deconvnet, "one DeconvNet (Chen, Bentley and Rueckert 2017)", divisor=(1, 1)
    ),
    NetworkPart("edd", build_edd, "EDD Net (Chen, Bentley and Rueckert 2017)", divisor=(1, 1)),
    NetworkPart(
        "muscle",
        build_muscle,
        "MUSCLE Net (Chen, Bentley and Rueckert 2017)",
        divisor=muscle_divisor,
        classifies=True,
        channels=muscle_channels,
    ),
)
