"""Binary closing with a ball: gaps and holes of a lesion are filled (FH of Perez Malla et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

import numpy as np
from scipy import ndimage

from autoseg import messages
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation, StepPart
from autoseg.postprocessing.threshold import counted_voxels

TRIED = range(1, 11)
"""Iterations among which the best is looked for."""

Border = Literal["safe", "scipy"]


def ball(radius: int) -> np.ndarray:
    """bool ``[2 r + 1] * 3``, voxels not farther than the radius from the middle; 123 of them for radius 3."""
    grid = np.indices((2 * radius + 1,) * 3) - radius
    return (grid**2).sum(0) <= radius**2


def closed(mask: np.ndarray, iterations: int, radius: int = 3, border: Border = "safe") -> np.ndarray:
    """A boolean mask ``[z, y, x]`` after so many dilations by the ball, then as many erosions.

    Args:
        mask: on its grid; the ball is one of voxels.
        iterations: at least 1.
        radius: of the ball, in voxels.
        border: ``safe``: the image goes on as background, and nothing of the mask is lost; ``scipy``: what is dilated
            beyond the image is forgotten before the erosion, so that voxels near a face go.
    """
    if border == "scipy":
        return ndimage.binary_closing(mask, ball(radius), iterations)
    if not mask.any():
        return mask.copy()
    box = ndimage.find_objects(mask.astype(np.uint8))[0]  # closing never leaves it
    padded = np.pad(mask[box], radius * iterations)
    found = np.zeros_like(mask)
    inner = tuple(slice(radius * iterations, n - radius * iterations) for n in padded.shape)
    found[box] = ndimage.binary_closing(padded, ball(radius), iterations)[inner]
    return found


def closing(
    case: Segmentation, *, iterations: float = 1, radius: int = 3, border: Border = "safe", value: int = 1
) -> Segmentation:
    """What closing adds to all foreground becomes ``value``; what it takes at a ``scipy`` border, background.

    Args:
        case: any number of classes.
        iterations: a whole number, at least 1; it can be learned.
        radius, border: see :func:`closed`.
        value: of the voxels that are filled.

    Raises:
        ValueError: fewer than one iteration, or a radius below 1.
    """
    if iterations < 1 or radius < 1:
        raise ValueError(f"iterations and radius are at least 1, found {iterations:g} and {radius}")
    shape = closed(case.mask > 0, int(iterations), radius, border)
    filled = np.where(case.mask > 0, case.mask, value)
    return replace(case, mask=np.where(shape, filled, 0).astype(np.uint8))


def fit_closing(
    cases: Iterable[FitCase], labels: LabelSet, *, radius: int = 3, border: Border = "safe", value: int = 1
) -> dict[str, float]:
    """The iterations (1 to 10) with the best Dice of each case, the fewest of equal ones; their mean rounded down.

    Cases without lesion say nothing of it and are left out; so are voxels with the ignore label.
    """
    best = []
    for entry in cases:
        counts = counted_voxels(entry, labels)
        truth = (entry.truth > 0) & counts
        if truth.any():
            scores = [_dice(closed(entry.case.mask > 0, n, radius, border) & counts, truth) for n in TRIED]
            best.append(TRIED[int(np.argmax(np.round(scores, 12)))])
    if not best:
        messages.warn("closing has no case with a lesion to learn from; it keeps to 1 iteration")
    return {"iterations": rounded_down(best or [1])}


def _dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * int((found & truth).sum()) / (int(found.sum()) + int(truth.sum()))


def rounded_down(values: Sequence[float]) -> float:
    """The mean as a whole number, not above it; also of several folds."""
    return float(math.floor(fmean(values)))


STEPS = (
    StepPart(
        "closing",
        closing,
        fit=fit_closing,
        combine=rounded_down,
        summary="gaps and holes are closed with a ball of voxels",
    ),
)
