"""summary.json and summary.csv: the scores of every case and class, and their means with intervals.

``None`` (null in JSON, an empty cell in CSV) is an undefined score; see :data:`autoseg.evaluation.metrics.METRICS`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.evaluation import statistics
from autoseg.evaluation.metrics import METRICS
from autoseg.files import write_json, write_text

JSON_NAME, CSV_NAME = "summary.json", "summary.csv"
Scores = dict[str, int | float | None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MetricRow(_Strict):
    """What a metric means: its unit, its definition and its value where a mask is empty.

    Attributes:
        empty_prediction, empty_truth, both_empty: None is undefined, ``defined`` follows the definition.
    """

    unit: str
    definition: str
    empty_prediction: float | Literal["defined"] | None
    empty_truth: float | Literal["defined"] | None
    both_empty: float | Literal["defined"] | None


class CaseScores(_Strict):
    """One case.

    Attributes:
        prediction_sha256, truth_sha256: of the files.
        classes: class to metric to value.
    """

    name: str
    prediction_sha256: str
    truth_sha256: str
    classes: dict[str, Scores]

    @property
    def mean_dice(self) -> float:
        """Mean over the classes."""
        return float(np.mean([scores["dice"] for scores in self.classes.values()]))

    @property
    def is_empty(self) -> bool:
        """Whether neither truth nor prediction has a voxel of any class."""
        return not any(s["voxels_truth"] or s["voxels_prediction"] for s in self.classes.values())


class Mean(_Strict):
    """The mean of one metric over cases.

    Attributes:
        mean: over the cases where the score is defined; None when there is none.
        low, high: bootstrap interval of the mean; None for fewer than two cases.
        n: cases where the score is defined.
        undefined: cases where it is not.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    undefined: int


class ClassSummary(_Strict):
    """One class over all cases.

    Attributes:
        cases: how many there are.
        empty_truth: of these, how many have no truth of this class.
        false_alarms: of the cases without truth, how many have a prediction.
        missed: of the cases with truth, how many have no prediction.
        all: metric to mean over all cases.
        truth_present: the same over the cases with truth.
    """

    cases: int
    empty_truth: int
    false_alarms: int
    missed: int
    all: dict[str, Mean]
    truth_present: dict[str, Mean]


class Summary(_Strict):
    """summary.json.

    Attributes:
        predictions, truths: the folders.
        labels: as of dataset.json.
        labels_from: where they come from.
        ignored: predictions that have no truth and were not scored.
        unpredicted: truths without prediction that were left out because the user allowed it.
        interval: how the intervals were made.
        metrics: what each metric means.
        classes: the means.
        cases: the scores of each case, sorted by name.
    """

    version: Literal[1] = 1
    autoseg_version: str
    predictions: str
    truths: str
    labels: dict[str, int | list[int]]
    labels_from: str
    ignored: list[str] = []
    unpredicted: list[str] = []
    interval: str
    metrics: dict[str, MetricRow]
    classes: dict[str, ClassSummary]
    cases: list[CaseScores]

    def means(self) -> dict[str, Scores]:
        """Class to the mean of the main metrics over all cases, rounded for reading."""
        names = ("dice", "hd95_mm", "lesion_f1", "volume_difference_ml")
        return {
            label: {name: _rounded(entry.all[name].mean) for name in names}
            for label, entry in self.classes.items()
        }

    def write(self, folder: Path | str) -> tuple[Path, Path]:
        """Write summary.json and summary.csv into a folder and return their paths.

        Raises:
            AutosegError: the folder cannot be written to.
        """
        json_path, csv_path = Path(folder) / JSON_NAME, Path(folder) / CSV_NAME
        table = format_csv(self)
        write_json(json_path, self)
        write_text(csv_path, table)
        return json_path, csv_path


def summarise(
    cases: Iterable[CaseScores],
    *,
    predictions: Path,
    truths: Path,
    labels: dict[str, int | list[int]],
    labels_from: str,
    ignored: Sequence[str] = (),
    unpredicted: Sequence[str] = (),
) -> Summary:
    """Means and intervals out of the scores of the cases (at least one)."""
    cases = sorted(cases, key=lambda case: case.name)
    return Summary(
        autoseg_version=version("autoseg"),
        predictions=str(predictions),
        truths=str(truths),
        labels=labels,
        labels_from=labels_from,
        ignored=list(ignored),
        unpredicted=list(unpredicted),
        interval=f"{100 * statistics.CONFIDENCE:g} % percentile bootstrap over cases, "
        f"{statistics.RESAMPLES} resamples, seed {statistics.SEED}",
        metrics=metric_rows(),
        classes={label: _class_summary([c.classes[label] for c in cases]) for label in cases[0].classes},
        cases=cases,
    )


