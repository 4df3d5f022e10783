"""What a dataset is: facts, no decisions. One record per case, a summary over all.

This module is the format; :mod:`autoseg.dataset.examine` measures. The summary follows from the records of the
cases alone, so that a case that has not changed need not be read again.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from autoseg.names import Name

FINGERPRINT_VERSION: Final = 1

FOREGROUND_PERCENTS = (
    *(0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, *map(float, range(2, 11)), 12.5, *map(float, range(15, 86, 5))),
    *(87.5, *map(float, range(90, 99)), 98.5, 99.0, 99.25, 99.5, 99.75, 99.9, 100.0),
)
"""The percentiles that a case keeps of its foreground; the dataset's are computed from them."""

MOST_CHANNELS = 1000
"""Of a case; what has more is a mistake."""

MODE_BIN = 16.0
"""Width of the bins in which the most frequent intensity is looked for."""


class Record(BaseModel):
    """A part of the fingerprint."""

    model_config = ConfigDict(extra="forbid")


class Intensities(Record):
    """Of one channel within one mask; the standard deviation is the population's.

    In a case, mean, std, min and max are exact; percentiles come from at most
    :data:`autoseg.dataset.examine.SAMPLE` evenly spread voxels. In the summary every case with foreground weighs
    the same, however large its lesions are, as in nnU-Net.

    Attributes:
        mean_absolute_deviation: about the mean of the case, exact; None in foreground.
        mode: the lower edge of the fullest of the bins of :data:`MODE_BIN`, bin 0 left out; None in foreground, and
            where no value lies above bin 0.
    """

    n_voxels: int
    mean: float
    std: float
    median: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float
    mean_absolute_deviation: float | None = None
    mode: float | None = None


class LesionLoad(Record):
    """Components (26-connected in 3D) of one class, or of all foreground.

    Attributes:
        component_voxels: largest first.
        centroid_share: centre of mass as a share of the image per axis (z, y, x), None when empty.
    """

    n_components: int
    component_voxels: list[int]
    volume_voxels: int
    volume_ml: float
    centroid_share: tuple[float, float, float] | None = None


class ChannelAppearance(Record):
    """What one channel of one case looks like (:mod:`autoseg.dataset.appearance`).

    Attributes:
        shading: how many times as bright the bright side of the head is as its dark side, by a smooth field; None where
            intensities are not all above 0.
        lesion_contrast: median of the lesions less that of the rest of the head, in standard deviations of the rest;
            below 0 where lesions are dark, None without lesions.
    """

    shading: float | None = None
    lesion_contrast: float | None = None


class CaseAppearance(Record):
    """What one case looks like; axis order z, y, x.

    Attributes:
        object_extent_mm: of the box around the head, without the air; None of an image of one value.
        object_share: of the voxels that belong to the head.
        channels: one entry each.
        correlations: rank correlation of each pair of channels in the head: 0 and 1, 0 and 2, ..., 1 and 2, ...
    """

    object_extent_mm: tuple[float, float, float] | None = None
    object_share: float
    channels: list[ChannelAppearance]
    correlations: list[float] = Field(default_factory=list)


class CaseFingerprint(Record):
    """The facts of one case; axis order z, y, x, in the orientation of the fingerprint.

    Attributes:
        content_hash: SHA-256 over the bytes of its files.
        orientation: of its files, such as ``LPS`` (see :mod:`autoseg.orientation`).
        nonzero_box: first and one-past-last index per axis of the voxels where any channel is not 0.
        brain: intensities per channel over the voxels where any channel is not 0.
        foreground: intensities per channel in the foreground; empty without foreground.
        foreground_percentiles: per channel, at :data:`FOREGROUND_PERCENTS`; empty without foreground.
        channel_hashes: per channel, over shape and pixels; equal ones are duplicates.
        background: per channel, the value of the image's eight corners where they agree, else None.
        everywhere: intensities per channel over all voxels; empty in records of an earlier autoseg.
        appearance: what it looks like; None in records of an earlier autoseg.
    """

    name: Name
    content_hash: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    extent_mm: tuple[float, float, float]
    orientation: str
    nonzero_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    shape_after_crop: tuple[int, int, int]
    relative_size_after_crop: float
    brain: list[Intensities]
    foreground: list[Intensities]
    lesions: LesionLoad
    classes: dict[str, LesionLoad]
    foreground_percentiles: list[list[float]] = Field(default_factory=list)
    channel_hashes: list[str] = Field(default_factory=list)
    background: list[float | None] = Field(default_factory=list)
    everywhere: list[Intensities] = Field(default_factory=list)
    appearance: CaseAppearance | None = None


class Quantiles(Record):
    """Of a quantity over cases or components; all None when there is nothing to measure."""

    n: int
    min: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    max: float | None = None
    mean: float | None = None


class DatasetSummary(Record):
    """Over all cases.

    Attributes:
        empty_share: share of cases without foreground.
        shape: three entries, z, y, x, before cropping; so are ``spacing_mm`` and ``extent_mm``.
        orientations: of the files, with the number of cases.
        lesions_per_case: number of components, over all cases.
        lesion_volume_ml: over all components of all cases; so is ``lesion_volume_voxels``.
        load_per_case_ml: foreground volume, over all cases, empty ones included.
        foreground: per channel; empty when no case has foreground.
    """

    n_cases: int
    empty_share: float
    median_relative_size_after_crop: float
    shape: list[Quantiles]
    spacing_mm: list[Quantiles]
    extent_mm: list[Quantiles]
    orientations: dict[str, int]
    lesions_per_case: Quantiles
    lesion_volume_ml: Quantiles
    lesion_volume_voxels: Quantiles
    load_per_case_ml: Quantiles
    foreground: list[Intensities]

    @property
    def slices_first(self) -> tuple[int, int, int]:
        """The file axes z, y, x with the one across the slices first; the others keep their order.

        It is the one with the largest spacing; that of single slices is the one along which no image has a second
        voxel.
        """
        single = [axis for axis, n in enumerate(self.shape) if n.max == 1]
        spacing = [entry.median or 1.0 for entry in self.spacing_mm]
        thick = spacing.index(max(spacing)) if max(spacing) > 1.01 * sorted(spacing)[1] else 0
        across = single[0] if len(single) == 1 else thick
        first, second = (axis for axis in range(3) if axis != across)
        return across, first, second


class Fingerprint(Record):
    """fingerprint.json.

    Attributes:
        content_hash: of the cases' names and content hashes and of dataset.json.
        cases: sorted by name.
        orientation: that of most cases; all facts are those of cases that are turned into it. None in a fingerprint of
            an earlier autoseg: those of cases as they are stored.
    """

    version: Literal[1] = FINGERPRINT_VERSION
    dataset: Name
    channel_names: list[str]
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None = None
    content_hash: str
    cases: list[CaseFingerprint]
    summary: DatasetSummary
    orientation: str | None = None
