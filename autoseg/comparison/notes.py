"""What a reader of a comparison must know: how it was tested, and what its numbers cannot say."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.comparison.comparison_schema import Difference, MetricComparison, Test
from autoseg.comparison.ranking import ALPHA, none_can_be_shown, smallest_p
from autoseg.evaluation.metrics.metric import Better
from autoseg.evaluation.statistics import FEW_CASES, PERMUTATIONS
from autoseg.messages import count_of

TESTS: dict[Test, str] = {
    "permutation": f"paired sign-flip permutation test of the mean difference, {PERMUTATIONS} random sign vectors, "
    "or all of them where there are no more",
    "wilcoxon": "Wilcoxon signed-rank test, zero differences dropped",
    "t": "paired t-test",
}
SPOKEN: dict[Test, str] = {"permutation": "permutation", "wilcoxon": "Wilcoxon", "t": "paired t"}
TOO_MANY = (
    f"no difference can be shown, because so few cases give no p-value below {ALPHA:g} after correction"
)

Results = Mapping[str, Mapping[str, MetricComparison]]
"""Metric to class to result."""


def family(n_methods: int, n_classes: int, test: Test) -> str:
    """Over which tests Holm's correction was made."""
    n_pairs = n_methods * (n_methods - 1) // 2
    classes = count_of(n_classes, "class", "classes")
    return (
        f"Holm over the {SPOKEN[test]} tests of each metric: {count_of(n_pairs, 'pair')} of methods, {classes}, "
        f"{count_of(n_pairs * n_classes, 'test')}; in strata over the tests of all levels too. Metrics are not "
        "corrected for each other, and intervals are not corrected"
    )


def notes(results: Results, chosen: Mapping[str, Better], n_cases: int, test: Test) -> list[str]:
    """One sentence for each thing.

    Args:
        results: of all metrics.
        chosen: the metrics, and what a better method has.
        n_cases: that are compared.
        test: whose p-values decide.
    """
    found = []
    if n_cases < 2:
        found.append("one case: there are no intervals and no tests")
    elif smallest_p(n_cases, test) > ALPHA:
        found.append(
            f"{n_cases} cases: no difference can be shown, because the smallest two-sided p-value is "
            f"2/2^{n_cases} = {smallest_p(n_cases, test):.2g}; from 6 cases on it can be below 0.05"
        )
    else:
        found += [_too_many(metric, classes, test) for metric, classes in results.items()]
    if 2 <= n_cases < FEW_CASES:
        found.append(f"bootstrap intervals of {n_cases} cases are too narrow")
    for metric, better in chosen.items():
        if better == "zero":
            found.append(f"{metric} is compared by its absolute value: nearer to zero is better")
        found.append(_undefined(metric, results[metric], n_cases))
        found.append(_both_ways(metric, results[metric], test))
        if smallest_p(n_cases, test) <= ALPHA:
            found += _disagreeing(metric, results[metric], test)
    return [note for note in found if note]


def _too_many(metric: str, classes: Mapping[str, MetricComparison], test: Test) -> str:
    pairs = [pair for result in classes.values() for pair in result.pairs]
    tested = [pair for pair in pairs if pair.p[test] is not None]
    if not none_can_be_shown(tested, test):
        return ""
    return f"{metric}: {TOO_MANY} for {count_of(len(tested), 'test')}; compare fewer methods or more cases"


def _undefined(metric: str, classes: Mapping[str, MetricComparison], n_cases: int) -> str:
    dropped = {pair.undefined for result in classes.values() for pair in result.pairs}
    if not any(dropped):
        return ""
    some = f"up to {max(dropped)}" if len(dropped) > 1 else f"{max(dropped)}"
    return (
        f"{metric}: {some} of {count_of(n_cases, 'case')} dropped, because it is undefined for one or both methods; "
        "a method that misses lesions may look better than it is"
    )


def _both_ways(metric: str, classes: Mapping[str, MetricComparison], test: Test) -> str:
    odd = [pair for result in classes.values() for pair in result.pairs if points_both_ways(pair, test)]
    if not odd:
        return ""
    names = ", ".join(f"{pair.first} and {pair.second}" for pair in odd)
    return (
        f"{metric}: Wilcoxon's test finds a difference between {names}, but the ranks favour one method and the mean "
        "the other, so neither is called better: one is better in most cases and much worse in a few"
    )


def _disagreeing(metric: str, classes: Mapping[str, MetricComparison], test: Test) -> list[str]:
    """Why a p-value and the interval beside it do not say the same."""
    several = len(classes) > 1
    reasons: dict[str, list[str]] = {}
    for label, result in classes.items():
        for pair in result.pairs:
            if why := _why_they_disagree(pair, test):
                name = f"{pair.first} - {pair.second}"
                reasons.setdefault(why, []).append(f"{name} in {label}" if several else name)
    return [f"{metric}, {', '.join(names)}: {why}" for why, names in reasons.items()]


def _why_they_disagree(pair: Difference, test: Test) -> str:
    """Empty where p-value and interval agree, one of them is missing, or another note has said it."""
    if pair.low is None or pair.high is None or pair.p_holm is None or points_both_ways(pair, test):
        return ""
    leaves_out_0, shown = pair.low > 0 or pair.high < 0, pair.p_holm <= ALPHA
    if leaves_out_0 == shown:
        return ""
    if shown:
        about = "ranks" if test == "wilcoxon" else "the mean, in another way"
        return f"the interval holds 0, yet p is at most {ALPHA:g}: the {SPOKEN[test]} test is about {about}; p decides"
    p = pair.p[test]
    if p is not None and p <= ALPHA:
        return (
            "the interval leaves out 0, yet no difference is shown: the p-value is corrected for the number of "
            f"tests (before that it is {p:.2g}), the interval is not; p decides"
        )
    return (
        f"the interval leaves out 0, yet no difference is shown: the {SPOKEN[test]} test is stricter than a bootstrap "
        "interval, which is narrow for few cases; p decides"
    )


def points_both_ways(pair: Difference, test: Test) -> bool:
    """Whether Wilcoxon's test would have decided for one method while the mean favours the other."""
    if test != "wilcoxon" or pair.p_holm is None or pair.p_holm > ALPHA:
        return False
    return (pair.difference or 0) * (pair.rank_biserial or 0) <= 0
