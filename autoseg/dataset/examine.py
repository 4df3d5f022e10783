"""The fingerprint's measurements: one pass over the files, in which they are checked as well."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from autoseg import messages
from autoseg.dataset import physical_sense
from autoseg.dataset.appearance import appearance
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import read_geometry
from autoseg.dataset.integrity import (
    Loaded,
    check_case,
    check_layout,
    duplicate_faults,
    emptiness_faults,
    hash_case,
)
from autoseg.dataset.intensities import most_frequent
from autoseg.dataset.raw_layout import Case, RawDataset
from autoseg.dataset.text_header import hash_image
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import hash_json
from autoseg.fingerprint import (
    FOREGROUND_PERCENTS,
    MODE_BIN,
    CaseFingerprint,
    DatasetSummary,
    Fingerprint,
    Intensities,
    LesionLoad,
    Quantiles,
)
from autoseg.orientation import described, most_frequent_orientation
from autoseg.parallel import each

SAMPLE = 250_000
"""Percentiles of a case come from at most this many voxels, evenly spread."""
POOLED_SAMPLE = 1_000_000
"""Percentiles of the dataset come from about this many points, the same number for each case."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class _MeasureTask:
    case: Case
    info: DatasetJson
    orientation: str | None
    known: CaseFingerprint | None


def extract_fingerprint(
    raw: RawDataset, processes: int = 1, previous: Fingerprint | None = None
) -> Fingerprint:
    """Check every file of a dataset and measure it, in one pass.

    All cases are measured in the orientation in which most of them are stored.

    Args:
        raw: the dataset.
        processes: how many cases are read at a time, each in a process of its own; 1 stays in this one.
        previous: an earlier fingerprint; records of cases whose files have not changed are taken from it.

    Raises:
        FaultsError: with all faults of all cases.
        AutosegError: a worker process died; it names the cases that were being read.
    """
    faults = check_layout(raw)
    orientation = _chosen_orientation(raw)
    known = _reusable(raw.info, orientation, previous)
    tasks = [_MeasureTask(case, raw.info, orientation, known.get(case.name)) for case in raw.cases]
    results = dict(each(_examine, tasks, processes, name_of=lambda task: task.case.name, doing="checking"))
    records = []
    for i in range(len(tasks)):
        record, found = results[i]
        faults += found
        records += [record] if record else []
    faults += _voxel_faults(records, raw)
    faults += duplicate_faults({record.name: record.channel_hashes for record in records}, raw)
    if len(records) == len(raw.cases):
        faults += emptiness_faults(record.lesions.volume_voxels for record in records)
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise FaultsError(f"{raw.name}: {len(faults)} fault{plural} in the raw data ({raw.folder})", faults)
    for text in physical_sense.unlikely(records):
        messages.warn(text)
    if len(records) == 1:
        messages.warn(f"{raw.name} has one case only: it can be planned for, but not divided into folds")
    return _assemble(raw, records, orientation)


def _chosen_orientation(raw: RawDataset) -> str | None:
    """That of most cases by the headers of their first images; mixed ones are said. None where no header is read."""
    found = {}
    for case in raw.cases:
        with contextlib.suppress(AutosegError, IndexError):  # the check says what is wrong
            found[case.name] = read_geometry(case.images[0]).orientation
    if len(set(found.values())) > 1:
        messages.warn(
            f"{raw.name}: images are stored in different orientations: {described(found)}. They are measured in "
            "the first one, and a plan turns all into it, without interpolation, and predicted masks back. Where the "
            "scans were made alike, look at a few: a header may be wrong"
        )
    return most_frequent_orientation(found.values())


def _voxel_faults(records: Iterable[CaseFingerprint], raw: RawDataset) -> list[Fault]:
    """Of cases whose headers cannot be right."""
    files = {case.name: case.images[0] for case in raw.cases}
    found = (physical_sense.voxel_fault(r.name, r.spacing_mm, r.shape, files[r.name]) for r in records)
    return [fault for fault in found if fault is not None]


