"""Truth and prediction of a case as surfaces from two sides, in the outline of the head (Tomita et al. 2020, Fig. 2).

Triangles are turned and lit here and drawn one over the other, the far ones first. Those that face away are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.evaluation.metrics.pair import union_box
from autoseg.report.meshes import Mesh, mesh_of_head, mesh_of_mask, unit
from autoseg.report.montage import (
    CLASSES,
    class_entries,
    grey_range,
    over,
    put_legend,
    put_title,
    scale_bar,
    score_lines,
)
from autoseg.report.picture import PREDICTION, TRUTH, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_IN, TOP_IN, BOTTOM_IN = 3.0, 0.42, 0.34
HEAD_SHARE = 0.15
"""Of the grey range: what is brighter belongs to the head."""
LEAST_CUT_OUT = 0.2
"""Share of voxels of one value from which on they are what lies around a brain that was cut out."""
CELLS = 110
"""A panel shows so many cells of the simplified surfaces from side to side: one for about three pixels."""
MARGIN = 1.14
"""Room around what is shown, in which the letters of the sides stand."""
LIGHT = unit(np.array([-0.45, 0.55, 0.70]))
"""From the upper left, before the picture; x to the right, y up, z to the reader."""
FILL_LIGHT = unit(np.array([0.85, 0.1, 0.5]))
AMBIENT, FILL, SHINE = 0.30, 0.22, 0.12
HEAD_COLOUR, GLASS_LIGHT, GLASS_EDGE = "#B8C0C8", 0.62, 1.8
"""The head is glass: seen where its surface turns away, the more so the higher the power ``GLASS_EDGE``."""
OUTER_LIGHT = 0.45
"""Of all but the smallest of several classes, which may lie within each other."""


@dataclass(frozen=True)
class Side:
    """Where a panel is looked from.

    Attributes:
        words: for reading.
        axes: rows are the picture's right, its top and the way to the reader, in patient axes (left, back, top).
        letters: of the patient's sides at the left and the right of the picture.
    """

    words: str
    axes: np.ndarray
    letters: tuple[str, str]

    @classmethod
    def of(cls, words: str, towards: Sequence[float], letters: tuple[str, str]) -> Side:
        """A side with the patient's head up.

        Args:
            words: for reading.
            towards: to the reader, in patient axes; not straight up or down.
            letters: see :class:`Side`.
        """
        reader = unit(np.array(towards, float))
        right = unit(np.cross((0.0, 0.0, 1.0), reader))
        return cls(words, np.array([right, np.cross(reader, right), reader]), letters)


def choose_sides(masks: np.ndarray, known: bool) -> tuple[Side, Side]:
    """The side of the body on which most of the masks lie, a little from the front and above; then from above.

    Args:
        masks: boolean ``[x, y, z]`` towards the patient's left, back and top.
        known: whether the file says how the patient lay.
    """
    amounts = np.count_nonzero(masks, axis=(1, 2))
    middle = (len(amounts) - 1) / 2
    is_left = not amounts.any() or np.average(np.arange(len(amounts)), weights=amounts) >= middle
    beside = Side.of(
        ("from the left" if is_left else "from the right") if known else "first view",
        (1.0 if is_left else -1.0, -0.35, 0.25),
        ("A", "P") if is_left else ("P", "A"),
    )
    above = Side.of("from the front and above" if known else "second view", (0.0, -0.6, 1.0), ("R", "L"))
    return (beside, above) if known else (replace(beside, letters=("", "")), replace(above, letters=("", "")))


@dataclass(frozen=True)
class Scene:
    """What is drawn of a case, in mm in patient axes.

    Attributes:
        head: its outline; without faces where it is not known.
        truth, prediction: class to surface.
        views: from where it is looked at.
    """

    head: Mesh
    truth: dict[str, Mesh]
    prediction: dict[str, Mesh]
    views: tuple[Side, Side]

    @classmethod
    def of(cls, picture: Picture) -> Scene | None:
        """The surfaces of a case; None where neither the head nor a mask has one."""
        spacing = picture.patient_spacing_mm
        masks = picture.to_patient(picture.any_truth | picture.any_prediction)
        head = mesh_of_head(picture.to_patient(tissue(picture.image)), spacing, masks)
        if len(head.faces):
            extent_mm = float(np.ptp(head.vertices_mm, axis=0).max())
        else:
            extent_mm = max((s.stop - s.start) * mm for s, mm in zip(union_box(masks), spacing, strict=True))
        if not extent_mm:
            return None

        def meshes(of: dict[str, np.ndarray]) -> dict[str, Mesh]:
            return {
                name: mesh_of_mask(picture.to_patient(mask), spacing, extent_mm / CELLS)
                for name, mask in of.items()
            }

        views = choose_sides(masks, all(picture.view.sides))
        return cls(head, meshes(picture.truth), meshes(picture.prediction), views)

    @property
    def outer_first(self) -> list[str]:
        """The classes by their volume, the largest first: it may hold the others."""
        return sorted(
            self.truth, key=lambda name: -self.truth[name].volume_mm3 - self.prediction[name].volume_mm3
        )

    def frame(self, side: Side) -> tuple[np.ndarray, float]:
        """Middle (right, up) and half the edge of a square that holds everything, from one side."""
        corners = np.concatenate(
            [m.vertices_mm for m in (self.head, *self.truth.values(), *self.prediction.values())]
        )
        seen = corners @ side.axes[:2].T
        low, high = seen.min(0), seen.max(0)
        return (low + high) / 2, float((high - low).max()) / 2 * MARGIN


def tissue(image: np.ndarray) -> np.ndarray:
    """Where an image is not air: what differs from the one value around a brain that was cut out, or is bright."""
    air = image == image.flat[0]
    if np.count_nonzero(air) > LEAST_CUT_OUT * air.size:
        return ~air
    low, high = grey_range(image)
    return image > low + HEAD_SHARE * (high - low)


def draw_surfaces(picture: Picture, head: str) -> Figure | None:
    """Truth and prediction beside each other, from two sides; None where neither mask nor head has a surface.

    Args:
        picture: of the case.
        head: the title, below which the scores stand.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scene = Scene.of(picture)
    if scene is None:
        return None
    lines = score_lines(picture)
    bottom = BOTTOM_IN if len(picture.truth) > 1 else 0.0
    figure = Figure((4 * PANEL_IN, PANEL_IN + TOP_IN + 0.16 * len(lines) + bottom), facecolor="black")
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    half_mm = max(scene.frame(side)[1] for side in scene.views)
    for i in range(4):
        axis = figure.add_axes((i / 4, bottom / height, 0.25, PANEL_IN / height))
        _panel(axis, scene, scene.views[i // 2], ("truth", "prediction")[i % 2], half_mm)
    _bar(figure.axes[0], 2 * half_mm)
    put_title(figure, head, lines)
    if bottom:
        put_legend(figure, class_entries(picture.truth))
    return figure


def _panel(axis: Axes, scene: Scene, side: Side, which: str, half_mm: float) -> None:
    """One mask from one side, in the head."""
    (x, y), _ = scene.frame(side)
    axis.set(xlim=(x - half_mm, x + half_mm), ylim=(y - half_mm, y + half_mm), aspect="equal")
    axis.set_axis_off()
    _add(axis, scene.head, side, _glass(scene.head, side, HEAD_COLOUR))
    meshes = scene.truth if which == "truth" else scene.prediction
    several = len(meshes) > 1
    only = TRUTH if which == "truth" else PREDICTION
    colours = {name: CLASSES[i % len(CLASSES)] if several else only for i, name in enumerate(meshes)}
    shown = [name for name in scene.outer_first if len(meshes[name].faces)]
    for name in shown:  # a class within another is drawn after it, as if it were seen through it
        shade = _lit if name == shown[-1] else _see_through
        _add(axis, meshes[name], side, shade(meshes[name], side, colours[name]))
    _letters(axis, side, which, "white" if several else only, empty=not shown)


def _letters(axis: Axes, side: Side, which: str, colour: str, *, empty: bool) -> None:
    """Which mask it is, from where it is seen, and the patient's sides."""
    text: dict[str, Any] = {"color": "white", "fontsize": 9, "transform": axis.transAxes, "va": "top"}
    x, align = (0.03, "left") if which == "truth" else (0.97, "right")
    axis.text(x, 0.985, f"{which}, empty" if empty else which, ha=align, **{**text, "color": colour})
    if which == "prediction":
        return
    axis.text(1.0, 0.985, side.words, ha="center", **text)  # between both
    for letter, place in zip(side.letters, (0.03, 0.97), strict=True):
        axis.text(place, 0.5, letter, ha="center", **{**text, "va": "center", "color": "0.65"})


def _add(axis: Axes, mesh: Mesh, side: Side, colours: np.ndarray) -> None:
    """Draw the faces that are turned to the reader, the far ones first; ``colours`` are RGB, one for each vertex."""
    from matplotlib.collections import TriMesh
    from matplotlib.tri import Triangulation

    seen = mesh.vertices_mm @ side.axes.T
    corners = seen[mesh.faces]
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    facing = np.flatnonzero(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0] > 0)
    if not len(facing):
        return
    order = facing[np.argsort(corners[facing, :, 2].mean(1))]
    triangles = Triangulation(seen[:, 0], seen[:, 1], mesh.faces[order])
    axis.add_collection(TriMesh(triangles, facecolors=colours), autolim=False)


def _lit(mesh: Mesh, side: Side, colour: str) -> np.ndarray:
    """RGB of each vertex in the light."""
    from matplotlib.colors import to_rgb

    normals = mesh.normals @ side.axes.T
    bright = (
        AMBIENT + (1 - AMBIENT) * np.clip(normals @ LIGHT, 0, 1) + FILL * np.clip(normals @ FILL_LIGHT, 0, 1)
    )
    shine = SHINE * np.clip(normals @ unit(LIGHT + (0.0, 0.0, 1.0)), 0, 1) ** 30
    return np.clip(np.array(to_rgb(colour)) * bright[:, None] + shine[:, None], 0, 1)


def _glass(mesh: Mesh, side: Side, colour: str) -> np.ndarray:
    """RGB of each vertex: black where the surface faces the reader, so that it looks like glass.

    It is opaque: where see-through faces meet, their edges would show as a net.
    """
    from matplotlib.colors import to_rgb

    turned = 1 - np.clip(mesh.normals @ side.axes[2], 0, 1)
    return GLASS_LIGHT * turned[:, None] ** GLASS_EDGE * to_rgb(colour)


def _see_through(mesh: Mesh, side: Side, colour: str) -> np.ndarray:
    """RGB of each vertex of a class that may hold others: dark, with its outline."""
    return np.clip(OUTER_LIGHT * _lit(mesh, side, colour) + _glass(mesh, side, colour), 0, 1)


def _bar(axis: Axes, width_mm: float) -> None:
    """A scale bar; it holds for all panels."""
    length_mm, label = scale_bar(width_mm)
    share = length_mm / width_mm
    axis.plot([0.03, 0.03 + share], [0.04, 0.04], color="white", linewidth=2, **over(axis))
    axis.text(
        0.03 + share / 2,
        0.055,
        label,
        color="white",
        fontsize=8,
        ha="center",
        va="bottom",
        transform=axis.transAxes,
    )
