"""The tables of a report: for reading, with rounded numbers, and for programs, in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autoseg.evaluation.metrics.metric import GROUPS
from autoseg.evaluation.statistics import landis_koch
from autoseg.evaluation.summary import ClassSummary, GroupTest, Mean, MetricRow, Stratum, Summary, defined
from autoseg.evaluation.summary_text import (
    agreement_texts,
    cohort_text,
    counts_text,
    interval_text,
    mean_texts,
    table_metrics,
)
from autoseg.evaluation.text import alike, number, p_text, spoken, titled
from autoseg.evaluation.thresholds import precision_recall
from autoseg.report import lesion_sizes
from autoseg.report.blocks import Cell, Records, Table, by_class, heads, numbers, sparse
from autoseg.report.collect import Material
from autoseg.report.pool import mean_of_folds

ALL, PRESENT = "all", "with truth"
WORDS_OF = "Landis and Koch 1977, by the mean"
COHORT_NAMES = {
    "r2_dice_log_volume": "R² of Dice on log volume",
    "mdsc_global": "mDSC, one threshold for all",
    "mdsc_case": "mDSC, a threshold for each case",
}


# ------------------------------------------------------------------------------------------------------- for reading


def metric_cell(name: str, row: MetricRow) -> Cell:
    """The name of a metric, which says its definition."""
    return Cell(titled(name, row.unit), tip=f"{name}: {row.definition} ({_empties(row)})", head=True)


def _empties(row: MetricRow) -> str:
    values = (row.empty_prediction, row.empty_truth, row.both_empty)
    if all(value == "defined" for value in values):
        return "also for empty masks"
    words = ["undefined" if v is None else "by definition" if v == "defined" else f"{v:g}" for v in values]
    return "empty prediction: {}, empty truth: {}, both: {}".format(*words)


def main_scores(summary: Summary) -> Table:
    """The metrics of the preset's table; the cases with truth beside all cases where some have none."""
    return _scores(summary, list(summary.classes), table_metrics(summary), "")


def all_scores(summary: Summary, label: str) -> Table:
    """Every metric of one class, group by group."""
    return _scores(summary, [label], list(summary.metrics), f"All metrics of {label}", folded=True)


def _scores(
    summary: Summary, labels: list[str], metrics: list[str], caption: str, *, folded: bool = False
) -> Table:
    with_empty = any(summary.classes[label].empty_truth for label in labels)
    several = len(summary.classes) > 1 and not folded
    header = [
        *(["class"] if several else []),
        "metric",
        "#mean [95 % interval]",
        "#SD",
        "#median",
        "#n",
        "#undefined",
    ]
    header += ["#mean where truth is present", "#n"] if with_empty else []
    in_words = set() if folded else set(metrics) & set(summary.preset.in_words)
    header += ["in words"] if in_words else []
    rows: list[tuple[Cell, ...]] = []
    for label in labels:
        entry = summary.classes[label]
        for group in GROUPS if folded else (None,):
            members = [m for m in metrics if group in (None, summary.metrics[m].group)]
            if group and members:
                rows.append((Cell(f"{group} metrics", head=True),))
            rows += [
                (
                    *([Cell(label, head=True)] if several else []),
                    *_score_row(m, summary, entry, with_empty),
                    *([word(entry.all[m].mean if m in in_words else None)] if in_words else []),
                )
                for m in members
            ]
    return Table(caption, heads(*header), sparse(rows) if several else tuple(rows), folded)


def _score_row(metric: str, summary: Summary, entry: ClassSummary, with_empty: bool) -> tuple[Cell, ...]:
    row, mean, present = summary.metrics[metric], entry.all[metric], entry.truth_present[metric]
    texts = [*mean_texts(mean, row.unit), str(mean.undefined)]
    texts += [interval_text(present, row.unit), str(present.n)] if with_empty else []
    return (metric_cell(metric, row), *numbers(texts))


def word(mean: float | None) -> Cell:
    """The word of Landis and Koch for a mean; nothing where there is none."""
    return Cell("" if mean is None else landis_koch(mean), tip="" if mean is None else WORDS_OF)


