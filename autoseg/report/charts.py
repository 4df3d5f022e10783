"""The figures of a report. Each function returns a :class:`~autoseg.report.drawing.Chart`, or None without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from autoseg.evaluation import statistics
from autoseg.evaluation.cohort import plain_mean
from autoseg.evaluation.summary import CaseScores, MetricRow, Stratum, Summary
from autoseg.evaluation.summary_text import table_metrics
from autoseg.evaluation.text import number, p_text, spoken, titled
from autoseg.evaluation.thresholds import Counts, precision_recall
from autoseg.messages import count_of
from autoseg.report.blocks import Records
from autoseg.report.collect import ScoredFolder, Training
from autoseg.report.drawing import (
    COLOURS,
    MARKERS,
    Chart,
    Panel,
    Style,
    folded,
    log_axis,
    points,
    short_number,
)
from autoseg.report.score_tables import split
from autoseg.training.curves import validation_numbers, what_is_watched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 5
"""Fewer points than this have no box: quartiles of so few say nothing."""
MOST_NARROW = 6
"""Up to so many groups fit into a panel of normal width."""
LETTERS, LEAST_LETTERS = 44, 8
"""Of all names below an axis of normal width, on one line; of a single name."""
WIDE_SPREAD = 30.0
"""Volumes whose largest is more than this times their smallest are shown on a logarithmic axis."""
ISO_F1 = (0.2, 0.4, 0.6, 0.8)
MARKED = 40
"""Curves of up to so many points have a marker for each."""
STAGES = " Vertical lines mark where a stage or a member begins."


# ------------------------------------------------------------------------------------------------------- training


def training_curves(trainings: Sequence[Training]) -> Chart | None:
    """Loss of each fold, and what was validated of each class, with a line for each fold."""
    trained = [training for training in trainings if training.log]
    if not trained:
        return None

    def loss(axis: Axes, style: Style) -> None:
        _curves(axis, style, trained, [[entry.get("loss") for entry in t.log] for t in trained])
        axis.set_ylabel("loss")

    ends = [
        f"{t.name} {t.log[-1].get('loss', math.nan):.3g} after {count_of(len(t.log), 'epoch')}"
        for t in trained
    ]
    panels = [Panel("training loss", f"Training loss by epoch; at the end {', '.join(ends)}", loss)]
    panels += [_validated(trained, metric, label) for metric, label in _measured(trained)]
    return Chart(
        "training",
        f"Training loss, and validation during the training ({_watched_words(trained)}), which is no result: the "
        "scores of the finished fold are." + (STAGES if len(_run_lengths(trained[0])) > 1 else ""),
        tuple(panels),
    )


def _measured(trained: Sequence[Training]) -> list[tuple[str, str]]:
    """Metrics and classes that were validated in any epoch."""
    return list(dict.fromkeys(key for t in trained for entry in t.log for key in validation_numbers(entry)))


def _watched_words(trainings: Sequence[Training]) -> str:
    """What the validation looks at."""
    watched = what_is_watched([entry for training in trainings for entry in training.log])
    return f"Dice on {watched} of a few validation cases"


def _called(metric: str) -> str:
    """A metric of :func:`autoseg.training.curves.validation_numbers`, as it is spoken."""
    name, _, of = metric.partition(", ")
    return f"{spoken(name)} of {of}" if of else spoken(name)


def _validated(trained: Sequence[Training], metric: str, label: str) -> Panel:
    """A number of one class by epoch, a line for each fold."""
    values = [[validation_numbers(entry).get((metric, label)) for entry in t.log] for t in trained]

    def draw(axis: Axes, style: Style) -> None:
        _curves(axis, style, trained, values)
        axis.set_ylim(-0.02, 1.02)
        axis.set_ylabel(_called(metric))

    last = [f"{t.name} {_last(known)}" for t, known in zip(trained, values, strict=True)]
    return Panel(
        f"validation {_called(metric)}, {label}",
        f"{_called(metric)} of {label} by epoch; at the end {', '.join(last)}",
        draw,
    )


def _run_lengths(training: Training) -> list[int]:
    """Epochs of each stage of each member."""
    runs = groupby(training.log, key=lambda e: (e.get("member"), e.get("stage")))
    return [len(list(entries)) for _, entries in runs]


def _last(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{known[-1]:.3f}" if known else "not measured"


def _curves(
    axis: Axes, style: Style, trained: Sequence[Training], values: Sequence[Sequence[float | None]]
) -> None:
    """A line for each fold over its epochs of all stages and members."""
    for i, (training, of_fold) in enumerate(zip(trained, values, strict=True)):
        known = [(epoch + 1, v) for epoch, v in enumerate(of_fold) if v is not None]
        if known:
            x, y = zip(*known, strict=True)
            marker = "." if len(known) <= MARKED else None
            axis.plot(x, y, color=COLOURS[i % len(COLOURS)], marker=marker, label=training.name)
    if len(trained) > 1:
        axis.legend(ncols=1 + (len(trained) > 3))
    _epochs(axis, style, trained[0])


def _epochs(axis: Axes, style: Style, training: Training) -> None:
    """The axis of epochs, with a line where a stage or a member begins."""
    from matplotlib.ticker import MaxNLocator

    begins = np.cumsum([0, *_run_lengths(training)])
    for begin in begins[1:-1]:
        axis.axvline(begin + 0.5, color=style.muted, linewidth=0.8, linestyle=":")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_xlabel("epoch")


@dataclass(frozen=True)
class FoldsMean:
    """A number of one class, over folds, after an epoch.

    Attributes:
        epoch: from 1, through all stages and members.
        folds: that have a number there.
        mean, sd: of their numbers; sd with n - 1, None for one fold.
    """

    metric: str
    label: str
    epoch: int
    folds: int
    mean: float
    sd: float | None


def folds_means(trainings: Sequence[Training]) -> list[FoldsMean]:
    """Mean and SD over folds of all that was validated, epoch by epoch; none for fewer than two folds.

    The fold ``all`` has no validation cases of its own and does not count.
    """
    trained = [training for training in trainings if training.log and training.fold != "all"]
    if len(trained) < 2:
        return []
    found = []
    numbers = [[validation_numbers(entry) for entry in training.log] for training in trained]
    for metric, label in _measured(trained):
        for epoch in range(max(map(len, numbers))):
            here = [n[epoch].get((metric, label)) for n in numbers if epoch < len(n)]
            mean = plain_mean(value for value in here if value is not None)
            if mean.mean is not None:
                found.append(FoldsMean(metric, label, epoch + 1, mean.n, mean.mean, mean.sd))
    return found


def fold_records(trainings: Sequence[Training]) -> Records | None:
    """The numbers behind :func:`fold_curves`; None without any."""
    rows = tuple((m.label, m.metric, m.epoch, m.mean, m.sd, m.folds) for m in folds_means(trainings))
    return Records(("class", "metric", "epoch", "mean", "sd", "folds"), rows) if rows else None


def fold_curves(trainings: Sequence[Training]) -> Chart | None:
    """Validation by epoch as mean and SD over folds, a panel for each metric (Pérez Malla et al. 2019, Figure 1)."""
    found = folds_means(trainings)
    if not found:
        return None
    by_metric: dict[str, dict[str, list[FoldsMean]]] = {}
    for one in found:
        by_metric.setdefault(one.metric, {}).setdefault(one.label, []).append(one)
    return Chart(
        "training_folds",
        f"Validation during the training ({_watched_words(trainings)}), as mean (line) and SD (band) over folds, which "
        "is no result: the scores of the finished folds are.",
        tuple(_fold_curve(metric, of_classes, trainings[0]) for metric, of_classes in by_metric.items()),
    )


def _fold_curve(metric: str, of_classes: Mapping[str, Sequence[FoldsMean]], first: Training) -> Panel:
    several = len(of_classes) > 1
    numbers = sorted({one.folds for found in of_classes.values() for one in found})
    n = " to ".join(str(k) for k in dict.fromkeys([numbers[0], numbers[-1]]))

    def draw(axis: Axes, style: Style) -> None:
        for i, (label, found) in enumerate(of_classes.items()):
            colour, epochs = COLOURS[i % len(COLOURS)], [one.epoch for one in found]
            mean = np.array([one.mean for one in found])
            sd = np.array([math.nan if one.sd is None else one.sd for one in found])
            axis.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
            marker = MARKERS[i % len(MARKERS)] if len(found) <= MARKED else None
            axis.plot(epochs, mean, color=colour, marker=marker, markersize=3, label=label)
        axis.set_ylim(-0.02, 1.02)
        axis.set_ylabel(_called(metric))
        if several:
            axis.legend()
        _epochs(axis, style, first)
        axis.set_xlabel(f"epoch (mean and SD of {n} folds)")

    ends = ", ".join(
        f"{label} {found[-1].mean:.3f}" + ("" if found[-1].sd is None else f" ± {found[-1].sd:.3f}")
        for label, found in of_classes.items()
    )
    only = "" if several else f", {next(iter(of_classes))}"
    return Panel(
        f"validation {_called(metric)}{only}", f"{_called(metric)} by epoch; at the end {ends}", draw
    )


# --------------------------------------------------------------------------------------------------- distributions


def distributions(summary: Summary) -> Chart:
    """A panel for each metric of the preset's table of which some values are better than others."""
    shown = table_metrics(summary)
    graded = [m for m in shown if summary.metrics[m].better] or shown
    lines = any(
        c.classes[label][m] is None for m in graded for c in summary.cases for label in summary.classes
    )
    panels = []
    for metric in graded:
        groups = {
            label: [(c.name, c.classes[label][metric]) for c in summary.cases] for label in summary.classes
        }
        panels.append(_strips("", metric, groups, summary, range(len(groups)), lines))
    return Chart(
        "distributions",
        "Every point is a case. Box: quartiles and median; whiskers: the furthest cases within 1.5 quartile ranges. "
        "Cases in which a score is undefined are counted below the axis.",
        tuple(panels),
    )


