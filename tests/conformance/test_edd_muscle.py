"""EDD Net, MUSCLE Net, the networks EDD Net was compared with, the loss and the fusion: the numbers of the study.

Chen, Bentley and Rueckert 2017 (doi 10.1016/j.nicl.2017.06.016). The paper prints receptive fields (Tables 2 and 3);
numbers of parameters and worked cases of loss and fusion were computed independently of this code.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from autoseg import networks
from autoseg.evaluation.score_masks import evaluate_folder
from autoseg.labels import LabelSet
from autoseg.networks.edd_muscle import FUSIONS, STACKS, receptive_field
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.resample import new_shape
from autoseg.sampling import parameters
from autoseg.sampling.keys import Purpose, generator
from autoseg.trainers._edd_muscle_judging import RULES, correct_prior, find_candidates, fuse
from autoseg.training import losses, optimisers, schedules

LESION = LabelSet.from_labels({"background": 0, "lesion": 1})


class Known(NamedTuple):
    """A network of the study: its name and arguments, and what it must have."""

    name: str
    arguments: dict
    parameters: int
    convolutions: int
    deconvolutions: int
    receptive_field: int | None  # of the deepest feature map
    deepest: str = "encoder.-1"


NETWORKS = {
    "deconvnet_rf18": Known("deconvnet", {"stacks": [1, 1, 1]}, 195_106, 4, 3, 18),
    "deconvnet_rf32": Known("deconvnet", {"stacks": [2, 2, 2]}, 583_074, 7, 6, 32),
    "deconvnet_rf44": Known("deconvnet", {"stacks": [2, 3, 3]}, 952_482, 9, 8, 44),
    "deconvnet_rf64_chosen": Known("deconvnet", {}, 1_617_314, 12, 11, 64),
    "deconvnet_rf96": Known("deconvnet", {"stacks": [2, 3, 3, 3]}, 3_904_418, 12, 11, 96),
    "deconvnet_rf128": Known("deconvnet", {"stacks": [4, 4, 4, 4]}, 5_491_618, 17, 16, 128),
    "unet_rf46": Known("edd_unet", {}, 712_418, 16, 0, 46),
    "fcn_rf52": Known("edd_fcn", {}, 583_206, 10, 0, 52),
    "deeplab_rf44": Known("edd_deeplab", {}, 730_790, 12, 0, 44, "parallel.-1"),
    "edd": Known("edd", {}, 3_245_126, 27, 22, None),
    "muscle_4ch": Known("muscle", {"in_channels": 4}, 1_131_458, 4, 0, 14, "convolutions"),
    "muscle_6ch": Known("muscle", {"in_channels": 6}, 1_132_034, 4, 0, 14, "convolutions"),
}
SEGMENTERS = [key for key, known in NETWORKS.items() if known.name != "muscle"]


def make(key: str, **more) -> nn.Module:
    known = NETWORKS[key]
    return networks.build(known.name, **{"in_channels": 1, "out_channels": 2, **known.arguments, **more})


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NETWORKS)
def test_layers_and_parameters(key):
    with torch.device("meta"):
        network = make(key)
    known = NETWORKS[key]
    assert parameters_of(network) == known.parameters
    assert count(network, nn.Conv2d) == known.convolutions
    assert count(network, nn.ConvTranspose2d) == known.deconvolutions


@pytest.mark.parametrize(
    ("stacks", "expected"), [((4, 5, 4), 1_432_994), ((4, 3, 5), 1_580_450), ((2, 2, 6), 1_764_770)]
)
def test_other_networks_with_a_receptive_field_of_64(stacks, expected):
    with torch.device("meta"):
        network = networks.build("deconvnet", in_channels=1, out_channels=2, stacks=stacks)
    assert parameters_of(network) == expected
    assert receptive_field(stacks) == 64


def test_parts_of_edd_and_muscle():
    with torch.device("meta"):
        edd, muscle = make("edd"), make("muscle_4ch")
    assert [parameters_of(branch) for branch in edd.branches] == [1_617_314] * 2
    assert parameters_of(edd.refinement) == 10_498
    assert (count(muscle, nn.MaxPool2d), count(muscle, nn.Linear)) == (1, 3)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (144, 167), (33, 50), (8, 13)])
@pytest.mark.parametrize("key", SEGMENTERS)
def test_output_has_the_size_of_the_image(key, size):
    with torch.device("meta"):
        network, image = make(key), torch.zeros(2, 1, *size)
        assert network.eval()(image).shape == (2, 2, *size)
        outputs = network.train()(image)
    if key == "edd":
        assert [output.shape for output in outputs] == [(2, 2, *size)] * 4
    else:
        assert outputs.shape == (2, 2, *size)


@pytest.mark.parametrize("key", ["muscle_4ch", "muscle_6ch"])
def test_muscle_classifies_patches(key):
    channels = NETWORKS[key].arguments["in_channels"]
    with torch.device("meta"):
        assert make(key)(torch.zeros(3, channels, 16, 16)).shape == (3, 2)


# Receptive fields ----------------------------------------------------------------------------------------------------


@pytest.fixture
def whole_windows(monkeypatch):
    """Pooling that depends on all pixels of its window, as the maximum does, but with a gradient to each."""

    def mean(x, kernel_size, stride=None, *_, return_indices=False, **__):
        pooled = F.avg_pool2d(x, kernel_size, stride)
        return (pooled, None) if return_indices else pooled

    monkeypatch.setattr(F, "max_pool2d", mean)
    monkeypatch.setattr(
        F, "max_unpool2d", lambda x, _, kernel_size, output_size: F.interpolate(x, output_size)
    )


def reach(network: nn.Module, deepest: nn.Module, image: torch.Tensor) -> list[int]:
    """How many pixels, along y and x, one unit in the middle of a feature map depends on."""
    for module in network.modules():  # no path may cancel another, no ReLU may close
        if getattr(module, "weight", None) is not None:
            nn.init.constant_(module.weight, 1)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    found = []
    deepest.register_forward_hook(lambda module, inputs, output: found.append(output))
    image = image.double().requires_grad_()
    network.double().eval()(image)
    y, x = (n // 2 for n in found[0].shape[2:])
    found[0][0, 0, y, x].backward()
    where = image.grad[0, 0].nonzero()
    return (where.max(0).values - where.min(0).values + 1).tolist()


def test_receptive_field_is_measured_on_a_known_network(whole_windows):
    """One 3x3 convolution, one pooling, one 3x3 convolution: 3 + 1 + 4."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1))
    assert reach(network, network, torch.ones(1, 1, 20, 20)) == [8, 8]