def cohort(summary: Summary) -> Table:
    """Numbers of all cases together, and the cases that were missed or falsely found as a whole."""
    rows = [
        (Cell(label, head=True), Cell(name, tip=tip, head=True), *numbers([text, str(n)]))
        for label, entry in summary.classes.items()
        for name, tip, text, n in _cohort_rows(entry)
    ]
    return by_class("All cases together", heads("class", "quantity", "#value [95 % interval]", "#n"), rows)


def _cohort_rows(entry: ClassSummary) -> Iterator[tuple[str, str, str, int]]:
    """Name, tip, value and number of cases."""
    with_truth = entry.cases - entry.empty_truth
    tip = (
        "there is truth, and the prediction shares no voxel with it; detection rate: the share of the others"
    )
    yield "cases missed", tip, f"{entry.missed} of {with_truth}", with_truth
    if entry.empty_truth:
        text = f"{entry.false_alarms} of {entry.empty_truth}"
        yield "false alarms", "prediction where there is no truth", text, entry.empty_truth
    for name, value in entry.cohort.items():
        text = cohort_text(name, value)
        yield COHORT_NAMES.get(name) or spoken(name), f"{name}: {value.definition}", text, value.n
    if (found := entry.volume_agreement) is not None:
        middle, limits = agreement_texts(found)
        yield (
            "volume difference, ml",
            "mean of prediction minus truth; interval: Student's t",
            middle,
            found.n,
        )
        tip = "of the volume difference: mean ± 1.96 SD (Bland-Altman); the figure shows their intervals"
        yield "limits of agreement, ml", tip, limits, found.n


def folds(material: Material, summary: Summary) -> Table:
    """The mean of each fold, and mean ± SD of the folds."""
    summaries = {name: one.summary for name, one in material.scored.items()}
    metrics = table_metrics(summary)
    rows = []
    for label in summary.classes:
        for metric in metrics:
            unit = summary.metrics[metric].unit
            of_folds = [s.classes[label].all[metric] for s in summaries.values()]
            mean = mean_of_folds(summaries, label, metric)
            *texts, middle, sd = alike(unit, *(one.mean for one in of_folds), mean.mean, mean.sd)
            rows.append(
                (
                    Cell(label, head=True),
                    metric_cell(metric, summary.metrics[metric]),
                    *numbers([*texts, f"{middle} ± {sd}"]),
                )
            )
    titles = [f"#{name} (n = {len(s.cases)})" for name, s in summaries.items()]
    header = heads("class", "metric", *titles, "#mean of folds ± SD")
    return by_class("Means of the folds", header, rows)


def strata(stratum: Stratum, summary: Summary) -> Table:
    """The table's metrics, level by level."""
    metrics = table_metrics(summary)
    rows = [
        (
            Cell(label, head=True),
            Cell(level.name, head=True),
            *numbers(interval_text(level.metrics[m], summary.metrics[m].unit) for m in metrics),
            *numbers([str(len(level.cases))]),
        )
        for label, levels in stratum.classes.items()
        for level in levels
    ]
    header = (
        *heads("class", "level"),
        *(_number_head(metric_cell(m, summary.metrics[m])) for m in metrics),
        *heads("#cases"),
    )
    return by_class(f"By {split(stratum)}", header, rows)


def group_tests(stratum: Stratum, summary: Summary) -> Table:
    """Kruskal-Wallis of the table's metrics across the groups of a column."""
    rows = [
        (
            Cell(label, head=True),
            metric_cell(metric, summary.metrics[metric]),
            *numbers(_test_texts(found)),
            Cell(groups_text(found)),
        )
        for label, of_class in stratum.tests.items()
        for metric, found in of_class.items()
    ]
    header = heads("class", "metric", "#H", "#degrees of freedom", "#p", "#p (Holm)", "cases in each group")
    return by_class(f"Do groups of {stratum.name} differ? Kruskal-Wallis", header, rows)


def _test_texts(found: GroupTest) -> list[str]:
    """H, degrees of freedom and both p-values; nothing but dashes where no test was made."""
    if found.h is None:
        return ["-"] * 4
    return [f"{found.h:.2f}", str(found.degrees_of_freedom), p_text(found.p), p_text(found.p_holm)]


