"""How figures are drawn: for the page as SVG that follows its colours, for a paper as SVG and PNG on white.

A figure consists of panels. On the page each is a picture of its own, so that they stand side by side on a wide screen
and below each other on a phone; for a paper they share one figure.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's colours without black and yellow, which vanish on a dark or a white page."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Beside the colour, for those who do not see it."""

_SENTINELS = {
    "#010203": "currentColor",
    "#040506": "var(--muted)",
    "#070809": "var(--line)",
    "#0a0b0c": "var(--page)",
}
_TIP = "tip:"


@dataclass(frozen=True)
class Style:
    """Where a figure will be seen.

    Attributes:
        ink, muted, line, page: colours of text and axes, of less important text, of grids, and of what is behind.
        font_pt: of the text.
        width_in, height_in: of a panel.
        point_pt2: area of a point.
        tips: whether points say what they are when the pointer rests on them.
    """

    ink: str
    muted: str
    line: str
    page: str
    font_pt: float
    width_in: float
    height_in: float
    point_pt2: float
    tips: bool

    @property
    def settings(self) -> dict[str, Any]:
        """For matplotlib."""
        inks = (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
            "axes.titlecolor",
        )
        sizes = (
            "font.size",
            "axes.titlesize",
            "axes.labelsize",
            "xtick.labelsize",
            "ytick.labelsize",
            "legend.fontsize",
        )
        return {
            **_SETTINGS,
            **dict.fromkeys(inks, self.ink),
            **dict.fromkeys(sizes, self.font_pt),
            "grid.color": self.line,
            "legend.facecolor": self.page,
        }


_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "autoseg",  # the same file each time
    "text.parse_math": False,  # names may hold dollar signs
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.75,
    "legend.handlelength": 1.6,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
}

SCREEN = Style("#010203", "#040506", "#070809", "#0a0b0c", 9.0, 3.7, 3.0, 20.0, tips=True)
"""The colours stand for those of the page, see :func:`page_svg`."""
PAPER = Style("black", "0.35", "0.88", "white", 7.0, 3.4, 2.6, 11.0, tips=False)
"""Panels as wide as a column (86 mm); two of them beside each other fill a page."""

PAPER_DPI = 300
PAPER_FONTS = b"Arial, Helvetica, 'DejaVu Sans'"
"""Of the SVG, whose text stays text; the first two are narrower, so that what fits with the third fits with them."""


@dataclass(frozen=True)
class Panel:
    """One coordinate system.

    Attributes:
        title: above it; may be empty.
        alt: what it shows, for those who do not see it.
        draw: draws it.
        wide: as wide as the page.
    """

    title: str
    alt: str
    draw: Callable[[Axes, Style], None]
    wide: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        name: of its files, without ending.
        caption: below it.
        panels: at least one.
    """

    name: str
    caption: str
    panels: tuple[Panel, ...]


# ------------------------------------------------------------------------------------------------------ for the page


def page_svg(panel: Panel, prefix: str) -> str:
    """A panel as ``<svg>`` that takes text and grid colours, and the font, from the page around it.

    Args:
        panel: to be drawn.
        prefix: makes ids unique on the page.
    """
    with _settings(SCREEN):
        figure = _figure(SCREEN.width_in * (2 if panel.wide else 1), SCREEN.height_in)
        _draw(figure.subplots(), panel, SCREEN)
        svg = _saved(figure, "svg").decode()
    return _page_ready(svg, prefix)


def _page_ready(svg: str, prefix: str) -> str:
    """matplotlib's SVG as a part of a page: no header, no metadata, unique ids, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    svg = re.sub(
        rf"<a xlink:href=([\"']){_TIP}(.*?)\1[^>]*>(.*?)</a>",
        r"<g><title>\2</title>\3</g>",
        svg,
        flags=re.DOTALL,
    )
    for sentinel, colour in _SENTINELS.items():
        svg = svg.replace(sentinel, colour)
    svg = re.sub(r"\n\s*", "\n", svg)
    width = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" ', svg)
    if width is None:
        return svg
    pixels = float(width[1]) * 4 / 3  # 1 pt is 4/3 px
    return svg.replace(
        width[0], f'class="chart" aria-hidden="true" style="max-width: {1.15 * pixels:.0f}px" ', 1
    )


# ------------------------------------------------------------------------------------------------------- for a paper


def paper_files(chart: Chart) -> dict[str, bytes]:
    """File name to content: the chart as SVG and PNG on white, as wide as a column or, with several panels, a page."""
    with _settings(PAPER):
        figure = _paper_figure(chart)
        svg = _saved(figure, "svg", facecolor="white").replace(b"'DejaVu Sans'", PAPER_FONTS)
        return {
            f"{chart.name}.svg": svg,
            f"{chart.name}.png": _saved(figure, "png", facecolor="white", dpi=PAPER_DPI),
        }


def _paper_figure(chart: Chart) -> Figure:
    wide = any(panel.wide for panel in chart.panels)
    columns = 1 if wide or len(chart.panels) == 1 else 2
    rows = math.ceil(len(chart.panels) / columns)
    figure = _figure(PAPER.width_in * (2 if wide else columns), PAPER.height_in * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, chart.panels, strict=False):
        _draw(axis, panel, PAPER)
    for unused in axes[len(chart.panels) :]:
        unused.remove()
    return figure


# ------------------------------------------------------------------------------------------------------------- both


@contextmanager
def _settings(style: Style) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.settings)  # type: ignore[arg-type]  # our keys are texts, not literals
        yield


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(axis: Axes, panel: Panel, style: Style) -> None:
    if panel.title:
        axis.set_title(panel.title)
    panel.draw(axis, style)


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def points(
    axis: Axes,
    style: Style,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    tips: Sequence[str],
    series: int = 0,
) -> None:
    """Draw a point for each case, with a thin edge that shows where they overlap.

    Args:
        axis, style: of the panel.
        x, y: places.
        tips: what each point says when the pointer rests on it.
        series: chooses colour and marker.
    """
    drawn = axis.scatter(
        x,
        y,
        s=style.point_pt2,
        marker=MARKERS[series % len(MARKERS)],
        color=COLOURS[series % len(COLOURS)],
        alpha=0.8,
        edgecolors=style.ink,
        linewidths=0.4,
        zorder=3,
    )
    if style.tips:
        drawn.set_urls([_TIP + tip for tip in tips])


def short_number(value: float, _: object = None) -> str:
    """A tick label: 0.01, 5, 20000."""
    return (f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2g}").replace("-", "−")


def folded(name: str, limit: int) -> str:
    """A name on several short lines, broken at spaces, hyphens, underscores and slashes."""
    parts = name.replace("_", "_ ").replace("/", "/ ")
    longest = max(map(len, parts.split()), default=0)
    lines = textwrap.wrap(parts, limit, break_long_words=longest > 2 * limit)
    return "\n".join(line.replace("_ ", "_").replace("/ ", "/") for line in lines) or name


def log_axis(axis: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Decades where there are several, else further numbers as well; no exponents."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_xscale("log")
    axis.set_xlim(min(values) / 1.4, max(values) * 1.4)
    decades = math.log10(max(values) / min(values))
    between = (1, 2, 3, 4, 6, 8) if decades < 0.6 else (1, 2, 5) if decades < 2 else (1,)
    axis.xaxis.set_major_locator(LogLocator(10, between))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(short_number)
