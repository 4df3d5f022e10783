"""From the scores of single cases to what is said about all of them: means, cohort values, agreement, strata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.evaluation import statistics, strata, thresholds
from autoseg.evaluation.group_tests import describe_tests, with_group_tests
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.metrics.metric import Metric
from autoseg.evaluation.metrics.overlap import micro_dice
from autoseg.evaluation.strata import Groups, StrataRule
from autoseg.evaluation.summary import (
    CaseScores,
    ClassSummary,
    CohortValue,
    Level,
    Mean,
    MetricRow,
    PresetRow,
    Scores,
    Stratum,
    Summary,
    VolumeAgreement,
    defined,
)
from autoseg.evaluation.thresholds import Counts
from autoseg.version import __version__


@dataclass(frozen=True)
class Averaging:
    """How intervals of means are made, see :func:`autoseg.evaluation.statistics.mean_interval`."""

    method: statistics.IntervalMethod
    resamples: int

    def __call__(self, values: Iterable[float | None]) -> Mean:
        """The mean of the values that are defined."""
        given = list(values)
        low, high = statistics.mean_interval(
            [value for value in given if value is not None], method=self.method, resamples=self.resamples
        )
        return plain_mean(given).model_copy(update={"low": defined(low), "high": defined(high)})


def plain_mean(values: Iterable[float | None]) -> Mean:
    """The mean of the values that are defined, without interval."""
    given = list(values)
    known = np.array([value for value in given if value is not None], float)
    n = len(known)
    return Mean(
        mean=float(known.mean()) if n else None,
        sd=float(known.std(ddof=1)) if n > 1 else None,
        median=float(np.median(known)) if n else None,
        low=None,
        high=None,
        n=n,
        undefined=len(given) - n,
    )


def summarise(
    cases: Iterable[CaseScores],
    *,
    choice: MetricChoice,
    rules: Sequence[StrataRule] = (),
    groups: Groups | None = None,
    predictions: Path,
    truths: Path,
    labels: dict[str, int | list[int]],
    labels_from: str,
    ignored: Sequence[str] = (),
    unpredicted: Sequence[str] = (),
    inside: str = "",
) -> Summary:
    """Means, intervals, cohort values and strata out of the scores of the cases (at least one).

    Args:
        cases: their scores, with all metrics for each class.
        choice: what was computed.
        rules: by which the cases are split.
        groups: columns by which the cases are split.
        predictions, truths, labels, labels_from, ignored, unpredicted: as of :class:`Summary`.
        inside: where voxels were counted, in words; empty for everywhere.
    """
    cases = sorted(cases, key=lambda case: case.name)
    preset, metrics = choice.full_preset, choice.metrics
    mean = Averaging(preset.interval, preset.resamples)
    strata = stratify(cases, metrics, rules, groups, mean, tested=choice.table)
    strata = [with_mean_of_means(one) if one.name == preset.mean_of else one for one in strata]
    return Summary(
        autoseg_version=__version__,
        predictions=str(predictions),
        truths=str(truths),
        preset=preset_row(choice, inside),
        labels=labels,
        labels_from=labels_from,
        ignored=list(ignored),
        unpredicted=list(unpredicted),
        interval=statistics.describe_interval(mean.method, resamples=mean.resamples),
        metrics={metric.name: metric_row(metric) for metric in metrics},
        classes={label: class_summary(cases, label, mean) for label in cases[0].classes},
        strata=strata,
        group_tests=describe_tests(strata),
        cases=cases,
    )


def preset_row(choice: MetricChoice, inside: str = "") -> PresetRow:
    """The preset as it is written into files; ``inside`` says in words where voxels were counted."""
    preset = choice.full_preset
    notes = [*preset.notes]
    if inside:
        notes.append(f"TP, FP, FN, TN and what follows from them are counted inside {inside}.")
    elif preset.inside:
        notes.append(
            "TP, FP, FN and TN are of the whole volume; the source counts inside the brain: give --mask."
        )
    return PresetRow(
        name=preset.name,
        title=preset.title,
        source=preset.source,
        notes=notes,
        table=list(choice.table),
        in_words=list(preset.in_words),
    )


def metric_row(metric: Metric) -> MetricRow:
    """A row of the table of metrics as it is written into files."""
    fixed = [metric.when_empty(which) for which in ("prediction", "truth", "both")]
    values = ["defined" if value is None else defined(value) for value in fixed]
    return MetricRow(
        unit=metric.unit,
        group=metric.group,
        definition=metric.definition,
        better=metric.better,
        source=metric.source,
        empty_prediction=values[0],
        empty_truth=values[1],
        both_empty=values[2],
    )


def class_summary(cases: Sequence[CaseScores], label: str, mean: Averaging) -> ClassSummary:
    """One class over all cases."""
    scores = [case.classes[label] for case in cases]
    present = [s for s in scores if s["voxels_truth"]]
    absent = [s for s in scores if not s["voxels_truth"]]
    return ClassSummary(
        cases=len(scores),
        empty_truth=len(absent),
        false_alarms=sum(bool(s["voxels_prediction"]) for s in absent),
        missed=sum(not s["tp"] for s in present),
        all=means(scores, mean),
        truth_present=means(present, mean, names=scores[0]),
        cohort=cohort(
            scores, [case.counts[label] for case in cases if label in case.thresholds], mean.resamples
        ),
        volume_agreement=volume_agreement(scores),
    )


def means(scores: Sequence[Scores], mean: Averaging, names: Iterable[str] | None = None) -> dict[str, Mean]:
    """Metric to its mean over cases.

    Args:
        scores: metric to value, for each case.
        mean: takes the mean.
        names: of the metrics; those of the first case when there is none.
    """
    return {name: mean(s[name] for s in scores) for name in (scores[0] if names is None else names)}


# ------------------------------------------------------------------------------------------- all cases together


def cohort(scores: Sequence[Scores], counts: Sequence[Counts], resamples: int) -> dict[str, CohortValue]:
    """Numbers that belong to no single case.

    Args:
        scores: metric to value, for each case.
        counts: at thresholds, of the cases whose probabilities are at hand.
        resamples: of the bootstrap.
    """
    present = [s for s in scores if s["voxels_truth"]]
    dice, volumes = _values(scores, "dice"), _values(scores, "volume_truth_ml")
    fit = statistics.fit_log_volume(dice, volumes)
    values = {
        "micro_dice": _micro_dice(scores, resamples),
        "detection_rate": _detection_rate(present, resamples),
        "r2_dice_log_volume": _cohort_value(
            fit.r_squared,
            statistics.r_squared_interval(dice, volumes, resamples=resamples),
            "R2 of the line Dice = a + b log10(volume of the truth), over the cases with truth: from "
            f"{statistics.FEWEST_ON_LINE} cases on, with an interval from {statistics.FEW_CASES} on",
            fit.n,
            resamples,
        ),
    }
    return values | (_at_thresholds(counts, resamples) if counts else {})


def _values(scores: Sequence[Scores], name: str) -> np.ndarray:
    return np.array([s[name] for s in scores], float)  # None becomes nan


def _micro_dice(scores: Sequence[Scores], resamples: int) -> CohortValue:
    tp, fp, fn = (_values(scores, name) for name in ("tp", "fp", "fn"))
    definition = "Dice of the voxels of all cases together, 2 TP / (2 TP + FP + FN)"
    pooled = _pooled(2 * tp, 2 * tp + fp + fn, definition, resamples)
    return pooled.model_copy(update={"value": micro_dice(tp, fp, fn)})


def _detection_rate(present: Sequence[Scores], resamples: int) -> CohortValue:
    return _pooled(
        (_values(present, "tp") > 0).astype(float),
        np.ones(len(present)),
        "share of the cases with truth in which prediction and truth share a voxel",
        resamples,
    )


def _pooled(parts: np.ndarray, wholes: np.ndarray, definition: str, resamples: int) -> CohortValue:
    """A ratio of sums over cases."""
    ratio = float(parts.sum() / wholes.sum()) if wholes.any() else math.nan
    interval = statistics.ratio_interval(parts, wholes, resamples=resamples)
    return _cohort_value(ratio, interval, definition, len(parts), resamples)


def _cohort_value(
    value: float, interval: tuple[float, float], definition: str, n: int, resamples: int
) -> CohortValue:
    low, high = (defined(end) for end in interval)
    return CohortValue(
        value=defined(value),
        low=low,
        high=high,
        unit="1",
        definition=f"{definition}; interval: percentile bootstrap over cases, {resamples} resamples",
        n=n,
    )


def _at_thresholds(counts: Sequence[Counts], resamples: int) -> dict[str, CohortValue]:
    best = thresholds.mdsc_global(counts)
    at = " to ".join(f"{t:g}" for t in sorted({best.thresholds[0], best.thresholds[-1]}))
    curve = thresholds.precision_recall(counts)
    grid = f"of 0, {thresholds.THRESHOLDS[thresholds.MDSC_STEP]:g}, ..., 0.95"
    of_global, of_case = thresholds.mdsc_intervals(counts, resamples)
    rows = {
        "mdsc_global": (
            best.value,
            of_global,
            f"highest mean Dice that one threshold {grid} gives for all cases; reached at {at}",
        ),
        "mdsc_case": (
            thresholds.mdsc_case(counts),
            of_case,
            f"mean of the highest Dice that a threshold {grid} gives for each case: an upper bound",
        ),
        "average_precision": (
            curve.average_precision,
            thresholds.average_precision_interval(counts, resamples),
            "area under the precision-recall curve of the voxels of all cases, by steps at 0, 0.01, ..., 0.99",
        ),
    }
    return {
        name: _cohort_value(value, interval, definition, len(counts), resamples)
        for name, (value, interval, definition) in rows.items()
    }


def volume_agreement(scores: Sequence[Scores]) -> VolumeAgreement | None:
    """Bland-Altman of predicted and true volumes; None for fewer than two cases."""
    if len(scores) < 2:
        return None
    found = statistics.bland_altman(
        _values(scores, "volume_prediction_ml"), _values(scores, "volume_truth_ml")
    )
    return VolumeAgreement(
        mean_ml=found.mean,
        sd_ml=found.sd,
        low_limit_ml=found.low_limit,
        high_limit_ml=found.high_limit,
        n=found.n,
    )


# ----------------------------------------------------------------------------------------------- parts of the cases


def stratify(
    cases: Sequence[CaseScores],
    metrics: Sequence[Metric],
    rules: Sequence[StrataRule],
    groups: Groups | None,
    mean: Averaging,
    tested: Sequence[str] = (),
) -> list[Stratum]:
    """The cases split by quantities, class by class, and by the columns of a table.

    Args:
        cases: with the scores that the rules name, and their values in the columns.
        metrics: that were computed.
        rules: quantities and where they are cut. Cases without truth are a level of their own where the truth is split
            by its size.
        groups: the table; None is none.
        mean: takes means.
        tested: names of the metrics that are tested across the groups of each column.
    """
    units = {metric.name: metric.unit for metric in metrics}
    found = []
    for rule in rules:
        by_class = {
            label: strata.levels(
                _values([case.classes[label] for case in cases], rule.metric),
                rule,
                no_lesion=_without_truth(cases, label) if "truth" in rule.metric else None,
                unit=units[rule.metric],
            )
            for label in cases[0].classes
        }
        found.append(_stratum(rule.metric, rule.words, by_class, cases, mean))
    names = [case.name for case in cases]
    if groups is None:
        return found
    columns = []
    for column in groups.columns:
        words, levels = strata.column_levels(groups, column, names)
        columns.append(_stratum(column, words, dict.fromkeys(cases[0].classes, levels), cases, mean))
    return found + with_group_tests(columns, cases, tested)


def with_mean_of_means(stratum: Stratum) -> Stratum:
    """The stratum with the mean over its levels of their means, each level counting alike."""

    def of_class(levels: Sequence[Level]) -> dict[str, float | None]:
        by_metric = {name: [level.metrics[name].mean for level in levels] for name in levels[0].metrics}
        return {name: plain_mean(values).mean for name, values in by_metric.items()}

    found = {label: of_class(levels) for label, levels in stratum.classes.items()}
    return stratum.model_copy(update={"mean_of_means": found})


def _without_truth(cases: Sequence[CaseScores], label: str) -> np.ndarray:
    return np.array([not case.classes[label]["voxels_truth"] for case in cases])


def _stratum(
    name: str,
    rule: str,
    levels: dict[str, list[strata.LevelCases]],
    cases: Sequence[CaseScores],
    mean: Averaging,
) -> Stratum:
    return Stratum(
        name=name,
        rule=rule,
        classes={
            label: [
                Level(
                    name=level,
                    cases=[cases[i].name for i in indices],
                    metrics=means([cases[i].classes[label] for i in indices], mean),
                )
                for level, indices in of_class
            ]
            for label, of_class in levels.items()
        },
    )
