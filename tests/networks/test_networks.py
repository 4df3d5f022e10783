"""One sweep over all registered networks: a new family is tested without a new test."""

from __future__ import annotations

import copy

import pytest
import torch
from network_cases import CASES, image, make, space
from safetensors.torch import load, save

from autoseg import networks
from autoseg.errors import AutosegError


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_forward_and_backward(name, variant, channels):
    network = make(name, variant, channels, outputs=3).train()
    batch = image(name, variant, channels, batch=2)
    outputs = network(batch)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    assert outputs[0].shape == (2, 3, *space(name, variant, batch))
    assert all(coarse.shape[2:] <= fine.shape[2:] for fine, coarse in zip(outputs, outputs[1:], strict=False))
    sum((output**2).mean() for output in outputs).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_evaluation_mode_gives_one_tensor_and_does_not_depend_on_the_batch(name, variant):
    network = make(name, variant).eval()
    batch = image(name, variant, batch=2)
    with torch.no_grad():
        both, first = network(batch), network(batch[:1])
    assert both.shape == (2, 2, *space(name, variant, batch))
    assert torch.allclose(both[:1], first, atol=1e-4)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_weights_go_through_safetensors(name, variant):
    network = make(name, variant).eval()
    stored = load(save({key: value.contiguous() for key, value in network.state_dict().items()}))
    torch.manual_seed(5)
    other = networks.build(name, in_channels=1, out_channels=2, **variant).eval()
    other.load_state_dict(stored)
    with torch.no_grad():
        assert torch.equal(network(image(name, variant)), other(image(name, variant)))
    other.train()
    assert list(other.state_dict()) == list(network.state_dict())


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_the_same_seed_gives_the_same_weights(name, variant):
    one, two = make(name, variant).state_dict(), make(name, variant).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_copies_and_exports(name, variant):
    network = make(name, variant).eval()
    batch = image(name, variant)
    with torch.no_grad():
        expected = network(batch)
        assert torch.equal(copy.deepcopy(network)(batch), expected)
        exported = torch.export.export(network, (batch,)).module()
        assert torch.allclose(exported(batch), expected, atol=1e-5)


def test_unknown_names_and_arguments_are_explained():
    with pytest.raises(AutosegError, match=r"no network 'unett'[\s\S]*did you mean unet"):
        networks.build("unett", in_channels=1, out_channels=2)
    with pytest.raises(AutosegError, match=r"do not fit the network 'unet'[\s\S]*depth"):
        networks.build("unet", in_channels=1, out_channels=2, depth=3)
