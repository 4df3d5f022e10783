"""What a prediction of one tile in the centre of each case never looks at. torch is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.messages import count_of, some_of
from autoseg.plan import Inference, Plan


@dataclass(frozen=True)
class BeyondCentre:
    """Label voxels of one case on the working grid.

    Attributes:
        name: of the case.
        lost: outside the tile.
        all: wherever they lie.
    """

    name: str
    lost: int
    all: int


def centre_box(shape: Sequence[int], inference: Inference) -> tuple[slice, ...]:
    """Where the tile lies in an image of ``shape`` (z, y, x); a 2D network sees all planes."""
    patch = ["whole"] * (3 - len(inference.patch_size)) + list(inference.patch_size)
    sizes = [n if size == "whole" else min(int(size), n) for n, size in zip(shape, patch, strict=True)]
    return tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(shape, sizes, strict=True))


def beyond_centre(
    plan: Plan, names: Iterable[str], label_of: Callable[[str], np.ndarray]
) -> list[BeyondCentre]:
    """The cases with a lesion, by their names; empty for a plan that predicts whole images.

    Args:
        plan: how cases are predicted.
        names: of the cases.
        label_of: gives the label ``[z, y, x]`` of a case on the working grid.
    """
    inference, found = plan.recipe.inference, []
    if inference.tiles != "centre":
        return []
    for name in names:
        label = label_of(name)
        lesion = (label > 0) & (label != (plan.label_set.ignore or 0))
        if n := int(lesion.sum()):
            inside = int(lesion[centre_box(label.shape, inference)].sum())
            found.append(BeyondCentre(name, n - inside, n))
    return found


def told(cases: Sequence[BeyondCentre]) -> str:
    """What is lost, in one sentence; empty where nothing is."""
    losing = sorted(
        (case for case in cases if case.lost), key=lambda case: (-case.lost / case.all, case.name)
    )
    if not losing:
        return ""
    n, total = sum(case.lost for case in losing), sum(case.all for case in cases)
    whole = sum(case.lost == case.all for case in losing)
    missed = f", the whole lesion in {whole}" if whole else ""
    worst = some_of([f"{case.name} ({case.lost} of {case.all})" for case in losing])
    lie = "lies" if n == 1 else "lie"
    return (
        f"{count_of(n, 'label voxel')} of {total} ({n / total:.2%}), in {len(losing)} of "
        f"{count_of(len(cases), 'case')} with lesions{missed}, {lie} outside the one tile in the "
        f"centre (inference.tiles=centre) and cannot be found: {worst}; inference.tiles=cover looks at all of the image"
    )
