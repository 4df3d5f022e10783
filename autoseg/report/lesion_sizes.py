"""The section on sizes of false lesions, as Fig. 7 of Chen, Bentley and Rueckert 2017."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.evaluation.false_lesions import SHARE_HELD, size_that_holds, sizes_in_words
from autoseg.evaluation.presets import PRESETS, FalseLesionList
from autoseg.report.blocks import Absent, Block, Figure, Points, Records, Section, Text
from autoseg.report.collect import FalseLesions, Material
from autoseg.report.drawing import COLOURS, Chart, Panel, Style, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 24


@dataclass(frozen=True)
class _Listed:
    """The false lesions of one class in all scored cases.

    Attributes:
        label: the class.
        sizes: ascending, ``[lesion]``.
        n_cases: with those that have none.
        unit: of the sizes.
    """

    label: str
    sizes: np.ndarray
    n_cases: int
    unit: str

    @property
    def held(self) -> float:
        """The size that holds nearly all of them, a whole number."""
        return float(math.ceil(size_that_holds(self.sizes)))


def section(material: Material) -> Section | Absent | None:
    """How large false lesions are, where a preset lists them."""
    found = _found(material)
    if not found:
        return None
    listed = [one for label in _classes(found) if len((one := _pooled(label, found)).sizes)]
    if not listed:
        return Absent("Sizes of false lesions", "there is no false lesion")
    preset = PRESETS.get(next(iter(found.values())).summary.preset.name)
    rule = preset.false_lesions if preset else None
    blocks: list[Block] = [Figure(_chart(listed)), Points(tuple(_said(one, rule) for one in listed))]
    if rule:
        blocks.append(Text((f"The size that holds {SHARE_HELD:.0%} is one for {rule.use}.",)))
    return Section("false_lesions", "Sizes of false lesions", tuple(blocks))


def records(material: Material) -> Records | None:
    """Every false lesion with its size, for a table; None where no preset lists them."""
    found = _found(material)
    if not found:
        return None
    rows = tuple(
        (place, case, label, size, one.summary.metrics["lesion_size_false"].unit)
        for place, one in found.items()
        for case, classes in one.sizes.items()
        for label, sizes in classes.items()
        for size in sizes
    )
    return Records(("fold", "case", "class", "size", "unit"), rows)


def _found(material: Material) -> dict[str, FalseLesions]:
    return {name: one.false_lesions for name, one in material.scored.items() if one.false_lesions is not None}


def _classes(found: Mapping[str, FalseLesions]) -> list[str]:
    return list(dict.fromkeys(label for one in found.values() for label in one.summary.classes))


def _pooled(label: str, found: Mapping[str, FalseLesions]) -> _Listed:
    sizes = [
        size for one in found.values() for classes in one.sizes.values() for size in classes.get(label, ())
    ]
    first = next(iter(found.values())).summary
    n_cases = sum(len(one.summary.cases) for one in found.values())
    return _Listed(label, np.sort(np.array(sizes, float)), n_cases, first.metrics["lesion_size_false"].unit)


def _said(one: _Listed, rule: FalseLesionList | None) -> str:
    words = f"{one.label}: {sizes_in_words(one.sizes, one.n_cases, one.unit)}; "
    published = (
        f"{rule.limit:g} {one.unit} hold {(one.sizes <= rule.limit).mean():.0%} of them, " if rule else ""
    )
    return f"{words}{published}{one.held:g} {one.unit} would hold {SHARE_HELD:.0%}."


def _chart(listed: list[_Listed]) -> Chart:
    return Chart(
        "false_lesions",
        "How large the false lesions of all cases together are: how many of each size, and which share is no larger "
        f"than a size (logarithmic axis). Dashed: the size that holds {SHARE_HELD:.0%} of them.",
        tuple(panel for i, one in enumerate(listed) for panel in _panels(one, COLOURS[i % len(COLOURS)])),
    )


def _panels(one: _Listed, colour: str) -> Iterator[Panel]:
    """How many of each size; the share that is no larger."""

    from matplotlib.ticker import MaxNLocator

    def counts(axis: Axes, style: Style) -> None:
        axis.hist(one.sizes, _edges(one.sizes).tolist(), color=colour, edgecolor=style.page, linewidth=0.6)
        axis.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.set_ylabel("false lesions")
        _finish(axis, style)

    def shares(axis: Axes, style: Style) -> None:
        axis.ecdf(one.sizes, color=colour)
        log_axis(axis, one.sizes)
        axis.set_ylim(0, 1.02)
        axis.set_ylabel("share no larger")
        _finish(axis, style)

    def _finish(axis: Axes, style: Style) -> None:
        axis.axvline(one.held, color=style.ink, linewidth=1, linestyle="--")
        axis.set_xlabel(f"size, {one.unit} (n = {len(one.sizes)})")

    said = (
        f"median {np.median(one.sizes):.4g} {one.unit}, {SHARE_HELD:.0%} have at most {one.held:g} {one.unit}"
    )
    yield Panel(f"{one.label}: how many", f"Sizes of false lesions of {one.label}: {said}", counts)
    yield Panel(
        f"{one.label}: share", f"Share of false lesions of {one.label} up to each size: {said}", shares
    )


def _edges(sizes: np.ndarray) -> np.ndarray:
    """Of bars from 0 to the largest, of 1, 2 or 5 times a power of ten."""
    widths = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    width = next(width for width in widths if sizes[-1] / width <= MOST_BARS)
    return np.arange(0, math.ceil(sizes[-1] / width) + 1) * width
