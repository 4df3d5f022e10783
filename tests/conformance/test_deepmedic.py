"""DeepMedic and the study of enhanced learning on ISLES 2017: published sizes, rules and numbers.

Vectors (outputs for made weights and a made image) are read from the shared folder.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vectors import hashed, structure

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.inference.tiling import extent, make_tiling, predict_logits
from autoseg.labels import LabelSet
from autoseg.networks import deepmedic as network_file
from autoseg.networks.deepmedic import FirstLayer, RingNorm, added, context_of, low_resolution_size
from autoseg.plan import Inference
from autoseg.planners._deepmedic_settings import chunk_for
from autoseg.training import losses, optimisers, schedules
from autoseg.training.freezing import trained_parameters

PLAIN = {"common_kernel": 1, "shortcuts": (), "common_shortcuts": ()}
SMALL = {"feature_maps": (4, 5, 6), "shortcuts": ((2, 3),), "common_maps": (8, 8)}


def make(in_channels: int = 3, **arguments) -> nn.Module:
    return networks.build("deepmedic", in_channels=in_channels, out_channels=2, **arguments)


def on_meta(in_channels: int = 3, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(in_channels, **arguments)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "arguments", "total", "pathway"),
    [(3, {}, 1_051_088, 311_043), (6, {}, 1_055_954, 313_476), (3, PLAIN, 661_088, 311_043)],
)
def test_parameters(channels, arguments, total, pathway):
    network = on_meta(channels, **arguments)
    assert count(network) == total
    assert [count(network.normal), *map(count, network.low)] == [pathway, pathway]


def test_layers():
    network = on_meta()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == 19
    assert sum(conv.weight.numel() for conv in convolutions) == 1_048_260
    assert all(conv.bias is None and conv.padding == (0, 0, 0) for conv in convolutions)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)][-3:] == [0, 0.5, 0.5]
    assert count(network.common) + network.bias.numel() == 429_002


def test_the_seven_printed_feature_maps_are_another_network():
    """Receptive field 15 where the paper says 17."""
    network = on_meta(feature_maps=(30, 30, 40, 40, 40, 50, 50), shortcuts=())
    assert count(network) == 964_448
    assert 1 + 2 * network.normal.depth == 15


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [
        (["normal.*", "low.*"], 429_002),
        (["normal.layer[1-4].*", "low.*.layer[1-4].*"], 845_822),
        ([], 1_051_088),
    ],
)
def test_what_freezing_leaves_to_train(frozen, trained):
    left = [
        parameter.numel()
        for name, parameter in on_meta().named_parameters()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in frozen)
    ]
    assert sum(left) == trained


@pytest.mark.parametrize(("segment", "low", "patch"), [(17, 17, 1), (25, 19, 9), (37, 23, 21), (45, 26, 29)])
def test_segments(segment, low, patch):
    """The segment is what the normal pathway sees, as the paper counts; the network takes the context in addition."""
    network, seen = on_meta().eval(), {}
    network.normal.register_forward_pre_hook(lambda _, given: seen.update(normal=given[0].shape))
    network.low[0].register_forward_pre_hook(lambda _, given: seen.update(low=given[0].shape))
    edge = patch + 2 * 24
    with torch.device("meta"):
        assert network(torch.zeros(1, 3, edge, edge, edge)).shape == (1, 2, patch, patch, patch)
    assert seen == {"normal": (1, 3, *[segment] * 3), "low": (1, 3, *[low] * 3)}
    assert low_resolution_size(segment) == low


def gmac(patch: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta().eval()(torch.zeros(1, 3, *[n + 2 * 24 for n in patch], device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("patch", "expected"), [((9, 9, 9), 1.64), ((29, 29, 29), 24.331), ((86, 161, 161), 1770.1)]
)
def test_operations_of_a_forward_pass(patch, expected):
    """Segments of 25 and 45 voxels, and a whole scan in one pass."""
    assert gmac(patch) == pytest.approx(expected, rel=3e-4)


def test_the_planned_chunks_cost_less_than_the_segments_of_the_software():
    """108 segments of 45 voxels are 1.48 passes over the whole scan."""
    shape = (86, 161, 161)
    words = {"context": [24] * 3, "halo": [3] * 3, "mirror_axes": ()}
    tiling = make_tiling(shape, Inference(patch_size=list(chunk_for(shape, 8)), tiles="chunks", **words))
    chunks = sum(gmac(extent(tiling.around(tile))) for tile in tiling)
    assert 108 * gmac((29, 29, 29)) == pytest.approx(2627.8, abs=0.1)
    assert 2627.8 / chunks > 1.4


def test_the_wider_variant_of_later_versions():
    """Segments of 37 voxels, 250 maps in the common layers."""
    network = on_meta(common_maps=(250, 250))
    with torch.device("meta"):
        assert network(torch.zeros(1, 3, 69, 69, 69)).shape == (1, 2, 21, 21, 21)
    assert network.common.layer2.conv.weight.shape == (250, 250, 1, 1, 1)


def test_further_pathways_and_other_factors():
    factors = ((3, 3, 3), (1, 5, 5))
    network = on_meta(1, factors=factors)
    assert context_of(factors=factors) == (24, 40, 40) and context_of(shift=1) == (25, 25, 25)
    assert count(network) == 3 * count(network.normal) + count(network.common) + 2
    with torch.device("meta"):
        assert network(torch.zeros(1, 1, 4 + 48, 5 + 80, 6 + 80)).shape == (1, 2, 4, 5, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"feature_maps": ()}, "feature_maps"),
        ({"factors": ((0, 3, 3),)}, "at least 1 along each axis"),
        ({"common_kernel": 5}, "(?s)common_kernel 5.*1 or 3"),
        ({"dropout": (0.5,)}, "3 shares"),
        ({"dropout": (0.0, 1.0, 0.5)}, "below 1"),
        ({"shortcuts": ((3, 9),)}, "layers from 1 to 8"),
        ({"common_shortcuts": ((2, 1),)}, "first not after the second"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(AutosegError, match=words):
        make(**arguments)


# What counts and shapes do not show ----------------------------------------------------------------------------------


def test_a_shortcut_by_hand():
    """The middle of the earlier maps goes to the first of the deeper ones; the third starts lie at (n-1)//2."""
    early = torch.arange(1.0, 8).view(1, 1, 1, 1, 7)
    deep = torch.zeros(1, 2, 1, 1, 3)
    assert added(deep, early).flatten().tolist() == [3, 4, 5, 0, 0, 0]
    assert added(torch.zeros(1, 1, 1, 1, 4), early).flatten().tolist() == [3, 4, 5, 6]
    assert added(torch.zeros(1, 1, 1, 1, 3), torch.cat([early, early + 10], 1)).flatten().tolist() == [
        3,
        4,
        5,
    ]


