"""The montage of one case: slices without and with the outlines of truth and prediction, near enough to be seen.

Every slice stands there twice, bare and with outlines (several classes: bare, truth and prediction), so that a reader
sees what the outlines lie on. Outlines follow voxel edges; nothing is smoothed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.components import connected_components
from autoseg.evaluation.metrics.pair import union_box
from autoseg.evaluation.text import number
from autoseg.report.picture import PREDICTION, TRUTH, Picture, head_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = (TRUTH, PREDICTION, "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#FFFFFF")
"""Okabe and Ito's colours."""

DPI = 110
MOST_PANELS, MOST_COLUMNS = 18, 6
WIDTH_IN, WIDEST_PANEL_IN, NARROWEST_IN = 14.0, 2.7, 7.5
LINE_PT = 1.3
DASHES = (0, (2.5, 2.0))
"""Of the prediction, which lies on the truth: where they agree, its gaps show the truth's line."""
ROOM = 1.6
"""A zoom shows so many times the size of what it is about."""
LEAST_SHARE, LEAST_VOXELS = 0.25, 16
"""A zoom shows at least this share of the head, and so many voxels of its shorter side, to be recognised."""
WORTH = 0.75
"""A zoom on more than this share of the head is none."""
BAR_SHARE = 0.3
"""A scale bar is at most so long, as a share of its picture."""

STRIPPED, DARK, LEAST_EXPONENT = 0.2, 0.35, 0.4
"""Of an image with at least so much constant background: the grey that the middle voxel has at least, and the limit."""

Greys = tuple[float, float, float]
"""What becomes black and white, and the exponent of the greys between them."""
Window = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Sight:
    """A part of a slice that is shown.

    Attributes:
        index: of the slice.
        window: what is seen of it.
        words: what it is for, beside the number of the slice.
        boxes: of the zooms that are shown elsewhere.
    """

    index: int
    window: Window
    words: str = ""
    boxes: tuple[Window, ...] = ()


# ------------------------------------------------------------------------------------------------- what is shown


def choose_sights(picture: Picture, most: int) -> list[Sight]:
    """What is shown of a case.

    Where all masks lie close together: a slice of the whole head, then their slices, zoomed. Otherwise slices of the
    whole head, then zooms on the largest lesion, the largest that was missed and the largest that is false.

    Args:
        picture: of the case.
        most: so many at most, 4 or more.
    """
    truth, prediction = picture.any_truth, picture.any_prediction
    masks = truth | prediction
    whole = choose_window(picture.image, masks)
    if not masks.any():
        return [Sight(index, whole) for index in choose_slices(truth, prediction, most)]
    near = zoom(whole, union_box(masks)[1:])
    if near != whole:
        main = _largest_slice(truth if truth.any() else prediction)
        slices = choose_slices(truth, prediction, most - 1)
        return [Sight(main, whole, "whole", (near,)), *(Sight(i, near, "zoomed") for i in slices)]
    close = [sight for sight in _close_ups(truth, prediction, whole) if sight.window != whole]
    slices = choose_slices(truth, prediction, most - len(close), [sight.index for sight in close])
    boxes = {i: tuple(sight.window for sight in close if sight.index == i) for i in slices}
    return [*(Sight(i, whole, "", boxes[i]) for i in slices), *close]


def _close_ups(truth: np.ndarray, prediction: np.ndarray, whole: Window) -> list[Sight]:
    """The largest lesion of the truth, and the largest of either mask that shares no voxel with the other."""
    found: list[Sight] = []
    for mask, words in (
        (truth, "largest lesion"),
        (_components_without(truth, prediction), "largest missed lesion"),
        (_components_without(prediction, truth), "largest false lesion"),
    ):
        if mask.any():
            largest = _largest(mask)
            index = _largest_slice(largest)
            near = zoom(whole, union_box(largest[index : index + 1])[1:])
            # a lesion that is the largest and missed is shown once, as missed
            found = [one for one in found if (one.index, one.window) != (index, near)]
            found.append(Sight(index, near, words))
    return found


def _components_without(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The components of a mask that share no voxel with the other."""
    labels, sizes = connected_components(mask, 26)
    alone = np.ones(len(sizes) + 1, bool)
    alone[0] = False
    alone[labels[other]] = False
    return alone[labels]


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest component of a mask that is not empty."""
    labels, sizes = connected_components(mask, 26)
    return labels == 1 + int(sizes.argmax())


def _largest_slice(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask, axis=(1, 2)).argmax())


