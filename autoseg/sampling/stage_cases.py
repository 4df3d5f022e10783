"""The cases of one stage, as its sampler sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.plan import Stage
from autoseg.plugins.parts import Voxel
from autoseg.sampling.case_cache import CaseCache


@dataclass(frozen=True)
class StageCases:
    """See :class:`autoseg.plugins.parts.TrainingCases`.

    Attributes:
        cache: reads the cases.
    """

    names: tuple[str, ...]
    stage: Stage
    seed_key: tuple[int, ...]
    cache: CaseCache

    def size(self, name: str) -> Voxel:
        """Size of a case."""
        return self.cache.size(name)

    def patch_size(self, name: str) -> Voxel:
        """Size of a patch of this case."""
        return full_size(self.stage.patch_size, self.size(name))

    def draw_foreground(
        self, name: str, rng: np.random.Generator, *, by_component: bool = False
    ) -> Voxel | None:
        """A foreground voxel; None for a case without foreground."""
        foreground = self.cache.foreground(name)
        return None if foreground.is_empty else foreground.draw(rng, by_component=by_component)

    def foreground_voxels(self, name: str) -> np.ndarray:
        """All voxels of any class, int32 ``[n, 3]``."""
        return self.cache.foreground_voxels(name)

    def arrays(self, name: str) -> tuple[Any, Any]:
        """Image ``[c, z, y, x]`` and label ``[z, y, x]`` that can be sliced."""
        return self.cache.arrays(name)


def full_size(patch_size: Sequence[int], image_size: Voxel) -> Voxel:
    """Size z, y, x of a patch: one plane for a 2D network, the whole image for an empty patch size."""
    z, y, x = [1] * (3 - len(patch_size)) + list(patch_size) if patch_size else image_size
    return z, y, x
