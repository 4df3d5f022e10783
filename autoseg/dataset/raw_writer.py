"""Writes a raw dataset from what a converter describes: every file checked, whole or not at all.

Images keep their pixels, type and geometry: a 3D ``.nii.gz`` file is copied byte for byte. Only where a converter says
so, and the grid differs, an image is resampled onto that of another. Beside the images and masks there are
``dataset.json``, ``groups.csv`` (a column ``case`` and the converter's own), ``splits.json`` where the source
defines folds, and ``conversion.csv``, which says what became of each case and why.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg import messages, parallel
from autoseg.dataset.conversion import Conversion, LeftOut, MergedMask, SourceCase, Volume
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.folds import write_folds
from autoseg.dataset.imageio import (
    Geometry,
    HeaderForms,
    ImageFile,
    as_labels,
    differences,
    read_image,
    write_image,
    write_mask,
)
from autoseg.dataset.mask_values import WHOLE_TOLERANCE
from autoseg.dataset.nifti import over_volumes, take_volume
from autoseg.dataset.raw_layout import refuse_taken_number
from autoseg.dataset.regrid import put_onto
from autoseg.dataset.subjects import GROUPS
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import (
    csv_text,
    exclusive,
    read_json,
    replace_folder,
    validate,
    write_bytes,
    write_error,
    write_json,
    write_text,
)
from autoseg.labels import LabelSet
from autoseg.messages import count_of, some_of
from autoseg.names import EXPECTED, is_name, shown
from autoseg.paths import LONGEST_NUMBER
from autoseg.version import __version__

ENDING = ".nii.gz"
SPLITS = "splits.json"
WHAT_BECAME = "conversion.csv"
MADE_BY = "converted"
"""The entry of dataset.json that says how the dataset was made."""
UNCOVERED_SHARE = 0.05
"""A resampled image that leaves out more than this share of the grid is warned of."""

_LOCK = ".lock"


@dataclass(frozen=True)
class Converted:
    """What was written: the dataset's folder; how many training and test cases, folds, and cases that were left out."""

    folder: Path
    n_training: int
    n_test: int
    n_folds: int
    n_left_out: int = 0


# ------------------------------------------------------------------------------------------------- the target


