"""Patches around any voxel that counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoseg.errors import AutosegError
from autoseg.plugins.parts import Place, TrainingCases
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator


@dataclass
class CountedVoxels:
    """Each case has its turn; all of its voxels that count are equally likely to lie in the middle, with replacement.

    With a mask of the brain these are the voxels inside it. Patches may reach beyond the image. A pass is one patch of
    each case. Cases of which nothing counts are passed over.

    Args:
        cases: of the stage.

    Raises:
        AutosegError: nothing counts in any case.
    """

    cases: TrainingCases
    _voxels: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._names = [name for name in self.cases.names if len(self._of(name))]
        if not self._names:
            raise AutosegError(
                "no case has a voxel that counts",
                found=f"{len(self.cases.names)} cases",
                expected="voxels inside the mask",
                fix="check the mask of the plan (preprocessing.mask)",
            )

    @property
    def pass_length(self) -> int:
        """The cases."""
        return len(self._names)

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.plugins.parts.Sampler`."""
        case = self._names[index % len(self._names)]
        rng = generator(Purpose.CROP, (*self.cases.seed_key, epoch, index))
        voxels = self._of(case)
        at = np.unravel_index(int(voxels[rng.integers(len(voxels))]), self.cases.size(case))
        size = self.cases.patch_size(case)
        return Place(case, False, None, geometry.as_voxel(np.subtract(at, np.array(size) // 2)), size)

    def _of(self, case: str) -> np.ndarray:
        """The voxels of a case that count, numbered through the image."""
        case = self.cases.original(case)
        if case not in self._voxels:
            label = np.asarray(self.cases.arrays(case)[1][...])
            self._voxels[case] = np.flatnonzero(label >= 0).astype(np.int32)
        return self._voxels[case]
