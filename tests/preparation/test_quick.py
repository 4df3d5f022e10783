"""``planner.length=quick``: a short plan of every family, which says that it is one."""

import pytest

from autoseg import plugins
from autoseg.errors import FaultsError
from autoseg.plan import Inference, Named, Recipe, hash_plan
from autoseg.plan.table import format_plan
from autoseg.planners import unet
from autoseg.plugins.planner import Budget, Match, Planner, Verdict
from autoseg.preparation.choice import make_plan
from autoseg.preparation.quick import BATCHES, CASES, EPOCHS, make_quick

RATS = {"spacings": [(1, 0.117, 0.117)], "shapes": [(18, 256, 256)] * 8, "channels": ("DWI",)}


@pytest.fixture
def rats(make_fingerprint):
    """Which every family can plan for."""
    return make_fingerprint(**RATS)


@pytest.mark.parametrize("name", plugins.names(plugins.PLANNERS))
def test_every_planner_makes_a_quick_plan_and_the_full_one_stays(name, rats):
    full = make_plan(rats, name, Budget())
    assert hash_plan(full) == hash_plan(make_plan(rats, name, Budget(), {"planner.length": "full"}))
    assert not full.quick and "length" not in full.planner_options
    quick = make_plan(rats, name, Budget(), {"planner.length": "quick"})
    assert quick.quick and quick.planner_options["length"] == "quick"
    assert quick.recipe.members == 1 and quick.recipe.validation.cases <= CASES
    assert not quick.recipe.inference.mirror_axes
    for stage, whole in zip(quick.recipe.stages, full.recipe.stages, strict=True):
        assert stage.epochs <= EPOCHS < whole.epochs
        assert stage.sampling.name == "candidates" or stage.iterations_per_epoch <= BATCHES
    assert quick.networks != full.networks
    assert "quick plan, for trying out" in format_plan(quick)
    assert make_plan(rats, name, Budget(), {"length": "quick"}) == quick


def test_auto_takes_the_option_too_and_what_the_user_sets_goes_before(rats):
    found = make_plan(rats, "auto", Budget(), {"length": "quick", "epochs": 99, "members": 2})
    assert found.quick and found.recipe.members == 2
    assert [stage.epochs for stage in found.recipe.stages] == [99] * len(found.recipe.stages)


def test_a_mistyped_length_is_answered_with_those_that_exist(rats):
    with pytest.raises(FaultsError) as caught:
        make_plan(rats, "unet", Budget(), {"planner.length": "fast"})
    (fault,) = caught.value.faults
    assert (fault.where, fault.found, fault.expected) == ("planner.length", "fast", "full or quick")
    assert "setting  " in str(caught.value) and "Input should" not in str(caught.value)


def test_a_planner_that_knows_nothing_of_it_is_shortened(rats, monkeypatch):
    def plan(fingerprint, budget, options):
        return unet.plan(fingerprint, Budget(), unet.UNetOptions())

    other = Planner("other", "a test", lambda _: Match(Verdict.POSSIBLE), plan)
    monkeypatch.setattr(plugins, "names", lambda group: ["other"])
    monkeypatch.setattr(plugins, "load", lambda group, name: other)
    found = make_plan(rats, "other", Budget(), {"planner.length": "quick"})
    (stage,) = found.recipe.stages
    assert (stage.epochs, stage.iterations_per_epoch, found.recipe.validation.every) == (30, 20, 10)
    assert stage.optimiser.name == "sgd"


def test_snapshots_keep_their_place_and_whole_passes_stay_whole(rats):
    full = make_plan(rats, "unet", Budget())
    stage = full.recipe.stages[0].model_copy(
        update={"epochs": 300, "snapshots": [2, 100, 300], "save_every": 100, "iterations_per_epoch": None}
    )
    recipe = Recipe(stages=[stage], inference=Inference(patch_size=[]), fusion=Named(name="majority"))
    quick = make_quick(full.model_copy(update={"recipe": recipe})).recipe.stages[0]
    assert quick.snapshots == [1, 10, 30] and quick.save_every == 10 and quick.iterations_per_epoch is None


def test_what_the_user_chose_of_a_family_stays(rats):
    options = {"planner.length": "quick", "planner.width": 16, "planner.batch_size": 64}
    found = make_plan(rats, "edd_muscle", Budget(), options)
    assert found.networks["main"].arguments["width"] == 16 and found.recipe.stages[0].batch_size == 64