def metric_rows() -> dict[str, MetricRow]:
    """The table of metrics as it is written into files."""
    rows = {}
    for name, metric in METRICS.items():
        empties = metric.empties
        values = ("defined",) * 3
        if empties is not None:
            values = tuple(map(defined, (empties.prediction, empties.truth, empties.both)))
        rows[name] = MetricRow(
            unit=metric.unit,
            definition=metric.definition,
            empty_prediction=values[0],
            empty_truth=values[1],
            both_empty=values[2],
        )
    return rows


def defined(value: float) -> float | None:
    """The value, or None for ``nan``."""
    return None if math.isnan(value) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _class_summary(scores: Sequence[Scores]) -> ClassSummary:
    present = [s for s in scores if s["voxels_truth"]]
    absent = [s for s in scores if not s["voxels_truth"]]
    return ClassSummary(
        cases=len(scores),
        empty_truth=len(absent),
        false_alarms=sum(bool(s["voxels_prediction"]) for s in absent),
        missed=sum(not s["voxels_prediction"] for s in present),
        all={name: _mean([s[name] for s in scores]) for name in METRICS},
        truth_present={name: _mean([s[name] for s in present]) for name in METRICS},
    )


def _mean(values: Sequence[float | None]) -> Mean:
    known = np.array([value for value in values if value is not None], float)
    low, high = statistics.bootstrap_interval(known)
    return Mean(
        mean=float(known.mean()) if len(known) else None,
        low=defined(low),
        high=defined(high),
        n=len(known),
        undefined=len(values) - len(known),
    )


# --------------------------------------------------------------------------------------------------- for reading


def format_csv(summary: Summary) -> str:
    """One row for each case and class, one column for each metric."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["case", "class", *METRICS])
    for case in summary.cases:
        for label, scores in case.classes.items():
            rows.writerow([case.name, label, *("" if v is None else _cell(v) for v in scores.values())])
    return out.getvalue()


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def format_table(summary: Summary) -> str:
    """The means as a short table for the terminal; columns on empty truths only where there are some."""
    rows = [_row(label, entry) for label, entry in summary.classes.items()]
    if not any(entry.empty_truth for entry in summary.classes.values()):
        for row in rows:
            for column in (TRUTH_PRESENT, FALSE_ALARMS):
                del row[column]
    widths = {title: max(len(title), *(len(row[title]) for row in rows)) for title in rows[0]}
    lines = [dict(zip(widths, widths, strict=True)), {title: "-" * width for title, width in widths.items()}]
    return "\n".join(
        "  ".join(cell.ljust(widths[title]) for title, cell in line.items()).rstrip()
        for line in [*lines, *rows]
    )


TRUTH_PRESENT, FALSE_ALARMS = "Dice where truth is present", "false alarms"


def _row(label: str, entry: ClassSummary) -> dict[str, str]:
    """Title of the column to what the table shows for one class; (n) is the number of cases that count."""
    present, means = entry.cases - entry.empty_truth, entry.all
    return {
        "class": label,
        "mean Dice [95 % interval] (n)": _interval_text(means["dice"]),
        TRUTH_PRESENT: _interval_text(entry.truth_present["dice"]),
        "HD95 mm (n)": f"{_number(means['hd95_mm'].mean, '.2f')} ({means['hd95_mm'].n})",
        "lesion F1": _number(means["lesion_f1"].mean, ".3f"),
        "truth ml": _number(means["volume_truth_ml"].mean, ".4g"),
        "predicted ml": _number(means["volume_prediction_ml"].mean, ".4g"),
        "missed": f"{entry.missed} of {present}",
        FALSE_ALARMS: f"{entry.false_alarms} of {entry.empty_truth}",
    }


def _interval_text(mean: Mean) -> str:
    if mean.mean is None:
        return f"- ({mean.n})"
    interval = "" if mean.low is None else f" [{mean.low:.3f}, {mean.high:.3f}]"
    return f"{mean.mean:.3f}{interval} ({mean.n})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
