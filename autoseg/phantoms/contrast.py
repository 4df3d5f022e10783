"""What each modality makes of a brain with lesions: contrast, artefacts, noise.

Each function takes ``(random, grid, side, load)`` and returns an image ``[c, z, y, x]`` and the lesion. ``load`` is
None for an animal or a patient without a lesion. Levels were chosen after statistics of datasets of the four
settings: tissue, fluid, lesion over tissue, and noise over tissue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoseg.phantoms import anatomy as brains
from autoseg.phantoms import lesion_shapes
from autoseg.phantoms.fields import Grid, blob, inside, rician, smooth_field
from autoseg.phantoms.lesion_shapes import Lesion
from autoseg.phantoms.settings import PhantomLesions

HUMAN_BOX_MM = ((-84, -100, -80), (80, 100, 80))
Streams = dict[str, np.random.Generator]
"""Independent random numbers for anatomy, lesion, contrast and noise."""


def _lesion(
    random: Streams,
    grid: Grid,
    anatomy: brains.Anatomy,
    load: PhantomLesions | None,
    side: int,
    *,
    halo: float = 1.0,
    animal: bool = False,
) -> Lesion:
    if load is None:
        return lesion_shapes.none(grid)
    focus = lesion_shapes.rat_focus if animal else lesion_shapes.human_focus
    return lesion_shapes.grow(random["lesion"], grid, anatomy, load, focus, side=side, halo=halo)


def _padded(part: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The whole volume, with zeros around the part."""
    whole = np.zeros(shape, part.dtype)
    whole[box] = part
    return whole


def _paint(image: np.ndarray, share: np.ndarray, lesion_image: np.ndarray | float) -> None:
    """Replace tissue by lesion, in place."""
    image += share * (lesion_image - image)


# ------------------------------------------------------------------------------------------------- rat T2


def rat_t2(random: Streams, grid: Grid, load: PhantomLesions | None) -> tuple[np.ndarray, np.ndarray]:
    """T2 of a rat's head: bright fluid, bright lesion on the right, dark skull, muscle, surface coil."""
    draw, extent = random["contrast"], brains.RAT_EXTENT_MM
    anatomy = brains.rat(random["anatomy"], grid)
    lesion = _lesion(random, grid, anatomy, load, side=1, animal=True)
    level = draw.uniform(4600, 5400)
    texture = 1 + np.float32(0.03) * smooth_field(draw, grid, 0.5, extent)
    texture += np.float32(0.05) * smooth_field(draw, grid, 1.6, extent)
    image = anatomy.mix(white=0.80, grey=1.0, csf=draw.uniform(1.45, 1.75)) * texture
    bright = draw.uniform(1.30, 1.58)
    inner = bright + np.float32(0.11) * smooth_field(draw, grid, 0.7, extent)
    _paint(image, lesion.share, inner * anatomy.brain)
    image += _rat_head(draw, grid, anatomy)
    z, y, x = grid.coordinates()
    coil = np.exp(np.float32(draw.uniform(0.03, 0.07)) * y + np.float32(draw.normal(0, 0.015)) * x)
    coil = coil * np.exp(np.float32(-0.5 / draw.uniform(8, 11) ** 2) * np.square(z))
    coil = coil * (1 + np.float32(0.07) * smooth_field(draw, grid, 5.0, extent))
    image *= coil * np.float32(level)
    image = rician(random["noise"], image, draw.uniform(90, 190))
    return image[None], lesion.mask


def _rat_head(draw: np.random.Generator, grid: Grid, anatomy: brains.Anatomy) -> np.ndarray:
    """Muscle and skin around a dark skull; skin and marrow have bright spots."""
    out = -anatomy.depth_mm + np.float32(0.15) * smooth_field(draw, grid, 1.5, brains.RAT_EXTENT_MM)
    skull, thick = draw.uniform(0.45, 0.75), draw.uniform(1.2, 2.2)
    edge = grid.edge_mm * 0.6
    ring = inside(out - np.float32(skull + thick), edge) - inside(out - np.float32(skull), edge)
    flesh = 0.42 + np.float32(0.10) * smooth_field(draw, grid, 0.8, brains.RAT_EXTENT_MM)
    return np.clip(ring, 0, 1) * np.clip(flesh, 0.15, 1.2)


