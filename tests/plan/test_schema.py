"""plan.json as a typed schema, and --set."""

import pytest

from autoseg.errors import AutosegError, FaultsError
from autoseg.plan import (
    Inference,
    Named,
    Normalisation,
    Plan,
    Preprocessing,
    Reason,
    Recipe,
    Stage,
    apply_overrides,
    replan,
)


def stage(name="train", **changes):
    parts = {
        "name": name,
        "patch_size": [8, 8, 8],
        "batch_size": 2,
        "epochs": 3,
        "loss": Named(name="dice_ce"),
        "optimiser": Named(name="sgd", arguments={"lr": 0.01}),
        "schedule": Named(name="poly"),
    }
    return Stage(**{**parts, **changes})


def plan(**changes):
    parts = {
        "planner": "unet",
        "trainer": "unet",
        "dataset": "Dataset001_A",
        "fingerprint_hash": "x",
        "channel_names": ["T2"],
        "labels": {"background": 0, "lesion": 1},
        "preprocessing": Preprocessing(spacing_mm=(1, 1, 1), normalisation=[Normalisation()]),
        "networks": {"main": Named(name="unet")},
        "recipe": Recipe(stages=[stage()], inference=Inference(patch_size=[8, 8, 8])),
    }
    return Plan(**{**parts, **changes})


@pytest.mark.parametrize(
    ("path", "value", "get"),
    [
        ("recipe.stages.0.epochs", 7, lambda p: p.recipe.stages[0].epochs),
        ("stages.0.epochs", 7, lambda p: p.recipe.stages[0].epochs),
        ("stages.train.epochs", 7, lambda p: p.recipe.stages[0].epochs),
        ("members", 3, lambda p: p.recipe.members),
        ("seed", 5, lambda p: p.seed),
        ("stages.0.optimiser.arguments.lr", 0.1, lambda p: p.recipe.stages[0].optimiser.arguments["lr"]),
        ("networks.main.arguments.width", 4, lambda p: p.networks["main"].arguments["width"]),
    ],
)
def test_an_override_changes_one_value_and_is_recorded(path, value, get):
    before = plan()
    after = apply_overrides(before, {path: value})
    assert get(after) == value and after.overrides == {path: value}
    assert before == plan()


def test_a_field_of_a_stage_is_changed_in_all_stages():
    stages = [stage(), stage("second", epochs=9)]
    before = plan(recipe=Recipe(stages=stages, inference=Inference(patch_size=[8, 8, 8])))
    after = apply_overrides(before, {"epochs": 2, "optimiser.arguments.lr": 0.5})
    assert [s.epochs for s in after.recipe.stages] == [2, 2]
    assert [s.optimiser.arguments["lr"] for s in after.recipe.stages] == [0.5, 0.5]
    assert after.overrides == {"epochs": 2, "optimiser.arguments.lr": 0.5}
    smaller = apply_overrides(before, {"patch_size": [4, 4, 4]})
    assert smaller.recipe.inference.patch_size == [4, 4, 4]


def test_an_unknown_path_shows_paths_of_this_plan_with_their_values():
    with pytest.raises(AutosegError) as caught:
        apply_overrides(plan(), {"stages.0.optimiser.learning_rate": 7})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "stages.train.optimiser.arguments.lr=0.01" in lines
    with pytest.raises(AutosegError, match=r"\n +seed=12345\n"):
        apply_overrides(plan(), {"sed": 7})
    with pytest.raises(
        AutosegError, match=r"(?s)an empty list.*in this plan there are\n +postprocessing=\[\]\n"
    ):
        apply_overrides(plan(), {"postprocessing.remove_small_components": "off"})


def test_an_option_of_the_planner_is_not_changed_in_a_plan():
    with pytest.raises(
        AutosegError, match="plan_and_preprocess -d Dataset001_A -pl unet --set planner.preset="
    ):
        apply_overrides(plan(), {"planner.preset": "M"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("epochs", "a whole number, at least 1 and at most 1000000"),
        ("stages.0.sampling.foreground_share", "a number, at least 0 and at most 1"),
        ("stages.0.sampling.balance", "voxel or component"),
        ("stages.0.gradient_clip", "a number, above 0 or null"),
        ("stages.0.keep", "true or false or a list of entries, each a whole number"),
        ("stages.0.frozen", "a list of entries, each text"),
        ("fusion.name", "text"),
    ],
)
def test_a_value_of_another_type_is_answered_with_type_and_range(path, expected):
    with pytest.raises(FaultsError) as caught:
        apply_overrides(plan(), {path: {"no": "such"}})
    (fault,) = caught.value.faults
    assert fault.where == path and fault.expected == expected


@pytest.mark.parametrize(
    "path", ["epochs", "stages.train.epochs", "stages.-1.epochs", "recipe.stages.0.epochs"]
)
def test_a_value_that_does_not_fit_is_named_as_it_was_typed(path):
    with pytest.raises(FaultsError) as caught:
        apply_overrides(plan(), {path: "abc"})
    (fault,) = caught.value.faults
    assert (fault.where, fault.found, fault.problem) == (path, "abc", "this value does not fit")
    assert str(caught.value).startswith("plan with --set: 1 value does not fit\n\nsetting ")