def dataset_folder_name(wanted: str, name: str) -> str:
    """``DatasetNNN_Name`` from what the user gave.

    Args:
        wanted: a number such as ``21``, or a whole name such as ``Dataset021_RatT2``.
        name: goes with a number.

    Raises:
        AutosegError: it is neither.
    """
    if wanted.isdecimal() and len(wanted) <= LONGEST_NUMBER and int(wanted) > 0:
        return f"Dataset{int(wanted):03d}_{name}"
    if re.fullmatch(r"Dataset\d{3,}_.+", wanted) and is_name(wanted):
        return wanted
    raise AutosegError(
        f"'{wanted}' does not name a dataset",
        expected=f"a number such as 21, which makes Dataset021_{name}, or a whole name such as Dataset021_{name}",
        fix="give one of these with -d",
    )


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to give one number to two datasets, and to replace anything but an earlier conversion.

    Raises:
        AutosegError: the number or the folder is taken.
    """
    refuse_taken_number(target, "-d")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if overwrite and not _was_converted(target):
        raise AutosegError(
            "the dataset is there and was not made by autoseg_convert, so it is never overwritten",
            where=str(target),
            fix="choose another number or name with -d, or move it away yourself",
        )
    if not overwrite:
        raise AutosegError(
            "the dataset is there already",
            where=str(target),
            expected="a new dataset",
            fix="choose another number or name with -d, or replace it with --overwrite",
        )


def _was_converted(target: Path) -> bool:
    if not (target / "dataset.json").is_file():
        return False
    content = read_json(target / "dataset.json")
    return isinstance(content, dict) and MADE_BY in content


# ------------------------------------------------------------------------------------------------ the dataset


def write_dataset(
    conversion: Conversion,
    target: Path,
    *,
    made_by: Mapping[str, Any],
    processes: int = 1,
    overwrite: bool = False,
    ignore_mask_headers: bool = False,
    leave_out_faulty: bool = False,
) -> Converted:
    """Write a described dataset; it appears at ``target`` when everything in it is written and without fault.

    Args:
        conversion: of a converter.
        target: ``RAW/DatasetNNN_Name``.
        made_by: the format and its options, for dataset.json.
        processes: that read and write cases at the same time.
        overwrite: replace an earlier conversion.
        ignore_mask_headers: masks lie voxel by voxel on the grid of their images, whatever their headers say; only
            the shapes must agree.
        leave_out_faulty: a case with a fault is left out with a warning, instead of ending the whole. For sources
            without folds.

    Raises:
        AutosegError: the target is taken or cannot be written to; another process is converting it.
        FaultsError: with all faults of all cases; nothing is left behind.
    """
    check_target(target, overwrite)
    info = _describe(conversion, made_by)
    _refuse_bad_names(conversion)
    half_made = target.with_name(f".converting-{target.name}")
    with exclusive(half_made / _LOCK, doing=f"converting {target.name}"):
        try:
            _make_folders(half_made, conversion.cases)
            conversion = _write_cases(
                conversion,
                half_made,
                info.label_set,
                processes,
                ignore_mask_headers,
                leave_out_faulty and not conversion.folds,
            )
            info = _describe(conversion, made_by)
            _write_tables(conversion, half_made)
            write_json(half_made / "dataset.json", info.model_dump(exclude_none=True))
            (half_made / _LOCK).unlink(missing_ok=True)
            replace_folder(half_made, target)
        finally:
            shutil.rmtree(half_made, ignore_errors=True)
    n_test = sum(case.test for case in conversion.cases)
    n_left_out = len(conversion.left_out)
    return Converted(target, len(conversion.cases) - n_test, n_test, len(conversion.folds), n_left_out)


def _describe(conversion: Conversion, made_by: Mapping[str, Any]) -> DatasetJson:
    order = conversion.regions_class_order
    content = {
        **conversion.notes,
        "channel_names": {str(i): name for i, name in enumerate(conversion.channel_names)},
        "labels": dict(conversion.labels),
        "regions_class_order": list(order) if order else None,
        "numTraining": sum(not case.test for case in conversion.cases),
        "file_ending": ENDING,
        MADE_BY: {**made_by, "autoseg_version": __version__},
    }
    return validate(content, DatasetJson, where=f"what the converter says of {conversion.root}")


def _refuse_bad_names(conversion: Conversion) -> None:
    """Names come from the folders of the source, so what is wrong with them is the user's to see."""
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for case in conversion.cases:
        where = _shown(case.images[0], conversion.root)
        if not is_name(case.name):
            problem = "no name for a case follows from it"
            faults.append(Fault(where, problem, shown(case.name), EXPECTED, "rename it"))
        elif (other := seen.setdefault(case.name.casefold(), where)) != where:
            faults.append(
                Fault(where, "the same case name twice", case.name, f"not that of {other}", "rename one")
            )
    if faults:
        raise FaultsError(f"{conversion.root}: {count_of(len(faults), 'case')} cannot be named", faults)


def _make_folders(folder: Path, cases: Sequence[SourceCase]) -> None:
    """Empty folders; what a killed conversion left is removed."""
    try:
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()
        for part in sorted({_part(case) for case in cases}):
            (folder / f"images{part}").mkdir()
            (folder / f"labels{part}").mkdir()
    except OSError as error:
        raise write_error(folder, error) from error


def _write_tables(conversion: Conversion, folder: Path) -> None:
    """conversion.csv; groups.csv and splits.json, where the source has what goes into them."""
    _write_what_became(conversion, folder)
    columns = list(dict.fromkeys(column for case in conversion.cases for column in case.groups))
    if columns:
        cases = sorted(conversion.cases, key=lambda case: case.name)
        rows = [[case.name, *(case.groups.get(column, "") for column in columns)] for case in cases]
        write_text(folder / GROUPS, csv_text([["case", *columns], *rows]))
    if conversion.folds:
        write_folds(folder / SPLITS, conversion.folds)


def _write_what_became(conversion: Conversion, folder: Path) -> None:
    """Every case of the source: what it became, or why it was left out, and from which files."""
    rows: list[list[str]] = []
    for case in conversion.cases:
        mask = case.mask.volumes if isinstance(case.mask, MergedMask) else [case.mask] if case.mask else []
        images, masks = (
            " ".join(_shown(volume, conversion.root) for volume in volumes) for volumes in (case.images, mask)
        )
        rows.append([case.name, "test case" if case.test else "training case", "", images, masks])
    rows += [[one.name, "left out", one.why, "", ""] for one in conversion.left_out]
    header = ["case", "became", "why", "images", "masks"]
    write_text(folder / WHAT_BECAME, csv_text([header, *sorted(rows)]))


