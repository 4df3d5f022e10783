"""Lesions: connected components of both masks, and which of the prediction belong to which of the truth.

A :class:`LesionRule` says what one lesion is and when it is found; :func:`lesion_metrics` makes the metrics of a rule.
Sizes are numbers of voxels, or of pixels where every slice is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from autoseg.components import connected_components
from autoseg.errors import AutosegError, nearest_names
from autoseg.evaluation.metrics.metric import NAN, ZERO_UNLESS_BOTH, Better, Empties, Metric
from autoseg.evaluation.metrics.pair import Pair

CONNECTIVITIES = {2: (4, 8), 3: (6, 18, 26)}
"""Number of dimensions to the numbers of neighbours that a voxel can have."""


@dataclass(frozen=True)
class LesionRule:
    """What one lesion is, and when it is found. Called with a pair, a rule gives its :class:`Lesions`.

    Attributes:
        dimensions: 3 for components of the volume, 2 for components of each slice (of each z) by itself.
        connectivity: how many neighbours of a voxel belong to its component: 6, 18 or 26; 4 or 8 in 2D.
        matching: ``any``: a true lesion is found when one of its voxels is predicted, a predicted one is right when
            one of its voxels is true; one prediction may find several lesions. A number: true and predicted lesions
            whose intersection over union (IoU) is at least this are paired one to one, those with the highest first.
        pixel_mm: in 2D, edge of the pixels in which sizes are given: the area of a lesion by that of such a pixel, so
            that scanners compare. None for those of each case.

    Raises:
        AutosegError: the connectivity does not exist in so many dimensions, the IoU is not in (0, 1], or a size of
            pixels is given for volumes.
    """

    dimensions: int = 3
    connectivity: int = 26
    matching: Literal["any"] | float = "any"
    pixel_mm: float | None = None

    def __post_init__(self) -> None:
        if self.dimensions not in CONNECTIVITIES:
            raise AutosegError(
                "lesions are counted in 2 or 3 dimensions",
                found=self.dimensions,
                expected="2 (each slice) or 3",
            )
        allowed = CONNECTIVITIES[self.dimensions]
        if self.connectivity not in allowed:
            raise AutosegError(
                f"there is no such connectivity in {self.dimensions}D",
                found=self.connectivity,
                expected=" or ".join(map(str, allowed)),
            )
        if self.matching != "any" and not (isinstance(self.matching, int | float) and 0 < self.matching <= 1):
            raise AutosegError(
                "the rule that matches lesions does not fit",
                found=repr(self.matching),
                expected='"any", or the least IoU: a number above 0, at most 1',
            )

        if self.pixel_mm is not None and (self.dimensions != 2 or not self.pixel_mm > 0):
            raise AutosegError(
                "a size of pixels is for lesions in slices",
                found=f"pixel_mm {self.pixel_mm:g} in {self.dimensions}D",
                expected="a positive number of mm in 2D",
            )

    def __call__(self, pair: Pair) -> Lesions:
        """The lesions of a pair; any of its masks may be empty."""
        found = match_lesions(pair.prediction, pair.truth, self)
        if self.pixel_mm is None:
            return found
        area = float(pair.spacing_mm[1] * pair.spacing_mm[2]) / self.pixel_mm**2
        return replace(
            found, truth_sizes=found.truth_sizes * area, prediction_sizes=found.prediction_sizes * area
        )

    @property
    def words(self) -> dict[str, str]:
        """What the rule says, for definitions: lesions of P and of T, which are found, missed, right and false."""
        slices = "" if self.dimensions == 3 else "the slices of "
        lesions = f"{self.connectivity}-connected components of {slices}"
        if self.matching == "any":
            matched, unmatched = "share a voxel with", "share no voxel with"
        else:
            how = f"(one to one, IoU >= {self.matching:g}, highest first)"
            matched, unmatched = f"are paired {how} with one of", f"are paired {how} with none of"
        return {
            "unit": "voxels" if self.dimensions == 3 else "px",
            "sizes": "" if self.pixel_mm is None else f", in pixels of {self.pixel_mm:g} mm by area",
            "lesions_of_p": lesions + "P",
            "lesions_of_t": lesions + "T",
            "found": f"{matched} P",
            "missed": f"{unmatched} P",
            "right": f"{matched} T",
            "false": f"{unmatched} T",
        }


@dataclass(frozen=True)
class Lesions:
    """The lesions of prediction and truth.

    Attributes:
        truth_sizes, prediction_sizes: voxels of each lesion, or pixels of the rule's size, ``[lesion]``.
        found: which lesions of the truth match, boolean ``[lesion]``.
        right: which lesions of the prediction match, boolean ``[lesion]``.
    """

    truth_sizes: np.ndarray
    prediction_sizes: np.ndarray
    found: np.ndarray
    right: np.ndarray

    @property
    def truth(self) -> int:
        """How many there are in the truth."""
        return len(self.truth_sizes)

    @property
    def prediction(self) -> int:
        """How many there are in the prediction."""
        return len(self.prediction_sizes)

    @cached_property
    def n_found(self) -> int:
        """Lesions of the truth that match."""
        return int(np.count_nonzero(self.found))

    @cached_property
    def n_right(self) -> int:
        """Lesions of the prediction that match."""
        return int(np.count_nonzero(self.right))

    @property
    def missed(self) -> int:
        """Lesions of the truth that do not match."""
        return self.truth - self.n_found

    @property
    def false(self) -> int:
        """Lesions of the prediction that do not match."""
        return self.prediction - self.n_right

    @property
    def false_sizes(self) -> np.ndarray:
        """Sizes of the lesions of the prediction that do not match, ``[lesion]``."""
        return self.prediction_sizes[~self.right]


# --------------------------------------------------------------------------------------- components and matching


def match_lesions(prediction: np.ndarray, truth: np.ndarray, rule: LesionRule) -> Lesions:
    """Find the lesions of two boolean masks ``[z, y, x]`` and match them."""
    theirs, truth_sizes = components(truth, rule)
    ours, prediction_sizes = components(prediction, rule)
    shared = prediction & truth
    theirs, ours = theirs[shared], ours[shared]  # labels of every shared voxel, from 1
    found, right = np.zeros(len(truth_sizes), bool), np.zeros(len(prediction_sizes), bool)
    if rule.matching == "any":
        found[theirs - 1] = True
        right[ours - 1] = True
    else:
        pairs = _by_iou(ours, theirs, prediction_sizes, truth_sizes, float(rule.matching))
        for of_prediction, of_truth in pairs:
            if not right[of_prediction] and not found[of_truth]:
                right[of_prediction] = found[of_truth] = True
    return Lesions(truth_sizes, prediction_sizes, found, right)


def components(mask: np.ndarray, rule: LesionRule) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask.

    Args:
        mask: boolean ``[z, y, x]``.

    Returns:
        The component of each voxel ``[z, y, x]`` from 1 on, 0 in the background, and the size of each component in
        voxels ``[component]``.
    """
    return connected_components(mask, rule.connectivity)