def groups_text(found: GroupTest) -> str:
    """``A: 5, B: 7; left out, too few: C: 2``."""
    parts = [
        f"no test, {found.why_not}" if found.why_not else "",
        counts_text(found.n),
        f"left out, too few: {counts_text(found.left_out)}" if found.left_out else "",
    ]
    return "; ".join(filter(None, parts))


def split(stratum: Stratum) -> str:
    """By what the cases are split, in words."""
    if stratum.name in stratum.rule:
        return stratum.rule
    return f"{stratum.name}: {stratum.rule}"


def _number_head(cell: Cell) -> Cell:
    return Cell(cell.text, cell.tip, number=True)


def cases(material: Material, summary: Summary) -> Table:
    """Every case with the table's metrics, the worst first."""
    metrics = table_metrics(summary)
    columns = sorted({column for case in summary.cases for column in case.groups})
    several = len(material.scored) > 1
    rows = []
    for case in sorted(summary.cases, key=lambda case: (case.mean_dice, case.name)):
        known = [Cell(case.name, head=True), *([Cell(material.place(case.name)[0].name)] if several else [])]
        known += [Cell(case.groups.get(column, "")) for column in columns]
        for label, scores in case.classes.items():
            values = numbers(number(scores[m], summary.metrics[m].unit) for m in metrics)
            rows.append((*known, *([Cell(label)] if len(summary.classes) > 1 else []), *values))
    header = [
        "case",
        *(["fold"] if several else []),
        *columns,
        *(["class"] if len(summary.classes) > 1 else []),
    ]
    titles = (_number_head(metric_cell(m, summary.metrics[m])) for m in metrics)
    caption = "The case" if len(summary.cases) == 1 else f"All {len(summary.cases)} cases, the worst first"
    return Table(caption, (*heads(*header), *titles), sparse(rows), folded=True)


def definitions(summary: Summary) -> Table:
    """What each metric means."""
    rows = [
        (
            Cell(name, head=True),
            Cell("" if row.unit == "1" else row.unit),
            Cell(row.definition),
            Cell(_empties(row)),
            Cell({"higher": "higher", "lower": "lower", "zero": "nearer to 0"}.get(row.better or "", "")),
            Cell(row.source),
        )
        for name, row in summary.metrics.items()
    ]
    header = heads("metric", "unit", "definition", "with empty masks", "better", "source")
    caption = "Definitions: P is the prediction, T the truth; TP, FP, FN and TN are numbers of voxels"
    return Table(caption, header, tuple(rows), folded=True)


# ------------------------------------------------------------------------------------------------------ for programs


def records(material: Material) -> dict[str, Records]:
    """CSV files by name."""
    summary = material.summary
    if summary is None:
        return {}
    made = {
        "scores.csv": _score_records(summary),
        "cohort.csv": _cohort_records(summary),
        "cases.csv": _case_records(material, summary),
        "metrics.csv": _metric_records(summary),
    }
    if len(material.scored) > 1:
        made["folds.csv"] = _fold_records(material, summary)
    if summary.strata:
        made["strata.csv"] = _stratum_records(summary)
    if any(one.tests for one in summary.strata):
        made["group_tests.csv"] = _test_records(summary)
    if any(one.counts for one in material.scored.values()):
        made["precision_recall.csv"] = _curve_records(material)
    if (listed := lesion_sizes.records(material)) is not None:
        made["false_lesions.csv"] = listed
    return made


def _mean_values(mean: Mean) -> tuple[object, ...]:
    return mean.mean, mean.low, mean.high, mean.sd, mean.median, mean.n, mean.undefined


MEAN_COLUMNS = ("mean", "low", "high", "sd", "median", "n", "undefined")


def _score_records(summary: Summary) -> Records:
    rows = [
        (
            summary.preset.name,
            label,
            metric,
            summary.metrics[metric].unit,
            which,
            *_mean_values(means[metric]),
        )
        for label, entry in summary.classes.items()
        for which, means in ((ALL, entry.all), (PRESENT, entry.truth_present))
        for metric in summary.metrics
    ]
    return Records(("preset", "class", "metric", "unit", "cases", *MEAN_COLUMNS), tuple(rows))


