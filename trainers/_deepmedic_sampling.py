"""Where DeepMedic cuts its segments: sub-epochs of a fixed number, half of them around lesion voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Place, SamplerPart, TrainingCases
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.voxel_weights import draw, summed

Dealt = list[tuple[str, bool]]
"""For each sample of a sub-epoch its case, and whether a lesion voxel lies in its middle."""


@dataclass
class SubEpochs:
    """Patches around lesion voxels and around background voxels that count, dealt out over the cases of a sub-epoch.

    Each sub-epoch takes up to ``subjects`` cases. Of its ``segments`` a share (``sampling.foreground_share``) is of
    lesion. Every case that has such voxels gets equally many patches of each kind, what is left over goes to cases
    drawn at random; then all are shuffled, and those that fill no batch are left out. Within a case all voxels of a
    kind are equally likely (or as ``sampling.weights`` says), with replacement, as long as the patch around them lies
    within the image. Background is what counts and is no lesion: with a mask of the brain, only its inside.

    Args:
        cases: of the stage.
        segments: of a sub-epoch.
        subjects: at most so many cases in each.

    Raises:
        AutosegError: fewer segments than a batch has.
    """

    cases: TrainingCases
    segments: int = 1000
    subjects: int = 50
    _voxels: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    _sums: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = field(default_factory=dict, repr=False)
    _last: tuple[tuple[int, int], Dealt] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        batch_size = self.cases.stage.batch_size
        if self.segments < batch_size:
            raise AutosegError(
                "a sub-epoch has fewer segments than a batch",
                found=f"sampling.arguments.segments {self.segments}, batch_size {batch_size}",
                fix="give it more segments, or make the batch smaller",
            )

    @property
    def pass_length(self) -> int:
        """The samples of a sub-epoch: those of its full batches."""
        batch_size = self.cases.stage.batch_size
        return self.segments // batch_size * batch_size

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.plugins.parts.Sampler`."""
        case, forced = self._dealt(epoch, index // self.pass_length)[index % self.pass_length]
        rng = generator(Purpose.CROP, (*self.cases.seed_key, epoch, index))
        kind = 0 if forced else 1
        voxels, sums = self._of(case)[kind], self._sums[self.cases.original(case)][kind]
        image, size = self.cases.size(case), self.cases.patch_size(case)
        voxel = geometry.as_voxel(
            np.array(np.unravel_index(int(voxels[draw(rng, len(voxels), sums)]), image))
        )
        start = np.where(
            np.less_equal(size, image),
            np.array(voxel) - np.array(size) // 2,
            geometry.centred_start(image, size),
        )
        if matrix is not None:
            start = np.asarray(geometry.keep_inside(voxel, matrix, start, size))
        return Place(
            case, forced, geometry.as_voxel(voxel) if forced else None, geometry.as_voxel(start), size
        )

    def _dealt(self, epoch: int, number: int) -> Dealt:
        """The samples of a sub-epoch in their order."""
        if self._last is None or self._last[0] != (epoch, number):
            self._last = (epoch, number), self._deal(epoch, number)
        return self._last[1]

    def _deal(self, epoch: int, number: int) -> Dealt:
        rng = generator(Purpose.CASE, (*self.cases.seed_key, epoch, number))
        names = self.cases.names
        if len(names) > self.subjects:
            names = tuple(names[i] for i in rng.choice(len(names), self.subjects, replace=False))
        able = [[name for name in names if len(self._of(name)[kind])] for kind in (0, 1)]
        if not any(able):
            raise AutosegError(
                "no case has a voxel around which a patch fits",
                found=f"{len(names)} cases, patch {list(self.cases.stage.patch_size)}",
                expected="voxels that count, with half a patch of image on each side",
                fix="choose a smaller patch_size, or check the mask of the brain",
            )
        n_lesion = round(self.segments * self.cases.stage.sampling.foreground_share)
        wanted = [n_lesion if able[1] else self.segments, self.segments - n_lesion]
        if not able[0]:
            wanted = [0, self.segments]
        dealt = [
            (name, kind == 0)
            for kind in (0, 1)
            for name, n in zip(able[kind], shared_out(rng, wanted[kind], len(able[kind])), strict=True)
            for _ in range(n)
        ]
        return [dealt[i] for i in rng.permutation(len(dealt))]

    def _of(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Lesion and background voxels of a case around which a patch fits, counted through the image."""
        case = self.cases.original(case)
        if case not in self._voxels:
            label = np.asarray(self.cases.arrays(case)[1])
            fits = np.zeros(label.shape, bool)
            fits[
                tuple(_middles(n, p) for n, p in zip(label.shape, self.cases.patch_size(case), strict=True))
            ] = True
            self._voxels[case] = np.flatnonzero((label > 0) & fits), np.flatnonzero((label == 0) & fits)
            weights = self.cases.voxel_weights(case) if self.cases.stage.sampling.weights else None
            lesion, background = (summed(weights, voxels) for voxels in self._voxels[case])
            self._sums[case] = lesion, background
            self._warn_of_little(case, int((label >= 0).sum()))
        return self._voxels[case]

    def _warn_of_little(self, case: str, counted: int) -> None:
        """A brain of fewer voxels than a patch is most likely a broken mask."""
        size = self.cases.patch_size(case)
        if counted < math.prod(size):
            messages.warn(
                f"{case}: only {counted} voxels count, fewer than the {math.prod(size)} of a patch; look at the image "
                "that its mask is taken from (preprocessing.mask), or take the case out of splits.json"
            )


def shared_out(rng: np.random.Generator, wanted: int, n: int) -> Sequence[int]:
    """How many each of n gets: equally many, and what is left over as it is drawn."""
    if not n:
        return []
    counts = np.full(n, wanted // n)
    np.add.at(counts, rng.integers(n, size=wanted % n), 1)
    return counts.tolist()


def _middles(n: int, patch: int) -> slice:
    """Where along an axis of n voxels the middle of a patch can lie; everywhere where none fits."""
    return slice(patch // 2, n - patch + patch // 2 + 1) if patch <= n else slice(None)


SAMPLERS = (
    SamplerPart(
        "sub_epochs",
        SubEpochs,
        needs_lesions=True,
        weighs=True,
        summary="patches around lesion and background voxels, dealt out over the cases (DeepMedic)",
    ),
)
