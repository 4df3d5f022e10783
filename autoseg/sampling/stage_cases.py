"""The cases of one stage, as its sampler sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.plan.schema import PatchSize, Stage
from autoseg.plugins.parts import Place, Voxel
from autoseg.sampling.case_cache import CaseCache
from autoseg.sampling.voxel_weights import read_weights


@dataclass(frozen=True)
class StageCases:
    """See :class:`autoseg.plugins.parts.TrainingCases`.

    Attributes:
        cache: reads the cases.
        divisor: what the size of a patch must be a multiple of, for axes that take the whole image.
        weights: folder of the weight maps of voxels; None without any.
    """

    names: tuple[str, ...]
    stage: Stage
    seed_key: tuple[int, ...]
    cache: CaseCache
    divisor: tuple[int, ...] = (1, 1, 1)
    weights: Path | None = None

    def original(self, name: str) -> str:
        """The case that a clone was made of; any other as it is."""
        return self.cache.original(name)

    def size(self, name: str) -> Voxel:
        """Size of a case."""
        return self.cache.size(name)

    def patch_size(self, name: str) -> Voxel:
        """Size of a patch of this case."""
        return full_size(self.stage.patch_size, self.size(name), self.divisor)

    def draw_foreground(
        self, name: str, rng: np.random.Generator, *, by_component: bool = False
    ) -> Voxel | None:
        """A foreground voxel; None for a case without foreground."""
        foreground = self.cache.foreground(name)
        return None if foreground.is_empty else foreground.draw(rng, by_component=by_component)

    def foreground_voxels(self, name: str) -> np.ndarray:
        """All voxels of any class, int32 ``[n, 3]``."""
        return self.cache.foreground_voxels(name)

    def nonzero_share(self, place: Place) -> float:
        """Share of a place's voxels, as far as an image of this size can fill it, of which any channel is not 0."""
        return self.cache.nonzero_share(place.case, place.start, place.size)

    def voxel_weights(self, name: str) -> np.ndarray | None:
        """How likely each voxel is to be in the middle of a patch, ``[z, y, x]``; None: all alike."""
        return None if self.weights is None else read_weights(self.weights, name)

    def arrays(self, name: str) -> tuple[Any, Any]:
        """Image ``[c, z, y, x]`` and label ``[z, y, x]`` that can be sliced."""
        return self.cache.arrays(name)


def full_size(patch_size: PatchSize, image_size: Voxel, divisor: Sequence[int] = (1, 1, 1)) -> Voxel:
    """Size z, y, x of a patch: one plane for a 2D network, the whole image for an empty patch size.

    Args:
        patch_size: of the stage.
        image_size: of the case.
        divisor: of the network; an axis that is ``whole`` is as long as the next multiple of it. A network that is
            given whole images by an empty patch size takes them as they are.
    """
    if not patch_size:
        return image_size
    size: list[Any] = [1] * (3 - len(patch_size)) + list(patch_size)
    for axis in range(-len(patch_size), 0):
        if size[axis] == "whole":
            size[axis] = -(-image_size[axis] // divisor[axis]) * divisor[axis]
    z, y, x = size
    return z, y, x


def turn_in_passes(stage: Stage, epoch: int, index: int, length: int) -> tuple[int, int]:
    """The number of the pass, and the turn in it, of sample ``index`` of an epoch where passes have so many turns.

    With a number of iterations per epoch, an epoch goes on where the last one ended. Without it an epoch is one pass;
    the first turns fill its last batch.
    """
    if stage.iterations_per_epoch is None:
        return epoch, index % length
    return divmod(epoch * stage.iterations_per_epoch * stage.batch_size + index, length)


def whole_axes(patch_size: PatchSize) -> list[bool]:
    """Of the axes z, y, x those on which a patch takes the whole image."""
    return [False] * (3 - len(patch_size)) + [n == "whole" for n in patch_size] if patch_size else [True] * 3
