"""What a sampler decides: which case a patch is cut from, for which voxel, and where it begins.

A sampler is built from the plan alone, so that a plan can be checked without data. Bound to the cases of a stage it
gives the stage's places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from autoseg import plan
from autoseg.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.sampling.case_cache import CaseCache

Voxel = tuple[int, int, int]
Outside = Literal["zero", "minimum"]
"""What an image shows beyond its border: 0, or its least value, channel by channel."""


@dataclass(frozen=True)
class Place:
    """Where one patch is cut.

    Attributes:
        case: its name.
        forced: whether it had to show foreground.
        voxel: the foreground voxel z, y, x for which it was cut; None for a random place, also when a case without
            foreground was drawn for a forced sample.
        start: first voxel z, y, x of the unturned patch; may lie outside the image.
        size: of the patch z, y, x; 1 along z for a 2D network.
    """

    case: str
    forced: bool
    voxel: Voxel | None
    start: Voxel
    size: Voxel


class Places(Protocol):
    """The places of one stage. Each follows from the run's key, the epoch and the index alone."""

    @property
    def pass_length(self) -> int:
        """How many samples show everything once: the length of an epoch whose iterations the plan leaves open."""
        ...

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """The place of sample ``index`` of an epoch.

        Args:
            epoch, index: counted from 0; ``index`` over the epoch and over all devices.
            matrix: ``[3, 3]``, how the patch will be turned and scaled; None when it is not.
        """
        ...


class Sampler(Protocol):
    """Anything that says where patches are cut.

    Attributes:
        needs_lesions: whether cases without any lesion leave nothing to show.
    """

    needs_lesions: ClassVar[bool]

    @property
    def outside(self) -> Outside:
        """What lies beyond an image."""
        ...

    def places(
        self, names: Sequence[str], cases: CaseCache, stage: plan.Stage, seed_key: tuple[int, ...]
    ) -> Places:
        """Bind it to the cases of a stage.

        Args:
            names: of the training cases.
            cases: reads them.
            stage: patch size, batch size, iterations.
            seed_key: numbers that name the run.

        Raises:
            AutosegError: there is nothing that it could show.
        """
        ...


def checked_outside(value: str) -> Outside:
    """The setting ``outside`` of a sampler.

    Raises:
        AutosegError: a value that it does not have.
    """
    if value == "zero" or value == "minimum":
        return value
    raise AutosegError(
        "there is no such value beyond the image",
        where="sampling.arguments.outside",
        found=repr(value),
        expected="zero, or minimum (the least value of the volume)",
        fix="correct the arguments in the plan",
    )


def full_size(patch_size: Sequence[int], image_size: Voxel) -> Voxel:
    """Size z, y, x of a patch: one plane for a 2D network, the whole image for an empty patch size."""
    z, y, x = [1] * (3 - len(patch_size)) + list(patch_size) if patch_size else image_size
    return z, y, x


def as_voxel(values: Sequence[int] | np.ndarray) -> Voxel:
    """Three plain integers z, y, x."""
    z, y, x = (int(value) for value in values)
    return z, y, x
