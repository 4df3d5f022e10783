"""3D-ResU-Net: published sizes, receptive fields, losses, learning rates and vectors.

The authors released no weights. Vectors (outputs for made weights and a made image, one training step) are read from
the shared folder.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vectors import structure, synthetic

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.inference.tiling import predict_logits
from autoseg.labels import LabelSet
from autoseg.networks import resunet
from autoseg.networks.resunet import shortcut
from autoseg.plan import Inference
from autoseg.planners._resunet_settings import COST, CROPS, PREDICTION_ELEMENTS, SAVING, TILE_ELEMENTS
from autoseg.planners.resunet import memory_gb, prediction_gb
from autoseg.training import losses, optimisers, schedules

LESION = LabelSet.from_labels({"background": 0, "lesion": 1})


def make(**arguments) -> nn.Module:
    return networks.build("resunet", **{"in_channels": 1, "out_channels": 2, **arguments})


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_layers_and_parameters():
    with torch.device("meta"):
        network = make()
    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.GroupNorm)
    assert [sum(isinstance(m, kind) for m in network.modules()) for kind in kinds] == [28, 4, 31]
    sizes = {"norm": 0, "weight": 0, "bias": 0}
    for name, parameter in network.named_parameters():
        part = "norm" if "gn" in name or (name.startswith("up") and ".1." in name) else name.rsplit(".")[-1]
        sizes[part] += parameter.numel()
    assert sizes == {"norm": 7_872, "weight": 18_426_752, "bias": 3_937}
    assert sum(sizes.values()) == 18_438_561
    assert len(network.state_dict()) == 126


# z, y, x: the crops of both stages, the whole volume, and the smallest odd one of the vectors
@pytest.mark.parametrize("size", [(128, 128, 128), (168, 172, 144), (189, 233, 197), (11, 45, 38), (8, 8, 8)])
def test_output_has_the_size_of_the_image(size):
    with torch.device("meta"):
        assert make()(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def test_short_axes_are_padded_on_both_sides():
    """7 voxels get one more at the end, 5 one before and two after, as a user would do it."""
    network, image = make(width=8).eval(), torch.rand(1, 1, 5, 7, 9)
    with torch.no_grad():
        by_hand = network(torch.nn.functional.pad(image, (0, 0, 0, 1, 1, 2)))
        assert torch.equal(network(image), by_hand[:, :, 1:6, :7])


def test_a_width_without_groups_is_refused():
    with pytest.raises(AutosegError, match="(?s)width 12.*a multiple of 8"):
        make(width=12)


# sizes, without channels, in the order of the layers; the third axis of the card's table is z here
@pytest.mark.parametrize(
    ("size", "halves", "ups"),
    [
        ((168, 172, 144), [(84, 86, 72), (42, 43, 36), (21, 21, 18)], [(42, 42, 36), (84, 86, 72), (168, 172, 144)]),
        ((189, 233, 197), [(94, 116, 98), (47, 58, 49), (23, 29, 24)], [(46, 58, 48), (94, 116, 98), (188, 232, 196)]),
        ((11, 45, 38), [(5, 22, 19), (2, 11, 9), (1, 5, 4)], [(2, 10, 8), (4, 22, 18), (10, 44, 38)]),
    ],
)  # fmt: skip
def test_sizes_inside(size, halves, ups):
    with torch.device("meta"):
        network, seen = make(), {}
        for name in ("ec1", "ec2", "ec3", "up3.0", "up2.0", "up1.0"):  # the transposed convolutions
            layer = network.get_submodule(name)
            layer.register_forward_hook(
                lambda _, __, out, name=name: seen.update({name: tuple(out.shape[2:])})
            )
        network(torch.zeros(1, 1, *size))
    assert [seen[name] for name in ("ec1", "ec2", "ec3")] == halves
    assert [seen[name] for name in ("up3.0", "up2.0", "up1.0")] == ups


def test_shortcuts_by_hand():
    x = torch.arange(1, 5.0).view(1, 4, 1, 1, 1)
    assert shortcut(x, 6).flatten().tolist() == [0, 0, 1, 2, 3, 4]  # zeros in front
    assert shortcut(x, 2).flatten().tolist() == [3, 4]  # the last ones are kept
    assert shortcut(x, 4).flatten().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_decoder_block_is_the_block_of_the_concatenated_volume(checkpointing):
    """Also where the upsampled volume is resized to an odd skip: outputs and gradients are the same digits."""
    network = make(width=8, checkpointing=checkpointing).train()
    x, skip = torch.randn(1, 16, 2, 3, 4), torch.randn(1, 8, 5, 6, 9)
    found = []
    for plain in (True, False):
        inputs = [t.clone().requires_grad_() for t in (x, skip)]
        network.zero_grad()
        if plain:
            up = nn.functional.interpolate(network.up1(inputs[0]), skip.shape[2:], mode="trilinear")
            output = network.dc0a(torch.cat([up, inputs[1]], 1))
        else:
            output = network.dc0a.joined(network.up1, *inputs)
        output.square().sum().backward()
        parameters = [*network.up1.parameters(), *network.dc0a.parameters()]
        found.append([output, *(t.grad for t in (*inputs, *parameters))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_raw_image_goes_to_the_last_feature_map():
    """With all convolutions 0 a block is its shortcut."""
    network = make(width=8)
    for parameter in network.ec0.parameters():
        nn.init.zeros_(parameter)
    image = torch.randn(1, 1, 8, 8, 8)
    found = network.ec0(image)
    assert torch.equal(found[:, 7:], image) and not found[:, :7].any()


# Receptive fields ----------------------------------------------------------------------------------------------------


def influences(network: nn.Module, position: int, length: int = 512) -> list[int]:
    """The positions along z that an output voxel depends on by its convolutions."""
    image = torch.ones(1, 1, length, 8, 8, dtype=torch.float64, requires_grad=True)
    network(image)[0, 1, position, 4, 4].backward()
    return image.grad.abs().amax((0, 1, 3, 4)).nonzero().flatten().tolist()


def test_receptive_field_by_position(monkeypatch):
    """236, or 244 at positions 0, 1, 6 and 7 of eight. GroupNorm, which sees everything, is left out."""
    monkeypatch.setattr(
        torch.nn.functional, "max_pool3d", lambda x, kernel_size, stride: torch.nn.functional.avg_pool3d(x, 2)
    )
    network = make(width=8).double().eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    for parameter in network.parameters():
        nn.init.constant_(
            parameter, 0 if parameter.ndim == 1 else 1 / parameter[0, 0].numel() / parameter.shape[1]
        )
    found = [influences(network, 248 + i) for i in range(8)]
    assert [f[-1] - f[0] + 1 for f in found] == [244, 244, 236, 236, 236, 236, 244, 244]


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def live_memory():
    """The class that counts live tensors, from benchmarks/."""
    path = Path(__file__).parents[2] / "benchmarks/live_memory.py"
    spec = importlib.util.spec_from_file_location("live_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LiveMemory


@pytest.mark.parametrize(
    ("size", "published", "below"),
    [((128, 128, 128), 1_503_134_192, 0.53), ((168, 172, 144), 2_980_987_120, 0.53)],
)
def test_what_training_keeps(size, published, below, live_memory):
    """Float32 elements alive after the forward pass: the authors', with checkpointing about half."""
    alive = []
    for checkpointing in (False, True):
        with torch.device("meta"):
            network = make(out_channels=1, background_logit=False, checkpointing=checkpointing).train()
            image = torch.zeros(1, 1, *size)
        with live_memory([image], network.parameters()) as memory:
            kept = network(image)
            assert kept.shape[1] == 1
            alive.append(memory.now)
    assert alive[0] == published
    assert alive[1] <= below * published


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_of_a_training_step_is_what_the_planner_reckons_with(checkpointing, live_memory):
    """Loss and backward pass included, where the peak lies; the large crop with checkpointing is far within 12 GB."""
    size = CROPS["zoom_out"]
    with torch.device("meta"):
        network = make(checkpointing=checkpointing).train()
        image, label = torch.zeros(1, 1, *size), torch.zeros(1, *size, dtype=torch.int16)
    loss = losses.build("resunet", labels=LESION).to("meta")
    with live_memory([image, label], network.parameters()) as memory:
        loss(network(image), label).backward()
    expected = COST.elements_per_voxel * (SAVING if checkpointing else 1)
    assert memory.peak / np.prod(size) == pytest.approx(expected, rel=0.005)
    reckoned = memory_gb(size, 32, checkpointing)
    assert reckoned == pytest.approx(4e-9 * (memory.peak + 4 * 18_438_561), rel=0.005)
    assert reckoned < (9.4 if checkpointing else 13)


