"""What is particular to RatLesNetv2: memory that is saved without a change of values, and recognised weights.

The published numbers are tested in tests/conformance/test_ratlesnetv2.py.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.trainers._ratlesnetv2_weights import recognise_network
from autoseg.training import losses

SIZE = (18, 256, 256)
VOXELS = math.prod(SIZE)
PUBLISHED_TRAINING_ELEMENTS = 917_341_760
VARIANTS = [
    {},
    {"levels": 2, "width": 6},
    {"levels": 1, "width": 6},
    {"block": "dense", "width": 6},
]


@pytest.fixture(scope="session")
def live_memory():
    """The class that counts live tensors, from benchmarks/."""
    path = Path(__file__).parents[2] / "benchmarks/live_memory.py"
    spec = importlib.util.spec_from_file_location("live_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LiveMemory


def make(**arguments) -> nn.Module:
    torch.manual_seed(0)
    network = networks.build("ratlesnetv2", in_channels=1, out_channels=2, **arguments)
    for module in network.modules():  # statistics and affine parts that matter
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.add_(torch.rand_like(tensor))
    return network


def image(*size: int) -> torch.Tensor:
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arguments", VARIANTS)
def test_checkpointing_changes_no_digit(arguments):
    plain, saving = make(**arguments).train(), make(checkpointing=True, **arguments).train()
    for _ in range(2):
        for network in (plain, saving):
            network(image(7, 18, 13)).square().mean().backward()
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(plain.parameters(), saving.parameters(), strict=True)
    )
    assert all(torch.equal(p, q) for p, q in zip(plain.buffers(), saving.buffers(), strict=True))


@pytest.mark.parametrize("arguments", VARIANTS)
def test_prediction_in_place_gives_what_the_plain_layers_give(arguments):
    network, given = make(**arguments).eval(), image(7, 18, 13)
    before, state = given.clone(), copy.deepcopy(network.state_dict())
    plain = network(given).detach()
    with torch.no_grad():
        assert torch.allclose(network(given), plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
    assert torch.equal(given, before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_training_without_gradients_moves_the_statistics_as_training_does():
    one, two = make(width=4).train(), make(width=4).train()
    with torch.no_grad():
        first = one(image(7, 18, 13))
    assert torch.allclose(first, two(image(7, 18, 13)), atol=1e-5)
    assert all(torch.allclose(p, q) for p, q in zip(one.buffers(), two.buffers(), strict=True))


def test_compiled_with_checkpointing():
    network, reference = make(width=4, checkpointing=True).train(), make(width=4).train()
    torch.compile(network, backend="eager")(image(4, 20, 16)).square().mean().backward()
    reference(image(4, 20, 16)).square().mean().backward()
    pairs = zip(network.parameters(), reference.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5) for p, q in pairs)


def on_meta(network_arguments: dict) -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    with torch.device("meta"):
        network = networks.build("ratlesnetv2", in_channels=1, out_channels=2, **network_arguments)
        loss = losses.build("ratlesnetv2", labels=LabelSet.from_labels({"background": 0, "lesion": 1}))
        return network, loss, torch.zeros(1, 1, *SIZE), torch.zeros(1, *SIZE, dtype=torch.uint8)


@pytest.mark.parametrize("width", [28, 32])
def test_training_needs_at_most_70_percent_of_the_published_memory(live_memory, width):
    network, loss, x, label = on_meta({"width": width, "checkpointing": True})
    with live_memory([x], [*network.parameters(), *network.buffers(), *loss.buffers()]) as memory:
        loss(network.train()(x), label).backward()
    assert memory.peak <= 0.70 * PUBLISHED_TRAINING_ELEMENTS * width / 32


def test_prediction_needs_at_most_192_elements_per_voxel(live_memory):
    network, _, x, _ = on_meta({})
    network.eval()
    with torch.no_grad(), live_memory([x], [*network.parameters(), *network.buffers()]) as memory:
        assert network(x).shape == (1, 2, *SIZE)
    assert memory.peak <= 192 * VOXELS


def test_counted_memory_by_hand(live_memory):
    x = torch.zeros(10)
    with live_memory([x]) as memory:
        y = x + 1
        z = y.view(2, 5) * 2
        del y
        assert memory.now == 20 and memory.peak == 30
        del z
    assert memory.now == 10


@pytest.mark.parametrize("size", [(1, 20, 17), (4, 33, 20)])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("ratlesnetv2", arguments) for arguments in VARIANTS),
        ("ratlesnet", {}),
        ("voxresnet", {}),
        ("voxresnet", {"upsampling_kernel": "double_stride"}),
        ("unet3d", {"width": 4}),
    ],
)
def test_one_slice_and_four_slices_work(name, arguments, size):
    network = networks.build(name, in_channels=1, out_channels=2, **arguments)
    for mode in (True, False):
        assert network.train(mode)(image(*size)).shape == (1, 2, *size)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ratlesnetv2", {}),
        ("ratlesnetv2", {"block": "dense"}),
        ("voxresnet", {}),
        ("ratlesnet", {}),
        ("unet3d", {}),
    ],
)
def test_initialisation(name, arguments):
    torch.manual_seed(0)
    network = networks.build(name, in_channels=1, out_channels=2, **arguments)
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            fan_in = module.weight[0].numel()
            assert not module.bias.any()
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
                assert module.weight.mean().item() == pytest.approx(0, abs=0.05 * math.sqrt(2 / fan_in))
        if isinstance(module, nn.ConvTranspose3d):  # PyTorch's own
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound and module.weight.std().item() > bound / 2
            assert module.bias.any()


def test_wrong_arguments_are_explained():
    for arguments in ({"levels": 4}, {"levels": 0}, {"width": 0}):
        with pytest.raises(AutosegError, match=r"RatLesNetv2 do not fit[\s\S]*1, 2 or 3 levels"):
            make(**arguments)
    with pytest.raises(AutosegError, match=r"no block 'densenet'[\s\S]*residual or dense"):
        make(block="densenet")


NETWORKS = [
    ("ratlesnetv2", {"width": 28, "levels": 3, "block": "residual"}),
    ("ratlesnetv2", {"width": 39, "levels": 2, "block": "residual"}),
    ("ratlesnetv2", {"width": 26, "levels": 3, "block": "dense"}),
    ("ratlesnet", {"width": 12}),
    ("voxresnet", {"width": 32}),
    ("unet3d", {"width": 32}),
]


def state_of(name: str, arguments: dict) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return networks.build(name, in_channels=1, out_channels=2, **arguments).state_dict()


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_weights_are_recognised(name, arguments):
    found = recognise_network(state_of(name, arguments))
    assert found == (name, {"in_channels": 1, "out_channels": 2, **arguments})


def test_other_weights_are_refused():
    unet = {"features_per_stage": [8, 16], "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}
    for state in (state_of("unet", unet), {"conv1.weight": torch.zeros(64, 3, 7, 7)}, {}):
        with pytest.raises(AutosegError, match=r"some.model: these are not weights of RatLesNetv2"):
            recognise_network(state, "some.model")


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_incomplete_weights_are_refused(name, arguments):
    state = state_of(name, arguments)
    inner = list(state)[len(state) // 2]
    without = {key: value for key, value in state.items() if key != inner}
    with pytest.raises(
        AutosegError, match=rf"not the weights of a '{name}'[\s\S]*1 missing, such as {inner}"
    ):
        recognise_network(without)
    with pytest.raises(AutosegError, match="1 unknown, such as extra"):
        recognise_network({**state, "extra": torch.zeros(1)})
    with pytest.raises(AutosegError, match=f"1 of another shape, such as {inner}"):
        recognise_network({**state, inner: torch.zeros(3, 3)})


def test_upsampled_comes_before_the_skip():
    """The published order of channels, seen by blanking each half of the weights that read them."""
    network = make(width=2, levels=1).eval()
    seen = []
    norm = network.block6.seq[1]
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    low = []
    network.bottleneck3.register_forward_hook(lambda *_: low.append(_[2]))
    network(image(5, 6, 7))
    expected = F.interpolate(low[0], (5, 6, 7), mode="trilinear").relu()
    assert torch.allclose(seen[0][:, :2], expected, atol=1e-6)
