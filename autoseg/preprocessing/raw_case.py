"""A case from its files, turned into the plan's orientation: the door through which all pixels come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.orientation import Turn, turn_into
from autoseg.plan import Preprocessing
from autoseg.preprocessing.mask import read_mask_file

if TYPE_CHECKING:
    from autoseg.dataset.imageio import Geometry


@dataclass(frozen=True)
class RawCase:
    """A case as its files have it, in the plan's orientation.

    Attributes:
        image: float32 ``[c, z, y, x]``.
        geometry: of these arrays.
        stored: the geometry of the files.
        turn: from the files to these arrays; ``turn.back`` is the way of a result.
        label: integers ``[z, y, x]`` where the lesions are known and were asked for.
        mask: ``[z, y, x]`` where the plan's mask comes from a folder.
        mask_path: its file.
    """

    image: np.ndarray
    geometry: Geometry
    stored: Geometry
    turn: Turn = Turn()
    label: np.ndarray | None = None
    mask: np.ndarray | None = None
    mask_path: Path | None = None


def read_raw_case(
    name: str,
    images: Sequence[Path],
    plan: Preprocessing,
    *,
    label: Path | None = None,
    mask: Path | None = None,
) -> RawCase:
    """Read a case and turn it into the plan's orientation; no value is interpolated.

    All its arrays are turned as its first image is.

    Args:
        name: of the case, for messages.
        images: one file for each channel.
        plan: which orientation; None leaves all as it is stored.
        label: the file of the true mask.
        mask: the file of the plan's mask, where it comes from a folder.

    Raises:
        AutosegError: a file is missing, damaged or does not fit the others.
        FaultsError: the channels or the true mask lie on different grids.
    """
    from autoseg.dataset.imageio import read_channels, read_mask, refuse_differences

    image, stored = read_channels(images)
    known = None
    if label is not None:
        known, own = read_mask(label)
        refuse_differences(images[0], stored, label, own)
    inside = read_mask_file(mask, stored, name) if mask is not None else None
    turn = turn_into(plan.orientation, stored)
    return RawCase(
        turn.array(image),
        turn.geometry(stored),
        stored,
        turn,
        turn.array(known) if known is not None else None,
        turn.array(inside) if inside is not None else None,
        mask,
    )
