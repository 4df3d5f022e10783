"""One patch for every pixel of every lesion.

The sampling of EDD Net (Chen, Bentley, Rueckert 2017, doi 10.1016/j.nicl.2017.06.016): each lesion pixel of each
training slice has one patch, in which it lies at a random place. There are no patches without a lesion; how often a
network sees background follows from the size of the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.sampling.places import Outside, Place, as_voxel, full_size

if TYPE_CHECKING:
    from autoseg.sampling.case_cache import CaseCache


@dataclass(frozen=True)
class LesionPixels:
    """The sampler.

    Attributes:
        outside: what lies beyond an image.
    """

    outside: Outside = "minimum"
    needs_lesions: ClassVar[bool] = True

    def places(
        self, names: Sequence[str], cases: CaseCache, stage: plan.Stage, seed_key: tuple[int, ...]
    ) -> LesionPlaces:
        """See :class:`autoseg.sampling.places.Sampler`."""
        return LesionPlaces(names, cases, stage, seed_key)


class LesionPlaces:
    """Every lesion pixel once, then all of them again in another order.

    With a number of iterations per epoch, an epoch goes on where the last one ended: no pixel is skipped or shown
    more often than another. Without it an epoch is one pass; the first pixels of its order fill the last batch.

    Args:
        names, cases, stage, seed_key: see :class:`autoseg.sampling.places.Sampler`.

    Raises:
        AutosegError: no case has a lesion.
    """

    def __init__(
        self, names: Sequence[str], cases: CaseCache, stage: plan.Stage, seed_key: tuple[int, ...]
    ) -> None:
        self._names, self._cases, self._stage, self._seed_key = names, cases, stage, seed_key
        self._pixels = [cases.foreground_voxels(name) for name in names]
        self._ends = np.cumsum([len(pixels) for pixels in self._pixels])
        if not self.pass_length:
            raise no_lesion(stage, len(names))

    @property
    def pass_length(self) -> int:
        """Lesion pixels of all cases."""
        return int(self._ends[-1])

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.sampling.places.Places`.

        The place of the pixel in the patch is uniform. A turned patch shows the pixel there as well, to within the
        rounding of its start to whole voxels.
        """
        which, row = self._pixel(epoch, index)
        case = self._names[which]
        voxel = as_voxel(self._pixels[which][row])
        size = full_size(self._stage.patch_size, self._cases.known(case).size)
        rng = generator(Purpose.CROP, (*self._seed_key, epoch, index))
        start = geometry.start_that_shows(voxel, rng.integers(0, size), matrix, size)
        return Place(case, True, voxel, start, size)

    def _pixel(self, epoch: int, index: int) -> tuple[int, int]:
        """Number of the case, and row of the pixel among those of the case."""
        iterations, n = self._stage.iterations_per_epoch, self.pass_length
        if iterations is None:
            number, place = epoch, index % n
        else:
            number, place = divmod(epoch * iterations * self._stage.batch_size + index, n)
        pixel = int(order((*self._seed_key, number), n)[place])
        which = int(np.searchsorted(self._ends, pixel, side="right"))
        return which, pixel - int(self._ends[which]) + len(self._pixels[which])


def no_lesion(stage: plan.Stage, n_cases: int) -> AutosegError:
    """The error for a stage whose cases, ``n_cases`` of them, have nothing to show."""
    return AutosegError(
        f"no training case has a lesion, and the sampling '{stage.sampling.name}' shows nothing else",
        where=f"stage {stage.name}",
        found=f"no lesion voxel in its training cases, {n_cases} in all",
        expected="at least one lesion voxel in the training part of the fold",
        fix="check the masks and splits.json, or sample elsewhere too: "
        f"--set stages.{stage.name}.sampling.name=foreground_share",
    )
