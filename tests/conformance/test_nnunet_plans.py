"""The planner ``unet`` against the plans that nnU-Net 2.8.1 itself made, and against its published check values."""

from __future__ import annotations

import json

import pytest

from autoseg.planners._topology import Blocks, Topology, count_feature_map_elements, find_topology
from autoseg.planners._unet_settings import UNetOptions
from autoseg.planners.unet import decide, network_of, plan
from autoseg.plugins.planner import Budget

PRESETS = {
    "nnUNetPlans": "plain",
    "nnUNetResEncUNetMPlans": "M",
    "nnUNetResEncUNetLPlans": "L",
    "nnUNetResEncUNetXLPlans": "XL",
}
SCHEMES = {"zscore": "ZScoreNormalization", "ct": "CTNormalization", "none": "NoNormalization"}
DATASETS = [
    "Dataset001_BRATS",
    "Dataset002_OpenMS",
    "Dataset011_RatT2",
    "Dataset012_DWI",
    "Dataset013_ISLESPerfusion",
    "Dataset014_ATLAST1",
]


def as_nnunet(decisions, name: str) -> dict:
    """A configuration in the words of nnU-Net's plans.json."""
    c = decisions.configurations[name]
    arguments = network_of(c).arguments
    return {
        "batch_size": c.batch_size,
        "patch_size": list(c.patch_size),
        "median_image_size_in_voxels": list(c.median_shape),
        "spacing": list(c.spacing_mm),
        "normalization_schemes": [SCHEMES[n.scheme] for n in decisions.normalisation],
        "use_mask_for_norm": [n.inside_nonzero for n in decisions.normalisation],
        "batch_dice": c.batch_dice,
        "n_stages": arguments["n_stages"],
        "features_per_stage": arguments["features_per_stage"],
        "strides": arguments["strides"],
        "kernel_sizes": arguments["kernel_sizes"],
        "n_blocks_or_convs": arguments.get("n_blocks_per_stage", arguments.get("n_conv_per_stage")),
    }