def _cohort_records(summary: Summary) -> Records:
    def of(label: str, entry: ClassSummary) -> Iterator[tuple[object, ...]]:
        for name, count in (("missed", entry.missed), ("false_alarms", entry.false_alarms)):
            n = entry.empty_truth if name == "false_alarms" else entry.cases - entry.empty_truth
            yield label, name, count, None, None, "cases", n
        for name, value in entry.cohort.items():
            yield label, name, value.value, value.low, value.high, value.unit, value.n
        if (found := entry.volume_agreement) is not None:
            yield (
                label,
                "volume_difference",
                found.mean_ml,
                found.low_limit_ml,
                found.high_limit_ml,
                "ml",
                found.n,
            )

    rows = [row for label, entry in summary.classes.items() for row in of(label, entry)]
    return Records(("class", "quantity", "value", "low", "high", "unit", "n"), tuple(rows))


def _case_records(material: Material, summary: Summary) -> Records:
    columns = sorted({column for case in summary.cases for column in case.groups})
    header = ("case", "fold", *columns, "class", *summary.metrics, "prediction_sha256", "truth_sha256")
    rows = [
        (
            case.name,
            material.place(case.name)[0].name,
            *(case.groups.get(column, "") for column in columns),
            label,
            *(scores[metric] for metric in summary.metrics),
            case.prediction_sha256,
            case.truth_sha256,
        )
        for case in summary.cases
        for label, scores in case.classes.items()
    ]
    return Records(header, tuple(rows))


def _metric_records(summary: Summary) -> Records:
    rows = [
        (
            n,
            r.unit,
            r.group,
            r.definition,
            *map(_empty_text, (r.empty_prediction, r.empty_truth, r.both_empty)),
            r.source,
        )
        for n, r in summary.metrics.items()
    ]
    header = (
        "metric",
        "unit",
        "group",
        "definition",
        "empty_prediction",
        "empty_truth",
        "both_empty",
        "source",
    )
    return Records(header, tuple(rows))


def _empty_text(value: float | str | None) -> object:
    return "undefined" if value is None else value


def _fold_records(material: Material, whole: Summary) -> Records:
    summaries = {name: one.summary for name, one in material.scored.items()}
    rows: list[tuple[object, ...]] = []
    for label in whole.classes:
        for metric, described in whole.metrics.items():
            for name, summary in summaries.items():
                rows.append(
                    (name, label, metric, described.unit, *_mean_values(summary.classes[label].all[metric]))
                )
            mean = mean_of_folds(summaries, label, metric)
            rows.append(("mean of folds", label, metric, described.unit, *_mean_values(mean)))
    return Records(("fold", "class", "metric", "unit", *MEAN_COLUMNS), tuple(rows))


def _stratum_records(summary: Summary) -> Records:
    rows = [
        (one.name, one.rule, label, level.name, metric, *_mean_values(level.metrics[metric]))
        for one in summary.strata
        for label, levels in one.classes.items()
        for level in levels
        for metric in summary.metrics
    ]
    return Records(("stratum", "rule", "class", "level", "metric", *MEAN_COLUMNS), tuple(rows))


def _test_records(summary: Summary) -> Records:
    rows = [
        (
            one.name,
            label,
            metric,
            found.h,
            found.degrees_of_freedom,
            found.p,
            found.p_holm,
            sum(found.n.values()),
            groups_text(found),
        )
        for one in summary.strata
        for label, of_class in one.tests.items()
        for metric, found in of_class.items()
    ]
    header = ("stratum", "class", "metric", "h", "degrees_of_freedom", "p", "p_holm", "n", "groups")
    return Records(header, tuple(rows))


def _curve_records(material: Material) -> Records:
    def of(name: str, label: str, counts: Iterable) -> Iterator[tuple[object, ...]]:
        curve = precision_recall(counts)
        for t, precision, recall in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
            yield (
                name,
                label,
                f"{t:.2f}",
                defined(precision),
                defined(recall),
                defined(curve.average_precision),
            )

    rows = [
        row
        for name, one in material.scored.items()
        if one.counts
        for label in one.summary.classes
        for row in of(name, label, [c[label] for c in one.counts.values() if label in c])
    ]
    return Records(("fold", "class", "threshold", "precision", "recall", "average_precision"), tuple(rows))
