"""What is particular to the general U-Nets: nnU-Net's layers, weights and parameter counts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.networks.unet import LeakyReLU

SHAPE = {"features_per_stage": [8, 16, 24], "kernel_sizes": [[3, 3, 3]] * 3}
SHAPE |= {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}


def nnunet_arguments(n_stages: int = 6) -> dict:
    """The network that nnU-Net plans for a patch of 128^3."""
    return {
        "n_stages": n_stages,
        "features_per_stage": [min(320, 32 * 2**i) for i in range(n_stages)],
        "kernel_sizes": [[3, 3, 3]] * n_stages,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (n_stages - 1)],
    }


@pytest.mark.parametrize(("name", "millions"), [("unet", 31.20), ("unet_resenc", 102.35)])
def test_parameter_counts_are_nnunets(name, millions):
    arguments = nnunet_arguments()
    with torch.device("meta"):
        network = networks.build(name, in_channels=1, out_channels=2, **arguments)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert network.divisor == (32, 32, 32)


@pytest.mark.parametrize("name", ["unet", "unet_resenc"])
def test_weights_of_nnunet_itself_fit_by_name(name):
    """The original holds each convolution twice; what is kept has its names and gives its output."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    arguments = {**SHAPE, "n_conv_per_stage_decoder": [2, 2]}
    extra = {"n_conv_per_stage": [2, 2, 2]} if name == "unet" else {"n_blocks_per_stage": [1, 3, 4]}
    theirs = (PlainConvUNet if name == "unet" else ResidualEncoderUNet)(
        input_channels=2,
        n_stages=3,
        conv_op=nn.Conv3d,
        num_classes=3,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **arguments,
        **extra,
    ).eval()
    ours = networks.build(name, in_channels=2, out_channels=3, **arguments, **extra).eval()
    foreign = theirs.state_dict()
    assert set(ours.state_dict()) < set(foreign)
    assert {id(p) for p in ours.parameters()} and len(list(ours.parameters())) == len(
        list(theirs.parameters())
    )
    ours.load_state_dict({key: foreign[key] for key in ours.state_dict()})
    batch = torch.rand(1, 2, 8, 16, 12)
    with torch.no_grad():
        assert torch.equal(ours(batch), theirs(batch))


def test_every_tensor_has_one_name():
    for name in ("unet", "unet_resenc"):
        state = networks.build(name, in_channels=1, out_channels=2).state_dict()
        assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_layers_are_nnunets():
    network = networks.build("unet", in_channels=1, out_channels=2, **SHAPE)
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm3d)]
    activations = [m for m in network.modules() if isinstance(m, nn.LeakyReLU)]
    assert len(norms) == len(activations) == 2 * 3 + 2 * 2
    assert all(m.eps == 1e-5 and m.affine and not m.track_running_stats for m in norms)
    assert all(m.negative_slope == 0.01 for m in activations)
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv3d))


def graph(tensor):
    """Names of the nodes of the backward pass."""
    seen, stack = {}, [tensor.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen[node] = type(node).__name__
            stack += [following for following, _ in node.next_functions]
    return list(seen.values())


def test_an_activation_is_torchs_without_the_copies_of_one_in_place():
    x = torch.linspace(-2, 2, 4096).view(1, 2, 8, 16, 16)
    found = []
    for activation in (LeakyReLU(0.01), nn.LeakyReLU(0.01, inplace=True)):
        given = x.clone().requires_grad_()
        result = activation(F.instance_norm(given * given))
        (result * torch.linspace(0, 1, 4096).view_as(result)).sum().backward()
        found.append((graph(result), result.detach(), given.grad))
    assert torch.equal(found[0][1], found[1][1]) and torch.equal(found[0][2], found[1][2])
    assert "CopySlices" in found[1][0] or "AsStridedBackward0" in found[1][0]
    assert not {"CopySlices", "AsStridedBackward0"} & set(found[0][0])
    with torch.no_grad():  # there it is in place
        given = x.clone()
        assert LeakyReLU(0.01)(given).data_ptr() == given.data_ptr()
        assert torch.equal(given, F.leaky_relu(x, 0.01))


@pytest.mark.parametrize("name", ["unet", "unet_resenc"])
def test_weights_start_as_he_proposed(name):
    torch.manual_seed(0)
    network = networks.build(
        name, in_channels=1, out_channels=2, **{**SHAPE, "features_per_stage": [32, 64, 64]}
    )
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            fan_in = nn.init._calculate_fan_in_and_fan_out(module.weight)[0]
            expected = math.sqrt(2 / (1 + 1e-2**2) / fan_in)
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert module.bias is None or not module.bias.any()
    closed = [
        key for key, value in network.state_dict().items() if "norm" not in key and value.any().logical_not()
    ]
    last_norms = [key for key in closed if key.endswith("conv2.all_modules.1.weight")]
    assert len(last_norms) == (0 if name == "unet" else 1 + 3 + 4)  # residual branches start at zero


def test_deep_supervision_follows_the_mode():
    network = networks.build("unet", in_channels=1, out_channels=2, **SHAPE)
    batch = torch.rand(1, 1, 8, 16, 12)
    outputs = network(batch)
    assert [tuple(o.shape[2:]) for o in outputs] == [(8, 16, 12), (8, 8, 6)]
    assert isinstance(nn.Sequential(network).eval()[0](batch), torch.Tensor)
    assert isinstance(network.train()(batch), list)
    single = networks.build("unet", in_channels=1, out_channels=2, deep_supervision=False, **SHAPE)
    assert isinstance(single.train()(batch), torch.Tensor)


def test_a_size_that_does_not_divide_is_refused():
    network = networks.build("unet", in_channels=1, out_channels=2, **SHAPE)
    with pytest.raises(AutosegError, match=r"found:\s+8 x 15 x 12 voxels[\s\S]*multiples of 2 x 4 x 4"):
        network(torch.rand(1, 1, 8, 15, 12))
    with pytest.raises(AutosegError, match=r"found:\s+16 x 12 voxels[\s\S]*3 axes"):
        network(torch.rand(1, 1, 16, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [[1, 1, 1]]}, r"strides: 1 entry[\s\S]*one entry per stage"),
        ({"n_stages": 4}, r"n_stages 4; features_per_stage: 3 entries"),
        ({"kernel_sizes": [[3, 3]] * 3}, r"with \[2, 3\] numbers"),
        ({"n_conv_per_stage": [2]}, r"n_conv_per_stage: 1 entry[\s\S]*3 entries"),
        ({"n_conv_per_stage_decoder": [2, 2, 2]}, r"n_conv_per_stage_decoder: 3 entries[\s\S]*2 entries"),
    ],
)
def test_lists_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(AutosegError, match=message):
        networks.build("unet", in_channels=1, out_channels=2, **{**SHAPE, **change})
