"""All methods in one table, as papers print it: a row for each, a row for each difference, micro-DSC first."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from autoseg.comparison.comparison_schema import Comparison, PooledDice
from autoseg.evaluation import statistics
from autoseg.evaluation.metrics.overlap import micro_dice
from autoseg.evaluation.summary import Summary
from autoseg.evaluation.text import csv_cell, grid, number
from autoseg.files import csv_text

Cell = tuple[float | None, float | None, float | None]
"""A value and its interval."""

POOLED = "micro_dice"


def pooled_dice(summaries: Mapping[str, Summary], label: str, resamples: int) -> list[PooledDice]:
    """Dice of the voxels of all cases together, of each method and as differences of each pair.

    Args:
        summaries: method to its scores of the same cases.
        label: the class.
        resamples: of the bootstrap over cases; a difference draws the same cases for both methods.
    """
    counts = {method: _counts(summary, label) for method, summary in summaries.items()}
    rows = []
    for method, found in counts.items():
        low, high = statistics.interval_of_means(found, _dice, resamples=resamples)
        rows.append(_row(method, micro_dice(*found.T), low, high))
    for first, second in combinations(counts, 2):
        both = np.hstack([counts[first], counts[second]])
        low, high = statistics.interval_of_means(
            both, lambda means: _dice(means[:, :3]) - _dice(means[:, 3:]), resamples=resamples
        )
        value = micro_dice(*counts[first].T) - micro_dice(*counts[second].T)
        rows.append(_row(difference_name(first, second), value, low, high))
    return rows


def difference_name(first: str, second: str) -> str:
    """How a row of differences is called."""
    return f"{first} - {second}"


def _counts(summary: Summary, label: str) -> np.ndarray:
    """``[n cases, 3]``: voxels that are true positive, false positive and false negative."""
    return np.array(
        [[case.classes[label][name] for name in ("tp", "fp", "fn")] for case in summary.cases], float
    )


def _dice(counts: np.ndarray) -> np.ndarray:
    """``[resamples, 3]`` to ``[resamples]``, ``nan`` where there is no voxel of either mask."""
    wholes = 2 * counts[:, 0] + counts[:, 1] + counts[:, 2]
    return np.divide(2 * counts[:, 0], wholes, out=np.full(len(counts), np.nan), where=wholes > 0)


def _row(name: str, *cell: float) -> PooledDice:
    value, low, high = (None if np.isnan(number) else float(number) for number in cell)
    return PooledDice(row=name, value=value, low=low, high=high)


# ------------------------------------------------------------------------------------------------------- for reading


def method_rows(comparison: Comparison, label: str) -> dict[str, dict[str, Cell]]:
    """Method or difference to column (:data:`POOLED`, then the metrics) to value and interval, for one class."""
    rows: dict[str, dict[str, Cell]] = {
        one.row: {POOLED: (one.value, one.low, one.high)} for one in comparison.micro_dice.get(label, [])
    }
    for metric, result in comparison.classes[label].items():
        for ranked in result.ranking:
            rows.setdefault(ranked.method, {})[metric] = (ranked.mean, ranked.low, ranked.high)
        for pair in result.pairs:
            name = difference_name(pair.first, pair.second)
            rows.setdefault(name, {})[metric] = (pair.difference, pair.low, pair.high)
    names = [method.name for method in comparison.methods]
    return {name: rows[name] for name in (*names, *(name for name in rows if name not in names))}


def format_method_table(comparison: Comparison) -> str:
    """For the terminal, one below the other for several classes; empty where a comparison has no pooled Dice."""
    if not comparison.micro_dice:
        return ""
    units = {POOLED: "1", **{name: row.unit for name, row in comparison.metrics.items()}}
    lines = [
        [label, name, *(_text(cells.get(column), units[column]) for column in units)]
        for label in comparison.classes
        for name, cells in method_rows(comparison, label).items()
    ]
    title = "in one table: means and their differences; micro_dice is of the voxels of all cases together"
    return f"{title}\n" + grid(["class", "method", *units], lines)


def _text(cell: Cell | None, unit: str) -> str:
    value, low, high = cell or (None, None, None)
    interval = "" if low is None or high is None else f" [{number(low, unit)}, {number(high, unit)}]"
    return number(value, unit) + interval


def format_methods_csv(comparison: Comparison) -> str:
    """comparison_table.csv: one row for each class and method or difference, three columns for each metric."""
    columns = [POOLED, *comparison.metrics]
    ends = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
    rows: list[list[object]] = [["class", "method", *ends]]
    for label in comparison.classes:
        for name, cells in method_rows(comparison, label).items():
            values = [value for column in columns for value in cells.get(column, (None, None, None))]
            rows.append([label, name, *map(csv_cell, values)])
    return csv_text(rows)