def test_multiplications_of_a_training_step():
    """665.3 and 1317.5 multiply-adds x 1e9 forward; nearly three times as many with the backward pass."""
    for size, published in (((128, 128, 128), 665.3), (CROPS["zoom_out"], 1317.5)):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            output = make().train()(torch.zeros(1, 1, *size))
            assert counter.get_total_flops() / 2e9 == pytest.approx(published, abs=0.05)
            output.sum().backward()
        assert counter.get_total_flops() / 2e9 == pytest.approx(3 * published, rel=0.002)


def test_a_whole_volume_is_predicted_within_4_gb(live_memory):
    """The published network on the published grid; a small volume whose slabs are as thin needs as much a voxel."""
    with torch.device("meta"):
        network = make().eval()
        for size in ((189, 233, 197), (96, 96, 96)):
            image = torch.zeros(1, 1, *size)
            with torch.no_grad(), live_memory([image], network.parameters()) as memory:
                network(image)
            assert memory.peak / image.numel() == pytest.approx(PREDICTION_ELEMENTS, rel=0.01)
    assert prediction_gb((189, 233, 197), 32) < 4


def test_memory_of_gathering_the_logits_of_a_whole_volume(live_memory):
    """Of a network that needs nothing: image and result count as the network's."""
    image = torch.rand(1, 64, 64, 64)
    network = nn.Conv3d(1, 2, 1).requires_grad_(False)
    with live_memory([image], network.parameters()) as memory:
        predict_logits(network, image, Inference(patch_size=[]), 2, "cpu", mirror=False)
    outside = memory.peak / image.numel() - 1 - 2
    assert TILE_ELEMENTS <= outside <= TILE_ELEMENTS + 2  # tile times window, when the network's own are gone


