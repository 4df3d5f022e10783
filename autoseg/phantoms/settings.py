"""The four published settings that phantoms imitate: grids, channels, lesion loads.

Sources: RatLesNetv2 (Valverde 2020) for rat_t2, EDD + MUSCLE (Chen 2017) for dwi, the ISLES 2017 challenge for
perfusion, ATLAS release 1 (Liew 2018) for t1. Lesion volumes are log-normal in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.errors import AutosegError, nearest_names

SMALLEST_SCALE = 0.125


@dataclass(frozen=True)
class ScanProtocol:
    """What one scanner is set to; each case draws one value of every tuple.

    Attributes:
        matrix: voxels in the plane, y, x.
        pixel_mm: spacing in the plane, the same along y and x.
        slices: numbers of slices.
        slice_mm: distances between slices.
    """

    matrix: tuple[int, int]
    pixel_mm: tuple[float, ...]
    slices: tuple[int, ...]
    slice_mm: tuple[float, ...]


@dataclass(frozen=True)
class PhantomLesions:
    """How much lesion a case has.

    Attributes:
        median_ml: of the total volume.
        sigma: of the natural logarithm of the total volume.
        limits_ml: smallest and largest total volume.
        extra: mean number of further foci beside the main one.
    """

    median_ml: float
    sigma: float
    limits_ml: tuple[float, float]
    extra: float


@dataclass(frozen=True)
class Setting:
    """One kind of phantom.

    Attributes:
        kind: as the user types it.
        number: of the dataset when the user gives none, and part of the random seed.
        dataset: its name.
        title: one line for people.
        channels: channel names as in dataset.json.
        protocols: of the scanners; each case draws one.
        load: how much lesion.
        sham_every: every so many cases one has no lesion; 0 means that all have one.
        shrink_slices: whether a scale shrinks z too; thick slices stay as they are, they are few.
    """

    kind: str
    number: int
    dataset: str
    title: str
    channels: tuple[str, ...]
    protocols: tuple[ScanProtocol, ...]
    load: PhantomLesions
    sham_every: int = 0
    shrink_slices: bool = False


SETTINGS = {
    setting.kind: setting
    for setting in (
        Setting(
            kind="rat_t2",
            number=911,
            dataset="PhantomRatT2",
            title="rat brain, T2, lesion in the right hemisphere, every sixth animal a sham",
            channels=("T2",),
            protocols=(ScanProtocol((256, 256), (0.1171875,), (18,), (1.0,)),),
            load=PhantomLesions(median_ml=0.05, sigma=0.7, limits_ml=(0.012, 0.16), extra=0.5),
            sham_every=6,
        ),
        Setting(
            kind="dwi",
            number=912,
            dataset="PhantomDWI",
            title="acute stroke, diffusion-weighted, two scanners, susceptibility artefacts",
            channels=("DWI",),
            protocols=(
                ScanProtocol((128, 128), (1.8,), (19, 20, 21, 22, 23), (6.0, 6.25, 6.5)),
                ScanProtocol((192, 192), (1.4,), (19, 20, 21, 22, 23), (6.0, 6.25, 6.5)),
            ),
            load=PhantomLesions(median_ml=9.0, sigma=1.4, limits_ml=(0.6, 140.0), extra=0.8),
        ),
        Setting(
            kind="perfusion",
            number=913,
            dataset="PhantomPerfusion",
            title="acute stroke, perfusion and diffusion maps, brain-extracted, label = final infarct",
            channels=("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"),
            protocols=(
                ScanProtocol((192, 192), (1.2, 1.25), (19, 21, 22, 23, 24, 25), (5.0, 6.0, 6.5, 7.0)),
                ScanProtocol((256, 256), (0.94,), (19, 21, 22, 23), (5.0, 6.0, 6.5)),
            ),
            load=PhantomLesions(median_ml=18.0, sigma=1.1, limits_ml=(1.5, 150.0), extra=1.0),
        ),
        Setting(
            kind="t1",
            number=914,
            dataset="PhantomT1",
            title="chronic stroke, T1, brain-extracted, 1 mm",
            channels=("T1",),
            protocols=(ScanProtocol((233, 197), (1.0,), (189,), (1.0,)),),
            load=PhantomLesions(median_ml=35.0, sigma=1.1, limits_ml=(1.0, 200.0), extra=0.6),
            shrink_slices=True,
        ),
    )
}
KINDS = tuple(SETTINGS)


def setting_of(kind: str) -> Setting:
    """The setting of this name.

    Raises:
        AutosegError: there is none.
    """
    if kind in SETTINGS:
        return SETTINGS[kind]
    raise AutosegError(
        f"there is no kind of phantom '{kind}'", expected=", ".join(KINDS), fix=nearest_names(kind, KINDS)
    )


def check_scale(scale: float) -> float:
    """The scale, when phantoms can be made with it.

    Raises:
        AutosegError: it is not between :data:`SMALLEST_SCALE` and 1.
    """
    if SMALLEST_SCALE <= scale <= 1:
        return float(scale)
    raise AutosegError(
        "phantoms cannot be made at this scale",
        found=scale,
        expected=f"{SMALLEST_SCALE} to 1; 1 is the published matrix size, 0.25 a quarter of it",
        fix="for example --scale 0.25",
    )


def check_seed(seed: int) -> int:
    """The seed, when it is one.

    Raises:
        AutosegError: it is negative.
    """
    if seed >= 0:
        return int(seed)
    raise AutosegError("the seed is negative", found=seed, expected="0 or more", fix="for example --seed 1")