# -------------------------------------------------------------------------------------------------- the cases


@dataclass(frozen=True)
class _Outcome:
    """What became of a case.

    Attributes:
        faults: of all its files.
        unreadable: files that cannot be read, and why.
        has_lesion: whether its mask holds a lesion; None without a mask.
        uncovered: share of the grid that a resampled image does not reach; the largest of its channels.
    """

    faults: tuple[Fault, ...]
    unreadable: tuple[Fault, ...] = ()
    has_lesion: bool | None = None
    uncovered: float = 0.0


@dataclass(frozen=True)
class _CaseGrid:
    """Where the images of a case lie, and the header's own words for it."""

    geometry: Geometry
    forms: HeaderForms


def _part(case: SourceCase) -> str:
    return "Ts" if case.test else "Tr"


def _write_cases(
    conversion: Conversion,
    folder: Path,
    labels: LabelSet,
    processes: int,
    ignore_mask_headers: bool,
    leave_out_faulty: bool,
) -> Conversion:
    """Write all cases, but for those that are left out; the conversion as it became."""
    cases = conversion.cases
    work = partial(
        _write_case,
        root=conversion.root,
        folder=folder,
        n_channels=len(conversion.channel_names),
        known=labels.known_values,
        ignore_mask_headers=ignore_mask_headers,
    )
    outcomes = dict(parallel.each(work, cases, processes, name_of=lambda case: case.name, doing="converting"))
    reasons = {
        i: _reasons(of, conversion.leave_out_unreadable, leave_out_faulty) for i, of in outcomes.items()
    }
    left_out = {i for i, faults in reasons.items() if faults}
    kept = [i for i in range(len(cases)) if i not in left_out]
    faults = [fault for i in kept for fault in (*outcomes[i].unreadable, *outcomes[i].faults)]
    if all(cases[i].test for i in kept):  # nothing to train on is left
        faults += [fault for i in sorted(left_out) for fault in reasons[i]]
    if faults:
        raise FaultsError(f"{conversion.root} is not converted: {count_of(len(faults), 'fault')}", faults)
    for i in sorted(left_out):
        _leave_out(cases[i], folder, reasons[i][0])
    _tell([(cases[i], outcomes[i]) for i in kept])
    more = tuple(LeftOut(cases[i].name, _why(reasons[i][0])) for i in sorted(left_out))
    return replace(conversion, cases=tuple(cases[i] for i in kept), left_out=(*conversion.left_out, *more))


def _reasons(outcome: _Outcome, unreadable: bool, faulty: bool) -> tuple[Fault, ...]:
    """Why a case is left out; empty where it is not."""
    if faulty:
        return (*outcome.unreadable, *outcome.faults)
    return outcome.unreadable if unreadable else ()


def _why(fault: Fault) -> str:
    return f"{fault.where}: {fault.problem}" + (f" ({fault.found})" if fault.found else "")


def _leave_out(case: SourceCase, folder: Path, fault: Fault) -> None:
    """Take away what was written of a case, and say so."""
    part = _part(case)
    for channel in range(len(case.images)):
        (folder / f"images{part}" / f"{case.name}_{channel:04d}{ENDING}").unlink(missing_ok=True)
    (folder / f"labels{part}" / f"{case.name}{ENDING}").unlink(missing_ok=True)
    messages.warn(f"{case.name} is left out: {_why(fault)}")


def _tell(outcomes: Sequence[tuple[SourceCase, _Outcome]]) -> None:
    """Warn of what is odd about the cases and no fault."""
    unsaid = [case.name for case, of in outcomes if of.has_lesion is False and not case.lesion_free]
    if unsaid:
        messages.warn(
            f"{count_of(len(unsaid), 'mask is', 'masks are')} empty though nothing declares it: {some_of(unsaid)}"
        )
    short = [f"{case.name} ({of.uncovered:.0%})" for case, of in outcomes if of.uncovered > UNCOVERED_SHARE]
    if short:
        some = count_of(len(short), "resampled image does", "resampled images do")
        messages.warn(f"{some} not fill the grid; share left out: {some_of(short)}")


