"""Who takes part, who goes on and what is chosen, on scores worked by hand."""

import numpy as np
import pytest

from autoseg.comparison.comparison_schema import Comparison
from autoseg.comparison.ranking import compare_metric
from autoseg.errors import AutosegError
from autoseg.plugins.planner import Match, Verdict
from autoseg.preparation.proposals import PlannedFamily
from autoseg.study import decisions
from autoseg.study.phases import choose
from autoseg.study.study_json import Contender, Measure, StageTime

RANKED = [
    PlannedFamily("made", Match(Verdict.MADE_FOR_IT)),
    PlannedFamily("fits", Match(Verdict.FITS)),
    PlannedFamily("unet", Match(Verdict.POSSIBLE)),
    PlannedFamily("other", Match(Verdict.POSSIBLE)),
    PlannedFamily("planless", Match(Verdict.FITS), problem="the patch is too small (2)"),
    PlannedFamily("never", Match(Verdict.CANNOT, against=("no channel",))),
]


def comparison(dice, lesion_f1=None):
    """Of one class; the scores of each method for the same cases."""
    scores = {
        "dice": dice,
        "lesion_f1": lesion_f1 or dict.fromkeys(dice, np.full(len(next(iter(dice.values()))), 0.5)),
    }
    found = {
        name: compare_metric(
            {"lesion": {k: np.asarray(v, float) for k, v in of.items()}}, "higher", "permutation"
        )
        for name, of in scores.items()
    }
    return Comparison.model_construct(
        classes={"lesion": {name: result["lesion"] for name, result in found.items()}},
        cases=[str(i) for i in range(len(next(iter(dice.values()))))],
    )


def measure(cost):
    """A family of which a fold as published takes so many seconds."""
    return Measure(
        stages=[StageTime(name="s", epochs=1, iterations=1, seconds=cost)], members=1, start=0, predict=0
    )


GOOD = np.array([0.80, 0.82, 0.84, 0.86, 0.88, 0.81, 0.83, 0.85])
NOISE = np.array([0.01, -0.012, 0.02, -0.018, 0.011, -0.009, 0.013, -0.01])


# ---------------------------------------------------------------------------------------------------- who takes part


def names_of(ranked, wanted):
    return [one.family for one in decisions.proposed(ranked, wanted)]


def test_those_that_fit_are_proposed_and_always_the_general_one():
    assert names_of(RANKED, ["auto"]) == ["made", "fits", "unet"]
    assert names_of(RANKED, ["all"]) == ["made", "fits", "unet", "other"]
    assert names_of(RANKED, ["other"]) == ["other", "unet"]


def weighed(name, cost):
    """A family whose score is 0.95 without this."""
    return PlannedFamily(name, Match.weighed(("MR",), [("other data", cost)]))


def test_where_auto_is_unsure_the_families_near_the_first_take_part():
    """The first fits with 0.60; 0.50 is as near as may be, 0.49 is not."""
    ranked = [weighed("first", 0.35), weighed("near", 0.45), weighed("far", 0.46), weighed("unet", 0.75)]
    found = decisions.proposed(ranked, ["auto"])
    assert [(one.family, one.score) for one in found] == [("first", 0.6), ("near", 0.5), ("unet", 0.2)]
    assert found[1].why.endswith("its score does not tell it apart from first (0.50 and 0.60)")
    assert "apart" not in found[0].why + found[2].why


def test_a_family_without_a_plan_is_not_what_others_are_near_to():
    planless = PlannedFamily("broken", Match(Verdict.FITS, costs=(0.35,), against=("x",)), problem="no patch")
    ranked = [planless, weighed("near", 0.45), weighed("unet", 0.75)]
    assert names_of(ranked, ["auto"]) == ["near", "unet"]  # the first of those that can run
    assert names_of([planless, weighed("unet", 0.45), weighed("far", 0.75)], ["auto"]) == ["unet"]


def test_a_family_that_cannot_run_is_left_out_by_name_and_said(caplog):
    assert names_of(RANKED, ["never", "planless", "made"]) == ["made", "unet"]
    assert "never takes no part: no channel" in caplog.text
    assert "planless takes no part: the patch is too small (2)" in caplog.text


def test_nothing_that_can_run_is_an_error():
    with pytest.raises(AutosegError, match="no family can run"):
        decisions.proposed(RANKED[-1:], ["auto"])


# ------------------------------------------------------------------------------------------------------ who goes on


