"""summary.json and summary.csv: the scores of every case and class, and their means with intervals.

``None`` (null in JSON, an empty cell in CSV) is an undefined score; :class:`MetricRow` says where a metric is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from autoseg.evaluation.false_lesions import FILE_NAME as FALSE_LESIONS_NAME
from autoseg.evaluation.false_lesions import write_false_lesions
from autoseg.evaluation.metrics.metric import Better
from autoseg.evaluation.text import csv_cell
from autoseg.evaluation.thresholds import FILE_NAME as THRESHOLDS_NAME
from autoseg.evaluation.thresholds import Counts, write_thresholds
from autoseg.files import ExactModel, csv_text, read_version, write_json, write_text

JSON_NAME, CSV_NAME = "summary.json", "summary.csv"
VERSION: Final = 2
Scores = dict[str, int | float | None]


class PresetRow(ExactModel):
    """Which preset the numbers are of, see :class:`autoseg.evaluation.presets.Preset`.

    Attributes:
        table: the metrics that are shown first.
        in_words: those of them whose means are also put in words.
    """

    name: str
    title: str
    source: str = ""
    notes: list[str] = []
    table: list[str] = []
    in_words: list[str] = []

    @property
    def words(self) -> str:
        """Name, title and source on one line."""
        return f"preset {self.name}: {self.title}" + (f" ({self.source})" if self.source else "")


class MetricRow(ExactModel):
    """What a metric means: its unit, its definition and its value where a mask is empty.

    Attributes:
        empty_prediction, empty_truth, both_empty: None is undefined, ``defined`` follows the definition.
    """

    unit: str
    group: str
    definition: str
    better: Better | None = None
    source: str = ""
    empty_prediction: float | Literal["defined"] | None
    empty_truth: float | Literal["defined"] | None
    both_empty: float | Literal["defined"] | None


class CaseScores(ExactModel):
    """One case.

    Attributes:
        prediction_sha256, truth_sha256: of the files.
        classes: class to metric to value.
        groups: column to value, of ``--groups``.
        thresholds: class to (tp, fp, fn) at each of :data:`autoseg.evaluation.thresholds.THRESHOLDS`, where
            probabilities were at hand; written to thresholds.csv, not to summary.json.
        false_sizes: class to the sizes of its false lesions, where the preset lists them; written to
            false_lesions.csv, not to summary.json.
    """

    name: str
    prediction_sha256: str
    truth_sha256: str
    classes: dict[str, Scores]
    groups: dict[str, str] = {}
    thresholds: dict[str, list[tuple[int, int, int]]] = Field(default={}, exclude=True)
    false_sizes: dict[str, list[float]] | None = Field(default=None, exclude=True)

    @property
    def counts(self) -> dict[str, Counts]:
        """Class to its counts at thresholds."""
        return {label: Counts(*np.array(rows).T) for label, rows in self.thresholds.items()}

    @property
    def mean_dice(self) -> float:
        """Mean over the classes; 0 for one whose Dice a preset leaves undefined."""
        return float(np.mean([scores["dice"] or 0.0 for scores in self.classes.values()]))

    @property
    def is_empty(self) -> bool:
        """Whether neither truth nor prediction has a voxel of any class."""
        return not any(s["voxels_truth"] or s["voxels_prediction"] for s in self.classes.values())


class Mean(ExactModel):
    """The mean of one metric over cases.

    Attributes:
        mean, sd, median: over the cases where the score is defined; sd with n - 1; None when there are no cases
            (sd: fewer than two).
        low, high: 95 % interval of the mean, see :attr:`Summary.interval`; None for fewer than two cases.
        n: cases where the score is defined.
        undefined: cases where it is not.
    """

    mean: float | None
    sd: float | None
    median: float | None
    low: float | None
    high: float | None
    n: int
    undefined: int


class CohortValue(ExactModel):
    """One number of all cases together, such as Dice of the pooled voxels.

    Attributes:
        low, high: 95 % bootstrap interval over cases where it makes sense.
        n: cases that count.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str
    definition: str
    n: int


class VolumeAgreement(ExactModel):
    """Bland-Altman of volumes: prediction minus truth, ml, over all cases of the class."""

    mean_ml: float
    sd_ml: float
    low_limit_ml: float
    high_limit_ml: float
    n: int


class ClassSummary(ExactModel):
    """One class.

    Attributes:
        cases: how many there are.
        empty_truth: of these, how many have no truth of this class.
        false_alarms: of the cases without truth, how many have a prediction.
        missed: of the cases with truth, in how many the prediction shares no voxel with it; the others are the
            ``detection_rate``.
        all: metric to mean over all cases.
        truth_present: the same over the cases with truth.
        cohort: numbers of all cases together.
        volume_agreement: None for fewer than two cases.
    """

    cases: int
    empty_truth: int
    false_alarms: int
    missed: int
    all: dict[str, Mean]
    truth_present: dict[str, Mean]
    cohort: dict[str, CohortValue]
    volume_agreement: VolumeAgreement | None


class Level(ExactModel):
    """The cases of one level of a stratum, for one class.

    Attributes:
        name: such as ``8 to 40 voxels`` or ``chronic``.
    """

    name: str
    cases: list[str]
    metrics: dict[str, Mean]


