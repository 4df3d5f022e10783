"""Intensities: the most frequent one of an image, and values that cannot be any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from autoseg.errors import AutosegError
from autoseg.messages import count_of

LARGEST = 1e15
"""No scan has larger intensities; sums of their squares fit into single precision."""


def most_frequent(parts: Iterable[np.ndarray], width: float) -> float | None:
    """The lower edge of the fullest of the bins ``[i * width, (i + 1) * width)``, i = 1, 2 and so on.

    Bin 0, where the air lies, and values below it do not take part. Of bins that are equally full it is the lowest.

    Args:
        parts: of the values, arrays of any shape.
        width: of a bin.

    Returns:
        None where no value reaches ``width``.
    """
    counts: Counter[int] = Counter()
    for part in parts:
        bins = (part[part >= width].astype(np.float64) / width).astype(np.int64)
        found, n = np.unique(bins, return_counts=True)
        counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
    if not counts:
        return None
    return min(counts, key=lambda i: (-counts[i], i)) * width


def refuse_beyond_range(pixels: np.ndarray, *, where: str) -> None:
    """Refuse finite values of a size that no scan has; NaN and Inf are left to others.

    Such values mark the background in some exports (-FLT_MAX, 1e300). Means and variances of them overflow.

    Args:
        pixels: ``[z, y, x]`` in the file's own type.
        where: the file.

    Raises:
        AutosegError: there are some.
    """
    if pixels.dtype.kind != "f":
        return
    low, high = pixels.min(), pixels.max()
    if low >= -LARGEST and high <= LARGEST:
        return
    beyond = np.isfinite(pixels) & (np.abs(pixels) > LARGEST)
    if beyond.any():
        shown = ", ".join(f"{value:g}" for value in np.unique(pixels[beyond])[:3])
        raise AutosegError(
            "holds values of a size that no scan has",
            where=where,
            found=f"{count_of(int(beyond.sum()), 'voxel')}, such as {shown}",
            expected=f"intensities of at most {LARGEST:g}",
            fix="replace these values (where they mark the background, by 0), or export the image again",
        )
