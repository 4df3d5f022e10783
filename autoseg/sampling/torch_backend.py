"""Augmentation in torch, in float32, on any device.

A sample is the same whatever batch it is part of, how many devices share the batch, and where a run was resumed.
Large patches fill a GPU one by one, with all their channels at once. Small ones are turned together, as far as they
are alike; none of the operations depends on what else is in the batch.

Notation: ``image`` is ``[c, z, y, x]`` or ``[c, y, x]``, ``label`` the same without c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.device import accelerates, send
from autoseg.sampling.keys import noise_field
from autoseg.sampling.parameters import Parameters, PerChannel
from autoseg.sampling.patches import SMALL, Patch

EPSILON = 1e-7
TOGETHER = 6  # label values that are interpolated at once
BLUR_REACH = 4.0  # the kernel ends after this many standard deviations, as scipy's gaussian_filter


def alike(patches: Sequence[Patch]) -> list[list[int]]:
    """Which of these patches can be worked on together: lists of their numbers, each number in one list.

    Small ones that were cut to the same size and have the same label values. Large ones stay alone: to put them
    together would only copy them once more.
    """
    groups: dict[Any, list[int]] = {}
    for number, patch in enumerate(patches):
        small = math.prod(patch.size) <= SMALL
        key = (patch.image.shape, patch.label.dtype, patch.values, patch.is_spatial and patch.keeps_planes)
        groups.setdefault(key if small else number, []).append(number)
    return list(groups.values())


def augment(
    patch: Patch,
    inside_nonzero: Sequence[bool],
    device: torch.device | str = "cpu",
    context: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Apply a patch's parameters.

    Args:
        patch: its arrays may be overwritten when ``device`` is the CPU.
        inside_nonzero: per channel: 0 wherever the label says outside.
        device: where to work.
        context: voxels around what is predicted, for each axis of the patch; empty for none.

    Returns:
        Image float32 ``[c, *size]`` and label without negative values, without the context, on ``device``.
    """
    images, labels = finish(*change_alike([patch], device), inside_nonzero, context)
    return images[0], labels[0]