@pytest.mark.parametrize("key", [key for key, known in NETWORKS.items() if known.receptive_field])
def test_receptive_fields(key, whole_windows):
    known = NETWORKS[key]
    network = make(key, width=2)
    name, _, index = known.deepest.partition(".")
    deepest = getattr(network, name)[int(index)] if index else getattr(network, name)
    image = torch.ones(
        1, known.arguments.get("in_channels", 1), *((16, 16) if "muscle" in key else (200, 216))
    )
    assert reach(network, deepest, image) == [known.receptive_field] * 2


@pytest.mark.parametrize("field", STACKS)
def test_formula_of_the_receptive_field(field):
    assert receptive_field(STACKS[field]) == field


# Initialisation ------------------------------------------------------------------------------------------------------


def test_xavier_as_caffe_has_it():
    network = make("deconvnet_rf44")
    convolution, deconvolution = network.encoder[0][3], network.decoder[-1][0]
    for layer in (convolution, deconvolution):  # 32 maps in and out
        assert layer.weight.abs().max().item() == pytest.approx(0.102062, rel=1e-3)
        assert layer.weight.var().item() == pytest.approx(1 / 288, rel=0.05)
        assert layer.bias is None
    assert network.score.weight.abs().max().item() == pytest.approx(0.102062, rel=0.02)
    assert network.score.bias.tolist() == [0, 0]


