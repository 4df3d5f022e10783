"""One crop of a case around its lesion: a cheap view of it to choose weights by.

The validation of 3D-ResU-Net during its training (Tomita et al. 2020, in the authors' code). Where the lesion lies is
known from the truth alone, so scores of such crops are too good for anything but comparing weights with each other.

Notation: ``c`` channels, ``z, y, x`` the working grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autoseg.plan import Inference, Stage
from autoseg.plugins.parts import Divisor
from autoseg.sampling.geometry import as_voxel
from autoseg.sampling.patches import cut
from autoseg.sampling.stage_cases import full_size


@dataclass(frozen=True)
class LesionCrop:
    """What is seen of a case.

    Attributes:
        image: ``[c, z, y, x]`` float32, the crop and the network's context around it.
        label: ``[z, y, x]``, the crop as far as it lies within the case.
        inference: predicts the crop in the middle of ``image``.
        inside: where the label lies in ``image``.
        has_lesion: whether it is centred on one.
    """

    image: torch.Tensor
    label: np.ndarray
    inference: Inference
    inside: tuple[slice, ...]
    has_lesion: bool


def crop_around_lesion(
    image: Any, label: np.ndarray, stage: Stage, inference: Inference, divisor: Divisor, ignore: int | None
) -> LesionCrop:
    """The crop of the stage's patch size that is centred on the lesion.

    Args:
        image: ``[c, z, y, x]``, can be sliced.
        label: ``[z, y, x]``.
        stage: its patch size and context.
        inference: of the plan.
        divisor: of the network.
        ignore: the label value that is no lesion.
    """
    size = full_size(stage.patch_size, as_voxel(label.shape), divisor)
    start, has_lesion = crop_start(label, size, ignore)
    inner = [min(n, edge) for n, edge in zip(size, label.shape, strict=True)]
    context = [0] * (3 - len(stage.context)) + list(stage.context)
    seen = tuple((a - c, a + n + c) for a, n, c in zip(start, inner, context, strict=True))
    dims = len(stage.patch_size) or 3
    return LesionCrop(
        image=torch.from_numpy(cut(image, seen, 0, np.float32)),
        label=label[tuple(slice(a, a + n) for a, n in zip(start, inner, strict=True))],
        inference=inference.model_copy(update={"patch_size": list(size[-dims:]), "tiles": "centre"}),
        inside=tuple(slice(c, c + n) for c, n in zip(context, inner, strict=True)),
        has_lesion=has_lesion,
    )


def crop_start(
    label: np.ndarray, size: Sequence[int], ignore: int | None
) -> tuple[tuple[int, int, int], bool]:
    """First voxel of the crop, and whether there is a lesion; the middle of the case without one.

    On each axis half a crop before the median of the lesion's coordinates, moved to lie within the case; 0 where the
    case is smaller than the crop.
    """
    room = np.maximum(np.subtract(label.shape, size), 0)
    lesion = np.argwhere((label > 0) & (label != ignore) if ignore is not None else label > 0)
    if not len(lesion):
        return as_voxel(room // 2), False
    wanted = np.median(lesion, axis=0).astype(int) - np.floor_divide(size, 2)
    return as_voxel(np.clip(wanted, 0, room)), True
