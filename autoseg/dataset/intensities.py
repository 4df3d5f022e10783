"""The most frequent intensity of an image, as a fact and as what an image can be divided by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np


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
