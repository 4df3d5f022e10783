"""What is refused before a training touches anything."""

import json
import shutil
from dataclasses import replace

import pytest
import runs
import small
import torch
from runs import fold

from autoseg import plugins
from autoseg.bundle import weights
from autoseg.cli import train
from autoseg.errors import AutosegError
from autoseg.plan import Augmentation, Clones, Named, Sampling, Stage, apply_overrides
from autoseg.plugins.parts import FusionPart, SourcePart, StepPart
from autoseg.plugins.planner import Budget
from autoseg.plugins.trainer import Trainer
from autoseg.preparation.choice import make_plan
from autoseg.trainers.unet import TRAINER as UNET
from autoseg.training import check_recipe, freezing
from autoseg.training.sources import source_part


def model(root):
    return fold(root).parent


def plan_path(root):
    return root / "preprocessed" / small.NAME / "unet" / "plan.json"


def contents(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "train.log"
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (lambda root: shutil.rmtree(plan_path(root).parent / "store"), [], "missing or stale"),
        (lambda root: shutil.rmtree(root / "raw" / small.NAME / "labelsTr"), [], "labelsTr"),
        (lambda root: None, ["--set", "stages.0.loss.name=dice_cee"], "did you mean dice_ce"),
        (lambda root: None, ["--set", 'stages.0.frozen=["encodr.*"]'], "fits no parameter"),
        (lambda root: None, ["--set", "preprocessing.image_order=1"], "a training cannot change how"),
        (lambda root: None, ["--set", "fusion.name=mean_logit"], "did you mean mean_logits"),
        (
            lambda root: None,
            ["--set", "stages.0.patience=3", "validation.cases=0"],
            "no validation that could",
        ),
    ],
)
def test_a_refused_overwrite_leaves_the_result_as_it_was(damage, options, words, trained, capfd):
    damage(trained)
    before = contents(model(trained))
    assert train.main(["1", "0", "-device", "cpu", "--overwrite", *options]) == 1
    assert words in capfd.readouterr().err
    assert contents(model(trained)) == before


def test_continuing_and_overwriting_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["1", "0", "--c", "--overwrite"])
    assert caught.value.code == 2 and "not allowed with" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fold_that_does_not_exist_leaves_no_folder(root, capfd):
    assert train.main(["1", "9", "-device", "cpu"]) == 1
    assert "there is no fold 9" in capfd.readouterr().err
    assert not model(root).exists()


