"""A checkpoint gives back what was saved; a damaged one is explained."""

import pytest
import torch

from autoseg.errors import AutosegError
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Checkpoint, Position


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


def test_a_missing_checkpoint_is_explained(tmp_path):
    with pytest.raises(AutosegError, match="no checkpoint to continue from"):
        checkpoint.load(tmp_path / "none.safetensors")
