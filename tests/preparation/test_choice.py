"""The choice among the planners, ``-pl auto``."""

from __future__ import annotations

import pytest

from autoseg import messages, plugins
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
