"""Tests across groups: which groups count, the family of Holm's correction, and what is said."""

import math

import pytest

from autoseg.evaluation.group_tests import describe_tests, with_group_tests
from autoseg.evaluation.strata import NOT_GIVEN
from autoseg.evaluation.summary import CaseScores, Level, Stratum
from autoseg.evaluation.summary_text import group_test_text

ODD, EVEN = [0.1, 0.3, 0.5, 0.7, 0.9], [0.2, 0.4, 0.6, 0.8, 1.0]
P_ODD_EVEN = math.erfc(math.sqrt(3 / 22))  # see test_statistics.py
P_APART = math.erfc(math.sqrt(75 / 22))  # ranks 1 to 5 and 6 to 10: H = 75 / 11


def stratum(name, groups):
    """A column whose groups hold these Dice values, and its cases."""
    cases, levels = [], []
    for level, values in groups.items():
        names = [f"{name} {level} {i}" for i in range(len(values))]
        levels.append(Level(name=level, cases=names, metrics={}))
        cases += [
            CaseScores(
                name=one,
                prediction_sha256="",
                truth_sha256="",
                classes={"lesion": {"dice": value, "hd95_mm": None if value is None else 1.0}},
            )
            for one, value in zip(names, values, strict=True)
        ]
    return Stratum(name=name, rule=f"column {name} of g.csv", classes={"lesion": levels}), cases


def made_of(columns, metrics=("dice",)):
    made = [stratum(name, groups) for name, groups in columns.items()]
    strata = with_group_tests(
        [one for one, _ in made], [case for _, cases in made for case in cases], metrics
    )
    return strata, {one.name: one.tests["lesion"] for one in strata}


def test_small_groups_and_cases_without_a_group_are_left_out():
    groups = {"A": ODD, "B": [*EVEN, None], "C": [0.5] * 4, NOT_GIVEN: [0.0] * 9}
    _, of = made_of({"scanner": groups})
    found = of["scanner"]["dice"]
    assert (found.n, found.left_out, found.degrees_of_freedom) == ({"A": 5, "B": 5}, {"C": 4}, 1)
    assert found.h == pytest.approx(3 / 11) and found.p == found.p_holm == pytest.approx(P_ODD_EVEN)
    assert group_test_text(found, "dice") == (
        "Kruskal-Wallis, dice: H = 0.27, 1 degree of freedom, p = 0.60, p = 0.60 after Holm's correction; "
        "cases A: 5, B: 5; left out, fewer than 5: C: 4"
    )


def test_all_columns_are_one_family():
    """The smaller p-value doubles, the larger one stays: Holm over two tests; a third was not made."""
    columns = {
        "scanner": {"A": ODD, "B": EVEN},
        "territory": {"A": sorted([*ODD, *EVEN])[:5], "B": sorted([*ODD, *EVEN])[5:]},
        "site": {"A": ODD, "B": [0.1]},
    }
    strata, of = made_of(columns)
    assert of["territory"]["dice"].p == pytest.approx(P_APART)
    assert of["territory"]["dice"].p_holm == pytest.approx(2 * P_APART)
    assert of["scanner"]["dice"].p_holm == of["scanner"]["dice"].p == pytest.approx(P_ODD_EVEN)
    none = of["site"]["dice"]
    assert (none.h, none.p, none.p_holm, none.why_not) == (None, None, None, "1 group of 5 cases or more")
    assert group_test_text(none, "dice") == (
        "Kruskal-Wallis, dice: no test, 1 group of 5 cases or more; cases A: 5; left out, fewer than 5: B: 1"
    )
    assert "Holm over the 2 tests of each metric" in describe_tests(strata)


def test_why_there_is_no_test():
    _, of = made_of(
        {"one": {"A": ODD}, "none": {NOT_GIVEN: ODD}, "small": {"A": [0.1], "B": [0.2]}}, ("dice", "hd95_mm")
    )
    said = {name: of_metric["dice"].why_not for name, of_metric in of.items()}
    assert said == {
        "one": "there is one group",
        "none": "there is no group",
        "small": "no group of 5 cases or more",
    }
    _, of = made_of({"scanner": {"A": ODD, "B": EVEN}}, ["hd95_mm"])
    assert of["scanner"]["hd95_mm"].why_not == "all values are equal"
    assert of["scanner"]["hd95_mm"].n == {"A": 5, "B": 5}
    assert describe_tests([]) == ""
