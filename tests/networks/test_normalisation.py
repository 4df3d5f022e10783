"""Instance normalisation in networks that were published with batch normalisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError

WITH_BATCH_NORMALISATION = [
    ("ratlesnetv2", {"width": 4}),
    ("ratlesnetv2", {"width": 4, "levels": 2}),
    ("ratlesnetv2", {"width": 4, "block": "dense"}),
    ("voxresnet", {"width": 4}),
    ("unet3d", {"width": 2}),
]
sweep = pytest.mark.parametrize(("name", "arguments"), WITH_BATCH_NORMALISATION)


def make(name: str, **arguments) -> nn.Module:
    """A network whose learned scales and shifts are not 1 and 0."""
    torch.manual_seed(0)
    network = networks.build(name, in_channels=1, out_channels=2, **arguments)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.rand(parameter.shape))
    return network


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 1, 9, 18, 13, generator=torch.Generator().manual_seed(1))


@sweep
def test_of_one_image_it_is_batch_normalisation_in_training_mode(name, arguments):
    batch, instance = (
        make(name, **arguments).train(),
        make(name, **arguments, normalisation="instance").train(),
    )
    instance.load_state_dict(dict(batch.named_parameters()))  # all there is: no running averages
    assert torch.allclose(instance(images(1)), batch(images(1)), atol=1e-4)


@sweep
def test_each_image_counts_alone_in_training_and_in_prediction(name, arguments):
    network = make(name, **arguments, normalisation="instance").train()
    trained = network(images(3)).detach()
    network.eval()
    near = 1e-5 * float(trained.abs().max())  # float32, in another order of summation
    with torch.no_grad():
        assert torch.allclose(network(images(3)), trained, atol=near)
        for i in range(3):
            assert torch.allclose(network(images(3)[i : i + 1]), trained[i : i + 1], atol=near)


@pytest.mark.parametrize("block", ["residual", "dense"])
def test_checkpointing_changes_no_digit(block):
    made = [
        make("ratlesnetv2", width=4, block=block, normalisation="instance", checkpointing=saving).train()
        for saving in (False, True)
    ]
    for network in made:
        network(images(2)).square().mean().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(*(n.parameters() for n in made), strict=True))


@sweep
def test_another_kind_is_refused(name, arguments):
    with pytest.raises(
        AutosegError, match=r"(?s)there is no normalisation 'instanse' for .*batch or instance"
    ):
        make(name, **arguments, normalisation="instanse")


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 3, 3), (8, 8, 8)])
def test_images_so_small_that_one_voxel_is_left_at_the_bottom(size):
    network = make("ratlesnetv2", width=4, normalisation="instance").eval()
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 1, *size))).all()
    network.train()(torch.randn(1, 1, *size)).mean().backward()
