"""A checkpoint gives back what was saved; a damaged one is explained."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from autoseg.bundle import weights
from autoseg.errors import AutosegError
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.start import fill_optimiser


def _trained():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(network.parameters(), 0.1)
    network(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    return network, optimiser


def test_round_trip(tmp_path):
    network, optimiser = _trained()
    position = Position(member=1, stage=2, epoch=3, iteration=4, loss_sum=0.1, best=0.25)
    saved = Checkpoint(
        position, "hash", network.state_dict(), optimiser.state_dict(), rng_state=torch.get_rng_state()
    )
    checkpoint.save(tmp_path / "a.safetensors", saved)
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.position == position and loaded.plan_hash == "hash"
    assert torch.equal(loaded.network["weight"], network.weight)
    assert torch.equal(loaded.rng_state, saved.rng_state)
    other, other_optimiser = _trained()
    other_optimiser.load_state_dict(loaded.optimiser)
    one, two = optimiser.state_dict()["state"], other_optimiser.state_dict()["state"]
    assert all(torch.equal(one[i][k], two[i][k]) for i in one for k in one[i])


def test_a_truncated_checkpoint_is_explained(tmp_path):
    network, optimiser = _trained()
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, Checkpoint(Position(), "h", network.state_dict(), optimiser.state_dict()))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(AutosegError, match="the checkpoint is damaged") as caught:
        checkpoint.load(path)
    assert "--overwrite" in str(caught.value)


def test_no_flipped_bit_is_read_as_other_values(tmp_path):
    network, optimiser = _trained()
    path = tmp_path / "a.safetensors"
    saved = Checkpoint(
        Position(epoch=3),
        "h",
        network.state_dict(),
        optimiser.state_dict(),
        cases_hash="c",
        rng_state=torch.ones(3),
    )
    checkpoint.save(path, saved)
    whole, expected, found = path.read_bytes(), _plain(checkpoint.load(path)), 0
    bits = np.random.default_rng(0).choice(8 * len(whole), 600, replace=False)
    for bit in map(int, bits):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert _plain(checkpoint.load(path)) == expected, f"bit {bit}"
        except AutosegError as error:
            found += "damaged" in str(error) or "of another version" in str(error)
    assert found > 550


def _plain(read):
    tensors = {**read.network, "rng": read.rng_state}
    tensors |= {f"{i}/{k}": v for i, s in read.optimiser["state"].items() for k, v in s.items()}
    others = (
        read.position,
        read.plan_hash,
        read.cases_hash,
        read.optimiser["param_groups"],
        read.scaler,
        read.start,
    )
    return others, {k: (v.dtype, v.tolist()) for k, v in tensors.items()}


def test_a_checkpoint_of_an_earlier_autoseg_has_no_checksum(tmp_path, monkeypatch):
    network, optimiser = _trained()
    write = weights.write_tensors

    def without(path, tensors, metadata):
        write(path, tensors, {key: value for key, value in metadata.items() if key != "checksum"})

    monkeypatch.setattr(weights, "write_tensors", without)
    checkpoint.save(tmp_path / "a", Checkpoint(Position(), "h", network.state_dict(), optimiser.state_dict()))
    assert torch.equal(checkpoint.load(tmp_path / "a").network["weight"], network.weight)


def test_a_missing_checkpoint_is_explained(tmp_path):
    with pytest.raises(AutosegError, match="no checkpoint to continue from"):
        checkpoint.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("position", {"epoch": "3"}),
        ("position", {"epoch": -1}),
        ("position", {"epoch": True}),
        ("position", {"epoch": 1.5}),
        ("position", {"speed": 1}),
        ("position", [1, 2]),
        ("optimiser_plain", {"optimiser": 1}),
        ("optimiser_plain", {"optimiser/x/step": 1}),
        ("optimiser_plain", [1]),
        ("scaler", None),
    ],
)
def test_an_edited_checkpoint_is_explained(entry, content, tmp_path):
    network, optimiser = _trained()
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, Checkpoint(Position(), "h", network.state_dict(), optimiser.state_dict()))
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
    metadata[entry] = "[" if content is None else json.dumps(content)
    weights.write_tensors(path, load_file(path), metadata)
    with pytest.raises(AutosegError, match="the checkpoint is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s["param_groups"][0].update(lr="abc"),
        lambda s: s["param_groups"][0].pop("lr"),
        lambda s: s["param_groups"][0].update(params=[0]),
        lambda s: s["param_groups"].append({}),
        lambda s: s["state"].update({7: {"step": torch.zeros(())}}),
        lambda s: s["state"][0].update(exp_avg=torch.zeros(5)),
        lambda s: s["state"].update({0: 3}),
    ],
)
def test_the_state_of_another_optimiser_is_explained(spoil):
    _, optimiser = _trained()
    content = copy.deepcopy(optimiser.state_dict())
    _, fresh = _trained()
    fill_optimiser(fresh, copy.deepcopy(content), where="here")
    spoil(content)
    with pytest.raises(AutosegError, match="here: the state of the optimiser does not fit the plan"):
        fill_optimiser(fresh, content, where="here")
