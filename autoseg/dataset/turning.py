"""Files that are looked at together, in one orientation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from autoseg.dataset.imageio import Geometry, differences, read_geometry
from autoseg.errors import AutosegError
from autoseg.orientation import Turn, most_frequent_orientation


def orientation_of_most(paths: Iterable[Path]) -> str | None:
    """The orientation in which most files are stored, by their headers alone; None where none can be read."""
    found = []
    for path in paths:
        with contextlib.suppress(AutosegError):  # whoever reads the pixels says what is wrong
            found.append(read_geometry(path).orientation)
    return most_frequent_orientation(found)


def laid_onto(
    pixels: np.ndarray, geometry: Geometry, reference: Geometry
) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """An array on the grid of another file, turned where the two store the same voxels in another order.

    Args:
        pixels: ``[z, y, x]`` as its file has it.
        geometry: of that file.
        reference: of the other file.

    Returns:
        The array in the order of the other file, and in what their grids differ
        (see :func:`autoseg.dataset.imageio.differences`); it is not turned where they differ.
    """
    found = differences(reference, geometry)
    turn = Turn.between(geometry.orientation, reference.orientation) if found else Turn()
    if turn.changes and not differences(reference, turn.geometry(geometry)):
        return turn.array(pixels), []
    return pixels, found
