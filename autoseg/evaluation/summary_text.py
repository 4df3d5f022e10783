"""A summary for reading: what autoseg_evaluate prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from autoseg.evaluation.statistics import (
    FEW_CASES,
    FEWEST_IN_GROUP,
    FEWEST_ON_LINE,
    landis_koch,
    led_by_few,
    t_interval,
)
from autoseg.evaluation.summary import (
    ClassSummary,
    CohortValue,
    GroupTest,
    Mean,
    Stratum,
    Summary,
    VolumeAgreement,
)
from autoseg.evaluation.text import alike, decimals, fixed, grid, p_text, with_interval
from autoseg.messages import count_of

WIDTH = 110
"""Columns that text is wrapped to."""


def format_table(summary: Summary) -> str:
    """What is printed: the preset, the means, then parts of the cases, then numbers of all cases together."""
    parts = [format_preset(summary), _means(summary), _led_by_few(summary)]
    parts += [_stratum(stratum, summary) for stratum in summary.strata]
    if summary.group_tests:
        parts.append(
            textwrap.fill(f"tests across groups: {summary.group_tests}", WIDTH, subsequent_indent="  ")
        )
    parts.append(_cohort(summary))
    return "\n\n".join(part for part in parts if part)


def format_preset(summary: Summary) -> str:
    """Name and title of the preset, its source, and a line for each note."""
    preset = summary.preset
    more = [f"source: {preset.source}", *preset.notes] if preset.source else preset.notes
    wrapped = (textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ") for text in more)
    return "\n".join([f"preset {preset.name}: {preset.title}", *wrapped])


def table_metrics(summary: Summary) -> list[str]:
    """The preset's table metrics that were computed; if there are none, the first few that were."""
    return [name for name in summary.preset.table if name in summary.metrics] or list(summary.metrics)[:5]


def _means(summary: Summary) -> str:
    """A row for each class and metric; means where truth is present only if some cases have none."""
    with_empty = any(entry.empty_truth for entry in summary.classes.values())
    in_words = [name for name in table_metrics(summary) if name in summary.preset.in_words]
    header = ["class", "metric", "mean [95 % interval]", "sd", "median", "n"]
    header += ["where truth is present", "n"] if with_empty else []
    header += ["in words"] if in_words else []
    rows = []
    for label, entry in summary.classes.items():
        own = []
        for name in table_metrics(summary):
            unit, present = summary.metrics[name].unit, entry.truth_present[name]
            row = [name, *mean_texts(entry.all[name], unit)]
            row += [interval_text(present, unit), str(present.n)] if with_empty else []
            own.append(row + ([landis_koch(entry.all[name].mean)] if name in in_words else []))
        rows += _named(label, [*own, *_misses(entry)])
    return grid(header, rows)


def quartiles_of_led(summary: Summary, label: str, metric: str) -> tuple[float, float] | None:
    """The quartiles of the cases where few of them lead the mean so far that it lies outside; otherwise None.

    Metrics between 0 and 1 are passed over, because a case cannot lead there by more than it should count, and
    descriptions such as volumes, which are as skewed as they are.
    """
    if summary.metrics[metric].unit == "1" or not summary.metrics[metric].better:
        return None
    values = [value for case in summary.cases if (value := case.classes[label][metric]) is not None]
    return led_by_few(values)


def _led_by_few(summary: Summary) -> str:
    """A note for each metric whose mean is no typical case."""
    notes = [
        f"note: few cases lead the mean of {metric} of {label}, which lies outside the middle half of the cases "
        f"({' to '.join(alike(summary.metrics[metric].unit, *middle))}): read the median"
        for label in summary.classes
        for metric in table_metrics(summary)
        if (middle := quartiles_of_led(summary, label, metric))
    ]
    return "\n".join(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)


def _named(label: str, rows: list[list[str]]) -> list[list[str]]:
    """Rows of a class, whose name stands before the first of them only."""
    return [[label if i == 0 else "", *row] for i, row in enumerate(rows)]


def _misses(entry: ClassSummary) -> list[list[str]]:
    rows = [["cases missed", f"{entry.missed} of {entry.cases - entry.empty_truth} with truth"]]
    if entry.empty_truth:
        rows.append(["cases with false alarm", f"{entry.false_alarms} of {entry.empty_truth} without truth"])
    return rows


