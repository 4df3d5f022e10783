"""agreement.json and its CSV files: how well raters agree, and the score of every pair of masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from autoseg.comparison.comparison_schema import Difference
from autoseg.comparison.rater_pairs import ALL
from autoseg.evaluation.statistics import landis_koch
from autoseg.evaluation.summary import MetricRow
from autoseg.evaluation.text import csv_cell, grid, number, p_text
from autoseg.files import ExactModel, csv_text, write_json, write_text

JSON_NAME, CSV_NAME, SCORES_NAME = "agreement.json", "agreement.csv", "agreement_cases.csv"
IN_WORDS = ("dice", "mcc")
"""Metrics whose means are also put in the words of Landis and Koch."""


class RaterRow(ExactModel):
    """One rater.

    Attributes:
        method: a program, which is in no row about all raters.
        runs: name of each run to its folder.
    """

    name: str
    method: bool = False
    runs: dict[str, str]


class AgreementEntry(ExactModel):
    """One row of the table; see :class:`autoseg.comparison.rater_pairs.AgreementRow`.

    Attributes:
        label: the class.
    """

    label: str
    metric: str
    kind: Literal["intra", "inter"]
    rater_a: str
    rater_b: str
    pairs: int
    n: int
    undefined: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class PairScores(ExactModel):
    """Two runs.

    Attributes:
        scores: class to metric to case to value, of the cases that both runs have.
    """

    kind: Literal["intra", "inter"]
    rater_a: str
    run_a: str
    rater_b: str
    run_b: str
    scores: dict[str, dict[str, dict[str, float | None]]]


class Agreement(ExactModel):
    """agreement.json.

    Attributes:
        command: as it was typed; empty from Python.
        settings: the options that decide the result, as they were given; empty from Python.
        cases: that at least two runs drew.
        left_out: cases that one run alone drew.
        labels, labels_from: the classes and where they come from.
        interval: how the intervals were made.
        warnings: what was said about the folders.
        metrics: what each metric means.
        rows: the agreement.
        tests: class to metric to a test of each rater, and of all raters, against the mixed pairs of runs: within
            minus between raters, over the cases' means over pairs.
        pairs: the scores that it was made from.
    """

    version: Literal[1] = 1
    autoseg_version: str
    command: str = ""
    settings: dict[str, Any] = {}
    raters: list[RaterRow]
    cases: list[str]
    left_out: list[str] = []
    labels: dict[str, int | list[int]]
    labels_from: str
    interval: str
    warnings: list[str] = []
    metrics: dict[str, MetricRow]
    rows: list[AgreementEntry]
    tests: dict[str, dict[str, list[Difference]]] = {}
    pairs: list[PairScores]

    def write(self, folder: Path | str) -> list[Path]:
        """Write agreement.json, agreement.csv and agreement_cases.csv and return their paths.

        Raises:
            AutosegError: the folder cannot be written to.
        """
        folder = Path(folder)
        write_text(folder / CSV_NAME, format_rows_csv(self))
        write_text(folder / SCORES_NAME, format_cases_csv(self))
        write_json(folder / JSON_NAME, self)
        return [folder / name for name in (JSON_NAME, CSV_NAME, SCORES_NAME)]


def folders_of(content: dict[str, Any]) -> list[str]:
    """The folders that an agreement.json is about."""
    return [folder for rater in content["raters"] for folder in rater["runs"].values()]


# ----------------------------------------------------------------------------------------------------- for reading


def format_agreement(agreement: Agreement) -> str:
    """What is printed."""
    rows = []
    for row in agreement.rows:
        unit = agreement.metrics[row.metric].unit
        spread = "" if row.sd is None else f" \N{PLUS-MINUS SIGN} {number(row.sd, unit)}"
        interval = "" if row.low is None else f"[{number(row.low, unit)}, {number(row.high, unit)}]"
        cells = [row.kind, who(row), str(row.pairs), number(row.mean, unit) + spread, interval, str(row.n)]
        words = [landis_koch(row.mean)] if row.metric in IN_WORDS else []
        rows.append([row.label, row.metric, *cells, str(row.undefined), *words])
    header = [
        "class",
        "metric",
        "",
        "raters",
        "pairs per case",
        "mean \N{PLUS-MINUS SIGN} SD",
        "95 % interval",
        "n",
        "undefined",
    ]
    in_words = any(row.metric in IN_WORDS for row in agreement.rows)
    tests = _format_tests(agreement)
    lines = [grid([*header, "in words"] if in_words else header, rows), ""]
    lines.append(
        f"mean and SD over cases, of each case's mean over its pairs; interval of the mean: {agreement.interval}"
    )
    if in_words:
        lines.append("words for the means: Landis and Koch 1977")
    return "\n".join([*lines, *tests])


def _format_tests(agreement: Agreement) -> list[str]:
    """The tests of pairs within raters against mixed pairs; nothing where there are none."""
    rows = []
    for label, of_metrics in agreement.tests.items():
        for metric, pairs in of_metrics.items():
            unit = agreement.metrics[metric].unit
            for pair in pairs:
                interval = f"[{number(pair.low, unit)}, {number(pair.high, unit)}]"
                who = "all raters" if pair.first == ALL else pair.first
                p_values = [p_text(pair.p["permutation"]), p_text(pair.p_holm)]
                cells = [who, number(pair.difference, unit), interval, number(pair.sd, unit), *p_values]
                rows.append([label, metric, *cells, str(pair.n)])
    if not rows:
        return []
    header = ["class", "metric", "within", "minus between", "95 % interval", "sd", "p", "p Holm", "n"]
    return [
        "",
        "pairs within a rater against mixed pairs, paired sign-flip permutation test over cases",
        grid(header, rows),
    ]


def who(row: AgreementEntry) -> str:
    """Whose agreement a row is."""
    first, second = ("all raters" if name == ALL else name for name in (row.rater_a, row.rater_b))
    return first if first == second else f"{first} - {second}"


def format_rows_csv(agreement: Agreement) -> str:
    """agreement.csv: the agreement."""
    header = [
        "class",
        "metric",
        "unit",
        "kind",
        "rater_a",
        "rater_b",
        "pairs",
        "n",
        "undefined",
        "mean",
        "sd",
        "low",
    ]
    rows: list[Sequence[object]] = [[*header, "high"]]
    for row in agreement.rows:
        who_and_what = [
            row.label,
            row.metric,
            agreement.metrics[row.metric].unit,
            row.kind,
            row.rater_a,
            row.rater_b,
        ]
        numbers = map(csv_cell, (row.mean, row.sd, row.low, row.high))
        rows.append([*who_and_what, row.pairs, row.n, row.undefined, *numbers])
    return csv_text(rows)


def format_cases_csv(agreement: Agreement) -> str:
    """agreement_cases.csv: one row for each class, metric, pair of runs and case."""
    rows: list[Sequence[object]] = [
        ["class", "metric", "unit", "kind", "rater_a", "run_a", "rater_b", "run_b", "case", "value"]
    ]
    for pair in agreement.pairs:
        runs = [pair.kind, pair.rater_a, pair.run_a, pair.rater_b, pair.run_b]
        for label, of_metrics in pair.scores.items():
            for metric, of_cases in of_metrics.items():
                unit = agreement.metrics[metric].unit
                rows += [
                    [label, metric, unit, *runs, case, csv_cell(value)] for case, value in of_cases.items()
                ]
    return csv_text(rows)
