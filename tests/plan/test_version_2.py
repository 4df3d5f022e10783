"""What version 2 of plan.json added: old plans and their hashes, new words, what contradicts itself."""

import json

import pytest

from autoseg.errors import AutosegError
from autoseg.files import hash_json, validate
from autoseg.plan import Plan, apply_overrides, hash_plan, is_hash_of, without_defaults
from autoseg.plan.identity import as_version_1


@pytest.fixture
def plan(model_folder):
    return model_folder.make_plan(channels=("ADC", "MTT", "TTP"))


def test_a_plan_of_version_1_is_read_and_keeps_its_hash(plan):
    old = as_version_1(plan)
    assert old["version"] == 1 and "context" not in old["recipe"]["stages"][0]
    assert "halo" not in old["recipe"]["inference"]
    assert "mask" not in old["preprocessing"] and "fit" not in json.dumps(old)
    read = validate(old, Plan, where="plan.json")
    assert read == plan and read.version == 2
    assert is_hash_of(hash_json(old), plan) and is_hash_of(hash_plan(plan), plan)
    assert not is_hash_of("0" * 64, plan)


def test_what_has_its_default_is_no_part_of_the_hash(plan):
    content = without_defaults(plan)
    assert "version" not in content and "gradient_clip" not in content["recipe"]["stages"][0]
    written = plan.model_dump(mode="json")
    for name in ("context", "channels", "optimiser_state", "snapshots", "save_every"):
        del written["recipe"]["stages"][0][name]
    assert hash_plan(validate(written, Plan, where="")) == hash_plan(plan)
    changed = apply_overrides(plan, {"stages.0.context": [1, 1, 1]})
    assert hash_plan(changed) != hash_plan(plan)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stages.0.channels", ["MTT", "ADC"]),
        ("stages.0.context", [8, 8, 8]),
        ("stages.0.start", {"model": "unet__other", "stage": "train", "fold": "same"}),
        ("stages.0.augmentation.share", 0.5),
        ("stages.0.augmentation.transforms", [{"name": "quarter_turns"}]),
        ("inference.tiles", "centre"),
        ("inference.members", [0]),
        ("validation.samples", 100),
        ("validation.sample_size", [1, 1, 1]),
        ("stages.0.save_every", 2),
        ("stages.0.sampling.clones", {}),
        ("stages.0.sampling.clones", {"number": 2, "noise": "correlated", "drawn": "each_epoch"}),
        ("stages.0.leave_out_in", "two_part_folds"),
        ("stages.0.keep", [3]),
        ("inference", {"patch_size": [8, 8, 8], "tiles": "chunks", "halo": [2, 0, 0]}),
        ("inference.patch_size", [8, "whole", "whole"]),
        ("preprocessing.orientation", "RAS"),
        ("preprocessing.may_be_missing", ["TTP"]),
        ("preprocessing.mask", {"channel": "TTP", "dilation": 1}),
        ("preprocessing.normalisation.0", {"scheme": "fixed", "spread": "mean_absolute_deviation"}),
        ("preprocessing.normalisation.0.divide_by_mode", 16),
        ("postprocessing", [{"name": "threshold", "fit": "validation"}]),
        ("postprocessing", [{"name": "keep_largest_component", "apply": False}]),
    ],
)
def test_each_new_word_is_taken_and_survives_a_file(plan, path, value):
    changed = apply_overrides(plan, {path: value})
    again = Plan.model_validate_json(changed.model_dump_json())
    assert again == changed and hash_plan(again) == hash_plan(changed) != hash_plan(plan)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("stages.0.channels", ["T1"], "stage 'train' names channel 'T1', known: ADC, MTT, TTP"),
        ("stages.0.context", [8, 8], "context has one number for each axis of the patch"),
        ("stages.0.context", [-1, 0, 0], "at least 0"),
        ("stages.0.optimiser_state", "previous", "needs a start from an earlier stage"),
        ("stages.0.patch_size", [8, "whole", 8], "whole images come one in a batch"),
        ("stages.0.patch_size", [8, "all", 8], "'whole'"),
        ("stages.0.augmentation.share", 1.5, "at most 1"),
        ("inference", {"patch_size": [], "tiles": "centre"}, "tiles 'centre' needs a patch_size"),
        ("inference.context", [1], "context has one number for each axis of the patch"),
        ("preprocessing.orientation", "LRS", "one letter each of L or R, P or A, and S or I"),
        ("preprocessing.mask", {}, "a mask comes from a channel or from a folder, one of them"),
        ("preprocessing.mask", {"channel": "T1"}, "preprocessing.mask names channel 'T1'"),
        ("preprocessing.normalisation.0.inside_mask", True, "inside_mask needs preprocessing.mask"),
        ("preprocessing.normalisation.0.factor", 0, "above 0"),
        ("preprocessing.normalisation.0.scheme", "zscor", "zscore"),
        ("postprocessing", [{"name": "threshold", "fit": "test"}], "validation, held_back or train"),
    ],
)
def test_what_contradicts_itself_is_refused(plan, path, value, words):
    with pytest.raises(AutosegError) as error:
        apply_overrides(plan, {path: value})
    assert words in str(error.value)


def test_the_stages_of_a_network_see_the_same(plan):
    stages = [plan.recipe.stages[0].model_dump(), {**plan.recipe.stages[0].model_dump(), "name": "second"}]
    stages[1]["channels"] = ["MTT"]
    with pytest.raises(AutosegError, match="train one network with other channels or context"):
        apply_overrides(plan, {"stages": stages})
    stages[0]["channels"] = ["MTT"]
    assert apply_overrides(plan, {"stages": stages}).channels_of("main") == (1,)
    assert plan.channels_of("main") == (0, 1, 2)


def test_what_else_could_be_planned_is_no_part_of_the_hash(plan):
    from autoseg.plan import ForetoldTime, Proposals

    time = ForetoldTime(device="cpu", step_seconds={"train": 1.0}, fold_seconds=60.0)
    more = plan.model_copy(update={"proposals": Proposals(doubts=["who knows"], time=time)})
    assert hash_plan(more) == hash_plan(plan)
    assert validate(more.model_dump(mode="json"), Plan, where="") == more
