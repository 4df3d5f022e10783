"""Fingerprints made of spacings and shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.fingerprint import (
    CaseFingerprint,
    DatasetSummary,
    Fingerprint,
    Intensities,
    LesionLoad,
    Quantiles,
)


def fingerprint(
    spacings: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
    *,
    channels: Sequence[str] = ("T1",),
    labels: dict | None = None,
    relative_size: float = 1.0,
    components: Sequence[Sequence[int]] | None = None,
    regions_class_order: list[int] | None = None,
) -> Fingerprint:
    """A fingerprint with the given geometry after cropping.

    Args:
        spacings, shapes: one entry per case; a single spacing stands for all.
        components: voxels of each lesion of each case; one lesion of 1000 voxels by default.
    """
    spacings = list(spacings) * len(shapes) if len(spacings) == 1 else list(spacings)
    components = components or [[1000]] * len(shapes)
    pairs = zip(spacings, shapes, components, strict=True)
    cases = [_case(i, s, n, c, len(channels), relative_size) for i, (s, n, c) in enumerate(pairs)]
    return Fingerprint(
        dataset="Dataset999_Test",
        channel_names=list(channels),
        labels=labels or {"background": 0, "lesion": 1},
        regions_class_order=regions_class_order,
        content_hash="0" * 64,
        cases=cases,
        summary=_summary(cases, len(channels), relative_size),
    )


def _case(index, spacing, shape, components, n_channels, relative_size) -> CaseFingerprint:
    ml = float(np.prod(spacing)) * sum(components) / 1000
    load = LesionLoad(
        n_components=len(components),
        component_voxels=list(components),
        volume_voxels=sum(components),
        volume_ml=ml,
        centroid_share=(0.5, 0.5, 0.5) if components else None,
    )
    return CaseFingerprint(
        name=f"case{index:03d}",
        content_hash=f"{index:064d}",
        spacing_mm=tuple(spacing),
        shape=tuple(shape),
        extent_mm=tuple(s * n for s, n in zip(spacing, shape, strict=True)),
        orientation="LPS",
        nonzero_box=tuple((0, n) for n in shape),
        shape_after_crop=tuple(shape),
        relative_size_after_crop=relative_size,
        brain=[_intensities()] * n_channels,
        foreground=[_intensities()] * n_channels,
        lesions=load,
        classes={"lesion": load},
    )


def _intensities() -> Intensities:
    return Intensities(
        n_voxels=1000, mean=40, std=20, median=38, min=-10, max=200, percentile_00_5=-5, percentile_99_5=150
    )


def _quantiles(values) -> Quantiles:
    if not len(values):
        return Quantiles(n=0)
    low, q25, median, q75, high = (float(q) for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return Quantiles(
        n=len(values), min=low, q25=q25, median=median, q75=q75, max=high, mean=float(np.mean(values))
    )


def _summary(cases, n_channels, relative_size) -> DatasetSummary:
    voxels = [v for case in cases for v in case.lesions.component_voxels]
    volumes = [v * np.prod(case.spacing_mm) / 1000 for case in cases for v in case.lesions.component_voxels]
    return DatasetSummary(
        n_cases=len(cases),
        empty_share=float(np.mean([not case.lesions.n_components for case in cases])),
        median_relative_size_after_crop=relative_size,
        shape=[_quantiles([case.shape[a] for case in cases]) for a in range(3)],
        spacing_mm=[_quantiles([case.spacing_mm[a] for case in cases]) for a in range(3)],
        extent_mm=[_quantiles([case.extent_mm[a] for case in cases]) for a in range(3)],
        orientations={"LPS": len(cases)},
        lesions_per_case=_quantiles([case.lesions.n_components for case in cases]),
        lesion_volume_ml=_quantiles(volumes),
        lesion_volume_voxels=_quantiles(voxels),
        load_per_case_ml=_quantiles([case.lesions.volume_ml for case in cases]),
        foreground=[_intensities()] * n_channels if voxels else [],
    )
