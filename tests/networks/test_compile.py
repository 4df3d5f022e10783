"""Every registered network, compiled and exported: one graph, the same numbers, images of any size."""

from functools import partial

import network_cases
import pytest
import torch
from torch import nn

from autoseg import networks

CASES = [case for case in network_cases.CASES if case.id.endswith("-0")]  # one of each: it takes seconds


def first(outputs) -> torch.Tensor:
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def gradients(network: nn.Module, forward, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of all parameters, after one forward and backward pass; dropout draws the same."""
    network.zero_grad()
    torch.manual_seed(0)
    outputs = forward(image)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    sum(output.square().mean() for output in outputs).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.fixture(autouse=True)
def forget():
    """What was compiled before does not count for the next network."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_training_step_is_one_graph(name, variant):
    """``fullgraph`` refuses every break. aot_eager traces the backward pass too, and computes with torch's kernels."""
    network = network_cases.make(name, narrow(name, variant)).train()
    image = network_cases.image(name, variant, batch=2)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # compiled, its numbers are drawn in another order
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    found, expected = gradients(network, compiled, image), gradients(network, network, image)
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    assert max(float((found[key] - expected[key]).abs().max()) for key in expected) <= 1e-5 * largest


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_an_exported_network_takes_images_of_any_size(name, variant):
    """In every axis that it does not fix: a classifier takes batches of any number, all others whole images.

    DeepMedic's graph holds for sizes of the same remainder by the factor of its coarse pathway; Brain SegNet refines
    planes in a loop, so that their number stays.
    """
    row = networks.REGISTRY.get(name)
    network = network_cases.make(name, narrow(name, variant)).eval()
    image_of = partial(network_cases.image, name, variant, 1, 1)
    image = image_of(17)  # a coarsest map of one voxel would count as fixed
    fixed = FIXED.get(name, ())
    axes = [0] if row.classifies else [axis for axis in range(2, image.dim()) if axis not in fixed]
    sizes = (dict.fromkeys(axes, torch.export.Dim.AUTO),)
    given = network_cases.image(name, variant, batch=2) if row.classifies else image
    with torch.no_grad():
        exported = torch.export.export(network, (given,), dynamic_shapes=sizes).module()
        if row.classifies:
            other = network_cases.image(name, variant, batch=3)
        else:
            other = image_of(OTHER.get(name, 25))
        for axis in fixed:
            other = other.narrow(axis, 0, image.shape[axis])
        for one in (given, other):
            torch.testing.assert_close(first(exported(one)), first(network(one)), rtol=1e-4, atol=1e-5)


def narrow(name: str, variant: dict) -> dict:
    """Few feature maps, where the network has an argument for that."""
    return {**variant, **WIDTHS.get(name, {})}


OTHER = {"deepmedic": 23}
"""About the size of another image; see the test."""
FIXED = {"brainsegnet": (2,)}
"""Axes of the image that a graph fixes."""
WIDTHS = {
    **{
        name: {"width": 4}
        for name in ("ratlesnetv2", "voxresnet", "unet3d", "edd", "deconvnet", "edd_unet", "edd_fcn")
    },
    **{name: {"width": 4} for name in ("edd_deeplab", "muscle")},
    "ratlesnet": {"growth": 4},
    "resunet": {"width": 16},
    "brainsegnet": {"width": 4, "refine_width": 8},
}
"""A network that is not here is compiled at its own width."""