def centres(shift: int, silent: str) -> list[int]:
    """Which voxel along x lies in the middle of what each of five sees in one pathway, counted from the first of them.

    Args:
        shift: of the network, which sees every third voxel along x in its coarser pathway.
        silent: start of the names of the other pathway, whose weights are 0.
    """
    network = make(1, **{**SMALL, "shortcuts": ()}, common_kernel=1, factors=((1, 1, 3),), shift=shift).eval()
    for name, parameter in network.named_parameters():
        if name.startswith(silent):
            nn.init.zeros_(parameter)
    found, (z, y, x) = [], network.context
    for position in range(5):
        image = torch.rand(1, 1, 1 + 2 * z, 1 + 2 * y, 5 + 2 * x, requires_grad=True)
        network(image)[0, 1, 0, 0, position].backward()
        at = image.grad.abs().amax((0, 1, 2, 3)).nonzero().flatten()
        found.append(int(at[0] + at[-1]) // 2 - x)
    return found


@pytest.mark.parametrize(("kernel", "edge"), [(1, 17), (3, 19)])
def test_receptive_field(kernel, edge):
    """Of the middle of three voxels: 17 in the normal pathway, 19 with the larger common kernel; 17 every third."""
    seen = {}
    for silent in ("low", "normal"):
        network = make(1, feature_maps=(4,) * 8, common_maps=(8, 8), common_kernel=kernel).eval()
        for name, parameter in network.named_parameters():
            if name.startswith(silent):
                nn.init.zeros_(parameter)
        image = torch.rand(1, 1, 51, 51, 51, requires_grad=True)
        network(image)[0, 1, 1, 1, 1].backward()
        seen[silent] = image.grad.abs().amax((0, 1, 3, 4)).nonzero().flatten().tolist()
    assert seen["low"] == list(range(25 - edge // 2, 25 + edge // 2 + 1))
    assert seen["normal"] == list(range(0, 49, 3)) and len(seen["normal"]) == 17


def test_where_coarse_voxels_lie():
    """A coarse voxel has the first of its three in the middle; ``shift`` puts it into the middle of the three."""
    assert centres(0, silent="low") == [0, 1, 2, 3, 4]
    assert centres(0, silent="normal") == [0, 0, 0, 3, 3]
    assert centres(1, silent="normal") == [1, 1, 1, 4, 4]


def test_padding_comes_before_the_normalisation():
    """Of 2 x 2 x 2 voxels 64 take part, the border being repeated: a corner 8 times."""
    network = make(1, **SMALL).train()
    x = torch.zeros(1, 12, 2, 2, 2)
    x[:, :, 0, 0, 0] = 1
    assert network._common(x).shape == (1, 2, 2, 2, 2)
    assert network.common.layer1.norm.means[-1].tolist() == pytest.approx([8 / 64] * 12)


@pytest.mark.parametrize("kernel", [1, 3])
def test_some_planes_at_a_time_are_the_same(kernel, monkeypatch):
    """As a card has it."""
    monkeypatch.setattr(network_file, "accelerates", lambda device: True)
    network = random_network(common_kernel=kernel)
    image = torch.rand(2, 1, 30, 27, 26, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        monkeypatch.setattr(network_file, "SLAB", 2 * 12 * 9 * 8 * 5)  # five planes of twelve
        assert torch.allclose(network(image), expected, atol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"common_kernel": 1},
        {"factors": ((3, 3, 3), (1, 2, 5))},
        {"feature_maps": (4, 4, 6, 6, 6), "shortcuts": ((1, 2), (2, 4), (2, 5))},
    ],
)
@pytest.mark.parametrize("patch", [(1, 1, 1), (12, 9, 8), (13, 5, 14)])
def test_slabs_on_a_cpu_are_one_pass_on_a_card(arguments, patch, monkeypatch):
    """Pathways some planes after the others, common layers in parts of planes and rows, of any size."""
    network = random_network(**arguments)
    image = torch.rand(2, 1, *(n + 2 * c for n, c in zip(patch, network.context, strict=True)))
    image = image.double()
    with torch.no_grad(), monkeypatch.context() as card:
        card.setattr(network_file, "accelerates", lambda device: True)
        expected = network(image)
    for slab, least, planes in ((6_000_000, 4, 8), (1, 1, 1), (1, 3, 5), (2 * 12 * 9 * 8 * 5, 1, 2)):
        for name, value in {"SLAB": slab, "LEAST": least, "PLANES": planes}.items():
            monkeypatch.setattr(network_file, name, value)
        with torch.no_grad():
            assert torch.allclose(network(image), expected, atol=1e-12)


def test_the_first_layer_adds_a_number_to_each_channel_of_the_image():
    layer = FirstLayer(2, 1)
    nn.init.ones_(layer.conv.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -0.5]))
    assert layer(torch.zeros(1, 2, 3, 3, 3)).item() == pytest.approx(27 * 0.5)


