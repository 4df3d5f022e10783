"""A case of a comparison: slices of the image, of every method's mask and of the truth beside each other.

Classes have their colours (as in Hu et al. 2020, Brain SegNet, Fig. 4).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.comparison.comparison_schema import Comparison
from autoseg.dataset.imageio import Geometry, as_labels, differences, read_image
from autoseg.errors import AutosegError
from autoseg.evaluation.case_files import file_of, true_mask
from autoseg.evaluation.metrics.pair import union_box
from autoseg.evaluation.text import number, spoken
from autoseg.labels import LabelSet
from autoseg.report.montage import (
    Window,
    choose_slices,
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
from autoseg.report.picture import TRUTH, channel_name, find_image
from autoseg.report.planes import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS, MOST_CHANNELS = 3, 3
WIDTH_IN, WIDEST_PANEL_IN = 14.0, 2.4
LETTERS_AN_INCH = 13
TINT = 0.55
"""Opacity of a class, so that the tissue is seen through it."""

Masks = dict[str, np.ndarray]
"""Class to boolean ``[slices, rows, columns]``."""


@dataclass(frozen=True)
class Beside:
    """A case as it is drawn.

    Attributes:
        name: of the case.
        images: channel to ``[slices, rows, columns]``; the first is drawn under the masks.
        masks: method to its masks; the truth is the last, called ``truth``.
        view: how they were turned.
        lines: scores in words.
    """

    name: str
    images: dict[str, np.ndarray]
    masks: dict[str, Masks]
    view: View
    lines: list[str]

    @property
    def background(self) -> np.ndarray:
        """The image under the masks."""
        return next(iter(self.images.values()))


def choose_compared(comparison: Comparison, n: int) -> list[tuple[str, str]]:
    """``n`` cases with their ranks by the mean of the first main metric over methods and classes, the worst first.

    They are spread evenly over that order: three are the worst, the median and the best.
    """
    order = ranked(comparison)
    last = len(order) - 1
    places = [last // 2] if n == 1 else [i * last // (n - 1) for i in range(n)]
    names = {last // 2: "median", last: "best", 0: "worst"} if last else {0: "only"}
    return [
        (names.get(place, f"number {place + 1} of {last + 1} from the worst,"), order[place])
        for place in dict.fromkeys(places)
    ]


def ranked(comparison: Comparison) -> list[str]:
    """The cases by the mean of the first main metric over methods and classes, the worst first."""
    metric = comparison.main[0]
    better = comparison.metrics[metric].better
    values = np.array(
        [row for of_class in comparison.scores.values() for row in of_class[metric].values()], float
    )
    values = np.abs(values) if better == "zero" else values
    known = ~np.isnan(values)
    sums = np.where(known, values, 0).sum(0)
    means = np.where(
        known.any(0), sums / np.maximum(1, known.sum(0)), -np.inf if better == "higher" else np.inf
    )
    order = np.argsort(means if better == "higher" else -means, kind="stable")
    return [comparison.cases[i] for i in order]


def read_beside(
    comparison: Comparison, case: str, images: Path, channel: int, channel_names: Mapping[str, str]
) -> Beside:
    """Read and turn what is drawn of one case.

    Args:
        comparison: with the folders of the methods and of the truths.
        case: one of its cases.
        images: folder of ``CASE_0000.nii.gz``.
        channel: that the masks are drawn on; up to two others stand beside it.
        channel_names: number to name, as in dataset.json; may be empty.

    Raises:
        AutosegError: a file is missing or damaged, or lies on another grid.
    """
    path = true_mask(Path(comparison.truths), case)
    if path is None:
        raise AutosegError("the true mask has vanished since it was scored", where=case)
    truth = read_image(path)
    view, labels = View.of(truth.geometry), LabelSet.from_labels(comparison.labels)
    label = as_labels(truth.pixels, where=case)
    found = {c: find_image(images, case, c) for c in shown_channels(channel)}
    if found[channel] is None:
        raise AutosegError(
            "the image is missing", where=case, expected=f"{images / case}_{channel:04d}.nii.gz"
        )
    paths = {method.name: file_of(Path(method.folder), case) for method in comparison.methods}
    masks = {"truth": label}
    for method, mask in paths.items():
        if mask is None:
            raise AutosegError(f"the mask of {method} has vanished since it was scored", where=case)
        masks[method] = as_labels(_on_grid(mask, truth.geometry, case), where=case)
    if labels.ignore is not None:
        masks = {name: np.where(label == labels.ignore, 0, mask) for name, mask in masks.items()}
    turned = {name: labels.masks(view.turn(masks[name])) for name in [*paths, "truth"]}
    return Beside(
        name=case,
        images={
            channel_name(c, channel_names): view.turn(_on_grid(image, truth.geometry, case))
            for c, image in found.items()
            if image is not None
        },
        masks=turned,
        view=view,
        lines=_score_lines(comparison, case),
    )


def shown_channels(channel: int) -> list[int]:
    """The numbers of the channel that the masks are drawn on and of the first others, as far as they are there."""
    others = [c for c in range(MOST_CHANNELS) if c != channel]
    return [channel, *others][:MOST_CHANNELS]


def _on_grid(path: Path, geometry: Geometry, case: str) -> np.ndarray:
    """The voxels of a file, if it lies on the grid of the truth."""
    image = read_image(path)
    for what, found, expected in differences(geometry, image.geometry):
        raise AutosegError(
            f"the {what} of {path.name} is not that of the truth", where=case, found=found, expected=expected
        )
    return image.pixels


def _score_lines(comparison: Comparison, case: str) -> list[str]:
    """The first main metric of each class and method."""
    place, metric = comparison.cases.index(case), comparison.main[0]
    unit = comparison.metrics[metric].unit
    lines = []
    for label, of_class in comparison.scores.items():
        values = (f"{method} {number(row[place], unit)}" for method, row in of_class[metric].items())
        lines.append(f"{spoken(metric)} of {label}{'' if unit == '1' else f', {unit}'}: {', '.join(values)}")
    return lines


# ------------------------------------------------------------------------------------------------------- drawing


def draw_beside(beside: Beside, head: str) -> Figure:
    """Rows of slices; columns of channels, methods and truth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    everything = np.logical_or.reduce([mask for masks in beside.masks.values() for mask in masks.values()])
    truth = np.logical_or.reduce(list(beside.masks["truth"].values()))
    slices = choose_slices(truth, everything, MOST_ROWS)
    window = choose_window(beside.background, everything)
    if everything.any():
        window = zoom(window, union_box(everything)[1:])
    columns = [*beside.images, *beside.masks]
    rows_mm, columns_mm = (
        (s.stop - s.start) * mm for s, mm in zip(window, beside.view.spacing_mm[1:], strict=True)
    )
    width = min(WIDEST_PANEL_IN, WIDTH_IN / len(columns))
    several = len(beside.masks["truth"]) > 1
    top, bottom = 0.45 + 0.16 * len(beside.lines), 0.35 if several else 0.05
    size = (width * len(columns), width * rows_mm / columns_mm * len(slices) + top + bottom)
    figure = Figure(size, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(slices),
        len(columns),
        squeeze=False,
        gridspec_kw={"left": 0.002, "right": 0.998, "bottom": bottom / size[1], "top": 1 - top / size[1]}
        | {"wspace": 0.02, "hspace": 0.02},
    )
    for i, index in enumerate(slices):
        for axis, name in zip(axes[i], columns, strict=True):
            _panel(axis, beside, name, index, window)
            title = textwrap.fill(name, round(LETTERS_AN_INCH * width))
            _words(axis, "" if i else title, f"slice {index + 1}" if name == columns[0] else "")
    put_bar(axes[-1, 0], columns_mm)
    put_title(figure, head, beside.lines)
    if several:
        put_legend(figure, class_entries(beside.masks["truth"]))
    return figure


def _panel(axis: Axes, beside: Beside, name: str, index: int, window: Window) -> None:
    """A channel, or a mask on the first channel."""
    image = beside.images.get(name, beside.background)
    aspect = beside.view.spacing_mm[1] / beside.view.spacing_mm[2]
    show_slice(axis, image[index][window], greys(image), aspect)
    masks = beside.masks.get(name, {})
    entries = class_entries(masks) if len(masks) > 1 else [(label, TRUTH, "-") for label in masks]
    by_size = sorted(entries, key=lambda one: -np.count_nonzero(masks[one[0]]))  # regions may hold others
    for label, colour, line in by_size:
        seen = masks[label][index][window]
        fill(axis, seen, colour, aspect, TINT)
        contour(axis, seen, colour, line)


def _words(axis: Axes, above: str, below: str) -> None:
    """What a panel shows, and the number of its slice."""
    axis.text(0.02, 0.98, above, va="top", **letters(axis, 8.5))
    axis.text(0.02, 0.02, below, va="bottom", **letters(axis, 8.5))