@pytest.mark.shared
@pytest.mark.parametrize("plans", PRESETS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_equal_to_nnunets_own_plans(shared, make_fingerprint, dataset, plans):
    record = json.loads((shared / "conformance/nnunet_plans.json").read_text())[dataset]
    info = json.loads((shared / "data" / dataset / "dataset.json").read_text())
    measured = record["fingerprint"]
    fingerprint = make_fingerprint(
        measured["spacings"],
        measured["shapes_after_crop"],
        channels=list(info["channel_names"].values()),
        labels=info["labels"],
        relative_size=measured["median_relative_size_after_cropping"],
    )
    expected = record["plans"][plans]

    decisions = decide(fingerprint, Budget(), UNetOptions(preset=PRESETS[plans]))

    assert list(decisions.geometry.transpose) == expected["transpose_forward"]
    assert set(decisions.configurations) == set(expected["configurations"])
    for name, configuration in expected["configurations"].items():
        assert as_nnunet(decisions, name) == configuration

    whole = plan(fingerprint, Budget(), UNetOptions(preset=PRESETS[plans]))
    full = expected["configurations"]["3d_fullres"]
    assert list(whole.preprocessing.spacing_mm) == full["spacing"]
    assert whole.recipe.stages[0].patch_size == whole.recipe.inference.patch_size == full["patch_size"]
    assert whole.recipe.stages[0].batch_size == full["batch_size"]
    assert whole.networks["main"].arguments["strides"] == full["strides"]


@pytest.mark.shared
@pytest.mark.parametrize("dataset", DATASETS)
def test_equal_from_the_files_themselves(shared, measured, dataset):
    """Our own fingerprint of the raw files leads to the same plans, with every preset."""
    expected = json.loads((shared / "conformance/nnunet_plans.json").read_text())[dataset]["plans"]
    for plans, preset in PRESETS.items():
        decisions = decide(measured(dataset), Budget(), UNetOptions(preset=preset))
        assert list(decisions.geometry.transpose) == expected[plans]["transpose_forward"]
        for name, configuration in expected[plans]["configurations"].items():
            found = as_nnunet(decisions, name)
            assert found.pop("spacing") == pytest.approx(configuration["spacing"], rel=1e-6)
            assert found == {key: value for key, value in configuration.items() if key != "spacing"}


CHECK_VALUES = [
    # patch, outputs, stages, plain, residual encoder
    ((128, 128, 128), 2, 6, 450_699_264, 555_323_392),
    ((128, 128, 128), 3, 6, 452_796_416, 557_420_544),
    ((160, 128, 128), 2, 6, 563_374_080, 694_154_240),
    ((160, 160, 128), 2, 6, 704_217_600, 867_692_800),
    ((160, 160, 160), 2, 6, 880_272_000, 1_084_616_000),
    ((160, 224, 192), 2, 6, 1_478_856_960, 1_822_154_880),
    ((192, 256, 224), 2, 6, 2_366_171_136, 2_915_447_808),
    ((80, 112, 112), 2, 5, 215_411_840, 265_446_720),
    ((256, 224), 2, 6, 17_948_672, 28_127_232),
    ((512, 512), 3, 7, 82_771_968, 129_531_904),
]


@pytest.mark.parametrize(("patch", "n_outputs", "n_stages", "plain", "residual"), CHECK_VALUES)
def test_feature_map_elements_equal_the_published_values(patch, n_outputs, n_stages, plain, residual):
    n_axes = len(patch)
    topology = Topology(
        patch,
        strides=((1,) * n_axes, *((2,) * n_axes,) * (n_stages - 1)),
        kernel_sizes=((3,) * n_axes,) * n_stages,
        divisor=(2 ** (n_stages - 1),) * n_axes,
    )
    most = 512 if n_axes == 2 else 320
    assert count_feature_map_elements(topology, Blocks(False, most), n_outputs) == plain
    assert count_feature_map_elements(topology, Blocks(True, most), n_outputs) == residual
    if n_stages < 7:  # nnU-Net itself would give 512 x 512 one stage more
        assert find_topology((1.0,) * n_axes, patch) == topology


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("spacing", "size", "odd"),
    [
        ((1.0, 1.0, 1.0), (32, 40, 24), (33, 47, 25)),
        ((6.0, 1.8, 1.8), (22, 64, 48), (23, 65, 50)),
        ((1.0, 0.117), (40, 64), (41, 63)),
    ],
)
def test_feature_map_elements_equal_those_of_the_built_network(residual, spacing, size, odd):
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
    from torch import nn

    topology, blocks = find_topology(spacing, size), Blocks(residual, max_features=64)
    n = topology.n_stages
    network = (ResidualEncoderUNet if residual else PlainConvUNet)(
        2,
        n,
        blocks.features(n),
        nn.Conv3d if len(size) == 3 else nn.Conv2d,
        [list(kernel) for kernel in topology.kernel_sizes],
        [list(stride) for stride in topology.strides],
        blocks.encoder(n),
        4,
        blocks.decoder(n),
        conv_bias=True,
    )
    assert count_feature_map_elements(topology, blocks, 4) == network.compute_conv_feature_map_size(
        topology.patch_size
    )
    # sizes that do not divide: the remainder is dropped, on the way down as on the way up
    assert count_feature_map_elements(topology, blocks, 4, size=odd) == network.compute_conv_feature_map_size(
        odd
    )


def fingerprint_a(make):
    return make([(1, 1, 1)], [(189, 233, 197)] * 655, relative_size=0.95)


def fingerprint_b(make):
    return make([(2, 2, 2)], [(73, 112, 112)] * 250, channels=("FLAIR", "T1"))


def fingerprint_c(make):
    z = [3.0] * 20 + [5.0] * 50 + [6.5] * 30
    return make([(s, 0.9, 0.9) for s in z], [(int(150 / s), 220, 180) for s in z], relative_size=0.6)


def fingerprint_d(make):
    labels = {"background": 0, "a": 1, "b": 2, "c": 3}
    return make([(1, 1, 1)], [(140, 171, 137)] * 1251, channels="abcd", labels=labels, relative_size=0.3)


def fingerprint_e(make):
    return make([(0.8, 0.45, 0.45)], [(200, 480, 400)] * 100)


def fingerprint_f(make):
    return make([(6, 1, 1)], [(22, 200, 170)] * 30)


