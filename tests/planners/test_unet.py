"""The planner ``unet``: what it decides beyond nnU-Net's own plans (tests/conformance), and what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autoseg import messages
from autoseg.bundle.networks import build_network
from autoseg.errors import AutosegError, FaultsError
from autoseg.plan import Plan
from autoseg.planners._unet_settings import UNetOptions
from autoseg.planners.unet import PLANNER, decide, plan
from autoseg.plugins.planner import Budget, Match, Verdict
from autoseg.preparation.choice import make_plan
from autoseg.training import losses

T1 = {"spacings": [(1, 1, 1)], "shapes": [(150, 180, 140)] * 10}
THICK = {"spacings": [(6, 1, 1)], "shapes": [(22, 200, 170)] * 30}


def why(found: Plan, what: str) -> str:
    return next(reason.why for reason in found.reasons if reason.what == what)


def test_planning_does_not_import_torch():
    modules = "autoseg.planners.unet, autoseg.preparation.choice, autoseg.plan.table"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "False"


def test_the_recipe_is_nnunets(make_fingerprint):
    found = plan(make_fingerprint(**T1), Budget(), UNetOptions())
    (stage,) = found.recipe.stages
    assert (stage.epochs, stage.iterations_per_epoch, stage.gradient_clip) == (1000, 250, 12)
    assert stage.loss.arguments == {"batch_dice": False, "deep_supervision": True}
    assert stage.optimiser.arguments == {"lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
    assert stage.schedule.arguments == {"exponent": 0.9}
    assert stage.sampling.foreground_share == 0.33
    assert stage.augmentation.mirror_axes == found.recipe.inference.mirror_axes == (0, 1, 2)
    assert found.recipe.inference.step == 0.5
    assert found.recipe.fusion.name == "mean_logits"
    assert found.trainer == "unet"


def test_every_plan_builds_its_network_and_loss(make_fingerprint):
    from autoseg.trainers.unet import TRAINER

    for preset in ("plain", "M"):
        small = make_fingerprint([(3, 1, 1)], [(12, 40, 48)] * 4)
        found = plan(small, Budget(), UNetOptions(preset=preset))
        network = build_network(found, "main", TRAINER)
        patch = found.recipe.stages[0].patch_size
        assert all(edge % d == 0 for edge, d in zip(patch, network.takes.divisor, strict=True))
        loss = found.recipe.stages[0].loss
        losses.build(loss.name, labels=found.label_set, **loss.arguments)


def test_a_2d_plan_keeps_the_slices(make_fingerprint):
    found = plan(make_fingerprint(**THICK), Budget(), UNetOptions(configuration="2d"))
    assert found.preprocessing.spacing_mm == (None, 1, 1)
    assert found.recipe.stages[0].patch_size == found.recipe.inference.patch_size == [224, 192]
    assert found.recipe.stages[0].augmentation.mirror_axes == found.recipe.inference.mirror_axes == (1, 2)
    assert found.recipe.stages[0].loss.arguments["batch_dice"] is True
    assert all(len(kernel) == 2 for kernel in found.networks["main"].arguments["kernel_sizes"])


def test_lowres_on_request(make_fingerprint):
    fingerprint = make_fingerprint([(0.8, 0.45, 0.45)], [(200, 480, 400)] * 100)
    found = plan(fingerprint, Budget(), UNetOptions(configuration="3d_lowres"))
    assert found.preprocessing.spacing_mm == pytest.approx((1.284, 0.722, 0.722), abs=5e-4)
    assert "coarsened until the patch sees a quarter" in why(found, "preprocessing.spacing_mm")
    assert set(found.alternatives) == {"2d", "3d_fullres", "3d_lowres"}
    assert [name for name, entry in found.alternatives.items() if entry["chosen"]] == ["3d_lowres"]


def test_single_slices_are_planned_in_2d(make_fingerprint):
    found = plan(make_fingerprint([(5, 1, 1)], [(1, 200, 180)] * 20), Budget(), UNetOptions())
    assert len(found.recipe.stages[0].patch_size) == 2
    assert "too thin" in why(found, "configuration")


def test_a_missing_configuration_is_refused(make_fingerprint):
    with pytest.raises(
        AutosegError, match=r"no configuration 3d_lowres[\s\S]*sees enough[\s\S]*one of 2d, 3d_fullres"
    ):
        plan(make_fingerprint(**T1), Budget(), UNetOptions(configuration="3d_lowres"))
    with pytest.raises(AutosegError, match=r"no configuration 3d_fullres[\s\S]*too small"):
        plan(
            make_fingerprint([(5, 1, 1)], [(1, 99, 99)] * 9),
            Budget(),
            UNetOptions(configuration="3d_fullres"),
        )


def test_images_too_small_for_any_network(make_fingerprint):
    with pytest.raises(
        AutosegError, match=r"too small for a U-Net[\s\S]*7 x 6 x 5 voxels[\s\S]*check the spacing"
    ):
        plan(make_fingerprint([(1, 1, 1)], [(7, 6, 5)]), Budget(), UNetOptions())


def test_the_coarsest_axis_comes_first(make_fingerprint):
    found = plan(make_fingerprint([(1, 1, 5)], [(200, 180, 22)] * 5), Budget(), UNetOptions())
    assert found.preprocessing.transpose == (2, 0, 1)
    assert found.preprocessing.spacing_mm == (5, 1, 1)
    assert "x is the coarsest axis (5 mm)" in why(found, "preprocessing.transpose")


def test_the_target_spacing_can_be_set_in_file_order(make_fingerprint):
    options = UNetOptions(target_spacing_mm=(1, 1, 3))
    found = plan(make_fingerprint([(1, 1, 6)], [(200, 180, 22)] * 5), Budget(), options)
    assert found.preprocessing.spacing_mm == (3, 1, 1)
    assert found.recipe.stages[0].patch_size[0] >= 40
    assert why(found, "preprocessing.spacing_mm") == "set by planner.target_spacing_mm"


def test_memory_scales_patch_and_batch(make_fingerprint):
    fingerprint = make_fingerprint(**THICK)
    small, large = (
        decide(fingerprint, Budget(memory_gb=gb), UNetOptions(preset="M")).chosen for gb in (2, 24)
    )
    assert small.elements < large.elements
    assert large.batch_size > small.batch_size
    for chosen, gb in ((small, 2), (large, 24)):
        assert chosen.memory_gb(gb) <= gb * 1.25  # batches are rounded, as nnU-Net does
    found = plan(fingerprint, Budget(memory_gb=2), UNetOptions())
    assert "as asked for, instead of the preset's own 8 GB" in why(found, "preset")


@pytest.mark.parametrize("preset", ["plain", "M"])
def test_too_little_memory_is_said_and_not_looped_on(make_fingerprint, preset):
    with pytest.raises(AutosegError, match=r"no U-Net fits 0.0001 GB[\s\S]*-gpu_memory_target"):
        plan(make_fingerprint(**T1), Budget(memory_gb=1e-4), UNetOptions(preset=preset))


def test_normalisation_follows_the_channel_names(make_fingerprint):
    names = ("CT", "T2", "noNorm", "rescale_to_0_1", "RGB_to_0_1", "zscore")
    fingerprint = make_fingerprint(**T1, channels=names, relative_size=0.3)
    found = plan(fingerprint, Budget(), UNetOptions()).preprocessing.normalisation
    assert [n.scheme for n in found] == ["ct", "zscore", "none", "rescale_0_1", "rgb_0_1", "zscore"]
    assert [n.inside_nonzero for n in found] == [False, True, False, False, False, True]
    assert found[0].statistics == {"mean": 40, "std": 20, "percentile_00_5": -5, "percentile_99_5": 150}


def test_ct_without_lesions_is_refused(make_fingerprint):
    fingerprint = make_fingerprint(**T1, channels=("CT",), components=[[]] * 10)
    with pytest.raises(AutosegError, match=r"channel 0 \(CT\)[\s\S]*inside the lesions"):
        plan(fingerprint, Budget(), UNetOptions())


def test_outputs_count_background_regions_and_ignore(make_fingerprint):
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 4}
    fingerprint = make_fingerprint(**T1, labels=regions, regions_class_order=[1, 2])
    three = decide(make_fingerprint(**T1), Budget(), UNetOptions()).chosen
    four = decide(fingerprint, Budget(), UNetOptions()).chosen
    voxels = 1
    for edge in three.patch_size:
        voxels *= edge
    assert four.patch_size == three.patch_size
    assert four.elements - three.elements == 2 * voxels
    assert plan(fingerprint, Budget(), UNetOptions()).regions_class_order == [1, 2]


def test_every_decision_has_a_reason(make_fingerprint):
    found = plan(make_fingerprint(**THICK), Budget(), UNetOptions())
    paths = {reason.what for reason in found.reasons}
    stage = "recipe.stages.0."
    assert paths >= {
        "configuration",
        "preset",
        "memory",
        "networks.main",
        "recipe.inference",
        *(
            f"preprocessing.{name}"
            for name in ("transpose", "crop_to_nonzero", "spacing_mm", "normalisation")
        ),
        *(stage + name for name in ("patch_size", "batch_size", "epochs", "loss", "optimiser", "sampling")),
    }
    assert all(reason.why and reason.value for reason in found.reasons)


def test_the_reason_for_thick_slices_gives_the_numbers(make_fingerprint):
    z = [6.0] * 3 + [6.25] * 4 + [6.5] * 3
    found = plan(make_fingerprint([(s, 1.8, 1.8) for s in z], [(21, 128, 128)] * 10), Budget(), UNetOptions())
    assert found.preprocessing.spacing_mm == (6.0, 1.8, 1.8)
    text = why(found, "preprocessing.spacing_mm")
    assert "z spacing 6.25 mm is more than 3 x 1.8 mm" in text
    assert "only 21 slices for 128 pixels" in text
    assert "10th percentile" in text


def test_lesions_smaller_than_a_voxel_are_said(make_fingerprint):
    messages.forget_warnings()
    fine, coarse = [(1, 1, 1)] * 2, [(3, 1, 1)] * 8
    fingerprint = make_fingerprint(
        fine + coarse, [(100, 180, 140)] * 10, components=[[2, 500]] * 2 + [[500]] * 8
    )
    found = plan(fingerprint, Budget(), UNetOptions())
    assert found.preprocessing.spacing_mm[0] == 3
    note = next(reason for reason in found.reasons if reason.what == "note: small lesions")
    assert note.value == "2 of 12 lesions smaller than one voxel of the working grid"
    assert list(messages.warning_counts()) == [f"{note.value}: they may vanish in preprocessing"]
    messages.forget_warnings()


def test_many_small_lesions_bring_a_suggestion_but_no_change(make_fingerprint):
    many = plan(make_fingerprint(**T1, components=[[5, 7, 9, 9000]] * 10), Budget(), UNetOptions())
    even = plan(make_fingerprint(**T1, components=[[900, 900]] * 10), Budget(), UNetOptions())
    one = plan(make_fingerprint(**T1, components=[[5]] * 5 + [[9000]] * 5), Budget(), UNetOptions())
    assert "stages.train.sampling.balance=component" in why(many, "note: sampling")
    assert all("note: sampling" not in {r.what for r in other.reasons} for other in (even, one))
    assert many.recipe == even.recipe


def test_without_lesions_the_plan_says_so(make_fingerprint):
    found = plan(make_fingerprint(**T1, components=[[]] * 10), Budget(), UNetOptions())
    assert "nothing to learn" in why(found, "note: lesions")


def test_options_are_typed(make_fingerprint):
    with pytest.raises(AutosegError, match=r"planner.prest[\s\S]*did you mean preset\?"):
        make_plan(make_fingerprint(**T1), "unet", Budget(), {"planner.prest": "L"})
    with pytest.raises(FaultsError, match=r"preset[\s\S]*plain, M, L or XL"):
        make_plan(make_fingerprint(**T1), "unet", Budget(), {"planner.preset": "S"})
    found = make_plan(make_fingerprint(**T1), "unet", Budget(), {"planner.preset": "L"})
    assert found.networks["main"].name == "unet_resenc"
    assert found.planner_options["preset"] == "L"


def test_it_fits_any_dataset_a_little(make_fingerprint):
    found = PLANNER.match(make_fingerprint(**T1))
    assert found == Match(Verdict.POSSIBLE, ("fits any dataset", "the general fall-back"))
    assert str(found) == "possible: fits any dataset, the general fall-back"


@pytest.mark.parametrize(
    ("background", "noted"), [([-3.5, 0.0], True), ([0.0, 0.0], False), ([None, None], False), ([], False)]
)
def test_air_that_is_not_zero_is_noted(make_fingerprint, background, noted):
    fingerprint = make_fingerprint([(1, 1, 1)], [(60, 80, 70)] * 4, channels=["T1", "T2"])
    for case in fingerprint.cases:
        case.background = background
    notes = [r for r in plan(fingerprint, Budget(), UNetOptions()).reasons if r.what == "note: background"]
    assert [n.value for n in notes] == (["air is not 0 in 4 of 4 cases"] if noted else [])