def test_whoever_made_a_plan_changes_it_with_a_reason():
    reasons = [Reason(what="recipe.stages.0.epochs", value="3 passes", why="as published")]
    before = plan(reasons=[*reasons, Reason(what="networks.main", value="unet", why="it fits")])
    after = replan(
        before, {"stages.train.iterations_per_epoch": 5, "networks.main.arguments.width": 4}, "short"
    )
    assert after.recipe.stages[0].iterations_per_epoch == 5 and not after.overrides
    assert [reason.why for reason in after.reasons] == [
        "short; else 3 passes",
        "it fits; but arguments.width=4: short",
    ]
    again = replan(after, {"networks.main.arguments.width": 4}, "narrow")
    assert again.reasons == after.reasons


def test_a_reason_of_more_than_what_is_changed_stays():
    """A short plan is not mirrored, but its tiles lie as they do for the reason that they had."""
    before = plan(reasons=[Reason(what="recipe.inference", value="tiles, mirrored", why="as published")])
    assert before.recipe.inference.mirror_axes
    (reason,) = replan(before, {"inference.mirror_axes": []}, "short").reasons
    assert reason.why == "as published; but mirror_axes=none: short"
    axes = list(before.recipe.inference.mirror_axes)
    (same,) = replan(before, {"inference.mirror_axes": axes}, "short").reasons
    assert same.why == "as published"


def test_an_unknown_path_gives_the_nearest_names():
    with pytest.raises(AutosegError, match="did you mean epochs"):
        apply_overrides(plan(), {"stages.0.epoch": 7})
    with pytest.raises(AutosegError, match="(?s)there is no 'stage'.*did you mean stages"):
        apply_overrides(plan(), {"stage.0.epochs": 7})
    with pytest.raises(AutosegError, match="there is no '3'"):
        apply_overrides(plan(), {"stages.3.epochs": 7})


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("stages.0.epochs", 0, "at least 1"),
        ("stages.0.epochs", "many", "a whole number"),
        ("stages.0.sampling.foreground_share", 1.5, "at most 1"),
        ("stages.0.network", "other", "trains network 'other'"),
        ("stages.0.start", "previous", "no previous stage"),
        ("stages.0.snapshots", [9], "snapshots must lie within 1 to 3"),
        ("stages.0.patch_size", [9], "two numbers, three, or none for whole images"),
        ("stages.0.patch_size", [], "whole images come one in a batch, found batch_size 2"),
        ("stages.0.patch_size", [0, 8, 8], "greater than 0"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(path, value, words):
    with pytest.raises(FaultsError, match=words):
        apply_overrides(plan(), {path: value})


def test_a_stage_starts_only_from_an_earlier_one():
    with pytest.raises(ValueError, match="not an earlier stage"):
        Recipe(stages=[stage("a", start="b"), stage("b")], inference=Inference(patch_size=[]))
    with pytest.raises(ValueError, match="unique"):
        Recipe(stages=[stage("a"), stage("a")], inference=Inference(patch_size=[]))


def test_a_plan_survives_its_file():
    assert Plan.model_validate_json(plan().model_dump_json()) == plan()


def test_the_patch_of_the_prediction_follows_that_of_the_stage():
    changed = apply_overrides(plan(), {"stages.0.patch_size": [4, 4, 4]})
    assert changed.recipe.inference.patch_size == [4, 4, 4]
    both = apply_overrides(plan(), {"stages.0.patch_size": [4, 4, 4], "inference.patch_size": [6, 6, 6]})
    assert both.recipe.inference.patch_size == [6, 6, 6]


@pytest.mark.parametrize(
    ("path", "unknown"),
    [("netwoks.main.arguments", "netwoks"), ("networks.main.arguments.new.deep", "new")],
)
def test_only_the_last_part_of_a_path_into_arguments_may_be_new(path, unknown):
    with pytest.raises(AutosegError, match=f"there is no '{unknown}'"):
        apply_overrides(plan(), {path: 1})


@pytest.mark.parametrize(
    ("start", "words"), [("previous", "no previous stage"), ("train", "trains network 'main'")]
)
def test_a_stage_starts_from_a_stage_of_the_same_network(start, words):
    networks = {"main": Named(name="unet"), "second": Named(name="unet")}
    stages = [stage(), stage("other", network="second", start=start)]
    with pytest.raises(ValueError, match=words):
        plan(networks=networks, recipe=Recipe(stages=stages, inference=Inference(patch_size=[])))
    stages = [stage(), stage("other", network="second"), stage("last", start="previous")]
    plan(networks=networks, recipe=Recipe(stages=stages, inference=Inference(patch_size=[])))


@pytest.mark.parametrize("off", ["off", False, None])
def test_a_step_of_the_postprocessing_is_taken_out(off):
    steps = [Named(name="remove_small_components", arguments={"fewer_than_voxels": 9}), Named(name="other")]
    before = plan()
    before.recipe.postprocessing = steps
    after = apply_overrides(before, {"postprocessing.remove_small_components": off})
    assert [step.name for step in after.recipe.postprocessing] == ["other"]
    with pytest.raises(AutosegError, match=r"(?s)there is no 'small'.*remove_small_components"):
        apply_overrides(before, {"postprocessing.small": off})


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 1)])
def test_a_part_that_does_not_exist_cannot_be_left_out(part):
    with pytest.raises(FaultsError, match="leave_out is part k of n"):
        apply_overrides(plan(), {"stages.0.leave_out": part})
