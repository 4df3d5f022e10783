"""What a dataset is: facts, no decisions. One record per case, a summary over all."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

FINGERPRINT_VERSION = 1


class Record(BaseModel):
    """A part of the fingerprint."""

    model_config = ConfigDict(extra="forbid")


class Intensities(Record):
    """Of one channel within one mask."""

    n_voxels: int
    mean: float
    std: float
    median: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class LesionLoad(Record):
    """Components (26-connected in 3D) of one class, or of all foreground.

    ``centroid_share`` is the centre of mass as a share of the image per axis, None when empty.
    """

    n_components: int
    component_voxels: list[int]
    volume_voxels: int
    volume_ml: float
    centroid_share: tuple[float, float, float] | None = None


class CaseFingerprint(Record):
    """The facts of one case; axis order z, y, x.

    Attributes:
        content_hash: SHA-256 over the bytes of its files.
        orientation: of the axes x, y, z as ITK names them, such as ``LPS``.
        nonzero_box: first and one-past-last index per axis of the voxels where any channel is not 0.
        brain: intensities per channel over the non-zero voxels.
        foreground: intensities per channel in the foreground; empty without foreground.
    """

    name: str
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


class Quantiles(Record):
    """Of a quantity over cases or components; all None when there is nothing to measure."""

    n: int
    min: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    max: float | None = None
    mean: float | None = None


class Summary(Record):
    """Over all cases."""

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


class Fingerprint(Record):
    """fingerprint.json."""

    version: Literal[1] = FINGERPRINT_VERSION
    dataset: str
    channel_names: list[str]
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None = None
    content_hash: str
    cases: list[CaseFingerprint]
    summary: Summary
