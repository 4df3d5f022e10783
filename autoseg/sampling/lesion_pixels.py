"""One patch for every pixel of every lesion.

The sampling of EDD Net (Chen, Bentley, Rueckert 2017, doi 10.1016/j.nicl.2017.06.016): each lesion pixel of each
training slice has one patch, in which it lies at a random place. There are no patches without a lesion; how often a
network sees background follows from the size of the patch.
"""

from __future__ import annotations

import numpy as np

from autoseg.errors import AutosegError
from autoseg.plan import Stage
from autoseg.plugins.parts import Place, TrainingCases
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.sampling.redraw import full_enough
from autoseg.sampling.stage_cases import turn_in_passes, whole_axes

ANYWHERE, CENTRE = "anywhere", "centre"
"""Where a patch may lie: so that the pixel is anywhere in it, or in the middle of the pixel's slice."""


def check_lesion_pixels(where: str = ANYWHERE) -> None:
    """Refuse a place that does not exist.

    Raises:
        AutosegError: it is another.
    """
    if where not in (ANYWHERE, CENTRE):
        raise AutosegError(
            "the sampling 'lesion_pixels' cuts no patch there",
            where="sampling.arguments.where",
            found=where,
            expected=f"{ANYWHERE} or {CENTRE}",
        )


class LesionPixels:
    """Every lesion pixel once, then all of them again in another order.

    With a number of iterations per epoch, an epoch goes on where the last one ended: no pixel is skipped or shown
    more often than another. Without it an epoch is one pass; the first pixels of its order fill the last batch.

    Args:
        cases: see :class:`autoseg.plugins.parts.TrainingCases`.
        where: ``anywhere``, so that a patch may lie partly outside the image; ``centre``: it lies in the middle of the
            slice of the pixel and shows all of the slice that it can, the pixel itself or not.

    Raises:
        AutosegError: no case has a lesion; another ``where``.
    """

    def __init__(self, cases: TrainingCases, where: str = ANYWHERE) -> None:
        check_lesion_pixels(where=where)
        self._cases, self._in_middle = cases, where == CENTRE
        self._pixels = [cases.foreground_voxels(name) for name in cases.names]
        self._whole = whole_axes(cases.stage.patch_size)
        self._ends = np.cumsum([len(pixels) for pixels in self._pixels])
        if not self.pass_length:
            raise no_lesion(cases.stage, len(cases.names))

    @property
    def pass_length(self) -> int:
        """Lesion pixels of all cases."""
        return int(self._ends[-1])

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.plugins.parts.Sampler`.

        The place of the pixel in the patch is uniform. A turned patch shows the pixel there as well, to within the
        rounding of its start to whole voxels. On an axis that takes the whole image, the image lies in its middle.
        """
        which, row = self._pixel(epoch, index)
        case = self._cases.names[which]
        voxel = geometry.as_voxel(self._pixels[which][row])
        size = self._cases.patch_size(case)
        rng = generator(Purpose.CROP, (*self._cases.seed_key, epoch, index))

        def draw() -> Place:
            start = geometry.start_that_shows(voxel, rng.integers(0, size), matrix, size)
            centred = np.array([False, True, True]) if self._in_middle else self._whole
            if any(centred):
                middle = geometry.centred_start(self._cases.size(case), size)
                start = geometry.as_voxel(np.where(centred, middle, start))
            return Place(case, True, voxel, start, size)

        return full_enough(self._cases, draw)

    def _pixel(self, epoch: int, index: int) -> tuple[int, int]:
        """Number of the case, and row of the pixel among those of the case."""
        n = self.pass_length
        number, turn = turn_in_passes(self._cases.stage, epoch, index, n)
        pixel = int(order((*self._cases.seed_key, number), n)[turn])
        which = int(np.searchsorted(self._ends, pixel, side="right"))
        return which, pixel - int(self._ends[which]) + len(self._pixels[which])


def no_lesion(stage: Stage, n_cases: int) -> AutosegError:
    """The error for a stage whose cases, ``n_cases`` of them, have nothing to show."""
    return AutosegError(
        f"no training case has a lesion, and the sampling '{stage.sampling.name}' shows nothing else",
        where=f"stage {stage.name}",
        found=f"no lesion voxel in its training cases, {n_cases} in all",
        expected="at least one lesion voxel in the training part of the fold",
        fix="check the masks and splits.json, or sample elsewhere too: "
        f"--set stages.{stage.name}.sampling.name=foreground_share",
    )
