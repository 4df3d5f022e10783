"""A whole case through a network that sees one tile at a time.

Notation: ``c`` image channels, ``k`` network outputs, ``b`` tiles at once, ``z, y, x`` the working grid.

The weight of a tile is the outer product of one window per axis and the tiles lie on a regular grid, so the
sum of weights is an outer product too: no volume of weights is held, only one vector per axis.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import nn

from autoseg import messages
from autoseg.device import Precision, autocast, free_cached_memory, lower_precision, send
from autoseg.errors import AutosegError
from autoseg.plan import Inference
from autoseg.plugins.parts import Divisor, NetworkInput

# Told after each batch of tiles: how many tiles are done, how many there are.
Progress = Callable[[int, int], None]

# The border of a window keeps at least this share of its middle, on each axis: a corner of the image is seen
# by a corner of one tile only, and its logits are divided by that weight.
WINDOW_FLOOR = 1e-3

OUTSIDE_LOGIT = 15.0
"""Of the background, and negative of all else, where nothing was predicted: beyond the one tile in the centre."""


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """First indices of tiles that cover one axis, spread evenly.

    Args:
        size: voxels of the axis, at least ``patch``.
        patch: voxels of a tile.
        step: largest distance of neighbours as a share of the tile, 0 (excluded) to 1.
    """
    room = size - patch
    n_steps = math.ceil(room / (patch * step))
    return [round(room * i / n_steps) for i in range(n_steps + 1)] if n_steps else [0]


def window(patch: int, gaussian: bool) -> np.ndarray:
    """The weights ``[patch]`` (float32) along one axis of a tile: 1 in the middle, symmetric.

    A Gaussian whose standard deviation is an eighth of the tile, lifted to :data:`WINDOW_FLOOR`, or all ones.
    """
    if not gaussian:
        return np.ones(patch, np.float32)
    distance = (np.arange(patch) - (patch - 1) / 2) / (patch / 8)
    weights = np.exp(-0.5 * distance**2)
    return np.maximum(weights / weights.max(), WINDOW_FLOOR).astype(np.float32)


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of one image lie; for a 2D network a tile is one voxel thick along z.

    Attributes:
        shape: of the padded image, z, y, x.
        before: voxels of padding before the image, z, y, x.
        patch: z, y, x.
        starts: first indices of the tiles, for each axis.
        context: voxels that the network sees around a tile and has no logits for, z, y, x.
        planes: whether the network is 2D.
        chunks: whether the tiles lie side by side and end with the image; where the last ones overlap others, the later
            one counts.
        halo: of chunks, voxels of the image around one that the network sees and has logits for, z, y, x.
    """

    shape: tuple[int, ...]
    before: tuple[int, ...]
    patch: tuple[int, ...]
    starts: tuple[list[int], ...]
    context: tuple[int, ...]
    planes: bool
    chunks: bool = False
    halo: tuple[int, ...] = (0, 0, 0)

    def __len__(self) -> int:
        return math.prod(len(starts) for starts in self.starts)

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        for corner in itertools.product(*self.starts):
            ends = zip(corner, self.patch, self.shape, strict=True)
            yield tuple(slice(i, min(i + n, size)) for i, n, size in ends)

    def around(self, tile: tuple[slice, ...]) -> tuple[slice, ...]:
        """A tile with its halo, as far as the image goes: what the network has logits for."""
        parts = zip(tile, self.halo, self.shape, strict=True)
        return tuple(slice(max(0, p.start - n), min(size, p.stop + n)) for p, n, size in parts)

    def seen(self, tile: tuple[slice, ...]) -> tuple[slice, ...]:
        """What the network sees of a tile, in an image that is padded by the context on every side."""
        around = zip(self.around(tile), self.context, strict=True)
        return tuple(slice(part.start, part.stop + 2 * n) for part, n in around)

    def batches(self, size: int) -> Iterator[list[tuple[slice, ...]]]:
        """Up to so many tiles at once, in order; the network sees equally much of each."""
        for _, group in itertools.groupby(self, lambda tile: extent(self.seen(tile))):
            alike = list(group)
            yield from (alike[first : first + size] for first in range(0, len(alike), size))

    @property
    def seen_voxels(self) -> int:
        """Of all tiles together."""
        return sum(math.prod(extent(self.seen(tile))) for tile in self)


