"""One case of every group of a comparison: the image, the truth and every method beside each other.

As Figures 6 to 8 of Pérez Malla et al. 2019. The case of a group is the one at the median, so that it is neither the
best nor the worst of what its group holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.comparison.comparison_schema import Comparison, StratumComparison
from autoseg.evaluation.metrics.pair import union_box
from autoseg.evaluation.text import number, spoken
from autoseg.report.montage import (
    Window,
    choose_window,
    class_entries,
    contour,
    fill,
    greys,
    letters,
    put_bar,
    put_legend,
    put_title,
    show_slice,
    zoom,
)
from autoseg.report.picture import PREDICTION, TRUTH
from autoseg.report.side_by_side import Beside, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, WIDEST_PANEL_IN = 14.0, 2.4
HEAD_IN, TITLE_IN, FOOT_IN = 0.62, 0.26, 0.4
"""Heights above all rows, above each of them, and below."""
TINT = 0.45
"""Opacity of a mask, so that the tissue is seen through it."""


@dataclass(frozen=True)
class Representative:
    """The case that stands for a group.

    Attributes:
        level: of the stratum.
        n: cases of the level.
        case: the one at the median.
    """

    level: str
    n: int
    case: str

    @property
    def words(self) -> str:
        """Group and case."""
        of = (
            f"median of {self.n} cases"
            if self.n > 2
            else "worse of 2 cases"
            if self.n == 2
            else "the only case"
        )
        return f"{self.level}: {self.case}, {of}"


def representatives(comparison: Comparison, stratum: StratumComparison) -> list[Representative]:
    """One case of each level, the median by the mean of the first main metric over methods and classes.

    Of an even number of cases the worse one of the two in the middle. Where the classes split the cases differently, as
    quantiles of their sizes do, the levels are those of the first class.
    """
    order = ranked(comparison)
    found = []
    for level in next(iter(stratum.classes.values())):
        members = [case for case in order if case in level.cases]
        if members:
            found.append(Representative(level.name, len(members), members[(len(members) - 1) // 2]))
    return found


def rule(comparison: Comparison) -> str:
    """How the cases were chosen, in words."""
    metric = spoken(comparison.main[0])
    return f"Of every group the case at the median of {metric}, as mean over methods; the slice with most of the truth."


@dataclass(frozen=True)
class _ShownRow:
    """One case: what is seen of which slice."""

    beside: Beside
    index: int
    window: Window

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of what is seen."""
        rows, columns = (
            (s.stop - s.start) * mm
            for s, mm in zip(self.window, self.beside.view.spacing_mm[1:], strict=True)
        )
        return rows, columns


def _row(beside: Beside) -> _ShownRow:
    """The slice with most of the truth, or of any mask without truth, near enough to be seen."""
    of_truth = np.logical_or.reduce(list(beside.masks["truth"].values()))
    everything = np.logical_or.reduce([mask for masks in beside.masks.values() for mask in masks.values()])
    shown = of_truth if of_truth.any() else everything
    if not shown.any():
        return _ShownRow(beside, len(shown) // 2, choose_window(beside.background, everything))
    index = int(np.count_nonzero(shown, axis=(1, 2)).argmax())
    window = choose_window(beside.background, everything)
    return _ShownRow(beside, index, zoom(window, union_box(shown[index : index + 1])[1:]))


def draw_groups(comparison: Comparison, shown: Sequence[tuple[Representative, Beside]], head: str) -> Figure:
    """Rows of cases; columns of the image, the truth and every method.

    Args:
        comparison: with the scores.
        shown: at least one case, of which all have the same methods and classes.
        head: title of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [_row(beside) for _, beside in shown]
    columns = [next(iter(rows[0].beside.images)), "truth", *(method.name for method in comparison.methods)]
    width = min(WIDEST_PANEL_IN, WIDTH_IN / len(columns))
    heights = [TITLE_IN + width * row.size_mm[0] / row.size_mm[1] for row in rows]
    figure = Figure((width * len(columns), HEAD_IN + sum(heights) + FOOT_IN), facecolor="black")
    FigureCanvasAgg(figure)
    below = HEAD_IN
    for height, row, (chosen, _) in zip(heights, rows, shown, strict=True):
        _draw_row(figure, row, columns, (below, height), chosen, comparison)
        below += height
    put_title(figure, head, [rule(comparison)])
    classes = rows[0].beside.masks["truth"]
    one = [("truth", TRUTH, "-"), ("method", PREDICTION, "-")]
    put_legend(figure, class_entries(classes) if len(classes) > 1 else one)
    return figure


def _draw_row(
    figure: Figure,
    row: _ShownRow,
    columns: Sequence[str],
    place: tuple[float, float],
    chosen: Representative,
    comparison: Comparison,
) -> None:
    """One case; ``place``: how far it lies below the top and how high it is, in inches."""
    whole = figure.get_figheight()
    (below, height), n = place, len(columns)
    words = f"{chosen.words}, slice {row.index + 1}"
    white: dict[str, Any] = {"color": "white", "fontsize": 9.5, "va": "top", "parse_math": False}
    figure.text(0.008, 1 - (below + 0.04) / whole, words, **white)
    for i, name in enumerate(columns):
        box = (i / n, 1 - (below + height) / whole, 0.985 / n, (height - TITLE_IN) / whole)
        axis = figure.add_axes(box)
        _panel(axis, row, name)
        axis.text(0.03, 0.97, name, va="top", **letters(axis, 8.5))
        if i > 1:
            score = _score(comparison, chosen.case, name)
            axis.text(0.03, 0.03, score, va="bottom", **letters(axis, 8.5))
        elif i == 0:
            put_bar(axis, row.size_mm[1])


def _score(comparison: Comparison, case: str, method: str) -> str:
    """The first main metric of each class."""
    place, metric = comparison.cases.index(case), comparison.main[0]
    unit = comparison.metrics[metric].unit
    values = [number(of[metric][method][place], unit) for of in comparison.scores.values()]
    return f"{spoken(metric)} {' / '.join(values)}{'' if unit == '1' else f' {unit}'}"


def _panel(axis: Axes, row: _ShownRow, name: str) -> None:
    """The image, with a mask where the column is of one; the outline of the truth on every method of one class."""
    beside = row.beside
    aspect = beside.view.spacing_mm[1] / beside.view.spacing_mm[2]
    show_slice(axis, beside.background[row.index][row.window], greys(beside.background), aspect)
    masks = beside.masks.get(name, {})
    if len(masks) == 1:
        ((label, mask),) = masks.items()
        colour = TRUTH if name == "truth" else PREDICTION
        fill(axis, mask[row.index][row.window], colour, aspect, TINT)
        if name != "truth":
            contour(axis, beside.masks["truth"][label][row.index][row.window], TRUTH, "-")
        return
    entries = {label: colour for label, colour, _ in class_entries(masks)}
    for label in sorted(masks, key=lambda one: -np.count_nonzero(masks[one])):  # regions may hold others
        seen = masks[label][row.index][row.window]
        fill(axis, seen, entries[label], aspect, TINT)
        contour(axis, seen, entries[label], "-")
