"""curves.png: how a training goes, drawn from log.jsonl after every epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's colours, which the colour-blind tell apart."""
MARKED_UP_TO = 60
"""Up to so many points are drawn as dots as well; a line of one point would be invisible."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The epochs of a log; a last line that was cut off by a crash is left out."""
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def validation_numbers(entry: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """What was measured on validation cases after an epoch: metric and class to its number.

    ``validation_dice`` maps classes to Dice, and every ``validation_NAME`` with such a mapping is the metric ``NAME``.
    Where a class has a mapping of its own, as in ``validation_samples``, its metrics are called ``METRIC, NAME``.
    Numbers that are not known are left out.

    Args:
        entry: a line of log.jsonl.
    """
    found: dict[tuple[str, str], float] = {}
    for key, of_classes in entry.items():
        name = key.removeprefix("validation_")
        if name == key or not isinstance(of_classes, Mapping):
            continue
        for label, value in of_classes.items():
            several = value if isinstance(value, Mapping) else {name: value}
            for metric, one in several.items():
                if isinstance(one, (int, float)) and math.isfinite(one):
                    called = metric if metric == name else f"{metric}, {name}"
                    found[called, label] = float(one)
    return found


def plot(log_path: Path, png_path: Path) -> None:
    """Draw loss, validation Dice for each class, learning rate, and seconds with the share of waiting.

    Epochs of all stages and members follow each other; a line marks where one ends. It takes about 0.2 s.

    Args:
        log_path: log.jsonl; each line has ``member``, ``stage``, ``epoch``, ``loss``, ``lr``, ``seconds``,
            ``wait_share`` and, where it was measured, ``validation_dice`` (class to Dice or null).
        png_path: the picture, written atomically. Without any epoch nothing is written.
    """
    entries = read_log(log_path)
    if not entries:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure((10, 6.2), layout=None)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    figure.subplots_adjust(left=0.07, right=0.93, bottom=0.08, top=0.93, wspace=0.2, hspace=0.24)
    _loss(axes[0, 0], entries)
    _dice(axes[0, 1], entries)
    _rate(axes[1, 0], entries)
    _time(axes[1, 1], entries)
    for axis in axes.flat:
        axis.margins(x=0.03)
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.grid(alpha=0.25)
        _boundaries(axis, entries, named=axis is axes[0, 0])
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    with atomic_path(png_path) as temporary:
        figure.savefig(temporary, dpi=90)


def _runs(entries: Sequence[dict[str, Any]]) -> list[tuple[tuple[Any, Any], list[int]]]:
    """Member and stage, with the indices of its entries, in order."""
    groups = groupby(range(len(entries)), key=lambda i: (entries[i].get("member"), entries[i].get("stage")))
    return [(key, list(indices)) for key, indices in groups]


def _line(
    axis: Axes, entries: Sequence[dict[str, Any]], values: Sequence[Any], colour: str, label: str = ""
) -> list[float]:
    """Draw the known values over their epochs (from 1), a line for each stage; return them."""
    known: list[float] = []
    x: list[float] = []
    y: list[float] = []
    for _, indices in _runs(entries):
        x.append(indices[0] + 0.5)  # a gap where a stage begins
        y.append(math.nan)
        found = [(i + 1, float(values[i])) for i in indices if values[i] is not None]
        x += [i for i, _ in found]
        y += [value for _, value in found]
        known += [value for _, value in found if math.isfinite(value)]
    marker = "." if len(known) <= MARKED_UP_TO else ""
    label = f"{label} {known[-1]:.3f}" if label and known else label
    axis.plot(x, y, color=colour, marker=marker, linewidth=1.3, label=label or None)
    return known


def _column(entries: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [entry.get(name) for entry in entries]


def _loss(axis: Axes, entries: Sequence[dict[str, Any]]) -> None:
    axis.set_title("training loss", fontsize=10, loc="left", pad=14)
    _line(axis, entries, _column(entries, "loss"), COLOURS[0])


def _dice(axis: Axes, entries: Sequence[dict[str, Any]]) -> None:
    axis.set_title(f"validation Dice, {what_is_watched(entries)}", fontsize=10, loc="left", pad=14)
    scores = [entry.get("validation_dice") or {} for entry in entries]
    names = list(dict.fromkeys(name for score in scores for name in score))
    for i, name in enumerate(names):
        _line(axis, entries, [score.get(name) for score in scores], COLOURS[i % len(COLOURS)], name)
    axis.set_ylim(-0.02, 1.02)
    if names:
        axis.legend(fontsize=8, loc="best", framealpha=0.7)
    else:
        axis.text(0.5, 0.5, "not measured yet", transform=axis.transAxes, ha="center", color="0.5")


def what_is_watched(entries: Sequence[dict[str, Any]]) -> str:
    """What the validation Dice of these epochs is measured on."""
    crops = any(entry.get("validation_view") == "lesion_crop" for entry in entries)
    return "crops centred on lesions" if crops else "whole volumes"


def _rate(axis: Axes, entries: Sequence[dict[str, Any]]) -> None:
    axis.set_title("learning rate", fontsize=10, loc="left", pad=14)
    _line(axis, entries, _column(entries, "lr"), COLOURS[0])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.set_ylim(bottom=0)


def _time(axis: Axes, entries: Sequence[dict[str, Any]]) -> None:
    axis.set_title("seconds per epoch, and share of waiting for data", fontsize=10, loc="left", pad=14)
    seconds = _line(axis, entries, _column(entries, "seconds"), COLOURS[0])
    axis.set_ylim(0, 1.1 * max(seconds, default=1) or 1)
    axis.set_ylabel("s", color=COLOURS[0])
    share = axis.twinx()
    shares = [None if v is None else 100 * v for v in _column(entries, "wait_share")]
    known = _line(share, entries, shares, COLOURS[4])
    share.set_ylim(0, max(10, 1.1 * max(known, default=0)))
    share.set_ylabel("waiting %", color=COLOURS[4])


def _boundaries(axis: Axes, entries: Sequence[dict[str, Any]], *, named: bool) -> None:
    """A line and a name where a stage or a member begins, when there are several."""
    runs = _runs(entries)
    if len(runs) < 2:
        return
    several = len({member for (member, _), _ in runs}) > 1
    for (member, stage), indices in runs:
        if indices[0]:
            axis.axvline(indices[0] + 0.5, color="0.6", linewidth=0.8, linestyle="--")
        if named:
            text = f"{stage} #{member}" if several else str(stage)
            place: dict[str, Any] = {
                "transform": axis.get_xaxis_transform(),
                "va": "bottom",
                "parse_math": False,
            }
            axis.text(indices[0] + 0.6, 1.01, text, fontsize=7, color="0.4", **place)
