"""One sweep over all registered networks: a new family is tested without a new test.

A network is built with its own defaults, or with the variants listed in ``VARIANTS``. Its row says what its inputs must
be divisible by (one number per axis, which also gives the number of axes), how much context it takes, and whether it
classifies patches of that size, so that its outputs have no axes of space.
"""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save

from autoseg import networks
from autoseg.errors import AutosegError

SMALL_3D = {"features_per_stage": [8, 16, 24]}
SMALL_3D |= {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
SMALL_2D = {"features_per_stage": [8, 16, 24]}
SMALL_2D |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
DEEPMEDIC = {"feature_maps": [4, 5, 6], "shortcuts": [[2, 3]], "common_maps": [8, 8]}
VARIANTS: dict[str, list[dict]] = {
    "deepmedic": [DEEPMEDIC, {**DEEPMEDIC, "factors": [[3, 3, 3], [1, 2, 5]], "shift": 1}],
    "unet": [SMALL_3D, SMALL_2D],
    "unet_resenc": [{**v, "n_blocks_per_stage": [1, 2, 2]} for v in (SMALL_3D, SMALL_2D)],
}
CASES = [
    pytest.param(name, variant, id=f"{name}-{i}")
    for name in networks.REGISTRY.names()
    for i, variant in enumerate(VARIANTS.get(name, [{}]))
]


def make(name: str, variant: dict, channels: int = 1, outputs: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build(name, in_channels=channels, out_channels=outputs, **variant)


def image(name: str, variant: dict, channels: int = 1, batch: int = 1, about: int = 13) -> torch.Tensor:
    """Random numbers of an odd size where the network allows it; different along every axis, with its context."""
    row = networks.REGISTRY.get(name)
    divisor, context = row.divisor_of(variant), row.context_of(variant)
    edges = [about + 2 * axis for axis in range(len(divisor))]
    size = [-(-edge // d) * d + 2 * c for edge, d, c in zip(edges, divisor, context, strict=True)]
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def space(name: str, variant: dict, batch: torch.Tensor) -> tuple[int, ...]:
    """The axes that the output has beside batch and channels."""
    row = networks.REGISTRY.get(name)
    if row.classifies:
        return ()
    return tuple(n - 2 * c for n, c in zip(batch.shape[2:], row.context_of(variant), strict=True))


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