def _write_case(
    case: SourceCase,
    *,
    root: Path,
    folder: Path,
    n_channels: int,
    known: tuple[int, ...],
    ignore_mask_headers: bool,
) -> _Outcome:
    """Copy one case into the half-made dataset and check what was copied."""
    faults: list[Fault] = []
    unreadable: list[Fault] = []
    grid: _CaseGrid | None = None
    uncovered = 0.0
    n_resampled = sum(volume.resample for volume in case.images)
    if len(case.images) != n_channels or n_resampled == n_channels:
        found = f"{count_of(len(case.images), 'channel')}, {n_resampled} to be resampled"
        expected = f"{n_channels}, at least one of them as it is"
        return _Outcome((Fault(case.name, "has other channels", found, expected, "mend the converter"),))
    for channel, volume in sorted(enumerate(case.images), key=lambda item: item[1].resample):
        target = folder / f"images{_part(case)}" / f"{case.name}_{channel:04d}{ENDING}"
        file = _copied(volume, target, root, unreadable)
        if file and grid is None and not volume.resample:
            grid = _CaseGrid(file.geometry, file.forms)
        elif file and grid and volume.resample:
            uncovered = max(uncovered, _put_onto(grid, file, target, _shown(volume, root), faults))
        elif file and grid:
            faults += _grid_faults(volume, root, grid.geometry, file.geometry)
    if grid is None:
        return _Outcome(tuple(faults), tuple(unreadable))
    target = folder / f"labels{_part(case)}" / f"{case.name}{ENDING}"
    has_lesion = _write_mask(case, target, root, grid, known, ignore_mask_headers, faults, unreadable)
    return _Outcome(tuple(faults), tuple(unreadable), has_lesion, uncovered)


def _write_mask(
    case: SourceCase,
    target: Path,
    root: Path,
    grid: _CaseGrid,
    known: tuple[int, ...],
    ignore_header: bool,
    faults: list[Fault],
    unreadable: list[Fault],
) -> bool | None:
    """Write a case's mask, empty where none is needed; whether it holds a lesion."""
    if case.mask is None:
        if case.lesion_free:
            write_mask(target, np.zeros(grid.geometry.shape, np.uint8), grid.geometry, grid.forms)
            return False
        if not case.test:
            fix = "add the mask, or declare that the case has no lesion"
            faults.append(Fault(case.name, "has no mask", "", "a mask for every training case", fix))
        return None
    if isinstance(case.mask, MergedMask):
        merged = _merged(case.mask, target, root, grid, ignore_header, faults, unreadable)
        if merged is None:
            return None
        faults += _label_faults(_shown(case.mask.volumes[0], root), merged, known, case.lesion_free)
        write_mask(target, merged, grid.geometry, grid.forms)
        return bool(merged.any())
    file = _copied(case.mask, target, root, unreadable)
    if file is None:
        return None
    where = _shown(case.mask, root)
    faults += _mask_grid_faults(case.mask, root, grid, file, ignore_header)
    try:
        mask = as_labels(file.pixels, where=where)
    except AutosegError as error:
        faults.append(error.fault)
        return None
    faults += _label_faults(where, mask, known, case.lesion_free)
    if ignore_header and mask.shape == grid.geometry.shape:
        write_mask(target, mask, grid.geometry, grid.forms)
    return bool(mask.any())


def _merged(
    mask: MergedMask,
    target: Path,
    root: Path,
    grid: _CaseGrid,
    ignore_header: bool,
    faults: list[Fault],
    unreadable: list[Fault],
) -> np.ndarray | None:
    """1 where the largest value of all volumes is above 0; None and faults where they cannot be put together."""
    merged = np.zeros(grid.geometry.shape, np.uint8)
    before = len(faults) + len(unreadable)
    for volume in mask.volumes:
        file = _copied(volume, target, root, unreadable)
        if file is None:
            continue
        faults += _mask_grid_faults(volume, root, grid, file, ignore_header)
        faults += _value_faults(file.pixels, _shown(volume, root))
        if file.geometry.shape == merged.shape:
            merged |= file.pixels > 0
    return merged if len(faults) + len(unreadable) == before else None


def _value_faults(pixels: np.ndarray, where: str) -> list[Fault]:
    """What a mask that is lesion above 0 may not hold: what is no number, and numbers below 0, which mean nothing."""
    faults = []
    if n_odd := int((~np.isfinite(pixels)).sum()):
        found = count_of(n_odd, "voxel with NaN or infinity", "voxels with NaN or infinity")
        faults.append(Fault(where, "values that are no numbers", found, "finite values", "correct the mask"))
    below = pixels[np.isfinite(pixels) & (pixels < -WHOLE_TOLERANCE)]
    if below.size:
        found = f"{count_of(below.size, 'voxel')} below 0, the least {below.min():g}"
        fix = "correct the mask; numbers below 0 may be a signed type that should be unsigned, or an image"
        faults.append(Fault(where, "values below 0 in a mask", found, "0, and lesion above it", fix))
    return faults


