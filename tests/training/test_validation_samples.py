"""Validation on samples: which voxels are scored and how, and what the log keeps of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch

from autoseg.bundle.networks import ReadyNetwork
from autoseg.cli import train
from autoseg.dataset.folds import Fold
from autoseg.errors import AutosegError
from autoseg.plan import Validation, apply_overrides
from autoseg.plugins.parts import NetworkInput
from autoseg.trainers.unet import TRAINER
from autoseg.training.check_recipe import check_recipe
from autoseg.training.interrupt import Interrupted, StopRequest
from autoseg.training.validation_samples import open_samples, scores_of


def test_scores_of_counts_by_hand():
    """Of the card: gt 1100/1100/0000/0001 against 1110/1000/0000/0000."""
    found = scores_of(tp=3, fp=1, fn=2, tn=10)
    assert found == pytest.approx(
        {"accuracy": 0.8125, "tpr": 0.6, "tnr": 0.909091, "dice": 0.666667}, abs=1e-6
    )
    assert scores_of(0, 0, 0, 5) == {"accuracy": 1.0, "tpr": None, "tnr": 1.0, "dice": None}


class Above(torch.nn.Module):
    """Lesion where the image is above 0.5; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.images = []

    def forward(self, image):
        assert not self.training
        self.images.append(image)
        return torch.cat([torch.zeros_like(image), image - 0.5], 1)


def case(seed, size=(12, 10, 8)):
    """A tenth of the voxels are lesion and half of them outside the mask; a quarter of the image is wrong."""
    rng = np.random.default_rng(seed)
    label = (rng.random(size) < 0.1).astype(np.int16)
    label[rng.random(size) < 0.05] = 2  # ignored
    image = np.where(rng.random(size) < 0.25, label == 0, label == 1)[None].astype(np.float32)
    label[:, :5] = -1
    return SimpleNamespace(image=image, label=label, foreground=np.zeros((0, 5), np.int32))


CASES = {"a": case(1), "b": case(2), "trained": case(3)}


@pytest.fixture
def run(model_folder):
    """A run whose plan asks for samples of one voxel."""
    plan = model_folder.make_plan(validation=Validation(samples=3001, sample_size=[1, 1, 1]))
    plan = plan.model_copy(update={"labels": {"background": 0, "lesion": 1, "ignore": 2}})
    stop = StopRequest()
    return SimpleNamespace(
        plan=plan,
        stage=plan.recipe.stages[0].model_copy(update={"batch_size": 64}),
        fold=Fold(("trained",), ("a", "b")),
        store=SimpleNamespace(read=CASES.__getitem__),
        trainer=TRAINER,
        seed_key=(7, 0, 0, 0),
        device=torch.device("cpu"),
        raw_zero=(),
        world=SimpleNamespace(leads=True),
        stop=stop,
        check_stop=stop.check,
    )


def test_samples_are_uniform_in_what_counts_of_the_validation_cases(run):
    network = Above().train()
    samples = open_samples(run)
    found = samples(ReadyNetwork(network, NetworkInput(), {}), 0)["lesion"]
    labels = [CASES[name].label for name in "ab"]
    wrong = [
        np.not_equal(CASES[name].image[0] > 0.5, label == 1) for name, label in zip("ab", labels, strict=True)
    ]
    lesion, background = (
        [(w[label == value].mean(), (label == value).sum() / np.isin(label, [0, 1]).sum())]
        for value in (1, 0)
        for w, label in [(np.concatenate(wrong), np.concatenate(labels))]
    )
    assert found["tpr"] == pytest.approx(1 - lesion[0][0], abs=0.08)
    assert found["tnr"] == pytest.approx(1 - background[0][0], abs=0.04)
    right = lesion[0][1] * (1 - lesion[0][0]) + background[0][1] * (1 - background[0][0])
    assert found["accuracy"] == pytest.approx(right, abs=0.04)
    assert network.training  # as it was
    assert sum(len(image) for image in network.images) >= 3001 and network.images[0].shape == (64, 1, 1, 1, 1)
    again = open_samples(run)(ReadyNetwork(Above(), NetworkInput(), {}), 0)["lesion"]
    other = samples(ReadyNetwork(network, NetworkInput(), {}), 1)["lesion"]
    assert found == again and found != other  # drawn anew for each epoch, and the same when asked again


def test_whoever_asks_for_none_has_none(run):
    assert open_samples(SimpleNamespace(**{**vars(run), "world": SimpleNamespace(leads=False)})) is None
    off = apply_overrides(run.plan, {"validation.samples": 0})
    assert open_samples(SimpleNamespace(**{**vars(run), "plan": off})) is None


def test_it_stops_when_asked(run):
    run.stop.set(15)
    with pytest.raises(Interrupted):
        open_samples(run)(ReadyNetwork(Above(), NetworkInput(), {}), 0)


def test_what_a_sample_cannot_be_is_refused(model_folder):
    plan = model_folder.make_plan(validation=Validation(samples=10))
    plan = apply_overrides(plan, {"stages.0.optimiser.arguments": {"lr": 0.01}})
    check_recipe(plan, TRAINER)
    whole = apply_overrides(plan, {"stages.0.patch_size": [], "stages.0.batch_size": 1})
    with pytest.raises(AutosegError, match=r"(?s)they have no size.*validation.sample_size=.*samples=0"):
        check_recipe(whole, TRAINER)
    with pytest.raises(AutosegError, match=r"(?s)validation.sample_size.*cannot take this patch.*\[4, 4\]"):
        check_recipe(apply_overrides(plan, {"validation.sample_size": [4, 4]}), TRAINER)


@pytest.mark.slow
def test_the_log_keeps_them_for_every_epoch_and_they_change_no_weights(prepared, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    options = ["1", "0", "-device", "cpu", "--set", "stages.0.epochs=2", "validation.every=2"]
    assert train.main(options) == 0
    losses = [entry["loss"] for entry in runs.log(root)]
    assert train.main([*options, "validation.samples=40", "--overwrite"]) == 0
    log = runs.log(root)
    assert [entry["loss"] for entry in log] == losses
    assert [sorted(entry["validation_samples"]["lesion"]) for entry in log] == [
        ["accuracy", "dice", "tnr", "tpr"]
    ] * 2
    assert {entry["sample_count"] for entry in log} == {40}
    assert [bool(entry["validation_dice"]) for entry in log] == [False, True]
    assert "Dice of samples" in (runs.fold(root) / "train.log").read_text()
