"""The planner ``resunet``: what it is made for, the published numbers, and what it does on other grids and cards."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import plugins
from autoseg.errors import AutosegError
from autoseg.inference.tiling import make_tiling
from autoseg.plan import apply_overrides
from autoseg.plan.table import format_plan
from autoseg.planners._resunet_settings import ResUNetOptions
from autoseg.planners.resunet import PLANNER, is_t1, match, memory_gb, plan, wanted_crop
from autoseg.plugins.planner import Budget, Verdict
from autoseg.preparation.choice import make_plan
from autoseg.sampling import parameters
from autoseg.training.check_recipe import check_recipe

ATLAS = {"spacings": [(1, 1, 1)], "shapes": [(189, 233, 197)] * 8, "channels": ("T1",)}
ENOUGH = Budget(memory_gb=24)


def options(**settings) -> ResUNetOptions:
    return ResUNetOptions(**settings)


def with_range(fingerprint, low: float, high: float):
    """The same data with other intensities."""
    cases = [
        case.model_copy(
            update={"brain": [b.model_copy(update={"min": low, "max": high}) for b in case.brain]}
        )
        for case in fingerprint.cases
    ]
    return fingerprint.model_copy(update={"cases": cases})


def why(found, what: str) -> str:
    return next(reason.why for reason in found.reasons if reason.what == what)


# ------------------------------------------------------------------------------------------------ whether it fits


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.MADE_FOR_IT, "one T1 channel of human heads (233 mm)"),
        ({"channels": ("FLAIR",)}, Verdict.POSSIBLE, "FLAIR instead of T1"),
        ({"channels": ("T1", "FLAIR")}, Verdict.POSSIBLE, "2 channels (T1, FLAIR) instead of one"),
        (
            {"spacings": [(5, 1, 1)], "shapes": [(30, 233, 197)] * 8},
            Verdict.POSSIBLE,
            "5.0 times as far apart",
        ),
        ({"spacings": [(0.1, 0.1, 0.1)]}, Verdict.POSSIBLE, "a field of view of 23 mm"),
        ({"labels": {"background": 0, "core": 1, "penumbra": 2}}, Verdict.POSSIBLE, "2 labels"),
    ],
)
def test_it_is_made_for_t1_scans_of_human_heads(make_fingerprint, changes, verdict, words):
    found = match(make_fingerprint(**{**ATLAS, **changes}))
    assert found.verdict is verdict and words in found.words


def test_auto_takes_it_for_atlas(make_fingerprint):
    assert make_plan(make_fingerprint(**ATLAS), "auto", Budget()).planner == "resunet"


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("T1", True), ("T1w", True), ("t1_mprage", True), ("MPRAGE", True), ("T1c", False), ("T1Gd", False),
        ("T1-CE", False), ("T1rho", False), ("T2", False), ("FLAIR", False),
    ],
)  # fmt: skip
def test_names_of_t1(channel, expected):
    assert is_t1(channel) is expected


# ------------------------------------------------------------------------------------------ the published numbers


def test_the_published_recipe(make_fingerprint):
    found = plan(with_range(make_fingerprint(**ATLAS), 0, 255), ENOUGH, options())
    first, second = found.recipe.stages
    assert (first.name, first.patch_size, first.epochs) == ("zoom_in", [128, 128, 128], 1200)
    assert (second.name, second.patch_size, second.epochs) == ("zoom_out", [168, 172, 144], 150)
    assert (first.start, second.start, second.optimiser_state) == ("scratch", "previous", "fresh")
    assert (first.keep, second.keep, second.snapshots) == (False, True, [])
    assert second.written_epochs == [50, 100, 150] and second.kept_epochs == [150]
    for stage, lr in ((first, 1e-3), (second, 1e-4)):
        assert stage.optimiser.name == "adam"
        assert stage.optimiser.arguments == {"lr": lr, "weight_decay": 1e-4}
        assert stage.schedule.name == "cosine" and stage.schedule.arguments == {"cycle_epochs": 50}
        assert stage.loss.name == "resunet" and stage.batch_size == 1 and stage.iterations_per_epoch is None
        assert stage.augmentation.name == "none" and stage.sampling.foreground_share == 0
    assert found.networks["main"].arguments == {"width": 32, "background_logit": True, "checkpointing": False}
    entry = found.preprocessing.normalisation[0]
    assert (entry.scheme, entry.factor) == ("none", 1 / 255)
    assert found.preprocessing.spacing_mm == (1, 1, 1) and not found.preprocessing.crop_to_nonzero
    assert found.recipe.precision == "float32" and not found.recipe.postprocessing


def test_the_variants_of_the_paper(make_fingerprint):
    fingerprint = make_fingerprint(**ATLAS)

    def stages(**settings):
        return plan(fingerprint, ENOUGH, options(**settings)).recipe.stages

    assert stages(variant="ensemble")[-1].snapshots == [50, 100, 150]
    assert [stage.name for stage in stages(variant="zoom_in")] == ["zoom_in"]
    (large,) = stages(variant="large_only")
    assert (large.name, large.epochs, large.optimiser.arguments["lr"]) == ("zoom_out", 1200, 1e-3)
    assert large.start == "scratch" and large.patch_size == [168, 172, 144]
    assert stages(zoom_in=16)[0].patch_size == [16, 16, 16]
    assert stages(foreground_share=0.5)[0].sampling.foreground_share == 0.5


def test_next_steps_of_the_paper_are_off_and_can_be_set(make_fingerprint):
    published = plan(make_fingerprint(**ATLAS), ENOUGH, options())
    assert published.recipe.validation.view == "whole"
    assert all(stage.sampling.nonzero_share == 0 for stage in published.recipe.stages)
    settings = {"rejection": 0.7, "rotation": 20, "validation": "lesion_crop", "foreground_share": 0.25}
    found = plan(make_fingerprint(**ATLAS), ENOUGH, options(**settings))
    assert found.recipe.validation.view == "lesion_crop"
    for stage in found.recipe.stages:
        assert (stage.sampling.nonzero_share, stage.sampling.foreground_share) == (0.7, 0.25)
        drawn = parameters.build(stage.augmentation, stage.patch_size)
        chances = {
            name: value for name, value in drawn if name.endswith("_p") and "channel" not in name and value
        }
        assert chances == {"rotation_p": 0.2} and drawn.rotation_degrees == (-20, 20)
        assert not drawn.mirror_axes
    assert "an option of the authors' code" in why(found, "recipe.stages.0.sampling")
    assert "next step" in why(found, "recipe.stages.0.augmentation")
    assert "whole scans" in why(found, "validation")
    labels = [line[2:18].strip() for line in format_plan(found).splitlines() if line.startswith("  ")]
    assert "validation" in labels and not any("recipe" in label for label in labels)
    assert "no augmentation" in why(published, "recipe.stages.0.epochs")
    assert "no augmentation" not in why(found, "recipe.stages.0.epochs")


def test_small_crops_alone_are_predicted_on_the_large_crop_as_in_table_5(make_fingerprint):
    for variant in ("full", "zoom_in"):
        inference = plan(
            make_fingerprint(**ATLAS), ENOUGH, options(variant=variant, inference="centre")
        ).recipe.inference
        assert (inference.tiles, list(inference.patch_size)) == ("centre", [168, 172, 144])


def test_an_edge_of_small_crops_is_refused_where_there_are_none(make_fingerprint):
    with pytest.raises(AutosegError, match="(?s)zoom_in and planner.variant=large_only.*zoom_in=32"):
        plan(make_fingerprint(**ATLAS), ENOUGH, options(variant="large_only", zoom_in=32))


def test_a_width_that_does_not_fit_is_answered_with_the_rule(make_fingerprint):
    with pytest.raises(AutosegError, match="a whole number, at least 8 and a multiple of 8"):
        make_plan(make_fingerprint(**ATLAS), "resunet", Budget(), {"planner.width": 12})


def test_a_step_of_next_to_no_memory_does_not_take_0_gb(make_fingerprint):
    found = plan(make_fingerprint(**ATLAS), ENOUGH, options(variant="zoom_in", zoom_in=8, width=8))
    assert "less than 0.1 GB" in format_plan(found) and "0.0 GB" not in format_plan(found)


def test_zeros_can_be_counted_with_every_choice_of_intensities(make_fingerprint):
    for name in ("divide_by_255", "rescale", "zscore"):
        found = plan(make_fingerprint(**ATLAS), ENOUGH, options(intensities=name, rejection=0.7, width=8))
        check_recipe(found, plugins.load(plugins.TRAINERS, "resunet"))
    everywhere = apply_overrides(found, {"preprocessing.normalisation.0.inside_nonzero": False})
    with pytest.raises(AutosegError, match=r"(?s)'zoom_in' counts voxels.*no 0.*T1: zscore of all.*none"):
        check_recipe(everywhere, plugins.load(plugins.TRAINERS, "resunet"))


def test_the_crop_in_the_middle_lies_where_the_paper_has_it(make_fingerprint):
    """Of 189 x 233 x 197 voxels (z, y, x): 168 x 172 x 144 from (10, 30, 26), 128 from (30, 52, 34)."""
    found = plan(make_fingerprint(**ATLAS), ENOUGH, options(inference="centre"))
    inference = found.recipe.inference
    assert [starts[0] for starts in make_tiling((189, 233, 197), inference).starts] == [10, 30, 26]
    small = inference.model_copy(update={"patch_size": [128, 128, 128]})
    assert [starts[0] for starts in make_tiling((189, 233, 197), small).starts] == [30, 52, 34]


# ---------------------------------------------------------------------------------------- other grids and memory


@pytest.mark.parametrize("shape", [(160, 200, 180), (181, 217, 181), (64, 80, 72), (20, 256, 256)])
def test_other_grids_have_crops_of_the_published_share(shape):
    """24 % and 48 % of the volume, but for the rounding to 4 voxels; small ones are cubes as far as the axes go."""
    small, large = wanted_crop("zoom_in", shape), wanted_crop("zoom_out", shape)
    assert np.prod(small) / np.prod(shape) == pytest.approx(0.2417, rel=0.12)
    assert np.prod(large) / np.prod(shape) == pytest.approx(0.4796, rel=0.12)
    free = [n for n, whole in zip(small, shape, strict=True) if n < whole]
    assert len(set(free)) == 1
    assert all(n % 4 == 0 or n == whole for n, whole in zip(small, shape, strict=True))


def test_the_grid_of_heads_is_1_mm(make_fingerprint):
    """160 x 256 x 256 voxels of 1.2 x 0.9375 x 0.9375 mm are 192 x 240 x 240 mm."""
    found = plan(make_fingerprint([(1.2, 0.9375, 0.9375)], [(160, 256, 256)] * 5), ENOUGH, options())
    assert found.preprocessing.spacing_mm == (1, 1, 1)
    assert found.recipe.stages[0].patch_size == list(wanted_crop("zoom_in", (192, 240, 240)))
    coarse = plan(make_fingerprint([(4, 4, 4)], [(47, 58, 49)] * 5), ENOUGH, options())
    assert coarse.preprocessing.spacing_mm == (None, None, None)
    rats = plan(make_fingerprint([(0.1, 0.1, 0.1)], [(100, 120, 110)] * 5), ENOUGH, options())
    assert rats.preprocessing.spacing_mm == (None, None, None)


@pytest.mark.parametrize(
    ("budget", "saving", "crops"),
    [
        (24, False, [[128, 128, 128], [168, 172, 144]]),
        (12, True, [[128, 128, 128], [168, 172, 144]]),
        (8, True, None),
        (4, True, None),
    ],
)
def test_memory_first_keeps_less_then_makes_crops_smaller(make_fingerprint, budget, saving, crops):
    found = plan(make_fingerprint(**ATLAS), Budget(memory_gb=budget), options())
    sizes = [stage.patch_size for stage in found.recipe.stages]
    assert found.networks["main"].arguments["checkpointing"] is saving
    assert all(memory_gb(tuple(size), 32, saving) <= budget for size in sizes)
    if crops is not None:
        assert sizes == crops
    else:
        assert "does not fit" in why(found, "recipe.stages.1.patch_size")
        assert memory_gb(tuple(sizes[1]), 32, saving) > 0.85 * budget  # and no smaller than it must be


def test_published_memory():
    """The paper needed a card of 12 GB for the small crops and one of 24 GB for the large ones."""
    assert 6.5 < memory_gb((128, 128, 128), 32, saving=False) < 12
    assert 12.5 < memory_gb((168, 172, 144), 32, saving=False) < 24
    assert memory_gb((168, 172, 144), 32, saving=True) < 9.4


def test_a_card_that_holds_nothing_is_refused(make_fingerprint):
    with pytest.raises(AutosegError, match="(?s)does not fit the memory.*0.1 GB.*-gpu_memory_target"):
        plan(make_fingerprint(**ATLAS), Budget(memory_gb=0.1), options())


@pytest.mark.parametrize("budget", [24, 4, 2.9])
def test_tiles_of_the_size_of_the_last_crop_predict_everything(make_fingerprint, budget):
    found = plan(make_fingerprint(**ATLAS), Budget(memory_gb=budget), options())
    assert found.recipe.inference.patch_size == found.recipe.stages[-1].patch_size
    assert found.recipe.inference.tiles == "cover" and found.recipe.inference.gaussian
    assert "loses lesions outside" in why(found, "recipe.inference")


def test_the_whole_volume_is_predicted_where_it_is_asked_for(make_fingerprint):
    """85 elements of each of 189 x 233 x 197 voxels are 2.9 GB (2.95)."""
    found = plan(make_fingerprint(**ATLAS), ENOUGH, options(inference="whole"))
    assert found.recipe.inference.patch_size == [] and found.recipe.inference.tiles == "cover"
    assert "differ everywhere" in why(found, "recipe.inference") and "2.9 GB" in str(found.reasons)


@pytest.mark.parametrize(
    ("low", "high", "scheme"),
    [(0, 255, "none"), (0, 100, "none"), (0, 1, "rescale_0_1"), (0, 4095, "rescale_0_1"), (-3, 200, "rescale_0_1")],
)  # fmt: skip
def test_intensities_that_are_not_published_are_noticed(make_fingerprint, low, high, scheme):
    found = plan(with_range(make_fingerprint(**ATLAS), low, high), ENOUGH, options())
    assert found.preprocessing.normalisation[0].scheme == scheme
    if scheme != "none":
        assert "published for scans of 0 to 255" in why(found, "preprocessing.normalisation")


def test_one_scan_in_another_unit_does_not_change_the_others(make_fingerprint):
    """One of eight is of 0 to 4095: the dataset is divided by 255, and the plan names the scan."""
    most, other = (with_range(make_fingerprint(**ATLAS), 0, high) for high in (255, 4095))
    mixed = most.model_copy(update={"cases": [*most.cases[:7], other.cases[7]]})
    found = plan(mixed, ENOUGH, options())
    entry = found.preprocessing.normalisation[0]
    assert (entry.scheme, entry.factor, entry.expected_maximum) == ("none", 1 / 255, (1.5, 255.5))
    assert f"but for {other.cases[7].name}: brought to 0 to 1" in why(found, "preprocessing.normalisation")
    halves = most.model_copy(update={"cases": [*most.cases[:4], *other.cases[4:]]})
    assert plan(halves, ENOUGH, options()).preprocessing.normalisation[0].scheme == "rescale_0_1"


def test_regions_have_no_background(make_fingerprint):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    found = plan(make_fingerprint(**ATLAS, labels=labels, regions_class_order=[1, 2]), ENOUGH, options())
    assert found.networks["main"].arguments["background_logit"] is False


def test_a_quick_plan_has_small_crops_and_rates_that_fall(make_fingerprint):
    found = make_plan(make_fingerprint(**ATLAS), "resunet", Budget(), {"planner.length": "quick"})
    assert found.networks["main"].arguments["width"] == 8
    for stage in found.recipe.stages:
        assert max(stage.patch_size) <= 80 and (stage.epochs, stage.iterations_per_epoch) == (30, 20)
        assert not stage.schedule.arguments


def test_options_are_typed():
    with pytest.raises(ValueError, match="multiple of 8"):
        PLANNER.options(width=12)
    with pytest.raises(ValueError, match="variant"):
        PLANNER.options(variant="small")
