"""Brain SegNet: published sizes, receptive fields, losses and vectors.

The authors released no weights. Vectors (outputs for made weights and a made image, equal to those of the authors' own
network to 2e-13) are read from the shared folder.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vectors import structure, synthetic

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.training import losses, optimisers

LESION = LabelSet.from_labels({"background": 0, "lesion": 1})
THREE = LabelSet.from_labels({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])


def make(in_channels: int = 6, out_channels: int = 2, **arguments) -> nn.Module:
    return networks.build("brainsegnet", in_channels=in_channels, out_channels=out_channels, **arguments)


def on_meta(*channels: int, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(*channels, **arguments)


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "total", "encoder"),
    [
        ((6, 2), 11_878_018, 10_488_320),
        ((9, 2), 11_880_610, 10_490_912),
        ((4, 5), 11_876_677, 10_486_592),
    ],
)
def test_parameters(channels, total, encoder):
    network = on_meta(*channels)
    parts = [sum(p.numel() for p in part.parameters()) for part in (network, network.block1, network.blocks)]
    assert parts[0] == total and parts[1] + parts[2] == encoder


def test_layers():
    """17 convolutions encode: 2 in the first block, then three times one and two residual blocks of two."""
    network = on_meta()
    of = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    encoder = [m for name, m in of.items() if name.startswith("block")]
    assert len(encoder) == 17 and {m.kernel_size for m in encoder} == {(3, 3, 3)}
    assert Counter(m.stride for m in encoder) == {(1, 1, 1): 14, (1, 2, 2): 3}
    assert Counter(m.kernel_size for name, m in of.items() if not name.startswith("block")) == {
        (1, 1, 1): 5,
        (3, 3, 3): 3,
    }
    assert not any(isinstance(m, nn.BatchNorm3d) for part in (network.adapt, network.refine) for m in part)


# the published sub-volumes, a whole head, and sizes that are no multiple of 8
@pytest.mark.parametrize(
    ("channels", "size"),
    [
        ((6, 2), (7, 96, 96)),
        ((4, 5), (12, 128, 128)),
        ((4, 5), (31, 240, 240)),
        ((6, 2), (19, 221, 255)),
        ((1, 3), (1, 9, 17)),
        ((3, 2), (2, 1, 5)),
    ],
)
def test_output_has_the_size_of_the_image(channels, size):
    network, seen = on_meta(*channels), []
    for block in (network.block1, *network.blocks):
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    found = network.eval()(torch.zeros(1, channels[0], *size, device="meta"))
    assert found.shape == (1, channels[1], *size)
    halved = [[-(-n // 2**i) for n in size[1:]] for i in range(4)]
    assert seen == [(32 * 2**i, size[0], *halved[i]) for i in range(4)]


@pytest.mark.parametrize(
    ("channels", "size", "gmac"),
    [
        ((6, 2), (7, 96, 96), 64.165183488),
        ((9, 2), (7, 96, 96), 64.332398592),
        ((4, 5), (12, 128, 128), 195.28679424),
        ((4, 5), (31, 240, 240), 1773.600768),
    ],
)
def test_operations_of_a_forward_pass(channels, size, gmac):
    image = torch.zeros(1, channels[0], *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        on_meta(*channels).eval()(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-12)


def test_odd_sizes_leave_voxels_where_they_are():
    """Far from the end of an axis it does not matter that a voxel less is there."""
    network, image = make(1, width=2, refine_width=4).double().eval(), torch.rand(1, 1, 2, 8, 256).double()
    with torch.no_grad():
        whole, odd = network(image), network(image[..., :251])
    assert odd.shape[-1] == 251 and torch.allclose(whole[..., :160], odd[..., :160], atol=1e-12)
    assert not torch.allclose(whole[..., 245:251], odd[..., 245:], atol=1e-12)


@pytest.mark.parametrize("arguments", [{"width": 0}, {"refine_width": 0}])
def test_widths_without_feature_maps_are_refused(arguments):
    with pytest.raises(AutosegError, match="(?s)arguments of Brain SegNet do not fit.*width 0"):
        make(**arguments)


def test_another_normalisation_has_no_averages():
    """Then training and evaluation give the same."""
    network, image = make(1, width=2, refine_width=4, normalisation="instance"), torch.rand(2, 1, 2, 9, 8)
    assert not list(network.buffers())
    with torch.no_grad():
        assert torch.equal(network.train()(image), network.eval()(image))
    with pytest.raises(AutosegError, match=r"no normalisation 'group'[\s\S]*batch or instance"):
        make(normalisation="group")


# Receptive fields ----------------------------------------------------------------------------------------------------


def linear(network: nn.Module) -> nn.Module:
    """The same connections, all weights positive, without normalisation and activation."""
    network = network.double().eval().requires_grad_(False)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.BatchNorm3d, nn.ReLU)):
                setattr(module, name, nn.Identity())
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 0 if name.endswith("bias") else 1 / parameter[0].numel())
    return network


def reach(network: nn.Module, size: tuple[int, int, int], at: tuple[int, int, int], axis: int) -> list[int]:
    """How many voxels before and after its own an output depends on, along one axis of space."""
    image = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    network(image)[(0, 1, *at)].backward()
    others = [n for n in range(5) if n != axis + 2]
    seen = image.grad.abs().amax(others).nonzero().flatten().tolist()
    return [at[axis] - seen[0], seen[-1] - at[axis]]


def test_receptive_field_in_the_planes_by_position():
    """155 voxels at positions 0, 1, 6 and 7 of eight, 163 at the others; not the same on both sides."""
    network = linear(make(1, width=1, refine_width=1))
    found = [reach(network, (1, 8, 208), (0, 4, 96 + i), 2) for i in range(8)]
    assert found == [[81, 73], [82, 72], [83, 79], [84, 78], [85, 77], [86, 76], [79, 75], [80, 74]]
    assert [low + high + 1 for low, high in found] == [155, 155, 163, 163, 163, 163, 155, 155]


def test_receptive_field_in_depth():
    """41 planes everywhere: with 20 planes around it a part is predicted exactly."""
    network = linear(make(1, width=1, refine_width=1))
    assert reach(network, (61, 8, 8), (30, 3, 3), 0) == [20, 20]


def test_receptive_field_of_the_encoder():
    network = linear(make(1, width=1, refine_width=1))
    encoder = nn.Sequential(network.block1, *network.blocks)
    image = torch.ones(1, 1, 40, 148, 148, dtype=torch.float64, requires_grad=True)
    encoder(image)[0, 0, 20, 9, 9].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [35, 131, 131]


def test_planes_with_20_others_around_them_are_those_of_the_whole_stack():
    network, image = make(2, width=2, refine_width=4).double().eval(), torch.rand(1, 2, 50, 8, 8).double()
    with torch.no_grad():
        whole = network(image)
        exact, short = network(image[:, :, 5:])[:, :, 20:], network(image[:, :, 21:])[:, :, 4:]
    assert torch.allclose(whole[:, :, 25:], exact, rtol=0, atol=1e-12)
    assert not torch.allclose(whole[:, :, 25:], short, rtol=0, atol=1e-12)


# Losses --------------------------------------------------------------------------------------------------------------


def value(p: float, dtype: torch.dtype = torch.float64, **arguments) -> float:
    """The loss of one voxel whose true class has the probability p."""
    logits = torch.tensor([0.0, torch.logit(torch.tensor(p, dtype=torch.float64))], dtype=dtype)
    loss = losses.build("brainsegnet", labels=LESION, **arguments)
    return loss(logits.view(1, 2, 1, 1, 1), torch.ones(1, 1, 1, 1)).item()


@pytest.mark.parametrize(("p", "expected"), [(0.9, 0.0010536052), (0.5, 0.1732867951), (0.1, 1.8650939253)])
def test_focal(p, expected):
    assert value(p) == pytest.approx(expected, abs=1e-10)
    assert value(p, torch.float32) == pytest.approx(expected, rel=1e-5)


def test_focal_and_cross_entropy_of_three_classes():
    logits, target = torch.tensor([2.0, 1.0, 0.0]).double().view(1, 3, 1), torch.ones(1, 1)
    for gamma, expected in ((2.0, 0.8029478244), (0.0, 1.4076059644)):
        loss = losses.build("brainsegnet", labels=THREE, gamma=gamma)
        assert loss(logits, target).item() == pytest.approx(expected, abs=1e-10)


def test_gamma_0_is_torchs_cross_entropy():
    logits, target = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 4, 5, 6))
    loss = losses.build("brainsegnet", labels=THREE, gamma=0.0)
    assert loss(logits, target).item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-6)


def test_regions_are_sigmoids_of_their_own():
    """One voxel of label 1: in the whole (p 0.9), not in the core (p 0.5 that it is not)."""
    logits = torch.tensor([0.9, 0.5]).double().logit().view(1, 2, 1)
    found = losses.build("brainsegnet", labels=REGIONS)(logits, torch.ones(1, 1)).item()
    assert found == pytest.approx((0.0010536052 + 0.1732867951) / 2, abs=1e-9)


def test_focal_with_dice_by_hand():
    """Lesion probabilities 0.9 and 0.5, the first voxel is lesion: Dice 2 * 0.9 / (1.4 + 1)."""
    lesion = torch.tensor([0.9, 0.5]).double().logit()
    logits = torch.stack([torch.zeros_like(lesion), lesion])[None]
    loss = losses.build("brainsegnet", labels=LESION, focal_weight=2.0, dice_weight=3.0)
    expected = 0.0010536052 + 0.1732867951 + 3 * (1 - 1.8 / 2.4)
    assert loss(logits, torch.tensor([[1, 0]])).item() == pytest.approx(expected, abs=1e-5)


def test_ignored_voxels_do_not_count():
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    logits, target = torch.randn(1, 2, 6), torch.tensor([[0, 1, 1, 2, 2, 2]])
    for arguments in ({}, {"dice_weight": 1.0}):
        part = losses.build("brainsegnet", labels=LESION, **arguments)(logits[..., :3], target[:, :3]).item()
        found = losses.build("brainsegnet", labels=labels, **arguments)(logits, target).item()
        assert found == pytest.approx(part, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("logit", [-60000.0, -100.0, 0.0, 100.0, 60000.0])
def test_surely_wrong_and_surely_right_voxels_in_every_precision(dtype, gamma, logit):
    """A wrong voxel costs its logit and pulls with all its weight; a right one costs nothing. Nothing is NaN."""
    logits = torch.tensor([0.0, logit], dtype=dtype).view(1, 2, 1).requires_grad_()
    loss = losses.build("brainsegnet", labels=LESION, gamma=gamma)(logits, torch.ones(1, 1))
    loss.backward()
    expected = max(-logits[0, 1].item(), 0.0) if logit else 0.5**gamma * np.log(2)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    slope = logits.grad[0, 1].item()
    assert np.isfinite(slope) and (slope == -1 if logit < 0 else slope <= 0)


def test_a_negative_gamma_is_refused():
    with pytest.raises(AutosegError, match="(?s)focal loss cannot work.*gamma -1.*at least 0"):
        losses.build("brainsegnet", labels=LESION, gamma=-1.0)


# Vectors -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def record(shared: Path) -> dict:
    return json.loads((shared / "conformance/vectors.json").read_text())["brain_segnet_vectors"]


def image_of(channels: int, size: list[int]) -> torch.Tensor:
    """The made image, z-scored; each channel rolled by one more voxel along x and a tenth stronger."""
    f = structure(tuple(size))
    g = (f - f.mean()) / f.std()
    stacked = np.stack([np.roll(g, c, axis=-1) * (1 + 0.1 * c) for c in range(channels)])
    return torch.tensor(stacked.astype(np.float32))[None]


def made(dtype: torch.dtype, *channels: int) -> nn.Module:
    """With made weights; the counters of batches have no number of their own."""
    network = make(*channels)
    counted = (e for e in network.state_dict().items() if not e[0].endswith("num_batches_tracked"))
    state = {key: synthetic(t, key, like) for t, (key, like) in enumerate(counted)}
    network.load_state_dict(state, strict=False)
    return network.to(dtype).eval()


@pytest.mark.shared
def test_order_and_shapes_of_the_weights(record):
    entries = on_meta(6, 2).state_dict().items()
    shapes = [list(v.shape) for key, v in entries if not key.endswith("num_batches_tracked")]
    assert shapes == [shape for _, _, shape in record["isles_6ch"]["order"]]


@pytest.mark.shared
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("which", "channels"), [("isles_6ch", (6, 2)), ("brats_4ch", (4, 5))])
def test_synthetic_weights(which, channels, dtype, record):
    expected, exact = record[which], dtype == torch.float64
    with torch.no_grad():
        logits = made(dtype, *channels)(image_of(channels[0], expected["input_shape"][2:]).to(dtype)).double()
    assert list(logits.shape[1:]) == expected["shape"]
    at = tuple(np.array(expected["voxels"]).T)
    for k, p in enumerate(logits.softmax(1)[0].numpy()):
        known = expected[f"class{k}"]
        z, y, x = np.indices(p.shape)
        weighted = (p * ((7 * z + 5 * y + 3 * x) % 11)).sum()
        assert p[at] == pytest.approx(np.array(known["prob"]), abs=2e-7 if exact else 5e-5)
        assert logits[0, k].numpy()[at] == pytest.approx(
            np.array(known["logit"]), abs=1e-6 if exact else 1e-3
        )
        assert [p.mean(), p.std()] == pytest.approx(
            [known["mean"], known["std"]], abs=1e-8 if exact else 5e-5
        )
        assert weighted == pytest.approx(known["checksum"], rel=0 if exact else 1e-4, abs=1e-3)


# Training ------------------------------------------------------------------------------------------------------------


def trained(gamma: float, lr: float, steps: int) -> list[float]:
    """Losses of Adam on one sample of 6 x 7 x 16 x 16, a smaller network, over as many steps."""
    torch.manual_seed(0)
    network = make(width=4, refine_width=16).train()
    image = image_of(6, [7, 16, 16])
    target = torch.tensor(structure((7, 16, 16)) > 1.2)[None].short()
    loss = losses.build("brainsegnet", labels=LESION, gamma=gamma)
    optimiser, found = optimisers.REGISTRY.build("adam", network.parameters(), lr=lr), []
    for _ in range(steps):
        optimiser.zero_grad()
        now = loss(network(image), target)
        now.backward()
        optimiser.step()
        found.append(now.item())
    return found


@pytest.mark.parametrize(("gamma", "first"), [(0.0, np.log(2)), (2.0, np.log(2) / 4)])
def test_the_loss_of_one_sample_falls_at_the_published_rate(gamma, first):
    found = trained(gamma, 1e-4, 25)
    assert found[0] == pytest.approx(first, rel=0.35)  # of a fresh network that knows nothing
    assert all(after < before for before, after in zip(found, found[1:], strict=False))