def _by_iou(
    ours: np.ndarray, theirs: np.ndarray, our_sizes: np.ndarray, their_sizes: np.ndarray, least: float
) -> list[tuple[int, int]]:
    """Pairs of lesions whose IoU is at least ``least``, the highest first; equal ones in the order of the image.

    Args:
        ours, theirs: labels of every voxel that both masks share, from 1 on.

    Returns:
        (lesion of P, lesion of T), counted from 0.
    """
    codes, voxels = np.unique(
        (ours.astype(np.int64) - 1) * len(their_sizes) + (theirs.astype(np.int64) - 1), return_counts=True
    )
    of_prediction, of_truth = np.divmod(codes, max(len(their_sizes), 1))
    iou = voxels / (our_sizes[of_prediction] + their_sizes[of_truth] - voxels)
    order = np.argsort(-iou, kind="stable")
    order = order[iou[order] >= least]
    return list(zip(of_prediction[order].tolist(), of_truth[order].tolist(), strict=True))


# ----------------------------------------------------------------------------------------------------- formulas


def _f1(lesions: Lesions) -> float:
    return 2 * lesions.n_found / (2 * lesions.n_found + lesions.missed + lesions.false)


def _precision(lesions: Lesions) -> float:
    return lesions.n_right / lesions.prediction


def _recall(lesions: Lesions) -> float:
    return lesions.n_found / lesions.truth


def _mean_size(sizes: np.ndarray) -> float:
    return float(sizes.mean()) if len(sizes) else 0.0