def two_values(mean: float, variance: float) -> torch.Tensor:
    """A thousand voxels with this mean and population variance."""
    deviation = variance**0.5
    return torch.tensor([mean - deviation, mean + deviation]).repeat(500).view(1, 1, 10, 10, 10)


def test_statistics_are_the_mean_over_60_batches():
    norm = RingNorm(1).train()
    norm(two_values(1, 4))
    norm(two_values(3, 2))
    assert norm.means.mean().item() == pytest.approx(0.0666667, abs=1e-6)
    assert norm.variances.mean().item() == pytest.approx((58 + (4 + 2) * 1000 / 999) / 60, rel=1e-6)
    assert pytest.approx(1.0666667, abs=1e-7) == (58 + 4 + 2) / 60
    x = torch.full((1, 1, 1, 1, 1), 2.0)
    expected = (2 - norm.means.mean()) / (norm.variances.mean() + 1e-5).sqrt()
    assert norm.eval()(x).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_ring_forgets_the_61st_batch():
    norm = RingNorm(1).train()
    for mean in (100.0, *[1.0] * 60):
        norm(two_values(mean, 4))
    assert norm.means.mean().item() == pytest.approx(1)


def test_training_normalises_by_the_batch_and_frozen_layers_still_learn_statistics():
    norm = RingNorm(1).train().requires_grad_(False)
    found = norm(two_values(5, 9))
    assert found.mean().item() == pytest.approx(0, abs=1e-5) and found.var().item() == pytest.approx(
        1, rel=2e-3
    )
    assert norm.means[-1].item() == pytest.approx(5)


