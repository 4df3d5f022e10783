"""Intensities made comparable, channel by channel, as the plan says: the table of schemes.

The schemes are nnU-Net's (preprocessing/normalization/default_normalization_schemes.py of version 2.8),
zscore_object and fixed, in float32; means and standard deviations are accumulated in float64. Before them a bias field
may be taken out and the case be divided by its most frequent intensity; after them comes a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoseg.dataset.intensities import most_frequent
from autoseg.errors import AutosegError
from autoseg.messages import count_of
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing.bias_field import remove_bias_field
from autoseg.preprocessing.crop import object_mask
from autoseg.preprocessing.unexpected import UnexpectedRange, bring_into_range

SMALLEST = 1e-8
BLOCK = 1 << 18

Where = Literal["everywhere", "nonzero", "mask"]


@dataclass(frozen=True)
class Scheme:
    """One way to scale a channel.

    Attributes:
        name: as the plan has it.
        scale: ``scale(values, entry, number)`` changes float32 values of any shape, at least one, in place; the number
            of the channel is for messages.
        statistics: what it needs of ``Normalisation.statistics``.
        of_training_cases: its numbers come from the training cases of a fold, which the store does not know. There the
            channel keeps its scale, and :mod:`autoseg.preprocessing.fixed` scales what is read.
        keeps_zero: the air around a head, if it is 0, is 0 afterwards.
    """

    name: str
    scale: Callable[[np.ndarray, Normalisation, int], None]
    statistics: tuple[str, ...] = ()
    of_training_cases: bool = False
    keeps_zero: bool = False


def normalise(
    image: np.ndarray,
    entries: Sequence[Normalisation],
    nonzero: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> list[UnexpectedRange]:
    """Normalise ``image`` in place.

    Args:
        image: float32 ``[c, z, y, x]``, contiguous.
        entries: one for each channel.
        nonzero: bool ``[z, y, x]``; needed when an entry says ``inside_nonzero``.
        mask: the same for ``inside_mask``.

    Returns:
        The channels that were not as their entries expect, and what was done.

    Raises:
        AutosegError: not one entry per channel; rgb_0_1 on values beyond 0 to 255; n4 on values that are not
            positive; a division by the mode where no value reaches the first bin.
    """
    if len(entries) != len(image):
        raise AutosegError(
            "the plan does not normalise every channel",
            found=count_of(len(image), "channel"),
            expected=f"{len(entries)}, as many as entries in preprocessing.normalisation",
            fix="make the plan again for this dataset",
        )
    masks, unexpected = {"everywhere": None, "nonzero": nonzero, "mask": mask}, []
    for number, (channel, entry) in enumerate(zip(image, entries, strict=True)):
        if entry.bias_correction == "n4":
            remove_bias_field(channel, number)
        inside = masks[where_of(entry)]
        if inside is not None and inside.all():
            inside = None
        if SCHEMES[entry.scheme].of_training_cases:
            _divide_by_mode(channel, channel if inside is None else channel[inside], entry, number)
        elif inside is None:
            unexpected.append(_apply(channel, entry, number))
        else:
            values = channel[inside]
            unexpected.append(_apply(values, entry, number))
            channel[...] = 0
            channel[inside] = values
    return [found for found in unexpected if found is not None]


def mark_outside(
    image: np.ndarray, plan: Preprocessing, nonzero: np.ndarray | None, mask: np.ndarray | None
) -> None:
    """Make NaN, in place, what lies outside the mask inside which a channel will be normalised by constants.

    Args:
        image: ``[c, z, y, x]``.
        plan: how it was preprocessed.
        nonzero: bool ``[z, y, x]``, the non-zero mask on the same grid; needed for ``inside_nonzero``.
        mask: that of :class:`autoseg.plan.MaskRole`; needed for ``inside_mask``.
    """
    masks = {"everywhere": None, "nonzero": nonzero, "mask": mask}
    for number in fixed_channels(plan):
        inside = masks[where_of(plan.normalisation[number])]
        if inside is not None:
            image[number][~inside] = np.nan


def fixed_channels(plan: Preprocessing) -> list[int]:
    """Numbers of the channels that are normalised by constants of the training cases."""
    return [i for i, entry in enumerate(plan.normalisation) if SCHEMES[entry.scheme].of_training_cases]


def where_of(entry: Normalisation) -> Where:
    """Which voxels of a channel are measured and changed."""
    return "nonzero" if entry.inside_nonzero else "mask" if entry.inside_mask else "everywhere"


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


def shift_and_scale(values: np.ndarray, shift: float, scale: float) -> None:
    """``(values - shift) / scale`` in place, float32; scales of almost nothing become :data:`SMALLEST`."""
    values -= np.float32(shift)
    values /= np.float32(max(scale, SMALLEST))


def _apply(values: np.ndarray, entry: Normalisation, number: int) -> UnexpectedRange | None:
    """Normalise float32 ``values`` of any shape in place; what had to be done before, if they were not as expected."""
    if not values.size:
        return None
    scheme = SCHEMES[entry.scheme]
    _refuse_missing(scheme, entry, number)
    unexpected = bring_into_range(values, entry, number)
    _divide_by_mode(values, values, entry, number)
    scheme.scale(values, entry, number)
    if entry.factor != 1:
        values *= np.float32(entry.factor)
    return unexpected


def _divide_by_mode(values: np.ndarray, counted: np.ndarray, entry: Normalisation, number: int) -> None:
    """Divide by the most frequent of the counted values, where the entry says so."""
    if (
        entry.divide_by_mode is None or not counted.any()
    ):  # a channel of zeros, which may be missing, stays so
        return
    mode = most_frequent([counted], entry.divide_by_mode)
    if mode is None:
        raise AutosegError(
            "there is no most frequent intensity to divide by",
            where=f"channel {number}",
            found=f"intensities up to {counted.max():g}",
            expected=f"some of at least {entry.divide_by_mode:g}, one bin",
            fix=f"--set preprocessing.normalisation.{number}.divide_by_mode=null, or a narrower bin",
        )
    values /= np.float32(mode)


# ------------------------------------------------------------------------------------------------ the schemes


def _keep(values: np.ndarray, entry: Normalisation, number: int) -> None:
    """Leave the values as they are."""


def _zscore(values: np.ndarray, entry: Normalisation, number: int) -> None:
    shift_and_scale(values, *mean_and_std(values))


def _zscore_object(values: np.ndarray, entry: Normalisation, number: int) -> None:
    inside = object_mask(values)
    shift_and_scale(values, *mean_and_std(values[inside] if inside.any() else values))


def _ct(values: np.ndarray, entry: Normalisation, number: int) -> None:
    known = entry.statistics
    np.clip(values, known["percentile_00_5"], known["percentile_99_5"], out=values)
    shift_and_scale(values, known["mean"], known["std"])


def _rescale_0_1(values: np.ndarray, entry: Normalisation, number: int) -> None:
    low, high = values.min(), values.max()
    shift_and_scale(values, low, high - low)


def _rgb_0_1(values: np.ndarray, entry: Normalisation, number: int) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise AutosegError(
            "rgb_0_1 does not fit the intensities",
            where=f"channel {number}",
            found=f"{low:g} to {high:g}",
            expected="0 to 255",
            fix=f"--set preprocessing.normalisation.{number}.scheme=rescale_0_1",
        )
    values /= np.float32(255)


def _refuse_missing(scheme: Scheme, entry: Normalisation, number: int) -> None:
    if any(name not in entry.statistics for name in scheme.statistics):
        raise AutosegError(
            f"the plan's scheme {scheme.name} lacks statistics",
            where=f"preprocessing.normalisation.{number}",
            found=", ".join(sorted(entry.statistics)) or "none",
            expected=", ".join(scheme.statistics),
            fix="add them, or choose zscore",
        )


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("zscore", _zscore),
        Scheme("zscore_object", _zscore_object),
        Scheme("ct", _ct, statistics=("mean", "std", "percentile_00_5", "percentile_99_5")),
        Scheme("rescale_0_1", _rescale_0_1, keeps_zero=True),
        Scheme("rgb_0_1", _rgb_0_1, keeps_zero=True),
        Scheme("fixed", _keep, of_training_cases=True),
        Scheme("none", _keep, keeps_zero=True),
    )
}
"""Every scheme of :class:`autoseg.plan.Normalisation`, by name."""