def _false_size(lesions: Lesions) -> float:
    return _mean_size(lesions.false_sizes)


def _missed_size(lesions: Lesions) -> float:
    return _mean_size(lesions.truth_sizes[~lesions.found])


def _truth_size(lesions: Lesions) -> float:
    return _mean_size(lesions.truth_sizes)


# ---------------------------------------------------------------------------------------------------- the table


class _Row(NamedTuple):
    """One metric of any rule; the words of the rule stand in braces."""

    name: str
    unit: str
    definition: str
    formula: Callable[[Lesions], float]
    better: Better | None = None
    empties: Empties | None = None


_PRECISION = Empties(prediction=0.0, truth=0.0, both=NAN)
_RECALL = Empties(prediction=0.0, truth=NAN, both=NAN)
_OF_TRUTH = Empties(prediction=None, truth=NAN, both=NAN)

_ROWS = (
    _Row("lesions_truth", "lesions", "{lesions_of_t}", lambda x: x.truth),
    _Row("lesions_prediction", "lesions", "{lesions_of_p}", lambda x: x.prediction),
    _Row("lesions_found", "lesions", "lesions of T that {found}", lambda x: x.n_found, "higher"),
    _Row("lesions_missed", "lesions", "lesions of T that {missed}", lambda x: x.missed, "lower"),
    _Row("lesions_false", "lesions", "lesions of P that {false}", lambda x: x.false, "lower"),
    _Row("lesion_f1", "1", "2 found / (2 found + missed + false)", _f1, "higher", ZERO_UNLESS_BOTH),
    _Row("lesion_precision", "1", "share of the lesions of P that {right}", _precision, "higher", _PRECISION),
    _Row("lesion_recall", "1", "share of the lesions of T that {found}", _recall, "higher", _RECALL),
    _Row(
        "lesion_count_difference",
        "lesions",
        "lesions of P minus lesions of T",
        lambda x: x.prediction - x.truth,
        "zero",
    ),
    _Row(
        "lesion_count_difference_absolute",
        "lesions",
        "the size of lesion_count_difference, without its sign",
        lambda x: abs(x.prediction - x.truth),
        "lower",
    ),
    _Row(
        "lesion_size_false",
        "{unit}",
        "mean size of the false lesions of P, 0 if none{sizes}",
        _false_size,
        "lower",
    ),
    _Row(
        "lesion_size_missed",
        "{unit}",
        "mean size of the missed lesions of T, 0 if none{sizes}",
        _missed_size,
        "lower",
    ),
    _Row("lesion_size_truth", "{unit}", "mean size of the lesions of T{sizes}", _truth_size, None, _OF_TRUTH),
)


def lesion_metrics(
    rule: LesionRule = LesionRule(), empties: Mapping[str, Empties] | None = None, source: str = ""
) -> tuple[Metric, ...]:
    """The metrics of one rule, and ``detected``, which is the same for all rules.

    Args:
        rule: what a lesion is and when it is found; it stands in the definitions.
        empties: name to value for empty masks, where it differs from the default.
        source: paper or script whose rule this is.

    Raises:
        AutosegError: ``empties`` names a metric that does not exist.
    """
    table = {row.name: _metric(row, rule, source) for row in _ROWS} | {DETECTED.name: DETECTED}
    for name, changed in (empties or {}).items():
        if name not in table:
            raise AutosegError(f"there is no lesion metric {name!r}", fix=nearest_names(name, table))
        table[name] = replace(table[name], empties=changed)
    return tuple(table.values())


def _metric(row: _Row, rule: LesionRule, source: str) -> Metric:
    return Metric(
        row.name,
        row.unit.format(**rule.words),
        "lesion",
        row.definition.format(**rule.words),
        lambda pair: row.formula(pair.once(rule)),
        row.empties,
        row.better,
        source,
    )


DETECTED = Metric(
    "detected",
    "1",
    "lesion",
    "1 where P and T share a voxel, otherwise 0; the mean over cases is the detection rate",
    lambda pair: float(pair.tp > 0),
    Empties(prediction=0.0, truth=NAN, both=NAN),
    "higher",
)

DEFAULT_METRICS: tuple[Metric, ...] = lesion_metrics()
"""By the default rule: 3D, 26-connected, matched by any shared voxel."""
