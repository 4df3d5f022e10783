"""Precision: what a network computes in, and where its weights lie."""

import pytest
import torch
from torch import nn

from autoseg.device import autocast, lower_precision, place, refuse_tf32, try_convolutions
from autoseg.training import optimisers
from autoseg.training.stage import has_fixed_size

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "expected"), [("auto", None), ("float32", None), ("bfloat16", torch.bfloat16)]
)
def test_a_cpu_computes_in_float32_unless_it_is_asked(precision, expected):
    assert lower_precision(CPU, precision) is expected


def test_mixed_precision_is_on_only_where_there_is_a_type():
    layer, image = nn.Conv2d(1, 2, 3), torch.rand(1, 1, 8, 8)
    with autocast(CPU, None):
        assert layer(image).dtype is torch.float32
    with autocast(CPU, torch.bfloat16):
        assert layer(image).dtype is torch.bfloat16


@pytest.fixture
def tf32():
    """Whether a card may round to TF32, as torch begins: in convolutions, not in products of matrices."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def test_float32_is_not_tf32_on_a_card(tf32, monkeypatch):
    card = torch.device("cuda")
    refuse_tf32(CPU, None)
    refuse_tf32(card, torch.bfloat16)
    assert tf32() == (True, True)
    network = nn.Conv2d(1, 2, 3)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_: self)  # there is no card here
    place(network, card, lower_precision(card, "float32"))
    assert tf32() == (False, False)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_placed_network_is_the_same_network(dims):
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    network = nn.Sequential(conv(1, 8, 3), nn.ReLU(), conv(8, 2, 3))
    image = torch.rand(1, 1, *[9] * dims)
    before, parameters = network(image), list(network.parameters())
    weights = [p.detach().clone() for p in parameters]
    placed = place(network, CPU, torch.bfloat16)
    # an optimiser still holds them
    assert all(a is b for a, b in zip(placed.parameters(), parameters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(parameters, weights, strict=True))
    torch.testing.assert_close(placed(image), before)


@pytest.fixture
def benchmark():
    kept = torch.backends.cudnn.benchmark
    yield lambda: torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = kept


def test_cudnn_tries_its_ways_only_where_sizes_come_back(benchmark):
    try_convolutions(CPU, alike=True)
    assert not benchmark()
    for alike in (True, False):
        try_convolutions(torch.device("cuda"), alike=alike)
        assert benchmark() is alike


@pytest.mark.parametrize(
    ("patch", "fixed"), [([8, 8, 8], True), ([8, 8], True), ([], False), (["whole", 8, 8], False)]
)
def test_a_size_is_fixed_without_whole_axes(patch, fixed):
    assert has_fixed_size(patch) is fixed


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_fused_optimiser_makes_the_same_steps(name, monkeypatch):
    """On a card one kernel updates many weights; a CPU has such kernels too, which are not used by default."""
    found = []
    for fused in (False, True):
        monkeypatch.setattr(optimisers, "fuses", lambda device, fused=fused: fused)
        weights = [nn.Parameter(torch.linspace(-1, 1, n)) for n in (5, 8)]
        optimiser = optimisers.REGISTRY.build(name, weights, lr=0.1, weight_decay=0.01)
        assert bool(optimiser.param_groups[0]["fused"]) is fused
        for step in range(3):
            for weight in weights:
                weight.grad = torch.linspace(1, step, len(weight))
            optimiser.step()
        found.append(torch.cat([weight.detach() for weight in weights]))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)