@pytest.mark.slow
def test_a_mistake_in_the_last_stage_is_found_at_the_start(root, capfd):
    content = json.loads(plan_path(root).read_text())
    second = {**json.loads(json.dumps(content["recipe"]["stages"][0])), "name": "second", "start": "previous"}
    second["schedule"]["name"] = "polly"
    content["recipe"]["stages"].append(second)
    plan_path(root).write_text(json.dumps(content))
    assert train.main(["1", "0", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "did you mean poly" in text and "epoch" not in text


@pytest.mark.slow
def test_another_fold_that_was_only_begun_keeps_the_models_plan(root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        runs.stop_after(patch, 2)  # before any weights are kept
        assert train.main(["1", "0", "-device", "cpu"]) == 143
    assert train.main(["1", "1", "-device", "cpu", "--set", "seed=9"]) == 1
    assert "the model's other folds were trained by another plan" in capfd.readouterr().err
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0


def network_and_stage(frozen):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    part = {"name": "x"}
    stage = Stage(
        name="s",
        patch_size=[2, 2],
        batch_size=1,
        epochs=1,
        loss=part,
        optimiser=part,
        schedule=part,
        frozen=frozen,
    )
    return network, stage


def test_what_is_frozen_does_not_train():
    network, stage = network_and_stage(["0.*"])
    assert len(freezing.trained_parameters(network, stage)) == 2
    assert not network[0].weight.requires_grad and network[1].weight.requires_grad


@pytest.mark.parametrize(
    ("frozen", "words"), [(["2.*"], "fits no parameter"), (["*"], "freezes every parameter")]
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(frozen, words):
    with pytest.raises(AutosegError, match=words):
        freezing.trained_parameters(*network_and_stage(frozen))


def own_fusion(labels, restore, *, power):
    """Of a trainer; it does nothing."""


def own_step(case, *, reach):
    """Of a trainer; it knows only by the value that it cannot work."""
    if reach < 0:
        raise ValueError(f"a reach of {reach}")
    return case


TRAINER = Trainer(
    "t", "of this test", fusions=(FusionPart("own", own_fusion),), steps=(StepPart("own", own_step),)
)
GOOD = {
    "loss": Named(name="dice_ce"),
    "optimiser": Named(name="sgd", arguments={"lr": 0.1}),
    "schedule": Named(name="poly"),
    "sampling": Sampling(),
    "augmentation": Augmentation(),
    "fusion": Named(name="majority"),
    "postprocessing": Named(name="keep_largest_component"),
}


@pytest.fixture
def check_with(model_folder):
    """Checks a recipe of which one part is another."""

    def check(part, changed, trainer=TRAINER):
        parts = {**GOOD, part: changed}
        last = {"fusion": parts.pop("fusion"), "postprocessing": [parts.pop("postprocessing")]}
        stages = [Stage(name="s", patch_size=[8, 8, 8], batch_size=1, epochs=1, **parts)]
        check_recipe.check_recipe(model_folder.make_plan(stages=stages, **last), trainer)

    return check


@pytest.mark.parametrize(
    ("part", "name", "arguments", "words"),
    [
        ("fusion", "majority", {"weight": 2}, "do not fit the fusion 'majority'(?s:.*)weight"),
        ("fusion", "own", {}, "do not fit the fusion 'own'(?s:.*)power"),
        ("loss", "dice_ce", {"gama": 2}, "do not fit the loss"),
        ("loss", "ratlesnetv2", {"dice_classes": "some"}, "loss 'ratlesnetv2' do not fit(?s:.*)'some'"),
        (
            "loss",
            "edd_muscle",
            {"output_weights": 3},
            "loss 'edd_muscle'(?s:.*)output_weights = 3: input should",
        ),
        ("loss", "dice_ce", {"dice_weight": "a"}, "dice_weight = 'a': input should be a valid number"),
        ("loss", "dice_ce", {"batch_dice": 1}, "batch_dice = 1: input should be a valid boolean"),
        ("optimiser", "sgd", {}, "do not fit the optimiser 'sgd'(?s:.*)'lr'"),
        ("optimiser", "adam", {"lr": -1}, "optimiser 'adam' cannot work with(?s:.*)learning rate: -1"),
        ("schedule", "poly", {"exponen": 2}, "do not fit the schedule"),
        ("optimiser", "sgd", {"lr": "abc"}, "lr = 'abc': input should be a valid number"),
        ("optimiser", "adam", {"lr": 0.1, "betas": [0.9]}, "betas = \\[0.9\\]: field required"),
        ("optimiser", "adamm", {"lr": 0.1}, "did you mean adam"),
        ("schedule", "poly", {"exponent": "two"}, "exponent = 'two': input should be a valid number"),
        ("sampling", "foreground_share", {"outside": "one"}, "no such value beyond the image"),
        ("augmentation", "nnunet", {"gamma_q": 0.5}, "no setting 'gamma_q'"),
        ("augmentation", "nnunet", {"gamma_p": 1.5}, "less than or equal to 1"),
        ("postprocessing", "remove_small_components", {}, "do not fit the post-(?s:.*)fewer_than_voxels"),
        ("postprocessing", "keep_largest_component", {"connectivity": 7}, "cannot work with(?s:.*)Got: 7"),
        ("postprocessing", "own", {"reach": -1}, "step 'own' cannot work with its arguments(?s:.*)-1"),
    ],
)
def test_every_part_is_tried_with_its_arguments(part, name, arguments, words, check_with):
    check_with(part, GOOD[part])
    with pytest.raises(AutosegError, match=words):
        check_with(part, type(GOOD[part])(name=name, arguments=arguments))


@pytest.mark.parametrize(("part", "arguments"), [("fusion", {"power": 2}), ("postprocessing", {"reach": 1})])
def test_what_a_trainer_brings_is_tried_too(part, arguments, check_with):
    check_with(part, Named(name="own", arguments=arguments))


def test_a_full_disk_is_explained(tmp_path):
    """safetensors has an error of its own for what the system refuses."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(AutosegError, match="the file is too large"):
            facts = {"network": "main", "stage": "s", "member": 0, "epoch": 1, "plan_hash": "x"}
            weights.save(tmp_path / "a.safetensors", torch.nn.Linear(50, 50), **facts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_found_as_every_other_part_is():
    """The trainer's own, else another installed family's; a sampler's name is nobody's source."""
    trainers = {name: plugins.load(plugins.TRAINERS, name) for name in ("unet", "edd_muscle")}
    candidates = trainers["edd_muscle"].sources[0]
    assert all(source_part(candidates.name, trainer) is candidates for trainer in trainers.values())
    other = SourcePart(candidates.name, print)
    assert source_part(candidates.name, Trainer("mine", "", sources=(other,))) is other
    assert source_part("lesion_pixels", trainers["edd_muscle"]) is None
    assert source_part("no_such_source", trainers["unet"]) is None


def test_clones_need_a_sampler_that_shows_them(check_with):
    check_with("sampling", Sampling(clones=Clones()))
    own = replace(TRAINER, sources=(SourcePart("candidates", print),))
    with pytest.raises(
        AutosegError, match=r"(?s)has clones.*candidates.*foreground_share.*sampling.clones=null"
    ):
        check_with("sampling", Sampling(name="candidates", clones=Clones()), own)


def test_chunks_that_cut_the_steps_of_a_network_are_refused_before_the_training(make_fingerprint):
    plan = make_plan(make_fingerprint([(1, 1, 1)], [(64, 64, 64)] * 5), "unet", Budget(memory_gb=1))
    cut = {"patch_size": [31, "whole", "whole"], "tiles": "chunks", "mirror_axes": []}
    with pytest.raises(AutosegError, match="the chunks do not fit the steps of the network"):
        check_recipe.check_recipe(apply_overrides(plan, {"inference": cut}), UNET)
    fitting = {**cut, "patch_size": [32, "whole", "whole"], "halo": [64, 0, 0]}
    check_recipe.check_recipe(apply_overrides(plan, {"inference": fitting}), UNET)
