"""How sure a model is, in colour over the image: truth above, the probability of each class below.

As Fig. 5 of Hu et al. 2020 (Brain SegNet).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autoseg.evaluation.metrics.pair import union_box
from autoseg.report.montage import (
    Window,
    choose_slices,
    choose_window,
    class_entries,
    contour,
    greys,
    letters,
    put_bar,
    put_legend,
    put_title,
    score_lines,
    show_slice,
    zoom,
)
from autoseg.report.picture import TRUTH, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS, MOST_CLASSES = 5, 4
PANEL_IN, TOP_IN, BOTTOM_IN = 2.4, 0.45, 0.55
COLOURS = "inferno"
CLEAR, OPAQUE = 0.02, 0.6
"""Probabilities below which the image alone is seen, and from which on the colour is full."""
FULL = 0.85
"""Opacity of a full colour."""
MARK = 0.05
"""Slices and the part of them that is shown hold every voxel with a higher probability than this."""


def draw_probabilities(picture: Picture, probabilities: dict[str, np.ndarray], head: str) -> Figure:
    """Columns of slices; the truth above, a row for each class (the first four) below.

    Args:
        picture: of the case.
        probabilities: class to ``[slices, rows, columns]`` on the grid of the picture.
        head: the title, below which the scores stand.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = list(probabilities)[:MOST_CLASSES]
    likely = np.logical_or.reduce([probabilities[name] > MARK for name in classes])
    shown = picture.any_truth | picture.any_prediction | likely
    slices = choose_slices(picture.any_truth, shown, MOST_COLUMNS)
    window = choose_window(picture.image, shown)
    if shown.any():
        window = zoom(window, union_box(shown)[1:])
    height_mm, width_mm = (
        (s.stop - s.start) * mm for s, mm in zip(window, picture.view.spacing_mm[1:], strict=True)
    )
    lines = score_lines(picture)
    top = TOP_IN + 0.16 * len(lines)
    rows = 1 + len(classes)
    size = (PANEL_IN * max(3, len(slices)), PANEL_IN * height_mm / width_mm * rows + top + BOTTOM_IN)
    figure = Figure(size, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows,
        len(slices),
        squeeze=False,
        gridspec_kw={"left": 0.002, "right": 0.998, "bottom": BOTTOM_IN / size[1], "top": 1 - top / size[1]}
        | {"wspace": 0.02, "hspace": 0.02},
    )
    grey, aspect = greys(picture.image), picture.view.spacing_mm[1] / picture.view.spacing_mm[2]
    for column, index in enumerate(slices):
        for row, name in enumerate(["", *classes]):
            axis = axes[row, column]
            show_slice(axis, picture.image[index][window], grey, aspect)
            if name:
                _colour(axis, probabilities[name][index][window], aspect)
                contour(axis, picture.prediction[name][index][window], "white", "-")
            else:
                _truth(axis, picture, index, window)
            words = f"probability of {name}" if name else f"truth, slice {index + 1}"
            words = words if not column else "" if name else f"slice {index + 1}"
            axis.text(0.02, 0.98, words, va="top", **letters(axis, 8.5))
    put_bar(axes[-1, -1], width_mm)
    put_title(figure, head, lines)
    _scale(figure)
    if len(picture.truth) > 1:
        put_legend(figure, class_entries(picture.truth))
    return figure


def _truth(axis: Axes, picture: Picture, index: int, window: Window) -> None:
    entries = (
        class_entries(picture.truth) if len(picture.truth) > 1 else [(n, TRUTH, "-") for n in picture.truth]
    )
    for name, colour, line in entries:
        contour(axis, picture.truth[name][index][window], colour, line)


def _colour(axis: Axes, probability: np.ndarray, aspect: float) -> None:
    """A probability in colour; where there is next to none, the image alone is seen."""
    from matplotlib import colormaps

    rgba = colormaps[COLOURS](np.clip(probability, 0, 1).astype(float))
    rgba[..., 3] = FULL * np.clip((probability - CLEAR) / (OPAQUE - CLEAR), 0, 1) ** 0.5
    axis.imshow(rgba, aspect=aspect, interpolation="nearest")


def _scale(figure: Figure) -> None:
    """The colours of probabilities, and what the white line is."""
    width, height = figure.get_size_inches()
    axis = figure.add_axes((1 - 2.3 / width, 0.24 / height, 2.1 / width, 0.1 / height))
    axis.imshow(np.linspace(0, 1, 256)[None], cmap=COLOURS, aspect="auto", extent=(0, 1, 0, 1))
    axis.set_yticks([])
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], color="white", fontsize=8)
    axis.tick_params(length=0, pad=2)
    figure.text(
        1 - 2.4 / width,
        0.22 / height,
        "white line: prediction   probability",
        color="white",
        fontsize=8.5,
        ha="right",
    )