def test_branches_start_different():
    first, second = make("edd").branches
    assert not torch.equal(first.encoder[0][0].weight, second.encoder[0][0].weight)


# Loss ----------------------------------------------------------------------------------------------------------------

BRANCHES = [torch.tensor(logits, dtype=torch.float64).view(1, 2, 1, 1) for logits in ([0, 1.0], [0, -0.5])]
REFINED = torch.tensor([0, 2.0], dtype=torch.float64).view(1, 2, 1, 1)
TERMS = {"refined": 0.1269280, "fused": 0.5759394, "branch1": 0.3132617, "branch2": 0.9740770}


def test_four_terms_of_the_loss():
    outputs = [REFINED, FUSIONS["mean_logits"](BRANCHES), *BRANCHES]
    label = torch.ones(1, 1, 1, dtype=torch.long)
    assert losses.build("edd_muscle", labels=LESION)(outputs, label).item() == pytest.approx(
        1.9902061, abs=1e-7
    )
    for i, expected in enumerate(TERMS.values()):
        weights = [float(i == j) for j in range(4)]
        loss = losses.build("edd_muscle", labels=LESION, output_weights=weights)
        assert loss(outputs, label).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [("mean_logits", 0.5621765), ("sum_logits", 1 / (1 + np.exp(-0.5))), ("mean_probabilities", 0.5542996)],
)
def test_fusion_of_the_branches(fusion, expected):
    assert FUSIONS[fusion](BRANCHES).softmax(1)[0, 1].item() == pytest.approx(expected, abs=1e-7)


# Second stage --------------------------------------------------------------------------------------------------------

P = [0.9, 0.6, 0.55]
FUSED = [
    ("peak", 0.8, [0.8, 0.533333, 0.488889]),
    ("product", 0.8, [0.72, 0.48, 0.44]),
    ("odds", 0.8, [0.972973, 0.857143, 0.830189]),
    ("peak", 0.3, [0.3, 0.2, 0.183333]),
    ("product", 0.3, [0.27, 0.18, 0.165]),
    ("odds", 0.3, [0.794118, 0.391304, 0.343750]),
]


@pytest.mark.parametrize(("rule", "q", "expected"), FUSED)
def test_fusion_of_both_networks(rule, q, expected):
    probability = np.zeros((1, 5, 5))
    probability[0, 2, 1:4] = P
    found = find_candidates(probability)
    assert [axis.tolist() for axis in found.pixels] == [[0] * 3, [2] * 3, [1, 2, 3]]
    assert fuse(probability, found, np.array([q]), rule) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "prior", "expected"),
    [(0.8, 0.3, 0.5, 0.631579), (0.8, 0.3, 0.7, 0.423529), (0.99, 0.01, 0.5, 0.5)],
)
def test_product_of_odds(p, q, prior, expected):
    got = RULES["odds"](np.array(p), np.array(q), np.array(p), prior)
    assert got == pytest.approx(expected, abs=1e-6)


def test_correction_for_the_prior_multiplies_the_odds():
    q = np.array([0.2, 0.5, 0.8, 0.0, 1.0])
    corrected = correct_prior(q, positives=30, negatives=90)
    assert corrected == pytest.approx([1 / 13, 1 / 4, 4 / 7, 0, 1])  # odds 1/4, 1, 4, times 1/3
    assert correct_prior(q, 7, 7) == pytest.approx(q)


# Training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(make_fingerprint):
    """The plan for scans as the paper describes them: 128 x 128 pixels of 1.8 mm, slices of 5 mm and a gap."""
    scans = make_fingerprint([(6.5, 1.8, 1.8)], [(20, 128, 128)] * 10, channels=["DWI"])
    return make_plan(scans, "edd_muscle", Budget())


