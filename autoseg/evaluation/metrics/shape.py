"""How compact each mask is by itself: area^1.5 / volume, which is least for a ball.

The area is a number of border voxels, as published, or that of the surface. Both give other numbers for the same
shape: a large ball has 7.7 by border voxels and 12.0 by the surface of its voxels; an ideal one has 6 sqrt(pi) = 10.6.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoseg.evaluation.metrics.distances import COPIES, borders, copied_borders
from autoseg.evaluation.metrics.metric import NAN, Better, Empties, Metric
from autoseg.evaluation.metrics.pair import Pair
from autoseg.evaluation.metrics.surface import surfaces

PREDICTION, TRUTH = 0, 1
SIDES: tuple[tuple[int, str, str, Empties, Better | None], ...] = (
    (PREDICTION, "prediction", "P", Empties(prediction=NAN, truth=None, both=NAN), "lower"),
    (TRUTH, "truth", "T", Empties(prediction=None, truth=NAN, both=NAN), None),
)
"""Which mask, its name, its letter, what its shape is where a mask is empty (it does not depend on the other), and
what a better method has: a truth is the same for every method."""


def compactness(area: float, volume: float) -> float:
    """area^1.5 / volume, without unit: area and volume are in the square and the cube of the same unit."""
    return area**1.5 / volume


def _by_border(pair: Pair, side: int) -> float:
    return compactness(int(np.count_nonzero(pair.once(borders)[side])), _voxels(pair, side))


def _by_copied_border(pair: Pair, side: int) -> float:
    first, inner, last = (int(np.count_nonzero(where)) for where in pair.once(copied_borders)[side])
    return compactness(first + (COPIES - 2) * inner + last, COPIES * _voxels(pair, side))


def _by_surface(pair: Pair, side: int) -> float:
    areas_mm2 = pair.once(surfaces)[side].areas_mm2(pair.spacing_mm, "closed")
    return compactness(float(areas_mm2.sum()), _voxels(pair, side) * float(pair.spacing_mm.prod()))


def _voxels(pair: Pair, side: int) -> int:
    return (pair.voxels_prediction, pair.voxels_truth)[side]


def _rows(
    name: str, definition: str, compute: Callable[[Pair, int], float], source: str = ""
) -> tuple[Metric, ...]:
    """One row for the prediction and one for the truth; MASK in the definition is the letter of the mask."""

    def row(side: int, of: str, letter: str, empties: Empties, better: Better | None) -> Metric:
        return Metric(
            f"{name}_{of}",
            "1",
            "shape",
            definition.replace("MASK", letter),
            lambda pair: compute(pair, side),
            empties,
            better,
            source,
        )

    return tuple(row(*side) for side in SIDES)


METRICS: tuple[Metric, ...] = (
    *_rows("compactness", "(border voxels of MASK)^1.5 / |MASK|, whatever the spacing", _by_border),
    *_rows(
        "compactness_9slices",
        "(border voxels)^1.5 / (voxels) of MASK with each slice repeated 9 times, whatever the spacing",
        _by_copied_border,
        source="Valverde et al. 2020 (RatLesNetv2)",
    ),
    *_rows(
        "compactness_mesh",
        "(area in mm^2 of the marching-cubes surface of MASK at level 0.5, closed at the edge of the volume)^1.5 "
        "/ (volume of MASK in mm^3)",
        _by_surface,
    ),
)
"""All by one mask alone. A prediction is better for a lower value (Valverde et al. 2020), as far as the truth is as
compact: true lesions are not balls."""
