"""The values of a mask: whole numbers, whatever type the file stores them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.messages import count_of

WHOLE_TOLERANCE = 1e-3
"""Values that are no further than this from whole numbers are taken as these, with a warning."""

NEARLY_WHOLE = "label values are off whole numbers by rounding; the nearest are taken"


def as_labels(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """The pixels of a mask file as integers (uint8 where they fit).

    Raises:
        AutosegError: some values are not whole numbers.
    """
    if pixels.dtype == np.uint8:
        return pixels
    labels = _fitting(pixels)
    if (
        labels is None
        and np.isfinite(pixels).all()
        and np.abs(pixels - np.rint(pixels)).max() <= WHOLE_TOLERANCE
    ):
        messages.note(NEARLY_WHOLE, "/".join(Path(where).parts[-2:]))
        labels = _fitting(np.rint(pixels))
    if labels is None:
        raise AutosegError(
            "the mask holds values that are not whole numbers",
            where=where,
            found=_odd_values(pixels),
            expected="whole numbers, as named in dataset.json",
            fix="write the label values, not probabilities; resample masks with nearest neighbour",
        )
    return labels


def _fitting(pixels: np.ndarray) -> np.ndarray | None:
    """In the smallest type that holds all; None when they are not whole numbers."""
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    fitting = (np.uint8, np.int16, np.int32, np.int64)
    kind = next(k for k in fitting if np.iinfo(k).min <= low and high <= np.iinfo(k).max or k is np.int64)
    with np.errstate(invalid="ignore"):
        labels = pixels.astype(kind)
    return labels if pixels.dtype.kind in "iub" or np.array_equal(labels, pixels) else None


def _odd_values(pixels: np.ndarray) -> str:
    odd = pixels[~(np.isfinite(pixels) & (pixels == np.round(pixels)))]
    shown = ", ".join(f"{value:g}" for value in np.unique(odd)[:5])
    return f"{count_of(odd.size, 'voxel')} with such values: {shown}"