@torch.no_grad()
def change_alike(patches: Sequence[Patch], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Apply the parameters of some patches that are :func:`alike`, and what moves their voxels.

    Returns:
        ``[b, c, *size]`` and ``[b, *size]`` on ``device``; the labels keep their negative values.
    """
    device = torch.device(device)
    images = _together([patch.image for patch in patches], device)
    labels = _together([patch.label for patch in patches], device)
    with torch.autocast(device.type, enabled=False):
        if patches[0].is_spatial:
            images, labels = _resample(images, labels, patches)
        images = _change_each(images, patches)
        return _mirror(images, labels, patches)


@torch.no_grad()
def finish(
    images: Tensor, labels: Tensor, inside_nonzero: Sequence[bool], context: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """What comes last, of a batch: see :func:`augment`. Both may be overwritten."""
    for channel, masked in enumerate(inside_nonzero):
        if masked:
            images[:, channel].masked_fill_(labels < 0, 0)
    for axis, n in enumerate(context, start=1):
        labels = labels.narrow(axis, n, labels.shape[axis] - 2 * n)
    return images, labels.clamp_(min=0)


def _together(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """``[b, *shape]`` on the device. One array alone is not copied on the CPU."""
    tensors = [torch.from_numpy(array) for array in arrays]
    return send(tensors[0][None] if len(tensors) == 1 else torch.stack(tensors), device)


def _change_each(images: Tensor, patches: Sequence[Patch]) -> Tensor:
    """The intensities, patch by patch: each has its own statistics."""
    if not any(patch.parameters.changes_intensities for patch in patches):
        return images
    changed = [
        change_intensities(image, patch.parameters) for image, patch in zip(images, patches, strict=True)
    ]
    return changed[0][None] if len(changed) == 1 else torch.stack(changed)


def _mirror(images: Tensor, labels: Tensor, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
    """Reverse the axes that each patch drew."""
    drawn = [patch.parameters.mirror for patch in patches]
    for axes in sorted(set(drawn) - {()}):
        of_image, of_label = [axis + 2 for axis in axes], [axis + 1 for axis in axes]
        if drawn.count(axes) == len(drawn):
            return images.flip(of_image), labels.flip(of_label)
        rows = send(torch.tensor([n for n, mirror in enumerate(drawn) if mirror == axes]), images.device)
        images[rows], labels[rows] = images[rows].flip(of_image), labels[rows].flip(of_label)
    return images, labels


def change_intensities(image: Tensor, parameters: Parameters) -> Tensor:
    """All changes that leave voxels where they are; ``image`` may be overwritten."""
    if parameters.noise_sigma is not None:
        image.add_(_noise(image, parameters.noise_seed), alpha=parameters.noise_sigma)
    for channel, sigmas in enumerate(parameters.blur):
        if sigmas is not None:
            image[channel] = blur(image[channel], sigmas)
    if parameters.brightness:
        image.mul_(_column(parameters.brightness, image))
    if parameters.contrast:
        image = contrast(image, parameters.contrast)
    for channel, share in enumerate(parameters.low_resolution):
        if share is not None:
            image[channel] = low_resolution(image[channel], share, in_plane=parameters.in_plane)
    if parameters.gamma_inverted:
        image = gamma(image.neg_(), parameters.gamma_inverted).neg_()
    if parameters.gamma:
        image = gamma(image, parameters.gamma)
    return image


def _resample(images: Tensor, labels: Tensor, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
    """The turned and scaled patches, linear; planes stay by themselves where nothing moves across them.

    The label is the value with the largest interpolated share, the lowest value on a tie. The lowest value's share is
    what the others leave of 1; the others are interpolated together with the image, which costs little more than
    the image alone, and the rest of a long list a few at a time, so that memory does not grow with it.
    """
    first, *others = patches[0].values
    grid = _grid(patches, images)
    sampled = _sample(torch.cat([images, _indicators(labels, others[:TOGETHER])], dim=1), grid)
    channels = images.shape[1]
    images, shares = sampled[:, :channels], sampled[:, channels:]
    best, left = torch.zeros_like(images[:, 0]), torch.ones_like(images[:, 0])
    result = torch.full_like(best, first, dtype=labels.dtype)
    for begin in range(0, len(others), TOGETHER):
        values = others[begin : begin + TOGETHER]
        if begin:
            shares = _sample(_indicators(labels, values), grid)
        for value, share in zip(values, shares.unbind(1), strict=True):
            result.masked_fill_(share > best, value)
            best = torch.maximum(best, share)
            left -= share
    return images.contiguous(), result.masked_fill_(left >= best, first)


def _indicators(labels: Tensor, values: Sequence[int]) -> Tensor:
    """``[b, values, *space]``: 1 where the label has the value."""
    found = labels.new_empty((len(labels), len(values), *labels.shape[1:]), dtype=torch.float32)
    for number, value in enumerate(values):
        found[:, number] = labels == value
    return found


def _grid(patches: Sequence[Patch], like: Tensor) -> Tensor:
    """For :func:`torch.nn.functional.grid_sample`: ``[b, *size, d]``, last axis in the order x, y, z, from -1 to 1.

    Sums of three vectors instead of a matrix product: exact also where TF32 is switched on.
    """
    dims = slice(1, None) if patches[0].keeps_planes else slice(None)
    size = patches[0].size[dims]
    unit = 2 / np.maximum(np.array(like.shape[-len(size) :]) - 1, 1)
    matrices = np.stack([patch.matrix[dims, dims] * unit[:, None] for patch in patches])
    origins = np.stack([np.array(patch.centre[dims]) * unit - 1 for patch in patches])
    numbers = np.concatenate((matrices, origins[..., None]), axis=-1).astype(np.float32)
    columns = send(torch.from_numpy(numbers), like.device).view(*numbers.shape, *[1] * len(size))
    steps = _steps(size, like.device)
    coordinates = []
    for axis in range(len(size)):
        total = columns[:, axis, -1]
        for other, step in enumerate(steps):
            total = total + step * columns[:, axis, other]
        coordinates.append(total)
    return torch.stack(coordinates[::-1], dim=-1)


@lru_cache(maxsize=4)
def _steps(size: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """For each axis the places of the patch's voxels, counted from its middle, shaped to broadcast."""
    steps = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in size]
    return [step.view([-1] + [1] * (len(size) - 1 - axis)) for axis, step in enumerate(steps)]


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    """Linear interpolation, border voxels repeated. ``[b, c, (z,) *space]`` to ``[b, c, (z,) *size]``."""
    dims = grid.shape[-1]
    n, leading, space = len(images), images.shape[1:-dims], images.shape[-dims:]
    flat = images.reshape(n, -1, *space)
    parts = _parts(grid[0]) if n == 1 and not accelerates(grid.device) else 1
    split = grid.reshape(n * parts, grid.shape[1] // parts, *grid.shape[2:])
    result = F.grid_sample(
        flat.expand(n * parts, *flat.shape[1:]) if parts > 1 else flat,
        split,
        padding_mode="border",
        align_corners=True,
    )
    if parts > 1:
        result = result.transpose(0, 1)
    return result.reshape(n, *leading, *grid.shape[1:-1])


def _parts(grid: Tensor) -> int:
    """On a CPU torch computes the entries of a batch in parallel: split the patch into as many as divide it."""
    threads = torch.get_num_threads()
    return next((n for n in range(threads, 1, -1) if grid.shape[0] % n == 0), 1)


def _noise(image: Tensor, seed: int) -> Tensor:
    """Standard normal noise; on CUDA drawn there, so the field differs from that of the CPU."""
    if not accelerates(image.device):
        return torch.from_numpy(noise_field(seed, tuple(image.shape)))
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.randn(image.shape, device=image.device, generator=generator)


def blur(volume: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian blur of ``[*space]``, mirrored at its borders (the outermost voxel twice)."""
    for axis, sigma in enumerate(sigmas):
        reach = int(BLUR_REACH * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if sigma > 0 else np.ones(1)
        n = volume.shape[axis]
        mirrored = np.arange(-reach, n + reach) % (2 * n)
        mirrored = np.where(mirrored < n, mirrored, 2 * n - 1 - mirrored)
        padded = volume.index_select(axis, send(torch.from_numpy(mirrored), volume.device))
        total = torch.zeros_like(volume)
        for offset, weight in enumerate(weights / weights.sum()):
            total.add_(padded.narrow(axis, offset, n), alpha=float(weight))
        volume = total
    return volume


def contrast(image: Tensor, factors: PerChannel) -> Tensor:
    """Stretch about each channel's mean; values stay within the channel's range."""
    flat = image.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    mean = _mean(flat)
    flat = (flat - mean).mul_(_column(factors, flat)).add_(mean)
    return flat.clamp_(low, high).view_as(image)


def gamma(image: Tensor, exponents: PerChannel) -> Tensor:
    """Raise each channel, scaled to 0 to 1, to a power; then give it its mean and standard deviation back."""
    flat = image.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    mean, deviation = _moments(flat)
    span = high - low
    flat = (flat - low).div_(span.clamp(min=EPSILON)).pow_(_column(exponents, flat)).mul_(span).add_(low)
    new_mean, new_deviation = _moments(flat)
    flat = flat.sub_(new_mean).mul_(deviation / new_deviation.clamp(min=EPSILON)).add_(mean)
    return flat.view_as(image)


def _mean(flat: Tensor) -> Tensor:
    return flat.mean(dim=1, keepdim=True)


def _moments(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[c, 1]`` of each row."""
    mean = _mean(flat)
    return mean, (flat - mean).square_().mean(dim=1, keepdim=True).sqrt()


def low_resolution(volume: Tensor, share: float, *, in_plane: bool) -> Tensor:
    """Sample ``[*space]`` down to this share of its voxels (nearest) and up again (linear)."""
    down = volume
    for axis, n in enumerate(volume.shape):
        m = n if in_plane and axis == 0 else max(round(n * share), 1)
        # in integers: no device rounds it
        nearest = (2 * torch.arange(m, device=volume.device) + 1) * n // (2 * m)
        down = down.index_select(axis, nearest)
    mode = "trilinear" if volume.ndim == 3 else "bilinear"
    return F.interpolate(down[None, None], volume.shape, mode=mode, align_corners=False)[0, 0]


def _column(values: PerChannel, like: Tensor) -> Tensor:
    """One number per channel, shaped to broadcast over ``[c, ...]``; None is 1, which changes nothing."""
    numbers = [1.0 if value is None else value for value in values]
    column = send(torch.tensor(numbers, dtype=torch.float32), like.device)
    return column.view(-1, *[1] * (like.ndim - 1))
