"""Whether the channels of a scan are in the order in which a model has seen them, by the spread of their intensities.

Files are numbered by hand, and a FLAIR in the place of a T1 gives a mask all the same, only a worse one. What is
compared has mostly no unit: where in their range the intensities of a channel lie, and how large the largest are.
Nothing is said of few training cases, and only where two channels fit each other's places clearly better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autoseg.dataset.examine import sample_step
from autoseg.fingerprint import CaseFingerprint, Intensities

FEWEST_CASES = 5
"""Fewer training cases do not tell how channels spread."""
UNUSUAL = 3.0
"""Two channels must be so far from the training cases, in standard deviations on average, before others are tried."""
CLEARLY = 2.0
"""And so many times as far as in each other's places."""
LEAST_SPREAD = 0.02
"""Of any quantity: a few training cases may be nearly alike by chance."""


@dataclass(frozen=True)
class SeenChannels:
    """How the intensities of each channel spread in the training cases; without any, nothing is said.

    Attributes:
        names: of the channels.
        mean, spread: of each quantity of a channel over the cases, ``[channel, quantity]``.
    """

    names: Sequence[str] = ()
    mean: np.ndarray | None = None
    spread: np.ndarray | None = None

    @classmethod
    def of_cases(cls, cases: Sequence[CaseFingerprint], names: Sequence[str]) -> SeenChannels:
        """Those of training cases; of a single channel, or of few cases, none."""
        rows = [[_of_record(one) for one in case.brain] for case in cases if len(case.brain) == len(names)]
        whole = np.array([row for row in rows if None not in row], float)
        if len(names) < 2 or len(whole) < FEWEST_CASES:
            return cls()
        return cls(tuple(names), whole.mean(axis=0), np.maximum(whole.std(axis=0, ddof=1), LEAST_SPREAD))

    def swapped(self, image: np.ndarray) -> str:
        """Which two channels of an image ``[c, z, y, x]`` fit each other's places clearly better, in words; or empty.

        Channels of one value alone, as those that are missing, are not looked at.
        """
        if self.mean is None or self.spread is None:
            return ""
        found = _of_image(image)
        known = [i for i, row in enumerate(found) if row is not None]
        far = np.full((len(found), len(found)), math.inf)  # image channel, place
        for i in known:
            far[i] = np.sqrt(np.mean(((np.array(found[i]) - self.mean) / self.spread) ** 2, axis=1))
        pairs = [
            ((far[a, a] + far[b, b]) / 2, (far[a, b] + far[b, a]) / 2, a, b)
            for a, b in combinations(known, 2)
        ]
        odd = [pair for pair in pairs if pair[0] >= UNUSUAL and pair[0] >= CLEARLY * pair[1]]
        if not odd:
            return ""
        here, there, a, b = max(odd, key=lambda pair: pair[0] - pair[1])
        return (
            f"{self.names[a]} and {self.names[b]} {here:.1f} SD from the training cases, and {there:.1f} in each "
            "other's places"
        )


def _of_record(one: Intensities) -> tuple[float, ...] | None:
    return _quantities(one.mean, one.std, one.median, one.percentile_00_5, one.percentile_99_5)


def _of_image(image: np.ndarray) -> list[tuple[float, ...] | None]:
    """Of each channel, over evenly spread voxels where any channel is not 0."""
    flat = image.reshape(len(image), -1)
    sample = flat[:, :: sample_step(flat.shape[1])].astype(np.float64)
    sample = sample[:, sample.any(axis=0)]
    if not sample.size:
        return [None] * len(image)
    low, median, high = np.percentile(sample, (0.5, 50, 99.5), axis=1)
    rows = zip(sample.mean(axis=1), sample.std(axis=1), median, low, high, strict=True)
    return [_quantities(*map(float, row)) for row in rows]


def _quantities(mean: float, std: float, median: float, low: float, high: float) -> tuple[float, ...] | None:
    """Where mean and median lie between the percentiles 0.5 and 99.5, how wide the rest is, and how large they are."""
    span, largest = high - low, abs(high)
    if span <= 0 or largest <= 0:
        return None
    return (mean - low) / span, std / span, (median - low) / span, low / largest, math.log(largest)
