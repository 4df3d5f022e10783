"""Channels that are no image files yet, or lie on other grids, become files for as long as a case is read."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.dataset.image_geometry import Geometry, differences
from autoseg.dataset.imageio import read_geometry, read_image, write_image
from autoseg.dataset.raw_layout import Case, Origin
from autoseg.dataset.regrid import put_onto
from autoseg.errors import AutosegError

UNCOVERED_SHARE = 0.05
"""A channel that leaves out more than this share of the grid is warned of."""


@contextlib.contextmanager
def staged(case: Case) -> Iterator[Case]:
    """The case with image files on one grid: itself where it has them, else with files for the length of the block.

    Raises:
        AutosegError: a series cannot be read, or a channel lies elsewhere than the first.
    """
    origin = case.origin
    if origin is None or not (origin.resample or any(origin.series)):
        yield case
        return
    with tempfile.TemporaryDirectory(prefix="autoseg-") as folder:
        beside = replace(origin, beside=case.images[0].parent)
        yield replace(case, images=_made(case, origin, Path(folder)), origin=beside)


def sources_of(case: Case) -> tuple[str, ...]:
    """For each channel the file or series that it was taken from, named from the folder that was given."""
    origin = case.origin
    if origin is not None and any(origin.series):
        return origin.channels
    root = origin.root if origin is not None and origin.root is not None else None
    return tuple(
        path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.name
        for path in case.images
    )


def _made(case: Case, origin: Origin, folder: Path) -> tuple[Path, ...]:
    """The files of all channels; those that are as they should be stay where they are."""
    paths: list[Path] = []
    grid: Geometry | None = None
    for i, given in enumerate(case.images):
        series = origin.series[i] if origin.series else None
        path = given
        if series is not None:
            path = folder / f"channel {i}, {_as_file_name(origin.channels[i])}.nii"
            pixels, geometry = series.read()
            write_image(path, pixels, geometry)
        if grid is None:
            grid = read_geometry(path)
        elif origin.resample and differences(grid, read_geometry(path)):
            path = _onto(case, i, path, grid, folder)
        paths.append(path)
    return tuple(paths)


def _as_file_name(text: str) -> str:
    """Words as the name of a file, by which messages call what a channel was made from."""
    return re.sub(r"[^\w ,.+-]", "", text)[:80].strip()


def _onto(case: Case, channel: int, path: Path, grid: Geometry, folder: Path) -> Path:
    """A channel on the grid of the first, as a new file."""
    image = read_image(path)
    pixels, uncovered = put_onto(grid, image.pixels, image.geometry)
    if uncovered == 1:
        raise AutosegError(
            "a channel lies elsewhere than the first, so it cannot be put onto its grid",
            where=f"{case.name}, {path.name}",
            found="no voxel in common",
            expected="scans of the same place, co-registered",
            fix="register the scan to the first channel, or correct the header that is wrong",
        )
    if uncovered > UNCOVERED_SHARE:
        messages.warn(
            f"{case.name}: channel {channel} does not reach {uncovered:.0%} of the grid of channel 0"
        )
    target = folder / f"{case.name}_{channel:04d}_resampled.nii"
    write_image(target, np.ascontiguousarray(pixels), grid)
    messages.info(
        f"{case.name}: channel {channel} was put onto the grid of channel 0, linearly, by the headers"
    )
    return target
