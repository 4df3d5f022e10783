"""Scores during the training: what counts and which network is measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch

from autoseg.bundle.networks import ReadyNetwork
from autoseg.cli import train
from autoseg.dataset.folds import Fold
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
