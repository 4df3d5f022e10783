"""What a case looks like: where the head lies, how its brightness changes across it, what lesions do, which channels
show the same.

All is measured on every n-th voxel of an axis, so that about :data:`COARSE_EDGE` are left: sizes are true to a few
percent, and a case takes milliseconds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from autoseg.dataset.imageio import Geometry
from autoseg.fingerprint import CaseAppearance, ChannelAppearance

COARSE_EDGE = 64
FEWEST_VOXELS = 100
"""A field is not fitted to fewer."""
MOST_RANKED = 20_000
"""Voxels by which channels are compared."""
CUT_OUT = 0.25
"""A head is cut out when more of the image than this has exactly the value of its first voxel."""
TUKEY, ROUNDS = 4.685, 8
"""Of the robust fit: residuals beyond so many spreads count nothing (0.95 as efficient as least squares)."""
BRIGHT, DARK = 95, 5
"""Percentiles of the fitted field between which shading is measured."""


def appearance(image: np.ndarray, foreground: np.ndarray, geometry: Geometry) -> CaseAppearance:
    """What a case looks like.

    Args:
        image: ``[c, z, y, x]``.
        foreground: bool ``[z, y, x]``, the lesions.
        geometry: of the case.
    """
    coarse = tuple(slice(None, None, max(1, n // COARSE_EDGE)) for n in foreground.shape)
    lesion = foreground[coarse]
    channels = [channel[coarse].astype(np.float64) for channel in image]
    heads = [object_above_air(channel) for channel in channels]
    head = np.any(heads, axis=0)
    return CaseAppearance(
        object_extent_mm=_extent_mm(head, coarse, geometry),
        object_share=_short(float(head.mean())),
        channels=[
            _channel(full, foreground, channel, inside, lesion)
            for full, channel, inside in zip(image, channels, heads, strict=True)
        ],
        correlations=_correlations(channels, head & ~lesion),
    )


def object_above_air(values: np.ndarray) -> np.ndarray:
    """Which voxels of a channel are no air: of a head that was cut out, those that differ from the corners' one value;
    else those above Otsu's threshold.
    """
    import SimpleITK as sitk

    if values.min() == values.max():
        return np.zeros(values.shape, bool)
    air = values == values.flat[0]
    if air.mean() > CUT_OUT:
        return ~air
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(values.reshape(1, -1)))
    return np.asarray(values > otsu.GetThreshold())


def _extent_mm(
    head: np.ndarray, coarse: Sequence[slice], geometry: Geometry
) -> tuple[float, float, float] | None:
    """Of the box around the head; None without one."""
    if not head.any():
        return None
    lengths = []
    for axis, step in enumerate(coarse):
        at = np.flatnonzero(head.any(tuple({0, 1, 2} - {axis})))
        voxels = min((at[-1] - at[0] + 1) * (step.step or 1), geometry.shape[axis])
        lengths.append(_short(float(voxels) * geometry.spacing_mm[axis]))
    z, y, x = lengths
    return z, y, x


def _channel(
    full: np.ndarray, foreground: np.ndarray, channel: np.ndarray, inside: np.ndarray, lesion: np.ndarray
) -> ChannelAppearance:
    return ChannelAppearance(
        shading=shading(channel, inside & ~lesion),
        lesion_contrast=_lesion_contrast(full[foreground], channel[inside & ~lesion]),
    )


def shading(channel: np.ndarray, inside: np.ndarray) -> float | None:
    """How many times as bright the bright side of an object is as its dark side, by a smooth field.

    The field is the polynomial of second degree in the coordinates that fits the logarithm of the intensities of most
    tissue (fluid and rims are outliers, which Tukey's biweight leaves out); its 95th percentile over its 5th is what is
    given, 1 where nothing changes.

    Args:
        channel: ``[z, y, x]``.
        inside: bool of that shape, where to look.

    Returns:
        None where intensities are not all above 0, so that no field can have multiplied them, or voxels are few.
    """
    values = channel[inside]
    if values.size < FEWEST_VOXELS or values.min() <= 0:
        return None
    at = [line for line in _coordinates(inside) if np.ptp(line) > 0]
    terms = [np.ones(values.size), *at]
    terms += [a * b for a, b in itertools.combinations_with_replacement(at, 2)]
    matrix, logs = np.stack(terms, axis=1), np.log(values)
    low, high = np.percentile(_robust_fit(matrix, logs), (DARK, BRIGHT))
    return _short(math.exp(high - low))


def _robust_fit(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What the columns of ``[n, terms]`` say of ``[n]`` values, by iterated weighted least squares."""
    fitted = np.full(values.size, np.median(values))
    for _ in range(ROUNDS):
        residuals = values - fitted
        spread = 1.4826 * float(np.median(np.abs(residuals)))
        if spread == 0:
            break
        weights = np.clip(1 - (residuals / (TUKEY * spread)) ** 2, 0, None) ** 2
        weighed = matrix * weights[:, None]
        fitted = matrix @ np.linalg.lstsq(matrix.T @ weighed, weighed.T @ values, rcond=None)[0]
    return fitted


def _coordinates(inside: np.ndarray) -> list[np.ndarray]:
    """Of the True voxels, -1 to 1 along each axis of their box."""
    found = []
    for line in np.nonzero(inside):
        low, high = int(line.min()), int(line.max())
        middle, half = (low + high) / 2, max(1, high - low) / 2
        found.append((line - middle) / half)
    return found


def _lesion_contrast(lesion: np.ndarray, tissue: np.ndarray) -> float | None:
    """How much brighter the median of lesions is than that of the head, in its standard deviations."""
    if not lesion.size or tissue.size < 2 or tissue.std() == 0:
        return None
    return _short((float(np.median(lesion)) - float(np.median(tissue))) / float(tissue.std()))


def _correlations(channels: Sequence[np.ndarray], inside: np.ndarray) -> list[float]:
    """Rank correlation of each pair of channels within a mask."""
    index = np.flatnonzero(inside)
    index = index[:: max(1, index.size // MOST_RANKED)]
    if len(channels) < 2 or index.size < FEWEST_VOXELS:
        return []
    ranks = []
    for channel in channels:
        values = channel.reshape(-1)[index]
        rank = np.empty(index.size)
        rank[np.argsort(values, kind="stable")] = np.arange(index.size)
        ranks.append(rank)
    matrix = np.atleast_2d(np.corrcoef(ranks))
    return [_short(float(matrix[i, j])) for i, j in itertools.combinations(range(len(channels)), 2)]


def _short(value: float) -> float:
    """Four digits: more than a coarse copy can tell."""
    return float(f"{value:.4g}")
