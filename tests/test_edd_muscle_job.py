"""The family `edd_muscle` as a user runs it, on phantoms: two networks by one command, what can be asked of them."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import torch

from autoseg.bundle import weights
from autoseg.bundle.opening import open_model
from autoseg.cli import (
    evaluate,
    export_bundle,
    import_bundle,
    make_phantom,
    plan_and_preprocess,
    predict,
    train,
)
from autoseg.dataset.imageio import read_channels
from autoseg.inference.predictor import Predictor

pytestmark = pytest.mark.slow

DATASET = "Dataset912_PhantomDWI"
TINY = [
    "planner.patch_size=32",
    "planner.receptive_field=18",
    "planner.width=8",
    "planner.spacing_mm=5",
    "planner.batch_size=16",
    "stages.edd.epochs=2",
    "stages.muscle.epochs=2",
    "stages.edd.iterations_per_epoch=30",
    "validation.cases=1",
    "validation.every=2",
    "seed=3",
]
STAGES = ("edd", "muscle")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("edd")
        runs.set_folders(patch, root)
        options = ["-n", "5", "--test", "2", "--scale", "0.5", "--seed", "6", "-np", "1"]
        assert make_phantom.main(["dwi", "-o", str(root / "raw"), *options]) == 0
        assert plan_and_preprocess.main(["-d", "912", "-pl", "edd_muscle", "-np", "1", "--set", *TINY]) == 0
    return root


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("whole") / "work")
        assert train.main(["912", "0", "-device", "cpu"]) == 0
    return root


@pytest.fixture
def root(prepared, tmp_path, monkeypatch) -> Path:
    return runs.copied(monkeypatch, prepared, tmp_path / "work")


@pytest.fixture
def trained(whole, tmp_path, monkeypatch) -> Path:
    return runs.copied(monkeypatch, whole, tmp_path / "work")


def fold(root: Path) -> Path:
    return root / "results" / DATASET / "edd_muscle__edd_muscle" / "fold_0"


def tensors(root: Path, stage: str):
    return weights.read(fold(root) / "weights" / f"member0.{stage}.safetensors").tensors


def predicted(root: Path, name: str, *settings: str) -> dict[str, np.ndarray]:
    images, masks = root / "raw" / DATASET / "imagesTs", root / name
    options = ["--set", *settings] if settings else []
    assert predict.main(["-i", str(images), "-o", str(masks), "-d", "912", "-device", "cpu", *options]) == 0
    files = sorted(masks.glob("*.nii.gz"))
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in files}


def test_one_command_trains_both_networks(whole):
    for stage in STAGES:
        assert tensors(whole, stage)
    facts = weights.read_info(fold(whole) / "weights" / "member0.muscle.safetensors").facts
    assert facts["real_candidates"] > 0 and facts["false_candidates"] > 0
    entries = [json.loads(line) for line in (fold(whole) / "log.jsonl").read_text().splitlines()]
    assert [e["stage"] for e in entries] == ["edd"] * 2 + ["muscle"] * 2
    text = (fold(whole) / "train.log").read_text()
    assert f"{facts['real_candidates']} real and {facts['false_candidates']} false candidates" in text


def test_the_fold_is_scored_by_the_preset_of_the_family_too(trained):
    (path,) = trained.rglob("validation/edd_muscle/summary.json")
    own, general = (json.loads(p.read_text()) for p in (path, path.parents[1] / "summary.json"))
    assert (own["preset"]["name"], general["preset"]["name"]) == ("edd_muscle", "autoseg")
    of_case = [next(iter(s["cases"][0]["classes"].values())) for s in (own, general)]
    assert "lesion_size_missed" in of_case[0] and of_case[0]["dice"] == of_case[1]["dice"]


def test_the_columns_of_table_4_come_from_one_bundle(trained):
    """MUSCLE Net only takes away from EDD Net's mask; the naive ensemble is the mean of the branches."""
    off, truth = "postprocessing.muscle=off", str(trained / "raw" / DATASET / "labelsTs")
    columns = {"edd_muscle": predicted(trained, "edd_muscle"), "edd": predicted(trained, "edd", off)}
    for output in ("branch1", "branch2", "fused"):
        columns[output] = predicted(trained, output, off, f"networks.main.arguments.output={output}")
    for name, masks in columns.items():
        assert len(masks) == 2
        assert evaluate.main(["-p", str(trained / name), "-g", truth, "--preset", "edd_muscle"]) == 0
    both, first = (sum(int(mask.sum()) for mask in columns[key].values()) for key in ("edd_muscle", "edd"))
    assert 0 < both < first
    logits = {name: member_logits(trained, name) for name in ("refined", "fused", "branch1", "branch2")}
    mean = (logits["branch1"] + logits["branch2"]) / 2
    torch.testing.assert_close(logits["fused"], mean, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits["refined"], mean, atol=0.1)
    both, first = (x[1] > x[0] for x in (member_logits(trained, "refined", muscle=True), logits["refined"]))
    assert 0 < both.sum() < first.sum() and not (both & ~first).any()