def test_initial_weights():
    torch.manual_seed(0)
    network = make()
    assert network.normal.layer1.conv.weight.std().item() == pytest.approx(0.157135, rel=0.03)
    assert network.low[0].layer3.conv.weight.std().item() == pytest.approx(0.049690, rel=0.03)
    slopes = [module.weight for module in network.modules() if isinstance(module, nn.PReLU)]
    assert all((slope == 0.01).all() for slope in slopes) and len(slopes) == 17


def random_network(**arguments) -> nn.Module:
    torch.manual_seed(3)
    network = make(1, **{**SMALL, **arguments}).double().eval()
    for module in network.modules():
        if isinstance(module, RingNorm):
            nn.init.normal_(module.means, std=0.3)
            nn.init.uniform_(module.variances, 0.5, 2)
    return network


@pytest.mark.parametrize(("kernel", "rim"), [(1, 0), (3, 1)])
def test_patches_agree_where_they_start_at_the_same_phase(kernel, rim):
    """Three layers: context 9. Starts 3 and 6 agree within the outermost voxels; 3 and 7 do not."""
    network = random_network(common_kernel=kernel)
    image = torch.rand(1, 1, 40, 40, 40, dtype=torch.float64)

    def patch(start: int, size: int) -> torch.Tensor:
        part = slice(start, start + size + 18)
        with torch.no_grad():
            return network(image[:, :, part, part, part])

    first, second, third = patch(3, 12), patch(6, 12), patch(7, 12)
    inner, outer = slice(3 + rim, 12 - rim), slice(rim, 9 - rim)
    assert torch.allclose(first[..., inner, inner, inner], second[..., outer, outer, outer], atol=1e-12)
    assert (first == second).sum() < first.numel()
    inner, outer = slice(4 + rim, 12 - rim), slice(rim, 8 - rim)
    assert (first[..., inner, inner, inner] - third[..., outer, outer, outer]).abs().max() > 1e-2


def predicted(network: nn.Module, image: torch.Tensor, **words) -> torch.Tensor:
    inference = Inference(context=list(network.context), mirror_axes=(), gaussian=False, **words)
    return predict_logits(network.float(), image, inference, 2, "cpu", mirror=False)


def test_dense_prediction_does_not_depend_on_the_chunks():
    """Chunks and a halo of multiples of 3 are one pass over the whole volume; a halo of 1 or 2 is another phase."""
    network = random_network()
    image = torch.rand(1, 29, 25, 22, generator=torch.Generator().manual_seed(4))
    whole = predicted(network, image, patch_size=["whole"] * 3, tiles="chunks")
    for chunk in ([9, 9, 9], [12, 15, 6], [27, 3, 21]):
        found = predicted(network, image, patch_size=chunk, tiles="chunks", halo=[3, 3, 3])
        assert (found - whole).abs().max() < 1e-5
    other = predicted(network, image, patch_size=[9, 9, 9], tiles="chunks", halo=[1, 1, 1])
    assert (other - whole).abs().max() > 1e-2


def test_tiles_of_the_software_are_never_one_pass():
    """29 voxels, the last flush with the border: another phase in all but the first, and a rim that saw the padding."""
    network = random_network()
    image = torch.rand(1, 35, 32, 31, generator=torch.Generator().manual_seed(5))
    whole = predicted(network, image, patch_size=["whole"] * 3, tiles="chunks")
    tiles = predicted(network, image, patch_size=[29, 29, 29], tiles="flush")
    off = (tiles - whole).abs().amax(0)
    assert off[:2, :2, :2].max() < 1e-5  # the first tile, where no later one lies
    assert (
        off.max() > 1e-2 and off[7:, 4:, 3:].min() > 0
    )  # starts 6, 3 and 2: all but its rim is of the phase of 3 alone


# Loss, optimiser, schedule --------------------------------------------------------------------------------------------


def test_the_loss_is_plain_cross_entropy_over_all_voxels():
    logits = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 2, (2, 3, 4, 5), generator=torch.Generator().manual_seed(1))
    labels = LabelSet.from_labels({"background": 0, "lesion": 1})
    arguments = {"dice_weight": 0.0, "deep_supervision": False}
    found = losses.build("dice_ce", labels=labels, **arguments)(logits, target)
    assert found.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), rel=1e-6)


