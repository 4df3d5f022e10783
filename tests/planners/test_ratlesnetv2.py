"""The planner ``ratlesnetv2``: what it is made for, what it takes from the paper, what it does when memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import AutosegError
from autoseg.plan import apply_overrides
from autoseg.planners._ratlesnetv2_settings import VARIANTS, RatLesNetV2Options
from autoseg.planners.ratlesnetv2 import PLANNER, match, memory_gb, plan
from autoseg.plugins.planner import Budget, Match, Verdict
from autoseg.preparation.choice import make_plan

RAT = {"spacings": [(1, 0.1171875, 0.1171875)], "shapes": [(18, 256, 256)] * 12, "channels": ("T2",)}
HUMAN = {"spacings": [(6, 1, 1)], "shapes": [(22, 200, 170)] * 30, "channels": ("T2",)}
VOXELS = 18 * 256 * 256


def why(found, what: str) -> str:
    return next(reason.why for reason in found.reasons if reason.what == what)


def test_it_is_made_for_t2_scans_of_rats(make_fingerprint):
    made_for = match(make_fingerprint(**RAT))
    assert made_for.verdict is Verdict.MADE_FOR_IT and "30 mm" in made_for.words and not made_for.against
    for channels, words in (
        (("ADC",), "ADC instead of the published T2"),
        (("T2", "ADC"), "2 channels instead"),
    ):
        other = match(make_fingerprint(**{**RAT, "channels": channels}))
        assert other.verdict is Verdict.FITS and words in other.against[0] and len(other.against) == 1
        assert made_for.rank < other.rank < Match(Verdict.POSSIBLE).rank


def test_everything_that_differs_speaks_against_it(make_fingerprint):
    """30 mm in pixels and slices of 0.12 mm: ratio 1; two channels: a family for rats still fits best."""
    cubes = make_fingerprint([(0.12, 0.12, 0.12)], [(250, 250, 250)] * 4, channels=("T2", "ADC"))
    against = ("2 channels instead of one", "slices 1.0 times as far apart as the pixels")
    assert match(cubes) == Match(Verdict.FITS, ("the size of a rodent's head (30 mm)",), against)
    assert make_plan(cubes, "auto", Budget()).planner == "ratlesnetv2"


@pytest.mark.parametrize(("edge_mm", "verdict"), [(60, Verdict.MADE_FOR_IT), (60.5, Verdict.CANNOT)])
def test_a_rodent_spans_at_most_60_mm(make_fingerprint, edge_mm, verdict):
    step = edge_mm / 100
    assert (
        match(make_fingerprint([(3 * step, step, step)], [(20, 100, 100)] * 4, channels=("T2",))).verdict
        is verdict
    )


def test_it_is_not_made_for_people_or_regions(make_fingerprint):
    human = match(make_fingerprint(**HUMAN))
    assert human.verdict is Verdict.CANNOT and "span 200 mm" in human.words
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    found = match(make_fingerprint(**RAT, labels=regions, regions_class_order=[1, 2]))
    assert found.verdict is Verdict.CANNOT


def test_auto_chooses_it_for_rats_and_not_for_people(make_fingerprint):
    assert make_plan(make_fingerprint(**RAT), "auto", Budget()).planner == "ratlesnetv2"
    assert make_plan(make_fingerprint(**HUMAN), "auto", Budget()).planner == "unet"


def test_the_recipe_is_the_published_one(make_fingerprint):
    found = plan(make_fingerprint(**RAT), Budget(), RatLesNetV2Options())
    (stage,) = found.recipe.stages
    assert (stage.epochs, stage.batch_size, stage.iterations_per_epoch) == (700, 1, None)
    assert stage.patch_size == [] and found.recipe.inference.patch_size == []
    assert stage.optimiser.arguments == {"lr": 1e-4} and stage.schedule.name == "constant"
    assert stage.augmentation.name == "none" and found.recipe.inference.mirror_axes == ()
    assert (found.recipe.members, found.recipe.fusion.name) == (3, "majority")
    steps = [(s.name, s.arguments["fewer_than_voxels"]) for s in found.recipe.postprocessing]
    assert steps == [("remove_small_components", 20), ("fill_small_holes", 20)]
    assert found.preprocessing.spacing_mm == (None, None, None) and not found.preprocessing.crop_to_nonzero
    assert found.networks["main"].arguments == {"width": 32, "checkpointing": False}


@pytest.mark.parametrize("network", ["ratlesnetv2", "unet3d", "voxresnet", "ratlesnet"])
def test_the_search_of_the_family_page_changes_the_rate_of_each_architecture(make_fingerprint, network):
    """Its rates hold both published ones: 1e-4 of the code and 1e-5 of the text."""
    page = (Path(__file__).parents[2] / "docs/families/ratlesnetv2.md").read_text()
    path, rates = "stages.train.optimiser.arguments.lr", ("1e-3", "1e-4", "1e-5")
    loop = page[page.index("**The learning rate**") :]
    assert f"--set {path}=$lr" in loop and f"for lr in {' '.join(rates)}" in loop
    assert network in loop.split("for n in ")[1].split(";")[0].split()
    options = {"network": network, "planner.members": 1}
    one = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), options)
    tried = [apply_overrides(one, {path: float(rate)}) for rate in rates]
    assert [found.recipe.stages[0].optimiser.arguments["lr"] for found in tried] == [1e-3, 1e-4, 1e-5]
    assert [found.recipe == one.recipe for found in tried] == [False, True, False]


def test_the_printed_learning_rate_can_be_had(make_fingerprint):
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), {"planner.learning_rate": "paper"})
    assert found.recipe.stages[0].optimiser.arguments == {"lr": 1e-5}
    assert "code behind the tables used 1e-4" in why(found, "recipe.stages.0.optimiser")


@pytest.mark.parametrize(
    ("network", "dice", "registered"),
    [
        ("ratlesnetv2", True, "ratlesnetv2"),
        ("densenet", True, "ratlesnetv2"),
        ("unet3d", True, "unet3d"),
        ("ratlesnet", False, "ratlesnet"),
        ("voxresnet", False, "voxresnet"),
    ],
)
def test_each_network_has_its_published_loss(make_fingerprint, network, dice, registered):
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), {"network": network})
    assert found.networks["main"].name == registered
    assert found.recipe.stages[0].loss == VARIANTS[network].loss
    assert (found.recipe.stages[0].loss.arguments.get("dice_weight", 1) > 0) == dice
    same = make_plan(
        make_fingerprint(**RAT), "ratlesnetv2", Budget(), {"network": network, "planner.loss": "same"}
    )
    assert same.recipe.stages[0].loss == VARIANTS["ratlesnetv2"].loss


def test_memory_is_that_of_the_published_measurement():
    """917 341 760 elements for 18 x 256 x 256 voxels and width 32, and 1 031 272 200 for width 36."""
    gb = memory_gb(RatLesNetV2Options(), VOXELS, saving=False)
    assert gb == pytest.approx((917_341_760 + 4 * 837_026) * 4 / 1e9, rel=1e-3)
    wide = memory_gb(RatLesNetV2Options(width=36), VOXELS, saving=False)
    assert wide == pytest.approx((1_031_272_200 + 4 * 1_059_014) * 4 / 1e9, rel=3e-3)


def test_short_memory_first_saves_activations_then_cuts_patches(make_fingerprint):
    rat = make_fingerprint(**RAT)
    saving = plan(rat, Budget(3.0), RatLesNetV2Options())
    assert saving.networks["main"].arguments["checkpointing"] and not saving.recipe.stages[0].patch_size
    assert "computed twice" in why(saving, "memory")
    small = plan(rat, Budget(1.0), RatLesNetV2Options())
    slices, rows, columns = small.recipe.stages[0].patch_size
    assert slices == 18 and rows == columns < 256 and rows % 8 == 0
    assert small.recipe.inference.patch_size == [slices, rows, columns]
    assert small.recipe.stages[0].sampling.foreground_share == 0.5
    assert memory_gb(RatLesNetV2Options(), slices * rows * columns, saving=True) <= 1.0


def test_too_little_memory_is_refused(make_fingerprint):
    with pytest.raises(AutosegError, match=r"(?s)does not fit the memory.*0\.01 GB.*-gpu_memory_target"):
        plan(make_fingerprint(**RAT), Budget(0.01), RatLesNetV2Options())


def test_the_largest_case_counts(make_fingerprint):
    shapes = [(18, 256, 256)] * 5 + [(40, 512, 512)]
    found = plan(make_fingerprint(**{**RAT, "shapes": shapes}), Budget(), RatLesNetV2Options())
    assert found.recipe.stages[0].patch_size != []


def test_slices_come_first(make_fingerprint):
    sagittal = {"spacings": [(0.12, 0.12, 1.0)], "shapes": [(256, 256, 18)] * 3, "channels": ("T2",)}
    found = plan(make_fingerprint(**sagittal), Budget(), RatLesNetV2Options())
    assert found.preprocessing.transpose == (2, 0, 1)


def test_regions_are_refused(make_fingerprint):
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    with pytest.raises(AutosegError, match=r"(?s)no overlapping regions.*planner unet"):
        plan(
            make_fingerprint(**RAT, labels=regions, regions_class_order=[1, 2]),
            Budget(),
            RatLesNetV2Options(),
        )


def test_several_labels_leave_holes_open(make_fingerprint):
    labels = {"background": 0, "core": 1, "oedema": 2}
    found = plan(make_fingerprint(**RAT, labels=labels), Budget(), RatLesNetV2Options())
    assert [step.name for step in found.recipe.postprocessing] == ["remove_small_components"]


def test_data_of_another_kind_is_noted(make_fingerprint):
    found = plan(make_fingerprint(**HUMAN), Budget(24.0), RatLesNetV2Options())
    assert "made for rodents" in why(found, "note: data")
    assert PLANNER.name == found.planner


def test_augmented_training_changes_what_belongs_together(make_fingerprint):
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), {"planner.training": "augmented"})
    (stage,) = found.recipe.stages
    assert (stage.augmentation.name, stage.augmentation.mirror_axes) == ("nnunet", (0, 1, 2))
    assert stage.augmentation.arguments == {"in_plane": True}
    assert found.recipe.inference.mirror_axes == (0, 1, 2)
    assert (stage.schedule.name, stage.epochs) == ("poly", 700)
    assert stage.loss == VARIANTS["ratlesnetv2"].loss
    assert found.networks["main"].arguments["normalisation"] == "instance"
    assert "as in training so in prediction" in why(found, "networks.main")
    assert found.preprocessing.normalisation[0].scheme == "zscore"


@pytest.mark.parametrize(
    ("network", "normalised"), [("unet3d", True), ("voxresnet", True), ("ratlesnet", False)]
)
def test_augmented_comparators_keep_their_loss(make_fingerprint, network, normalised):
    changes = {"network": network, "planner.training": "augmented"}
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), changes)
    assert ("normalisation" in found.networks["main"].arguments) == normalised
    assert found.recipe.stages[0].loss == VARIANTS[network].loss


def test_the_printed_rate_does_not_fit_the_augmented_training(make_fingerprint):
    options = RatLesNetV2Options(training="augmented", learning_rate="paper")
    with pytest.raises(AutosegError, match=r"(?s)belongs to the published training.*training=augmented"):
        plan(make_fingerprint(**RAT), Budget(), options)


def test_corrected_intensities(make_fingerprint):
    changes = {"planner.intensities": "corrected"}
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), changes)
    (channel,) = found.preprocessing.normalisation
    assert (channel.scheme, channel.bias_correction) == ("zscore_object", "n4")
    assert "coil" in why(found, "preprocessing.normalisation")
    assert found.recipe == plan(make_fingerprint(**RAT), Budget(), RatLesNetV2Options()).recipe


def test_few_cases_are_pointed_to_what_is_made_for_them(make_fingerprint):
    few = plan(make_fingerprint(**RAT), Budget(), RatLesNetV2Options())
    assert "planner.training=augmented" in why(few, "note: few cases")
    many = make_fingerprint(**{**RAT, "shapes": [(18, 256, 256)] * 20})
    for found in (
        plan(many, Budget(), RatLesNetV2Options()),
        plan(make_fingerprint(**RAT), Budget(), RatLesNetV2Options(training="augmented")),
    ):
        assert not any(reason.what == "note: few cases" for reason in found.reasons)


def test_the_crop_to_the_head(make_fingerprint):
    found = plan(make_fingerprint(**RAT), Budget(), RatLesNetV2Options(crop="head"))
    assert found.preprocessing.crop_to_object and not found.preprocessing.crop_to_nonzero
    assert "costs time and memory" in why(found, "preprocessing.crop_to_object")


def test_the_size_of_islands_may_be_measured_and_is_a_volume_on_another_grid(make_fingerprint):
    def steps(**changes):
        found = make_plan(
            make_fingerprint(**RAT | changes), "ratlesnetv2", Budget(), {"component_size": "measured"}
        )
        return found.recipe.postprocessing

    assert [(step.fit, "voxel_mm3" in step.arguments) for step in steps()] == [("train", False)] * 2
    (coarse, _) = steps(spacings=[(1, 0.25, 0.25)])
    assert coarse.arguments["voxel_mm3"] == pytest.approx(0.0137329, abs=1e-7)
    found = make_plan(make_fingerprint(**RAT), "ratlesnetv2", Budget(), {"component_size": "mm3"})
    assert [step.fit for step in found.recipe.postprocessing] == ["none", "none"]
    assert any("0.275 mm3" in reason.value for reason in found.reasons)
