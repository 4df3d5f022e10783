"""Figures of a comparison by groups of cases: the numbers behind them, and that every mark is where it belongs."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from reports import compared

from autoseg.report import bland_altman, method_charts
from autoseg.report.drawing import PAPER, folded


def drawn(panel):
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    panel.draw(axis, PAPER)
    return axis


def places(axis):
    return [tuple(map(float, dot.get_offsets()[0])) for dot in axis.collections]


def test_a_panel_for_each_metric_and_a_mark_for_each_method_and_level():
    (chart,) = method_charts.means_by_level(compared())
    assert chart.name == "means_1" and "Student's t" in chart.caption and "level of subtype" in chart.caption
    assert [panel.title for panel in chart.panels] == ["Dice", "Hausdorff, mm"]
    axis = drawn(chart.panels[0])
    x, y = zip(*places(axis), strict=True)
    assert x == pytest.approx((-0.1, 0.1, 0.9, 1.1, 1.9, 2.1))
    assert y == pytest.approx((0.525, 0.55, 0.4, 0.5, 0.9, 0.7))
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [
        "all cases\nn = 4",
        "lacunar\nn = 3",
        "cortical\nn = 1",
    ]
    (legend,) = axis.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Base", "FH"]
    assert "lacunar: Base 0.400 [-0.097, 0.897], FH 0.500" in chart.panels[0].alt


def test_bars_end_at_their_interval_and_axes_at_what_cases_reach():
    (chart,) = method_charts.means_by_level(compared())
    axis = drawn(chart.panels[0])
    bars = [
        line.get_ydata() for line in axis.lines if np.ptp(line.get_xdata()) == 0 and line.get_xdata()[0] < 1
    ]
    assert any(np.allclose(bar, (-0.0968276, 0.8968276), atol=1e-6) for bar in bars)
    assert axis.get_ylim() == (-0.03, 1.03)
    low, high = drawn(chart.panels[1]).get_ylim()  # scores from 2 to 5 mm
    assert 1.8 < low < 2 and 5 < high < 5.2


def test_undefined_scores_show_in_n():
    (chart,) = method_charts.means_by_level(compared())
    ticks = [tick.get_text() for tick in drawn(chart.panels[1]).get_xticklabels()]
    assert ticks == ["all cases\nn = 3 to 4", "lacunar\nn = 2 to 3", "cortical\nn = 1"]


def test_without_groups_all_cases_stand_alone():
    (chart,) = method_charts.means_by_level(compared(strata=[]))
    assert chart.name == "means" and len(places(drawn(chart.panels[0]))) == 2


def test_too_many_panels_leave_the_main_metrics():
    comparison = compared()
    many = {f"m{i}": comparison.metrics["dice"] for i in range(13)}
    assert method_charts.shown_metrics(comparison) == ["dice", "hausdorff_mm"]
    assert method_charts.shown_metrics(compared(metrics=many)) == ["dice"]


def test_the_table_of_means_holds_every_metric_in_full():
    records = method_charts.mean_records(compared())
    rows = [dict(zip(records.header, row, strict=True)) for row in records.rows]
    assert len(rows) == 2 * 3 * 2
    row = next(r for r in rows if (r["metric"], r["level"], r["method"]) == ("hausdorff_mm", "", "Base"))
    assert (row["mean"], row["sd"], row["n"], row["undefined"], row["unit"]) == (4.0, 1.0, 3, 1, "mm")


def test_bland_altman_of_all_cases_and_of_each_level():
    every, lacunar = bland_altman.of_methods(compared())
    assert (every.name, lacunar.name) == ("bland_altman", "bland_altman_level_1")
    assert [panel.title for panel in every.panels] == ["Base", "FH"]
    assert [panel.title for panel in lacunar.panels] == ["Base, lacunar", "FH, lacunar"]
    assert every.caption.startswith("All cases (4 cases). ") and "(3 cases)" in lacunar.caption
    assert "mean −1.000 ml, limits of agreement −6.061 to 4.061 ml, n = 4" in every.panels[0].alt
    assert drawn(every.panels[0]).get_ylabel() == "prediction − truth, ml"


def test_truth_minus_prediction_turns_every_sign():
    """x is the mean of both volumes, y their difference, for each case."""
    every = bland_altman.of_methods(compared(), "gt_minus_pred")[0]
    assert "mean 1.000 ml, limits of agreement −4.061 to 6.061 ml" in every.panels[0].alt
    assert "true minus predicted" in every.caption
    axis = drawn(every.panels[0])
    dots = next(c for c in axis.collections if len(c.get_offsets()) == 4).get_offsets()
    assert dots.tolist() == [[11, 2], [21, -2], [33, 4], [5, 0]]
    assert axis.get_ylabel() == "truth − prediction, ml"
    records = bland_altman.volume_records(compared(), "gt_minus_pred")
    row = dict(zip(records.header, records.rows[0], strict=True))
    assert (row["mean_ml"], row["low_ml"], row["high_ml"]) == pytest.approx(
        (1, -4.060698, 6.060698), abs=1e-6
    )
    assert row["difference"] == "gt_minus_pred"


def test_names_of_groups_break_where_words_do():
    assert folded("big cortical/main artery", 11) == "big\ncortical/\nmain artery"
    assert folded("lacunar/subcortical", 11) == "lacunar/\nsubcortical"
    assert folded("a_very_long_name", 8) == "a_very_\nlong_\nname"