@pytest.mark.parametrize(("matrix", "field_mm", "pixels"), [(128, 230, 144), (192, 267, 167)])
def test_both_kinds_of_scans_on_the_working_grid(planned, matrix, field_mm, pixels):
    kept, *edges_mm = planned.preprocessing.spacing_mm
    assert kept is None, "slices stay"
    before = (6.5, field_mm / matrix, field_mm / matrix)
    assert new_shape((20, matrix, matrix), before, (6.5, *edges_mm)) == (20, pixels, pixels)


def test_each_volume_gets_mean_0_and_variance_1(planned):
    image = np.random.default_rng(0).gamma(2, 100, (5, 20, 30)).astype(np.float32)
    image[:, :5] = 0  # air counts
    (scheme,) = planned.preprocessing.normalisation
    assert (scheme.scheme, scheme.inside_nonzero) == ("zscore", False)
    normalise(image[None], planned.preprocessing.normalisation)
    assert (image.mean(), image.std()) == pytest.approx((0, 1), abs=1e-5)


def test_sgd_as_published(planned):
    for stage in planned.recipe.stages:
        optimiser = optimisers.REGISTRY.build(
            stage.optimiser.name, [nn.Parameter(torch.zeros(1))], **stage.optimiser.arguments
        )
        assert type(optimiser) is torch.optim.SGD
        wanted = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0, "nesterov": False, "dampening": 0}
        assert {key: optimiser.defaults[key] for key in wanted} == wanted
        schedule = schedules.REGISTRY.build(stage.schedule.name, epochs=stage.epochs)
        schedules.apply(schedule, stage.epochs - 1, optimiser)
        assert optimiser.param_groups[0]["lr"] == 0.05


def test_patches_are_turned_by_any_angle_flipped_in_half_of_the_cases_and_nothing_else(planned):
    stage = planned.recipe.stages[0]
    augmentation = parameters.build(stage.augmentation, stage.patch_size)
    drawn = [augmentation.draw(generator(Purpose.AUGMENTATION, (0, i)), 1) for i in range(4000)]
    angles = np.array([d.rotation for d in drawn])
    assert angles.shape == (4000, 1), "always"
    assert stats.kstest(angles[:, 0], "uniform", (-np.pi, 2 * np.pi)).pvalue > 0.01
    assert {d.mirror for d in drawn} == {(), (1,)}, "x of a patch y, x"
    assert np.mean([d.mirror == (1,) for d in drawn]) == pytest.approx(0.5, abs=0.03)
    assert {replace(d, rotation=(), mirror=(), noise_seed=0) for d in drawn} == {parameters.Parameters()}


# Metrics -------------------------------------------------------------------------------------------------------------


