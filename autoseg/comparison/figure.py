"""comparison.png and comparison.svg: the difference of every case, with mean and interval, for each pair of methods.

One panel for each class and main metric. A dot is a case; its colour says which method was better in it, which its side
of the line says too. The diamond is the mean difference with its interval: filled where a difference was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.comparison.comparison_schema import Comparison, Difference
from autoseg.comparison.comparison_text import difference_text
from autoseg.comparison.notes import SPOKEN
from autoseg.comparison.ranking import comparable
from autoseg.evaluation.text import p_text, spoken
from autoseg.files import atomic_path
from autoseg.messages import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST, SECOND, SAME = "#0072B2", "#E69F00", "#888888"
"""Cases in which the first method is better, the second, or neither; Okabe and Ito's blue and orange."""
PANEL_INCHES, ROW_INCHES, HEAD_INCHES, FOOT_INCHES = 5.2, 0.78, 0.75, 0.75
ROUNDING = 1e-12
GOLDEN = 0.6180339887  # multiples of it, modulo 1, spread evenly for any number of dots


def draw_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.png and comparison.svg into a folder and return their paths."""
    from matplotlib import rc_context

    written = []
    # text stays text; the same file each time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "autoseg"}):
        figure = make_figure(comparison)
        for ending, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
            path = Path(folder) / f"comparison{ending}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, facecolor="white", **options)
            written.append(path)
    return written


def make_figure(comparison: Comparison) -> Figure:
    """The figure: a row of panels for each class, a column for each main metric."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics, classes = comparison.main, list(comparison.classes)
    n_pairs = len(comparison.classes[classes[0]][metrics[0]].pairs)
    panel = HEAD_INCHES + ROW_INCHES * n_pairs
    size = (PANEL_INCHES * len(metrics), panel * len(classes) + FOOT_INCHES)
    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(classes), len(metrics), squeeze=False)
    for row, label in enumerate(classes):
        for column, metric in enumerate(metrics):
            _panel(axes[row, column], comparison, label, metric)
    _legend(figure, comparison)
    return figure


def _panel(axis: Axes, comparison: Comparison, label: str, metric: str) -> None:
    row, pairs = comparison.metrics[metric], comparison.classes[label][metric].pairs
    scores = comparison.scores[label][metric]
    absolute = "absolute " if row.better == "zero" else ""
    title = f"{label}: {absolute}{spoken(metric)}"
    axis.set_title(title, fontsize=10, loc="left", weight="bold", parse_math=False)
    sign = 1 if row.better == "higher" else -1
    for place, pair in enumerate(pairs):
        a, b = (comparable(np.array(scores[name], float), row.better) for name in (pair.first, pair.second))
        axis.plot([0, 0], [place - 0.12, place + 0.5], color="0.35", linewidth=0.9, zorder=1)
        differences = (a - b)[~np.isnan(a - b)]
        differences[np.abs(differences) < ROUNDING] = 0
        _dots(axis, differences, place, sign)
        _mean(axis, pair, place)
        _row_text(axis, pair, place, row.unit)
    axis.set_ylim(len(pairs) - 0.5, -0.45)
    axis.set_yticks([])
    limit = max((abs(v) for v in axis.get_xlim()), default=1.0) or 1.0
    axis.set_xlim(-limit, limit)  # both sides alike, so that one sees which is the longer
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(labelsize=8)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    axis.set_xlabel(_axis_text(_called(pairs), row.unit, sign), fontsize=8, parse_math=False)


def _called(pairs: Sequence[Difference]) -> tuple[str, str]:
    """The two methods where there are no others."""
    return (
        (_short(pairs[0].first, 18), _short(pairs[0].second, 18)) if len(pairs) == 1 else ("first", "second")
    )


def _axis_text(names: tuple[str, str], unit: str, sign: int) -> str:
    unit = "" if unit == "1" else f", {unit}"
    left, right = names[::-sign]
    towards, away = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"
    return f"{towards} {left} is better      {names[0]} - {names[1]}{unit}      {right} is better {away}"


def _dots(axis: Axes, differences: np.ndarray, place: int, sign: int) -> None:
    order = np.argsort(np.argsort(differences, kind="stable"), kind="stable")
    heights = place + 0.13 + 0.24 * ((order * GOLDEN) % 1 - 0.5)
    colours = np.where(differences * sign > 0, FIRST, np.where(differences * sign < 0, SECOND, SAME))
    alpha = 0.8 if len(differences) <= 60 else 0.45
    axis.scatter(differences, heights, s=16, c=colours, alpha=alpha, linewidths=0, zorder=2)


def _mean(axis: Axes, pair: Difference, place: int) -> None:
    if pair.difference is None:
        return
    height = place + 0.34
    if pair.low is not None and pair.high is not None:
        axis.plot([pair.low, pair.high], [height, height], color="black", linewidth=1.6, zorder=3)
    fill = "black" if pair.better else "white"
    axis.plot(
        pair.difference, height, marker="D", markersize=6, color="black", markerfacecolor=fill, zorder=4
    )


def _row_text(axis: Axes, pair: Difference, place: int, unit: str) -> None:
    """The names over the row at the left, its numbers at the right."""
    if pair.difference is None:
        numbers = "undefined in every case"
    else:
        numbers = f"{difference_text(pair, unit)}   {p_text(pair.p_holm, 'p ')}   n = {pair.n}"
    common: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "fontsize": 8, "va": "center"}
    axis.text(0, place - 0.3, _short(f"{pair.first} - {pair.second}"), ha="left", parse_math=False, **common)
    axis.text(1, place - 0.3, numbers, ha="right", parse_math=False, **common)


def _short(text: str, limit: int = 36) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def _legend(figure: Figure, comparison: Comparison) -> None:
    from matplotlib.lines import Line2D

    def marker(label: str, colour: str, fill: str, shape: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=shape, color=colour, markerfacecolor=fill, markersize=6, label=label
        )

    first, second = _called(next(iter(comparison.classes.values()))[comparison.main[0]].pairs)
    handles = [
        marker(f"a case, {first} is better", FIRST, FIRST, "o"),
        marker(f"a case, {second} is better", SECOND, SECOND, "o"),
        marker("mean and 95 % interval", "black", "white", "D"),
        marker("the same, difference shown", "black", "black", "D"),
    ]
    narrow = len(comparison.main) == 1
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2 if narrow else 4, fontsize=8, frameon=False
    )
    text = f"preset {comparison.preset.name}, {count_of(len(comparison.cases), 'case')}"
    text += f"; p: {SPOKEN[comparison.test]} test, Holm"
    figure.suptitle(text, fontsize=8, x=0.01, ha="left", color="0.3", parse_math=False)
