"""agreement.png and agreement.svg: the density of the scores of pairs, within each rater and between raters.

As Fig. 4 of Valverde et al. 2020 (RatLesNetv2): one curve for each rater who drew several times and one for the mixed
pairs. A tick below the curves is one pair of masks of one case.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.comparison.agreement_schema import Agreement
from autoseg.evaluation.text import spoken
from autoseg.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito
MIXED = "#444444"
POINTS = 400
MARGIN = 0.15  # of the range of the scores, on each side


def draw_agreement(agreement: Agreement, folder: Path) -> list[Path]:
    """Write agreement.png and agreement.svg into a folder and return their paths."""
    from matplotlib import rc_context

    written = []
    # text stays text; the same file each time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "autoseg"}):
        figure = make_figure(agreement)
        for ending, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
            path = Path(folder) / f"agreement{ending}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, facecolor="white", **options)
            written.append(path)
    return written


def make_figure(agreement: Agreement) -> Figure:
    """A row of panels for each class, a column for each metric."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(agreement.metrics)
    classes = list(agreement.pairs[0].scores)
    figure = Figure((5.2 * len(metrics), 3.2 * len(classes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(classes), len(metrics), squeeze=False)
    for row, label in enumerate(classes):
        for column, metric in enumerate(metrics):
            _panel(axes[row, column], agreement, label, metric)
    return figure


def groups_of(agreement: Agreement, label: str, metric: str) -> dict[str, np.ndarray]:
    """Name of a curve to the defined scores of all its pairs and cases; methods have no curve."""
    people = [rater.name for rater in agreement.raters if not rater.method]
    groups: dict[str, list[float]] = {}
    for pair in agreement.pairs:
        if {pair.rater_a, pair.rater_b} <= set(people):
            name = f"within {pair.rater_a}" if pair.kind == "intra" else "between raters"
            values = [value for value in pair.scores[label][metric].values() if value is not None]
            groups.setdefault(name, []).extend(values)
    return {name: np.array(values) for name, values in groups.items() if values}


def density(values: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """Gaussian kernel density of the values at some points, Scott's bandwidth; None where they do not vary."""
    from scipy.stats import gaussian_kde

    if len(values) < 2 or np.ptp(values) < 1e-9:
        return None
    return np.asarray(gaussian_kde(values)(points))


def _panel(axis: Axes, agreement: Agreement, label: str, metric: str) -> None:
    unit, groups = agreement.metrics[metric].unit, groups_of(agreement, label, metric)
    axis.set_title(f"{label}: {spoken(metric)}", fontsize=10, loc="left", weight="bold", parse_math=False)
    pooled = np.concatenate([*groups.values(), np.zeros(0)])
    low, high = (pooled.min(), pooled.max()) if len(pooled) else (0.0, 1.0)
    margin = MARGIN * (high - low) or 0.1
    points = np.linspace(low - margin, high + margin, POINTS)
    for place, (name, values) in enumerate(groups.items()):
        colour = MIXED if name == "between raters" else COLOURS[place % len(COLOURS)]
        curve = density(values, points)
        if curve is not None:
            axis.plot(points, curve, color=colour, linewidth=1.6)
        axis.plot([], [], color=colour, label=f"{name} (n = {len(values)})")
        rug = np.full(len(values), -0.03 - 0.04 * place)
        axis.plot(
            values, rug, "|", color=colour, markersize=5, alpha=0.6, transform=axis.get_xaxis_transform()
        )
        axis.axvline(float(values.mean()), color=colour, linewidth=0.9, linestyle=":")
    axis.set_xlim(points[0], points[-1])
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", pad=6 + 10 * len(groups))
    axis.set_xlabel(spoken(metric) + ("" if unit == "1" else f", {unit}"), fontsize=8, parse_math=False)
    axis.set_ylabel("density", fontsize=8)
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)
    if groups:
        axis.legend(fontsize=8, frameon=False)
    for line in axis.lines:
        line.set_clip_on(line.get_marker() != "|")