def extent(box: tuple[slice, ...]) -> tuple[int, ...]:
    """Voxels of each axis."""
    return tuple(part.stop - part.start for part in box)


def within(tile: tuple[slice, ...], around: tuple[slice, ...]) -> tuple[slice, ...]:
    """Where a tile lies in what is around it."""
    pairs = zip(tile, around, strict=True)
    return tuple(slice(part.start - outer.start, part.stop - outer.start) for part, outer in pairs)


def make_tiling(shape: Sequence[int], inference: Inference, divisor: Divisor = (1, 1, 1)) -> Tiling:
    """The tiles for an image of ``shape`` (z, y, x).

    Args:
        shape: z, y, x.
        inference: an empty ``patch_size`` makes one tile of the whole image, and "whole" on an axis one along it,
            padded to a multiple of the divisor.
        divisor: of the network.
    """
    patch = _patch(shape, inference, divisor)
    planes = len(patch) == 2
    patch = [1, *patch] if planes else patch
    context = _of_axes(inference.context)
    if inference.tiles in ("chunks", "flush"):
        refuse_cut_steps(inference, divisor)
        padded = tuple(-(-n // d) * d for n, d in zip(shape, _of_axes(divisor, 1), strict=True))
        starts = [list(range(0, n, p)) for n, p in zip(padded, patch, strict=True)]
        if inference.tiles == "flush":
            starts = [
                [min(i, max(n - p, 0)) for i in axis]
                for axis, n, p in zip(starts, padded, patch, strict=True)
            ]
        before = tuple((m - n) // 2 for m, n in zip(padded, shape, strict=True))
        return Tiling(
            padded, before, tuple(patch), tuple(starts), context, planes, True, _of_axes(inference.halo)
        )
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    steps = [1.0 if planes else inference.step, inference.step, inference.step]
    starts = [tile_starts(n, p, step) for n, p, step in zip(padded, patch, steps, strict=True)]
    if inference.tiles == "centre":  # a 2D network still sees all planes
        starts[planes:] = [[(n - p) // 2] for n, p in zip(padded, patch, strict=True)][planes:]
    before = tuple((m - n) // 2 for m, n in zip(padded, shape, strict=True))
    return Tiling(padded, before, tuple(patch), tuple(starts), context, planes)


def _of_axes(numbers: Sequence[int], other: int = 0) -> tuple[int, ...]:
    """z, y, x of numbers that may be those of the last axes alone."""
    return (*[other] * (3 - len(numbers)), *numbers)


def refuse_cut_steps(inference: Inference, divisor: Divisor) -> None:
    """Chunks begin and end where the steps of the network do, or it would see them otherwise than the whole image.

    Raises:
        AutosegError: they do not.
    """
    halo = inference.halo or [0] * len(inference.patch_size)
    axes = zip(inference.patch_size, halo, divisor[-len(halo) :], strict=False)
    if inference.tiles == "chunks" and any(p != "whole" and (p % d or n % d) for p, n, d in axes):
        raise AutosegError(
            "the chunks do not fit the steps of the network",
            where="inference.patch_size and inference.halo",
            found=f"{inference.patch_size} and {inference.halo}",
            expected=f"multiples of {list(divisor)}",
            fix="choose others with --set, or leave them as the plan has them",
        )


def _patch(shape: Sequence[int], inference: Inference, divisor: Divisor) -> list[int]:
    """The patch in numbers, with as many axes as the network."""
    wanted = inference.patch_size or ["whole"] * len(divisor)
    if len(wanted) > len(divisor):
        raise AutosegError(
            "the network cannot take this patch",
            where="inference.patch_size",
            found=wanted,
            expected=f"{len(divisor)} numbers, one for each axis of the network",
            fix="leave it as the plan has it",
        )
    sizes = zip(wanted, shape[len(shape) - len(wanted) :], divisor[-len(wanted) :], strict=True)
    return [-(-n // d) * d if size == "whole" else int(size) for size, n, d in sizes]


def mirrorings(axes: Sequence[int], planes: bool) -> list[tuple[int, ...]]:
    """All combinations of working axes to mirror, the empty one first; a 2D network never mirrors z."""
    useful = [axis for axis in sorted(set(axes)) if not (planes and axis == 0)]
    return [chosen for n in range(len(useful) + 1) for chosen in itertools.combinations(useful, n)]


def predict_logits(
    network: nn.Module,
    image: torch.Tensor,
    inference: Inference,
    n_outputs: int,
    device: torch.device | str,
    mirror: bool,
    *,
    takes: NetworkInput = NetworkInput(),  # noqa: B008  (frozen)
    regions: bool = False,
    progress: Progress | None = None,
    precision: Precision = "auto",
) -> torch.Tensor:
    """The logits of a whole case: overlapping tiles, each weighed by its window, averaged.

    Args:
        network: ``[b, c, *patch]`` to ``[b, k, *patch]``, on ``device``; its mode is restored afterwards. With a
            context it gets ``[b, c, *(patch + 2 context)]``; beyond the image are zeros.
        image: ``[c, z, y, x]`` float32 on the working grid, on any device.
        inference: patch, context, step, window, mirror axes, tiles at once.
        n_outputs: k.
        device: where the network lies.
        mirror: average over all combinations of ``inference.mirror_axes``.
        takes: divisor and channels of the network.
        regions: outputs are regions, and none of them is the background.
        progress: told after each batch of tiles.
        precision: of the network, see :func:`autoseg.device.lower_precision`; logits are summed up in float32.

    Returns:
        ``[k, z, y, x]`` float32 on the CPU.

    Raises:
        AutosegError: the device cannot hold one batch of tiles; the network does not return what it should.
    """
    device = torch.device(device)
    tiling = make_tiling(image.shape[1:], inference, takes.divisor)
    image = takes.select(image)
    flips = mirrorings(inference.mirror_axes if mirror else (), tiling.planes)
    run = _TileRun(network, tiling, inference, n_outputs, device, flips, progress, precision)
    with evaluating(network):
        logits, full = _while_it_fits(run, image, device)
        if logits is None:  # outside of the handler of the error, which holds all that lies on the device
            logits = _with_less_memory(run, image, device, full)
    if inference.tiles == "centre":
        _fill_outside(logits, tiling, regions)
    box = tuple(slice(b, b + n) for b, n in zip(tiling.before, image.shape[1:], strict=True))
    return logits[all_of(box)].contiguous()


def all_of(space: tuple[slice, ...]) -> tuple[slice, ...]:
    """All channels of a box."""
    return (slice(None), *space)


def _fill_outside(logits: torch.Tensor, tiling: Tiling, regions: bool) -> None:
    """Background wherever no tile lies, in place."""
    outside = torch.ones(tiling.shape, dtype=torch.bool)
    for tile in tiling:
        outside[tile] = False
    logits[:, outside] = -OUTSIDE_LOGIT
    if not regions:
        logits[0, outside] = OUTSIDE_LOGIT


def _while_it_fits(
    run: _TileRun, image: torch.Tensor, store: torch.device
) -> tuple[torch.Tensor | None, str]:
    """The logits, or None and what the device said when its memory ran out."""
    try:
        return run.on(image, store), ""
    except torch.OutOfMemoryError as error:
        return None, str(error).split("\n")[0]


def _with_less_memory(run: _TileRun, image: torch.Tensor, device: torch.device, full: str) -> torch.Tensor:
    """The same with only the tiles on the device; what that cannot mend is explained."""
    shape, patch = ("x".join(str(n) for n in sizes) for sizes in (image.shape[1:], run.tiling.patch))
    messages.warn(
        f"{device} is out of memory for a case of {shape} voxels: its logits are collected in main memory"
    )
    free_cached_memory(device)
    logits, again = _while_it_fits(run, image, torch.device("cpu"))
    if logits is None:
        raise AutosegError(
            f"{device} is out of memory for one batch of tiles",
            found=again or full,
            expected=f"room for {run.inference.batch_size} tiles of {patch} voxels",
            fix="free memory on the device, use -device cpu, or lower inference.batch_size in plan.json",
        )
    return logits


@dataclass(frozen=True)
class _TileRun:
    """All that one pass over the tiles of a case needs."""

    network: nn.Module
    tiling: Tiling
    inference: Inference
    n_outputs: int
    device: torch.device
    flips: list[tuple[int, ...]]
    progress: Progress | None
    precision: Precision

    def on(self, image: torch.Tensor, store: torch.device) -> torch.Tensor:
        """The averaged logits ``[k, *tiling.shape]`` on the CPU, collected on the device ``store``."""
        # allocated outside inference mode, so that the caller may change the result in place
        sums = torch.zeros((self.n_outputs, *self.tiling.shape), device=store)
        windows = [send(torch.from_numpy(values), self.device) for values in self._windows()]
        weight = windows[0][:, None, None] * windows[1][:, None] * windows[2] if windows else None
        done, n_tiles = 0, len(self.tiling)
        with torch.inference_mode(), autocast(self.device, lower_precision(self.device, self.precision)):
            padded = self._pad(send(image.float(), store))
            for batch in self.tiling.batches(self.inference.batch_size):
                seen = [padded[all_of(self.tiling.seen(tile))] for tile in batch]
                logits = self._forward(torch.stack(seen).to(self.device))
                for tile, found in zip(batch, logits, strict=True):
                    inner = found[all_of(within(tile, self.tiling.around(tile)))]
                    if weight is None:
                        sums[all_of(tile)] = inner.to(store)
                    else:
                        sums[all_of(tile)] += (inner * weight).to(store)
                done += len(batch)
                if self.progress is not None:
                    self.progress(done, n_tiles)
        if windows:
            self._divide(sums, windows)
        return sums.cpu()

    def _windows(self) -> list[np.ndarray]:
        """One window per axis; where one tile covers the axis the weight would cancel out and is left out. Chunks, of
        which each voxel has one, have none."""
        if self.tiling.chunks:
            return []
        axes = zip(self.tiling.patch, self.tiling.starts, strict=True)
        return [window(n, self.inference.gaussian and len(starts) > 1) for n, starts in axes]

    def _pad(self, image: torch.Tensor) -> torch.Tensor:
        """The image ``[c, z, y, x]`` in the middle of zeros of the tiling's shape, and of its context around that."""
        padded = pad_nd_image(image, self.tiling.shape)
        if not any(self.tiling.context):
            return padded
        z, y, x = self.tiling.context
        return nn.functional.pad(padded, (x, x, y, y, z, z))

    def _forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Logits ``[b, k, z, y, x]`` (float32) of tiles ``[b, c, z, y, x]``, the mean over all mirrorings."""
        planes = self.tiling.planes
        tiles = tiles[:, :, 0] if planes else tiles
        outputs: list[torch.Tensor] = []
        for axes in self.flips:
            dims = [axis + (1 if planes else 2) for axis in axes]
            output = self.network(tiles.flip(dims) if dims else tiles)
            output = output[0] if isinstance(output, (list, tuple)) else output
            self._check(output, tiles)
            output = (output.flip(dims) if dims else output).float()
            outputs[:] = [outputs[0] + output] if outputs else [output]  # their sum
        mean = outputs[0] / len(self.flips) if len(self.flips) > 1 else outputs[0]
        return mean[:, :, None] if planes else mean

    def _check(self, output: torch.Tensor, tiles: torch.Tensor) -> None:
        axes = zip(tiles.shape[2:], self.tiling.context[self.tiling.planes :], strict=True)
        expected = (tiles.shape[0], self.n_outputs, *(n - 2 * context for n, context in axes))
        if tuple(output.shape) != expected:
            raise AutosegError(
                f"the network {type(self.network).__name__} does not return logits on the grid of its input",
                found=f"shape {tuple(output.shape)}",
                expected=f"shape {expected}",
                fix="check inference.patch_size and the network's arguments in plan.json",
            )

    def _divide(self, sums: torch.Tensor, windows: list[torch.Tensor]) -> None:
        """Divide by the sum of weights in place, axis by axis."""
        for axis, (starts, values) in enumerate(zip(self.tiling.starts, windows, strict=True)):
            total = torch.zeros(self.tiling.shape[axis], device=sums.device)
            for start in starts:
                total[start : start + len(values)] += values.to(sums.device)
            total = torch.where(total > 0, total, 1)  # where no tile lies the sum is 0 as well
            sums /= total.view([-1 if a == axis else 1 for a in range(3)])


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])  # a network may switch more than the flag, such as deep supervision
        for module, training in modes:
            module.training = training
