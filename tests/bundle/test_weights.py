"""Weight files: what goes in comes out, and everything else is explained."""

import json

import pytest
import torch
from torch import nn

from autoseg.bundle.weights import load_network, read, read_info, restamp, save, write_tensors
from autoseg.errors import AutosegError

FACTS = {"network": "main", "stage": "train", "member": 0, "epoch": 3, "plan_hash": "abc"}


class Shared(nn.Module):
    """A decoder that holds its encoder, as U-Nets do."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv3d(1, 2, 1)
        self.decoder = nn.ModuleDict({"encoder": self.encoder, "head": nn.Conv3d(2, 2, 1)})


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_round_trip_with_metadata_and_shared_parameters(tmp_path):
    network, other = Shared(), Shared()
    path = tmp_path / "w.safetensors"
    save(path, network, **FACTS)
    info = read(path).info
    assert info == read_info(path) and {k: getattr(info, k) for k in FACTS} == FACTS
    tensors = read(path).tensors
    assert len(tensors) == 4 and len(network.state_dict()) == 6
    load_network(other, tensors, where="w")
    assert same(network, other)


def test_a_state_dict_of_copies_loads_too(tmp_path):
    network, other = Shared(), Shared()
    path = tmp_path / "w.safetensors"
    save(path, {f"_orig_mod.{k}": v.clone() for k, v in network.state_dict().items()}, **FACTS)
    load_network(other, read(path).tensors, where="w")
    assert same(network, other)


def test_every_difference_is_said_and_nothing_is_changed(tmp_path):
    path = tmp_path / "w.safetensors"
    save(path, nn.Sequential(nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1)), **FACTS)
    network = nn.Sequential(nn.Conv3d(1, 4, 1, bias=False), nn.Identity(), nn.Conv3d(4, 2, 1))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(AutosegError) as error:
        load_network(network, read(path).tensors, where=str(path))
    text = str(error.value)
    assert "2 missing (first: 2.bias, 2.weight)" in text
    assert "3 unknown (first: 0.bias, 1.bias, 1.weight)" in text
    assert "0.weight: (2, 1, 1, 1, 1) instead of (4, 1, 1, 1, 1)" in text
    assert str(path) in text and "plan.json" in text
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save(path, nn.Conv3d(1, 2, 1), **FACTS)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-5], "text": b"hello", "empty": b""}[damage])
    for reader in (read_info, read):
        with pytest.raises(AutosegError, match="(?s)w.safetensors: the weight file is damaged.*do:"):
            reader(path)


def test_a_missing_file_and_a_foreign_one(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(AutosegError, match="the weight file is missing"):
        read(tmp_path / "no.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(AutosegError, match="does not say what it belongs to"):
        read_info(tmp_path / "foreign.safetensors")


def test_the_same_weights_make_the_same_file(tmp_path):
    network, files = Shared(), set()
    for i in range(6):
        save(tmp_path / f"{i}.safetensors", network, **FACTS)
        files.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(files) == 1


def test_facts_of_the_training_travel_with_the_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save(path, Shared(), **FACTS, facts={"real": 12, "false": 0})
    assert read_info(path).facts == {"real": 12, "false": 0}
    save(path, Shared(), **FACTS)
    assert read_info(path).facts == {}


def test_a_new_stamp_changes_the_plan_alone(tmp_path):
    path, network = tmp_path / "w.safetensors", Shared()
    save(path, network, **FACTS, facts={"real": 1})
    restamp(path, "def")
    info = read_info(path)
    assert (info.plan_hash, info.epoch, info.facts) == ("def", 3, {"real": 1})
    other = Shared()
    load_network(other, read(path).tensors, where="w")
    assert same(network, other)


@pytest.mark.parametrize(
    ("shape", "offsets", "words"),
    [
        ([10**10], [0, 4 * 10**10], "damaged"),
        ([10**10], [0, 8], "damaged"),
        ([2**40, 2**40], [0, 8], "damaged"),
        ([2], [8, 0], "damaged"),
    ],
)
def test_a_header_that_claims_more_than_the_file_has(shape, offsets, words, tmp_path):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"__metadata__": {"network": "main"}, "w": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(AutosegError, match=words):
        read(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"member": "-1"},
        {"epoch": "x"},
        {"facts": "[]"},
        {"facts": '{"a": []}'},
        {"start": "[1]"},
        {"facts": "["},
    ],
)
def test_metadata_of_other_types(changes, tmp_path):
    metadata = {
        "network": "main",
        "stage": "s",
        "member": "0",
        "epoch": "1",
        "plan_hash": "x",
        "autoseg_version": "0",
    }
    write_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(1)}, {**metadata, **changes})
    with pytest.raises(AutosegError, match="does not say what it belongs to"):
        read_info(tmp_path / "w.safetensors")


def test_a_file_under_the_name_of_another_is_refused(tmp_path):
    """The weights of member 1, or of another epoch, copied over those of member 0."""
    for name in ("member0.train", "member0.train.best", "member0.train.epoch3"):
        save(tmp_path / f"{name}.safetensors", Shared(), **FACTS)
        assert read_info(tmp_path / f"{name}.safetensors").member == 0
    for name in ("member1.train", "member0.other", "member0.train.epoch4"):
        save(tmp_path / f"{name}.safetensors", Shared(), **FACTS)
        with pytest.raises(
            AutosegError, match="(?s)under the name of another.*member 0, stage train, epoch 3"
        ):
            read(tmp_path / f"{name}.safetensors")


def test_whole_numbers_stay_where_the_network_counts(tmp_path):
    """Batch normalisation counts its batches in int64."""
    network, path = nn.BatchNorm3d(2), tmp_path / "w.safetensors"
    save(path, network, **FACTS)
    load_network(nn.BatchNorm3d(2), read(path).tensors, where="w")
