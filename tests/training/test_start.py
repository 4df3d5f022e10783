"""What a stage starts from: another model of the same data, with the chain on record; the state of an optimiser."""

import json
import shutil

import pytest
import runs
import small
import torch
from runs import fold

from autoseg.bundle import weights
from autoseg.bundle.card import write_model_card
from autoseg.cli import export_bundle, train
from autoseg.files import hash_file
from autoseg.training import checkpoint

pytestmark = pytest.mark.slow

STILL = ("stages.0.epochs=1", "stages.0.optimiser.arguments.lr=0", "stages.0.iterations_per_epoch=1")
"""A training that changes nothing."""


def start(**settings) -> str:
    return f"stages.0.start={json.dumps(settings)}"


def model(root, name):
    return root / "results" / small.NAME / name


def trained_from(name, *settings) -> int:
    return train.main(["1", "0", "-device", "cpu", "-name", name, "--set", *STILL, *settings])


def final(root, name):
    return weights.read(model(root, name) / "fold_0" / "weights" / "member0.train.safetensors")


def test_a_model_goes_on_from_another_and_the_chain_is_on_record(trained):
    assert trained_from("unet__second", start(model="unet__unet")) == 0
    assert runs.same(runs.final(trained), final(trained, "unet__second").tensors)
    first = fold(trained) / "weights" / "member0.train.safetensors"
    record = final(trained, "unet__second").info.start
    assert record["sha256"] == hash_file(first) and record["model"] == "unet__unet"
    assert record["plan_hash"] == weights.read_info(first).plan_hash
    assert record["file"] == "fold_0/weights/member0.train.safetensors" and "start" not in record
    assert trained_from("unet__third", start(model="unet__second", stage="train", fold=0)) == 0
    third = final(trained, "unet__third").info.start
    assert third["model"] == "unet__second" and third["start"] == record


def test_a_stopped_training_keeps_the_record_of_its_start(trained, monkeypatch):
    """It is written down at the start: the other model may be another one when the training goes on."""
    assert trained_from("unet__second", start(model="unet__unet")) == 0
    record = final(trained, "unet__second").info.start
    settings = [start(model="unet__unet"), "stages.0.iterations_per_epoch=3"]
    with monkeypatch.context() as patch:
        runs.stop_after(patch, 2)
        assert trained_from("unet__third", *settings) != 0
    name = "fold_0/weights/member0.train.safetensors"
    shutil.copy(model(trained, "unet__second") / name, model(trained, "unet__unet") / name)
    write_model_card(model(trained, "unet__unet"))
    command = ["1", "0", "-device", "cpu", "-name", "unet__third", "--c", "--set", *STILL, *settings]
    assert train.main(command) == 0
    assert hash_file(model(trained, "unet__unet") / name) != record["sha256"]
    assert final(trained, "unet__third").info.start == record


def test_an_exported_model_is_a_start_too(trained, tmp_path):
    target = tmp_path / "model.zip"
    assert export_bundle.main(["-d", "1", "-o", str(target)]) == 0
    assert trained_from("unet__second", start(model=str(target), weights="final")) == 0
    assert runs.same(runs.final(trained), final(trained, "unet__second").tensors)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "unet__other"}, "there is no model 'unet__other' to start from"),
        ({"model": "unet__unet", "stage": "second"}, "the model to start from has no such stage"),
        ({"model": "unet__unet", "fold": 3}, "no fold_3/weights/member0.train.safetensors"),
    ],
)
def test_a_start_that_is_not_there_is_refused_before_the_training(trained, settings, words, capfd):
    assert trained_from("unet__second", start(**settings)) == 1
    assert words in capfd.readouterr().err
    assert not model(trained, "unet__second").exists()


def test_a_start_that_was_changed_after_its_training_is_refused(trained, capfd):
    path = fold(trained) / "weights" / "member0.train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert trained_from("unet__second", start(model="unet__unet")) == 1
    text = capfd.readouterr().err
    assert "member0.train.safetensors" in text and "was changed or damaged after the training" in text
    assert not model(trained, "unet__second").exists()


