"""What a metric is: a row that says its unit, its definition and its value for empty masks, and how to compute it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from autoseg.evaluation.metrics.pair import Pair, Which

NAN = math.nan

Group = Literal["overlap", "volume", "lesion", "distance", "surface", "shape"]
GROUPS: tuple[Group, ...] = ("overlap", "volume", "lesion", "distance", "surface", "shape")
"""Kinds of metrics, cheap ones first; ``autoseg_evaluate --without distance surface`` leaves kinds out."""

Better = Literal["higher", "lower", "zero"]
"""What a better method has: a higher or lower value, or one nearer to zero; None for a mere description."""


@dataclass(frozen=True)
class Empties:
    """What a metric is when only the prediction, only the truth or both are empty.

    ``nan`` is undefined, left out of means and counted; None is what the definition gives.
    """

    prediction: float | None
    truth: float | None
    both: float | None


UNDEFINED = Empties(prediction=NAN, truth=NAN, both=NAN)
ZERO_UNLESS_BOTH = Empties(prediction=0.0, truth=0.0, both=1.0)
DEFINED = Empties(prediction=None, truth=None, both=None)


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Attributes:
        name: with the unit or the parameter, as it appears in files (``hd95_mm``).
        unit: ``1`` for a ratio.
        group: what kind of metric it is.
        definition: in one line.
        compute: from a pair; where a mask is empty it is asked only if ``empties`` has None for that.
        empties: None when the definition holds for all empty masks.
        better: see :data:`Better`.
        source: where the definition comes from, such as a paper's section; empty for common knowledge.
    """

    name: str
    unit: str
    group: Group
    definition: str
    compute: Callable[[Pair], float]
    empties: Empties | None = None
    better: Better | None = None
    source: str = ""

    def when_empty(self, which: Which) -> float | None:
        """The value where this mask is empty; ``nan`` is undefined, None is what the definition gives."""
        return getattr(self.empties or DEFINED, which)

    def __call__(self, pair: Pair) -> float:
        """The value for one pair; ``nan`` where it is undefined."""
        fixed = self.when_empty(pair.empty) if pair.empty else None
        return pair.once(self.compute) if fixed is None else fixed


def penalised(distance: Metric) -> Metric:
    """``hausdorff_mm`` as ``hausdorff_penalised_mm``: where one mask is empty, the diagonal of the volume.

    No case is left out then, so that a method that predicts nothing for hard cases has no better mean. Nothing
    predicted where nothing is has a distance of 0.
    """
    name = f"{distance.name.removesuffix('_mm')}_penalised_mm"
    return replace(
        distance,
        name=name,
        definition=f"{distance.name}; where one mask is empty, the diagonal of the volume",
        compute=lambda pair: pair.diagonal_mm if pair.empty else pair.once(distance.compute),
        empties=Empties(prediction=None, truth=None, both=0.0),
        source="",
    )
