"""Scores for reading: the table in the terminal and the text of summary.csv and thresholds.csv."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from autoseg.evaluation.statistics import landis_koch

if TYPE_CHECKING:
    from autoseg.evaluation.summary import ClassSummary, Mean, Stratification, Summary
WIDTH = 110
"""Columns that text is wrapped to."""


# ---------------------------------------------------------------------------------------------------------- CSV


def format_csv(summary: Summary) -> str:
    """One row for each case and class; columns: preset, groups, then one for each metric."""
    groups = sorted({column for case in summary.cases for column in case.groups})
    rows = [["case", "class", "preset", *groups, *summary.metrics]]
    for case in summary.cases:
        known = [case.groups.get(column, "") for column in groups]
        for label, scores in case.classes.items():
            cells = [csv_cell(scores[metric]) for metric in summary.metrics]
            rows.append([case.name, label, summary.preset.name, *known, *cells])
    return csv_text(rows)


def csv_cell(value: float | int | None) -> str:
    """A number with ten significant digits, whole ones in full; empty for None."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------- the terminal


def format_table(summary: Summary) -> str:
    """What is printed: the preset, the means, then parts of the cases, then numbers of all cases together."""
    parts = [format_preset(summary), _means(summary)]
    parts += [_stratum(stratum, summary) for stratum in summary.strata]
    parts.append(_cohort(summary))
    return "\n\n".join(part for part in parts if part)


def format_preset(summary: Summary) -> str:
    """Name and title of the preset, its source, and a line for each note."""
    preset = summary.preset
    more = [f"source: {preset.source}", *preset.notes] if preset.source else preset.notes
    wrapped = (textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ") for text in more)
    return "\n".join([f"preset {preset.name}: {preset.title}", *wrapped])


def table_metrics(summary: Summary) -> list[str]:
    """The preset's table metrics that were computed; if there are none, the first few that were."""
    return [name for name in summary.preset.table if name in summary.metrics] or list(summary.metrics)[:5]


def _means(summary: Summary) -> str:
    """A row for each class and metric; means where truth is present only if some cases have none."""
    with_empty = any(entry.empty_truth for entry in summary.classes.values())
    in_words = [name for name in table_metrics(summary) if name in summary.preset.in_words]
    header = ["class", "metric", "mean [95 % interval]", "sd", "median", "n"]
    header += ["where truth is present", "n"] if with_empty else []
    header += ["in words"] if in_words else []
    rows = []
    for label, entry in summary.classes.items():
        own = []
        for name in table_metrics(summary):
            unit, present = summary.metrics[name].unit, entry.truth_present[name]
            row = [name, *mean_texts(entry.all[name], unit)]
            row += [interval_text(present, unit), str(present.n)] if with_empty else []
            own.append(row + ([landis_koch(entry.all[name].mean)] if name in in_words else []))
        rows += _named(label, [*own, *_misses(entry)])
    return grid(header, rows)


def _named(label: str, rows: list[list[str]]) -> list[list[str]]:
    """Rows of a class, whose name stands before the first of them only."""
    return [[label if i == 0 else "", *row] for i, row in enumerate(rows)]


def _misses(entry: ClassSummary) -> list[list[str]]:
    rows = [["cases missed", f"{entry.missed} of {entry.cases - entry.empty_truth} with truth"]]
    if entry.empty_truth:
        rows.append(["cases with false alarm", f"{entry.false_alarms} of {entry.empty_truth} without truth"])
    return rows


def _stratum(stratum: Stratification, summary: Summary) -> str:
    """The first metric of the table, level by level."""
    metric = table_metrics(summary)[0]
    unit = summary.metrics[metric].unit
    rows = []
    for label, levels in stratum.classes.items():
        rows += _named(label, [[level.name, *mean_texts(level.metrics[metric], unit)] for level in levels])
    header = ["class", "level", "mean [95 % interval]", "sd", "median", "n"]
    return f"{metric} by {stratum.rule}\n{grid(header, rows)}"


def _cohort(summary: Summary) -> str:
    rows = []
    for label, entry in summary.classes.items():
        own = [
            [name, _with_interval(found.value, found.low, found.high, found.unit), str(found.n)]
            for name, found in entry.cohort.items()
        ]
        if (volumes := entry.volume_agreement) is not None:
            mean, *limits = (volumes.mean_ml, volumes.low_limit_ml, volumes.high_limit_ml)
            decimals = _decimals("ml", mean, *limits)
            low, high = (_fixed(limit, decimals) for limit in limits)
            text = f"{_fixed(mean, decimals)}, limits of agreement {low} to {high}"
            own.append(["volume difference, ml", text, str(volumes.n)])
        rows += _named(label, own)
    return grid(["class", "all cases together", "value [95 % interval]", "n"], rows) if rows else ""


def interval_text(mean: Mean, unit: str) -> str:
    """``0.658 [0.536, 0.786]``."""
    return _with_interval(mean.mean, mean.low, mean.high, unit)


def mean_texts(mean: Mean, unit: str) -> list[str]:
    """Mean with interval, sd, median and n, with the same number of decimals."""
    decimals = _decimals(unit, mean.mean, mean.low, mean.high)
    return [interval_text(mean, unit), _fixed(mean.sd, decimals), _fixed(mean.median, decimals), str(mean.n)]


def _with_interval(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    decimals = _decimals(unit, value, low, high)
    known = low is not None and high is not None
    return _fixed(value, decimals) + (
        f" [{_fixed(low, decimals)}, {_fixed(high, decimals)}]" if known else ""
    )


def _decimals(unit: str, *values: float | None) -> int:
    """Three decimals for ratios; for the rest so many that the largest value has four significant digits."""
    if unit == "1":
        return 3
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 0 if largest == 0 else min(6, max(0, 3 - math.floor(math.log10(largest))))


def _fixed(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def number(value: float | None, unit: str) -> str:
    """A score for reading: three decimals for ratios, four significant digits for the rest, ``-`` if undefined."""
    return _fixed(value, _decimals(unit, value))


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text under a line of titles; rows may be shorter."""
    widths = [max(len(row[i]) for row in [header, *rows] if i < len(row)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
