"""Agreement of raters who drew the same lesions, each of them perhaps several times.

Within one rater (intra) all pairs of that rater's runs are compared, between two raters (inter) every run of one with
every run of the other: three runs each give 3 and 9 pairs for each case (as Valverde et al. 2020, RatLesNetv2). A
method that was trained several times is a rater like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal, NamedTuple

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED, IntervalMethod, mean_interval

Kind = Literal["intra", "inter"]
ALL = "all"
"""Stands for the rater in rows that sum up all raters."""


class RaterPair(NamedTuple):
    """Two segmentations of the same cases that are compared."""

    kind: Kind
    rater_a: str
    run_a: str
    rater_b: str
    run_b: str


@dataclass(frozen=True)
class AgreementRow:
    """One row of the table.

    Attributes:
        kind: within one rater or between two.
        rater_a, rater_b: the same for ``intra``; :data:`ALL` in rows over all raters.
        pairs: pairs of runs for each case.
        n: cases with at least one defined value.
        undefined: cases without.
        mean: over cases of the mean over the pairs.
        sd: of the same, with n - 1: the spread between cases, not between pairs.
        low, high: interval of the mean by bootstrap over cases; the pairs of one case are not independent.
    """

    kind: Kind
    rater_a: str
    rater_b: str
    pairs: int
    n: int
    undefined: int
    mean: float
    sd: float
    low: float
    high: float


def rater_pairs(raters: Mapping[str, Sequence[str]]) -> list[RaterPair]:
    """All pairs of runs to compare, first within each rater, then between raters.

    Args:
        raters: rater to the names of the runs.

    Raises:
        AutosegError: there is nothing to compare, or a rater has two runs of the same name.
    """
    for rater, runs in raters.items():
        twice = sorted({run for run in runs if list(runs).count(run) > 1})
        if twice:
            raise AutosegError(
                "a run is named twice",
                where=f"rater {rater}",
                found=", ".join(twice),
                fix="name each run once",
            )
    intra = [
        RaterPair("intra", rater, a, rater, b)
        for rater, runs in raters.items()
        for a, b in combinations(runs, 2)
    ]
    inter = [
        RaterPair("inter", first, a, second, b)
        for first, second in combinations(raters, 2)
        for a, b in product(raters[first], raters[second])
    ]
    if not intra and not inter:
        raise AutosegError(
            "there are no two segmentations to compare",
            found=", ".join(f"{rater} (runs: {len(runs)})" for rater, runs in raters.items()) or "no rater",
            expected="two raters, or two runs of one rater",
        )
    return intra + inter


def agreement_table(
    values: Mapping[RaterPair, Mapping[str, float]],
    *,
    method: IntervalMethod = "percentile",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[AgreementRow]:
    """Agreement within each rater and between raters.

    Args:
        values: for each pair of :func:`rater_pairs`, case to score (Dice, usually); ``nan`` is undefined.
        method, confidence, resamples, seed: of :func:`autoseg.evaluation.statistics.mean_interval`.

    Returns:
        Rows for each rater with several runs and for each two raters, in the order of ``values``; after each kind that
        has several rows, one over all of them.
    """
    rows = []
    for kind in ("intra", "inter"):
        groups: dict[tuple[str, str], list[Mapping[str, float]]] = {}
        for pair, of_cases in values.items():
            if pair.kind == kind:
                groups.setdefault((pair.rater_a, pair.rater_b), []).append(of_cases)
        if len(groups) > 1:
            groups[ALL, ALL] = [of_cases for group in groups.values() for of_cases in group]
        for (rater_a, rater_b), group in groups.items():
            means = case_means(group)
            low, high = mean_interval(
                means, method=method, confidence=confidence, resamples=resamples, seed=seed
            )
            rows.append(_row(kind, rater_a, rater_b, len(group), means, (low, high)))
    return rows


def case_means(pairs: Iterable[Mapping[str, float]]) -> np.ndarray:
    """Over the pairs, the mean of each case that any of them has, sorted by case; ``nan`` where none is defined."""
    collected: dict[str, list[float]] = {}
    for of_cases in pairs:
        for case, value in of_cases.items():
            collected.setdefault(case, []).append(value)
    defined = [[v for v in collected[case] if not np.isnan(v)] for case in sorted(collected)]
    return np.array([np.mean(values) if values else np.nan for values in defined], float)


def _row(
    kind: Kind, rater_a: str, rater_b: str, pairs: int, means: np.ndarray, interval: tuple[float, float]
) -> AgreementRow:
    known = means[~np.isnan(means)]
    return AgreementRow(
        kind=kind,
        rater_a=rater_a,
        rater_b=rater_b,
        pairs=pairs,
        n=len(known),
        undefined=len(means) - len(known),
        mean=float(known.mean()) if len(known) else np.nan,
        sd=float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        low=interval[0],
        high=interval[1],
    )
