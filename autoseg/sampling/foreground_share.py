"""nnU-Net's rule: a share of every batch is cut around the foreground, the rest anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.plugins.parts import Place, TrainingCases, Voxel
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.sampling.redraw import full_enough


@dataclass(frozen=True)
class ForegroundShare:
    """The last samples of every batch are cut for a foreground voxel, see :func:`is_forced`.

    With a number of iterations per epoch, cases are drawn uniformly with replacement. Without it an epoch is one pass
    over the cases, in an order that each epoch draws anew.
    """

    cases: TrainingCases

    @property
    def pass_length(self) -> int:
        """The number of cases."""
        return len(self.cases.names)

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.plugins.parts.Sampler`."""
        cases, stage = self.cases, self.cases.stage
        case = self._case(epoch, index)
        rng = generator(Purpose.CROP, (*cases.seed_key, epoch, index))
        share, batch_size = stage.sampling.foreground_share, stage.batch_size
        forced = is_forced(rng, share, index % batch_size, batch_size)
        by_component = stage.sampling.balance == "component"
        size = cases.patch_size(case)

        def draw() -> Place:
            voxel = cases.draw_foreground(case, rng, by_component=by_component) if forced else None
            return Place(case, forced, voxel, crop_start(rng, cases.size(case), size, voxel, matrix), size)

        return full_enough(cases, draw)

    def _case(self, epoch: int, index: int) -> str:
        names, seed_key = self.cases.names, self.cases.seed_key
        if self.cases.stage.iterations_per_epoch is None:
            return names[order((*seed_key, epoch), len(names))[index % len(names)]]
        rng = generator(Purpose.CASE, (*seed_key, epoch, index))
        return names[int(rng.integers(len(names)))]


def is_forced(rng: np.random.Generator, share: float, position: int, batch_size: int) -> bool:
    """Whether this position of a batch must show foreground.

    Position i of a batch of B is forced unless ``i < round(B (1 - share))``. With B = 1 that would never (or
    always) force; here each sample is then forced with probability ``share``.
    """
    if batch_size == 1:
        return bool(rng.random() < share)
    return position >= round(batch_size * (1 - share))


def crop_start(
    rng: np.random.Generator,
    image_size: Sequence[int],
    patch_size: Sequence[int],
    voxel: Sequence[int] | None,
    matrix: np.ndarray | None,
) -> Voxel:
    """First voxel of a patch.

    For a voxel the patch has it in its middle, but is shifted to stay within the image where it fits
    (nnU-Net does so at the lower border only and pads at the upper one). Otherwise any place within the
    image is equally likely. An image smaller than the patch lies in its middle.

    Args:
        matrix: how the patch is turned and scaled, or None: the voxel stays visible then as well.
    """
    room = np.asarray(image_size) - np.asarray(patch_size)
    padded = geometry.centred_start(image_size, patch_size)
    if voxel is None:
        start = np.where(room >= 0, rng.integers(0, np.maximum(room, 0) + 1), padded)
        return geometry.as_voxel(start)
    centred = np.asarray(voxel) - np.asarray(patch_size) // 2
    start = np.where(room >= 0, np.clip(centred, 0, np.maximum(room, 0)), padded)
    if matrix is not None:
        return geometry.as_voxel(geometry.keep_inside(voxel, matrix, start, patch_size))
    return geometry.as_voxel(start)
