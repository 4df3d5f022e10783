"""How long a family trains: hand-worked cuts of recipes."""

import pytest

from autoseg import plugins
from autoseg.plan import apply_overrides
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.study.lengths import shorten, shortest_seconds, to_measure, words_of
from autoseg.study.study_json import Measure, StageTime
from autoseg.training.check_recipe import check_recipe

RATS = {"spacings": [(1, 0.117, 0.117)], "shapes": [(18, 256, 256)] * 8, "channels": ("DWI",)}


def measure(plan, iterations, seconds=0.1):
    stages = [
        StageTime(name=s.name, epochs=s.epochs, iterations=iterations, seconds=seconds)
        for s in plan.recipe.stages
    ]
    return Measure(stages=stages, members=plan.recipe.members, start=5, predict=2)


@pytest.fixture
def unet(make_fingerprint):
    """1000 epochs of 250 iterations."""
    return make_plan(make_fingerprint(**RATS), "unet", Budget())


def test_a_recipe_is_cut_to_the_seconds_with_its_schedule(unet):
    found = shorten(unet, measure(unet, 250), 100.0)
    # 100 s of 0.1 s are 1000 iterations, in as many epochs as a schedule by epochs wants at least
    assert found.settings["stages.train.epochs"] == 20
    assert found.settings["stages.train.iterations_per_epoch"] == 50
    assert found.seconds == pytest.approx(100)
    assert found.shortened == ["train: 1000 epochs of 250 iterations to 20 of 50"]
    assert found.settings["validation.every"] == 7  # three validations of 20 epochs


def test_epochs_alone_are_cut_as_long_as_enough_are_left(unet):
    found = shorten(unet, measure(unet, 250), 2500.0)
    assert found.settings["stages.train.epochs"] == 100
    assert "stages.train.iterations_per_epoch" not in found.settings


def test_what_is_short_enough_stays_as_published(unet):
    found = shorten(unet, measure(unet, 250), 1e9)
    assert (found.settings, found.shortened) == ({}, [])
    assert found.seconds == pytest.approx(25000)


def test_an_epoch_that_is_a_pass_over_the_cases_stays_one(make_fingerprint):
    plan = make_plan(make_fingerprint(**RATS), "ratlesnetv2", Budget())
    found = shorten(plan, measure(plan, 5), 30.0, members=1)  # 300 iterations are 60 passes of 5
    assert found.settings["stages.train.epochs"] == 60
    assert "stages.train.iterations_per_epoch" not in found.settings
    assert found.shortened[0] == "members 3 to 1"


def test_the_members_share_the_time(make_fingerprint):
    plan = make_plan(make_fingerprint(**RATS), "ratlesnetv2", Budget())
    found = shorten(plan, measure(plan, 5), 30.0)
    assert found.settings["stages.train.epochs"] == 20
    assert found.seconds == pytest.approx(30)


@pytest.mark.parametrize("name", plugins.names(plugins.PLANNERS))
def test_every_family_can_be_measured_and_cut(name, make_fingerprint):
    plan = make_plan(make_fingerprint(**RATS), name, Budget())
    trainer = plugins.load(plugins.TRAINERS, plan.trainer)
    found = measure(plan, 40)
    for settings in (
        to_measure(plan),
        shorten(plan, found, 30.0, members=1).settings,
        shorten(plan, found, shortest_seconds(found), members=1).settings,
    ):
        cut = apply_overrides(plan, settings)
        check_recipe(cut, trainer)
        assert cut.preprocessing == plan.preprocessing
        assert cut.networks == plan.networks


def test_changes_are_typed_as_set_takes_them():
    assert words_of({"members": 1, "stages.train.snapshots": [3, 5], "x": None}) == [
        "members=1",
        "stages.train.snapshots=[3,5]",
        "x=null",
    ]
