"""DeepMedic in the version of Perez Malla et al. 2019 (Front. Neuroinform. 13:33), software v0.6.1.

Pathways of valid 3x3x3 convolutions that share no weights: one sees the image, each of the others every F-th voxel of
a wider part of it. Their outputs, the coarser ones repeated to the voxels of the image, go through a few more
convolutions (the "fully connected" layers, here common ones), which classify each voxel. All are slices of one input:
``[b, c, *(patch + 2 context)]`` becomes ``[b, k, *patch]``.

A layer is BatchNorm, PReLU, dropout, convolution without bias. The first one of a pathway has a bias for each input
channel instead of normalisation and activation. Some layers have a shortcut around them and their predecessor: the
middle of what went in is added to the first feature maps of what comes out, and nothing follows the addition.

Three points that the number of parameters cannot show, all as in the software:

- Of coarse voxels repeated to F x F x F the *first* ones are kept, and coarse output j is centred on fine output F j:
  it stands for the voxel where it lies and for those after it (``shift`` moves it).
- Before a 3x3x3 first common layer the maps are padded by their own border, and its normalisation sees the padding. A
  patch is thus exact but for its outermost voxels, which depend on where it was cut. With kernel 1 all are exact.
- In evaluation each channel is normalised by the mean of the last 60 training batches, not by an exponential one.

The paper prints seven numbers of feature maps for eight layers and shortcuts that the software cannot express; this is
the network that it ran. Notation as in :mod:`autoseg.networks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.device import accelerates
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Divisor, NetworkPart

FEATURE_MAPS = (30, 30, 40, 40, 40, 40, 50, 50)
FACTORS = ((3, 3, 3),)
SHORTCUTS = ((3, 4), (5, 6), (7, 8))
COMMON_MAPS = (150, 150)
COMMON_SHORTCUTS = ((1, 2),)
DROPOUT = (0.0, 0.5, 0.5)
BATCHES = 60
SLAB = 6_000_000
"""Elements of the widest maps that are computed at once in evaluation: 24 MB, which the system's allocator keeps for
reuse. Larger tensors get new pages of memory each time, which takes as long as half of the convolutions."""
LEAST = 4
"""Planes of a pathway at once at least; torch convolves fewer without oneDNN, ten times slower."""
PLANES = 8
"""Of the common layers at once, as far as there is room for rows of them."""

Factor = tuple[int, int, int]
Pairs = Sequence[tuple[int, int]]


class DeepMedic(nn.Module):
    """Image ``[b, c, *(patch + 2 context)]`` to logits ``[b, k, *patch]``, in both modes; see the module.

    Args:
        in_channels, out_channels: of image and logits.
        feature_maps: of the layers of each pathway.
        factors: every how many voxels the coarser pathways see, z, y, x, one entry for each pathway.
        shortcuts: ``(from, to)``: the input of layer ``from`` is added to the output of layer ``to``, counted from 1.
        common_maps: feature maps of the common layers but the last one, which has one for each output.
        common_kernel: of the first common layer, 1 or 3; the others have 1.
        common_shortcuts: as ``shortcuts``.
        dropout: of each common layer.
        shift: voxels by which all coarser pathways see the image farther on.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        feature_maps: Sequence[int],
        factors: Sequence[Factor],
        shortcuts: Pairs,
        common_maps: Sequence[int],
        common_kernel: int,
        common_shortcuts: Pairs,
        dropout: Sequence[float],
        shift: int,
    ) -> None:
        super().__init__()
        self.pathway_maps = feature_maps[-1]
        self.factors, self.shift, self.lost = tuple(factors), shift, len(feature_maps)
        self.context = context_of(feature_maps, factors, shift)
        widths = [in_channels, *feature_maps]

        def pathway() -> Pathway:
            layers: list[FirstLayer | Layer] = [FirstLayer(*widths[:2])]
            layers += [Layer(*pair, kernel=3) for pair in zip(widths[1:], widths[2:], strict=False)]
            return Pathway(layers, shortcuts)

        self.normal = pathway()
        self.low = nn.ModuleList(pathway() for _ in factors)
        widths = [feature_maps[-1] * (1 + len(factors)), *common_maps, out_channels]
        self.widest, self.padding = max(widths), common_kernel // 2
        kernels = [common_kernel, *[1] * len(common_maps)]
        rows = zip(widths[:-1], widths[1:], kernels, dropout, strict=True)
        self.common = Pathway([Layer(*row) for row in rows], common_shortcuts)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, see the class."""
        size = [n - 2 * context for n, context in zip(image.shape[2:], self.context, strict=True)]
        in_one = self.training or accelerates(image.device) or torch.compiler.is_compiling()
        if not in_one:
            return self._in_slabs(image, size)
        maps = [self.normal(_cut(image, [self._normal(n, axis) for axis, n in enumerate(size)]))]
        for factor, pathway in zip(self.factors, self.low, strict=True):
            seen = [self._low(n, axis, step) for (axis, n), step in zip(enumerate(size), factor, strict=True)]
            maps.append(_repeated(pathway(_cut(image, seen)), factor, size))
        joined = torch.cat(maps, 1)
        maps.clear()  # so that they are gone when the common layers run
        return self._common(joined) + self.bias.view(1, -1, 1, 1, 1)

    def _common(self, joined: torch.Tensor) -> torch.Tensor:
        """The common layers; in evaluation some planes at a time, which are the same and need less memory."""
        rim = self.padding
        seen = F.pad(joined, (rim,) * 6, mode="replicate") if rim else joined
        batch, _, n, y, x = joined.shape
        in_one = self.training or torch.compiler.is_compiling()  # a graph holds for images of other sizes
        planes = n if in_one else max(1, SLAB // (batch * self.widest * y * x))
        if planes >= n:
            return self.common(joined, seen)
        parts = [
            self.common(joined[:, :, z : z + planes], seen[:, :, z : z + planes + 2 * rim])
            for z in range(0, n, planes)
        ]
        return torch.cat(parts, 2)

    def _in_slabs(self, image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The same on a CPU: some planes after the others, channels last, in 0.6 of the time there."""
        seen = [(_cut(image, [self._normal(n, axis) for axis, n in enumerate(size)]), self.normal, (1, 1, 1))]
        pathways: Any = self.low
        for factor, pathway in zip(self.factors, pathways, strict=True):
            part = [self._low(n, axis, step) for (axis, n), step in zip(enumerate(size), factor, strict=True)]
            seen.append((_cut(image, part), pathway, factor))
        maps = self.pathway_maps
        joined = torch.empty(
            (len(image), maps * len(seen), *size),
            dtype=image.dtype,
            device=image.device,
            memory_format=torch.channels_last_3d,
        )
        for number, (x, pathway, factor) in enumerate(seen):
            target, first = joined[:, maps * number : maps * (number + 1)], 0
            for found in pathway.in_slabs(x):
                slab = target[:, :, first : first + factor[0] * found.shape[2]]
                slab.copy_(_repeated(found, factor, slab.shape[2:]))
                first += slab.shape[2]
        return self._common_in_parts(joined) + self.bias.view(1, -1, 1, 1, 1)

    def _common_in_parts(self, joined: torch.Tensor) -> torch.Tensor:
        """The common layers, some rows of some planes at a time."""
        rim, (batch, _, n, y, x) = self.padding, joined.shape
        planes = _even(n, PLANES)
        rows = _even(y, SLAB // (batch * self.widest * planes * x))
        found = joined.new_empty(batch, len(self.bias), n, y, x)
        for z in range(0, n, planes):
            for row in range(0, y, rows):
                spans = [(z, min(z + planes, n), n), (row, min(row + rows, y), y)]
                inner = tuple(slice(low, high) for low, high, _ in spans)
                wide = tuple(slice(max(low - rim, 0), min(high + rim, edge)) for low, high, edge in spans)
                seen = joined[:, :, wide[0], wide[1]]
                if rim:
                    pads = [
                        m for low, high, e in spans[::-1] for m in (max(rim - low, 0), max(high + rim - e, 0))
                    ]
                    seen = F.pad(seen, (rim, rim, *pads), mode="replicate")
                found[:, :, inner[0], inner[1]] = self.common(
                    joined[:, :, inner[0], inner[1]], seen.contiguous(memory_format=torch.channels_last_3d)
                )
        return found

    def _normal(self, n: int, axis: int) -> slice:
        """What the normal pathway sees of the input to predict n voxels."""
        return slice(self.context[axis] - self.lost, self.context[axis] + n + self.lost)

    def _low(self, n: int, axis: int, factor: int) -> slice:
        """The same of a coarser one: every ``factor``-th voxel, as many as n voxels and what is lost need."""
        first = self.context[axis] - factor * self.lost + self.shift
        count = -(-n // factor) + 2 * self.lost
        return slice(first, first + factor * (count - 1) + 1, factor)


class Pathway(nn.Module):
    """Layers with shortcuts around pairs of them; the layers are called ``layer1``, ``layer2``, ..."""

    def __init__(self, layers: Sequence[FirstLayer | Layer], shortcuts: Pairs) -> None:
        super().__init__()
        self.depth, self.start_of = len(layers), {to: start for start, to in shortcuts}
        self.widest = max(layer.conv.out_channels for layer in layers)
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"layer{number}", layer)

    def forward(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """``[b, c, z, y, x]`` to the last layer's feature maps, smaller by what each 3x3x3 convolution loses.

        Args:
            x: the input.
            seen: what the first layer sees instead of it, such as the same with a border.
        """
        inputs: dict[int, torch.Tensor] = {}
        for number in range(1, self.depth + 1):
            if number in self.start_of.values():
                inputs[number] = x
            x = self.get_submodule(f"layer{number}")(x if seen is None or number > 1 else seen)
            if number in self.start_of:
                x = added(x, inputs[self.start_of[number]])
        return x

    def in_slabs(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Some planes of the output of ``[b, c, z, y, x]`` after the others. None is computed twice: of each layer the
        last planes are kept for what comes next. For layers of 3x3x3 convolutions."""
        tails: dict[int, torch.Tensor] = {}
        shortcuts = {to: Waiting(to - start + 1) for to, start in self.start_of.items()}
        room = SLAB // (len(x) * self.widest * x.shape[3] * x.shape[4]) - 2
        planes = _even(x.shape[2], max(LEAST, room))
        for z in range(0, x.shape[2], planes):
            slab = x[:, :, z : z + planes].contiguous(memory_format=torch.channels_last_3d)
            found = self._next(slab, tails, shortcuts)
            if found is not None:
                yield found

    def _next(
        self, x: torch.Tensor, tails: dict[int, torch.Tensor], shortcuts: dict[int, Waiting]
    ) -> torch.Tensor | None:
        """The output that the next planes of the input complete; None where they are too few."""
        for number in range(1, self.depth + 1):
            for to, waiting in shortcuts.items():
                if self.start_of[to] == number:
                    waiting.take(x)
            layer: Any = self.get_submodule(f"layer{number}")
            x = layer.before(x)
            if number in tails:
                x = torch.cat([tails[number], x], 2)
            tails[number] = x[:, :, -2:].clone()
            if x.shape[2] < 3:
                return None
            x = layer.conv(x)
            if number in shortcuts:
                early = shortcuts[number].give(x.shape[2])
                both = min(x.shape[1], early.shape[1])
                x[:, :both] += early[:, :both]
        return x


class Waiting:
    """The input of a shortcut, plane by plane, until the output to which it is added is there.

    Args:
        lost: voxels that the layers in between lose on each side.
    """

    def __init__(self, lost: int) -> None:
        self._lost, self._skip = lost, lost
        self._planes: torch.Tensor | None = None

    def take(self, x: torch.Tensor) -> None:
        """The next planes of ``[b, c, z, y, x]``."""
        skipped = min(self._skip, x.shape[2])
        self._skip -= skipped
        inner = slice(self._lost, -self._lost)
        x = x[:, :, skipped:, inner, inner]
        self._planes = x.clone() if self._planes is None else torch.cat([self._planes, x], 2)

    def give(self, n: int) -> torch.Tensor:
        """The first n of those that were not given yet."""
        if self._planes is None:
            raise RuntimeError("nothing was taken")
        given, self._planes = self._planes[:, :, :n], self._planes[:, :, n:]
        return given


class FirstLayer(nn.Module):
    """A bias for each input channel, then a valid 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(in_channels))
        self.conv = _convolution(in_channels, out_channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` to the layer's feature maps."""
        return self.conv(self.before(x))

    def before(self, x: torch.Tensor) -> torch.Tensor:
        """What the convolution sees."""
        return x + self.bias.view(1, -1, 1, 1, 1)


class Layer(nn.Module):
    """BatchNorm, PReLU, dropout, valid convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RingNorm(in_channels)
        self.activation = nn.PReLU(in_channels, init=0.01)
        self.dropout = nn.Dropout(dropout)
        self.conv = _convolution(in_channels, out_channels, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]`` to the layer's feature maps."""
        return self.conv(self.before(x))

    def before(self, x: torch.Tensor) -> torch.Tensor:
        """What the convolution sees."""
        x = self.norm(x)
        x = self.activation(x)
        return self.dropout(x)


class RingNorm(nn.Module):
    """BatchNorm whose statistics in evaluation are the plain mean over those of the last training batches.

    Before the first batch these are 0 and 1. Variances are kept as ``n / (n - 1)`` times those of the batch.

    Args:
        channels: of the input.
        batches: how many are remembered.
        eps: added to the variance. The software adds the least float32, which changes nothing but constant maps.
    """

    means: torch.Tensor
    variances: torch.Tensor

    def __init__(self, channels: int, batches: int = BATCHES, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("means", torch.zeros(batches, channels))
        self.register_buffer("variances", torch.ones(batches, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, *space]``, normalised by its own statistics in training, else by those of the ring."""
        if not self.training:
            mean, variance = self.means.mean(0), self.variances.mean(0)
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        mean, variance = torch.zeros_like(self.means[0]), torch.ones_like(self.variances[0])
        # a momentum of 1 leaves the statistics of this batch in both
        normalised = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        with torch.no_grad():
            self.means.copy_(torch.cat([self.means[1:], mean[None]]))
            self.variances.copy_(torch.cat([self.variances[1:], variance[None]]))
        return normalised


def added(deep: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
    """``deep``, to which the middle of ``early`` is added in place, in as many of the first maps as both have."""
    starts = [(a - 1) // 2 - (b - 1) // 2 for a, b in zip(early.shape[2:], deep.shape[2:], strict=True)]
    middle = _cut(early, [slice(s, s + n) for s, n in zip(starts, deep.shape[2:], strict=True)])
    both = min(deep.shape[1], middle.shape[1])
    deep[:, :both] += middle[:, :both]
    return deep


def _even(n: int, most: int) -> int:
    """The size of equal parts of n, of up to ``most``: a small last one would take long, as with :data:`LEAST`."""
    return -(-n // -(-n // max(1, most)))


def _cut(x: torch.Tensor, space: Sequence[slice]) -> torch.Tensor:
    z, y, last = space
    return x[:, :, z, y, last]


def _repeated(x: torch.Tensor, factor: Factor, size: Sequence[int]) -> torch.Tensor:
    """Every voxel as often as the factor says, and of all the first ones."""
    for axis, (times, n) in enumerate(zip(factor, size, strict=True), start=2):
        x = x.repeat_interleave(times, axis).narrow(axis, 0, n)
    return x


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Conv3d:
    """Without bias; normal weights with variance 2 / (in_channels kernel^3)."""
    conv = nn.Conv3d(in_channels, out_channels, kernel, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    return conv


def context_of(
    feature_maps: Sequence[int] = FEATURE_MAPS,
    factors: Sequence[Factor] = FACTORS,
    shift: int = 0,
    **others: Any,
) -> Divisor:
    """Voxels that the network sees around a patch, z, y, x: 24 with the defaults. Other arguments play no part."""
    lost = len(feature_maps)
    z, y, x = (_margin(lost, [factor[axis] for factor in factors], shift) for axis in range(3))
    return z, y, x


def _margin(lost: int, steps: Sequence[int], shift: int) -> int:
    return max([lost] + [lost * step + abs(shift) for step in steps])


def low_resolution_size(size: int, factor: int = 3, layers: int = 8) -> int:
    """Voxels that a coarser pathway sees along an axis of a segment of ``size`` voxels, as the paper counts segments
    (patch and what the normal pathway loses)."""
    return -(-(size - 2 * layers) // factor) + 2 * layers


def build_deepmedic(
    in_channels: int,
    out_channels: int,
    feature_maps: tuple[int, ...] = FEATURE_MAPS,
    factors: tuple[Factor, ...] = FACTORS,
    shortcuts: tuple[tuple[int, int], ...] = SHORTCUTS,
    common_maps: tuple[int, ...] = COMMON_MAPS,
    common_kernel: int = 3,
    common_shortcuts: tuple[tuple[int, int], ...] = COMMON_SHORTCUTS,
    dropout: tuple[float, ...] = DROPOUT,
    shift: int = 0,
) -> DeepMedic:
    """DeepMedic; the arguments of :class:`DeepMedic`, with those of the study as defaults.

    Raises:
        AutosegError: arguments that do not go together.
    """
    for name, maps in {"feature_maps": feature_maps, "common_maps": common_maps}.items():
        empty = name == "feature_maps" and not maps
        _refuse(empty or any(n < 1 for n in maps), name, maps, "at least one map in each layer")
    steps = [step for factor in factors for step in factor]
    _refuse(any(step < 1 for step in steps), "factors", factors, "at least 1 along each axis")
    _refuse(common_kernel not in (1, 3), "common_kernel", common_kernel, "1 or 3")
    fits = len(dropout) == len(common_maps) + 1 and all(0 <= share < 1 for share in dropout)
    _refuse(not fits, "dropout", dropout, f"{len(common_maps) + 1} shares, each from 0 to below 1")
    _refuse_shortcuts("shortcuts", shortcuts, len(feature_maps))
    _refuse_shortcuts("common_shortcuts", common_shortcuts, len(common_maps) + 1)
    return DeepMedic(
        in_channels,
        out_channels,
        feature_maps,
        factors,
        shortcuts,
        common_maps,
        common_kernel,
        common_shortcuts,
        dropout,
        shift,
    )


def _refuse_shortcuts(name: str, pairs: Pairs, layers: int) -> None:
    fits = all(1 <= start <= to <= layers for start, to in pairs)
    twice = len({to for _, to in pairs}) != len(pairs)
    _refuse(
        not fits or twice, name, pairs, f"pairs of layers from 1 to {layers}, the first not after the second"
    )


def _refuse(wrong: bool, name: str, value: object, expected: str) -> None:
    if wrong:
        raise AutosegError(
            "the arguments of DeepMedic do not fit",
            found=f"{name} {value}",
            expected=expected,
            fix="correct the arguments in the plan",
        )


NETWORKS = (
    NetworkPart(
        "deepmedic",
        build_deepmedic,
        "DeepMedic, two resolutions (Kamnitsas et al. 2017; Perez Malla et al. 2019)",
        context=context_of,
    ),
)
