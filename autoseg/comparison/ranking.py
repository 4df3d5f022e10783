"""Which method is better, on scores of the same cases: differences with intervals, tests and Holm's correction.

The scores of one metric come as class to method to an array ``[n cases]``, with ``nan`` where a score is undefined. A
metric of which the value nearer to ``zero`` is better, such as a volume difference, is compared by absolute values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from autoseg.comparison.comparison_schema import Difference, MetricComparison, Ranked, Test
from autoseg.evaluation.cohort import Averaging
from autoseg.evaluation.metrics.metric import Better
from autoseg.evaluation.presets import PRESETS, Preset
from autoseg.evaluation.statistics import PERMUTATIONS, IntervalMethod, compare_paired, holm
from autoseg.evaluation.summary import defined

ALPHA = 0.05
"""A difference is shown when its corrected p-value is at most this."""
INTERVAL: IntervalMethod = "bca"
TRUTH = "truth"
"""What the true masks are called beside methods."""

MetricScores = Mapping[str, Mapping[str, np.ndarray]]
"""Class to method to scores, of one metric."""


def compare_metric(
    scores: MetricScores, better: Better, test: Test, preset: Preset = PRESETS["autoseg"]
) -> dict[str, MetricComparison]:
    """Rank the methods and compare every pair of them, for one metric.

    Args:
        scores: of this metric; each class has the same methods.
        better: what a better method has.
        test: whose p-values are corrected, over all pairs and classes, and decide.
        preset: says which kind of interval the means have.

    Returns:
        Class to result.
    """
    differences = corrected(scores, better, test)
    return {
        label: MetricComparison(
            n=int(_everywhere(methods).sum()), ranking=rank(methods, better, preset), pairs=differences[label]
        )
        for label, methods in scores.items()
    }


def corrected(scores: MetricScores, better: Better, test: Test) -> dict[str, list[Difference]]:
    """Class to the differences of all pairs of methods; all of them are one family of Holm's correction."""
    raw = [(label, differences(methods, better)) for label, methods in scores.items()]
    return dict(_corrected(raw, better, test))


def against_one(
    scores: MetricScores, others: Mapping[str, np.ndarray], name: str, better: Better, test: Test
) -> dict[str, list[Difference]]:
    """Class to each method minus one that is no method; all of them are one family of Holm's correction, and none is
    called better.

    Args:
        scores: of one metric.
        others: class to the values of the other ``[n cases]``, such as the shape of the truth.
        name: of it.
        better: what a better method has.
        test: whose p-values are corrected.
    """
    raw = [
        (
            label,
            [_difference(method, name, values, others[label], better) for method, values in methods.items()],
        )
        for label, methods in scores.items()
    ]
    return {
        label: [pair.model_copy(update={"better": None}) for pair in pairs]
        for label, pairs in _corrected(raw, better, test)
    }


def corrected_levels(
    scores: MetricScores, levels: Mapping[str, Sequence[np.ndarray]], better: Better, test: Test
) -> dict[str, list[list[Difference]]]:
    """The differences on parts of the cases; all levels of all classes are one family of Holm's correction.

    Args:
        scores: of one metric.
        levels: class to the indices of the cases of each level.

    Returns:
        Class to level to the differences of all pairs of methods.
    """
    raw = [
        (label, differences({method: values[index] for method, values in scores[label].items()}, better))
        for label, indices in levels.items()
        for index in indices
    ]
    found: dict[str, list[list[Difference]]] = {label: [] for label in levels}
    for label, pairs in _corrected(raw, better, test):
        found[label].append(pairs)
    return found


def _corrected(
    raw: Sequence[tuple[str, list[Difference]]], better: Better, test: Test
) -> Iterator[tuple[str, list[Difference]]]:
    """Class and differences of each part, with p-values corrected over all of them."""
    p_values = [_nan(pair.p[test]) for _, pairs in raw for pair in pairs]
    p_holm = iter(holm(p_values))
    for label, pairs in raw:
        yield label, [_decided(pair, float(next(p_holm)), better, test) for pair in pairs]


