"""The cases of several folds as one cohort: means and intervals over all cases, and the mean of the folds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.errors import AutosegError
from autoseg.evaluation import statistics
from autoseg.evaluation.cohort import Averaging, class_summary, plain_mean, stratify
from autoseg.evaluation.group_tests import describe_tests
from autoseg.evaluation.metrics.metric import Metric
from autoseg.evaluation.presets import PRESETS
from autoseg.evaluation.probabilities import as_rows
from autoseg.evaluation.strata import Groups, StrataRule
from autoseg.evaluation.summary import CaseScores, Mean, MetricRow, Stratum, Summary
from autoseg.evaluation.thresholds import Counts

FolderCounts = Mapping[str, Mapping[str, Counts]]
"""Case to class to its counts at thresholds."""

MOST_QUANTILES = 100


@dataclass(frozen=True)
class Pool:
    """Scored folders together.

    Attributes:
        summary: of all cases.
        origin: name of each case in ``summary`` to the folder's name and the case in it.
        left_out: strata that the folds do not have in common.
    """

    summary: Summary
    origin: dict[str, tuple[str, CaseScores]]
    left_out: tuple[str, ...] = ()


def pool(summaries: Mapping[str, Summary], counts: Mapping[str, FolderCounts | None]) -> Pool:
    """Put the cases of all folders together and sum them up anew; one folder stays as it is.

    A case that is in several folders (repeated cross-validation) counts once for each, under a name that says where.

    Args:
        summaries: name of the folder to its scores; at least one.
        counts: name of the folder to case to class to counts at all thresholds.

    Raises:
        AutosegError: the folders were scored by different presets, metrics or classes.
    """
    first = next(iter(summaries.values()))
    if len(summaries) == 1:
        name = next(iter(summaries))
        return Pool(first, {case.name: (name, case) for case in first.cases})
    _refuse_differences(summaries)
    origin = _named(summaries)
    cases = [_case(name, *origin[name], counts) for name in sorted(origin)]
    mean = averaging(first)
    strata, left_out = _strata(summaries, cases, mean)
    changes = {
        "predictions": ", ".join(s.predictions for s in summaries.values()),
        "ignored": sorted({name for s in summaries.values() for name in s.ignored}),
        "unpredicted": sorted({name for s in summaries.values() for name in s.unpredicted}),
        "warnings": _warnings(summaries),
        "interval": statistics.describe_interval(mean.method, resamples=mean.resamples),
        "classes": {label: class_summary(cases, label, mean) for label in first.classes},
        "strata": strata,
        "group_tests": describe_tests(strata),
        "cases": cases,
    }
    return Pool(first.model_copy(update=changes), origin, left_out)


def _warnings(summaries: Mapping[str, Summary]) -> list[str]:
    """What was said of the folders, once, with the folders that it was said of."""
    said: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for text in summary.warnings:
            said.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def _named(summaries: Mapping[str, Summary]) -> dict[str, tuple[str, CaseScores]]:
    """Unique name of each case to its folder and the case."""
    count = Counter(case.name for summary in summaries.values() for case in summary.cases)
    return {
        case.name if count[case.name] == 1 else f"{case.name} ({name})": (name, case)
        for name, summary in summaries.items()
        for case in summary.cases
    }


def averaging(summary: Summary) -> Averaging:
    """How the preset of some scores makes intervals; by percentile bootstrap for a preset that is not known here."""
    preset = PRESETS.get(summary.preset.name)
    return (
        Averaging(preset.interval, preset.resamples)
        if preset
        else Averaging("percentile", statistics.RESAMPLES)
    )


def mean_of_folds(summaries: Mapping[str, Summary], label: str, metric: str) -> Mean:
    """Mean and standard deviation of the folds' means, in which every fold weighs the same (DeepMedic study)."""
    return plain_mean(summary.classes[label].all[metric].mean for summary in summaries.values())


def _refuse_differences(summaries: Mapping[str, Summary]) -> None:
    (first_name, first), *others = summaries.items()
    for name, summary in others:
        for what, one, other in (
            ("preset", first.preset.name, summary.preset.name),
            ("classes", ", ".join(first.classes), ", ".join(summary.classes)),
            ("metrics", ", ".join(first.metrics), ", ".join(summary.metrics)),
        ):
            if one != other:
                raise AutosegError(
                    f"{first_name} and {name} were scored by different {what}",
                    where=summary.predictions,
                    found=other,
                    expected=one,
                    fix="score them alike: autoseg_evaluate -p FOLD/validation -g labelsTr, for each fold",
                )


def _case(name: str, place: str, case: CaseScores, counts: Mapping[str, FolderCounts | None]) -> CaseScores:
    of_case = (counts.get(place) or {}).get(case.name, {})
    rows = {label: as_rows(one) for label, one in of_case.items()}
    return case.model_copy(update={"name": name, "thresholds": rows})


def _strata(
    summaries: Mapping[str, Summary], cases: Sequence[CaseScores], mean: Averaging
) -> tuple[list[Stratum], tuple[str, ...]]:
    """The strata that all folds have, made anew from all cases, because quantiles differ from fold to fold."""
    given = [{(one.name, one.rule): one for one in summary.strata} for summary in summaries.values()]
    common = [one for key, one in given[0].items() if all(key in other for other in given)]
    columns = [one.name for one in common if one.rule.endswith(_column_of(one))]
    rules = [rule for one in common if (rule := _rule(one))]
    groups = None
    if columns:
        of = {case.name: case.groups for case in cases}
        groups = Groups(common[-1].rule.rpartition(" of ")[2], columns, of, missing=[], unknown=[])
    metrics = [_described(name, row) for name, row in next(iter(summaries.values())).metrics.items()]
    tested = next(iter(summaries.values())).preset.table
    made = stratify(cases, metrics, rules, groups, mean, tested)
    names = {name for strata in given for name, _ in strata}
    return made, tuple(sorted(names - {one.name for one in made}))


def _column_of(stratum: Stratum) -> str:
    """How the rule of a column of the groups file ends."""
    return f"column {stratum.name} of {stratum.rule.rpartition(' of ')[2]}"


def _rule(stratum: Stratum) -> StrataRule | None:
    """The rule from its words; None for a column of the groups file."""
    name = stratum.name
    cuts = re.fullmatch(rf"{re.escape(name)} cut at (.+)", stratum.rule)
    if cuts:
        return StrataRule(name, thresholds=tuple(float(cut) for cut in cuts[1].split(",")))
    rules = (StrataRule(name, quantiles=n) for n in range(2, MOST_QUANTILES + 1))
    return next((rule for rule in rules if rule.words == stratum.rule), None)


def _described(name: str, row: MetricRow) -> Metric:
    """A metric of which only name and unit matter here."""
    return Metric(name, row.unit, row.group, row.definition, compute=lambda _: math.nan)  # type: ignore[arg-type]  # its group is a text of a file
