"""Clones of training cases: the same scans with other intensities in their lesions.

Perez Malla et al., Frontiers in Neuroinformatics 13:33 (2019), Algorithm 2. They wrote clones to files before the
training; here the same numbers are drawn when a case is first used, so that nothing is stored and a case can only be
cloned in a fold that trains on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from autoseg import plan
from autoseg.sampling.keys import Purpose, generator

SMOOTHNESS_VOXELS = 1.0
"""Standard deviation of the Gaussian that correlates the noise of neighbouring voxels."""
REACH_VOXELS = 4
"""Where that Gaussian is cut off."""


@dataclass(frozen=True)
class CloneLesions:
    """The lesion voxels of a clone.

    Attributes:
        voxels: int32 ``[n, 3]``: z, y, x, in the order of the array.
        values: float32 ``[c, n]``, which stand there.
    """

    voxels: np.ndarray
    values: np.ndarray


def draw_lesions(
    image: Any,
    label: Any,
    values: Sequence[int],
    *,
    channels: Sequence[int],
    noise: Literal["white", "correlated"],
    seed: int,
    case: str,
    number: int,
    epoch: int | None = None,
) -> CloneLesions:
    """What stands in the lesions of a clone: in each channel draws from a normal distribution with their mean and
    standard deviation (of the population), each label value by itself.

    Args:
        image: ``[c, z, y, x]``, preprocessed; read one channel at a time.
        label: ``[z, y, x]``.
        values: those of lesions.
        channels: numbers of the image's channels in the plan: the draws of one do not depend on which others are seen.
        noise: ``white``: voxels are drawn independently; ``correlated``: neighbours are alike.
        seed, case, number: of the plan, the original and the clone; all draws follow from them,
        epoch: and from this one where it is given.
    """
    voxels = np.argwhere(np.isin(label[...], values)).astype(np.int32)
    kinds = np.asarray(label[...])[tuple(voxels.T)]
    drawn = np.empty((len(channels), len(voxels)), np.float32)
    for position, channel in enumerate(channels):
        key = (seed, *_digest(case), number, channel, 0 if epoch is None else epoch + 1)
        field = _noise(generator(Purpose.CLONE, key), voxels, correlated=noise == "correlated")
        inside = np.asarray(image[position : position + 1])[0][tuple(voxels.T)].astype(np.float64)
        for value in np.unique(kinds):
            here = kinds == value
            drawn[position, here] = inside[here].mean() + inside[here].std() * field[here]
    return CloneLesions(voxels, drawn)


def _digest(case: str) -> tuple[int, ...]:
    """A name as numbers."""
    return tuple(np.frombuffer(hashlib.sha256(case.encode()).digest()[:16], "<u4").tolist())


def _noise(rng: np.random.Generator, voxels: np.ndarray, *, correlated: bool) -> np.ndarray:
    """Standard normal noise at some voxels, float64 ``[n]``."""
    if not correlated or not len(voxels):
        return rng.standard_normal(len(voxels))
    low = voxels.min(axis=0)
    field = rng.standard_normal(voxels.max(axis=0) - low + 1 + 2 * REACH_VOXELS)
    kernel = np.exp(-0.5 * (np.arange(-REACH_VOXELS, REACH_VOXELS + 1) / SMOOTHNESS_VOXELS) ** 2)
    kernel /= np.sqrt((kernel**2).sum())  # sums of so weighted independent draws keep a variance of 1
    for axis in range(3):
        field = ndimage.correlate1d(field, kernel, axis=axis)
    return field[tuple((voxels - low + REACH_VOXELS).T)]


class CaseClones:
    """The clones of some cases, by name.

    Args:
        cases: names of the originals.
        settings: of the plan; None for no clones.
        seed: of the plan.
        values: label values of lesions.
        channels: see :func:`draw_lesions`.
    """

    def __init__(
        self,
        cases: Sequence[str],
        settings: plan.Clones | None,
        *,
        seed: int,
        values: Sequence[int],
        channels: Sequence[int],
    ) -> None:
        self._settings, self._seed = settings, seed
        self._values, self._channels = tuple(values), tuple(channels)
        self._lesions: dict[
            str, tuple[int | None, CloneLesions]
        ] = {}  # of the last epoch; a fiftieth of the cases
        numbers = range(1, 1 + (settings.number if settings is not None else 0))
        self.originals: Mapping[str, tuple[str, int]] = {
            f"{case}:clone{number}": (case, number) for number in numbers for case in cases
        }
        """Name of each clone to that of its case and its number, from 1. No case has a colon in its name."""

    def original(self, name: str) -> str:
        """The case of a clone, whose label, mask and maps are the clone's too; any other name as it is."""
        return self.originals[name][0] if name in self.originals else name

    def image(self, name: str, image: Any, label: Any, epoch: int) -> Any:
        """The image ``[c, z, y, x]`` of a case, or of its clone in this epoch; both can be sliced."""
        if self._settings is None or name not in self.originals:
            return image
        wanted = epoch if self._settings.drawn == "each_epoch" else None
        known = self._lesions.get(name)
        if known is None or known[0] != wanted:
            case, number = self.originals[name]
            lesions = draw_lesions(
                image,
                label,
                self._values,
                channels=self._channels,
                noise=self._settings.noise,
                seed=self._seed,
                case=case,
                number=number,
                epoch=wanted,
            )
            self._lesions[name] = known = wanted, lesions
        return ClonedImage(image, known[1])


class ClonedImage:
    """An image whose lesion voxels hold other values; what is cut from it is a copy.

    Args:
        original: float32 ``[c, z, y, x]``, can be sliced.
        lesions: what stands in them.
    """

    def __init__(self, original: Any, lesions: CloneLesions) -> None:
        self._original, self._lesions = original, lesions
        self.shape: tuple[int, ...] = tuple(original.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """A copy of a part, with all its axes: ``image[...]``, ``image[0:1]``, ``image[..., z, y, x]`` of slices."""
        part = np.array(self._original[key], np.float32)
        parts = key if isinstance(key, tuple) else (key,)
        channels = slice(None) if parts[0] is Ellipsis else parts[0]
        bounds = [
            box.indices(n)[:2] for box, n in zip(parts[1:] or [slice(None)] * 3, self.shape[1:], strict=True)
        ]
        rows = self._rows(bounds)
        z, y, x = (self._lesions.voxels[rows] - [low for low, _ in bounds]).T
        part[:, z, y, x] = self._lesions.values[channels][:, rows]
        return part

    def _rows(self, bounds: Sequence[tuple[int, int]]) -> np.ndarray:
        """The lesion voxels within a box; they lie in the order of planes, so that few are looked at."""
        voxels = self._lesions.voxels
        first, last = np.searchsorted(voxels[:, 0], bounds[0])
        some = voxels[first:last]
        low, high = np.transpose(bounds)
        return first + np.flatnonzero(((some >= low) & (some < high)).all(axis=1))
