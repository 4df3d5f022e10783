"""Scores during the training: what counts and which network is measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small
import torch

from autoseg import messages
from autoseg.bundle.networks import ReadyNetwork
from autoseg.cli import plan_and_preprocess, train
from autoseg.dataset.folds import Fold
from autoseg.evaluation.summary import read_summary
from autoseg.labels import LabelSet
from autoseg.plan import Inference
from autoseg.plugins.parts import NetworkInput
from autoseg.training import validation
from autoseg.training.interrupt import Interrupted, StopRequest


def validator(label, stop=None):
    """A validator whose only case has this label; the network says lesion everywhere."""
    case = SimpleNamespace(image=np.zeros((1, *label.shape), np.float32), label=label)
    lesions = SimpleNamespace(volume_voxels=1)
    inference = Inference(patch_size=[], mirror_axes=())
    recipe = SimpleNamespace(validation=SimpleNamespace(cases=1), inference=inference, precision="auto")
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    job = SimpleNamespace(
        plan=SimpleNamespace(
            recipe=recipe, label_set=labels, preprocessing=SimpleNamespace(normalisation=[], mask=None)
        ),
        prepared=SimpleNamespace(
            store=SimpleNamespace(read=lambda name: case),
            fingerprint=SimpleNamespace(cases=[SimpleNamespace(name="a", lesions=lesions)]),
        ),
        device=torch.device("cpu"),
        folder=Path("nowhere"),
    )
    stage = SimpleNamespace(leave_out=None)
    return validation.Validator(job, Fold(("b",), ("a",)), stage, stop or StopRequest())


class AllLesion(torch.nn.Module):
    def forward(self, image):
        return torch.cat([torch.zeros_like(image), torch.ones_like(image)], 1)


def ready():
    return ReadyNetwork(AllLesion(), NetworkInput(), {})


def test_ignored_voxels_are_not_scored():
    label = np.full((2, 4, 4), 1, np.int16)
    label[1] = 2
    assert validator(label)(ready()) == {"lesion": 1.0}
    label[1] = 0
    assert validator(label)(ready())["lesion"] == pytest.approx(2 / 3)


def test_it_stops_when_asked():
    stop = StopRequest()
    stop.set(15)
    with pytest.raises(Interrupted):
        validator(np.zeros((2, 4, 4), np.int16), stop)(ready())


@pytest.mark.slow
def test_a_second_network_is_trained_and_kept_and_only_the_main_one_is_measured(root):
    """The second network of the plan serves post-processing; whole volumes mean nothing to it."""
    path = next((root / "preprocessed").glob("*/unet/plan.json"))
    content = json.loads(path.read_text())
    content["networks"]["second"] = content["networks"]["main"]
    first = content["recipe"]["stages"][0]
    content["recipe"]["stages"].append({**first, "name": "extra", "network": "second"})
    path.write_text(json.dumps(content))
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    scored = {(entry["stage"], bool(entry["validation_dice"])) for entry in runs.log(root)}
    assert scored == {("train", True), ("extra", False)}
    names = {path.name for path in (runs.fold(root) / "weights").iterdir()}
    assert names == {f"member0.{n}.safetensors" for n in ("train", "train.best", "extra")}


@pytest.mark.slow
@pytest.mark.parametrize("other_reader", [True, False])
def test_the_masks_that_dataset_json_lists_are_scored(tmp_path, monkeypatch, other_reader):
    """labelsTr holds another reader's masks under the same names, or nothing."""
    raw = small.dataset(tmp_path / "raw", n=5, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    files = {}
    (raw / "reader2").mkdir()
    for path in sorted((raw / "labelsTr").iterdir()):
        name = path.name.removesuffix(".nii.gz")
        path.rename(raw / "reader2" / f"{name}_r2.nii.gz")
        if other_reader:
            small.write(path, np.zeros((10, 24, 24), np.uint8))
        files[name] = {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"reader2/{name}_r2.nii.gz"}
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "dataset": files}))
    settings = [*small.TINY, "stages.0.epochs=1"]
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *settings]) == 0
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    scored = {case.name: case for case in read_summary(runs.fold(tmp_path) / "validation").cases}
    assert scored
    for name, case in scored.items():
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / files[name]["label"])))
        assert case.classes["lesion"]["voxels_truth"] == mask.sum() > 0


@pytest.mark.slow
def test_what_one_tile_in_the_centre_loses_is_said_when_prepared_and_with_the_scores(tmp_path, monkeypatch):
    """Counted in the files of the truth: the working grid is theirs."""
    raw = small.dataset(tmp_path / "raw", n=5, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    centre = ["inference.tiles=centre", "inference.patch_size=[4, 8, 8]", "stages.0.epochs=1"]
    said = messages.warning_counts()
    assert (
        plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY, *centre]) == 0
    )
    counts = {}
    for path in sorted((raw / "labelsTr").iterdir()):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
        counts[path.name.split(".")[0]] = (mask.sum() - mask[3:7, 8:16, 8:16].sum(), mask.sum())
    lost, total = map(sum, zip(*counts.values(), strict=True))
    assert lost > 0
    assert any(f"{lost} label voxels of {total} (" in text for text in messages.warnings_since(said))
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    summary = read_summary(runs.fold(tmp_path) / "validation")
    lost, total = map(sum, zip(*(counts[case.name] for case in summary.cases), strict=True))
    assert any(text.startswith(f"{lost} label voxels of {total} (") for text in summary.warnings)
