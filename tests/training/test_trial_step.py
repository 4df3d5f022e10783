"""What is said of a long training before it starts."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "planners"))
from fingerprints import fingerprint

from autoseg import plugins
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.training import trial_step
from autoseg.training.dry_steps import DryStep
from autoseg.training.estimate import Amounts
from autoseg.training.trial_step import StepSeconds, foretell_step, length_words

CPU, SHAPE = torch.device("cpu"), (21, 128, 128)
DATA = fingerprint([[6.0, 1.8, 1.8]], [SHAPE] * 12, channels=("DWI",))


def plan_for(planner="unet", **changes):
    return make_plan(DATA, planner, Budget(), changes)


def amounts(plan) -> Amounts:
    n = len(plan.recipe.stages)
    return Amounts(dict.fromkeys(range(n), 2), 2, 0, 1, dict.fromkeys(range(n), 786432.0), 344064.0)


def test_both_precisions_are_tried_and_the_numbers_of_the_training_stay(monkeypatch):
    seconds = {"float32": 12.0, "bfloat16": 6.0}
    monkeypatch.setattr(
        trial_step, "measure_step", lambda plan, *_: DryStep(seconds[plan.recipe.precision], None, 10.0)
    )
    plan = plan_for()
    before = torch.get_rng_state()
    found = foretell_step(plan, plan.recipe.stages[0], plugins.load(plugins.TRAINERS, "unet"), CPU, SHAPE)
    assert (found.float32, found.bfloat16, found.gain) == (12, 6, 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("planner", ["edd_muscle", "unet"])
def test_a_family_is_tried(planner):
    plan = plan_for(planner, **{"planner.length": "quick"})
    found = foretell_step(plan, plan.recipe.stages[0], plugins.load(plugins.TRAINERS, planner), CPU, SHAPE)
    assert found.float32 > 0 and found.bfloat16 > 0


def test_a_training_of_days_is_said_with_what_makes_it_an_evening(monkeypatch):
    plan, trainer = plan_for(), plugins.load(plugins.TRAINERS, "unet")
    monkeypatch.setattr(trial_step, "foretell_step", lambda *_: StepSeconds(10.0, 4.0))
    first, faster, evening = length_words(plan, amounts(plan), trainer, CPU, SHAPE)
    assert "takes 10 s or more here, and the fold 29 days;" in first  # 1000 x 250 x 10 s
    assert faster == "  in bfloat16 it was 2.5 times as fast: --set precision=bfloat16"
    assert "--set epochs=5" in evening
    chosen = plan_for(precision="bfloat16")
    assert "takes 4 s or more here" in length_words(chosen, amounts(chosen), trainer, CPU, SHAPE)[0]


def test_nothing_is_tried_where_a_training_is_short_or_on_a_card(monkeypatch):
    monkeypatch.setattr(trial_step, "foretell_step", lambda *_: pytest.fail("tried"))
    trainer = plugins.load(plugins.TRAINERS, "unet")
    short = plan_for(**{"epochs": 2, "iterations_per_epoch": 10})
    assert length_words(short, amounts(short), trainer, CPU, SHAPE) == []
    assert length_words(plan_for(), amounts(plan_for()), trainer, torch.device("cuda"), SHAPE) == []


def test_a_day_is_not_worth_a_word(monkeypatch):
    monkeypatch.setattr(trial_step, "foretell_step", lambda *_: StepSeconds(0.1, 0.04))
    plan = plan_for()
    assert length_words(plan, amounts(plan), plugins.load(plugins.TRAINERS, "unet"), CPU, SHAPE) == []