def _reusable(
    info: DatasetJson, orientation: str | None, previous: Fingerprint | None
) -> dict[str, CaseFingerprint]:
    """Records of an earlier fingerprint that hold for cases whose files are the same, in the same orientation."""
    if previous is None or list(info.channel_names.values()) != previous.channel_names:
        return {}
    if (info.labels, info.regions_class_order) != (previous.labels, previous.regions_class_order):
        return {}
    return {
        record.name: record
        for record in previous.cases
        if record.everywhere
        and record.appearance
        and (previous.orientation or record.orientation) == orientation
    }


def _examine(task: _MeasureTask) -> tuple[CaseFingerprint | None, list[Fault]]:
    """Check and measure one case; what a worker process does."""
    if task.known is not None and hash_files(task.case) == task.known.content_hash:
        return task.known, []
    loaded, faults = check_case(task.case, task.info, task.orientation)
    return (measure_case(loaded, task.info) if loaded else None), faults


def hash_files(case: Case) -> str | None:
    """The content hash of a case, without a look at what its files hold; None where one cannot be read."""
    paths = [*case.images, *([case.mask] if case.mask else [])]
    try:
        return hash_case([hash_image(path) for path in paths])
    except (OSError, AutosegError):
        return None  # the check says what is wrong


def _assemble(raw: RawDataset, records: list[CaseFingerprint], orientation: str | None) -> Fingerprint:
    info = raw.info
    cases = {record.name: record.content_hash for record in records}
    return Fingerprint(
        dataset=raw.name,
        channel_names=list(info.channel_names.values()),
        labels=info.labels,
        regions_class_order=info.regions_class_order,
        content_hash=hash_json({"cases": cases, "dataset.json": info.model_dump(mode="json")}),
        cases=records,
        summary=summarise_dataset(records),
        orientation=orientation,
    )


# ---------------------------------------------------------------------------------------------------- a case


def measure_case(case: Loaded, info: DatasetJson) -> CaseFingerprint:
    """The facts of one case."""
    geometry = case.geometry
    brain = functools.reduce(np.logical_or, (channel != 0 for channel in case.image))
    box = bounding_box(brain) or ((0, 0), (0, 0), (0, 0))
    z, y, x = (stop - start for start, stop in box)
    foreground = info.label_set.foreground(case.mask)
    intensities, percentiles = _foreground(case.image, foreground)
    in_brain = [_intensities(channel, brain) for channel in case.image]
    everywhere = [_intensities(channel, np.ones_like(brain)) for channel in case.image]
    voxel_ml = geometry.voxel_ml
    inside = tuple(slice(*pair) for pair in bounding_box(foreground) or ((0, 0),) * 3)
    starts, label = tuple(part.start for part in inside), case.mask[inside]
    return CaseFingerprint(
        name=case.name,
        content_hash=case.content_hash,
        spacing_mm=geometry.spacing_mm,
        shape=geometry.shape,
        extent_mm=geometry.extent_mm,
        orientation=case.orientation,
        nonzero_box=box,
        shape_after_crop=(z, y, x),
        relative_size_after_crop=z * y * x / math.prod(geometry.shape),
        brain=in_brain,
        foreground=intensities,
        lesions=lesion_load(foreground[inside], starts, geometry.shape, voxel_ml),
        classes={
            name: lesion_load(mask, starts, geometry.shape, voxel_ml)
            for name, mask in info.label_set.masks(label).items()
        },
        foreground_percentiles=percentiles,
        channel_hashes=case.channel_hashes,
        background=[_corner_value(channel) for channel in case.image],
        everywhere=everywhere,
        appearance=appearance(case.image, foreground, geometry),
    )


def _corner_value(channel: np.ndarray) -> float | None:
    """The value of all eight corners of ``[z, y, x]``; None where they differ."""
    corners = channel[
        :: max(1, channel.shape[0] - 1), :: max(1, channel.shape[1] - 1), :: max(1, channel.shape[2] - 1)
    ]
    first = corners.flat[0]
    return float(first) if (corners == first).all() else None


def bounding_box(mask: np.ndarray) -> Box | None:
    """First and one-past-last index per axis of the True voxels of ``[z, y, x]``; None when there is none."""
    plane = np.any(mask, axis=0)
    lines = (np.any(mask, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0))
    where = [np.flatnonzero(line) for line in lines]
    if not where[0].size:
        return None
    z, y, x = ((int(found[0]), int(found[-1]) + 1) for found in where)
    return z, y, x