def test_metrics_of_a_hand_worked_cohort(tmp_path):
    """Two subjects of one 8 x 8 slice; what each of them has is in tests/evaluation/metrics/test_lesions.py."""
    truth, prediction = np.zeros((2, 1, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.uint8)
    truth[0, 0, [0, 0, 1, 1, 0, 5, 6, 7], [0, 1, 0, 1, 6, 1, 2, 3]] = 1
    prediction[0, 0, [1, 1, 3, 3, 7, 6], [1, 2, 5, 6, 7, 2]] = 1
    truth[1, 0, 3, 3] = 1
    for folder, masks in (("truth", truth), ("prediction", prediction)):
        for name, mask in zip("AB", masks, strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(mask)
            image.SetSpacing((1.6, 1.6, 6.0))  # the published grid, in whose pixels sizes are given
            sitk.WriteImage(image, str(tmp_path / folder / f"{name}.nii.gz"))
    summary = evaluate_folder(tmp_path / "prediction", tmp_path / "truth", preset="edd_muscle")
    (found,) = summary.classes.values()
    published = {
        "lesions_false": 1,  # m#FP
        "lesions_missed": 1,  # m#FN
        "lesion_size_false": 0.75,  # mSFP: 0 where there is none, then the mean over all subjects
        "lesion_size_missed": 1,  # mSFN
        "dice": 0.142857,
        "detected": 0.5,  # DR
    }
    assert {name: found.all[name].mean for name in published} == pytest.approx(published, abs=1e-6)
    (split,) = summary.strata
    (levels,) = split.classes.values()
    assert (split.name, [level.name for level in levels]) == ("lesion_size_truth", ["under 37 px"])


TABLE_5 = """
DeepLab     12.84 12.72 12.81  4.96 6.00 5.22   8.16  8.52  8.25  3.52 5.80 4.08
FCN         16.74 15.56 16.44  3.63 4.62 3.88   9.81 10.23  9.92  3.16 5.16 3.66
U-Net       12.81 12.97 12.85  3.80 4.56 3.99  11.75 10.73 11.50  3.61 5.87 4.17
DeconvNet   11.38 12.98 11.78  3.75 4.72 3.99  10.21  9.92 10.14  3.21 4.72 3.58
EDD          5.58  6.82  5.89  3.58 4.56 3.82  10.59 10.38 10.53  3.17 5.06 3.64
EDD+MUSCLE   2.97  4.16  3.27  3.83 4.78 4.07  12.58 10.90 12.16  3.68 5.58 4.16
"""
"""m#FP, m#FN, mSFP, mSFN of the 271 small and 90 large test subjects (Table 5), and of all (Tables 2 and 4)."""


@pytest.mark.parametrize("row", TABLE_5.strip().splitlines(), ids=lambda row: row.split()[0])
def test_every_subject_weighs_alike_in_the_papers_means(row):
    """Why `lesion_size_false` is 0 for a subject without false lesion, and its mean is over all subjects."""
    small, large, all_subjects = np.array(row.split()[1:], float).reshape(4, 3).T
    assert (271 * small + 90 * large) / 361 == pytest.approx(all_subjects, abs=0.0085)


# The record ----------------------------------------------------------------------------------------------------------


def shapes_of(network: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> list[list[int]]:
    outputs = network.train(training)(torch.zeros(shape, device="meta"))
    return [list(output.shape) for output in (outputs if isinstance(outputs, list) else [outputs])]


NUMBERS = {
    "params": lambda net, known: parameters_of(net),
    "n_conv": lambda net, known: count(net, nn.Conv2d),
    "n_deconv": lambda net, known: count(net, nn.ConvTranspose2d),
    "n_pool": lambda net, known: count(net, nn.MaxPool2d),
    "n_fc": lambda net, known: count(net, nn.Linear),
    "stacks": lambda net, known: [count(stack, nn.Conv2d) for stack in net.encoder],
    "widths": lambda net, known: [stack[0].out_channels for stack in net.encoder],
    "poolings": lambda net, known: len(net.encoder) - 1,
    "params_branch": lambda net, known: parameters_of(net.branches[1]),
    "params_refine": lambda net, known: parameters_of(net.refinement),
    "output_for_1x1x64x64": lambda net, known: shapes_of(net, (1, 1, 64, 64))[0],
    "output_for_1x1x128x128": lambda net, known: shapes_of(net, (1, 1, 128, 128))[0],
    "outputs": lambda net, known: shapes_of(net, (1, 1, 64, 64), training=True),
    "input": lambda net, known: [net.convolutions[0][0].in_channels, *net.size],
    "output": lambda net, known: shapes_of(net, (1, known.arguments["in_channels"], 16, 16))[0],
    **dict.fromkeys(
        ("rf_bottleneck", "rf_deepest", "rf_conv_part"), lambda net, known: [known.receptive_field] * 2
    ),
}
"""What a network has, by the names of the record; receptive fields are measured above."""


@pytest.mark.shared
def test_every_number_of_the_record(shared):
    record = json.loads((shared / "conformance/other.json").read_text())["edd_muscle"]
    assert list(record) == list(NETWORKS)
    for key, known in NETWORKS.items():
        with torch.device("meta"):
            network = make(key)
        entry = record[key]
        entry.pop("order", None)  # of the outputs: tests/networks/test_edd_muscle.py
        assert {name: NUMBERS[name](network, known) for name in entry} == entry, key
