"""Tables of agreement against values worked by hand."""

import math

import numpy as np
import pytest

from autoseg.comparison.rater_pairs import RaterPair, agreement_table, case_means, rater_pairs
from autoseg.errors import AutosegError

RUNS = ["1", "2", "3"]


def test_pairs_of_the_annotator_study():
    """Valverde et al. 2020 (RatLesNetv2): three runs each give 3 pairs within and 9 between raters for each mask."""
    pairs = rater_pairs({"A": RUNS, "B": RUNS})
    kinds = [(pair.kind, pair.rater_a, pair.rater_b) for pair in pairs]
    assert kinds == [("intra", "A", "A")] * 3 + [("intra", "B", "B")] * 3 + [("inter", "A", "B")] * 9
    assert len({(p.rater_a, p.run_a, p.rater_b, p.run_b) for p in pairs}) == 15
    assert all((p.rater_a, p.run_a) != (p.rater_b, p.run_b) for p in pairs)


def test_raters_with_different_numbers_of_runs():
    pairs = rater_pairs({"A": ["1"], "B": ["1", "2"], "C": ["1"]})
    assert [p.kind for p in pairs] == ["intra"] + ["inter"] * 5


@pytest.mark.parametrize("raters", [{}, {"A": ["1"]}, {"A": [], "B": ["1"]}])
def test_nothing_to_compare(raters):
    with pytest.raises(AutosegError, match="no two segmentations to compare"):
        rater_pairs(raters)


def test_a_run_named_twice():
    with pytest.raises(AutosegError, match="rater A: a run is named twice\n.*run1"):
        rater_pairs({"A": ["run1", "run1"]})


def test_table_by_hand():
    """Two cases; A agrees with itself by 0.9 and 0.7, three pairs each; with B by 0.5 and 0.6 on average."""
    values = {}
    for pair in rater_pairs({"A": RUNS, "B": ["1"]}):
        shift = {"1": -0.1, "2": 0.0, "3": 0.1}
        if pair.kind == "intra":
            values[pair] = {"x": 0.9, "y": 0.7}
        else:
            values[pair] = {"x": 0.5 + shift[pair.run_a], "y": 0.6 + shift[pair.run_a]}
    intra, inter = agreement_table(values)
    assert (intra.kind, intra.rater_a, intra.rater_b, intra.pairs, intra.n, intra.undefined) == (
        "intra", "A", "A", 3, 2, 0,
    )  # fmt: skip
    assert (intra.mean, intra.sd) == pytest.approx((0.8, math.sqrt(0.02)))
    assert (intra.low, intra.high) == pytest.approx((0.7, 0.9))
    assert (inter.kind, inter.rater_a, inter.rater_b, inter.pairs) == ("inter", "A", "B", 3)
    assert (inter.mean, inter.sd) == pytest.approx((0.55, math.sqrt(0.005)))  # spread of cases, not of pairs


def test_rows_over_all_raters():
    pairs = rater_pairs({"A": RUNS, "B": RUNS, "C": ["1"]})
    generator = np.random.default_rng(0)
    values = {pair: {case: generator.random() for case in "wxyz"} for pair in pairs}
    rows = agreement_table(values)
    assert [(row.kind, row.rater_a, row.rater_b, row.pairs) for row in rows] == [
        ("intra", "A", "A", 3),
        ("intra", "B", "B", 3),
        ("intra", "all", "all", 6),
        ("inter", "A", "B", 9),
        ("inter", "A", "C", 3),
        ("inter", "B", "C", 3),
        ("inter", "all", "all", 15),
    ]
    every = [v for pair, of_cases in values.items() if pair.kind == "inter" for v in of_cases.values()]
    assert rows[-1].mean == pytest.approx(np.mean(every)) and rows[-1].n == 4
    assert rows[-1].low < rows[-1].mean < rows[-1].high


def test_undefined_values_and_cases():
    values = [{"x": 0.5, "y": math.nan, "z": 0.4}, {"x": 0.7, "y": math.nan, "z": math.nan, "a": 0.1}]
    assert case_means(values) == pytest.approx([0.1, 0.6, math.nan, 0.4], nan_ok=True)
    pairs = [RaterPair("intra", "A", "1", "A", str(i)) for i in (2, 3)]
    (row,) = agreement_table(dict(zip(pairs, values, strict=True)))
    assert (row.n, row.undefined) == (3, 1) and row.mean == pytest.approx(1.1 / 3)
    (empty,) = agreement_table({pairs[0]: {"x": math.nan}})
    assert (empty.n, empty.undefined) == (0, 1) and math.isnan(empty.mean) and math.isnan(empty.sd)
    (one,) = agreement_table({pairs[0]: {"x": 0.5}})
    assert one.mean == 0.5 and math.isnan(one.sd) and math.isnan(one.low)
