"""One phantom: which grid, which brain, which lesion. Case i depends on (seed, kind, i) and the scale alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import AutosegError
from autoseg.phantoms.contrast import MAKERS
from autoseg.phantoms.fields import Grid
from autoseg.phantoms.settings import Setting, check_scale, check_seed, setting_of

STREAMS = ("protocol", "anatomy", "lesion", "contrast", "noise")


@dataclass(frozen=True)
class PhantomCase:
    """A synthetic case.

    Attributes:
        name: such as ``phantom_rat_t2_000``.
        image: float32 ``[c, z, y, x]``, whole numbers as scanners store them.
        mask: uint8 ``[z, y, x]``, 1 in the lesion.
        spacing_mm: z, y, x.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]


def case_name(kind: str, index: int) -> str:
    """How the files of a case begin; says that it is synthetic."""
    return f"phantom_{kind}_{index:03d}"


def make_case(kind: str, index: int, seed: int = 0, scale: float = 1.0) -> PhantomCase:
    """Make one phantom.

    A smaller scale keeps the field of view and the brain and makes voxels larger: in the plane for thick slices,
    along all axes for isotropic voxels (t1).

    Args:
        kind: rat_t2, dwi, perfusion or t1.
        index: of the case, from 0.
        seed: of the dataset.
        scale: matrix size over the published one, 0.125 to 1.

    Raises:
        AutosegError: one of them is out of its range.
    """
    setting, scale, seed = setting_of(kind), check_scale(scale), check_seed(seed)
    if index < 0:
        raise AutosegError("the index of a phantom is negative", found=index, expected="0 or more")
    root = np.random.SeedSequence([seed, setting.number, index])
    random = {
        name: np.random.Generator(np.random.PCG64(child))
        for name, child in zip(STREAMS, root.spawn(len(STREAMS)), strict=True)
    }
    shape, spacing_mm = draw_grid(setting, random["protocol"], scale)
    sham = setting.sham_every and index % setting.sham_every == setting.sham_every - 1
    load = None if sham else setting.load
    image, mask = MAKERS[kind](random, Grid.centred(shape, spacing_mm), load)
    return PhantomCase(
        name=case_name(kind, index),
        image=np.rint(image).astype(np.float32, copy=False),
        mask=mask.astype(np.uint8),
        spacing_mm=spacing_mm,
    )


def draw_grid(
    setting: Setting, random: np.random.Generator, scale: float
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and spacing in mm (z, y, x) of a case: one of the published ones, then scaled."""
    protocol = setting.protocols[random.integers(len(setting.protocols))]
    pixel_mm = protocol.pixel_mm[random.integers(len(protocol.pixel_mm))]
    slices = protocol.slices[random.integers(len(protocol.slices))]
    slice_mm = protocol.slice_mm[random.integers(len(protocol.slice_mm))]
    full = (slices, *protocol.matrix)
    spacing = (slice_mm, pixel_mm, pixel_mm)
    scales = (scale if setting.shrink_slices else 1.0, scale, scale)
    z, y, x = (round(n * s) for n, s in zip(full, scales, strict=True))
    sz, sy, sx = (mm * (n / m) for mm, n, m in zip(spacing, full, (z, y, x), strict=True))
    return (z, y, x), (sz, sy, sx)