@pytest.mark.parametrize("small", [0, resunet.SMALL_SLAB])
@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((1, 1, 27, 30, 21), {}),  # odd at every resolution
        ((2, 3, 16, 9, 24), {}),
        ((1, 1, 5, 8, 8), {"background_logit": False}),
        ((1, 12, 18, 16, 8), {"width": 8}),  # more channels than feature maps
    ],
)
def test_prediction_is_the_plain_forward(size, arguments, small, monkeypatch):
    """In slabs of few planes, and in one; every parameter counts."""
    monkeypatch.setattr(resunet, "SMALL_SLAB", small)
    network = make(**{"in_channels": size[1], "width": 16, **arguments}).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    image = torch.randn(size)
    before = image.clone()
    plain = network(image).detach()
    with torch.no_grad():
        assert (network(image) - plain).abs().max() < 1e-5 * plain.abs().max()
        exact = network.double()(image.double())
    plain = network(image.double()).detach()
    assert (exact - plain).abs().max() < 1e-13 * plain.abs().max()
    assert torch.equal(image, before)


def test_checkpointing_changes_no_gradient():
    image, gradients = torch.rand(1, 1, 13, 10, 9), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = make(width=8, checkpointing=checkpointing).train()
        network(image)[:, 1].square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


# Losses and learning rates -------------------------------------------------------------------------------------------