def _stratum(stratum: Stratum, summary: Summary) -> str:
    """The first metric of the table, level by level."""
    metric = table_metrics(summary)[0]
    unit = summary.metrics[metric].unit
    rows = []
    for label, levels in stratum.classes.items():
        of_class = [[level.name, *mean_texts(level.metrics[metric], unit)] for level in levels]
        if label in stratum.mean_of_means:
            whole = stratum.mean_of_means[label][metric]
            of_class.append(["mean of means", fixed(whole, decimals(unit, whole)), "", "", str(len(levels))])
        rows += _named(label, of_class)
    header = ["class", "level", "mean [95 % interval]", "sd", "median", "n"]
    several = len(stratum.classes) > 1
    tests = [
        group_test_text(of_class[metric], f"{metric}{f' of {label}' if several else ''}")
        for label, of_class in stratum.tests.items()
    ]
    said = (textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in tests)
    return "\n".join([f"{metric} by {stratum.rule}", grid(header, rows), *said])


def group_test_text(found: GroupTest, what: str) -> str:
    """A test across groups in a sentence: H, degrees of freedom, p and how many cases each group has."""
    if found.p is None:
        parts = [f"no test, {found.why_not}"]
    else:
        degrees = count_of(found.degrees_of_freedom, "degree of freedom", "degrees of freedom")
        corrected = f"{p_text(found.p_holm, 'p ')} after Holm's correction"
        parts = [f"H = {found.h:.2f}, {degrees}, {p_text(found.p, 'p ')}, {corrected}"]
    if found.n:
        parts.append(f"cases {counts_text(found.n)}")
    if found.left_out:
        parts.append(f"left out, fewer than {FEWEST_IN_GROUP}: {counts_text(found.left_out)}")
    return f"Kruskal-Wallis, {what}: {'; '.join(parts)}"


def counts_text(n: Mapping[str, int]) -> str:
    """``A: 5, B: 7``."""
    return ", ".join(f"{name}: {count}" for name, count in n.items())


def _cohort(summary: Summary) -> str:
    rows = []
    for label, entry in summary.classes.items():
        own = [[name, cohort_text(name, found), str(found.n)] for name, found in entry.cohort.items()]
        if (volumes := entry.volume_agreement) is not None:
            middle, limits = agreement_texts(volumes)
            own.append(["volume difference, ml", f"{middle}, limits of agreement {limits}", str(volumes.n)])
        rows += _named(label, own)
    if not rows:
        return ""
    notes = (
        [_OF_PROBABILITIES] if any("mdsc_global" in one.cohort for one in summary.classes.values()) else []
    )
    table = grid(["class", "all cases together", "value [95 % interval]", "n"], rows)
    return "\n".join([table, *(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)])


_OF_PROBABILITIES = (
    "note: from probabilities: mdsc_global is the best mean Dice that one threshold gives for all cases, mdsc_case has "
    "the best threshold for each case (an upper bound), average_precision is the area under the precision-recall "
    "curve; masks alone do not have them (autoseg_predict --save_probabilities, then autoseg_evaluate)"
)


def cohort_text(name: str, found: CohortValue) -> str:
    """A number of all cases together with its interval; where too few cases give none, this is said."""
    if found.value is None:
        return "too few cases" if name == "r2_dice_log_volume" and found.n < FEWEST_ON_LINE else "-"
    text = with_interval(found.value, found.low, found.high, found.unit)
    return f"{text}, too few for an interval" if found.low is None and found.n < FEW_CASES else text


def agreement_texts(volumes: VolumeAgreement) -> tuple[str, str]:
    """The mean difference of volumes with its interval, and the limits of agreement, in ml."""
    interval = t_interval(volumes.mean_ml, volumes.sd_ml, volumes.n)
    low, high = volumes.low_limit_ml, volumes.high_limit_ml
    mean, *ends, low_text, high_text = alike("ml", volumes.mean_ml, *interval, low, high)
    return f"{mean} [{', '.join(ends)}]", f"{low_text} to {high_text}"


def interval_text(mean: Mean, unit: str) -> str:
    """``0.658 [0.536, 0.786]``."""
    return with_interval(mean.mean, mean.low, mean.high, unit)


def mean_texts(mean: Mean, unit: str) -> list[str]:
    """Mean with interval, sd, median and n, with the same number of decimals."""
    n_decimals = decimals(unit, mean.mean, mean.low, mean.high)
    return [
        interval_text(mean, unit),
        fixed(mean.sd, n_decimals),
        fixed(mean.median, n_decimals),
        str(mean.n),
    ]
