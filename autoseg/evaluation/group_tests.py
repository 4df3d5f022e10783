"""Do scores differ between groups of cases? Kruskal-Wallis for each column of a groups file, corrected by Holm.

Tomita et al. 2020 (3D-ResU-Net) compare scanners this way without naming the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoseg.evaluation.statistics import FEWEST_IN_GROUP, holm, kruskal_wallis
from autoseg.evaluation.strata import NOT_GIVEN
from autoseg.evaluation.summary import CaseScores, GroupTest, Level, Stratum, defined
from autoseg.messages import count_of


def with_group_tests(
    strata: Sequence[Stratum], cases: Sequence[CaseScores], metrics: Sequence[str]
) -> list[Stratum]:
    """Strata of columns with a test of each class and metric.

    For each metric all classes of all columns are one family of Holm's correction, as in autoseg_compare; metrics are
    not corrected for each other.

    Args:
        strata: of the columns.
        cases: with their scores.
        metrics: names of those that are tested.
    """
    by_name = {case.name: case for case in cases}
    tested = [
        {
            label: {m: _test(of_class, label, m, by_name) for m in metrics}
            for label, of_class in one.classes.items()
        }
        for one in strata
    ]
    for metric in metrics:
        places = [(i, label) for i, of_classes in enumerate(tested) for label in of_classes]
        raw = [tested[i][label][metric].p for i, label in places]
        for (i, label), p in zip(places, holm([np.nan if p is None else p for p in raw]), strict=True):
            found = tested[i][label][metric]
            tested[i][label][metric] = found.model_copy(update={"p_holm": defined(float(p))})
    return [one.model_copy(update={"tests": tests}) for one, tests in zip(strata, tested, strict=True)]


def describe_tests(strata: Sequence[Stratum]) -> str:
    """How the tests were made, for files and reports; empty where there are none."""
    tests = [of_class for one in strata for of_class in one.tests.values()]
    metrics = list(dict.fromkeys(metric for of_class in tests for metric in of_class))
    if not metrics:
        return ""
    made = [sum(of_class[metric].p is not None for of_class in tests) for metric in metrics]
    several = " to ".join(str(n) for n in sorted({min(made), max(made)}))
    words = "test" if max(made) == 1 else "tests"
    return (
        f"Kruskal-Wallis across the groups of {FEWEST_IN_GROUP} cases or more; Holm over the {several} {words} of each "
        "metric (columns and classes); metrics are not corrected for each other"
    )


def _test(levels: Sequence[Level], label: str, metric: str, cases: Mapping[str, CaseScores]) -> GroupTest:
    """One test, of the levels with enough cases in which the metric is defined."""
    groups = {
        level.name: [v for name in level.cases if (v := cases[name].classes[label][metric]) is not None]
        for level in levels
        if level.name != NOT_GIVEN
    }
    enough = {name: values for name, values in groups.items() if len(values) >= FEWEST_IN_GROUP}
    found = kruskal_wallis(list(enough.values()))
    return GroupTest(
        h=defined(found.h),
        degrees_of_freedom=found.degrees_of_freedom,
        p=defined(found.p),
        n={name: len(values) for name, values in enough.items()},
        left_out={name: len(values) for name, values in groups.items() if name not in enough},
        why_not=_why_not(len(enough), len(groups)) or ("all values are equal" if np.isnan(found.p) else ""),
    )


def _why_not(n_enough: int, n_groups: int) -> str:
    if n_groups < 2:
        return "there is one group" if n_groups else "there is no group"
    if n_enough < 2:
        return f"{count_of(n_enough, 'group') if n_enough else 'no group'} of {FEWEST_IN_GROUP} cases or more"
    return ""
