"""What cannot be trained is refused when it is planned: values out of range, patches that a network cannot take."""

import json

import pytest
import runs
import small

from autoseg import plugins
from autoseg.cli import common, plan_and_preprocess
from autoseg.errors import AutosegError
from autoseg.plan import apply_overrides
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.training.check_recipe import check_recipe

ARGUMENTS = "networks.main.arguments"
ROWS = {
    "rotation_p": ({"stages.0.augmentation.arguments.rotation_p": 7}, "less than or equal to 1"),
    "lr in words": ({"stages.0.optimiser.arguments.lr": "abc"}, "lr = 'abc': input should be a valid number"),
    "negative lr": ({"stages.0.optimiser.arguments.lr": -0.1}, "cannot work with(?s:.*)-0.1"),
    "no optimiser": ({"stages.0.optimiser.name": "sdg"}, "did you mean sgd"),
    "no loss": ({"stages.0.loss.name": "dice"}, "did you mean dice_ce"),
    "epochs 0": ({"stages.0.epochs": 0}, "at least 1"),
    "epochs -1": ({"stages.0.epochs": -1}, "at least 1"),
    "epochs without end": ({"stages.0.epochs": 10**9}, "at most 1000000"),
    "batch 0": ({"stages.0.batch_size": 0}, "at least 1"),
    "members": ({"members": 10**9}, "at most 1000"),
    "seed": ({"seed": 2**64}, "below 9"),
    "spacing 0": ({"preprocessing.spacing_mm": [0, 1, 1]}, "greater than or equal to 0.0001"),
    "spacing in words": ({"preprocessing.spacing_mm": ["NaN", 1, 1]}, "finite number"),
    "spacing 1e30": ({"preprocessing.spacing_mm": [1e30, 1, 1]}, "less than or equal to 1000"),
    "transpose": ({"preprocessing.transpose": [0, 0, 1]}, "each of the axes 0, 1 and 2 once"),
    "mirror axis": ({"stages.0.augmentation.mirror_axes": [3]}, "at most 2"),
    "normalisation": ({"preprocessing.normalisation": []}, "one entry for each of 1 channels, found 0"),
    "step": ({"inference.step": 1e-9}, "at least 0.05"),
    "features": ({f"{ARGUMENTS}.features_per_stage": [4, 8, 16]}, "features_per_stage: 3 entries"),
    "features in words": (
        {f"{ARGUMENTS}.features_per_stage": "ab"},
        "features_per_stage = 'ab': input should",
    ),
    "features of 40 GB": ({f"{ARGUMENTS}.features_per_stage": [10**5, 10**5]}, "too large(?s:.*)parameters"),
    "features of 0": ({f"{ARGUMENTS}.features_per_stage": [0, 0]}, "cannot"),
    "features below 0": ({f"{ARGUMENTS}.features_per_stage": [-4, 8]}, "cannot be built from its arguments"),
    "convolutions without end": ({f"{ARGUMENTS}.n_conv_per_stage": 10**9}, "each from 1 to 64"),
    "stride 0": ({f"{ARGUMENTS}.strides": [[1, 1, 1], [0, 0, 0]]}, "cannot take this patch"),
    "kernel": ({f"{ARGUMENTS}.kernel_sizes": [[3, 3, 3], [3, 3, "3"]]}, "valid integer"),
    "no stage": ({"stages": []}, "at least 1 item"),
    "a number for a stage": ({"stages.0": 7}, "valid dictionary"),
    "no recipe": ({"recipe": None}, "recipe"),
    "no labels": ({"labels": {}}, "at least one label beside the background"),
    "patch of one axis": ({"inference.patch_size": [7]}, "two numbers, three, or none"),
    "patch": ({"stages.0.patch_size": [8, 17, 16]}, "cannot take this patch(?s:.*)multiples of 2 x 2 x 2"),
    "patch of two axes": ({"stages.0.patch_size": [16, 16]}, "3 numbers, one for each axis of the network"),
    "patch of the prediction": (
        {"stages.0.patch_size": [8, 16, 16], "inference.patch_size": [8, 16, 15]},
        "inference.patch_size: the network 'unet' cannot take this patch",
    ),
    "patch too small to be normalised": (
        {"stages.0.patch_size": [2, 2, 2], "stages.0.batch_size": 1},
        "more than 1",
    ),
}