def choose_slices(
    truth: np.ndarray, prediction: np.ndarray, most: int, wanted: Sequence[int] = ()
) -> list[int]:
    """Up to ``most`` slices with truth or prediction, evenly spread, among them the wanted ones, the largest lesion
    area and the largest error, in this order; the middle slices when both masks are empty.

    Args:
        truth, prediction: boolean ``[slices, rows, columns]``.
        most: 1 or more.
        wanted: slices with truth or prediction.
    """
    area = np.count_nonzero(truth, axis=(1, 2))
    error = np.count_nonzero(truth != prediction, axis=(1, 2))
    with_mask = np.flatnonzero(area + error)
    n = len(truth)
    if not len(with_mask):
        middle = np.linspace(n * 0.3, n * 0.7, min(4, n))
        return sorted({min(n - 1, int(s)) for s in middle})
    if len(with_mask) <= most:
        return with_mask.tolist()
    must = set(
        list(dict.fromkeys([*wanted, *(int(one.argmax()) for one in (area, error) if one.any())]))[:most]
    )
    chosen = {int(s) for s in with_mask[(2 * np.arange(most) + 1) * len(with_mask) // (2 * most)]}
    for index in sorted(must - chosen):
        near = min(chosen - must, key=lambda s: abs(s - index))
        chosen = (chosen - {near}) | {index}
    return sorted(chosen)


def choose_window(image: np.ndarray, masks: np.ndarray) -> Window:
    """Rows and columns of the head and of all masks, with a margin of a voxel.

    Args:
        image, masks: ``[slices, rows, columns]``; masks is true where truth or prediction is.
    """
    window = []
    for outer, inner, n in zip(_head(image), union_box(masks)[1:], image.shape[1:], strict=True):
        start, stop = (outer.start, outer.stop) if outer.stop > outer.start else (0, n)
        if inner.stop > inner.start:
            start, stop = min(start, inner.start), max(stop, inner.stop)
        window.append(slice(max(0, start - 1), min(n, stop + 1)))
    return window[0], window[1]


def zoom(whole: Window, box: Window) -> Window:
    """A part of the head around a box, in the head's proportions; the head itself where that is hardly less.

    Args:
        whole: the head.
        box: rows and columns of what is looked at, inside the head.
    """
    sizes, wanted = ([s.stop - s.start for s in window] for window in (whole, box))
    share = max(ROOM * part / size for part, size in zip(wanted, sizes, strict=True))
    share = max(share, LEAST_SHARE, LEAST_VOXELS / min(sizes))
    if share > WORTH:
        return whole
    parts = []
    for outer, inner, size in zip(whole, box, sizes, strict=True):
        n = math.ceil(share * size)
        start = (inner.start + inner.stop - n) // 2
        start = min(max(start, outer.start), outer.stop - n)
        parts.append(slice(start, start + n))
    return parts[0], parts[1]


def _head(image: np.ndarray) -> Window:
    """Rows and columns of the head; empty slices without one."""
    low, high = grey_range(image)
    bright = image > low + 0.15 * (high - low)
    return head_extent(bright, 1), head_extent(bright, 2)


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """Intensities that become black and white: 1st and 99.95th percentile of what is not background."""
    sample = image[:, ::2, ::2]
    inside = sample[sample != sample.flat[0]]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(inside, [1, 99.95]))
    return (low, high) if high > low else (low, low + 1.0)


def greys(image: np.ndarray) -> Greys:
    """How an image is drawn: black, white and the exponent between them.

    Where the background is one value, as after skull stripping, what is left is the brain: should most of it be dark
    beside a few bright voxels, as on a map of ADC with its CSF, it is brightened. No order of voxels changes.
    """
    low, high = grey_range(image)
    sample = image[:, ::2, ::2]
    inside = sample[sample != sample.flat[0]]
    if not inside.size or inside.size > (1 - STRIPPED) * sample.size:
        return low, high, 1.0
    middle = (float(np.median(inside)) - low) / (high - low)
    if not 0 < middle < DARK:
        return low, high, 1.0
    return low, high, max(LEAST_EXPONENT, math.log(DARK) / math.log(middle))


# ---------------------------------------------------------------------------------------------------- drawing


def draw(picture: Picture, rank: str) -> Figure:
    """A montage of one case.

    One class: each slice bare, and with both outlines. More: bare, truth and prediction, with one colour for each
    class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shows = ("bare", "truth", "prediction") if len(picture.truth) > 1 else ("bare", "both")
    sights = choose_sights(picture, MOST_PANELS // len(shows))
    panels = [(sight, show) for sight in sights for show in shows]
    height, width = (
        (s.stop - s.start) * mm for s, mm in zip(sights[0].window, picture.view.spacing_mm[1:], strict=True)
    )
    columns = _columns(len(panels), len(shows), height / width)
    rows, panel_width = math.ceil(len(panels) / columns), min(WIDEST_PANEL_IN, WIDTH_IN / columns)
    lines = score_lines(picture)
    top, bottom = 0.45 + 0.16 * len(lines), 0.4
    size = (
        max(NARROWEST_IN, panel_width * columns),
        panel_width * height / width * rows + top + bottom,
    )
    figure = Figure(size, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"left": 0.005, "right": 0.995, "bottom": bottom / size[1], "top": 1 - top / size[1]}
        | {"wspace": 0.02, "hspace": 0.02},
    )
    grey = greys(picture.image)
    for axis in axes.flat:
        axis.set_axis_off()
    windows: list[Window] = []
    for axis, (sight, show) in zip(axes.flat, panels, strict=False):
        first = sight.window not in windows
        _panel(axis, picture, sight, show, grey)
        _letters(axis, picture, sight, show, sides=not windows, bar=first)
        windows.append(sight.window)
    _titles(figure, picture, f"{rank} case: {picture.case.name}", lines)
    return figure


def _columns(panels: int, together: int, proportion: float) -> int:
    """Columns for a picture of about 4 to 3; panels of one slice stay beside each other."""
    ideal = math.sqrt(panels * proportion * 4 / 3) / together
    return min(panels, together * max(1, round(ideal)), MOST_COLUMNS)


def _panel(axis: Axes, picture: Picture, sight: Sight, show: str, grey: Greys) -> None:
    """A part of one slice, with what is shown on it."""
    from matplotlib.patches import Rectangle

    aspect = picture.view.spacing_mm[1] / picture.view.spacing_mm[2]
    show_slice(axis, picture.image[sight.index][sight.window], grey, aspect)
    if show == "both":
        for masks, colour, dashes in ((picture.truth, TRUTH, "-"), (picture.prediction, PREDICTION, DASHES)):
            contour(axis, next(iter(masks.values()))[sight.index][sight.window], colour, dashes)
    elif show != "bare":
        masks = picture.truth if show == "truth" else picture.prediction
        for i, mask in enumerate(masks.values()):
            fill(axis, mask[sight.index][sight.window], CLASSES[i % len(CLASSES)], aspect)
            contour(axis, mask[sight.index][sight.window], CLASSES[i % len(CLASSES)], "-")
    for rows, columns in sight.boxes if show != "bare" else ():
        corner = (columns.start - sight.window[1].start - 0.5, rows.start - sight.window[0].start - 0.5)
        size = columns.stop - columns.start, rows.stop - rows.start
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.6))


def show_slice(axis: Axes, pixels: np.ndarray, grey: Greys, aspect: float) -> None:
    """A slice in grey, without axes, see :func:`greys`."""
    from matplotlib.colors import PowerNorm

    low, high, exponent = grey
    norm = PowerNorm(exponent, low, high, clip=True)
    axis.imshow(pixels, cmap="gray", norm=norm, aspect=aspect, interpolation="nearest")
    axis.set_axis_off()


def _letters(axis: Axes, picture: Picture, sight: Sight, show: str, *, sides: bool, bar: bool) -> None:
    """Number of the slice, what is shown of it, and where asked for the patient's sides and a scale bar."""
    text = letters(axis, 8)
    words = [f"slice {sight.index + 1}", sight.words] if show == "bare" else [show if show != "both" else ""]
    axis.text(0.02, 0.98, ", ".join(filter(None, words)), va="top", **text)
    if sides:
        places = [(0.01, 0.5, "left", "center"), (0.99, 0.5, "right", "center")]
        places += [(0.5, 0.99, "center", "top"), (0.5, 0.01, "center", "bottom")]
        for letter, (x, y, ha, va) in zip(picture.view.sides, places, strict=True):
            axis.text(x, y, letter, ha=ha, va=va, **text)
    if bar:
        n_columns = sight.window[1].stop - sight.window[1].start
        put_bar(axis, picture.view.spacing_mm[2] * n_columns)


def put_bar(axis: Axes, width_mm: float) -> None:
    """A scale bar at the lower right of a picture so wide."""
    length_mm, label = scale_bar(width_mm)
    share = length_mm / width_mm
    axis.plot([0.97 - share, 0.97], [0.035, 0.035], color="white", linewidth=2, **over(axis))
    axis.text(0.97 - share / 2, 0.05, label, ha="center", va="bottom", **letters(axis, 8))


def letters(axis: Axes, size_pt: float) -> dict[str, Any]:
    """Of white letters that are read on white tissue too, placed by shares of the picture."""
    from matplotlib.patheffects import withStroke as Stroke

    return {
        "color": "white",
        "fontsize": size_pt,
        "transform": axis.transAxes,
        "path_effects": [Stroke(linewidth=2, foreground="black")],
        "parse_math": False,
    }


def over(axis: Axes) -> dict[str, Any]:
    """For a line that is placed by shares of the picture and keeps its view."""
    return {"transform": axis.transAxes, "scalex": False, "scaley": False, "solid_capstyle": "butt"}


def scale_bar(width_mm: float) -> tuple[float, str]:
    """Length in mm and label of the longest bar of 1, 2 or 5 times a power of ten that fits a picture so wide."""
    room = BAR_SHARE * width_mm
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step * power for step in (1, 2, 5) if step * power <= room * (1 + 1e-9))
    return length, f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"


