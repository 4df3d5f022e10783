"""Augmentation in torch, in float32, on any device.

Each sample is worked on alone, with all its channels at once: a sample is the same whatever batch it is part of, how
many devices share the batch, and where a run was resumed. Patches are large enough to fill a GPU one by one.

Notation: ``image`` is ``[c, z, y, x]`` or ``[c, y, x]``, ``label`` the same without c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.sampling.keys import noise_field
from autoseg.sampling.parameters import Parameters, PerChannel
from autoseg.sampling.patches import Patch

EPSILON = 1e-7
TOGETHER = 6  # label values that are interpolated at once
BLUR_REACH = 4.0  # the kernel ends after this many standard deviations, as scipy's gaussian_filter


@torch.no_grad()
def augment(
    patch: Patch, inside_nonzero: Sequence[bool], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Apply a patch's parameters.

    Args:
        patch: its arrays may be overwritten when ``device`` is the CPU.
        inside_nonzero: per channel: 0 wherever the label says outside.
        device: where to work.

    Returns:
        Image float32 ``[c, *size]`` and label ``[*size]`` without negative values, on ``device``.
    """
    device = torch.device(device)
    image = torch.from_numpy(patch.image).to(device, non_blocking=True)
    label = torch.from_numpy(patch.label).to(device, non_blocking=True)
    matrix = patch.matrix
    with torch.autocast(device.type, enabled=False):
        if matrix is not None:
            image, label = _resample(image, label, patch, matrix)
        image = change_intensities(image, patch.parameters)
        axes = patch.parameters.mirror
        if axes:
            image, label = image.flip([axis + 1 for axis in axes]), label.flip(axes)
        for channel, masked in enumerate(inside_nonzero):
            if masked:
                image[channel].masked_fill_(label < 0, 0)
    return image, label.clamp_(min=0)


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


def _resample(image: Tensor, label: Tensor, patch: Patch, matrix: np.ndarray) -> tuple[Tensor, Tensor]:
    """The turned and scaled patch, linear; in-plane parameters keep every plane to itself.

    The label is the value with the largest interpolated share, the lowest value on a tie. The lowest value's share is
    what the others leave of 1; the others are interpolated together with the image, which costs little more than
    the image alone, and the rest of a long list a few at a time, so that memory does not grow with it.
    """
    flat = len(patch.size) == 3 and patch.parameters.in_plane
    dims = slice(1, None) if flat else slice(None)
    grid = _grid(matrix[dims, dims], patch.centre[dims], patch.size[dims], image)
    first, *others = patch.values
    indicators = [(label == value).float() for value in others[:TOGETHER]]
    sampled = _sample(torch.stack([*image, *indicators]), grid)
    image, shares = sampled[: len(image)], sampled[len(image) :]
    best, left = torch.zeros_like(image[0]), torch.ones_like(image[0])
    result = torch.full_like(best, first, dtype=label.dtype)
    for begin in range(0, len(others), TOGETHER):
        values = others[begin : begin + TOGETHER]
        if begin:
            shares = _sample(torch.stack([(label == value).float() for value in values]), grid)
        for value, share in zip(values, shares, strict=True):
            result.masked_fill_(share > best, value)
            best = torch.maximum(best, share)
            left -= share
    return image.contiguous(), result.masked_fill_(left >= best, first)


def _grid(matrix: np.ndarray, centre: Sequence[float], size: Sequence[int], like: Tensor) -> Tensor:
    """For :func:`torch.nn.functional.grid_sample`: ``[*size, d]``, last axis in the order x, y, z, from -1 to 1.

    Sums of three vectors instead of a matrix product: exact also where TF32 is switched on.
    """
    shape = like.shape[-len(size) :]
    steps = [torch.arange(n, dtype=torch.float32, device=like.device) - (n - 1) / 2 for n in size]
    coordinates = []
    for axis in range(len(size)):
        unit = 2 / max(shape[axis] - 1, 1)
        total: Tensor | float = centre[axis] * unit - 1
        for other, step in enumerate(steps):
            ahead = [1] * other + [-1] + [1] * (len(size) - other - 1)
            total = total + (step * (float(matrix[axis, other]) * unit)).view(ahead)
        coordinates.append(total)
    return torch.stack(torch.broadcast_tensors(*reversed(coordinates)), dim=-1)


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    """Linear interpolation of all leading axes, border voxels repeated. ``[..., *space]`` to ``[..., *size]``."""
    dims = grid.shape[-1]
    leading, space = image.shape[: image.ndim - dims], image.shape[image.ndim - dims :]
    flat = image.reshape(1, -1, *space)
    parts = _parts(grid) if image.device.type == "cpu" else 1
    split = grid.reshape(parts, grid.shape[0] // parts, *grid.shape[1:])
    result = F.grid_sample(
        flat.expand(parts, *flat.shape[1:]), split, padding_mode="border", align_corners=True
    )
    return result.transpose(0, 1).reshape(*leading, *grid.shape[:-1])


def _parts(grid: Tensor) -> int:
    """On a CPU torch computes the entries of a batch in parallel: split the patch into as many as divide it."""
    threads = torch.get_num_threads()
    return next((n for n in range(threads, 1, -1) if grid.shape[0] % n == 0), 1)


def _noise(image: Tensor, seed: int) -> Tensor:
    """Standard normal noise; on CUDA drawn there, so the field differs from that of the CPU."""
    if image.device.type == "cpu":
        return torch.from_numpy(noise_field(seed, tuple(image.shape)))
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.randn(image.shape, device=image.device, generator=generator)


def blur(volume: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian blur of ``[*space]``, mirrored at its borders (the outermost voxel twice)."""
    for axis, sigma in enumerate(sigmas):
        reach = int(BLUR_REACH * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if sigma > 0 else np.ones(1)
        n = volume.shape[axis]
        places = np.arange(-reach, n + reach) % (2 * n)
        places = torch.from_numpy(np.where(places < n, places, 2 * n - 1 - places)).to(volume.device)
        padded = volume.index_select(axis, places)
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
        nearest = (
            (2 * torch.arange(m, device=volume.device) + 1) * n // (2 * m)
        )  # in integers: no device rounds it
        down = down.index_select(axis, nearest)
    mode = "trilinear" if volume.ndim == 3 else "bilinear"
    return F.interpolate(down[None, None], volume.shape, mode=mode, align_corners=False)[0, 0]


def _column(values: PerChannel, like: Tensor) -> Tensor:
    """One number per channel, shaped to broadcast over ``[c, ...]``; None is 1, which changes nothing."""
    numbers = [1.0 if value is None else value for value in values]
    return torch.tensor(numbers, dtype=torch.float32, device=like.device).view(-1, *[1] * (like.ndim - 1))
