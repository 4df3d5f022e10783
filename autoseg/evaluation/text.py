"""Numbers, names and tables as text, for all that people read of scores; a leaf that knows no summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

SPOKEN_WHOLE = {"volume_truth_ml": "true volume", "volume_prediction_ml": "predicted volume"}
ABBREVIATIONS = {"dice": "Dice", "hd95": "HD95", "f1": "F1", "iou": "IoU", "hausdorff": "Hausdorff"} | {
    word: word.upper() for word in ("tpr", "tnr", "ppv", "mcc", "assd", "nsd", "tp", "fp", "fn", "tn")
}


# --------------------------------------------------------------------------------------------------------- numbers


def decimals(unit: str, *values: float | None) -> int:
    """Three decimals for ratios; for the rest so many that the largest value has four significant digits."""
    if unit == "1":
        return 3
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 0 if largest == 0 else min(6, max(0, 3 - math.floor(math.log10(largest))))


def fixed(value: float | None, n_decimals: int) -> str:
    """A number with so many decimals, ``-`` if undefined."""
    return "-" if value is None else f"{value:.{n_decimals}f}"


def number(value: float | None, unit: str) -> str:
    """A score for reading: three decimals for ratios, four significant digits for the rest, ``-`` if undefined."""
    return fixed(value, decimals(unit, value))


def alike(unit: str, *values: float | None) -> list[str]:
    """Numbers that are read together, with as many decimals as the largest of them has on its own."""
    n_decimals = decimals(unit, *values)
    return [fixed(value, n_decimals) for value in values]


def with_interval(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """``0.658 [0.536, 0.786]``."""
    middle, *ends = alike(unit, value, low, high)
    return middle if low is None or high is None else f"{middle} [{', '.join(ends)}]"


def p_text(p: float | None, before: str = "") -> str:
    """A p-value for reading; with a ``before`` such as ``p`` as an equation."""
    if p is None:
        return "-"
    if p < 0.001:
        return f"{before}< 0.001" if before else "<0.001"
    text = f"{p:.2f}" if p >= 0.095 else f"{p:.3f}"
    if text == "0.050":  # on which side of the limit it lies must be seen
        text = f"{p:.4f}"
    return f"{before}= {text}" if before else text


def csv_cell(value: float | int | None) -> str:
    """A number with ten significant digits, whole ones in full; empty for None."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.10g}"


# ----------------------------------------------------------------------------------------------------------- names


def spoken(metric: str) -> str:
    """A metric in a sentence: ``hd95_mm`` is HD95; its unit stands with the number."""
    if metric in SPOKEN_WHOLE:
        return SPOKEN_WHOLE[metric]
    words = re.sub(r"_(mm|ml|voxels|px)$", "", metric).split("_")
    return " ".join(ABBREVIATIONS.get(word, word) for word in words)


def titled(metric: str, unit: str) -> str:
    """A metric above its numbers: ``HD95, mm``; without unit for ratios and where the name says it."""
    return spoken(metric) + ("" if unit == "1" or metric.startswith(unit) else f", {unit}")


# ---------------------------------------------------------------------------------------------------------- tables


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text under a line of titles; rows may be shorter."""
    widths = [max(len(row[i]) for row in [header, *rows] if i < len(row)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def repeated(rows: Sequence[Sequence[Any]], columns: int) -> Iterator[int]:
    """For each row, how many of its leading cells, at most ``columns``, only repeat those of the row above."""
    above: Sequence[Any] = ()
    for row in rows:
        same = 0
        while above and same < columns and row[same] == above[same]:
            same += 1
        yield same
        above = row
