"""Sizes of all false lesions, one by one: false_lesions.csv, and the size that holds nearly all of them.

Chen, Bentley and Rueckert 2017 (Fig. 7) look at them to choose which components their second network judges. A case
without a false lesion has no row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError
from autoseg.files import csv_text, csv_words, write_text
from autoseg.messages import count_of

FILE_NAME = "false_lesions.csv"
SHARE_HELD = 0.99
"""Of false components, by which the paper chose 60 pixels: 99 % of those of its validation cases were no larger."""
_HEADER = ("case", "class", "size")

Sizes = Mapping[str, Mapping[str, Sequence[float]]]
"""Case to class to the sizes of its false lesions."""


def size_that_holds(sizes: Sequence[float] | np.ndarray, share: float = SHARE_HELD) -> float:
    """The least size of which at least this share of the components are no larger; of one component or more."""
    return float(np.sort(sizes)[math.ceil(share * len(sizes)) - 1])


def sizes_in_words(sizes: Sequence[float] | np.ndarray, n_cases: int, unit: str = "px") -> str:
    """How many there are, in each case and in all, and how large they are.

    Args:
        sizes: of all cases together; of one component or more.
        n_cases: with those that have none.
        unit: of the sizes.
    """
    return (
        f"{count_of(len(sizes), 'false component')}, {len(sizes) / n_cases:.2f} in a case, of "
        f"{np.mean(sizes):.2f} {unit} on average (median {np.median(sizes):.4g}, largest {np.max(sizes):.4g})"
    )


def write_false_lesions(path: Path, sizes: Sizes) -> None:
    """Write false_lesions.csv atomically: case, class, size, a row for each false lesion.

    Raises:
        AutosegError: it cannot be written.
    """
    rows = [
        (case, label, f"{size:.6g}")
        for case, classes in sizes.items()
        for label, found in classes.items()
        for size in sorted(found)
    ]
    write_text(path, csv_text([_HEADER, *rows]))


def read_false_lesions(path: Path) -> dict[str, dict[str, list[float]]]:
    """Read a file of :func:`write_false_lesions`.

    Raises:
        AutosegError: it is not such a file.
    """
    found: dict[str, dict[str, list[float]]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = csv.reader(handle)
            if tuple(next(rows, ())) != _HEADER:
                raise ValueError("another header")
            for case, label, size in rows:
                found.setdefault(csv_words(case), {}).setdefault(csv_words(label), []).append(float(size))
    except (OSError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise AutosegError(
            "is not a table of false lesions",
            where=str(path),
            found=str(error),
            expected=f"the columns {', '.join(_HEADER)}, a row for each false lesion",
            fix="run autoseg_evaluate again",
        ) from None
    return found
