"""Intensities made comparable, channel by channel, as the plan says.

The schemes are nnU-Net's (preprocessing/normalization/default_normalization_schemes.py of version 2.8) and
zscore_object, in float32; means and standard deviations are accumulated in float64. Before them a bias field may be
taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.errors import AutosegError
from autoseg.plan import Normalisation
from autoseg.preprocessing.bias_field import remove_bias_field
from autoseg.preprocessing.crop import object_mask

SMALLEST = 1e-8
BLOCK = 1 << 18


def normalise(image: np.ndarray, schemes: Sequence[Normalisation], nonzero: np.ndarray | None = None) -> None:
    """Normalise ``image`` in place.

    Args:
        image: float32 ``[c, z, y, x]``, contiguous.
        schemes: one for each channel.
        nonzero: bool ``[z, y, x]``; needed when a scheme works inside it.

    Raises:
        AutosegError: not one scheme per channel; rgb_0_1 on values beyond 0 to 255; n4 on values that are not
            positive.
    """
    if len(schemes) != len(image):
        raise AutosegError(
            "the plan does not normalise every channel",
            found=f"{len(image)} channels",
            expected=f"{len(schemes)}, as many as entries in preprocessing.normalisation",
            fix="make the plan again for this dataset",
        )
    for number, (channel, scheme) in enumerate(zip(image, schemes, strict=True)):
        if scheme.bias_correction == "n4":
            remove_bias_field(channel, number)
        if scheme.inside_nonzero and nonzero is not None and not nonzero.all():
            values = channel[nonzero]
            _apply(values, scheme, number)
            channel[...] = 0
            channel[nonzero] = values
        else:
            _apply(channel, scheme, number)


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Of a contiguous float32 array, accumulated in float64 without a float64 copy; (0, 0) when empty."""
    flat = values.reshape(-1)
    if not flat.size:
        return 0.0, 0.0
    mean = float(flat.mean(dtype=np.float64))
    squares = 0.0
    for start in range(0, flat.size, BLOCK):
        deviation = flat[start : start + BLOCK].astype(np.float64)
        deviation -= mean
        squares += float(deviation @ deviation)
    return mean, math.sqrt(squares / flat.size)


def _apply(values: np.ndarray, scheme: Normalisation, channel: int) -> None:
    """Normalise float32 ``values`` of any shape in place."""
    if not values.size or scheme.scheme == "none":
        return
    if scheme.scheme == "zscore":
        mean, std = mean_and_std(values)
        _shift_and_scale(values, mean, std)
    elif scheme.scheme == "zscore_object":
        inside = object_mask(values)
        _shift_and_scale(values, *mean_and_std(values[inside] if inside.any() else values))
    elif scheme.scheme == "ct":
        known = _ct_statistics(scheme, channel)
        np.clip(values, known["percentile_00_5"], known["percentile_99_5"], out=values)
        _shift_and_scale(values, known["mean"], known["std"])
    elif scheme.scheme == "rescale_0_1":
        low, high = values.min(), values.max()
        _shift_and_scale(values, low, high - low)
    else:
        _refuse_beyond_bytes(values, channel)
        values /= np.float32(255)


def _shift_and_scale(values: np.ndarray, shift: float, scale: float) -> None:
    values -= np.float32(shift)
    values /= np.float32(max(scale, SMALLEST))


def _ct_statistics(scheme: Normalisation, channel: int) -> dict[str, float]:
    needed = ("mean", "std", "percentile_00_5", "percentile_99_5")
    if any(name not in scheme.statistics for name in needed):
        raise AutosegError(
            "the plan's scheme ct lacks statistics",
            where=f"preprocessing.normalisation.{channel}",
            found=", ".join(sorted(scheme.statistics)) or "none",
            expected=", ".join(needed),
            fix="add them, or choose zscore",
        )
    return scheme.statistics


def _refuse_beyond_bytes(values: np.ndarray, channel: int) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise AutosegError(
            "rgb_0_1 does not fit the intensities",
            where=f"channel {channel}",
            found=f"{low:g} to {high:g}",
            expected="0 to 255",
            fix=f"--set preprocessing.normalisation.{channel}.scheme=rescale_0_1",
        )