def member_logits(root: Path, output: str, *, muscle: bool = False) -> torch.Tensor:
    """What an output of EDD Net says of the second test case, alone or after MUSCLE Net."""
    off = {} if muscle else {"postprocessing.muscle": "off"}
    settings = {"networks.main.arguments.output": output, **off}
    predictor = Predictor(fold(root).parent, device="cpu", overrides=settings)
    path = root / "raw" / DATASET / "imagesTs" / "phantom_dwi_006_0000.nii.gz"
    image, geometry = read_channels([path])
    return next(predictor.logits(predictor.preprocess("one", image, geometry)))


def test_a_training_stopped_in_the_second_network_continues_exactly(root, whole, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        runs.stop_after(patch, 2 * 30 + 1)
        assert train.main(["912", "0", "-device", "cpu"]) == 128 + signal.SIGTERM
    assert train.main(["912", "0", "--c", "-device", "cpu"]) == 0
    for stage in STAGES:
        assert runs.same(tensors(root, stage), tensors(whole, stage))


def test_only_the_second_network_is_trained_again(trained, whole):
    before = (fold(trained) / "weights" / "member0.edd.safetensors").stat().st_mtime_ns
    assert train.main(["912", "0", "--redo_from", "muscle", "-device", "cpu"]) == 0
    assert (fold(trained) / "weights" / "member0.edd.safetensors").stat().st_mtime_ns == before
    for stage in STAGES:
        assert runs.same(tensors(trained, stage), tensors(whole, stage))
    assert (fold(trained) / "log.jsonl").read_text().count("muscle") == 2


def test_the_second_network_may_follow_another_plan(trained, whole, capfd):
    more = ["--redo_from", "muscle", "-device", "cpu", "--set"]
    assert (
        train.main(["912", "0", *more, "stages.muscle.epochs=1", "postprocessing.muscle.arguments.rule=odds"])
        == 0
    )
    assert not runs.same(tensors(trained, "muscle"), tensors(whole, "muscle"))
    capfd.readouterr()
    predicted(trained, "masks")
    assert "changed after the training" not in capfd.readouterr().err
    assert train.main(["912", "0", *more, "stages.edd.epochs=3"]) == 1
    assert "the stages before 'muscle' were trained by another plan" in capfd.readouterr().err


def test_a_fold_without_its_first_network_cannot_redo_the_second(trained, capfd):
    (fold(trained) / "weights" / "member0.edd.safetensors").unlink()
    assert train.main(["912", "0", "--redo_from", "muscle"]) == 1
    assert "are not all trained" in capfd.readouterr().err
    assert (fold(trained) / "fold.json").exists()


def test_a_bundle_holds_both_networks(trained, tmp_path):
    assert export_bundle.main(["-d", "912", "-o", str(tmp_path / "edd.zip")]) == 0
    before = predicted(trained, "before")
    shutil.rmtree(trained / "results")
    assert import_bundle.main([str(tmp_path / "edd.zip")]) == 0
    after = predicted(trained, "after")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    (fold(trained) / "weights" / "member0.muscle.safetensors").unlink()
    images = str(trained / "raw" / DATASET / "imagesTs")
    assert predict.main(["-i", images, "-o", str(tmp_path / "masks"), "-d", "912", "-device", "cpu"]) == 1


def test_cross_fitting_trains_two_more_networks_and_keeps_neither(root):
    settings = ["planner.cross_fitting=true", *TINY, "stages.edd.iterations_per_epoch=6"]
    parts = [f"stages.edd_part{k}.{name}" for k in (0, 1) for name in ("epochs=2", "iterations_per_epoch=6")]
    arguments = ["-d", "912", "-pl", "edd_muscle", "-p", "cross", "-np", "1", "--set", *settings, *parts]
    assert plan_and_preprocess.main(arguments) == 0
    assert train.main(["912", "0", "-p", "cross", "-device", "cpu"]) == 0
    folder = root / "results" / DATASET / "edd_muscle__cross" / "fold_0" / "weights"
    assert len(list(folder.glob("member0.edd_part?.safetensors"))) == 2
    assert [path.name for path in open_model(folder.parents[1]).weights] == [
        f"member0.{stage}.safetensors" for stage in STAGES
    ]
    images = str(root / "raw" / DATASET / "imagesTs")
    assert (
        predict.main(["-i", images, "-o", str(root / "m"), "-d", "912", "-p", "cross", "-device", "cpu"]) == 0
    )