OTHER = (
    'networks.main.arguments={"n_stages": 2, "features_per_stage": [4, 12], "kernel_sizes": [[3,3,3],[3,3,3]], '
    '"strides": [[1,1,1],[2,2,2]], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "deep_supervision": true}'
)


def test_another_network_takes_what_fits_only_if_asked_to(trained, capfd):
    assert trained_from("unet__second", OTHER, start(model="unet__unet")) == 1
    assert "the weights do not fit the network of the plan" in capfd.readouterr().err
    assert not model(trained, "unet__second").exists()
    assert trained_from("unet__second", OTHER, start(model="unet__unet", partial=True)) == 0
    assert "tensors start fresh" in capfd.readouterr().err
    one, two = runs.final(trained), final(trained, "unet__second").tensors
    alike = {name for name in one if one[name].shape == two[name].shape}
    assert 0 < len(alike) < len(one) and all(torch.equal(one[name], two[name]) for name in alike)


# ------------------------------------------------------------------------------------------ the optimiser's state


@pytest.fixture(scope="module")
def continued(prepared, tmp_path_factory):
    """Two stages, of which the second goes on with the optimiser of the first."""
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("continued") / "work")
        path = next((root / "preprocessed").glob("*/unet/plan.json"))
        content = json.loads(path.read_text())
        first = {**content["recipe"]["stages"][0], "iterations_per_epoch": 2, "epochs": 2}
        second = {**first, "name": "second", "start": "previous", "optimiser_state": "previous"}
        content["recipe"]["stages"] = [first, second]
        path.write_text(json.dumps(content))
        assert train.main(["1", "0", "-device", "cpu"]) == 0
    return root


def second_weights(root):
    return weights.read(fold(root) / "weights" / "member0.second.safetensors").tensors


def test_a_stage_goes_on_with_the_optimiser_of_the_one_before(continued, tmp_path, monkeypatch):
    kept = fold(continued) / "optimiser"
    assert [path.name for path in kept.iterdir()] == ["member0.train.safetensors"]
    state = checkpoint.load(kept / "member0.train.safetensors").optimiser["state"]
    assert state and all((entry["momentum_buffer"] != 0).any() for entry in state.values())
    root = runs.copied(monkeypatch, continued, tmp_path / "work")
    settings = ["--redo_from", "second", "--set", "stages.second.optimiser_state=fresh"]
    assert train.main(["1", "0", "-device", "cpu", *settings]) == 0
    assert not runs.same(second_weights(root), second_weights(continued))


@pytest.mark.parametrize("iterations", [3, 4, 5])
def test_a_stop_around_the_change_of_stages_loses_no_state(continued, tmp_path, monkeypatch, iterations):
    root = runs.copied(monkeypatch, continued, tmp_path / "work")
    shutil.rmtree(fold(root))
    with monkeypatch.context() as patch:
        runs.stop_after(patch, iterations)
        assert train.main(["1", "0", "-device", "cpu"]) != 0
    assert train.main(["1", "0", "-device", "cpu", "--c"]) == 0
    assert runs.same(second_weights(root), second_weights(continued))


def test_a_redo_of_the_second_stage_has_the_state(continued, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, continued, tmp_path / "work")
    assert train.main(["1", "0", "-device", "cpu", "--redo_from", "second"]) == 0
    assert runs.same(second_weights(root), second_weights(continued))


def test_another_optimiser_cannot_go_on(continued, tmp_path, monkeypatch, capfd):
    root = runs.copied(monkeypatch, continued, tmp_path / "work")
    frozen = 'stages.second.frozen=["encoder.*"]'
    assert train.main(["1", "0", "-device", "cpu", "--redo_from", "second", "--set", frozen]) == 1
    text = capfd.readouterr().err
    assert "cannot go on with the optimiser of stage 'train'" in text and "optimiser_state=fresh" in text
    assert (fold(root) / "weights" / "member0.train.safetensors").exists()