def differences(methods: Mapping[str, np.ndarray], better: Better) -> list[Difference]:
    """Every pair of methods, in the order in which they come, without correction."""
    return [_difference(a, b, methods[a], methods[b], better) for a, b in combinations(methods, 2)]


def _difference(first: str, second: str, a: np.ndarray, b: np.ndarray, better: Better) -> Difference:
    a, b = comparable(a, better), comparable(b, better)
    found = compare_paired(a, b, better="higher" if better == "higher" else "lower", interval=INTERVAL)
    return Difference(
        first=first,
        second=second,
        n=found.n,
        undefined=len(a) - found.n,
        mean_first=defined(found.mean_a),
        mean_second=defined(found.mean_b),
        difference=defined(found.difference),
        sd=_sd((a - b)[~np.isnan(a - b)]),
        low=defined(found.low),
        high=defined(found.high),
        wins=found.wins_a,
        losses=found.wins_b,
        ties=found.ties,
        rank_biserial=defined(rank_biserial(a - b)),
        p={
            "permutation": defined(found.p_permutation),
            "wilcoxon": defined(found.p_wilcoxon),
            "t": defined(found.p_t),
        },
    )


def _sd(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def comparable(values: np.ndarray, better: Better | None) -> np.ndarray:
    """The values that are compared: absolute ones where nearer to zero is better."""
    return np.abs(values) if better == "zero" else values


def _decided(pair: Difference, p_holm: float, better: Better, test: Test) -> Difference:
    """With the corrected p-value and the method that is better.

    Wilcoxon's test is about ranks: where they favour another method than the mean does, as when one is a little better
    in most cases and much worse in a few, its p-value says nothing about the mean and neither is called better.
    """
    difference = pair.difference or 0.0
    against_ranks = test == "wilcoxon" and difference * (pair.rank_biserial or 0.0) <= 0
    winner = None
    if p_holm <= ALPHA and difference and not against_ranks:
        winner = pair.first if (difference > 0) == (better == "higher") else pair.second
    return pair.model_copy(update={"p_holm": defined(p_holm), "better": winner})


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): the effect size of Wilcoxon's signed-rank test.

    Args:
        differences: ``nan`` and 0 are left out.

    Returns:
        (sum of ranks of positive - of negative differences) / sum of all ranks; ``nan`` without any difference.
    """
    known = differences[~np.isnan(differences) & (differences != 0)]
    if len(known) == 0:
        return math.nan
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(known))
    return float((np.sign(known) * ranks).sum() / ranks.sum())


def rank(
    methods: Mapping[str, np.ndarray], better: Better, preset: Preset = PRESETS["autoseg"]
) -> list[Ranked]:
    """The methods, best mean first, over the cases where all of them are defined.

    The intervals of the means are of the preset's kind, as ``autoseg_evaluate`` shows them.
    """
    everywhere = _everywhere(methods)
    rows = []
    for method, values in methods.items():
        mean = Averaging(preset.interval, preset.resamples)(comparable(values[everywhere], better))
        found = mean.model_dump(include={"mean", "sd", "low", "high"})
        rows.append(Ranked(method=method, undefined=int(np.isnan(values).sum()), **found))
    sign = -1 if better == "higher" else 1
    return sorted(rows, key=lambda row: 0.0 if row.mean is None else sign * row.mean)


def _everywhere(methods: Mapping[str, np.ndarray]) -> np.ndarray:
    """``[n cases]``: whether the score is defined for every method."""
    return ~np.isnan(np.stack(list(methods.values()))).any(axis=0)


def smallest_p(n: int, test: Test) -> float:
    """The smallest two-sided p-value that ``n`` pairs can give; 0 where there is no such bound.

    All signs equal is 2 of 2^n sign vectors, for the permutation test as for Wilcoxon's.
    """
    if test == "t":
        return 0.0
    return max(2.0 ** (1 - n), 1 / (PERMUTATIONS + 1) if test == "permutation" else 0.0)


def none_can_be_shown(pairs: Iterable[Difference], test: Test) -> bool:
    """Whether no comparison of a family could have been shown, whatever its scores: too few cases for so many."""
    tested = [pair.n for pair in pairs if pair.p[test] is not None]
    return bool(tested) and len(tested) * smallest_p(max(tested), test) > ALPHA


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
