"""Sub-volumes of thin stacks.

The sampling of Brain SegNet (Hu et al. 2020, BMC Medical Imaging 20:17, and its authors' code): the depth in equal
parts and in the planes a crop that contains the whole lesion, or a crop around a voxel of the lesion as often as around
one of the background.

Notation: ``matrix`` as in :class:`autoseg.plugins.parts.Sampler`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from autoseg.errors import AutosegError
from autoseg.plugins.parts import Place, TrainingCases, Voxel
from autoseg.sampling import geometry
from autoseg.sampling.foreground_share import crop_start
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.sampling.stage_cases import turn_in_passes, whole_axes

Rule = Literal["around_lesion", "around_voxel"]
Epoch = Literal["one_per_scan", "all_subvolumes"]


class SubVolumes:
    """Some sub-volumes of each case in a pass; with a number of iterations, epochs go on where the last one ended.

    Args:
        cases: see :class:`autoseg.plugins.parts.TrainingCases`.
        rule: ``around_lesion`` (the paper): one of the equal parts of the depth, see :func:`depth_starts`, and in the
            planes any crop, each as likely, that shows all lesion voxels of these planes; one that shows one of them
            where they do not fit; any crop where there are none. ``around_voxel`` (the authors' code): in the middle
            lies a lesion voxel or a background voxel of the case, each of its kind as likely, as far as the crop then
            stays within the image.
        epoch: a pass has ``one_per_scan``, at a drawn depth, or ``all_subvolumes``: each of the parts of each case.
        lesion_share: of ``around_voxel``: of the samples, around the lesion.
    """

    def __init__(
        self,
        cases: TrainingCases,
        rule: Rule = "around_lesion",
        epoch: Epoch = "one_per_scan",
        lesion_share: float = 0.5,
    ) -> None:
        self._cases, self._rule, self._lesion_share = cases, rule, lesion_share
        self._whole = whole_axes(cases.stage.patch_size)
        self._lesions: dict[str, np.ndarray] = {}
        self._parts: list[tuple[str, int | None]] = [(name, None) for name in cases.names]
        if epoch == "all_subvolumes":
            self._parts = [(name, z) for name in cases.names for z in self._starts(name)]

    @property
    def pass_length(self) -> int:
        """Cases, or sub-volumes of all cases."""
        return len(self._parts)

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.plugins.parts.Sampler`.

        A crop that is turned or scaled in the planes shows the lesion as well, to within the rounding of its start to
        whole voxels.
        """
        case, z = self._part(epoch, index)
        rng = generator(Purpose.CROP, (*self._cases.seed_key, epoch, index))
        if self._rule == "around_voxel":
            return self._around_voxel(case, rng, matrix)
        starts = self._starts(case)
        z = starts[int(rng.integers(len(starts)))] if z is None else z
        return self._around_lesion(case, z, rng, matrix)

    def _part(self, epoch: int, index: int) -> tuple[str, int | None]:
        """The case, and where the sub-volume begins in depth when the pass says so."""
        n = self.pass_length
        number, turn = turn_in_passes(self._cases.stage, epoch, index, n)
        return self._parts[int(order((*self._cases.seed_key, number), n)[turn])]

    def _starts(self, case: str) -> list[int]:
        return depth_starts(self._cases.size(case)[0], self._cases.patch_size(case)[0])

    def _lesion(self, case: str) -> np.ndarray:
        """All lesion voxels ``[n, 3]``, sorted by z; found once, six bytes each."""
        if case not in self._lesions:
            self._lesions[case] = self._cases.foreground_voxels(case).astype(np.uint16)
        return self._lesions[case]

    def _around_lesion(self, case: str, z: int, rng: np.random.Generator, matrix: np.ndarray | None) -> Place:
        image, size = self._cases.size(case), self._cases.patch_size(case)
        voxels = self._lesion(case)
        first, last = np.searchsorted(voxels[:, 0], [max(z, 0), z + size[0]])
        voxels = voxels[first:last].astype(int)
        chosen = voxels[rng.integers(len(voxels))] if len(voxels) else None
        in_planes = None if matrix is None else matrix[1:, 1:]
        start = np.array([z, *crop_around(rng, voxels[:, 1:], chosen, image[1:], size[1:], in_planes)])
        start = np.where(self._whole, geometry.centred_start(image, size), start)
        voxel = None if chosen is None else geometry.as_voxel(chosen)
        return Place(case, voxel is not None, voxel, geometry.as_voxel(start), size)

    def _around_voxel(self, case: str, rng: np.random.Generator, matrix: np.ndarray | None) -> Place:
        image, size, lesion = self._cases.size(case), self._cases.patch_size(case), self._lesion(case)
        forced = bool(rng.random() < self._lesion_share)
        if forced and len(lesion):
            voxel = geometry.as_voxel(lesion[rng.integers(len(lesion))].astype(int))
        else:
            voxel = background_voxel(rng, lesion, image)
        shown = voxel if forced and len(lesion) else None
        return Place(case, forced, shown, crop_start(rng, image, size, voxel, matrix), size)


def depth_starts(size: int, part: int) -> list[int]:
    """First planes of equal parts that do not overlap; the last one is shifted to fit.

    Of a depth of 20 in parts of 7: 0, 7 and 13. A stack that is thinner lies in the middle of the one part.
    """
    if size < part:
        return [int(geometry.centred_start([size], [part])[0])]
    return [min(start, size - part) for start in range(0, size, part)]


def crop_around(
    rng: np.random.Generator,
    lesion: np.ndarray,
    chosen: np.ndarray | None,
    image_size: tuple[int, ...],
    patch_size: tuple[int, ...],
    matrix: np.ndarray | None,
) -> tuple[int, int]:
    """First voxel, y and x, of a crop within the image that shows all lesion voxels, each such crop as likely.

    Where they do not fit it shows ``chosen``, as near to its middle as the image allows. On an axis where the image is
    smaller than the crop it lies in the middle of it, unless lesion voxels would be lost.

    Args:
        lesion: ``[n, 2]``; none where the crop may lie anywhere.
        chosen: z, y, x of one of them; None without any.
        image_size, patch_size: y, x.
        matrix: ``[2, 2]``, from directions in the patch to directions in the image; None for neither turned nor scaled.
    """
    turn = np.eye(2) if matrix is None else matrix
    back, half = np.linalg.inv(turn), (np.asarray(patch_size) - 1) / 2
    low, high = _bounds(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * (np.asarray(image_size) - 1), back)
    middle = np.ceil((low + high) / 2 - half) + half  # as geometry.centred_start
    fits = high - low >= 2 * half
    low, high = np.where(fits, low + half, middle), np.where(fits, high - half, middle)
    if chosen is not None:
        first, last = _bounds(lesion, back)
        if (last - first > 2 * half).any():
            first = last = back @ chosen[1:]
            low = high = np.clip(first, low, high)
        least, most = last - half, first + half  # of the middle of a crop that shows them all
        low, high = np.clip(low, least, most), np.clip(high, least, most)
    # whole numbers of voxels are equally likely where the patch is neither turned nor scaled
    slack = 0.5 if matrix is None else 0.0
    drawn = low - slack + rng.random(2) * (high - low + 2 * slack)
    y, x = (math.floor(n + 0.5) for n in (turn @ drawn - half).tolist())
    return y, x


def background_voxel(rng: np.random.Generator, lesion: np.ndarray, image_size: Voxel) -> Voxel:
    """A voxel that is none of the lesion's, each as likely; any voxel where there is no other.

    Args:
        lesion: ``[n, 3]``, each voxel once, in the order of z, y, x.
        image_size: z, y, x.
    """
    taken = np.ravel_multi_index(tuple(lesion.astype(np.int64).T), image_size)
    free = math.prod(image_size) - len(taken)
    if not free:
        return geometry.as_voxel(np.array(np.unravel_index(rng.integers(len(taken)), image_size)))
    number = int(rng.integers(free))
    before = int(np.searchsorted(taken - np.arange(len(taken)), number, side="right"))
    return geometry.as_voxel(np.array(np.unravel_index(number + before, image_size)))


def check_sub_volumes(
    rule: Rule = "around_lesion", epoch: Epoch = "one_per_scan", lesion_share: float = 0.5
) -> None:
    """Refuse what is no share."""
    if not 0 <= lesion_share <= 1:
        raise AutosegError(
            "the sampling 'sub_volumes' cannot work with its arguments",
            where="sampling.arguments.lesion_share",
            found=f"{lesion_share:g}",
            expected="from 0 to 1",
            fix="correct the arguments in the plan",
        )


def _bounds(points: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest coordinates of points ``[n, 2]`` of the image in the directions of the patch."""
    seen = points @ back.T
    return seen.min(0), seen.max(0)