P = torch.tensor([[0.9, 0.2, 0.6, 0.05]], dtype=torch.float64)
Y = torch.tensor([[1, 0, 1, 0]])
BCE, DICE = {"dice_weight": 0, "bce_weight": 1}, {"dice_weight": 1, "bce_weight": 0}


def value(p: torch.Tensor, y: torch.Tensor, dtype: torch.dtype = torch.float64, **arguments) -> float:
    """The loss of probabilities ``[b, x]`` of the lesion, as logits with the background's at 0."""
    logits = torch.stack([torch.zeros_like(p), torch.logit(p)], 1)[:, :, None, None].to(dtype)
    return losses.build("resunet", labels=LESION, **arguments)(logits, y[:, None, None]).item()


@pytest.mark.parametrize(
    ("arguments", "p", "y", "expected"),
    [
        (BCE, P, Y, 0.2226557463),
        (DICE, P, Y, 0.2),
        ({}, P, Y, 0.2022655746),
        (BCE, P, 0 * Y, 0.8733281676),
        (DICE, P, 0 * Y, 1.0),
        ({}, P, 0 * Y, 0.9873328168),
        (DICE, 0 * P + 1e-300, 0 * Y, 0.0),  # neither has anything
        (DICE, torch.cat([P, P[:, [1, 0, 3, 2]]]), torch.cat([Y, Y]), 0.5333333333),
    ],
)
def test_losses(arguments, p, y, expected):
    assert value(p, y, **arguments) == pytest.approx(expected, abs=1e-10)
    assert value(p, y, torch.float32, **arguments) == pytest.approx(expected, abs=5e-7)


def test_cross_entropy_with_a_weight_of_lesions_by_hand():
    p, y = torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([[1, 0]])
    expected = (3 * np.log(2) + np.log(4 / 3)) / 2
    assert value(p, y, lesion_weight=3.0, **BCE) == pytest.approx(expected)


def test_several_classes_are_each_against_the_others():
    """By softmax: p of classes 1 and 2, each with its own cross-entropy and Dice, by hand."""
    labels = LabelSet.from_labels({"background": 0, "a": 1, "b": 2})
    # background, a, b; two voxels
    p = torch.tensor([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]], dtype=torch.float64)
    target = torch.tensor([1, 2]).view(1, 1, 1, 2)
    found = losses.build("resunet", labels=labels)(p.log().view(1, 3, 1, 1, 2), target).item()
    bce = -(np.log(0.3) + np.log(0.8) + np.log(0.8) + np.log(0.6)) / 4
    dice = (2 * 0.3 / (0.5 + 1) + 2 * 0.6 / (0.8 + 1)) / 2
    assert found == pytest.approx(0.1 * bce + 0.9 * (1 - dice))


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, 1), (2275, 0.8535533906), (4550, 0.5), (6825, 0.1464466094), (9099, 2.9796e-08), (9100, 1), (18200, 1)],
)  # fmt: skip
def test_warm_restarts_in_closed_form(k, expected):
    """By iterations, 182 an epoch, in cycles of 50 epochs."""
    schedule = schedules.REGISTRY.build("cosine", epochs=150, cycle_epochs=50)
    assert schedule(k / 182)["lr_factor"] == pytest.approx(expected, rel=1e-4 if k == 9099 else 1e-9)


# Vectors -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def record(shared: Path) -> dict:
    return json.loads((shared / "conformance/resunet.json").read_text())


def image_of(size: list[int]) -> torch.Tensor:
    f = structure(tuple(size))
    return torch.tensor((f / f.max()).astype(np.float32))[None, None]