def stepped(shape: tuple[int, ...], start: float, gradients: list[float], **arguments) -> list[float]:
    """The weight after each step, in float64."""
    weight = nn.Parameter(torch.full(shape, start, dtype=torch.float64))
    optimiser = optimisers.REGISTRY.build("rmsprop_nesterov", [weight], lr=1e-3, **arguments)
    found = []
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        found.append(weight.mean().item())
    return found


def test_two_steps_of_the_optimiser():
    assert stepped((1,), 1.0, [0.5, -0.25]) == pytest.approx([0.9979801779, 0.9984677096], abs=1e-10)


def test_penalties_are_of_convolutions_alone():
    """At w = 0.5: 1e-6 + 2 * 1e-4 * 0.5 = 1.01e-4, as if it were the gradient."""
    penalties = {"l1": 1e-6, "l2": 1e-4}
    assert stepped((1, 1, 1, 1, 1), 0.5, [0.0], **penalties) == pytest.approx(stepped((1,), 0.5, [1.01e-4]))
    assert stepped((1, 1, 1, 1, 1), -0.5, [0.0], **penalties) == pytest.approx(
        stepped((1,), -0.5, [-1.01e-4])
    )
    assert stepped((3,), 0.5, [0.0], **penalties) == [0.5]


def test_momentum_0_and_no_eps_is_torchs_rmsprop():
    weights = [nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(2)]
    ours = optimisers.REGISTRY.build("rmsprop_nesterov", [weights[0]], lr=1e-2, momentum=0.0, eps=0.0)
    theirs = torch.optim.RMSprop([weights[1]], lr=1e-2, alpha=0.9, eps=0.0)
    for gradient in ([1.0, 3.0], [-2.0, 0.5], [0.1, 4.0]):
        for weight, optimiser in zip(weights, (ours, theirs), strict=True):
            weight.grad = torch.tensor(gradient, dtype=torch.float64)
            optimiser.step()
    assert torch.allclose(*weights, atol=1e-12)


TEXT = {0: 1e-3, 1: 1e-3, 2: 9.345192e-4, 10: 5.436184e-4, 18: 3.162278e-4, 34: 1.070069e-4}
SOFTWARE = {0: 1e-3, 1: 1e-3, 2: 7.626986e-4, 10: 8.733262e-5, 18: 1e-5, 34: 1.311134e-7}
MOMENTUM = {0: 0.6, 1: 0.6, 2: 0.608824, 10: 0.679412, 18: 0.75, 34: 0.891176}


@pytest.mark.parametrize(("end_factor", "rates"), [(0.1, TEXT), (1e-4, SOFTWARE)])
def test_rates_and_momentum_of_35_epochs(end_factor, rates):
    schedule = schedules.REGISTRY.build("exponential", epochs=35, end_factor=end_factor)
    for epoch in rates:
        found = schedule(epoch + 0.3)
        assert 1e-3 * found["lr_factor"] == pytest.approx(rates[epoch], rel=1e-6)
        assert found["momentum"] == pytest.approx(MOMENTUM[epoch], abs=1e-6)
    assert schedule(35) == pytest.approx({"lr_factor": end_factor, "momentum": 0.9})


def test_a_rate_that_falls_to_nothing_is_refused():
    with pytest.raises(AutosegError, match="(?s)end_factor 0.*above 0"):
        schedules.REGISTRY.build("exponential", epochs=35, end_factor=0.0)


# Vectors -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def record(shared: Path) -> dict:
    return json.loads((shared / "conformance/vectors.json").read_text())["deepmedic_vectors"]


def part_of(name: str) -> list[str]:
    """Pathway, layer and rest of a name in the order of the record: b, n.l.0.c.weight, f1.bn.weight and so on."""
    if name == "b":
        return ["bias"]
    words = {"bn": "norm", "pr": "activation", "c": "conv", "b": "bias"}
    first, *rest = name.split(".")
    if first in "ns":
        _, layer, *rest = rest
        start = ["normal" if first == "n" else "low.0", f"layer{int(layer) + 1}"]
    else:
        start = ["common", f"layer{first[1:]}"]
    return [*start, *(words.get(word, word) for word in rest)]


def value(t: int, role: str, shape: list[int]) -> torch.Tensor:
    u = hashed(t, int(np.prod(shape))).reshape(shape)
    scaled = {
        "conv": lambda: u * np.sqrt(6 / np.prod(shape[1:])),
        "bn weight": lambda: 1 + 0.2 * u,
        "running_var": lambda: 1 + 0.2 * u,
        "prelu": lambda: 0.1 + 0.1 * u,
    }
    return torch.tensor(scaled.get(role, lambda: 0.1 * u)().astype(np.float32))