def test_what_is_shown_to_be_worse_does_not_go_on():
    found = comparison({"a": GOOD, "b": GOOD - 0.3})
    rows = decisions.standings(found, {"a": measure(100), "b": measure(1)}, {"a": 9.0, "b": 9.5}, {}, 2)
    assert [(row.family, row.goes_on) for row in rows] == [("a", True), ("b", False)]
    assert rows[1].why == "shown to be worse than a: dice by 0.300, p 0.0078"  # 2 of 256 sign vectors
    assert rows[0].dice == pytest.approx(0.83625)


def test_without_a_difference_the_cheaper_goes_on():
    found = comparison({"a": GOOD + 0.001, "b": GOOD + NOISE})
    measures = {"a": measure(7200), "b": measure(60)}
    rows = {row.family: row for row in decisions.standings(found, measures, {}, {}, 1)}
    assert not rows["a"].goes_on and rows["b"].goes_on
    assert rows["b"].why.startswith("no difference from a is shown, and it is cheaper: 60 s instead of 2.0 h")
    assert decisions.differences_said(found)[0].startswith(
        "lesion, dice: no difference is shown between a and b"
    )


def test_two_may_go_on_the_best_mean_and_the_cheapest_of_its_equals():
    found = comparison({"a": GOOD, "b": GOOD - 0.002 + NOISE, "c": GOOD - 0.004 + NOISE})
    measures = {"a": measure(50), "b": measure(90), "c": measure(10)}
    rows = decisions.standings(found, measures, {}, {}, 2)
    assert [row.family for row in rows if row.goes_on] == ["a", "c"]


def test_one_that_is_worse_in_dice_and_better_in_lesions_is_not_worse():
    found = comparison({"a": GOOD, "b": GOOD - 0.1}, {"a": GOOD - 0.4, "b": GOOD})
    assert decisions.shown_worse(found, "b", "a") == ""


def test_so_few_cases_show_nothing():
    found = comparison({"a": GOOD[:3], "b": GOOD[:3] - 0.5})
    assert decisions.shown_worse(found, "b", "a") == ""


def test_a_family_that_failed_has_its_error_and_the_rest_goes_on():
    rows = decisions.standings(
        None, {"a": measure(1), "b": measure(2)}, {"a": 1.0}, {"b": "error: no memory"}, 2
    )
    assert [(row.family, row.goes_on, row.why) for row in rows] == [
        ("a", True, "the only one"),
        ("b", False, "error: no memory"),
    ]


# ------------------------------------------------------------------------------------------------------ the lengths


def test_the_rounds_share_the_time():
    measures = {name: Measure(stages=[], members=1, start=5, predict=5) for name in "abcd"}
    # 4 + 2 trainings of 10 s beside; 4 t + 2 * 2 t of the rest
    seconds = decisions.round_seconds(measures, 1, 860.0, devices=1)
    assert seconds == pytest.approx((860 - 60) / 8)
    # two devices: 2 waves, then 1
    assert decisions.round_seconds(measures, 1, 430.0, devices=2) == pytest.approx((430 - 30) / 4)
    assert [decisions.n_rounds(n) for n in (1, 2, 3, 6)] == [0, 1, 2, 2]
    assert [decisions.kept_after(1, n) for n in (3, 4, 6)] == [2, 2, 3]


def test_a_small_budget_is_refused_with_the_smallest_that_works():
    with pytest.raises(AutosegError) as caught:
        decisions.refuse_small(0.1, 400.0, "all of it")
    assert "at least --hours 0.12" in str(caught.value)
    decisions.refuse_small(0.12, 400.0, "all of it")


# ------------------------------------------------------------------------------------------------------- the choice


def methods(**dice):
    return [
        Contender(
            name=name, families=name.split("_and_"), dice=value, seconds=100.0 * (1 + name.count("_and_"))
        )
        for name, value in dice.items()
    ]


def test_an_ensemble_is_chosen_where_it_is_shown_to_be_better():
    found = comparison({"a": GOOD - 0.1, "b": GOOD - 0.12, "a_and_b": GOOD})
    chosen = choose(methods(a=0.736, b=0.716, a_and_b=0.836), found)
    assert chosen.method == "a_and_b"
    assert [m.name for m in chosen.methods] == ["a_and_b", "a", "b"]
    assert chosen.methods[1].why.startswith("shown to be worse than a_and_b: dice by 0.100")


def test_an_ensemble_that_shows_no_gain_gives_way_to_one_model():
    found = comparison({"a": GOOD, "b": GOOD - 0.2, "a_and_b": GOOD + 0.001 + NOISE})
    chosen = choose(methods(a=0.836, b=0.636, a_and_b=0.838), found)
    assert chosen.method == "a"
    assert "cheaper" in chosen.methods[0].why


def test_one_method_is_chosen_without_a_comparison():
    assert choose(methods(a=0.5), None).method == "a"
