"""The choice among the planners, ``-pl auto``."""

from __future__ import annotations

import pytest

from autoseg import messages, plugins
from autoseg.cli.plan_and_preprocess import build_parser
from autoseg.errors import AutosegError
from autoseg.planners import _unet_settings, unet
from autoseg.plugins.planner import Budget, Match, Planner, Verdict
from autoseg.preparation.choice import ask_all, make_plan


@pytest.fixture
def fingerprint(make_fingerprint):
    return make_fingerprint([(1, 1, 1)], [(60, 80, 70)] * 6)


@pytest.fixture
def install(monkeypatch):
    """Replaces the installed planners by the given ones."""

    def set_planners(**planners):
        def load(group, name):
            found = planners[name]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(plugins, "names", lambda group: sorted(planners))
        monkeypatch.setattr(plugins, "load", load)

    return set_planners


def with_verdict(name: str, verdict: Verdict, *against: str) -> Planner:
    def plan(fingerprint, budget, options):
        return unet.plan(fingerprint, budget, _unet_settings.UNetOptions(preset="M")).model_copy(
            update={"planner": name}
        )

    return Planner(name, "a test", lambda fingerprint: Match(verdict, (f"{name} says so",), against), plan)


def test_every_planners_plan_names_the_orientation_of_the_facts(fingerprint, install):
    install(unet=unet.PLANNER, special=with_verdict("special", Verdict.MADE_FOR_IT))
    for name in ("unet", "special", "auto"):
        # of an earlier autoseg
        assert make_plan(fingerprint, name, Budget()).preprocessing.orientation is None
        measured = fingerprint.model_copy(update={"orientation": "LPS"})
        found = make_plan(measured, name, Budget(), {"stages.0.epochs": 3})
        assert found.preprocessing.orientation == "LPS"
        assert not [reason for reason in found.reasons if reason.what == "preprocessing.orientation"]


def test_takes_unet_where_nothing_else_is_installed(fingerprint, install):
    install(unet=unet.PLANNER)
    found = make_plan(fingerprint, "auto", Budget(), {})
    assert found.planner == "unet"
    assert found.reasons[0].what == "method"
    assert "only installed planner" in found.reasons[0].why


def test_takes_the_best_and_names_all_verdicts(fingerprint, install):
    install(
        unet=unet.PLANNER,
        special=with_verdict("special", Verdict.MADE_FOR_IT),
        other=with_verdict("other", Verdict.CANNOT),
    )
    found = make_plan(fingerprint, "auto", Budget(), {"stages.0.epochs": 3})
    assert found.planner == "special"
    assert found.recipe.stages[0].epochs == 3
    text = found.reasons[0].why
    assert "fits best of 3, made for it: special says so" in text
    assert "unet possible (fits any dataset" in text
    assert "other cannot (other says so)" in text


def test_a_tie_is_decided_by_what_speaks_against_and_then_by_name(fingerprint, install):
    install(b=with_verdict("b", Verdict.FITS), a=with_verdict("a", Verdict.FITS))
    assert make_plan(fingerprint, "auto", Budget(), {}).planner == "a"
    install(b=with_verdict("b", Verdict.FITS), a=with_verdict("a", Verdict.FITS, "two channels"))
    assert make_plan(fingerprint, "auto", Budget(), {}).planner == "b"


@pytest.mark.parametrize(
    ("verdict", "against", "chosen"),
    [
        (Verdict.MADE_FOR_IT, (), "special"),
        (Verdict.FITS, ("two channels", "thin slices"), "special"),
        (Verdict.POSSIBLE, ("two channels",), "unet"),
        (Verdict.POSSIBLE, (), "special"),  # before unet by name alone
        (Verdict.CANNOT, (), "unet"),
    ],
)
def test_the_general_method_comes_after_what_fits_and_before_what_does_not(
    fingerprint, install, verdict, against, chosen
):
    install(unet=unet.PLANNER, special=with_verdict("special", verdict, *against))
    assert list(ask_all(fingerprint))[0] == chosen
    assert make_plan(fingerprint, "auto", Budget(), {}).planner == chosen


