"""Normalisation by numbers of the dataset: the same two for all cases, measured in the training cases of a fold.

All folds share one store, so what is stored of such a channel has the scale of the file (divided by the mode where the
plan says so). A training measures its constants once and applies them to what it reads; they belong to the fold's model
and are applied to whatever it predicts. A channel that is normalised inside a mask is NaN outside it until then, so
that no label is needed to know where that is, and a forgotten :func:`apply` cannot pass unnoticed.

Notation: ``c`` channels; ``z, y, x`` voxels of the working grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.errors import AutosegError
from autoseg.files import hash_json
from autoseg.messages import count_of
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing.normalise import BLOCK, SMALLEST, Where, fixed_channels, shift_and_scale, where_of
from autoseg.preprocessing.store import Store


class ChannelConstants(BaseModel):
    """Of one channel: ``(x - mean) / spread * factor``, and 0 outside.

    Attributes:
        mean: of all measured voxels of all cases together.
        spread: about that mean.
        what: the spread is.
        inside: which voxels were measured and are changed.
        n_voxels: that were measured.
        factor: of the plan.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    spread: float
    what: Literal["mean_absolute_deviation", "standard_deviation"]
    inside: Where
    n_voxels: int
    factor: float = 1.0


class FixedConstants(BaseModel):
    """What the training cases of a fold say about the channels with the scheme ``fixed``.

    Attributes:
        channels: one entry for each channel, None for those with another scheme.
        cases: how many were measured.
        cases_hash: see :func:`hash_contents`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[ChannelConstants | None, ...]
    cases: int
    cases_hash: str

    def of_channels(self, numbers: Sequence[int]) -> FixedConstants:
        """The same for an image of these channels, in this order."""
        return self.model_copy(update={"channels": tuple(self.channels[number] for number in numbers)})


def measure(store: Store, names: Sequence[str], plan: Preprocessing) -> FixedConstants | None:
    """The constants of training cases, exactly: every voxel counts the same; the order of the cases does not matter.

    Args:
        store: of preprocessed cases, made by ``plan``.
        names: of the cases, at least one.
        plan: how they were preprocessed.

    Returns:
        None when no channel has the scheme ``fixed``.

    Raises:
        AutosegError: a case is not in the store; a mask that holds no voxel of any case.
    """
    numbers = fixed_channels(plan)
    if not numbers:
        return None
    names = sorted(names)
    counted = _sums(store, names, numbers, [(np.size, np.sum)] * len(numbers))
    n_voxels = [n for n, _ in counted]
    if not all(n_voxels):
        raise AutosegError(
            "there is no voxel to measure the normalisation in",
            where=f"preprocessing.normalisation.{numbers[n_voxels.index(0)]}",
            found=f"a mask that is empty in all of {count_of(len(names), 'training case')}",
            expected="a mask around the tissue",
            fix="correct preprocessing.mask, or take inside_mask and inside_nonzero out",
        )
    means = [total / n for n, total in counted]
    entries = [plan.normalisation[number] for number in numbers]
    deviation = [(_deviation(*pair),) for pair in zip(entries, means, strict=True)]
    deviations = _sums(store, names, numbers, deviation)
    found: dict[int, ChannelConstants] = {}
    for number, entry, mean, (total,), n in zip(numbers, entries, means, deviations, n_voxels, strict=True):
        spread = total / n if entry.spread == "mean_absolute_deviation" else math.sqrt(total / n)
        found[number] = ChannelConstants(
            mean=mean,
            spread=spread,
            what=entry.spread,
            inside=where_of(entry),
            n_voxels=int(n),
            factor=entry.factor,
        )
    return FixedConstants(
        channels=tuple(found.get(number) for number in range(len(plan.normalisation))),
        cases=len(names),
        cases_hash=hash_contents(store, names),
    )


def apply(image: np.ndarray, constants: FixedConstants | None) -> None:
    """Normalise the channels of a stored or just preprocessed image, or of a part of it, in place.

    Args:
        image: float32 ``[c, ...]``, to which this has not been done before.
        constants: of :func:`measure`; None changes nothing.

    Raises:
        AutosegError: another number of channels.
    """
    if constants is None:
        return
    if len(image) != len(constants.channels):
        raise AutosegError(
            "the constants of the normalisation do not fit the image",
            found=count_of(len(image), "channel"),
            expected=count_of(len(constants.channels), "channel"),
            fix="measure them with the plan that preprocessed the image",
        )
    for channel, known in zip(image, constants.channels, strict=True):
        if known is None:
            continue
        shift_and_scale(channel, known.mean, known.spread)
        if known.factor != 1:
            channel *= np.float32(known.factor)
        if known.inside != "everywhere":
            channel[np.isnan(channel)] = 0


def raw_zeros(plan: Preprocessing, constants: FixedConstants | None) -> tuple[float, ...]:
    """For each channel what the 0 of its files becomes where its voxels are normalised.

    Where that differs from case to case (``zscore``, say) it is taken for 0, and in a channel that is the same
    everywhere, which says nothing of its scale.

    Args:
        plan: how cases are preprocessed.
        constants: of the fold; None when no channel has the scheme ``fixed``.
    """
    known = constants.channels if constants is not None else (None,) * len(plan.normalisation)
    return tuple(
        -entry.mean / entry.spread * entry.factor if entry is not None and entry.spread > SMALLEST else 0.0
        for entry in known
    )


def hash_contents(store: Store, names: Sequence[str]) -> str:
    """Over the names of cases and the content hashes of their raw files, in any order."""
    return hash_json({name: store.record(name).key.content_hash for name in sorted(names)})


Measure = Callable[[np.ndarray], Any]
"""Of float64 values to a number."""


def _sums(
    store: Store, names: Sequence[str], numbers: Sequence[int], of: Sequence[Sequence[Measure]]
) -> list[list[float]]:
    """For each channel what each of its measures sums up to, over all blocks of all cases.

    One channel of one case is in memory at a time.
    """
    parts: list[list[list[float]]] = [[[] for _ in measures] for measures in of]
    for name in names:
        image = store.read(name).image
        for sums, number, measures in zip(parts, numbers, of, strict=True):
            measured = [
                [float(measure(block)) for measure in measures]
                for block in _blocks(image[number : number + 1])
            ]
            for part, values in zip(sums, zip(*measured, strict=True), strict=True):
                part.append(math.fsum(values))
    return [[math.fsum(part) for part in sums] for sums in parts]


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """The values inside, in float64, some at a time."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        yield block[~np.isnan(block)].astype(np.float64)


def _deviation(entry: Normalisation, mean: float) -> Measure:
    """What the plan's spread sums up."""
    if entry.spread == "mean_absolute_deviation":
        return lambda values: np.abs(values - mean).sum()
    return lambda values: ((values - mean) ** 2).sum()