def _mask_grid_faults(
    volume: Volume, root: Path, grid: _CaseGrid, file: ImageFile, ignore_header: bool
) -> list[Fault]:
    found = _grid_faults(volume, root, grid.geometry, file.geometry, of_mask=True)
    return [fault for fault in found if not ignore_header or "shape" in fault.problem]


def _copied(volume: Volume, target: Path, root: Path, faults: list[Fault]) -> ImageFile | None:
    """One volume, written and read again; why it cannot be read is added to the faults."""
    is_nifti = volume.path.name.endswith((".nii", ENDING))
    try:
        if volume.series is not None:
            pixels, geometry = volume.series.read()
            write = write_image if pixels.dtype.kind == "f" else write_mask
            write(target, pixels, geometry)
            return read_image(target)
        if volume.over_time is not None:
            return _over_time(volume.path, volume.over_time, target)
        content = take_volume(volume.path, volume.index) if is_nifti else read_image(volume.path)
    except AutosegError as error:
        faults.append(_at_source(error.fault, volume, root))
        return None
    if isinstance(content, bytes):
        write_bytes(target, content)
    else:
        write_image(target, content.pixels, content.geometry, content.forms)
    try:
        return read_image(target)
    except AutosegError as error:
        faults.append(_at_source(error.fault, volume, root))
        return None


def _over_time(path: Path, how: Literal["mean", "max", "min"], target: Path) -> ImageFile:
    """The volumes of a NIfTI file as one, written with the geometry of the first and read again."""
    write_bytes(target, take_volume(path, 0))
    first = read_image(target)
    write_image(target, over_volumes(path, how), first.geometry, first.forms)
    return read_image(target)


def _put_onto(grid: _CaseGrid, file: ImageFile, target: Path, where: str, faults: list[Fault]) -> float:
    """Write an image anew on another grid, unless it lies there; the share of the grid that it does not reach.

    See :func:`autoseg.dataset.regrid.put_onto`. An image that reaches nothing of the grid is added to the faults.
    """
    if not differences(grid.geometry, file.geometry):
        return 0.0
    resampled, uncovered = put_onto(grid.geometry, file.pixels, file.geometry)
    if uncovered == 1:
        problem = "lies elsewhere than the image whose grid it is put onto"
        fix = "correct the header that is wrong"
        faults.append(Fault(where, problem, "no voxel in common", "an overlap", fix))
    write_image(target, resampled, grid.geometry, grid.forms)
    return uncovered


def _at_source(fault: Fault, volume: Volume, root: Path) -> Fault:
    return replace(fault, where=_shown(volume, root))


def _grid_faults(
    volume: Volume, root: Path, first: Geometry, other: Geometry, *, of_mask: bool = False
) -> list[Fault]:
    fix = "resample it to that grid, or correct the header that is wrong"
    if of_mask:
        fix += "; where masks lie voxel by voxel on their images: --ignore_mask_headers"
    return [
        Fault(_shown(volume, root), f"its {what} is not that of the image", found, expected, fix)
        for what, found, expected in differences(first, other)
    ]


def _label_faults(where: str, mask: np.ndarray, known: tuple[int, ...], lesion_free: bool) -> list[Fault]:
    values, counts = np.unique(mask, return_counts=True)
    unknown = [
        f"{v} ({count_of(int(n), 'voxel')})" for v, n in zip(values, counts, strict=True) if v not in known
    ]
    if unknown:
        found = some_of(unknown)
        expected = ", ".join(map(str, known))
        return [
            Fault(where, "label values that the format does not have", found, expected, "correct the mask")
        ]
    if lesion_free and mask.any():
        found = count_of(int((mask > 0).sum()), "voxel of lesion", "voxels of lesion")
        fix = "take it off the list of cases without lesion, or correct the mask"
        return [Fault(where, "declared to have no lesion", found, "an empty mask", fix)]
    return []


def _shown(volume: Volume, root: Path) -> str:
    """A source file as the user knows it: relative to the root of the download."""
    return volume.path.relative_to(root).as_posix() if volume.path.is_relative_to(root) else str(volume.path)
