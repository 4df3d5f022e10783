"""Figures of a comparison: differences of the methods, and their means by groups of cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.comparison.comparison_schema import Comparison, Difference
from autoseg.comparison.comparison_text import difference_text
from autoseg.comparison.level_means import ALL, ComparedLevel, LevelMean, averaging, level_means, levels_of
from autoseg.evaluation import statistics
from autoseg.evaluation.summary_text import interval_text
from autoseg.evaluation.text import number, titled
from autoseg.report.blocks import Records
from autoseg.report.drawing import COLOURS, MARKERS, Chart, Panel, Style, folded, points, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 44
"""Of all names below an axis of normal width, on one line."""
MOST_PANELS = 12
"""With more of them, only the main metrics have one."""
MOST_NARROW = 5
"""Up to so many levels fit into a panel of normal width."""


def differences(comparison: Comparison) -> Chart:
    """The mean difference of each pair of methods with its interval; a panel for each class and main metric."""
    return Chart(
        "differences",
        "Mean difference of each two methods over the cases that both have, with its 95 % interval. Filled: a "
        f"difference was shown (corrected p at most {comparison.alpha:g}); open: none was shown, which does not mean "
        "that there is none.",
        tuple(
            _differences(label, metric, results[metric].pairs, comparison)
            for label, results in comparison.classes.items()
            for metric in comparison.main
        ),
    )


def _differences(label: str, metric: str, pairs: Sequence[Difference], comparison: Comparison) -> Panel:
    row = comparison.metrics[metric]
    names = [f"{pair.first} − {pair.second}" for pair in pairs]

    def draw(axis: Axes, style: Style) -> None:
        for i, pair in enumerate(pairs):
            if pair.difference is None:
                continue
            if pair.low is not None and pair.high is not None:
                axis.plot([pair.low, pair.high], [i, i], color=COLOURS[0], linewidth=1.6)
            fill = COLOURS[0] if pair.better else "none"
            axis.plot(pair.difference, i, "D", color=COLOURS[0], markerfacecolor=fill, markersize=6)
        axis.axvline(0, color=style.muted, linewidth=1)
        axis.set_yticks(range(len(names)), [folded(name, LETTERS // 2) for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_formatter(short_number)
        better = {"higher": "right: the first is better", "lower": "left: the first is better"}.get(
            row.better or "", ""
        )
        axis.set_xlabel(better or "difference")

    said = "; ".join(
        f"{name} {difference_text(pair, row.unit)}" for name, pair in zip(names, pairs, strict=True)
    )
    title = titled(metric, row.unit)
    title = f"{label}: {title}" if len(comparison.classes) > 1 else title
    return Panel(title, f"Differences in {title}: {said}", draw)


# ----------------------------------------------------------------------------------------------------- means by level


def means_by_level(comparison: Comparison) -> list[Chart]:
    """Mean and interval of every method on all cases and on each level; a figure for each stratum.

    As Figures 2 and 4 of Pérez Malla et al. 2019: error bars by post-processing step and subtype.
    """
    strata = [stratum.name for stratum in comparison.strata] or [ALL]
    return [_by_stratum(comparison, name, i) for i, name in enumerate(strata)]


def _by_stratum(comparison: Comparison, stratum: str, place: int) -> Chart:
    of = {label: _levels(comparison, label, stratum) for label in comparison.classes}
    panels = [
        _means(found, comparison)
        for label, levels in of.items()
        for metric in shown_metrics(comparison)
        if (found := level_means(comparison, label, [metric], levels))
    ]
    how = averaging(comparison)
    interval = statistics.describe_interval(how.method, resamples=how.resamples)
    by = "" if stratum == ALL else f" and on each level of {stratum}"
    caption = (
        f"Mean of every method over all cases{by}, with its interval: {interval}. A bar ends where the axis does; "
        "where there is none, there were too few cases. n: cases in which the score is defined."
    )
    name = "means" if stratum == ALL else f"means_{place + 1}"
    return Chart(name, caption, tuple(panels))


def shown_metrics(comparison: Comparison) -> list[str]:
    """All metrics; the main ones where all are too many."""
    many = len(comparison.classes) * len(comparison.metrics) > MOST_PANELS
    return list(comparison.main if many else comparison.metrics)


def _levels(comparison: Comparison, label: str, stratum: str) -> list[ComparedLevel]:
    return [level for level in levels_of(comparison, label) if level.stratum in (ALL, stratum)]


def _means(found: Sequence[LevelMean], comparison: Comparison) -> Panel:
    """Means of one metric of one class, level by level and method by method."""
    label, metric = found[0].label, found[0].metric
    row = comparison.metrics[metric]
    title = titled(metric, row.unit)
    title = f"{label}: {title}" if len(comparison.classes) > 1 else title
    by_level: dict[str, list[LevelMean]] = {}
    for one in found:
        by_level.setdefault(f"{one.level.stratum}/{one.level.name}", []).append(one)
    rows = list(by_level.values())

    def draw(axis: Axes, style: Style) -> None:
        methods = [method.name for method in comparison.methods]
        for level, of_methods in enumerate(rows):
            for one in of_methods:
                i = methods.index(one.method)
                _bar(axis, style, level + _beside(i, len(methods)), one, i, row.unit)
        axis.set_xticks(range(len(rows)), [_tick(of_methods, len(rows)) for of_methods in rows])
        axis.set_xlim(-0.55, len(rows) - 0.45)
        for between in range(1, len(rows)):
            axis.axvline(between - 0.5, color=style.line, linewidth=0.6)
        axis.grid(axis="x", visible=False)
        _limits(axis, [v for values in comparison.scores[label][metric].values() for v in values], row.unit)
        axis.yaxis.set_major_formatter(short_number)
        _legend(axis, style, methods)

    said = "; ".join(
        f"{of_methods[0].level.words}: "
        + ", ".join(f"{one.method} {interval_text(one.mean, row.unit)}" for one in of_methods)
        for of_methods in rows
    )
    return Panel(title, f"Means of {title}. {said}", draw, wide=len(rows) > MOST_NARROW)


def _beside(i: int, n: int) -> float:
    """The place of the i-th of n methods beside its level."""
    step = min(0.2, 0.8 / n)
    return (i - (n - 1) / 2) * step


def _bar(axis: Axes, style: Style, x: float, one: LevelMean, series: int, unit: str) -> None:
    mean = one.mean
    if mean.mean is None:
        return
    colour = COLOURS[series % len(COLOURS)]
    if mean.low is not None and mean.high is not None:
        axis.plot([x, x], [mean.low, mean.high], color=colour, linewidth=1.6, solid_capstyle="butt")
        for end in (mean.low, mean.high):
            axis.plot([x - 0.04, x + 0.04], [end, end], color=colour, linewidth=1.2)
    tip = f"{one.method}, {one.level.words}: {interval_text(mean, unit)}, SD {number(mean.sd, unit)}, n = {mean.n}"
    points(axis, style, [x], [mean.mean], [tip], series)


def _tick(of_methods: Sequence[LevelMean], n_levels: int) -> str:
    """Name of a level, and how many cases its means are of."""
    numbers = sorted({one.mean.n for one in of_methods})
    n = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{folded(of_methods[0].level.words, max(9, LETTERS // n_levels))}\nn = {n}"


def _limits(axis: Axes, scores: Sequence[float | None], unit: str) -> None:
    """The axis covers what single cases reach: the mean of few may have an interval beyond what is possible."""
    known = np.array([value for value in scores if value is not None], float)
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    if unit == "1" and low >= 0 and high <= 1:
        axis.set_ylim(-0.03, 1.03)
        return
    room = 0.04 * (high - low) or 0.5
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, low - room), min(top, high + room))


def _legend(axis: Axes, style: Style, methods: Sequence[str]) -> None:
    """One for a figure, below all of its panels."""
    from matplotlib.lines import Line2D

    figure: Any = axis.figure
    if figure.legends:
        return
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markeredgecolor=style.ink,
            markeredgewidth=0.4,
            markersize=style.point_pt2**0.5,
            label=name,
        )
        for i, name in enumerate(methods)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))


def mean_records(comparison: Comparison) -> Records:
    """The numbers behind :func:`means_by_level`, of all metrics, in full."""
    header = (
        "class",
        "metric",
        "unit",
        "stratum",
        "level",
        "method",
        "mean",
        "low",
        "high",
        "sd",
        "n",
        "undefined",
    )
    return Records(header, tuple(_mean_rows(comparison)))


def _mean_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for label in comparison.classes:
        for one in level_means(comparison, label, list(comparison.metrics), levels_of(comparison, label)):
            mean = one.mean
            values = (mean.mean, mean.low, mean.high, mean.sd, mean.n, mean.undefined)
            unit = comparison.metrics[one.metric].unit
            yield (label, one.metric, unit, one.level.stratum, one.level.name, one.method, *values)