@pytest.fixture(scope="session")
def state(record) -> dict[str, torch.Tensor]:
    """The made weights by our names; statistics are the same in all 60 batches."""
    entries = {}
    for t, (name, role, shape) in enumerate(record["order"]):
        *where, last = part_of(name)
        last = {"running_mean": "means", "running_var": "variances"}.get(last, last)
        made = value(t, role, shape)
        entries[".".join([*where, last])] = made.expand(60, -1) if last in ("means", "variances") else made
    return entries


def segment() -> torch.Tensor:
    """What the network sees for the record's segment, which starts at 20: patch 28 to 36 and a context of 24."""
    f = structure((64, 64, 64))
    g = (f - f.mean()) / f.std()
    channels = np.stack([np.roll(g, c, axis=-1) * (1 + 0.1 * c) for c in range(3)]).astype(np.float32)
    return torch.tensor(channels)[None, :, 4:61, 4:61, 4:61]


def logits_of(state: dict[str, torch.Tensor], dtype: torch.dtype, **arguments) -> torch.Tensor:
    network = make(**arguments)
    network.load_state_dict(state)
    with torch.no_grad():
        return network.to(dtype).eval()(segment().to(dtype)).double()[0]


@pytest.mark.shared
def test_order_and_shapes_of_the_weights(record, state):
    """Ours has the class bias, both pathways and the common layers in the record's order."""
    with torch.device("meta"):
        ours = {key: list(tensor.shape) for key, tensor in make().state_dict().items()}
    assert len(state) == record["entries"]
    assert list(ours) == list(state)
    assert all(ours[key] == list(tensor.shape) for key, tensor in state.items())


@pytest.mark.shared
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_synthetic_weights(record, state, dtype):
    exact = dtype == torch.float64
    logits = logits_of(state, dtype)
    p = logits.softmax(0).numpy()
    at = tuple(np.array(record["voxels"]).T)
    z, y, x = np.indices(p.shape[1:])
    for k, expected in enumerate(record[f"class{i}"] for i in range(2)):
        assert list(logits.shape) == record["shape"]
        assert logits[k].numpy()[at] == pytest.approx(
            np.array(expected["logit"]), abs=1e-5 if exact else 1e-3
        )
        assert p[k][at] == pytest.approx(np.array(expected["prob"]), abs=1e-6 if exact else 5e-5)
        assert p[k].mean() == pytest.approx(expected["mean"], abs=1e-8 if exact else 5e-5)
        assert p[k].std() == pytest.approx(expected["std"], abs=1e-8 if exact else 5e-5)
        weighted = (p[k] * ((7 * z + 5 * y + 3 * x) % 11)).sum()
        assert weighted == pytest.approx(expected["checksum"], abs=1e-3 if exact else 2e-2)


@pytest.mark.shared
@pytest.mark.parametrize(
    "arguments",
    [
        {"shortcuts": ((3, 4), (4, 6), (6, 8))},  # as the paper prints them
        {"shortcuts": ((4, 4), (6, 6), (8, 8))},  # around one layer
        {"shortcuts": ()},
        {"common_shortcuts": ()},
    ],
)
def test_other_shortcuts_have_as_many_parameters_and_other_outputs(record, state, arguments):
    assert count(on_meta(**arguments)) == 1_051_088
    found, at = logits_of(state, torch.float32, **arguments)[0].numpy(), tuple(np.array(record["voxels"]).T)
    assert np.abs(found[at] - np.array(record["class0"]["logit"])).max() > 0.1


# Freezing ------------------------------------------------------------------------------------------------------------


def test_frozen_layers_get_no_update_and_their_running_statistics_go_on():
    """E2 to E4: weights, slopes and normalisation of a pathway stay; what they are normalised by does not."""
    torch.manual_seed(0)
    network = make(**SMALL).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stage = SimpleNamespace(name="train", frozen=["normal.*", "low.*"])
    optimiser = torch.optim.SGD(trained_parameters(network, stage), lr=0.1)
    edge = 4 + 2 * network.context[0]
    network(torch.randn(2, 3, edge, edge, edge)).square().mean().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    pathways = {name for name in changed if name.startswith(("normal.", "low."))}
    assert pathways and {name.rpartition(".")[2] for name in pathways} == {"means", "variances"}
    assert {"bias", "common.layer3.conv.weight", "common.layer1.norm.weight"} <= changed
