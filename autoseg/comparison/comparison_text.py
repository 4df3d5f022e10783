"""A comparison for reading: sentences and tables for the terminal, and the texts of its CSV files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from autoseg.comparison.comparison_schema import Comparison, Difference, Test
from autoseg.comparison.method_table import format_method_table
from autoseg.comparison.notes import SPOKEN, TOO_MANY
from autoseg.comparison.ranking import none_can_be_shown
from autoseg.evaluation.text import csv_cell, grid, number, p_text, repeated, spoken
from autoseg.files import csv_text
from autoseg.messages import count_of

# ------------------------------------------------------------------------------------------------------- sentences


def sentences(comparison: Comparison) -> list[str]:
    """For every class, main metric and pair of methods, what was found."""
    return [
        f"{label}: {sentence(pair, metric, comparison)}"
        for label, results in comparison.classes.items()
        for metric in comparison.main
        for pair in results[metric].pairs
    ]


def sentence(pair: Difference, metric: str, comparison: Comparison) -> str:
    """What was found for one pair: which method is better and by how much, or that no difference was shown."""
    unit, name = comparison.metrics[metric].unit, spoken(metric)
    if comparison.metrics[metric].better == "zero":
        name = f"absolute {name}"
    evidence = _evidence(pair, comparison.test)
    if pair.difference is None:
        return f"{pair.first} and {pair.second} cannot be compared in {name}: {evidence}"
    if pair.better is None:
        text = f"no difference shown between {pair.first} and {pair.second} in {name}"
        return f"{text}: {difference_text(pair, unit)}, {evidence}"
    better, worse = (pair.first, pair.second) if pair.better == pair.first else (pair.second, pair.first)
    gain = magnitude(pair)
    return f"{better} is better than {worse} in {name} by {_with_unit(*gain, unit)}, {evidence}"


def magnitude(pair: Difference) -> tuple[float | None, float | None, float | None]:
    """The mean difference without its sign, with the interval turned to match."""
    if pair.difference is None or pair.low is None or pair.high is None:
        return pair.difference, pair.low, pair.high
    return (
        (pair.difference, pair.low, pair.high)
        if pair.difference >= 0
        else (-pair.difference, -pair.high, -pair.low)
    )


def _evidence(pair: Difference, test: Test) -> str:
    cases = count_of(pair.n, "case")
    dropped = f", {pair.undefined} undefined" if pair.undefined else ""
    if pair.p_holm is None:
        return f"not tested ({cases}{dropped})"
    return f"{p_text(pair.p_holm, 'p ')} (Holm, {SPOKEN[test]}, {cases}{dropped})"


def difference_text(pair: Difference, unit: str) -> str:
    """``+0.031 [0.012, 0.050]``, with the unit."""
    text = _with_unit(pair.difference, pair.low, pair.high, unit)
    return f"+{text}" if (pair.difference or 0) > 0 and not text.startswith("0.000") else text


def _with_unit(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """The numbers share their decimals: as many as the largest of them needs for three digits."""
    largest = max((abs(v) for v in (value, low, high) if v is not None), default=0.0)
    if unit == "1" or value is None:
        middle, *ends = (_rounded(number(v, unit)) for v in (value, low, high))
    else:
        decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
        middle, *ends = ("-" if v is None else _rounded(f"{v:.{decimals}f}") for v in (value, low, high))
        middle += f" {unit}"
    return middle if low is None or high is None else f"{middle} [{', '.join(ends)}]"


def _rounded(text: str) -> str:
    """No minus before a zero."""
    return text[1:] if text.startswith("-0") and not text.strip("-0.") else text


# ---------------------------------------------------------------------------------------------------------- tables


def format_comparison(comparison: Comparison) -> str:
    """What is printed: the preset, the sentences, what limits them, the means, the differences, the strata."""
    several = len(comparison.methods) > 2
    parts = [
        _head(comparison),
        "\n".join(sentences(comparison)),
        "\n".join(f"note: {note}" for note in comparison.notes),
        ("ranking by mean" if several else "means")
        + " where the metric is defined for every method\n"
        + _means(comparison),
        "differences\n" + _differences(comparison),
        _against_truth(comparison),
        format_method_table(comparison),
        *(_stratum(comparison, i) for i in range(len(comparison.strata))),
        _foot(comparison),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(comparison: Comparison) -> str:
    preset = comparison.preset
    methods = ", ".join(method.name for method in comparison.methods)
    lines = [f"{methods} on {count_of(len(comparison.cases), 'case')}, {preset.words}"]
    return "\n".join([*lines, *(f"  {note}" for note in preset.notes)])


def _foot(comparison: Comparison) -> str:
    return "\n".join(
        [
            f"differences are first - second; better: the method for which a difference was shown; "
            f"intervals: {comparison.interval}",
            f"p: {comparison.correction}. Where an interval leaves out 0 and no difference is shown, p decides",
        ]
    )


def _means(comparison: Comparison) -> str:
    rows = []
    for label, results in comparison.classes.items():
        for metric, result in results.items():
            unit = comparison.metrics[metric].unit
            for place, row in enumerate(result.ranking, 1):
                interval = "" if row.low is None else f" [{number(row.low, unit)}, {number(row.high, unit)}]"
                cells = [str(place), row.method, number(row.mean, unit) + interval, number(row.sd, unit)]
                rows.append([label, metric, *cells, str(result.n), str(row.undefined)])
    return grid(
        ["class", "metric", "place", "method", "mean [95 % interval]", "sd", "n", "undefined"],
        _sparse(rows, 2),
    )


def _differences(comparison: Comparison) -> str:
    others = [test for test in SPOKEN if test != comparison.test]
    header = ["class", "metric", "first - second", "difference [95 % interval]", "sd", "p Holm"]
    header += [f"p {SPOKEN[test]}" for test in (comparison.test, *others)] + [
        "better/same/worse",
        "n",
        "better",
    ]
    rows = []
    for label, results in comparison.classes.items():
        for metric, result in results.items():
            for pair in result.pairs:
                tests = [p_text(pair.p[test]) for test in (comparison.test, *others)]
                unit = comparison.metrics[metric].unit
                cells = [difference_text(pair, unit), number(pair.sd, unit), p_text(pair.p_holm), *tests]
                rows.append([label, metric, f"{pair.first} - {pair.second}", *cells, *_outcome(pair)])
    return grid(header, _sparse(rows, 2))


def _against_truth(comparison: Comparison) -> str:
    """Each method beside the truth, in what both have by themselves; empty where there is no such metric."""
    rows = []
    for label, results in comparison.classes.items():
        for metric, result in results.items():
            unit = comparison.metrics[metric].unit
            for pair in result.against_truth:
                means = [number(value, unit) for value in (pair.mean_first, pair.mean_second)]
                tests = [p_text(pair.p_holm), p_text(pair.p[comparison.test])]
                cells = [*means, difference_text(pair, unit), number(pair.sd, unit), *tests, str(pair.n)]
                rows.append([label, metric, pair.first, *cells])
    if not rows:
        return ""
    header = ["class", "metric", "method", "mean", "truth", "method - truth [95 % interval]", "sd", "p Holm"]
    return "beside the truth\n" + grid([*header, f"p {SPOKEN[comparison.test]}", "n"], _sparse(rows, 2))


def _outcome(pair: Difference) -> list[str]:
    return [f"{pair.wins}/{pair.ties}/{pair.losses}", str(pair.n), pair.better or "-"]


def _stratum(comparison: Comparison, index: int) -> str:
    """The first main metric, level by level."""
    stratum, metric = comparison.strata[index], comparison.main[0]
    unit, rows = comparison.metrics[metric].unit, []
    for label, levels in stratum.classes.items():
        for level in levels:
            for pair in level.metrics[metric]:
                cells = [difference_text(pair, unit), p_text(pair.p_holm), *_outcome(pair)]
                rows.append([label, level.name, f"{pair.first} - {pair.second}", *cells])
    title = f"{metric} by {stratum.name} ({stratum.rule}), exploratory"
    every = [
        pair for levels in stratum.classes.values() for level in levels for pair in level.metrics[metric]
    ]
    if none_can_be_shown(every, comparison.test):
        title += f"; {TOO_MANY} for {count_of(len(every), 'test')}"
    header = ["class", "level", "first - second", "difference [95 % interval]", "p Holm"]
    return f"{title}\n" + grid([*header, "better/same/worse", "n", "better"], _sparse(rows, 2))


def _sparse(rows: Sequence[Sequence[str]], columns: int) -> list[list[str]]:
    """The rows without the leading cells that only repeat those of the row above."""
    return [[""] * same + list(row[same:]) for row, same in zip(rows, repeated(rows, columns), strict=True)]


# ------------------------------------------------------------------------------------------------------------- CSV


def format_differences_csv(comparison: Comparison) -> str:
    """comparison.csv: one row for each class, metric and pair of methods, on all cases and on each level of strata."""
    tests = list(SPOKEN)
    rows: list[Sequence[object]] = [
        [
            "preset",
            "stratum",
            "level",
            "class",
            "metric",
            "unit",
            "first",
            "second",
            "n",
            "undefined",
            "mean_first",
        ]
        + [
            "mean_second",
            "difference",
            "sd",
            "low",
            "high",
            "better_cases",
            "worse_cases",
            "same_cases",
            "rank_biserial",
        ]
        + [*(f"p_{test}" for test in tests), "p_holm", "shown_to_be_better"]
    ]
    for stratum, level, label, metric, pair in _all_pairs(comparison):
        means = [pair.mean_first, pair.mean_second, pair.difference, pair.sd, pair.low, pair.high]
        counts = [pair.wins, pair.losses, pair.ties]
        p_values = [*(pair.p[test] for test in tests), pair.p_holm]
        unit = comparison.metrics[metric].unit
        rows.append(
            [comparison.preset.name, stratum, level, label, metric, unit, pair.first, pair.second, pair.n]
            + [
                pair.undefined,
                *map(csv_cell, means),
                *counts,
                csv_cell(pair.rank_biserial),
                *map(csv_cell, p_values),
            ]
            + [pair.better or ""]
        )
    return csv_text(rows)


def _all_pairs(comparison: Comparison) -> Iterable[tuple[str, str, str, str, Difference]]:
    """Stratum, level, class, metric and difference, also to the truth; stratum and level are empty for all cases."""
    for label, results in comparison.classes.items():
        for metric, result in results.items():
            yield from (("", "", label, metric, pair) for pair in (*result.pairs, *result.against_truth))
    for stratum in comparison.strata:
        for label, levels in stratum.classes.items():
            for level in levels:
                for metric, pairs in level.metrics.items():
                    yield from ((stratum.name, level.name, label, metric, pair) for pair in pairs)


def format_scores_csv(comparison: Comparison) -> str:
    """comparison_cases.csv: one row for each case, class, metric and method, as statistics programs like it."""
    rows: list[Sequence[object]] = [["preset", "case", "class", "metric", "unit", "method", "value"]]
    for label, of_metrics in comparison.scores.items():
        for metric, of_methods in of_metrics.items():
            for i, case in enumerate(comparison.cases):
                for method, values in of_methods.items():
                    unit = comparison.metrics[metric].unit
                    rows.append(
                        [comparison.preset.name, case, label, metric, unit, method, csv_cell(values[i])]
                    )
    return csv_text(rows)
