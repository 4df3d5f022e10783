"""Methods that differ in one number, such as the size of the training set: scores against that number, by groups.

As the study of the size of the training set of Valverde et al. 2020 (RatLesNetv2, Fig. 5). Several methods may share a
number, as repeated runs do: then each case counts with its mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.comparison.comparison_schema import Comparison
from autoseg.comparison.level_means import ALL, averaging, levels_of
from autoseg.errors import AutosegError
from autoseg.evaluation.summary import defined
from autoseg.evaluation.text import csv_cell, grid, number, spoken
from autoseg.files import atomic_path, csv_text, write_text
from autoseg.messages import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CSV_NAME = "series.csv"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255")
"""Of the levels of a stratum; each stratum has a line and a marker of its own."""
LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


@dataclass(frozen=True)
class SeriesRow:
    """The mean of one metric at one number.

    Attributes:
        label: the class.
        stratum, level: the cases, ``all`` and empty for all of them.
        number: of the series.
        runs: methods that share it.
        n: cases where the metric is defined in some run.
        mean, sd, low, high: over these cases; the interval is of the preset's kind.
    """

    label: str
    metric: str
    stratum: str
    level: str
    number: float
    runs: int
    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


def check_series(numbers: Sequence[float], folders: Sequence[object]) -> None:
    """Refuse numbers that do not belong to the folders.

    Raises:
        AutosegError: there are more or fewer, or all are the same.
    """
    if len(numbers) != len(folders) or len(set(numbers)) < 2:
        raise AutosegError(
            "the numbers of the series do not fit",
            where="--series",
            found=f"{', '.join(f'{n:g}' for n in numbers)} for {count_of(len(folders), 'folder')}",
            expected="one number for each folder, in the same order, at least two different ones",
            fix="repeated runs have the same number",
        )


def series_rows(comparison: Comparison, numbers: Sequence[float]) -> list[SeriesRow]:
    """One row for each class, metric, level and number.

    Args:
        comparison: of the methods.
        numbers: one for each method, in the order of ``comparison.methods``.
    """
    runs: dict[float, list[str]] = {}
    for method, value in zip(comparison.methods, numbers, strict=True):
        runs.setdefault(value, []).append(method.name)
    average, rows = averaging(comparison), []
    for label, of_metrics in comparison.scores.items():
        for metric, of_methods in of_metrics.items():
            for level in levels_of(comparison, label):
                for value in sorted(runs):
                    scores = np.array([of_methods[name] for name in runs[value]], float)[:, level.cases]
                    means = _mean_of_runs(scores)
                    found = average(map(defined, means.tolist()))
                    spread = found.model_dump(include={"n", "mean", "sd", "low", "high"})
                    rows.append(
                        SeriesRow(label, metric, level.stratum, level.name, value, len(runs[value]), **spread)
                    )
    return rows


def _mean_of_runs(scores: np.ndarray) -> np.ndarray:
    """``[runs, cases]`` to ``[cases]``; undefined scores are left out."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(scores.shape[1], np.nan), where=known.any(axis=0))


def format_series(rows: Sequence[SeriesRow], units: Mapping[str, str]) -> str:
    """The means over all cases, for the terminal."""
    cells = []
    for row in rows:
        if row.stratum == ALL:
            unit = units[row.metric]
            interval = "" if row.low is None else f" [{number(row.low, unit)}, {number(row.high, unit)}]"
            mean, sd = number(row.mean, unit) + interval, number(row.sd, unit)
            cells.append([row.label, row.metric, f"{row.number:g}", str(row.runs), mean, sd, str(row.n)])
    return "series\n" + grid(["class", "metric", "number", "runs", "mean [95 % interval]", "sd", "n"], cells)


def write_series(comparison: Comparison, rows: Sequence[SeriesRow], folder: Path) -> list[Path]:
    """Write series.csv with all levels, series.png and series.svg into a folder and return their paths."""
    from matplotlib import rc_context

    header = list(SeriesRow.__dataclass_fields__)
    table: list[Sequence[object]] = [["class", *header[1:]]]
    for row in rows:
        values = asdict(row)
        table.append([csv_cell(v) if isinstance(v, float) else v for v in values.values()])
    write_text(folder / CSV_NAME, csv_text(table))
    written = [folder / CSV_NAME]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "autoseg"}):
        figure = make_figure(comparison, rows)
        for ending, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
            path = folder / f"series{ending}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, facecolor="white", **options)
            written.append(path)
    return written


def make_figure(comparison: Comparison, rows: Sequence[SeriesRow]) -> Figure:
    """A row of panels for each class, a column for each metric; a line for all cases and one for each level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels, metrics = list(comparison.scores), list(comparison.metrics)
    figure = Figure((3.6 * len(metrics), 3.0 * len(labels) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(labels), len(metrics), squeeze=False)
    for i, label in enumerate(labels):
        for j, metric in enumerate(metrics):
            some = [row for row in rows if (row.label, row.metric) == (label, metric)]
            _panel(axes[i, j], some, f"{label}: {spoken(metric)}", comparison.metrics[metric].unit)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _panel(axis: Axes, rows: Sequence[SeriesRow], title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9, loc="left", weight="bold", parse_math=False)
    lines: dict[tuple[str, str], list[SeriesRow]] = {}
    for row in rows:
        lines.setdefault((row.stratum, row.level), []).append(row)
    strata = list(dict.fromkeys(stratum for stratum, _ in lines if stratum != ALL))
    for (stratum, level), points in lines.items():
        everything = stratum == ALL
        levels = [other for of, other in lines if of == stratum]
        colour = "black" if everything else COLOURS[levels.index(level) % len(COLOURS)]
        dashes, marker = LINES[0] if everything else LINES[strata.index(stratum) % len(LINES)]
        axis.plot(
            [p.number for p in points],
            [np.nan if p.mean is None else p.mean for p in points],
            linestyle=dashes,
            marker=marker,
            color=colour,
            linewidth=2.2 if everything else 1.1,
            markersize=3.5,
            label="all cases" if everything else f"{stratum} {level} (n = {max(p.n for p in points)})",
        )
        ends = [(p.number, p.low, p.high) for p in points if p.low is not None and p.high is not None]
        if everything and ends:
            places, low, high = zip(*ends, strict=True)
            axis.fill_between(places, low, high, color="black", alpha=0.12, linewidth=0)
    axis.set_xticks(sorted({row.number for row in rows}))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.tick_params(labelsize=8)
    axis.set_ylabel("" if unit == "1" else unit, fontsize=8)
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)