def test_verdicts_are_ordered_and_are_words():
    assert [str(verdict) for verdict in sorted(Verdict)] == ["cannot", "possible", "fits", "made for it"]


def test_a_match_says_what_speaks_for_and_against_it():
    found = Match(Verdict.FITS, ("one T2 channel", "thick slices"), ("of mice", "at 7 T"))
    assert str(found) == "fits: one T2 channel, thick slices, but of mice, at 7 T"
    assert str(Match(Verdict.CANNOT, against=("no lesions",))) == "cannot: no lesions"
    assert str(Match(Verdict.POSSIBLE)) == "possible"


def test_a_number_is_no_verdict_and_a_text_no_tuple():
    with pytest.raises(TypeError, match=r"a Verdict, not 0\.9"):
        Match(0.9, ("as before",))
    for faulty in ({"reasons": "small"}, {"against": "large"}):
        with pytest.raises(TypeError, match="tuples of texts"):
            Match(Verdict.FITS, **faulty)


def test_options_reach_the_chosen_planner_and_are_checked_there(fingerprint, install):
    install(unet=unet.PLANNER)
    assert make_plan(fingerprint, "auto", Budget(), {"planner.preset": "M"}).planner_options["preset"] == "M"
    with pytest.raises(AutosegError, match=r"planner 'unet' has no such option[\s\S]*did you mean preset"):
        make_plan(fingerprint, "auto", Budget(), {"planner.presets": "M"})


def test_a_planner_that_does_not_load_is_left_out(fingerprint, install):
    messages.forget_warnings()
    install(unet=unet.PLANNER, broken=AutosegError("does not load", found="ImportError: no module x"))
    assert make_plan(fingerprint, "auto", Budget(), {}).planner == "unet"
    assert any("leaves out the planner 'broken'" in text for text in messages.warning_counts())
    messages.forget_warnings()


def test_nothing_fits(fingerprint, install):
    install(other=with_verdict("other", Verdict.CANNOT))
    with pytest.raises(AutosegError, match=r"no installed planner fits[\s\S]*other: other says so"):
        make_plan(fingerprint, "auto", Budget(), {})


def test_auto_as_installed(fingerprint):
    """The real entry points: at least unet answers."""
    assert make_plan(fingerprint, "auto", Budget(), {}).planner in plugins.names(plugins.PLANNERS)


@pytest.mark.parametrize("answer", [0.9, None, (3, "made for it")])
def test_a_planner_that_answers_something_else_costs_only_itself(fingerprint, install, answer):
    messages.forget_warnings()
    install(unet=unet.PLANNER, other=Planner("other", "a test", lambda _: answer, unet.plan))
    assert list(ask_all(fingerprint)) == ["unet"]
    (text,) = messages.warning_counts()
    assert text.startswith("auto leaves out the planner 'other': TypeError: its match is a ")
    messages.forget_warnings()


def test_auto_is_no_plug_in_but_is_offered(fingerprint):
    assert "auto" not in plugins.names(plugins.PLANNERS)
    with pytest.raises(AutosegError, match=r"(?s)no planner 'aut'.*auto, .*edd_muscle.*did you mean auto"):
        make_plan(fingerprint, "aut", Budget())


def test_the_command_offers_auto_and_all_planners():
    text = " ".join(build_parser().format_help().split())
    assert f"auto, the one that fits best, or {', '.join(plugins.names(plugins.PLANNERS))}" in text


def test_a_planner_whose_match_fails_is_left_out(fingerprint, install):
    def broken(_):
        raise ZeroDivisionError("division by zero")

    messages.forget_warnings()
    install(unet=unet.PLANNER, other=Planner("other", "a test", broken, unet.plan))
    assert make_plan(fingerprint, "auto", Budget()).planner == "unet"
    assert (
        "auto leaves out the planner 'other': ZeroDivisionError: division by zero"
        in messages.warning_counts()
    )