def lesion_load(mask: np.ndarray, starts: Sequence[int], shape: Sequence[int], voxel_ml: float) -> LesionLoad:
    """Components and volume of a mask that was cut out of an image.

    Args:
        mask: boolean ``[z, y, x]``.
        starts: where it was cut out, in voxels.
        shape: of the whole image.
        voxel_ml: volume of a voxel.
    """
    n_voxels = int(np.count_nonzero(mask))
    if not n_voxels:
        return LesionLoad(n_components=0, component_voxels=[], volume_voxels=0, volume_ml=0.0)
    components = cc3d.connected_components(np.ascontiguousarray(mask, np.uint8), connectivity=26)
    sizes = np.sort(np.bincount(components.ravel())[1:])[::-1]
    centre = []
    for axis in range(3):
        profile = mask.sum(tuple({0, 1, 2} - {axis}))
        middle = starts[axis] + 0.5 + float(profile @ np.arange(mask.shape[axis])) / n_voxels
        centre.append(_short(middle / shape[axis]))
    z, y, x = centre
    return LesionLoad(
        n_components=len(sizes),
        component_voxels=sizes.tolist(),
        volume_voxels=n_voxels,
        volume_ml=n_voxels * voxel_ml,
        centroid_share=(z, y, x),
    )


def _intensities(channel: np.ndarray, mask: np.ndarray) -> Intensities:
    """Of one channel ``[z, y, x]`` within a mask of the same shape, without a copy of the whole."""
    n, mean, std, low, high = _moments(_planes(channel, mask))
    step = sample_step(channel.size)
    sample = channel.reshape(-1)[::step][mask.reshape(-1)[::step]]
    if not sample.size:  # very few voxels
        sample = channel[mask]
    p_low, median, p_high = np.percentile(sample, (0.5, 50, 99.5))
    record = _record(n, mean, std, (low, p_low, median, p_high, high))
    record.mean_absolute_deviation = _short(_absolute_deviation(_planes(channel, mask), mean))
    record.mode = most_frequent(_planes(channel, mask), MODE_BIN)
    return record


