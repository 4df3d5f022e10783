"""Agreement of volumes (Bland and Altman 1986): of scored predictions, and of several methods by groups of cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from autoseg.comparison.comparison_schema import Comparison
from autoseg.comparison.level_means import ALL, ComparedLevel, Volumes, level_volumes, levels_of
from autoseg.evaluation import statistics
from autoseg.evaluation.summary import Summary
from autoseg.evaluation.text import alike
from autoseg.messages import count_of
from autoseg.report.blocks import Records
from autoseg.report.drawing import COLOURS, Chart, Panel, Style, folded, points, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sign = Literal["pred_minus_gt", "gt_minus_pred"]
SIGNS: tuple[Sign, Sign] = ("pred_minus_gt", "gt_minus_pred")
DIFFERENCE = {"pred_minus_gt": "prediction − truth", "gt_minus_pred": "truth − prediction"}
WIDE_SPREAD = 30.0
"""Volumes whose largest is more than this times their smallest are shown on a logarithmic axis."""
LETTERS = 44
"""Of a title on one line."""
MOST_PANELS = 48
"""With more of them, levels are left to the table."""


def agreement(summary: Summary, sign: Sign = "pred_minus_gt") -> Chart | None:
    """Difference against mean of both volumes, with limits of agreement; a panel for each class.

    Args:
        summary: the scores.
        sign: what is subtracted from what.
    """
    names = [case.name for case in summary.cases]
    panels = []
    for i, (label, entry) in enumerate(summary.classes.items()):
        if entry.volume_agreement is not None:
            truth, prediction = (
                np.array([case.classes[label][f"volume_{of}_ml"] for case in summary.cases], float)
                for of in ("truth", "prediction")
            )
            panels.append(_panel(label, i, names, truth, prediction, sign))
    return Chart("bland_altman", _caption(sign), tuple(panels)) if panels else None


def of_methods(comparison: Comparison, sign: Sign = "pred_minus_gt") -> list[Chart]:
    """The same for every method: a figure of all cases, and one for each level of each stratum.

    As Figure 3 of Pérez Malla et al. 2019, by post-processing step and subtype.
    """
    of_all: dict[tuple[str, str], list[Volumes]] = {}
    for label in comparison.classes:
        for one in level_volumes(comparison, label, levels_of(comparison, label)):
            of_all.setdefault((one.level.stratum, one.level.name), []).append(one)
    every = next(iter(of_all), (ALL, ""))
    if sum(map(len, of_all.values())) > MOST_PANELS:
        of_all = {every: of_all[every]}
    return [_of_level(found[0].level, i, found, comparison, sign) for i, found in enumerate(of_all.values())]


def _of_level(
    level: ComparedLevel, place: int, found: Sequence[Volumes], comparison: Comparison, sign: Sign
) -> Chart:
    several = len(comparison.classes) > 1
    methods = [method.name for method in comparison.methods]
    panels = [
        _panel(
            _title(one, several),
            methods.index(one.method),
            [comparison.cases[i] for i in one.level.cases],
            one.truth_ml,
            one.prediction_ml,
            sign,
        )
        for one in found
    ]
    n = count_of(len(level.cases), "case")
    if level.stratum == ALL:
        return Chart("bland_altman", f"All cases ({n}). {_caption(sign)}", tuple(panels))
    caption = f"{level.stratum}: {level.name} ({n}). {DIFFERENCE[sign]}, as above."
    return Chart(f"bland_altman_level_{place}", caption, tuple(panels))


def _title(one: Volumes, several: bool) -> str:
    """Class where there are several, method, and level where it is not all cases."""
    parts = [f"{one.label}: {one.method}" if several else one.method, one.level.name]
    return folded(", ".join(filter(None, parts)), LETTERS)


def _caption(sign: Sign) -> str:
    said = {
        "pred_minus_gt": "predicted minus true volume",
        "gt_minus_pred": "true minus predicted volume",
    }[sign]
    return (
        f"Agreement of volumes (Bland-Altman): {said} against the mean of both. Solid line: mean "
        "difference; dashed lines: limits of agreement, mean ± 1.96 SD; bands: their 95 % intervals (Student's t). "
        "Limits assume differences that are spread alike at all volumes: where they fan out, read the points."
    )


def _panel(
    title: str, series: int, names: Sequence[str], truth: np.ndarray, prediction: np.ndarray, sign: Sign
) -> Panel:
    """One plot; ``truth`` and ``prediction`` in ml, one for each of ``names``."""
    pair = (prediction, truth) if sign == "pred_minus_gt" else (truth, prediction)
    means, differences = (truth + prediction) / 2, pair[0] - pair[1]
    found = statistics.bland_altman(*pair)
    mean, low_limit, high_limit = (
        text.replace("-", "−") for text in alike("ml", found.mean, found.low_limit, found.high_limit)
    )
    lines = (
        (f"mean\n{mean}", found.mean, found.mean_interval, "-"),
        (f"+1.96 SD\n{high_limit}", found.high_limit, found.high_limit_interval, "--"),
        (f"−1.96 SD\n{low_limit}", found.low_limit, found.low_limit_interval, "--"),
    )

    def draw(axis: Axes, style: Style) -> None:
        axis.axhline(0, color=style.line, linewidth=1)
        for text, value, (low, high), kind in lines:
            axis.axhspan(low, high, color=COLOURS[series % len(COLOURS)], alpha=0.10, linewidth=0)
            axis.axhline(value, color=style.ink, linewidth=1, linestyle=kind)
            axis.annotate(
                text,
                (1, value),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=0.9 * style.font_pt,
            )
        tips = [
            f"{name}: {d:+.4g} ml, truth {t:.4g} ml"
            for name, d, t in zip(names, differences, truth, strict=True)
        ]
        points(axis, style, means, differences, tips, series)
        _volume_axis(axis, means)
        axis.margins(x=0.05, y=0.1)
        axis.set_xlabel(f"mean of truth and prediction, ml (n = {found.n})")
        axis.set_ylabel(f"{DIFFERENCE[sign]}, ml")

    said = f"mean {mean} ml, limits of agreement {low_limit} to {high_limit} ml"
    return Panel(title, f"Bland-Altman plot of {title}: {said}, n = {found.n}", draw)


def _volume_axis(axis: Axes, volumes: np.ndarray) -> None:
    """Logarithmic above the smallest volume when volumes are spread widely; 0 has a place of its own."""
    positive = volumes[volumes > 0]
    if len(positive) and positive.max() > WIDE_SPREAD * np.percentile(positive, 10):
        axis.set_xscale(
            "symlog", linthresh=10.0 ** math.floor(math.log10(np.percentile(positive, 5))), linscale=0.5
        )
        axis.set_xlim(left=0 if (volumes <= 0).any() else positive.min() / 1.5)
        axis.minorticks_off()
    axis.xaxis.set_major_formatter(short_number)


def volume_records(comparison: Comparison, sign: Sign) -> Records:
    """The numbers behind :func:`of_methods`, for all levels."""
    header = (
        "class",
        "stratum",
        "level",
        "method",
        "difference",
        "n",
        "mean_ml",
        "sd_ml",
        "low_ml",
        "high_ml",
    )
    rows = []
    for label in comparison.classes:
        for one in level_volumes(comparison, label, levels_of(comparison, label)):
            found = one.agreement(truth_first=sign == "gt_minus_pred")
            values = (found.n, found.mean, found.sd, found.low_limit, found.high_limit)
            rows.append((label, one.level.stratum, one.level.name, one.method, sign, *values))
    return Records(header, tuple(rows))
