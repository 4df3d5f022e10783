"""The planner ``deepmedic``: what it is made for, the study's numbers, its options, other data and cards."""

from __future__ import annotations

import math

import pytest

from autoseg.errors import AutosegError
from autoseg.inference.tiling import make_tiling
from autoseg.planners._deepmedic_settings import (
    HALO,
    PREDICTION_SHARE,
    VOXEL_GB,
    DeepMedicOptions,
    batch_for,
    chunk_for,
)
from autoseg.planners.deepmedic import match, plan
from autoseg.plugins.planner import Budget, Verdict
from autoseg.preparation.choice import ask_all, make_plan
from autoseg.trainers.deepmedic import TRAINER
from autoseg.training import schedules
from autoseg.training.check_recipe import check_recipe

MAPS = ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")
ISLES = {"spacings": [(6.5, 1.2, 1.2)], "shapes": [(19, 192, 192)] * 9, "channels": MAPS}


def planned(fingerprint, memory_gb=8.0, quick=False, **settings):
    return plan(fingerprint, Budget(memory_gb, quick), DeepMedicOptions(**settings))


def why(found, what: str) -> str:
    return next(reason.why for reason in found.reasons if reason.what == what)


@pytest.fixture
def isles(make_fingerprint):
    return make_fingerprint(**ISLES)


# ------------------------------------------------------------------------------------------------ whether it fits


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.MADE_FOR_IT, "5 perfusion maps and ADC"),
        ({"channels": ("ADC", "Tmax", "TTP")}, Verdict.FITS, "no MTT and no rCBF"),
        ({"channels": ("ADC", "MTT", "CBF")}, Verdict.FITS, "no TTP"),
        ({"spacings": [(1, 0.1, 0.1)]}, Verdict.FITS, "no human heads"),
        ({"labels": {"background": 0, "core": 1, "penumbra": 2}}, Verdict.FITS, "2 labels"),
        ({"channels": ("FLAIR", "T1")}, Verdict.POSSIBLE, "channels FLAIR, T1"),
        ({"channels": ("TTP",)}, Verdict.POSSIBLE, "one channel (TTP)"),
    ],
)
def test_it_is_made_for_adc_and_perfusion_maps(make_fingerprint, changes, verdict, words):
    found = match(make_fingerprint(**{**ISLES, **changes}))
    assert found.verdict is verdict and words in found.words


@pytest.mark.parametrize("name", ["Dataset002_OpenMS", "Dataset012_DWI", "Dataset014_ATLAST1"])
def test_auto_leaves_other_data_to_others(measured, name):
    found = ask_all(measured(name))
    assert next(iter(found)) != "deepmedic" and found["deepmedic"].verdict is Verdict.POSSIBLE


# ------------------------------------------------------------------------------------------ the published numbers


def test_the_published_recipe(isles):
    found = planned(isles)
    (stage,) = found.recipe.stages
    assert stage.channels == ["ADC", "MTT", "rCBF"]
    assert (stage.patch_size, stage.context, stage.batch_size) == ([9, 9, 9], [24, 24, 24], 24)
    assert (stage.epochs, stage.iterations_per_epoch) == (35, 820)
    assert stage.epochs * stage.iterations_per_epoch == 28_700
    assert (stage.sampling.name, stage.sampling.foreground_share) == ("sub_epochs", 0.5)
    assert stage.sampling.arguments == {"segments": 1000, "subjects": 50}
    assert [(one.name, one.arguments) for one in stage.augmentation.transforms] == [
        ("flip", {"axis": 2, "p": 0.5}),
        ("channel_shift_scale", {"shift_deviation": 0.05, "scale_deviation": 0.01}),
    ]
    assert stage.optimiser.arguments == {"lr": 1e-3, "rho": 0.9, "eps": 1e-4, "l1": 1e-6, "l2": 1e-4}
    validation = found.recipe.validation
    assert (validation.samples, validation.sample_size) == (5000, [1, 1, 1])  # segments of 17 voxels
    assert (validation.cases, validation.every) == ("all", 5)
    preprocessing = found.preprocessing
    assert preprocessing.spacing_mm == pytest.approx((1.428571,) * 3, abs=1e-6)
    assert (preprocessing.mask.channel, preprocessing.mask.dilation) == ("TTP", 1)
    assert all(entry.scheme == "zscore" and entry.inside_mask for entry in preprocessing.normalisation)
    assert (preprocessing.image_order, preprocessing.label_order) == (3, 0)
    assert not preprocessing.crop_to_nonzero and not found.networks["main"].arguments


@pytest.mark.parametrize(("schedule", "last"), [("text", 1e-4), ("software", 1e-7)])
def test_where_the_rate_ends(isles, schedule, last):
    (stage,) = planned(isles, schedule=schedule).recipe.stages
    built = schedules.REGISTRY.build(
        stage.schedule.name, trainer=TRAINER, epochs=35, **stage.schedule.arguments
    )
    assert stage.optimiser.arguments["lr"] * built(35)["lr_factor"] == pytest.approx(last)


def test_base_of_the_software_is_hard_labels_by_nearest_neighbour(isles):
    """The likelier class of the nearest logits is the nearest label."""
    found = planned(isles, base="software")
    assert found.preprocessing.logits_order == 0 and planned(isles).preprocessing.logits_order > 0
    assert "labels" in why(found, "preprocessing.logits_order")


