"""From the working grid back to the file's grid, block by block.

Full-resolution scores of all classes are never held: for each slab of planes of the original grid every class is
interpolated, the decision is taken and one byte per voxel is kept. Outside the crop box, and outside the plan's mask,
there is background.

Notation: ``k`` outputs; ``z, y, x`` the axes of the file; working axes are those transposed as the plan says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plan import Preprocessing
from autoseg.preprocessing.case import CaseProperties
from autoseg.preprocessing.crop import slices
from autoseg.preprocessing.resample import Resampler, separate_axis

SLAB_BYTES = 8 << 20
"""Scores of all classes in one slab; small enough to stay near the processor."""


def logits_to_mask(
    logits: np.ndarray,
    properties: CaseProperties,
    plan: Preprocessing,
    label_set: LabelSet,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """The mask on the file's grid.

    Args:
        logits: float32 ``[k, *properties.working_shape]``.
        properties: of the case.
        plan: how it was preprocessed.
        label_set: what the outputs mean.
        inside: bool ``[z, y, x]``, what counts of the file, as ``Preprocessed.inside`` has it; None for all.

    Returns:
        uint8 ``[z, y, x]``.

    Raises:
        AutosegError: the logits do not lie on the case's working grid.
    """
    mask = np.zeros(properties.geometry["shape"], np.uint8)
    crop = _crop_in_working_axes(mask, properties, plan)
    for rows, scores in _slabs(logits, properties, plan):
        crop[rows] = label_set.decide(scores)
    if inside is not None:
        mask[~inside] = 0
    return mask


def logits_to_probabilities(
    logits: np.ndarray,
    properties: CaseProperties,
    plan: Preprocessing,
    label_set: LabelSet,
    dtype: type = np.float32,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """The probabilities on the file's grid: softmax, or one sigmoid for each region.

    Args: as of :func:`logits_to_mask`; ``dtype`` is np.float16 or np.float32.

    Returns:
        ``[k, z, y, x]``; outside the crop box, and where ``inside`` is False, background has probability 1 and all
        else 0.
    """
    result = np.zeros((len(logits), *properties.geometry["shape"]), dtype)
    if not label_set.has_regions:
        result[0] = 1
    crops = [_crop_in_working_axes(channel, properties, plan) for channel in result]
    turn = _sigmoid if label_set.has_regions else _softmax
    for rows, scores in _slabs(logits, properties, plan):
        for crop, values in zip(crops, turn(scores), strict=True):
            crop[rows] = values
    if inside is not None:
        for number, channel in enumerate(result):
            channel[~inside] = number == 0 and not label_set.has_regions
    return result


def _crop_in_working_axes(volume: np.ndarray, properties: CaseProperties, plan: Preprocessing) -> np.ndarray:
    """The part of ``[z, y, x]`` that was kept, as a view in working axes."""
    return volume[slices(properties.crop_box)].transpose(plan.transpose)


def _slabs(
    logits: np.ndarray, properties: CaseProperties, plan: Preprocessing
) -> Iterator[tuple[slice, np.ndarray]]:
    """Planes of the grid before resampling, with their scores, which the caller may change."""
    expected = tuple(properties.working_shape)
    if tuple(logits.shape[1:]) != expected:
        raise AutosegError(
            "the logits do not lie on the case's working grid",
            where=properties.name,
            found=f"shape {tuple(logits.shape[1:])}",
            expected=f"shape {expected}",
            fix="predict the case again",
        )
    shape = properties.shape_before_resampling
    before_mm, working_mm = properties.spacing_before_mm(plan), properties.working_spacing_mm
    apart = separate_axis(working_mm, before_mm, plan.separate_axis_ratio)
    ways = [
        Resampler(channel, shape, plan.logits_order, apart, plan.separate_axis_order) for channel in logits
    ]
    per_slab = max(1, SLAB_BYTES // (4 * len(logits) * math.prod(shape[1:])))
    buffer = np.empty((len(logits), min(per_slab, shape[0]), *shape[1:]), np.float32)
    for start in range(0, shape[0], per_slab):
        stop = min(start + per_slab, shape[0])
        scores = buffer[:, : stop - start]
        for way, out in zip(ways, scores, strict=True):
            way.planes(start, stop, out)
        yield slice(start, stop), scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    """In place, over the first axis."""
    scores -= scores.max(0)
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    return scores


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    """In place; exp never overflows."""
    np.clip(scores, -80, None, out=scores)
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1
    np.reciprocal(scores, out=scores)
    return scores