class GroupTest(ExactModel):
    """Whether a metric differs between the groups of a column: Kruskal-Wallis.

    Attributes:
        h: the statistic.
        degrees_of_freedom: groups that were compared, less one.
        p, p_holm: as it is, and after Holm's correction over all columns and classes; None, as ``h``, where no test was
            made.
        n: each group that was compared to its cases in which the metric is defined.
        left_out: each group with too few of them to their number.
        why_not: why no test was made; empty where one was.
    """

    h: float | None
    degrees_of_freedom: int
    p: float | None
    p_holm: float | None = None
    n: dict[str, int]
    left_out: dict[str, int] = {}
    why_not: str = ""


class Stratum(ExactModel):
    """Cases split by a column of the groups file or by a quantity of each case.

    Attributes:
        name: column, or metric such as ``voxels_truth``.
        rule: in words, such as ``column of groups.csv`` or ``quartiles of voxels_truth``.
        classes: class to levels.
        tests: of a column, class to metric of the preset's table to the test across its groups.
        mean_of_means: class to metric to the mean of the levels' means, for the column over which the preset takes it.
    """

    name: str
    rule: str
    classes: dict[str, list[Level]]
    tests: dict[str, dict[str, GroupTest]] = {}
    mean_of_means: dict[str, dict[str, float | None]] = {}


class Summary(ExactModel):
    """summary.json.

    Attributes:
        command: as it was typed; empty from Python.
        settings: the options that decide the result, as they were given; empty from Python.
        predictions, truths: the folders.
        preset: that the numbers are of.
        labels: as of dataset.json.
        labels_from: where they come from.
        ignored: predictions that have no truth and were not scored.
        unpredicted: truths without prediction that were left out because the user allowed it.
        warnings: what was said about these folders while they were scored.
        interval: how the intervals were made.
        metrics: what each metric means.
        classes: the means.
        strata: the means of parts of the cases.
        group_tests: how the tests across groups were made, in words; empty without any.
        cases: the scores of each case, sorted by name.
    """

    version: Literal[2] = VERSION
    autoseg_version: str
    command: str = ""
    settings: dict[str, Any] = {}
    predictions: str
    truths: str
    preset: PresetRow
    labels: dict[str, int | list[int]]
    labels_from: str
    ignored: list[str] = []
    unpredicted: list[str] = []
    warnings: list[str] = []
    interval: str
    metrics: dict[str, MetricRow]
    classes: dict[str, ClassSummary]
    strata: list[Stratum] = []
    group_tests: str = ""
    cases: list[CaseScores]

    def means(self) -> dict[str, Scores]:
        """Class to the mean of the main metrics over all cases, rounded for reading."""
        names = ("dice", "hd95_mm", "lesion_f1", "volume_difference_ml")
        return {
            label: {name: _rounded(entry.all[name].mean) for name in names if name in entry.all}
            for label, entry in self.classes.items()
        }

    def write(self, folder: Path | str) -> list[Path]:
        """Write summary.csv, thresholds.csv where there were probabilities, false_lesions.csv where the preset lists
        them, and last summary.json.

        A thresholds.csv or false_lesions.csv of an earlier run is removed: it would not belong to the new scores.

        Returns:
            The paths.

        Raises:
            AutosegError: the folder cannot be written to.
        """
        folder, table = Path(folder), format_csv(self)
        written = [folder / JSON_NAME, folder / CSV_NAME]
        write_text(written[1], table)
        counts = {case.name: case.counts for case in self.cases if case.thresholds}
        if counts:
            written.append(folder / THRESHOLDS_NAME)
            write_thresholds(written[-1], counts)
        else:
            (folder / THRESHOLDS_NAME).unlink(missing_ok=True)
        sizes = {case.name: case.false_sizes for case in self.cases if case.false_sizes is not None}
        if sizes:
            written.append(folder / FALSE_LESIONS_NAME)
            write_false_lesions(written[-1], sizes)
        else:
            (folder / FALSE_LESIONS_NAME).unlink(missing_ok=True)
        write_json(written[0], self)
        return written


def format_csv(summary: Summary) -> str:
    """One row for each case and class; columns: preset, groups, then one for each metric."""
    groups = sorted({column for case in summary.cases for column in case.groups})
    rows = [["case", "class", "preset", *groups, *summary.metrics]]
    for case in summary.cases:
        known = [case.groups.get(column, "") for column in groups]
        for label, scores in case.classes.items():
            cells = [csv_cell(scores[metric]) for metric in summary.metrics]
            rows.append([case.name, label, summary.preset.name, *known, *cells])
    return csv_text(rows)


def read_summary(folder: Path | str) -> Summary:
    """Read summary.json of a folder.

    Raises:
        AutosegError: it is missing, damaged or of another version.
    """
    return read_version(
        Path(folder) / JSON_NAME, Summary, VERSION, what="the scores are", made_by="autoseg_evaluate"
    )


def defined(value: float) -> float | None:
    """The value, or None for ``nan``."""
    return None if math.isnan(value) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