@pytest.mark.parametrize("options", [{}, {"inference": "faithful"}, {"mask": "none"}, {"decision": "tht0"}])
@pytest.mark.parametrize("quick", [False, True])
def test_the_recipe_can_be_run(isles, options, quick):
    check_recipe(planned(isles, quick=quick, **options), TRAINER)


@pytest.mark.parametrize(
    ("decision", "applied"),
    [
        ("base", []),
        ("fh", ["closing"]),
        ("tht0", ["threshold_precision_recall"]),
        ("tht1", ["threshold_youden"]),
    ],
)
def test_all_decisions_are_learned_and_one_is_applied(isles, decision, applied):
    steps = planned(isles, decision=decision).recipe.postprocessing
    assert [step.name for step in steps] == ["closing", "threshold_precision_recall", "threshold_youden"]
    assert all(step.fit == "validation" for step in steps)
    assert [step.name for step in steps if step.apply] == applied
    assert steps[0].arguments == {"radius": 3, "border": "safe"}


def test_several_classes_have_no_such_steps(make_fingerprint):
    labels = {"background": 0, "core": 1, "penumbra": 2}
    assert not planned(make_fingerprint(**ISLES, labels=labels)).recipe.postprocessing
    (step, *_) = planned(
        make_fingerprint(**ISLES, labels={"background": 0, "lesion": 3})
    ).recipe.postprocessing
    assert step.arguments["value"] == 3


# ------------------------------------------------------------------------------------------------ options and data


def test_channels_and_mask_can_be_set(isles, make_fingerprint):
    found = planned(isles, channels=["ADC", "MTT", "rCBV"], mask="Tmax")
    assert found.recipe.stages[0].channels == ["ADC", "MTT", "rCBV"]
    assert found.preprocessing.mask.channel == "Tmax"
    none = planned(isles, mask="none").preprocessing
    assert none.mask is None and all(entry.inside_nonzero for entry in none.normalisation)
    two = planned(make_fingerprint(**{**ISLES, "channels": ("ADC", "Tmax")}))
    assert two.recipe.stages[0].channels == [] and two.preprocessing.mask is None
    with pytest.raises(AutosegError, match="(?s)planner.channels names a channel that is not there.*rCFB"):
        planned(isles, channels=["ADC", "rCFB"])
    with pytest.raises(AutosegError, match="(?s)planner.mask names a channel.*did you mean TTP"):
        planned(isles, mask="TPP")


def test_left_and_right_are_those_of_the_files(isles):
    """Of files whose first axis runs from front to back, the second, y here, is that from left to right."""
    turned = isles.model_copy(update={"orientation": "PLS"})
    (stage,) = planned(turned).recipe.stages
    assert stage.augmentation.transforms[0].arguments["axis"] == 1
    mixed = [
        case.model_copy(update={"orientation": "LPS" if i else "PLS"}) for i, case in enumerate(isles.cases)
    ]
    (stage,) = planned(isles.model_copy(update={"cases": mixed})).recipe.stages
    assert [one.name for one in stage.augmentation.transforms] == ["channel_shift_scale"]


def test_the_faithful_tiles(isles):
    inference = planned(isles, inference="faithful").recipe.inference
    tiling = make_tiling((86, 161, 161), inference)
    assert [len(starts) for starts in tiling.starts] == [3, 6, 6] and len(tiling) == 108
    assert [starts[-1] for starts in tiling.starts] == [86 - 29, 161 - 29, 161 - 29]


def test_dense_chunks_fit_the_memory_and_cover_the_scan(isles):
    found = planned(isles)
    inference = found.recipe.inference
    assert inference.tiles == "chunks" and inference.halo == [HALO] * 3 and inference.context == [24] * 3
    assert all(n % 3 == 0 for n in inference.patch_size)
    shape = (86, 161, 161)  # of the median case at 1.43 mm
    tiling = make_tiling(shape, inference)
    for tile in tiling:
        seen = math.prod(part.stop - part.start for part in tiling.around(tile))
        assert seen * VOXEL_GB <= 8 * PREDICTION_SHARE
    done = sum(math.prod(part.stop - part.start for part in tiling.around(tile)) for tile in tiling)
    assert done < 1.25 * math.prod(shape)


def test_less_memory_makes_smaller_chunks_and_batches():
    assert batch_for(8) == 24 and batch_for(0.5) == 10 and batch_for(0.01) == 2
    large, small = (math.prod(chunk_for((86, 161, 161), gb)) for gb in (32, 1))
    assert large >= 86 * 161 * 161 * 0.9 and small < large / 4
    assert chunk_for((5, 5, 5), 1) == (6, 6, 6)


def test_animals_keep_their_grids(make_fingerprint):
    rats = make_fingerprint(**{**ISLES, "spacings": [(1, 0.1, 0.1)]})
    assert planned(rats).preprocessing.spacing_mm == (None, None, None)
    assert "human heads" in why(planned(rats), "preprocessing.spacing_mm")


def test_a_plan_for_trying_out_is_narrow(isles):
    found = make_plan(isles, "deepmedic", Budget(), {"planner.length": "quick"})
    assert found.networks["main"].arguments["feature_maps"] == [8, 8, 10, 10, 10, 10, 12, 12]
    assert found.recipe.stages[0].batch_size == 8 and found.quick
    check_recipe(found, TRAINER)
