"""How the files of a predicted case are called, and which there are beside its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.imageio import Geometry, HeaderForms
from autoseg.dataset.raw_layout import Case


@dataclass(frozen=True)
class FinishedCase:
    """A predicted case, as the scan is stored.

    Attributes:
        case: which.
        mask: ``[z, y, x]``.
        probabilities: float32 ``[k, z, y, x]``; None where the layout does not ask for them.
        geometry, forms: of the scan, for :func:`autoseg.dataset.imageio.write_mask`.
    """

    case: Case
    mask: np.ndarray
    probabilities: np.ndarray | None
    geometry: Geometry
    forms: HeaderForms


@dataclass(frozen=True)
class FurtherFile:
    """One more file of a case.

    Attributes:
        name: within the output folder.
        write: ``write(path, finished)`` writes it, in the writing thread.
    """

    name: str
    write: Callable[[Path, FinishedCase], None]


@dataclass(frozen=True)
class OutputLayout:
    """Where the files of the cases go.

    Attributes:
        mask: name of a case's mask within the output folder.
        further: the other files of a case.
        begin: writes what belongs to the whole folder; called once, before the first case.
        probabilities: whether the further files need them.
        values: what is written of a mask, such as one class of all.
    """

    mask: Callable[[Case], str]
    further: Callable[[Case], Sequence[FurtherFile]] = lambda case: ()
    begin: Callable[[Path], None] = lambda folder: None
    probabilities: bool = False
    values: Callable[[np.ndarray], np.ndarray] = lambda mask: mask


def plain_layout(ending: str) -> OutputLayout:
    """``CASE.nii.gz``, or another ending."""
    return OutputLayout(mask=lambda case: case.name + ending)
