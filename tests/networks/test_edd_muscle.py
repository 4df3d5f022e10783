"""What is particular to EDD Net, MUSCLE Net and their loss, beyond what the sweeps test."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.networks.edd_muscle import FUSIONS
from autoseg.training import losses

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})
SMALL = {"stacks": (1, 2), "width": 4}


def make(name: str, in_channels: int = 1, out_channels: int = 2, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(name, in_channels=in_channels, out_channels=out_channels, **arguments)


def training_outputs_in_evaluation(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """The list of training mode, with the normalisation of evaluation mode."""
    network.eval()
    network.training = True
    with torch.no_grad():
        return network(image)


# EDD Net -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_of_training_in_their_order(channels):
    network, image = make("edd", channels, **SMALL), torch.rand(2, channels, 9, 12)
    refined, fused, first, second = training_outputs_in_evaluation(network, image)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), refined)
        assert torch.equal(network.branches[0](image), first)
        assert torch.equal(network.branches[1](image), second)
    assert torch.allclose(fused, (first + second) / 2)
    seen = torch.cat([image, fused.softmax(1)[:, 1:]], 1)
    with torch.no_grad():
        assert torch.equal(network.refinement(seen), refined)


def test_every_output_can_be_the_one_that_predicts():
    image = torch.rand(1, 1, 9, 12)
    network = make("edd", **SMALL)
    expected = training_outputs_in_evaluation(network, image)
    for output, known in zip(("refined", "fused", "branch1", "branch2"), expected, strict=True):
        other = make("edd", **SMALL, output=output)
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            assert torch.allclose(other.eval()(image), known, atol=1e-6)


def test_the_refined_output_trains_every_parameter_but_each_branch_its_own():
    network, image = make("edd", **SMALL).train(), torch.rand(2, 1, 8, 8)
    network(image)[0].square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    network.zero_grad()
    network(image)[2].square().mean().backward()
    assert all(p.grad is not None for p in network.branches[0].parameters())
    assert all(p.grad is None for p in [*network.branches[1].parameters(), *network.refinement.parameters()])


def test_more_branches():
    network = make("edd", **SMALL, branches=3).train()
    assert len(network(torch.rand(2, 1, 8, 8))) == 5


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusions_of_a_network_with_itself_decide_as_it_does(fusion):
    logits = torch.randn(2, 3, 4, 5)
    fused = FUSIONS[fusion]([logits, logits])
    assert torch.equal(fused.argmax(1), logits.argmax(1))
    if fusion != "sum_logits":
        assert torch.allclose(fused.softmax(1), logits.softmax(1), atol=1e-6)


def test_mean_of_probabilities_of_surely_opposed_branches_stays_finite():
    opposed = [torch.tensor([300.0, -300.0]).view(1, 2, 1, 1), torch.tensor([-300.0, 300.0]).view(1, 2, 1, 1)]
    assert FUSIONS["mean_probabilities"](opposed).softmax(1).flatten().tolist() == [0.5, 0.5]


def test_edd_refuses_what_it_does_not_know():
    with pytest.raises(AutosegError, match=r"no fusion 'mean'[\s\S]*mean_logits or sum_logits"):
        make("edd", fusion="mean")
    with pytest.raises(AutosegError, match=r"no output 'branch3'[\s\S]*did you mean branch"):
        make("edd", output="branch3")
    with pytest.raises(AutosegError, match=r"branches 0[\s\S]*1 to 64"):
        make("edd", branches=0)


# DeconvNet -----------------------------------------------------------------------------------------------------------


def test_unpooling_puts_each_value_where_its_maximum_was():
    """One value stands out in each window; an odd last row and column hold zeros only."""
    network = make("deconvnet", stacks=(1, 1), width=1).eval()
    seen = []
    network.decoder[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.encoder[0] = nn.Identity()
    image = torch.rand(1, 1, 5, 7)
    image[0, 0, 0, 1] = image[0, 0, 3, 4] = 2
    network.decoder[0] = nn.Sequential(nn.Conv2d(2, 1, 1, bias=True))
    nn.init.zeros_(network.decoder[0][0].weight)
    nn.init.ones_(network.decoder[0][0].bias)
    network(image)
    unpooled = seen[0][0, 0]
    assert unpooled.shape == (5, 7) and unpooled.sum() == 6
    assert unpooled[0, 1] == 1 and unpooled[3, 4] == 1
    assert not unpooled[4].any() and not unpooled[:, 6].any()


@pytest.mark.parametrize("arguments", [{"stacks": (3,)}, {"stacks": (2, 0)}, {"width": 0}])
def test_deconvnet_refuses_what_does_not_fit(arguments):
    with pytest.raises(AutosegError, match="2 to 16 stacks of 1 to 64 convolutions"):
        make("deconvnet", **arguments)


@pytest.mark.parametrize(
    ("name", "least"), [("deconvnet", 4), ("edd", 4), ("edd_unet", 4), ("edd_fcn", 8), ("edd_deeplab", 2)]
)
def test_images_that_pooling_makes_nothing_of_are_refused(name, least):
    network = make(name, width=4).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, least, least + 1)).shape == (1, 2, least, least + 1)
    with pytest.raises(AutosegError, match=rf"{least - 1} x 20 pixels[\s\S]*at least {least} x {least}"):
        network(torch.rand(1, 1, least - 1, 20))


def test_deeplab_pools_with_stride_one_to_the_size_it_had():
    network = make("edd_deeplab", width=2)
    sizes = []
    network.coarse.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[2:]))
    network.atrous.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[2:]))
    network(torch.rand(2, 1, 13, 18))
    assert sizes == [(6, 9), (6, 9)]


# MUSCLE Net ----------------------------------------------------------------------------------------------------------


def test_muscle_takes_patches_of_one_size():
    network = make("muscle", 4)
    row = networks.REGISTRY.get("muscle")
    assert row.classifies and row.divisor_of({}) == (16, 16)
    with pytest.raises(AutosegError, match=r"32 x 32 pixels[\s\S]*16 x 16 pixels"):
        network(torch.rand(2, 4, 32, 32))
    assert make("muscle", 4, patch_size=32)(torch.rand(2, 4, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("arguments", [{"patch_size": 15}, {"width": 0}, {"dropout": 1.0}])
def test_muscle_refuses_what_does_not_fit(arguments):
    with pytest.raises(AutosegError, match=r"arguments of MUSCLE Net do not fit[\s\S]*an even patch_size"):
        make("muscle", **arguments)


# Loss ----------------------------------------------------------------------------------------------------------------


def test_the_loss_is_torchs_cross_entropy_for_slices_and_for_patches():
    loss = losses.build("edd_muscle", labels=LABELS)
    for space in ((5, 7), ()):
        logits, target = torch.randn(3, 2, *space), torch.randint(0, 2, (3, *space))
        assert loss(logits, target).item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-6)


def test_the_loss_weighs_each_output():
    outputs, target = [torch.randn(2, 2, 4, 4) for _ in range(3)], torch.randint(0, 2, (2, 4, 4))
    loss = losses.build("edd_muscle", labels=LABELS, output_weights=[1, 0.5, 2])
    first, second, third = (F.cross_entropy(output, target).item() for output in outputs)
    assert loss(outputs, target).item() == pytest.approx(first + 0.5 * second + 2 * third, rel=1e-6)


def test_the_loss_leaves_out_ignored_pixels():
    labels = LabelSet.from_labels({"background": 0, "core": 1, "rim": 2, "ignore": 3})
    loss = losses.build("edd_muscle", labels=labels)
    logits, target = torch.randn(1, 3, 6, 5), torch.randint(0, 3, (1, 6, 5))
    ignored = target.clone()
    ignored[:, 2:] = 3
    expected = F.cross_entropy(logits[:, :, :2], target[:, :2]).item()
    assert loss(logits, ignored).item() == pytest.approx(expected, rel=1e-6)
    assert loss(logits, torch.full_like(target, 3)).item() == 0


def test_the_loss_follows_the_order_of_names_not_of_values():
    labels = LabelSet.from_labels({"background": 0, "core": 2, "edema": 1})
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    outputs = torch.tensor([0, 2, 1])[target]
    got = losses.build("edd_muscle", labels=labels)(logits, target)
    assert got.item() == pytest.approx(F.cross_entropy(logits, outputs).item(), rel=1e-6)


def test_the_loss_is_computed_in_float32_for_half_precision():
    logits, target = torch.randn(1, 2, 4, 4).bfloat16(), torch.randint(0, 2, (1, 4, 4))
    loss = losses.build("edd_muscle", labels=LABELS)
    assert torch.equal(loss(logits, target), loss(logits.float(), target))


def test_three_branches_train():
    """Five outputs, each with a cross-entropy of its own, and gradients in every branch."""
    network = networks.REGISTRY.get("edd").build(1, 2, stacks=(1, 1, 1), width=4, branches=3).train()
    target = torch.randint(0, 2, (2, 16, 16))
    outputs = network(torch.randn(2, 1, 16, 16))
    loss = losses.build("edd_muscle", labels=LABELS)(outputs, target)
    assert len(outputs) == 5
    assert loss.item() == pytest.approx(sum(F.cross_entropy(x, target).item() for x in outputs), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.branches.parameters())


def test_the_loss_refuses_what_it_cannot_do():
    regions = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    with pytest.raises(AutosegError, match=r"needs classes that exclude each other[\s\S]*dice_ce"):
        losses.build("edd_muscle", labels=regions)
    outputs = [torch.randn(1, 2, 4, 4)] * 5
    with pytest.raises(AutosegError, match=r"5 outputs[\s\S]*4, one for each of its output_weights"):
        losses.build("edd_muscle", labels=LABELS, output_weights=[1] * 4)(outputs, torch.zeros(1, 4, 4))