def fill(axis: Axes, mask: np.ndarray, colour: str, aspect: float, opacity: float = 0.25) -> None:
    """A tint of a class, by which it is known where neighbours share an outline."""
    from matplotlib.colors import to_rgba

    tint = np.zeros((*mask.shape, 4), np.float32)
    tint[mask] = to_rgba(colour, opacity)
    axis.imshow(tint, aspect=aspect, interpolation="nearest")


def contour(axis: Axes, mask: np.ndarray, colour: str, dashes: Any) -> None:
    """The outlines of a mask ``[rows, columns]`` along the edges of its voxels."""
    from matplotlib.collections import LineCollection

    lines = LineCollection(
        list(outlines(mask)),
        colors=colour,
        linewidths=LINE_PT,
        linestyles=[dashes],
        joinstyle="miter",
    )
    axis.add_collection(lines, autolim=False)


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Closed lines ``[n, 2]`` (x, y) along the edges between the voxels of a mask and all others.

    Args:
        mask: boolean ``[rows, columns]``; the centre of the first voxel is at 0, 0.
    """
    following = _edges(mask)
    while following:
        start = place = next(iter(following))
        line = [start]
        while place in following:  # every corner has as many edges that end there as begin
            ends = following[place]
            place, old = ends.pop(), place
            if not ends:
                del following[old]
            line.append(place)
        yield np.array(line) - 0.5


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner to the corners that edges lead to, with the mask at their right hand; x and y of the voxel below."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, down = np.diff(padded[:, 1:-1], axis=0), np.diff(padded[1:-1], axis=1)
    following = defaultdict(list)
    for y, x in np.argwhere(across):
        left, right = (int(x), int(y)), (int(x) + 1, int(y))
        start, end = (left, right) if across[y, x] > 0 else (right, left)
        following[start].append(end)
    for y, x in np.argwhere(down):
        top, bottom = (int(x), int(y)), (int(x), int(y) + 1)
        start, end = (bottom, top) if down[y, x] > 0 else (top, bottom)
        following[start].append(end)
    return dict(following)


def score_lines(picture: Picture) -> list[str]:
    """The scores of each class, on at most two lines."""
    parts = [
        f"{name}: Dice {number(scores['dice'], '1')}, truth {number(scores['volume_truth_ml'], 'ml')} ml, "
        f"prediction {number(scores['volume_prediction_ml'], 'ml')} ml"
        for name, scores in picture.case.classes.items()
    ]
    if len(parts) < 3:
        return parts
    half = math.ceil(len(parts) / 2)
    return ["   ".join(line) for line in (parts[:half], parts[half:])]


def _titles(figure: Figure, picture: Picture, head: str, lines: Sequence[str]) -> None:
    """Case, scores and legend."""
    put_title(figure, head, lines)
    one_class = [("truth", TRUTH, "-"), ("prediction", PREDICTION, DASHES)]
    put_legend(figure, class_entries(picture.truth) if len(picture.truth) > 1 else one_class)
    note = ", ".join(filter(None, (picture.channel, picture.view.words, f"preset {picture.preset}")))
    height = figure.get_figheight()
    figure.text(0.99, 0.1 / height, note, color="white", fontsize=8, ha="right", parse_math=False)


def put_title(figure: Figure, head: str, lines: Sequence[str]) -> None:
    """What a black picture is of, and its scores below."""
    height = figure.get_figheight()
    white: dict[str, Any] = {"color": "white", "va": "top", "parse_math": False}
    figure.text(0.01, 1 - 0.08 / height, head, fontsize=12, weight="bold", **white)
    figure.text(0.01, 1 - 0.36 / height, "\n".join(lines), fontsize=8.5, **white)


def class_entries(classes: Iterable[str]) -> list[tuple[str, str, Any]]:
    """Name, colour and dashes of each class."""
    return [(name, CLASSES[i % len(CLASSES)], "-") for i, name in enumerate(classes)]


def put_legend(figure: Figure, entries: Iterable[tuple[str, str, Any]]) -> None:
    """Name, colour and dashes of each entry, below the picture."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, linewidth=1.6, linestyle=s, label=name) for name, c, s in entries]
    figure.legend(
        handles=handles,
        loc="lower left",
        ncols=len(handles),
        frameon=False,
        labelcolor="white",
        fontsize=9,
        bbox_to_anchor=(0.0, 0.0),
    )
