"""The experiments E0 to E5 of the planner ``deepmedic``: the study's table, and what is refused when planning."""

from __future__ import annotations

import pytest
import torch

from autoseg.bundle.networks import build_network
from autoseg.errors import AutosegError
from autoseg.plan import ModelStart, hash_plan
from autoseg.planners._deepmedic_settings import DeepMedicOptions
from autoseg.planners.deepmedic import plan
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.trainers.deepmedic import TRAINER
from autoseg.training import schedules
from autoseg.training.check_recipe import check_recipe
from autoseg.training.freezing import trained_parameters

MAPS = ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")
ISLES = {"spacings": [(6.5, 1.2, 1.2)], "shapes": [(19, 192, 192)] * 9, "channels": MAPS}


@pytest.fixture
def isles(make_fingerprint):
    return make_fingerprint(**ISLES)


def planned(fingerprint, quick=False, **settings):
    return plan(fingerprint, Budget(8.0, quick), DeepMedicOptions(**settings))


def stage_of(fingerprint, **settings):
    return planned(fingerprint, **settings).recipe.stages[0]


def trained(found) -> int:
    with torch.device("meta"):
        network = build_network(found, "main", TRAINER).module
    return sum(p.numel() for p in trained_parameters(network, found.recipe.stages[0]))


@pytest.mark.parametrize(
    ("experiment", "lr", "count", "third", "clones", "from_scratch"),
    [
        ("E0", 1e-3, 1_051_088, "rCBF", False, True),
        ("E1", 1e-3, 1_051_088, "rCBF", True, True),
        ("E2", 5e-4, 429_002, "rCBF", True, False),
        ("E3", 1e-3, 429_002, "rCBV", True, False),
        ("E4", 1e-3, 845_822, "rCBV", True, False),
        ("E5", 1e-3, 1_051_088, "rCBV", True, False),
    ],
)
def test_the_table_of_the_study(isles, experiment, lr, count, third, clones, from_scratch):
    found = planned(isles, experiment=experiment)
    stage = found.recipe.stages[0]
    assert stage.optimiser.arguments["lr"] == lr and trained(found) == count
    assert stage.channels == ["ADC", "MTT", third]
    assert (stage.sampling.clones is not None and stage.sampling.clones.number == 1) is clones
    assert (stage.start == "scratch") is from_scratch and stage.optimiser_state == "fresh"
    if not from_scratch:
        assert stage.start == ModelStart(options=[{"experiment": "E1"}])
    errors = stage.sampling.weights is not None and stage.sampling.weights.errors_of == "start"
    assert errors is (experiment == "E2")
    assert (stage.epochs, stage.batch_size, stage.iterations_per_epoch) == (35, 24, 820)
    check_recipe(planned(isles, quick=True, experiment=experiment), TRAINER)


@pytest.mark.parametrize(("schedule", "last"), [("text", 1e-4), ("software", 5e-8)])
def test_the_rate_of_e2_ends_where_text_and_software_say(isles, schedule, last):
    stage = stage_of(isles, experiment="E2", schedule=schedule)
    settings = schedules.REGISTRY.build(
        stage.schedule.name, epochs=35, trainer=TRAINER, **stage.schedule.arguments
    )
    assert 5e-4 * settings(35)["lr_factor"] == pytest.approx(last)


def test_e2_as_it_was_run_has_no_error_maps(isles):
    found = planned(isles, experiment="E2", error_maps="off")
    assert found.recipe.stages[0].sampling.weights is None
    why = next(r.why for r in found.reasons if r.what == "recipe.stages.0.sampling")
    assert "as the study's software ran E2, without the error maps" in why
    never = next(
        r.why for r in planned(isles, experiment="E2").reasons if r.what == "recipe.stages.0.sampling"
    )
    assert "its own models were never trained so" in never
    start = found.recipe.stages[0].start
    assert start.options == [
        {"experiment": "E1", "error_maps": True}
    ]  # of E2 alone, not of what it starts from


def test_best_is_chosen_among_the_experiments_before(isles):
    names = [
        [entry["experiment"] for entry in stage_of(isles, experiment=e, start_from="best").start.options]
        for e in ("E2", "E4")
    ]
    assert names == [["E0", "E1"], ["E0", "E2", "E3", "E1"]]  # the last one is trained where none is there


def test_the_plan_of_e0_is_that_of_before(isles):
    """Options that came later are recorded only where they are set, and a recipe without them has its old hash."""
    assert "experiment" not in planned(isles).planner_options
    assert hash_plan(planned(isles)) == hash_plan(planned(isles, experiment="E0"))
    assert planned(isles, experiment="E3").planner_options["experiment"] == "E3"


def test_layers_are_frozen_by_number(isles):
    assert stage_of(isles, experiment="E5", frozen_layers=[2, 1]).frozen == [
        "normal.layer1.*",
        "normal.layer2.*",
        "low.*.layer1.*",
        "low.*.layer2.*",
    ]
    assert trained(planned(isles, experiment="E3", frozen_layers=[])) == 1_051_088


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"experiment": "E4", "frozen_layers": [1, 9]}, "layers that do not exist.*found: +9.*from 1 to 8"),
        ({"experiment": "E3", "channels": ["ADC", "rCBV"]}, "E3 has no map to put.*ADC, rCBV"),
        ({"experiment": "E3", "other_map": "MTT"}, "E3 has no map to put.*other map: MTT"),
        ({"experiment": "E3", "other_map": "CTP"}, "planner.other_map names a channel that is not there"),
    ],
)
def test_what_an_experiment_cannot_be_is_refused_when_planning(isles, settings, words):
    with pytest.raises(AutosegError, match=f"(?s){words}"):
        planned(isles, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"experiment": "E6"}, "E0, E1, E2"),
        ({"experiment": "E1", "start_from": "best"}, "E1 starts from scratch"),
        ({"error_maps": False}, "error_maps is of E2, found experiment=E0"),
        ({"experiment": "E2", "other_map": "Tmax"}, "other_map is of E3, E4 and E5"),
    ],
)
def test_nothing_is_set_in_vain(isles, settings, words):
    options = {f"planner.{name}": value for name, value in settings.items()}
    with pytest.raises(AutosegError, match=words):
        make_plan(isles, "deepmedic", Budget(8.0), options)
