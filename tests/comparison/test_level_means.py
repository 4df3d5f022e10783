"""Means and agreement of volumes of the methods of a comparison, by groups of cases."""

import numpy as np
import pytest
from reports import compared

from autoseg.comparison.level_means import level_means, level_volumes, levels_of


def test_levels_begin_with_all_cases():
    found = levels_of(compared(), "lesion")
    assert [(one.stratum, one.name, one.words) for one in found] == [
        ("all", "", "all cases"),
        ("subtype", "lacunar", "lacunar"),
        ("subtype", "cortical", "cortical"),
    ]
    assert [one.cases.tolist() for one in found] == [[0, 1, 2, 3], [0, 1, 2], [3]]


def test_means_have_the_interval_of_the_preset():
    """0.2, 0.4, 0.6: mean 0.4, SD 0.2, t of 2 degrees of freedom 4.302653, half width 0.496828."""
    comparison = compared()
    levels = levels_of(comparison, "lesion")
    found = level_means(comparison, "lesion", ["dice"], levels)
    assert [(one.level.name, one.method) for one in found] == [
        (level, method) for level in ("", "lacunar", "cortical") for method in ("Base", "FH")
    ]
    lacunar, cortical = found[2].mean, found[4].mean
    assert (lacunar.mean, lacunar.sd, lacunar.n) == pytest.approx((0.4, 0.2, 3))
    assert (lacunar.low, lacunar.high) == pytest.approx((-0.0968276, 0.8968276))
    assert (cortical.mean, cortical.low, cortical.sd) == (0.9, None, None)


def test_undefined_scores_are_left_out_and_counted():
    comparison = compared()
    found = level_means(comparison, "lesion", ["hausdorff_mm"], levels_of(comparison, "lesion"))
    assert (found[0].mean.mean, found[0].mean.n, found[0].mean.undefined) == (4.0, 3, 1)


def test_volumes_agree_within_the_limits_of_the_card():
    comparison = compared()
    found = level_volumes(comparison, "lesion", levels_of(comparison, "lesion"))
    assert [(one.level.name, one.method) for one in found] == [
        ("", "Base"),
        ("", "FH"),
        ("lacunar", "Base"),
        ("lacunar", "FH"),
    ]  # a single cortical case has no limits
    one = found[0].agreement()
    assert (one.mean, one.sd) == pytest.approx((-1, 2.581989), abs=1e-6)
    assert (one.low_limit, one.high_limit) == pytest.approx((-6.060698, 4.060698), abs=1e-6)
    turned = found[0].agreement(truth_first=True)
    assert (turned.mean, turned.low_limit, turned.high_limit) == pytest.approx(
        (1, -4.060698, 6.060698), abs=1e-6
    )
    assert np.array_equal(found[2].prediction_ml, [10, 22, 31])
    old = compared(truth_volumes_ml={}, volumes_ml={})
    assert level_volumes(old, "lesion", levels_of(old, "lesion")) == []
