"""Pictures of single cases: contours of truth and prediction on the slices that matter.

They are the montages of a report and the ``overlay_*.png`` that autoseg_evaluate puts beside the scores.

Volumes are turned by their header so that slices look as a reader expects: patient's right on the left of axial and
coronal pictures, anterior or superior at the top, true proportions. Contours follow voxel edges; nothing is smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from autoseg import messages
from autoseg.dataset.dataset_json import FILE_ENDINGS
from autoseg.dataset.imageio import Geometry, as_labels, differences, read_image
from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.pair import union_box
from autoseg.evaluation.summary import CaseScores, Summary
from autoseg.evaluation.text import number
from autoseg.files import atomic_path
from autoseg.labels import LabelSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")

TRUTH, PREDICTION = "#E69F00", "#56B4E9"
CLASSES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#FFFFFF")
"""Okabe and Ito's colours, which the colour-blind tell apart."""

MOST_SLICES = 12
LEAST_SHARE = 1.0
"""The view is never smaller than this share of the head; 1, so that one sees where in it a lesion lies."""
RANKS = ("worst", "median", "best")


# ------------------------------------------------------------------------------------------ which cases, which files


def choose_cases(summary: Summary, n: int) -> list[tuple[str, CaseScores]]:
    """``n`` cases with their ranks, spread evenly over the order of their mean Dice over classes; one is the median.

    Three are the worst, the median and the best. Cases that are empty in truth and prediction score 1 and show nothing;
    they are taken only when there is no other.
    """
    with_mask = [case for case in summary.cases if not case.is_empty] or summary.cases
    ordered = sorted(with_mask, key=lambda case: (case.mean_dice, case.name))
    last, middle = len(ordered) - 1, (len(ordered) - 1) // 2
    places = [middle] if n == 1 else [i * last // (n - 1) for i in range(n)]
    return [(_rank(place, last), ordered[place]) for place in dict.fromkeys(places)]


def _rank(place: int, last: int) -> str:
    if last == 0:
        return "only"
    names = {last // 2: "median", 0: "worst", last: "best"}
    return names.get(place, f"number {place + 1} of {last + 1} from the worst,")


def find_images(truths: Path) -> Path | None:
    """The folder of images that belongs to ``labelsTr`` or ``labelsTs`` in the raw layout; None without one."""
    truths = truths.resolve()
    images = truths.with_name(truths.name.replace("labels", "images", 1))
    return images if images != truths and images.is_dir() else None


def find_file(folder: Path, stem: str) -> Path | None:
    """A mask or an image by its name without ending; None without one."""
    paths = (folder / f"{stem}{ending}" for ending in FILE_ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def draw_overlays(summary: Summary, images: Path, out: Path, *, channel: int = 0) -> list[Path]:
    """Write ``overlay_worst.png``, ``overlay_median.png`` and ``overlay_best.png`` for a scored folder.

    Pictures of an earlier run are removed. A case whose image is missing or does not fit is said and left out.

    Args:
        summary: of the folder.
        images: folder of ``CASE_0000.nii.gz``.
        out: where the pictures go.
        channel: of the image.
    """
    remove_overlays(out)
    written = []
    for rank, case in choose_cases(summary, len(RANKS)):
        name = RANKS[0] if rank == "only" else rank
        try:
            picture = read_picture(summary, case, images, channel)
        except AutosegError as error:
            messages.warn(f"no overlay of the {name} case: {error}")
            continue
        path = out / f"overlay_{name}.png"
        with atomic_path(path) as temporary:
            draw(picture, rank).savefig(temporary, dpi=110, facecolor="black")
        written.append(path)
    return written


def remove_overlays(out: Path) -> None:
    """Remove the pictures of an earlier run, which would not belong to the new scores."""
    for rank in RANKS:
        (out / f"overlay_{rank}.png").unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------- one case, turned


@dataclass(frozen=True)
class Picture:
    """A case as it is drawn.

    Attributes:
        case: its scores.
        image: ``[n, rows, columns]``: slices, turned.
        truth, prediction: class to boolean mask on the same grid.
        spacing_mm: of slices, rows and columns.
        sides: letters of the patient's sides at the left, right, top and bottom.
        plane: axial, coronal or sagittal.
        channel: which channel the image is.
        preset: that the scores are of.
    """

    case: CaseScores
    image: np.ndarray
    truth: dict[str, np.ndarray]
    prediction: dict[str, np.ndarray]
    spacing_mm: tuple[float, float, float]
    sides: tuple[str, str, str, str]
    plane: str
    channel: int
    preset: str = ""


def read_picture(summary: Summary, case: CaseScores, images: Path, channel: int) -> Picture:
    """Read and turn what is drawn of one case.

    Raises:
        AutosegError: a file is missing or damaged, or the image lies on another grid.
    """
    stem = f"{case.name}_{channel:04d}"
    paths = (
        find_file(images, stem),
        find_file(Path(summary.predictions), case.name),
        find_file(Path(summary.truths), case.name),
    )
    if paths[0] is None:
        raise AutosegError(
            "the image is missing", where=case.name, expected=f"{images / stem}.nii.gz or another format"
        )
    if paths[1] is None or paths[2] is None:
        raise AutosegError("a mask has vanished since it was scored", where=case.name)
    image, prediction, truth = (read_image(path) for path in paths if path)
    for what, found, expected in differences(truth.geometry, image.geometry):
        raise AutosegError(
            f"the image's {what} is not that of the truth", where=case.name, found=found, expected=expected
        )
    labels = LabelSet.from_labels(summary.labels)
    masks = {"truth": as_labels(truth.pixels, where=case.name)}
    masks["prediction"] = as_labels(prediction.pixels, where=case.name)
    if labels.ignore is not None:
        masks = {name: np.where(masks["truth"] == labels.ignore, 0, mask) for name, mask in masks.items()}
    view = View.of(truth.geometry)
    turned = {name: labels.masks(view.turn(mask)) for name, mask in masks.items()}
    return Picture(
        case=case,
        image=view.turn(image.pixels),
        truth=turned["truth"],
        prediction=turned["prediction"],
        spacing_mm=view.spacing_mm,
        sides=view.sides,
        plane=view.plane,
        channel=channel,
        preset=summary.preset.name,
    )


@dataclass(frozen=True)
class View:
    """How a file's axes become slices, rows (downwards) and columns (to the right).

    Attributes:
        axes: the file's array axis for each of the three.
        flip: whether it is reversed.
        spacing_mm, sides, plane: as of :class:`Picture`.
    """

    axes: tuple[int, int, int]
    flip: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    sides: tuple[str, str, str, str]
    plane: str

    @classmethod
    def of(cls, geometry: Geometry) -> View:
        """Slices across the axis with the largest spacing; axial ones when spacings are alike."""
        cosines = np.array(geometry.direction).reshape(3, 3)  # [patient axis, file axis x y z]
        file_axes = _nearest_axes(np.abs(cosines))  # patient x, y, z -> file x, y, z
        spacing = geometry.spacing_mm[::-1]  # x, y, z
        patient_spacing = [spacing[file_axes[i]] for i in range(3)]
        thick = int(np.argmax(patient_spacing))
        across = thick if patient_spacing[thick] > 1.3 * sorted(patient_spacing)[1] else 2
        rows, columns, plane = {2: (1, 0, "axial"), 1: (2, 0, "coronal"), 0: (2, 1, "sagittal")}[across]
        order = (across, rows, columns)
        reversed_ = [bool(cosines[i, file_axes[i]] < 0) for i in range(3)]  # file runs to R, A or I
        flip = [reversed_[i] != (i == 2 and i == rows) for i in order]  # superior at the top
        letters = {0: ("R", "L"), 1: ("A", "P"), 2: ("S", "I")}
        return cls(
            axes=_three(2 - file_axes[i] for i in order),
            flip=_three(flip),
            spacing_mm=_three(patient_spacing[i] for i in order),
            sides=(*letters[columns], *letters[rows]),
            plane=plane,
        )

    def turn(self, volume: np.ndarray) -> np.ndarray:
        """A volume ``[z, y, x]`` of the file as ``[slices, rows, columns]``; a view, not a copy."""
        turned = volume.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)]


def _three(values: Iterable[Item]) -> tuple[Item, Item, Item]:
    """Three values as a tuple of three."""
    first, second, third = values
    return first, second, third


def _nearest_axes(cosines: np.ndarray) -> list[int]:
    """For each row the column with the largest entry, each column once, the clearest first."""
    cosines, nearest = cosines.copy(), [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(int(cosines.argmax()), cosines.shape)
        nearest[row] = int(column)
        cosines[row], cosines[:, column] = -1, -1
    return nearest


# ------------------------------------------------------------------------------------------- what of it is shown


def choose_slices(truth: np.ndarray, prediction: np.ndarray, most: int = MOST_SLICES) -> list[int]:
    """Up to ``most`` slices with truth or prediction, evenly spread, among them the largest lesion area and the
    largest error; the middle slices when both masks are empty.

    Args:
        truth, prediction: boolean ``[slices, rows, columns]``.
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
    must = {int(area.argmax()), int(error.argmax())} if area.any() else {int(error.argmax())}
    chosen = {int(s) for s in with_mask[(2 * np.arange(most) + 1) * len(with_mask) // (2 * most)]}
    for wanted in sorted(must - chosen):
        near = min(chosen - must, key=lambda s: abs(s - wanted))
        chosen = (chosen - {near}) | {wanted}
    return sorted(chosen)


def choose_window(image: np.ndarray, masks: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns to show: around the masks, at least :data:`LEAST_SHARE` of the head, inside the image.

    Args:
        image, masks: ``[slices, rows, columns]``; masks is true where truth or prediction is.
    """
    head, lesion = _head(image), union_box(masks)[1:]
    window = []
    for outer, inner, n in zip(head, lesion, image.shape[1:], strict=True):
        if outer.stop <= outer.start:
            outer = slice(0, n)
        if inner.stop <= inner.start:
            inner = outer
        size = max((inner.stop - inner.start) * 1.3, (outer.stop - outer.start) * LEAST_SHARE)
        start = (inner.start + inner.stop - size) / 2
        latest = max(outer.start, outer.stop - size)  # stay in the head, unless the masks leave it
        start = min(max(start, outer.start), latest)
        start = min(start, inner.start)
        stop = max(start + size, inner.stop)
        window.append(slice(max(0, math.floor(start) - 1), min(n, math.ceil(stop) + 1)))
    return window[0], window[1]


def _head(image: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the head, also where noise fills the air around it; empty slices without a head."""
    low, high = _grey_range(image)
    bright = image > low + 0.15 * (high - low)
    found = []
    for axis in (1, 2):
        counts = np.count_nonzero(bright, axis=tuple(i for i in range(3) if i != axis))
        where = np.flatnonzero(counts > 0.02 * counts.max())
        found.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0))
    return found[0], found[1]


def _grey_range(image: np.ndarray) -> tuple[float, float]:
    """Intensities that become black and white: 1st and 99.95th percentile of what is not background."""
    sample = image[:, ::2, ::2]
    inside = sample[sample != sample.flat[0]]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(inside, [1, 99.95]))
    return (low, high) if high > low else (low, low + 1.0)


# ---------------------------------------------------------------------------------------------------- drawing


def draw(picture: Picture, rank: str) -> Figure:
    """A montage of one case.

    One class: both contours on each slice. More: two neighbouring panels for each slice, truth and prediction, with
    one colour for each class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs = len(picture.truth) > 1
    any_truth, any_prediction = (_union(masks) for masks in (picture.truth, picture.prediction))
    slices = choose_slices(any_truth, any_prediction, MOST_SLICES // 2 if pairs else MOST_SLICES)
    window = choose_window(picture.image, any_truth | any_prediction)
    height, width = ((s.stop - s.start) * mm for s, mm in zip(window, picture.spacing_mm[1:], strict=True))
    panels = len(slices) * (2 if pairs else 1)
    columns = _columns(panels, height / width, pairs)
    rows = math.ceil(panels / columns)
    panel_width = min(3.4, 14 / columns)
    size = (max(7.5, panel_width * columns), panel_width * height / width * rows + 1.3)
    figure = Figure(size, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"left": 0.005, "right": 0.995, "bottom": 0.4 / size[1], "top": 1 - 0.9 / size[1]}
        | {"wspace": 0.02, "hspace": 0.02},
    )
    grey = _grey_range(picture.image)
    for panel, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if panel < panels:
            index = slices[panel // 2 if pairs else panel]
            show = ("truth", "prediction")[panel % 2] if pairs else "both"
            _panel(axis, picture, index, window, grey, show, first=panel == 0)
    _titles(figure, picture, rank, size[1])
    return figure


def _columns(panels: int, proportion: float, pairs: bool) -> int:
    """Columns for a picture of about 4 to 3, an even number of them for pairs."""
    columns = min(panels, max(1, round(math.sqrt(panels * proportion * 4 / 3))))
    return columns + columns % 2 if pairs else columns


def _union(masks: dict[str, np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(masks.values()))


def _panel(
    axis: Axes,
    picture: Picture,
    index: int,
    window: tuple[slice, slice],
    grey: tuple[float, float],
    show: str,
    *,
    first: bool,
) -> None:
    """One slice with its contours."""
    from matplotlib.patheffects import withStroke as Stroke

    aspect = picture.spacing_mm[1] / picture.spacing_mm[2]
    axis.imshow(
        picture.image[index][window],
        cmap="gray",
        vmin=grey[0],
        vmax=grey[1],
        aspect=aspect,
        interpolation="nearest",
    )
    if show == "both":
        # the truth is a broad line below the thin one of the prediction, so both show where they agree
        for masks, colour, line in ((picture.truth, TRUTH, 3.0), (picture.prediction, PREDICTION, 1.3)):
            _contour(axis, next(iter(masks.values()))[index][window], colour, line)
    else:
        masks = picture.truth if show == "truth" else picture.prediction
        for i, mask in enumerate(masks.values()):
            colour = CLASSES[i % len(CLASSES)]
            _fill(axis, mask[index][window], colour, aspect)
            _contour(axis, mask[index][window], colour, 1.2)
    shade = [Stroke(linewidth=2, foreground="black")]  # white letters are read on white tissue too
    text: dict[str, Any] = {
        "color": "white",
        "fontsize": 8,
        "transform": axis.transAxes,
        "path_effects": shade,
    }
    label = f"{index + 1}" if show == "both" else f"{index + 1} {show}"
    axis.text(0.02, 0.98, label, va="top", **text)
    if first:
        places = [(0.01, 0.5, "left", "center"), (0.99, 0.5, "right", "center")]
        places += [(0.5, 0.99, "center", "top"), (0.5, 0.01, "center", "bottom")]
        for letter, (x, y, ha, va) in zip(picture.sides, places, strict=True):
            axis.text(x, y, letter, ha=ha, va=va, **text)


def _fill(axis: Axes, mask: np.ndarray, colour: str, aspect: float) -> None:
    """A tint of a class, by which it is known where neighbours share an outline."""
    from matplotlib.colors import to_rgba

    tint = np.zeros((*mask.shape, 4), np.float32)
    tint[mask] = to_rgba(colour, 0.3)
    axis.imshow(tint, aspect=aspect, interpolation="nearest")


def _contour(axis: Axes, mask: np.ndarray, colour: str, line: float) -> None:
    """The outline of a mask ``[rows, columns]`` along the edges of its voxels."""
    from matplotlib.collections import LineCollection

    segments = outline(mask)
    if len(segments):
        axis.add_collection(
            LineCollection(list(segments), colors=colour, linewidths=line, capstyle="projecting"),
            autolim=False,
        )


def outline(mask: np.ndarray) -> np.ndarray:
    """Segments ``[n, 2, 2]`` (start and end; x, y) between the voxels of a mask and all others.

    Args:
        mask: boolean ``[rows, columns]``; the centre of the first voxel is at 0, 0.
    """
    padded = np.pad(mask, 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])  # edges between a voxel and the one above it
    across = np.stack([np.stack([x - 0.5, y - 0.5], -1), np.stack([x + 0.5, y - 0.5], -1)], 1)
    y, x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    down = np.stack([np.stack([x - 0.5, y - 0.5], -1), np.stack([x - 0.5, y + 0.5], -1)], 1)
    return np.concatenate([across, down])


def _titles(figure: Figure, picture: Picture, rank: str, height: float) -> None:
    """Case, scores and legend."""
    from matplotlib.lines import Line2D

    lines = [
        f"{name}: Dice {number(scores['dice'], '1')}, truth {scores['volume_truth_ml']:.4g} ml, "
        f"prediction {scores['volume_prediction_ml']:.4g} ml"
        for name, scores in picture.case.classes.items()
    ]
    head = f"{rank} case: {picture.case.name}"
    figure.text(
        0.01, 1 - 0.08 / height, head, color="white", fontsize=12, va="top", parse_math=False, weight="bold"
    )
    shown = _two_lines(lines)
    figure.text(0.01, 1 - 0.36 / height, shown, color="white", fontsize=8.5, va="top", parse_math=False)
    if len(picture.truth) > 1:
        entries = [(name, CLASSES[i % len(CLASSES)], 1.8) for i, name in enumerate(picture.truth)]
    else:
        entries = [("truth", TRUTH, 3.0), ("prediction", PREDICTION, 1.3)]
    handles = [Line2D([], [], color=c, linewidth=w, label=name) for name, c, w in entries]
    figure.legend(
        handles=handles,
        loc="lower left",
        ncols=len(handles),
        frameon=False,
        labelcolor="white",
        fontsize=9,
        bbox_to_anchor=(0.0, 0.0),
    )
    note = f"{picture.plane} slices, channel {picture.channel}"
    note += f", preset {picture.preset}" if picture.preset else ""
    figure.text(0.99, 0.1 / height, note, color="white", fontsize=8, ha="right", parse_math=False)


def _two_lines(parts: Sequence[str]) -> str:
    """Texts on at most two lines."""
    if len(parts) < 3:
        return "\n".join(parts)
    half = math.ceil(len(parts) / 2)
    return "\n".join("   ".join(line) for line in (parts[:half], parts[half:]))