PUBLISHED = [
    # fingerprint, per preset (patch, batch), 2d patch, 2d batch per preset (None: not stated)
    (
        fingerprint_a,
        [((128, 128, 128), 2), ((128, 128, 128), 2), ((160, 224, 192), 2), ((192, 256, 224), 2)],
        (256, 224),
        [57, 58, 162, 239],
    ),
    (fingerprint_b, [((80, 112, 112), b) for b in (5, 5, 16, 27)], (112, 112), [266, 269, 757, 1116]),
    (
        fingerprint_c,
        [((48, 224, 192), 2), ((48, 224, 160), 2), ((56, 224, 192), 5), ((56, 224, 192), 8)],
        (224, 192),
        [76, 77, 216, 319],
    ),
    (
        fingerprint_d,
        [((128, 128, 128), 2), ((128, 128, 128), 2), ((160, 192, 160), 3), ((160, 192, 160), 5)],
        (192, 160),
        [105, 107, 301, 444],
    ),
    (
        fingerprint_e,
        [((80, 192, 160), 2), ((80, 192, 160), 2), ((128, 256, 224), 2), ((160, 320, 256), 2)],
        (512, 448),
        [14, 14, 40, 59],
    ),
    (fingerprint_f, [((24, 224, 192), b) for b in (2, 3, 9, 16)], (224, 192), [26, 77, None, None]),
]


@pytest.mark.parametrize(("make", "three_d", "patch_2d", "batch_2d"), PUBLISHED)
def test_worked_plans(make_fingerprint, make, three_d, patch_2d, batch_2d):
    fingerprint = make(make_fingerprint)
    for preset, (patch, batch), planes in zip(("plain", "M", "L", "XL"), three_d, batch_2d, strict=True):
        found = decide(fingerprint, Budget(), UNetOptions(preset=preset)).configurations
        assert (found["3d_fullres"].patch_size, found["3d_fullres"].batch_size) == (patch, batch)
        assert found["2d"].patch_size == patch_2d
        assert planes in (None, found["2d"].batch_size)


def words(entries) -> list[str]:
    return ["".join(str(n) for n in entry) for entry in entries]


def test_details_of_worked_plan_a(make_fingerprint):
    decisions = decide(fingerprint_a(make_fingerprint), Budget(), UNetOptions())
    full = decisions.configurations["3d_fullres"]
    assert words(full.topology.strides) == ["111", *["222"] * 5]
    assert full.batch_dice is False
    assert "3d_lowres" not in decisions.configurations


def test_details_of_worked_plan_c(make_fingerprint):
    decisions = decide(fingerprint_c(make_fingerprint), Budget(), UNetOptions())
    full = decisions.configurations["3d_fullres"]
    assert full.spacing_mm == pytest.approx((3.0, 0.9, 0.9))
    assert full.median_shape == (50, 220, 180)
    assert words(full.topology.strides) == ["111", "122", "222", "222", "222", "122"]
    assert words(full.topology.kernel_sizes) == ["133", *["333"] * 5]
    assert [n.inside_nonzero for n in decisions.normalisation] == [True]


def test_details_of_worked_plan_d(make_fingerprint):
    decisions = decide(fingerprint_d(make_fingerprint), Budget(), UNetOptions())
    assert [n.inside_nonzero for n in decisions.normalisation] == [True] * 4


def test_details_of_worked_plan_e(make_fingerprint):
    fingerprint = fingerprint_e(make_fingerprint)
    for preset in ("plain", "M"):
        found = decide(fingerprint, Budget(), UNetOptions(preset=preset)).configurations
        low, full = found["3d_lowres"], found["3d_fullres"]
        assert low.spacing_mm == pytest.approx((1.284, 0.722, 0.722), abs=5e-4)
        assert low.median_shape == (125, 299, 249)
        assert low.patch_size == full.patch_size
        assert (low.batch_dice, full.batch_dice) == (False, True)
        assert words(full.topology.strides)[-1] == "122"
    for preset in ("L", "XL"):
        assert "3d_lowres" not in decide(fingerprint, Budget(), UNetOptions(preset=preset)).configurations
    assert found["3d_fullres"].n_stages == 6
    assert decide(fingerprint, Budget(), UNetOptions(preset="XL")).configurations["3d_fullres"].n_stages == 7


def test_details_of_worked_plan_f(make_fingerprint):
    full = decide(fingerprint_f(make_fingerprint), Budget(), UNetOptions()).configurations["3d_fullres"]
    assert words(full.topology.strides) == ["111", "122", "122", "222", "222", "122"]
    assert words(full.topology.kernel_sizes) == ["133", "133", *["333"] * 4]