# --------------------------------------------------------------------------------------------------- DWI


class _Artefact(NamedTuple):
    """Air beside the brain: where (z, y, x in mm), how wide, how strong."""

    centre: tuple[float, float, float]
    width_mm: float
    strength: float


def dwi(random: Streams, whole: Grid, load: PhantomLesions | None) -> tuple[np.ndarray, np.ndarray]:
    """Diffusion-weighted: bright lesions, dark fluid; near air the brain is bent, dark here, bright there."""
    draw, extent = random["contrast"], brains.HUMAN_EXTENT_MM
    grid, box = whole.within(*HUMAN_BOX_MM)
    artefacts = _artefacts(draw)
    points = grid.coordinates()
    pull = sum(np.float32(6 * a.strength) * blob(points, a.centre, 1.3 * a.width_mm) for a in artefacts)
    anatomy = brains.human(random["anatomy"], grid, pull)
    side = 1 if random["lesion"].random() < 0.5 else -1
    lesion = _lesion(random, grid, anatomy, load, side)
    image = anatomy.mix(white=0.87, grey=1.06, csf=draw.uniform(0.3, 0.5))
    image *= 1 + np.float32(0.05) * smooth_field(draw, grid, 11.0, extent)
    image *= 1 + np.float32(draw.uniform(0.03, 0.2)) * _shine_through(draw, grid, anatomy)
    bright = draw.uniform(1.35, 2.0) + np.float32(0.16) * smooth_field(draw, grid, 6.0, extent)
    _paint(image, lesion.share, bright * anatomy.brain)
    image *= _dropout_and_pile_up(draw, grid, artefacts)
    image *= 1 + np.float32(0.08) * smooth_field(draw, grid, 50.0, extent)
    level = draw.uniform(265, 345)
    signal = _padded(image, box, whole.shape) * np.float32(level)
    signal *= 1 + np.float32(0.02) * (np.arange(whole.shape[0]) % 2)[:, None, None].astype(np.float32)
    signal += np.float32(draw.uniform(0, 0.035)) * np.roll(signal, whole.shape[1] // 2, axis=1)  # ghost
    signal = rician(random["noise"], signal, draw.uniform(8, 21))
    return signal[None], _padded(lesion.mask, box, whole.shape)


def _artefacts(draw: np.random.Generator) -> list[_Artefact]:
    """Frontal sinus and both ear canals, each of its own strength; some hardly show."""
    places = ((-10, 68, draw.normal(0, 8)), (-28, -8, 50), (-28, -8, -50))
    return [
        _Artefact(
            (z + draw.normal(0, 5), y + draw.normal(0, 6), x), draw.uniform(7, 13), draw.uniform(0.1, 1)
        )
        for z, y, x in places
    ]


def _dropout_and_pile_up(draw: np.random.Generator, grid: Grid, artefacts: list[_Artefact]) -> np.ndarray:
    """Signal is lost at the air and piles up behind it along the phase-encoding axis y."""
    points = grid.coordinates()
    factor = np.ones(grid.shape, np.float32)
    for artefact in artefacts:
        z, y, x = artefact.centre
        behind = (z + 4, y - np.sign(y) * artefact.width_mm * 1.6, x * 0.93)
        factor *= 1 - np.float32(0.9 * artefact.strength) * blob(points, artefact.centre, artefact.width_mm)
        pile = draw.uniform(0.3, 1.1) * artefact.strength
        factor += np.float32(pile) * blob(points, behind, 0.55 * artefact.width_mm)
    return factor


def _shine_through(draw: np.random.Generator, grid: Grid, anatomy: brains.Anatomy) -> np.ndarray:
    """Old white-matter change, mildly bright and patchy, deep in both hemispheres."""
    deep = inside(np.float32(22) - anatomy.depth_mm, 12.0)
    patches = np.clip(smooth_field(draw, grid, 9.0, brains.HUMAN_EXTENT_MM) - 0.5, 0, 1.5)
    return deep * patches


# --------------------------------------------------------------------------------------------- perfusion


class _Map(NamedTuple):
    """Levels of one perfusion map."""

    white: float
    grey: float
    csf: float
    core: float  # in the lesion
    at_risk: float  # around it
    blotches: float  # slow variation over tissue, standard deviation
    noise: float


MAPS = {
    "ADC": _Map(745, 790, 2150, 585, 735, 25, 44),
    "MTT": _Map(535, 485, 480, 950, 760, 90, 55),
    "rCBF": _Map(320, 590, 380, 150, 300, 50, 45),
    "rCBV": _Map(215, 400, 300, 130, 330, 35, 36),
    "Tmax": _Map(170, 150, 160, 850, 660, 35, 36),
    "TTP": _Map(2030, 1985, 2000, 2680, 2430, 120, 72),
}


def perfusion(random: Streams, whole: Grid, load: PhantomLesions | None) -> tuple[np.ndarray, np.ndarray]:
    """Six maps, zero outside the brain; delay and flow show more than the final infarct, ADC about as much."""
    draw = random["contrast"]
    grid, box = whole.within(*HUMAN_BOX_MM)
    anatomy = brains.human(random["anatomy"], grid)
    side = 1 if random["lesion"].random() < 0.5 else -1
    lesion = _lesion(random, grid, anatomy, load, side, halo=float(draw.uniform(1.2, 2.6)))
    support = anatomy.depth_mm > 1
    holes = (anatomy.csf > 0.9) & (smooth_field(draw, grid, 5.0, brains.HUMAN_EXTENT_MM) > 1.2)
    channels = []
    for levels in MAPS.values():
        severity = draw.uniform(0.65, 1.1)
        image = _perfusion_map(draw, random["noise"], grid, anatomy, lesion, levels, severity)
        image[~support | holes] = 0
        channels.append(_padded(image, box, whole.shape))
    return np.stack(channels), _padded(lesion.mask & support, box, whole.shape)


def _perfusion_map(
    draw: np.random.Generator,
    noise: np.random.Generator,
    grid: Grid,
    anatomy: brains.Anatomy,
    lesion: Lesion,
    levels: _Map,
    severity: float,
) -> np.ndarray:
    image = anatomy.mix(levels.white, levels.grey, levels.csf)
    tissue = (levels.white + levels.grey) / 2
    texture = 1 + np.float32(0.18) * smooth_field(draw, grid, 6.0, brains.HUMAN_EXTENT_MM)
    for share, level in ((lesion.halo_share, levels.at_risk), (lesion.share, levels.core)):
        wanted = max(tissue + (level - tissue) * severity, 0.2 * tissue)
        _paint(image, share, np.float32(wanted) * texture)
    image += np.float32(levels.blotches) * smooth_field(draw, grid, 7.0, brains.HUMAN_EXTENT_MM)
    image += np.float32(levels.noise) * noise.standard_normal(grid.shape, dtype=np.float32)
    return np.maximum(image, 1, out=image)  # 0 is kept for what is outside


# ---------------------------------------------------------------------------------------------------- T1


def t1(random: Streams, whole: Grid, load: PhantomLesions | None) -> tuple[np.ndarray, np.ndarray]:
    """T1 without skull: white over grey over fluid; an old lesion is dark, from grey to fluid-like."""
    draw, extent = random["contrast"], brains.HUMAN_EXTENT_MM
    grid, box = whole.within(*HUMAN_BOX_MM)
    anatomy = brains.human(random["anatomy"], grid)
    side = 1 if random["lesion"].random() < 0.5 else -1
    lesion = _lesion(random, grid, anatomy, load, side)
    image = anatomy.mix(white=204, grey=146, csf=draw.uniform(18, 40))
    image += anatomy.brain * np.float32(4) * smooth_field(draw, grid, 6.0, extent)
    dark = draw.uniform(45, 118) + np.float32(10) * smooth_field(draw, grid, 5.5, extent)
    _paint(image, lesion.share, dark * anatomy.brain)
    image *= 1 + np.float32(0.05) * smooth_field(draw, grid, 55.0, extent)
    image = rician(random["noise"], image, draw.uniform(4.5, 7.5))
    image[anatomy.depth_mm < 0.8] = 0
    np.clip(image, 0, 255, out=image)
    return _padded(image, box, whole.shape)[None], _padded(
        lesion.mask & (anatomy.depth_mm >= 0.8), box, whole.shape
    )


MAKERS = {"rat_t2": rat_t2, "dwi": dwi, "perfusion": perfusion, "t1": t1}
