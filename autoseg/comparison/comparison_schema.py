"""comparison.json: methods compared on the same cases, with everything that the tables and the figure show.

``None`` is an undefined number: a score that an empty mask leaves without a value, or an interval or a test of too
few cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from autoseg.evaluation.summary import MetricRow, PresetRow
from autoseg.files import ExactModel, read_version

JSON_NAME = "comparison.json"
VERSION: Final = 1

Test = Literal["permutation", "wilcoxon", "t"]


class Method(ExactModel):
    """One folder of predictions.

    Attributes:
        name: in all tables.
        folder: as it was given.
        left_out: its cases that have a truth and that another method lacks.
        ignored: its predictions without truth.
    """

    name: str
    folder: str
    left_out: list[str] = []
    ignored: list[str] = []


class Ranked(ExactModel):
    """The mean of one method, over the cases where the metric is defined for every method.

    Attributes:
        mean, sd: of the scores; sd with n - 1. Where ``better`` is ``zero``, of their absolute values.
        low, high: 95 % interval of the mean.
        undefined: cases where the metric is not defined for this method.
    """

    method: str
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    undefined: int


class Difference(ExactModel):
    """Two methods, one metric: the first minus the second, over the cases where both are defined.

    Where the metric's ``better`` is ``zero``, everything is about absolute values.

    Attributes:
        first, second: the methods.
        n: cases where both are defined.
        undefined: cases that were dropped because one or both are not.
        mean_first, mean_second: over these cases.
        difference: mean of first minus second.
        sd: of the paired differences, with n - 1.
        low, high: 95 % interval of the mean difference, not corrected for the number of comparisons.
        wins, losses, ties: cases where the first is better, worse, or the same.
        rank_biserial: effect size that belongs to Wilcoxon's test, -1 to 1: the share of the ranks in favour of
            positive differences minus that of negative ones.
        p: test to two-sided p-value.
        p_holm: p-value of the chosen test after Holm's correction; see ``Comparison.correction`` for the family.
        better: the method for which a difference was shown at 5 %; None when none was.
    """

    first: str
    second: str
    n: int
    undefined: int
    mean_first: float | None
    mean_second: float | None
    difference: float | None
    sd: float | None = None
    low: float | None
    high: float | None
    wins: int
    losses: int
    ties: int
    rank_biserial: float | None = None
    p: dict[Test, float | None]
    p_holm: float | None = None
    better: str | None = None


class MetricComparison(ExactModel):
    """One metric of one class.

    Attributes:
        n: cases where the metric is defined for every method, which the ranking is about.
        ranking: the methods, best first.
        pairs: every pair of methods.
        against_truth: where the truth has such a value too, as for compactness, each method minus the truth; corrected
            for each other, and none is called better.
    """

    n: int
    ranking: list[Ranked]
    pairs: list[Difference]
    against_truth: list[Difference] = []


class PooledDice(ExactModel):
    """Dice of the voxels of all cases together, of a method or as the difference of two.

    Attributes:
        row: name of the method, or ``first - second``.
        low, high: 95 % bootstrap interval over cases.
    """

    row: str
    value: float | None
    low: float | None
    high: float | None


class LevelComparison(ExactModel):
    """The cases of one level, for one class."""

    name: str
    cases: list[str]
    metrics: dict[str, list[Difference]]


class StratumComparison(ExactModel):
    """Cases split by a column of the groups file or by a quantity of the truth. Exploratory.

    Attributes:
        name: column or metric.
        rule: in words.
        classes: class to levels.
    """

    name: str
    rule: str
    classes: dict[str, list[LevelComparison]]


class Comparison(ExactModel):
    """comparison.json.

    Attributes:
        command: as it was typed; empty from Python.
        settings: the options that decide the result, as they were given; empty from Python.
        truths: the folder.
        preset: that all scores are of.
        labels, labels_from: the classes and where they come from.
        methods: in the order in which they were given.
        cases: that all methods have; only these are compared.
        left_out: case to the methods that lack it.
        main: metrics of the sentences and the figure.
        test: whose p-values are corrected and decide.
        alpha: a difference is shown when its corrected p-value is at most this.
        interval, correction, tests: how they were made.
        notes: what a reader should know about these results.
        warnings: what was said about the folders while they were scored.
        metrics: the compared metrics.
        classes: class to metric to result.
        micro_dice: class to the pooled Dice of each method and of each pair; empty in files of an earlier autoseg.
        strata: the same differences on parts of the cases.
        scores: class to metric to method to one value for each of ``cases``.
        truth_volumes_ml, volumes_ml: class to the volumes of the truths, and to method to those of its masks, one for
            each of ``cases``; empty in files of an earlier autoseg.
    """

    version: Literal[1] = VERSION
    autoseg_version: str
    command: str = ""
    settings: dict[str, Any] = {}
    truths: str
    preset: PresetRow
    labels: dict[str, int | list[int]]
    labels_from: str
    methods: list[Method] = Field(min_length=2)
    cases: list[str] = Field(min_length=1)
    left_out: dict[str, list[str]] = {}
    main: list[str]
    test: Test
    alpha: float
    interval: str
    correction: str
    tests: dict[Test, str]
    notes: list[str] = []
    warnings: list[str] = []
    metrics: dict[str, MetricRow]
    classes: dict[str, dict[str, MetricComparison]]
    micro_dice: dict[str, list[PooledDice]] = {}
    strata: list[StratumComparison] = []
    scores: dict[str, dict[str, dict[str, list[float | None]]]]
    truth_volumes_ml: dict[str, list[float]] = {}
    volumes_ml: dict[str, dict[str, list[float]]] = {}


def read_comparison(folder: Path | str) -> Comparison:
    """Read comparison.json of a folder.

    Raises:
        AutosegError: it is missing, damaged or of another version.
    """
    return read_version(
        Path(folder) / JSON_NAME, Comparison, VERSION, what="the comparison is", made_by="autoseg_compare"
    )


def folders_of(content: dict[str, Any]) -> list[str]:
    """The folders that a comparison.json is about."""
    return [*(method["folder"] for method in content["methods"]), content["truths"]]
