"""Each method on all cases and on each level of a stratum: means with intervals, and the agreement of volumes.

What the figures of a report show, such as Figures 2 to 4 of Pérez Malla et al. 2019: post-processing steps (methods) by
subtype (a column of ``--groups``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.comparison.comparison_schema import Comparison
from autoseg.evaluation import statistics
from autoseg.evaluation.cohort import Averaging
from autoseg.evaluation.presets import PRESETS
from autoseg.evaluation.statistics import BlandAltman
from autoseg.evaluation.summary import Mean

ALL = "all"
"""Name of the stratum that has all cases."""
FEWEST_AGREEING = 3
"""Cases of a level with limits of agreement: those of two are drawn through any two points."""


@dataclass(frozen=True)
class ComparedLevel:
    """Cases that are looked at together.

    Attributes:
        stratum: :data:`ALL` for all cases.
        name: of the level; empty for all cases.
        cases: their places in ``Comparison.cases``.
    """

    stratum: str
    name: str
    cases: np.ndarray

    @property
    def words(self) -> str:
        """As it is called in a figure."""
        return self.name or "all cases"


@dataclass(frozen=True)
class LevelMean:
    """The mean of one metric of one method over the cases of a level; the interval is of the preset's kind."""

    label: str
    metric: str
    level: ComparedLevel
    method: str
    mean: Mean


@dataclass(frozen=True)
class Volumes:
    """The volumes of one method and of the truth, on one level.

    Attributes:
        truth_ml, prediction_ml: one for each of the level's cases.
    """

    label: str
    level: ComparedLevel
    method: str
    truth_ml: np.ndarray
    prediction_ml: np.ndarray

    def agreement(self, *, truth_first: bool = False) -> BlandAltman:
        """Of prediction minus truth, in ml; ``truth_first``: of truth minus prediction."""
        pair = (self.truth_ml, self.prediction_ml) if truth_first else (self.prediction_ml, self.truth_ml)
        return statistics.bland_altman(*pair)


def levels_of(comparison: Comparison, label: str) -> list[ComparedLevel]:
    """All cases, then every level of every stratum."""
    place = {case: i for i, case in enumerate(comparison.cases)}
    found = [ComparedLevel(ALL, "", np.arange(len(place)))]
    for stratum in comparison.strata:
        for level in stratum.classes[label]:
            found.append(
                ComparedLevel(stratum.name, level.name, np.array([place[c] for c in level.cases], int))
            )
    return found


def averaging(comparison: Comparison) -> Averaging:
    """How the comparison's preset makes intervals; by percentile bootstrap for a preset that is not known here."""
    preset = PRESETS.get(comparison.preset.name)
    if preset is None:
        return Averaging("percentile", statistics.RESAMPLES)
    return Averaging(preset.interval, preset.resamples)


def level_means(
    comparison: Comparison, label: str, metrics: Sequence[str], levels: Sequence[ComparedLevel]
) -> list[LevelMean]:
    """One for each metric, level and method, in this order.

    Args:
        comparison: of the methods.
        label: the class.
        metrics: some of ``comparison.metrics``.
        levels: some of :func:`levels_of`.
    """
    average = averaging(comparison)
    return [
        LevelMean(label, metric, level, method, average([values[i] for i in level.cases]))
        for metric in metrics
        for level in levels
        for method, values in comparison.scores[label][metric].items()
    ]


def level_volumes(comparison: Comparison, label: str, levels: Sequence[ComparedLevel]) -> list[Volumes]:
    """One for each level of enough cases and each method; none in a comparison of an earlier autoseg."""
    if label not in comparison.volumes_ml:
        return []
    truth = np.array(comparison.truth_volumes_ml[label], float)
    volumes = {name: np.array(values, float) for name, values in comparison.volumes_ml[label].items()}
    return [
        Volumes(label, level, method, truth[level.cases], of_method[level.cases])
        for level in levels
        if len(level.cases) >= FEWEST_AGREEING or (level.stratum == ALL and len(level.cases) > 1)
        for method, of_method in volumes.items()
    ]