@pytest.fixture(scope="session")
def state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        entries = make().state_dict()
    return {key: synthetic(t, key, like) for t, (key, like) in enumerate(entries.items())}


def made(state: dict[str, torch.Tensor], dtype: torch.dtype, **arguments) -> nn.Module:
    network = make(**arguments)
    network.load_state_dict(state)
    return network.to(dtype)


@pytest.mark.shared
def test_names_and_shapes_of_the_weights(record):
    with torch.device("meta"):
        entries = make().state_dict()
    assert [[k, list(v.shape)] for k, v in entries.items()] == record["architecture"]["state_dict"]


@pytest.mark.shared
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("which", "AB")
def test_synthetic_weights(which, dtype, record, state):
    expected, exact = record["synthetic"][which], dtype == torch.float64
    with torch.no_grad():
        logits = made(state, dtype).eval()(image_of(expected["shape"]).to(dtype)).double()
    p, at = logits.softmax(1)[0, 1].numpy(), tuple(np.array(record["input"]["voxels"][which]).T)
    z, y, x = np.indices(p.shape)
    assert p[at] == pytest.approx(np.array(expected["prob"]), abs=2e-7 if exact else 5e-5)
    assert logits[0, 1].numpy()[at] == pytest.approx(
        np.array(expected["logit_diff"]), abs=1e-6 if exact else 1e-3
    )
    assert p.mean() == pytest.approx(expected["mean"], abs=1e-8 if exact else 5e-5)
    assert p.std() == pytest.approx(expected["std"], abs=1e-8 if exact else 5e-5)
    assert (p > 0.5).sum() == pytest.approx(expected["n_gt_half"], abs=0 if exact else 3)
    weighted = (p * ((7 * z + 5 * y + 3 * x) % 11)).sum()
    assert weighted == pytest.approx(expected["checksum"], rel=0 if exact else 1e-5, abs=1e-3)


def published_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """As the authors have it, from probabilities: a voxel that is surely wrong (a logit above 27) has no gradient.

    Ours has one there, and the same value but for the digits that a probability near 1 lacks.
    """
    p, y = (logits[:, 1] - logits[:, 0]).sigmoid(), label.to(logits.dtype)
    dice = 1 - (2 * (p * y).sum() + 2.22e-16) / (p.sum() + y.sum() + 2.22e-16)
    return 0.1 * torch.nn.functional.binary_cross_entropy(p, y) + 0.9 * dice


@pytest.mark.shared
def test_one_training_step(record, state):
    """Losses, gradients, and the loss after a step of Adam with L2; in float64, with checkpointing."""
    expected = record["train_step"]
    network = made(state, torch.float64, checkpointing=True).train()
    image = image_of(expected["input_shape"]).double()
    label = torch.tensor(structure(tuple(expected["input_shape"])) > 1.2).long()[None]
    assert label.sum() == expected["label_voxels"]
    logits = network(image)
    values = [
        losses.build("resunet", labels=LESION, **part)(logits, label).item() for part in (BCE, DICE, {})
    ]
    assert values == pytest.approx([expected[key] for key in ("bce", "dice", "loss")], rel=1e-8)
    value = published_loss(logits, label)
    assert value.item() == pytest.approx(expected["loss"], rel=1e-12)
    value.backward()
    gradients = {key: p.grad for key, p in network.named_parameters()}
    norms = [gradients[expected["grad"][which]].norm().item() for which in ("first", "last")]
    norms.append(torch.stack([g.norm() for g in gradients.values()]).norm().item())
    known = [expected["grad"][which] for which in ("g_first", "g_last", "g_total")]
    assert norms == pytest.approx(known, rel=1e-9)
    optimisers.REGISTRY.build("adam", network.parameters(), lr=1e-3, weight_decay=1e-4).step()
    with torch.no_grad():
        after = published_loss(network(image), label).item()
    assert after == pytest.approx(expected["loss_after_one_adam_step"], rel=1e-9)
