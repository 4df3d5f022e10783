"""Three papers written down as plan.json, their parts in somebody else's package: checked, and run on a small scale.

The plans have the published numbers. Brain SegNet is a curriculum of three stages, DeepMedic sees more than it predicts
and starts from other models, 3D-ResU-Net zooms in and out and keeps snapshots.
"""

import configparser
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small
import torch

from autoseg import plugins
from autoseg.bundle import weights
from autoseg.bundle.fitted import FittedSteps
from autoseg.cli import plan_and_preprocess, predict, train
from autoseg.errors import AutosegError
from autoseg.files import read_json, read_model, write_json
from autoseg.labels import LabelSet
from autoseg.plan import Plan, apply_overrides
from autoseg.plugins import registry
from autoseg.plugins.parts import PatchShape
from autoseg.preparation.prepared import open_prepared
from autoseg.training.check_recipe import check_recipe

PACKAGE = Path(__file__).parent / "third_party"
LESION = LabelSet.from_labels({"background": 0, "lesion": 1})
NAMES = ("brainsegnet", "brainsegnet_brats", "e0", "e1", "e2", "e3", "e4", "e5", "resunet")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The third party's modules, installed for this process: on its path, with the entry points of setup.cfg."""
    site = tmp_path_factory.mktemp("site")
    setup = configparser.ConfigParser()
    setup.read(PACKAGE / "setup.cfg")
    info = site / "autoseg_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autoseg-tiny\nVersion: 1.0\n")
    points = setup["options.entry_points"]
    text = "\n".join(f"[{group}]{points[group]}" for group in points)
    (info / "entry_points.txt").write_text(text)
    (site / "autoseg_tiny").symlink_to(PACKAGE / "autoseg_tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry.installed_trainers.cache_clear()
        yield importlib.import_module("autoseg_tiny.three_papers")
    registry.installed_trainers.cache_clear()


@pytest.fixture(scope="module")
def plans(package):
    return importlib.import_module("autoseg_tiny.three_recipes").PLANS


# -------------------------------------------------------------------------------------------- the published plans


@pytest.mark.parametrize("name", NAMES)
def test_a_published_recipe_is_a_plan_that_can_be_run(package, plans, name):
    written = plans[name]().model_dump_json()
    plan = Plan.model_validate_json(written)
    assert json.loads(written)["version"] == 2 and plan == plans[name]()
    assert plugins.load(plugins.TRAINERS, plan.trainer) is package.TRAINER
    check_recipe(plan, package.TRAINER)


def test_every_plan_is_tried(plans):
    assert tuple(plans) == NAMES


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        (
            "brainsegnet",
            "stages.focal.loss.arguments",
            {"alpha": 1},
            "the arguments do not fit the loss 'focal'",
        ),
        ("e1", "stages.train.context", [24, 24, 23], "the context does not fit the network 'tiny_deepmedic'"),
        ("e1", "inference.context", [], "the context does not fit the network 'tiny_deepmedic'"),
        ("e4", "stages.train.frozen", ["normal.8.*"], "freezes 'normal.8.*', which fits no parameter"),
        ("e2", "stages.train.sampling.arguments", {}, "the arguments do not fit the sampler 'error_maps'"),
        ("e0", "postprocessing.0.arguments.mode", "tht2", "cannot work with its arguments"),
        ("resunet", "stages.zoom_out.schedule.arguments", {"cycle": 50}, "do not fit the schedule 'cosine'"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(package, plans, name, path, value, words):
    plan = apply_overrides(plans[name](), {path: value})
    with pytest.raises(AutosegError, match=words.replace("*", r"\*").replace("[", r"\[")):
        check_recipe(plan, package.TRAINER)


def test_the_tiles_are_those_of_the_papers(plans):
    from autoseg.inference.tiling import make_tiling

    brats = make_tiling((155, 240, 240), plans["brainsegnet_brats"]().recipe.inference, (1, 8, 8))
    assert brats.starts == ([0, 31, 62, 93, 124], [0], [0]) and brats.patch == (31, 240, 240)
    isles = make_tiling((19, 221, 256), plans["brainsegnet"]().recipe.inference, (1, 8, 8))
    assert len(isles) == 1 and isles.patch == (19, 224, 256)
    atlas = make_tiling((189, 233, 197), plans["resunet"]().recipe.inference)
    assert atlas.starts == ([10], [30], [26])


# ------------------------------------------------------------------------------------------ formulas, by their values


def test_the_focal_loss(package):
    probabilities = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    logits = torch.stack([torch.zeros(3), probabilities.logit()])[None]  # the true class is 1 everywhere
    found = [package.Focal(LESION)(logits[..., i : i + 1], torch.ones(1, 1).short()) for i in range(3)]
    assert np.allclose(found, [0.0010536052, 0.1732867951, 1.8650939253], atol=1e-6)
    three = LabelSet.from_labels({"background": 0, "a": 1, "b": 2})
    logits, target = torch.tensor([[2.0, 1.0, 0.0]])[..., None], torch.ones(1, 1).short()
    assert float(package.Focal(three)(logits, target)) == pytest.approx(0.8029478244)
    assert float(package.Focal(three, gamma=0)(logits, target)) == pytest.approx(1.4076059644)


def test_entropy_and_dice(package):
    loss = package.BceDice(LESION)

    def of(p, y):
        logit = torch.tensor(p, dtype=torch.float64).logit()
        return float(loss(torch.stack([torch.zeros_like(logit), logit])[None], torch.tensor([y])))

    assert of([0.9, 0.2, 0.6, 0.05], [1, 0, 1, 0]) == pytest.approx(0.2022655746)
    assert of([0.9, 0.2, 0.6, 0.05], [0, 0, 0, 0]) == pytest.approx(0.9873328168)


def test_the_optimiser(package):
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = package.NormalisedRMSprop([weight], lr=1e-3, momentum=0.6)
    for gradient, expected in ((0.5, 0.9979801779), (-0.25, 0.9984677096)):
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        assert weight.item() == pytest.approx(expected, abs=1e-10)
    assert float(optimiser.state[weight]["velocity"]) == pytest.approx(-0.0001686885, abs=1e-10)


def test_the_optimiser_adds_the_gradient_of_the_norms_of_convolutions(package):
    one, bias = torch.nn.Parameter(torch.full((1, 1), 0.5)), torch.nn.Parameter(torch.full((1,), 0.5))
    optimiser = package.NormalisedRMSprop(
        [one, bias], lr=1.0, rho=0.0, eps=1.0, momentum=0.0, l1=1e-6, l2=1e-4
    )
    one.grad, bias.grad = torch.zeros_like(one), torch.zeros_like(bias)
    optimiser.step()
    assert bias.item() == 0.5 and 0.5 - one.item() == pytest.approx(1.01e-4, rel=1e-3)


def test_the_schedule(package):
    schedule = package.exponential_with_momentum(35, end_factor=0.1)
    expected = {
        0: (1, 0.6),
        1.9: (1, 0.6),
        2: (0.9345192146, 0.608824),
        18: (0.3162278, 0.75),
        34: (0.1070069, 0.891176),
    }
    for progress, (factor, momentum) in {**expected, 34: (0.1070069, 0.891176)}.items():
        found = schedule(progress)
        assert (found["lr_factor"], found["momentum"]) == pytest.approx((factor, momentum), rel=1e-6)


def test_the_thresholds(package):
    y = np.array([0, 0, 1, 1, 0, 1, 0, 1, 0, 0], bool)
    s = np.array([0.1, 0.4, 0.35, 0.8, 0.6, 0.7, 0.2, 0.9, 0.55, 0.05])
    assert package.thresholds(y, s) == (0.7, 0.7)
    y = np.array([0, 1, 0, 1, 1, 1, 0, 0], bool)
    assert package.thresholds(y, np.array([0.1, 0.2, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]))[0] == 0.2


def test_closing_fills_holes_and_loses_nothing_at_the_border(package):
    cube = np.zeros((20, 20, 20), bool)
    cube[2:18, 2:18, 2:18] = True
    hollow = cube.copy()
    hollow[8:11, 8:11, 8:11] = False
    assert (package.closed(hollow, 1) == cube).all()
    assert package.closed(np.ones((40, 40, 19), bool), 3).all()


def test_the_weights_of_error_maps(package):
    p, y = np.array([[[0.9, 0.2, 0.6, 0.1, 0.5]]]), np.array([[[1, 0, 0, 1, -1]]])
    lesion, background = package.error_weights(p, y)
    assert np.allclose(lesion, [0, 0, 0, 1, 0])
    assert np.allclose(background, [0, 0.078947, 0.921053, 0, 0], atol=1e-6)


def test_sub_volumes_have_equal_depths_and_show_the_lesion(package):
    assert package.depth_starts(20, 7) == [0, 7, 13] and package.depth_starts(19, 7) == [0, 7, 12]
    assert package.depth_starts(155, 12)[-2:] == [132, 143] and package.depth_starts(4, 7) == [-1]
    rng, lesion = np.random.default_rng(0), np.array([[10, 12], [17, 30]])
    starts = {package.crop_around(rng, lesion, (40, 40), (10, 24), np.eye(2)) for _ in range(300)}
    assert {y for y, _ in starts} == {8, 9, 10} and {x for _, x in starts} == set(range(7, 13))
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    for _ in range(50):  # turned, a patch of 24 x 10 shows 10 x 24
        y, x = package.crop_around(rng, lesion, (40, 40), (24, 10), quarter)
        seen = (lesion - np.array([y, x]) - [11.5, 4.5]) @ quarter
        assert (np.abs(seen) <= [11.5, 4.5]).all()


def test_a_drawn_scale_is_a_smaller_step_in_the_planes(package):
    drawn = package.draw_scale(np.random.default_rng(0), PatchShape(1, (4, 8, 8)))
    assert 0.5 <= drawn["scale"] < 1.2
    assert package.scaled_planes({"scale": 0.5}, 3).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_the_second_pathway_is_the_strided_image_around_the_patch(package):
    """Position p - 24 + 3 k of the image, for a patch that begins at p: its outputs are repeated and cut."""
    network = package.TinyDeepMedic(1, 2, width=1, layers=8, factor=3)
    network.normal = torch.nn.Identity()
    network.low = torch.nn.Sequential(torch.nn.Identity())
    network.common = torch.nn.Identity()
    seen = []
    network.low.register_forward_hook(
        lambda _, given, out: seen.append(given[0]) or out[..., 8:-8, 8:-8, 8:-8]
    )
    network.normal.register_forward_hook(lambda _, given, out: out[..., 8:-8, 8:-8, 8:-8])
    x = torch.arange(57.0).expand(1, 1, 57, 57, 57)  # 9 voxels and 24 on each side
    found = network(x)
    assert seen[0].shape[2:] == (19, 19, 19) and seen[0][0, 0, 0, 0, :3].tolist() == [0, 3, 6]
    assert found[0, 0, 0, 0].tolist() == list(range(24, 33))
    assert found[0, 1, 0, 0].tolist() == [24, 24, 24, 27, 27, 27, 30, 30, 30]


# --------------------------------------------------------------------------------------- the same, small, for real

ANY = {"epochs": 2, "iterations_per_epoch": 2}
SIZES = {
    "brainsegnet": {"patch_size": [3, 16, 16], "batch_size": 2, "epochs": 1},
    "resunet": {"patch_size": [8, 16, 16], "snapshots": [1]},
    "deepmedic": {"patch_size": [3, 5, 5], "context": [6, 6, 6], "batch_size": 2},
}


def small_plan(plan: Plan) -> Plan:
    """The same plan with other sizes and lengths."""
    family = plan.networks["main"].name.removeprefix("tiny_")
    changes = {"validation.cases": 1, "networks.main.arguments.width": 2}
    for stage in plan.recipe.stages:
        sizes = {**ANY, **SIZES[family]}
        if stage.name == "zoom_in":
            sizes |= {"snapshots": [], "epochs": 1}
        changes |= {f"stages.{stage.name}.{key}": value for key, value in sizes.items()}
    if family == "deepmedic":
        changes["networks.main.arguments"] = {"width": 2, "layers": 2, "factor": 3}
        changes["inference"] = {
            **plan.recipe.inference.model_dump(),
            "patch_size": [9, 9, 9],
            "context": [6, 6, 6],
        }
        changes["postprocessing.study_decision.arguments.radius"] = 1
    if family == "resunet":
        changes["inference.patch_size"] = [8, 20, 20]
    return apply_overrides(plan, changes)


def rename_channels(folder: Path, names: list[str]) -> None:
    """Give the dataset these channels; the last one of several is 0 outside a box, as a map outside the brain."""
    info = json.loads((folder / "dataset.json").read_text())
    info["channel_names"] = {str(i): name for i, name in enumerate(names)}
    (folder / "dataset.json").write_text(json.dumps(info))
    for path in sorted(folder.glob(f"images*/*_{len(names) - 1:04}.nii.gz")) if len(names) > 1 else ():
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        array[:, :4], array[:, -3:] = 0, 0
        small.write(path, array)


class House:
    """The three roots with a dataset, and the commands on it."""

    def __init__(self, root: Path, plans, channels: list[str]):
        self.root, self.plans = root, plans
        folder = small.dataset(root / "raw", n=6, n_test=1, channels=len(channels))
        rename_channels(folder, channels)
        self.images = folder / "imagesTs"

    def prepare(self, name: str, *options: str, **more) -> None:
        plan = small_plan(self.plans[name](dataset=small.NAME, **more))
        write_json(self.root / "preprocessed" / small.NAME / name / "plan.json", plan)
        command = ["-d", "1", "-p", name, "--keep_plan", "-np", "1", *options]
        assert plan_and_preprocess.main(command) == 0

    def train(self, plan: str, model: str, *options: str) -> int:
        return train.main(["1", "0", "-p", plan, "-name", model, "-device", "cpu", *options])

    def fold(self, model: str) -> Path:
        return self.root / "results" / small.NAME / model / "fold_0"

    def weights(self, model: str) -> dict:
        paths = sorted((self.fold(model) / "weights").glob("*.safetensors"))
        return {f"{p.name}/{k}": v for p in paths for k, v in weights.read(p).tensors.items()}

    def train_whole_and_stopped(self, plan: str, after: int, model: str | None = None) -> str:
        """Train it twice: at once, and stopped after some iterations and continued; the weights are equal."""
        model = model or f"three_papers__{plan}"
        assert self.train(plan, model) == 0
        with pytest.MonkeyPatch.context() as patch:
            runs.stop_after(patch, after)
            assert self.train(plan, f"{model}_stopped") == 128 + 15
        assert self.train(plan, f"{model}_stopped", "--c") == 0
        assert runs.same(self.weights(model), self.weights(f"{model}_stopped"))
        return model

    def predict(self, model: str, *options: str) -> np.ndarray:
        out = self.root / "masks" / "_".join([model, *options[-1:]])
        command = [
            "-i",
            str(self.images),
            "-o",
            str(out),
            "-d",
            "1",
            "-name",
            model,
            "-device",
            "cpu",
            *options,
        ]
        assert predict.main(command) == 0
        return sitk.GetArrayFromImage(sitk.ReadImage(str(next(out.glob("*.nii.gz")))))


@pytest.fixture
def house(package, plans, tmp_path, monkeypatch):
    def build(channels):
        runs.set_folders(monkeypatch, tmp_path)
        return House(tmp_path, plans, channels)

    return build


ISLES = ["ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"]


@pytest.mark.slow
def test_brain_segnet_trains_its_curriculum_and_predicts(house):
    there = house(ISLES)
    there.prepare("brainsegnet")
    model = there.train_whole_and_stopped("brainsegnet", after=3)
    entries = [json.loads(line) for line in (there.fold(model) / "log.jsonl").read_text().splitlines()]
    assert [e["stage"] for e in entries] == ["plain", "half", "focal"]
    assert there.predict(model).shape == (10, 24, 24)


@pytest.mark.slow
def test_deepmedic_trains_starts_from_another_fold_and_learns_its_decision(house):
    there = house(ISLES)
    there.prepare("e1", "--folds", "3", "--test_part")
    model = there.train_whole_and_stopped("e1", after=3)
    for mode in ("base", "tht0", "tht1", "fh"):
        mask = there.predict(model, "--set", f"postprocessing.study_decision.arguments.mode={mode}")
        assert mask.shape == (10, 24, 24)
        # beyond the mask, one voxel of dilation and rounding
        assert not mask[:, :2].any() and not mask[:, -2:].any()
    assert there.predict(model, "--set", "postprocessing.study_decision.arguments.mode=tht1").any()
    learned = read_model(there.fold(model) / "fitted.json", FittedSteps).steps["study_decision"]
    splits = read_json(there.root / "preprocessed" / small.NAME / "splits.json")
    assert set(learned.learned) == {"tht0", "tht1", "iterations"} and learned.cases == splits[0]["val"]

    there.prepare("e3")
    other = there.train_whole_and_stopped("e3", after=3)
    one, two = there.weights(model), there.weights(other)
    assert runs.same(_of(one, "normal", "weight"), _of(two, "normal", "weight"))
    assert not runs.same(_of(one, "normal", "running_mean"), _of(two, "normal", "running_mean"))
    assert not runs.same(_of(one, "common", "weight"), _of(two, "common", "weight"))
    start = weights.read_info(there.fold(other) / "weights" / "member0.train.safetensors").start
    assert (
        start["model"] == "three_papers__e1" and start["file"] == "fold_0/weights/member0.train.safetensors"
    )
    assert there.predict(other).shape == (10, 24, 24)

    maps = there.root / "maps"
    there.prepare("e2", maps=str(maps))
    prepared = open_prepared(there.root / "preprocessed", "1", "e2")
    maps.mkdir()
    for case in splits[0]["train"]:
        shape = prepared.store.read(case).label.shape
        np.save(maps / f"{case}.npy", np.random.default_rng(0).random(shape))
    there.train_whole_and_stopped("e2", after=3)


def _of(tensors: dict, part: str, what: str) -> dict:
    return {key: value for key, value in tensors.items() if f"/{part}." in key and key.endswith(what)}


@pytest.mark.slow
def test_resunet_zooms_out_from_what_it_learned_zoomed_in(house):
    there = house(["T1"])
    there.prepare("resunet")
    model = there.train_whole_and_stopped("resunet", after=3)
    names = {path.name for path in (there.fold(model) / "weights").glob("*.safetensors")}
    assert {
        "member0.zoom_in.safetensors",
        "member0.zoom_out.epoch1.safetensors",
        "member0.zoom_out.safetensors",
    } <= names
    mask = there.predict(model)
    assert not mask[[0, -1]].any() and not mask[:, :2].any() and not mask[:, :, -2:].any()
