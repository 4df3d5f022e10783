"""Which patch of which case a sample is, and cutting it.

Notation: ``[c, z, y, x]`` images, ``[z, y, x]`` labels on the working grid. A 2D network's patch is a plane of
the first axis; it is cut with one voxel along z, which is dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autoseg import plan
from autoseg.registry import Registry
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.sampling.lesion_pixels import LesionPixels
from autoseg.sampling.parameters import Parameters, tuples
from autoseg.sampling.places import Outside, Place, Sampler, Voxel, as_voxel, checked_outside, full_size

if TYPE_CHECKING:
    from autoseg.sampling.case_cache import CaseCache

OUTSIDE = -1
"""The label beyond the image, and beyond the non-zero mask where the store says so."""

SMALL = 128 * 128
"""Patches of a 2D network with up to so many pixels are cut alike for every angle: a batch is then turned at once."""


@dataclass(frozen=True)
class Sample:
    """One entry of a batch, in numbers: enough to make it again.

    Attributes:
        epoch, index: the place in the run; ``index`` counts over the epoch and over all devices.
        case: its name.
        forced: whether it had to show foreground.
        voxel: the foreground voxel z, y, x for which it was cut; None for a random place, also when a case
            without foreground was drawn for a forced sample.
        start: first voxel z, y, x of the unturned patch; may lie outside the image.
        size: of the patch z, y, x; 1 along z for a 2D network.
        parameters: what is done to it.
    """

    epoch: int
    index: int
    case: str
    forced: bool
    voxel: Voxel | None
    start: Voxel
    size: Voxel
    parameters: Parameters

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sample:
        """The opposite of :meth:`to_dict`, also after a way through JSON."""
        plain = {name: tuples(value) for name, value in content.items() if name != "parameters"}
        return cls(**plain, parameters=Parameters.from_dict(content["parameters"]))


class Foreground:
    """Foreground voxels of one case by class, for drawing.

    Args:
        rows: int ``[n, 5]``: z, y, x, label value, component.
        classes: for each class (or region) the label values that belong to it.
    """

    def __init__(self, rows: np.ndarray, classes: Sequence[Sequence[int]]) -> None:
        rows = np.asarray(rows, np.int32).reshape(-1, 5)
        members = [rows[np.isin(rows[:, 3], list(values))] for values in classes]
        self._voxels: list[np.ndarray] = []
        self._bounds: list[np.ndarray] = []  # where each component of the class begins, and the end
        for found in members:
            if len(found):
                found = found[np.lexsort((found[:, 4], found[:, 3]))]
                changes = np.flatnonzero((np.diff(found[:, 3:], axis=0) != 0).any(axis=1)) + 1
                self._voxels.append(found[:, :3])
                self._bounds.append(np.array([0, *changes, len(found)]))

    @property
    def is_empty(self) -> bool:
        """Whether the case has no foreground at all."""
        return not self._voxels

    def draw(self, rng: np.random.Generator, *, by_component: bool) -> Voxel:
        """A voxel: a class that the case has, then a voxel of it, or a component of it and then its voxel."""
        which = int(rng.integers(len(self._voxels)))
        voxels, bounds = self._voxels[which], self._bounds[which]
        first, last = 0, len(voxels)
        if by_component:
            component = int(rng.integers(len(bounds) - 1))
            first, last = bounds[component], bounds[component + 1]
        z, y, x = voxels[int(rng.integers(first, last))]
        return int(z), int(y), int(x)


@dataclass(frozen=True)
class ForegroundShare:
    """nnU-Net's rule: the last samples of every batch are cut for a foreground voxel.

    Position i of a batch of B is forced unless ``i < round(B (1 - share))``. With B = 1 that would never (or
    always) force; here each sample is then forced with probability ``share``.
    """

    share: float
    balance: str
    outside: Outside = "zero"
    needs_lesions: ClassVar[bool] = False

    def places(
        self, names: Sequence[str], cases: CaseCache, stage: plan.Stage, seed_key: tuple[int, ...]
    ) -> ForegroundPlaces:
        """See :class:`autoseg.sampling.places.Sampler`."""
        return ForegroundPlaces(self, names, cases, stage, seed_key)

    def forced(self, rng: np.random.Generator, position: int, batch_size: int) -> bool:
        """See the class."""
        if batch_size == 1:
            return bool(rng.random() < self.share)
        return position >= round(batch_size * (1 - self.share))

    def voxel(self, rng: np.random.Generator, foreground: Foreground) -> Voxel | None:
        """See the class; None for a case without foreground."""
        if foreground.is_empty:
            return None
        return foreground.draw(rng, by_component=self.balance == "component")


@dataclass(frozen=True)
class ForegroundPlaces:
    """The places of :class:`ForegroundShare`.

    With a number of iterations per epoch, cases are drawn uniformly with replacement. Without it an epoch is one pass
    over the cases, in an order that each epoch draws anew.
    """

    sampler: ForegroundShare
    names: Sequence[str]
    cases: CaseCache
    stage: plan.Stage
    seed_key: tuple[int, ...]

    @property
    def pass_length(self) -> int:
        """The number of cases."""
        return len(self.names)

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """See :class:`autoseg.sampling.places.Places`."""
        case, batch_size = self._case(epoch, index), self.stage.batch_size
        rng = generator(Purpose.CROP, (*self.seed_key, epoch, index))
        forced = self.sampler.forced(rng, index % batch_size, batch_size)
        known = self.cases.known(case)
        voxel = self.sampler.voxel(rng, known.foreground) if forced else None
        size = full_size(self.stage.patch_size, known.size)
        return Place(case, forced, voxel, crop_start(rng, known.size, size, voxel, matrix), size)

    def _case(self, epoch: int, index: int) -> str:
        if self.stage.iterations_per_epoch is None:
            return self.names[order((*self.seed_key, epoch), len(self.names))[index % len(self.names)]]
        rng = generator(Purpose.CASE, (*self.seed_key, epoch, index))
        return self.names[int(rng.integers(len(self.names)))]


SAMPLERS = Registry("sampler")
"""Builders of a :class:`autoseg.sampling.places.Sampler` from the plan's ``foreground_share``, ``balance`` (which a
sampler need not use) and its ``arguments``."""


@SAMPLERS.register("foreground_share")
def _foreground_share(foreground_share: float, balance: str, outside: str = "zero") -> ForegroundShare:
    return ForegroundShare(foreground_share, balance, checked_outside(outside))


@SAMPLERS.register("lesion_pixels")
def _lesion_pixels(foreground_share: float, balance: str, outside: str = "minimum") -> LesionPixels:
    return LesionPixels(checked_outside(outside))


def build_sampler(spec: plan.Sampling) -> Sampler:
    """The sampler that a stage's plan names.

    Raises:
        AutosegError: an unknown sampler, or arguments that it does not have.
    """
    shared = {"foreground_share": spec.foreground_share, "balance": spec.balance}
    return SAMPLERS.build(spec.name, **shared, **spec.arguments)


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
    padded = -((-room) // 2)  # where the patch begins on an axis on which the image is smaller
    if voxel is None:
        start = np.where(room >= 0, rng.integers(0, np.maximum(room, 0) + 1), padded)
        return as_voxel(start)
    centred = np.asarray(voxel) - np.asarray(patch_size) // 2
    start = np.where(room >= 0, np.clip(centred, 0, np.maximum(room, 0)), padded)
    if matrix is not None:
        return as_voxel(geometry.keep_inside(voxel, matrix, start, patch_size))
    return as_voxel(start)


@dataclass(frozen=True)
class Patch:
    """What a backend works on: the cut-out voxels and what to do with them.

    Attributes:
        image: float32 ``[c, z, y, x]`` (``[c, y, x]`` for a 2D network), larger than the patch when it is turned.
        label: small integers, the same space; beyond the image :data:`OUTSIDE`, or 0 where the sampler says so.
        centre: the middle of the patch in the voxels of ``image``.
        size: of the patch, 2 or 3 numbers.
        values: the label values that occur, sorted; known only when voxels are interpolated.
        parameters: what to do.
        case: for messages.
    """

    image: np.ndarray
    label: np.ndarray
    centre: tuple[float, ...]
    size: tuple[int, ...]
    values: tuple[int, ...]
    parameters: Parameters
    case: str

    @property
    def matrix(self) -> np.ndarray | None:
        """From patch to image directions, or None when no voxel is interpolated."""
        return geometry.affine(self.parameters, len(self.size)) if self.parameters.is_spatial else None


def cut_patch(
    sample: Sample,
    image: Any,
    label: Any,
    *,
    dims: int,
    beyond: np.ndarray | None = None,
    pinned: bool = False,
) -> Patch:
    """Cut the voxels that a sample needs.

    Args:
        image, label: ``[c, z, y, x]`` and ``[z, y, x]``; anything that can be sliced, in memory or on disk.
        dims: 2 drops the axis z of the cut.
        beyond: per channel the value beyond the image, ``[c]``. The label there is background, so that channels
            which are 0 outside the non-zero mask keep the value too. None: 0 and :data:`OUTSIDE`.
        pinned: allocate page-locked memory for large patches, from which CUDA copies while the program goes on.
    """
    box = _box(sample, image.shape[1:], dims)
    pinned = pinned and math.prod(sample.size) > SMALL  # small ones are put together first
    middle = [a + (n - 1) / 2 for a, n in zip(sample.start, sample.size, strict=True)]
    fill, outside = (0, OUTSIDE) if beyond is None else (beyond[:, None, None, None], 0)
    cut_image = cut(image, box, fill, np.float32, pinned=pinned)
    cut_label = cut(label, box, outside, label.dtype, pinned=pinned)
    if dims == 2:
        cut_image, cut_label = cut_image[:, 0], cut_label[0]
    return Patch(
        image=cut_image,
        label=cut_label,
        centre=tuple(m - low for m, (low, _) in zip(middle, box, strict=True))[-dims:],
        size=sample.size[-dims:],
        values=present(cut_label) if sample.parameters.is_spatial else (),
        parameters=sample.parameters,
        case=sample.case,
    )


def _box(sample: Sample, image_size: Sequence[int], dims: int) -> geometry.Box:
    """The voxels that a sample needs; of a small plane more than that."""
    start, size, drawn = sample.start, sample.size, sample.parameters
    if not drawn.is_spatial:
        return tuple((a, a + n) for a, n in zip(start, size, strict=True))
    if dims == 2 and drawn.scale is None and math.prod(size) <= SMALL:
        return geometry.box_for_any_angle(start, size)
    return geometry.source_box(affine_of(drawn, dims), start, size, image_size)


def affine_of(parameters: Parameters, dims: int) -> np.ndarray | None:
    """As :func:`geometry.affine`, but always ``[3, 3]``: a plane of z stays in its plane. None without change."""
    if not parameters.is_spatial:
        return None
    matrix = np.eye(3)
    matrix[-dims:, -dims:] = geometry.affine(parameters, dims)
    return matrix


def cut(
    array: Any, box: geometry.Box, fill: int | np.ndarray, dtype: Any, *, pinned: bool = False
) -> np.ndarray:
    """A copy of the box over the last axes of ``array``, ``fill`` (as it broadcasts) where it lies outside."""
    shape = array.shape[len(array.shape) - len(box) :]
    inner = [(max(low, 0), min(high, n)) for (low, high), n in zip(box, shape, strict=True)]
    leading = tuple(array.shape[: len(array.shape) - len(box)])
    result = _empty((*leading, *(high - low for low, high in box)), dtype, pinned)
    if inner != list(box):
        result[...] = fill
    if all(low < high for low, high in inner):
        source = (Ellipsis, *(slice(low, high) for low, high in inner))
        target = (Ellipsis, *(slice(a - o, b - o) for (a, b), (o, _) in zip(inner, box, strict=True)))
        result[target] = array[source]
    return result


def _empty(shape: tuple[int, ...], dtype: Any, pinned: bool) -> np.ndarray:
    if not pinned:
        return np.empty(shape, dtype)
    import torch

    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()


def present(label: np.ndarray) -> tuple[int, ...]:
    """The values that occur in a label, sorted; none may be below -1."""
    low, high = int(label.min()), int(label.max())
    if high - low < 16:  # a few comparisons are faster than counting
        return tuple(value for value in range(low, high + 1) if (label == value).any())
    counts = np.bincount(label.ravel().astype(np.intp) - OUTSIDE)
    return tuple(int(value) + OUTSIDE for value in np.flatnonzero(counts))