@pytest.fixture(scope="module")
def plan():
    """A plan that can be trained, of a network that is small."""
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "planners" / "fingerprints.py"
    spec = importlib.util.spec_from_file_location("fingerprints", path)
    fingerprints = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fingerprints)
    pairs = dict(pair.split("=", 1) for pair in small.TINY)
    overrides = {path: json.loads(value) for path, value in pairs.items()}
    return make_plan(
        fingerprints.fingerprint([(2, 1, 1)] * 5, [(10, 24, 24)] * 5), "unet", Budget(), overrides
    )


def checked(plan, overrides) -> None:
    changed = apply_overrides(plan, overrides)
    check_recipe(changed, plugins.load(plugins.TRAINERS, changed.trainer))


def test_the_plan_itself_is_taken(plan):
    checked(plan, {})


@pytest.mark.parametrize(("overrides", "words"), ROWS.values(), ids=ROWS)
def test_what_cannot_be_trained_is_refused(overrides, words, plan):
    with pytest.raises(AutosegError, match=words) as caught:
        checked(plan, overrides)
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    "override",
    ["stages.0.optimiser.arguments.lr=abc", "stages.0.patch_size=[8,17,16]", "stages.0.loss.name=dice"],
)
def test_the_command_refuses_it_and_keeps_the_plan_that_is_there(override, tmp_path, monkeypatch, capfd):
    small.dataset(tmp_path / "raw", n=2, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    path = tmp_path / "preprocessed" / small.NAME / "unet" / "plan.json"
    command = ["-d", "1", "-pl", "unet", "-np", "1", "--no_pp", "--set", *small.TINY]
    assert plan_and_preprocess.main([*command, override]) == 1
    assert "error: " in capfd.readouterr().err and not path.exists()
    assert plan_and_preprocess.main(command) == 0
    before = path.read_bytes()
    assert plan_and_preprocess.main([*command, override]) == 1
    assert plan_and_preprocess.main(["-d", "1", "-np", "1", "--keep_plan", "--no_pp", "--set", override]) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-gpu_memory_target", "nan"], "the memory is no number above 0"),
        (["-gpu_memory_target", "inf"], "no card has so much memory"),
        (["-gpu_memory_target", "-5"], "the memory is no number above 0"),
        (["--set", "preprocessing.spacing_mm=[0.001,0.001,0.001]"], "the working grid is too fine"),
        (["--set", 'labels={"background":0,"other":1}'], "the plan was made for other labels"),
        (["-d", "\u00b2"], "there is no dataset"),
        (["-d", "9" * 5000], "there is no dataset"),
        (["--set", "stages.0.epochs=" + "[" * 10_000], "a whole number, at least 1"),
        (["--set", "stages.0.epochs=" + "9" * 5000], "maximum size"),
    ],
    ids=range(9),
)
def test_options_that_cannot_be(options, words, tmp_path, monkeypatch, capfd):
    small.dataset(tmp_path / "raw", n=2, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    command = ["-d", "1", "-pl", "unet", "-np", "1", "--no_pp", *options]
    assert plan_and_preprocess.main(command) == 1
    text = capfd.readouterr().err
    assert words in text and len(text) < 6000
    assert not list(tmp_path.glob("preprocessed/*/*/plan.json"))


@pytest.mark.parametrize("fold", ["\u00b2", "9" * 20, "-1", "x"])
def test_folds_that_cannot_be(fold):
    with pytest.raises(AutosegError, match="is not known"):
        common.fold(fold)