def stratum(stratum: Stratum, summary: Summary, index: int) -> Chart:
    """The first metric of the preset's table, level by level; a panel for each class."""
    metric = table_metrics(summary)[0]
    cases = {case.name: case for case in summary.cases}
    panels = []
    for i, (label, levels) in enumerate(stratum.classes.items()):
        groups = {lv.name: [(name, cases[name].classes[label][metric]) for name in lv.cases] for lv in levels}
        panels.append(_strips(label, metric, groups, summary, [i] * len(groups)))
    caption = f"{spoken(metric)} by {split(stratum)}. Every point is a case."
    return Chart(f"stratum_{index}", caption, tuple(panels))


def _strips(
    prefix: str,
    metric: str,
    groups: Mapping[str, Sequence[tuple[str, float | int | None]]],
    summary: Summary,
    series: Sequence[int],
    undefined_line: bool = False,
) -> Panel:
    """Box and points for each group of (case, value)."""
    strips = _Strips(metric, summary.metrics[metric], groups, tuple(series), undefined_line)
    title = f"{prefix}: {strips.title}" if prefix else strips.title
    return Panel(title, strips.alt, strips.draw, wide=strips.wide)


@dataclass(frozen=True)
class _Strips:
    """Groups of cases beside each other; ``undefined_line`` keeps panels beside each other at one height."""

    metric: str
    row: MetricRow
    groups: Mapping[str, Sequence[tuple[str, float | int | None]]]
    series: tuple[int, ...]
    undefined_line: bool = False

    @property
    def title(self) -> str:
        """The metric and its unit."""
        return titled(self.metric, self.row.unit)

    @cached_property
    def known(self) -> dict[str, list[tuple[str, float]]]:
        """Group to its cases with a value."""
        return {
            name: [(case, float(v)) for case, v in rows if v is not None]
            for name, rows in self.groups.items()
        }

    @cached_property
    def labels(self) -> dict[str, str]:
        """Group to its name on short lines, so that all names fit below the axis."""
        limit = max(LEAST_LETTERS, LETTERS // max(1, len(self.groups)))
        return {name: folded(name, limit) for name in self.groups}

    @property
    def wide(self) -> bool:
        """Whether the groups need the width of the page."""
        letters = len(self.groups) * max(
            len(line) for text in self.labels.values() for line in text.split("\n")
        )
        return letters > 1.3 * LETTERS or len(self.groups) > MOST_NARROW

    @property
    def alt(self) -> str:
        """What the panel shows, in words: the median of each group."""
        medians = {name: [value for _, value in rows] for name, rows in self.known.items() if rows}
        texts = [
            f"{name} {number(float(np.median(values)), self.row.unit)}" for name, values in medians.items()
        ]
        return f"{self.title} of each case; medians: {', '.join(texts) or 'none'}"

    def draw(self, axis: Axes, style: Style) -> None:
        """Draw box and points of each group, with n below it."""
        ticks, unit = [], self.row.unit
        for place, (name, rows) in enumerate(self.known.items()):
            tips = [f"{case}: {spoken(self.metric)} {number(value, unit)}" for case, value in rows]
            where = (place, self.series[place], _span(self.known, unit))
            _strip(axis, style, [value for _, value in rows], tips, where)
            undefined = len(self.groups[name]) - len(rows)
            ticks.append(
                f"{self.labels[name]}\nn = {len(rows)}"
                + (f"\n{undefined} undefined" if undefined else "\n " * self.undefined_line)
            )
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set_xlim(-0.6, len(ticks) - 0.4)
        axis.grid(axis="x", visible=False)
        if unit == "1" and all(0 <= value <= 1 for rows in self.known.values() for _, value in rows):
            axis.set_ylim(-0.03, 1.03)
        if self.row.better == "zero":
            axis.axhline(0, color=style.muted, linewidth=0.8)


def _strip(
    axis: Axes, style: Style, values: Sequence[float], tips: Sequence[str], where: tuple[int, int, float]
) -> None:
    """Box and points of one group; ``where`` is its place, the number of its colour and the height of the axis."""
    place, series, height = where
    if len(values) >= FEW:
        _box(axis, style, values, place, COLOURS[series % len(COLOURS)])
    points(axis, style, place + _beside(values, 0.3, height), values, tips, series)


def _span(groups: Mapping[str, Sequence[tuple[str, float]]], unit: str) -> float:
    values = [value for rows in groups.values() for _, value in rows]
    return max(max(values) - min(values), 1.0 if unit == "1" else 0.0) if values else 1.0


def _box(axis: Axes, style: Style, values: Sequence[float], place: float, colour: str) -> None:
    from matplotlib.colors import to_rgba

    line = {"color": style.ink, "linewidth": 0.9}
    axis.boxplot(
        [values],
        positions=[place],
        widths=0.72,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": to_rgba(colour, 0.15), "edgecolor": style.muted, "linewidth": 0.8},
        medianprops={**line, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
    )


def _beside(values: Sequence[float], width: float, axis_height: float) -> np.ndarray:
    """Offsets that set points of nearly the same value beside each other, alternately left and right."""
    offsets = np.zeros(len(values))
    step = 0.03 * axis_height or 1.0
    rows: dict[int, list[int]] = {}
    for i in np.argsort(values, kind="stable"):
        rows.setdefault(math.floor(values[i] / step), []).append(int(i))
    for members in rows.values():
        distance = min(0.09, 2 * width / max(1, len(members) - 1))
        for k, i in enumerate(members):
            offsets[i] = (k - (len(members) - 1) / 2) * distance
    return offsets


# ---------------------------------------------------------------------------------------------------- against volume


def dice_against_volume(summary: Summary) -> Chart | None:
    """Dice against the true volume on a logarithmic axis, with the line of least squares; a panel for each class."""
    panels = [
        panel
        for i, label in enumerate(summary.classes)
        if (panel := _against_volume(label, i, summary.cases))
    ]
    if not panels:
        return None
    return Chart(
        "dice_volume",
        f"Dice against the true volume (logarithmic axis){_in_voxels(summary)}, with the line of least squares and its "
        "R²; p: that there is no such line (Student's t, not corrected). Cases without truth have no place here.",
        tuple(panels),
    )


def _in_voxels(summary: Summary) -> str:
    """How many voxels are a millilitre, where it is the same number in all cases: R² is then that of voxels too."""
    sizes = [
        voxels / volume
        for case in summary.cases
        for scores in case.classes.values()
        if (voxels := scores["voxels_truth"]) and (volume := scores["volume_truth_ml"])
    ]
    if not sizes or np.ptp(sizes) > 1e-6 * max(sizes):
        return ""
    return f", where 1 ml is {short_number(sizes[0])} voxels"


def _against_volume(label: str, series: int, cases: Sequence[CaseScores]) -> Panel | None:
    rows = [(c.name, c.classes[label]["volume_truth_ml"], c.classes[label]["dice"]) for c in cases]
    rows = [(name, float(volume), float(dice)) for name, volume, dice in rows if volume and dice is not None]
    if not rows:
        return None
    names, volumes, dices = zip(*rows, strict=True)
    fit = statistics.fit_log_volume(dices, volumes)
    fitted = not math.isnan(fit.slope)
    said = "too few cases for R²" if fit.n < statistics.FEWEST_ON_LINE else "R² undefined"
    said = said if math.isnan(fit.r_squared) else f"R² = {fit.r_squared:.2f}, {p_text(fit.p, 'p ')}"

    def draw(axis: Axes, style: Style) -> None:
        tips = [f"{name}: Dice {dice:.3f}, {volume:.4g} ml" for name, volume, dice in rows]
        points(axis, style, volumes, dices, tips, series)
        if fitted:
            x = np.array([min(volumes), max(volumes)])
            y = fit.intercept + fit.slope * np.log10(x)
            axis.plot(x, y, color=style.ink, linewidth=1.1, linestyle="--")
        log_axis(axis, volumes)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel(f"true volume, ml ({said}, n = {fit.n})")  # a legend would lie on points
        axis.set_ylabel("Dice")

    return Panel(
        label, f"Dice of {label} against log volume: {said}, slope {fit.slope:.3g} per tenfold volume", draw
    )


# -------------------------------------------------------------------------------------------------- precision, recall


def precision_recall_curves(scored: Mapping[str, ScoredFolder]) -> Chart | None:
    """Precision against recall at all thresholds, a line for each fold; a panel for each class."""
    counted = {name or "all cases": one.counts for name, one in scored.items() if one.counts}
    if not counted:
        return None
    labels = list(dict.fromkeys(label for cases in counted.values() for c in cases.values() for label in c))
    return Chart(
        "precision_recall",
        "Precision and recall of the voxels of all cases together at thresholds from 0 to 0.99, with the average "
        "precision (AP); the dot is the threshold 0.5. Grey lines: equal F1, which for voxels is Dice.",
        tuple(_precision_recall(label, counted) for label in labels),
    )


def _precision_recall(label: str, counted: Mapping[str, Mapping[str, Mapping[str, Counts]]]) -> Panel:
    curves = {
        name: precision_recall([classes[label] for classes in cases.values() if label in classes])
        for name, cases in counted.items()
    }
    legend = {
        name: f"{name}, AP {curve.average_precision:.3f}, n = {sum(label in c for c in counted[name].values())}"
        for name, curve in curves.items()
    }

    def draw(axis: Axes, style: Style) -> None:
        _iso_f1(axis, style)
        for i, (name, curve) in enumerate(curves.items()):
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(curve.recall, curve.precision, color=colour, label=legend[name], zorder=3)
            half = int(np.searchsorted(curve.thresholds, 0.5))
            axis.plot(
                curve.recall[half : half + 1],
                curve.precision[half : half + 1],
                marker="o",
                markersize=0.9 * math.sqrt(style.point_pt2),
                color=colour,
                markeredgecolor=style.ink,
                zorder=4,
            )
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axis.legend(loc="lower left")

    return Panel(label, f"Precision-recall curves of {label}: {'; '.join(legend.values())}", draw)


def _iso_f1(axis: Axes, style: Style) -> None:
    for f1 in ISO_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 200)  # where precision is 1 to where recall is
        precision = f1 * recall / (2 * recall - f1)
        axis.plot(recall, precision, color=style.muted, linewidth=0.7, alpha=0.6, zorder=1)
        axis.annotate(
            f"F1 {f1:g}",
            (1, precision[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=0.85 * style.font_pt,
            color=style.muted,
        )