def _planes(channel: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    for plane, inside in zip(channel, mask, strict=True):
        values = plane.reshape(-1) if inside.all() else plane[inside]
        if values.size:
            yield values


def _moments(parts: Iterable[np.ndarray]) -> tuple[int, float, float, float, float]:
    """Number, mean, standard deviation, minimum and maximum of values that come in parts.

    Sums are float64 and taken about the first part's mean, so that a large mean costs no digits.
    """
    n, total, squares, low, high, about = 0, 0.0, 0.0, math.inf, -math.inf, None
    for part in parts:
        values = part.astype(np.float64)
        about = float(values.mean()) if about is None else about
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        values -= about
        n, total, squares = n + values.size, total + float(values.sum()), squares + float(values @ values)
    if about is None:
        return 0, 0.0, 0.0, 0.0, 0.0
    return n, about + total / n, math.sqrt(max(squares / n - (total / n) ** 2, 0.0)), low, high


def _absolute_deviation(parts: Iterable[np.ndarray], mean: float) -> float:
    """The mean distance from ``mean`` of values that come in parts; 0 of none."""
    n, total = 0, 0.0
    for part in parts:
        n, total = n + part.size, total + float(np.abs(part.astype(np.float64) - mean).sum())
    return total / n if n else 0.0


def sample_step(n_voxels: int) -> int:
    """The step that leaves about :data:`SAMPLE` of so many voxels and falls into step with no axis."""
    step = max(1, n_voxels // SAMPLE)
    while math.gcd(step, n_voxels) > 1:
        step += 1
    return step


def _foreground(image: np.ndarray, mask: np.ndarray) -> tuple[list[Intensities], list[list[float]]]:
    """Per channel: intensities and percentiles within the mask; two empty lists when it is empty."""
    index = np.flatnonzero(mask)
    if not index.size:
        return [], []
    records, percentiles = [], []
    for channel in image:
        values = channel.reshape(-1)[index]
        sample = values[:: max(1, -(-values.size // SAMPLE))]
        at = np.percentile(sample, FOREGROUND_PERCENTS)
        five = (values.min(), *np.interp((0.5, 50, 99.5), FOREGROUND_PERCENTS, at), values.max())
        n, mean, std, *_ = _moments([values])
        records.append(_record(n, mean, std, five))
        percentiles.append([_short(value) for value in at])
    return records, percentiles


def _record(n: int, mean: float, std: float, five: Sequence[float]) -> Intensities:
    """The record of a mask; ``five`` is minimum, 0.5th percentile, median, 99.5th percentile, maximum."""
    low, p_low, median, p_high, high = map(_short, five)
    return Intensities(
        n_voxels=n,
        mean=_short(mean),
        std=_short(std),
        median=median,
        min=low,
        max=high,
        percentile_00_5=p_low,
        percentile_99_5=p_high,
    )


def _short(value: float) -> float:
    """Seven digits: what a float32 holds."""
    return float(f"{value:.7g}")


# ----------------------------------------------------------------------------------------------- the summary


def summarise_dataset(cases: Sequence[CaseFingerprint]) -> DatasetSummary:
    """The summary that follows from the records of at least one case."""
    voxel_ml = [math.prod(case.spacing_mm) / 1000 for case in cases]
    components = [
        (n, ml) for case, ml in zip(cases, voxel_ml, strict=True) for n in case.lesions.component_voxels
    ]
    return DatasetSummary(
        n_cases=len(cases),
        empty_share=sum(case.lesions.volume_voxels == 0 for case in cases) / len(cases),
        median_relative_size_after_crop=float(np.median([case.relative_size_after_crop for case in cases])),
        shape=_per_axis(case.shape for case in cases),
        spacing_mm=_per_axis(case.spacing_mm for case in cases),
        extent_mm=_per_axis(case.extent_mm for case in cases),
        orientations=dict(sorted(Counter(case.orientation for case in cases).items())),
        lesions_per_case=quantiles([case.lesions.n_components for case in cases]),
        lesion_volume_ml=quantiles([n * ml for n, ml in components]),
        lesion_volume_voxels=quantiles([n for n, _ in components]),
        load_per_case_ml=quantiles([case.lesions.volume_ml for case in cases]),
        foreground=_pooled([case for case in cases if case.foreground]),
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    """Number, quartiles, extremes and mean; None for all but the number when there is no value."""
    if not values:
        return Quantiles(n=0)
    low, q25, median, q75, high = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
    mean = float(np.mean(values))
    return Quantiles(n=len(values), min=low, q25=q25, median=median, q75=q75, max=high, mean=mean)


def _per_axis(rows: Iterable[Sequence[float]]) -> list[Quantiles]:
    return [quantiles(list(values)) for values in zip(*rows, strict=True)]


def _pooled(cases: Sequence[CaseFingerprint]) -> list[Intensities]:
    """Per channel: the foreground of all cases together, in which every case weighs the same."""
    if not cases:
        return []
    return [
        _pooled_channel([c.foreground[k] for c in cases], [c.foreground_percentiles[k] for c in cases])
        for k in range(len(cases[0].foreground))
    ]


def _pooled_channel(records: Sequence[Intensities], percentiles: Sequence[Sequence[float]]) -> Intensities:
    means = np.array([record.mean for record in records])
    mean = float(means.mean())
    variance = float(np.mean([record.std**2 for record in records]) + np.mean((means - mean) ** 2))
    n_points = min(10_000, max(200, POOLED_SAMPLE // len(records)))
    at = 100 * (np.arange(n_points) + 0.5) / n_points
    points = np.concatenate([np.interp(at, FOREGROUND_PERCENTS, case) for case in percentiles])
    inner = np.percentile(points, (0.5, 50, 99.5))
    extremes = min(record.min for record in records), max(record.max for record in records)
    n_voxels = sum(record.n_voxels for record in records)
    return _record(n_voxels, mean, math.sqrt(variance), (extremes[0], *inner, extremes[1]))
