"""The planner ``edd_muscle``: what it is made for, what it takes from the paper, what each option does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from autoseg import messages
from autoseg.dataset.folds import Fold, held_back, watched_cases
from autoseg.errors import AutosegError, FaultsError
from autoseg.inference.tiling import make_tiling
from autoseg.plan import Plan
from autoseg.planners import ratlesnetv2, unet
from autoseg.planners._edd_muscle_settings import COMPARATORS, DECONVNETS, TABLE_3, EDDMuscleOptions
from autoseg.planners._memory import Cost
from autoseg.planners.edd_muscle import PLANNER, is_dwi, lesion_sizes, match, memory_gb, plan
from autoseg.plugins.planner import Budget, Match, Verdict
from autoseg.preparation.choice import make_plan

DWI = {
    "spacings": [(6.5, 1.8, 1.8)],
    "shapes": [(20, 128, 128)] * 10,
    "channels": ("DWI",),
    "components": [[300, 20, 5]] * 10,
}
OFF = {"rotation_p": 1.0, "rotation_degrees": [-180, 180]} | {
    f"{name}_p": 0.0
    for name in [
        "scaling",
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    ]
}
CANDIDATES = {"threshold": 0.5, "largest_px": 60, "connectivity": 8}


@pytest.fixture
def dwi(make_fingerprint):
    return make_fingerprint(**DWI)


@pytest.fixture(autouse=True)
def _no_old_warnings():
    messages.forget_warnings()
    yield
    messages.forget_warnings()


def planned(fingerprint, budget: Budget | None = None, **options) -> Plan:
    return plan(fingerprint, budget or Budget(), EDDMuscleOptions(**options))


def reason(found: Plan, what: str) -> str:
    """Value and reason of a decision."""
    return next(f"{entry.value}; {entry.why}" for entry in found.reasons if entry.what == what)


# ------------------------------------------------------------------------------------------------ match


def test_it_is_made_for_dwi_in_thick_slices(dwi):
    found = match(dwi)
    assert found.verdict is Verdict.MADE_FOR_IT and not found.against
    assert (
        found.words == "one DWI channel of human heads (230 mm), slices 3.6 times as far apart as the pixels"
    )
    assert make_plan(dwi, "auto", Budget()).planner == "edd_muscle"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("DWI", "dwi_b1000", "b=1000", "Diffusion", "TRACEW", "trace-weighted")),
        *((name, False) for name in ("ADC", "DWI_ADC", "T2", "b0", "DWI b=0", "PET tracer", "FLAIR")),
        ("Apparent diffusion coefficient", False),
    ],
)
def test_dwi_is_known_by_its_name(name, expected):
    assert is_dwi(name) is expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"channels": ("ADC",)}, "ADC instead of DWI, with the contrast of lesions reversed"),
        ({"channels": ("T2",)}, "T2 instead of DWI"),
        ({"channels": ("DWI", "ADC")}, "2 channels (DWI, ADC) instead of one"),
        (
            {"spacings": [(2, 1.8, 1.8)]},
            "slices 1.1 times as far apart as the pixels (under 2.5)",
        ),
        ({"shapes": [(20, 64, 64)] * 10}, "slices of 115 mm (a human head: 150 to 300 mm)"),
        ({"shapes": [(20, 256, 256)] * 10}, "slices of 461 mm"),
    ],
)
def test_other_data_can_be_planned_but_are_left_to_the_general_method(make_fingerprint, changes, why):
    fingerprint = make_fingerprint(**DWI | changes)
    found = match(fingerprint)
    assert found.verdict is Verdict.POSSIBLE and unet.match(fingerprint).rank < found.rank
    assert why in found.words
    assert make_plan(fingerprint, "auto", Budget()).planner == "unet"
    assert f"in thick slices; here {why}" in reason(planned(fingerprint), "note: data")


def test_two_differences_are_worse_than_one(make_fingerprint):
    thin = {"spacings": [(2, 1.8, 1.8)]}
    one, two = (make_fingerprint(**DWI | thin | changes) for changes in ({}, {"channels": ("T1",)}))
    assert match(one).rank < match(two).rank
    assert "but T1 instead of DWI, slices 1.1 times" in match(two).words


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}
IMPOSSIBLE = [
    (REGIONS, "it has no overlapping regions"),
    (
        {"labels": {"background": 0, "core": 1, "penumbra": 2}},
        "it tells lesion from background, and there are 2 labels: core, penumbra",
    ),
    ({"components": [[]] * 10}, "it learns from the pixels of lesions, and no case has a lesion"),
]


@pytest.mark.parametrize(("changes", "why"), IMPOSSIBLE)
def test_what_it_cannot_do_is_said_and_refused(make_fingerprint, changes, why):
    fingerprint = make_fingerprint(**DWI | changes)
    assert match(fingerprint) == Match(Verdict.CANNOT, against=(why,))
    with pytest.raises(
        AutosegError, match=rf"(?s)Dataset999_Test: edd_muscle cannot be used here: {why}.*planner unet"
    ):
        planned(fingerprint)


def test_it_is_not_made_for_rodents(make_fingerprint):
    fingerprint = make_fingerprint(**DWI | {"spacings": [(1, 0.12, 0.12)]})
    assert "slices of 15 mm (a human head: 150 to 300 mm)" in match(fingerprint).words
    assert unet.match(fingerprint).rank < match(fingerprint).rank


@pytest.mark.parametrize("spacing", [(1, 1.8, 1.8), (1, 1.8, 1.6), (6, 1.8, 1.8)])
def test_single_slices_are_slices_whatever_their_thickness(make_fingerprint, spacing):
    """A file of one slice often claims 1 mm across, less than its pixels."""
    fingerprint = make_fingerprint(**DWI | {"spacings": [spacing], "shapes": [(1, 128, 144)] * 10})
    found = planned(fingerprint)
    assert found.preprocessing.transpose == (0, 1, 2)
    assert match(fingerprint).verdict is Verdict.MADE_FOR_IT
    assert match(fingerprint).words.endswith("mm), single slices")
    assert [entry for entry in found.reasons if entry.what in ("note: data", "note: patch")] == []


def test_single_slices_may_lie_along_any_axis(make_fingerprint):
    fingerprint = make_fingerprint(**DWI | {"spacings": [(1.8, 1.6, 1)], "shapes": [(128, 144, 1)] * 10})
    assert planned(fingerprint).preprocessing.transpose == (2, 0, 1)


def test_pixels_to_ignore_are_no_second_label(make_fingerprint):
    fingerprint = make_fingerprint(**DWI | {"labels": {"background": 0, "lesion": 1, "ignore": 2}})
    assert match(fingerprint).verdict is Verdict.MADE_FOR_IT
    assert planned(fingerprint).label_set.ignore == 2


@pytest.mark.shared
@pytest.mark.parametrize(
    ("dataset", "verdict", "n_against", "planner"),
    [
        ("Dataset001_BRATS", Verdict.CANNOT, 1, "brainsegnet"),
        ("Dataset002_OpenMS", Verdict.POSSIBLE, 2, "unet"),
        ("Dataset011_RatT2", Verdict.POSSIBLE, 2, "ratlesnetv2"),
        ("Dataset012_DWI", Verdict.MADE_FOR_IT, 0, "edd_muscle"),
        ("Dataset013_ISLESPerfusion", Verdict.POSSIBLE, 1, "brainsegnet"),
        ("Dataset014_ATLAST1", Verdict.POSSIBLE, 2, "resunet"),
    ],
)
def test_auto_takes_it_for_dwi_alone(measured, dataset, verdict, n_against, planner):
    fingerprint = measured(dataset)
    found = match(fingerprint)
    assert (found.verdict, len(found.against)) == (verdict, n_against)
    assert make_plan(fingerprint, "auto", Budget()).planner == planner
    others = (ratlesnetv2.match(fingerprint).rank, unet.match(fingerprint).rank)
    assert (found.rank < min(others)) == (planner == "edd_muscle")


# ------------------------------------------------------------------------------------------------ the plan


def test_preprocessing_keeps_the_slices(make_fingerprint):
    settings = planned(make_fingerprint(**DWI)).preprocessing
    assert (settings.transpose, settings.spacing_mm) == ((0, 1, 2), (None, 1.6, 1.6))
    assert not settings.crop_to_nonzero
    assert [(n.scheme, n.inside_nonzero) for n in settings.normalisation] == [("zscore", False)]
    assert (settings.image_order, settings.label_order, settings.logits_order) == (1, 1, 1)


def test_slices_come_first(make_fingerprint):
    sagittal = DWI | {"spacings": [(1.8, 1.8, 6.5)], "shapes": [(128, 128, 20)] * 10}
    found = planned(make_fingerprint(**sagittal))
    assert found.preprocessing.transpose == (2, 0, 1)
    assert "144 x 144 pixels" in reason(found, "recipe.inference")
    assert "the slices lie along x" in reason(found, "preprocessing.transpose")


def test_edd_net_is_trained_as_published(dwi):
    found = planned(dwi)
    edd = found.recipe.stages[0]
    assert found.networks["main"].model_dump() == {
        "name": "edd",
        "arguments": {
            "stacks": [2, 4, 5],
            "width": 32,
            "branches": 2,
            "fusion": "mean_logits",
            "output": "refined",
        },
    }
    assert (edd.name, edd.network, edd.patch_size, edd.batch_size) == ("edd", "main", [64, 64], 128)
    assert edd.iterations_per_epoch is None and edd.loss.model_dump() == {
        "name": "edd_muscle",
        "arguments": {},
    }
    assert (edd.optimiser.name, edd.optimiser.arguments) == ("sgd", {"lr": 0.05, "momentum": 0.9})
    assert edd.schedule.name == "constant" and edd.gradient_clip is None
    assert edd.patience is None and edd.leave_out is None  # two cases
    assert (edd.sampling.name, edd.sampling.arguments) == ("lesion_pixels", {"outside": "minimum"})
    assert (edd.augmentation.name, edd.augmentation.arguments) == ("nnunet", OFF)
    assert edd.augmentation.mirror_axes == (2,)


def test_muscle_net_learns_from_what_edd_net_finds(dwi):
    found = planned(dwi)
    edd, muscle = found.recipe.stages
    assert found.networks["muscle"].model_dump() == {
        "name": "muscle",
        "arguments": {
            "patch_size": 16,
            "width": 32,
            "dropout": 0.5,
            "image_windows_px": [16, 32, 64],
            "probability_windows_px": [16],
        },
    }
    assert (muscle.name, muscle.network, muscle.patch_size, muscle.batch_size) == (
        "muscle",
        "muscle",
        [16, 16],
        128,
    )
    assert muscle.iterations_per_epoch is None
    assert (muscle.loss, muscle.optimiser, muscle.schedule) == (edd.loss, edd.optimiser, edd.schedule)
    assert muscle.sampling.name == "candidates"
    assert muscle.sampling.arguments == {"stages": ["edd"], **CANDIDATES}
    assert muscle.augmentation.name == "none"


def test_prediction_is_whole_slices_then_muscle_net(dwi):
    recipe = planned(dwi).recipe
    assert recipe.inference.patch_size == []
    assert recipe.inference.mirror_axes == () and recipe.inference.batch_size == 8
    assert (recipe.members, recipe.fusion.name) == (1, "mean_probabilities")
    assert [(s.name, s.arguments) for s in recipe.postprocessing] == [
        ("muscle", {"rule": "component", **CANDIDATES})
    ]
    assert recipe.validation.cases == "all" and recipe.validation.every == 1


def test_no_more_networks_than_are_trained(dwi):
    for options in ({}, {"muscle": False}, {"network": "unet"}, {"cross_fitting": True}):
        found = planned(dwi, **options)
        assert set(found.networks) == {stage.network for stage in found.recipe.stages}


def test_the_plan_is_valid_stable_and_says_why(dwi):
    found = planned(dwi)
    assert found == planned(dwi)
    again = Plan.model_validate_json(found.model_dump_json())
    assert again == found and again.model_dump_json() == found.model_dump_json()
    assert found == planned(dwi, **found.planner_options), "its own options give it again"
    assert (found.planner, found.trainer, PLANNER.name) == ("edd_muscle",) * 3
    assert len({entry.what for entry in found.reasons}) == len(found.reasons)
    assert all(entry.value and entry.why for entry in found.reasons)


@pytest.mark.parametrize(
    "options",
    [{}, {"cross_fitting": True}] + [{"network": name} for name in ("deconvnet", *COMPARATORS)],
)
def test_networks_losses_and_steps_exist(dwi, options):
    """The trainer can build all that the plan names."""
    from autoseg import plugins
    from autoseg.training.check_recipe import check_recipe

    found = planned(dwi, **options)
    check_recipe(found, plugins.load(plugins.TRAINERS, found.trainer))


# ------------------------------------------------------------------------------------------------ lesions


def test_lesions_are_counted_in_pixels_of_the_working_grid(make_fingerprint):
    """0.8 mm pixels: four of them are one of 1.6 mm; the slices stay."""
    fingerprint = make_fingerprint(
        [(6, 0.8, 0.8)], [(20, 288, 288)] * 3, channels=["DWI"], components=[[400, 240], [200, 3], []]
    )
    assert lesion_sizes(fingerprint, 1.6) == pytest.approx((0.75, 50, 60, 100))
    text = reason(planned(fingerprint), "note: small lesions")
    assert "3 of 4 have at most 60 pixels" in text
    assert "1 of 4 lesions smaller than a pixel" in reason(planned(fingerprint), "note: lost lesions")
    assert any("1 of 4 lesions smaller than a pixel" in text for text in messages.warning_counts())


def test_without_small_lesions_muscle_net_is_doubted(make_fingerprint):
    fingerprint = make_fingerprint(**DWI | {"components": [[900]] * 10})
    found = planned(fingerprint)
    text = reason(found, "note: small lesions")
    assert "none of 10 has at most 60 pixels" in text
    assert "may remove real small lesions" in text and "planner.muscle=false leaves it out" in text
    assert any("few or no small ones to learn from" in text for text in messages.warning_counts())
    assert len(found.recipe.stages) == 2, "only the training can tell"
    messages.forget_warnings()
    planned(fingerprint, muscle=False)
    assert not messages.warning_counts()


@pytest.mark.shared
def test_the_shared_dwi(measured):
    found = make_plan(measured("Dataset012_DWI"), "edd_muscle", Budget())
    assert "37 of 65 have at most 60 pixels" in reason(found, "note: small lesions")
    assert found.recipe.stages[0].epochs == 74
    assert "271 in an epoch, for 80% of 43303 lesion pixels" in reason(found, "recipe.stages.0.epochs")
    assert not [entry for entry in found.reasons if entry.what in ("note: data", "note: patch")]


# ------------------------------------------------------------------------------------------------ length


@pytest.mark.parametrize(
    ("pixels", "epochs", "words"),
    [
        (128, 1000, "at most 1000 epochs"),  # one batch a pass
        (32_000, 100, "200 in an epoch"),  # 0.8 x 32 000 / 128
        (32_001, 100, "201 in an epoch"),  # 99.5 passes
        (2_000_000, 10, "at least 10 epochs"),
    ],
)
def test_the_length_follows_from_the_lesion_pixels(make_fingerprint, pixels, epochs, words):
    fingerprint = make_fingerprint(
        [(6, 1.6, 1.6)], [(20, 144, 144)] * 2, channels=["DWI"], components=[[pixels], []]
    )
    found = planned(fingerprint)
    assert found.recipe.stages[0].epochs == epochs
    assert words in reason(found, "recipe.stages.0.epochs")


@pytest.mark.parametrize(("cases", "epochs"), [(4, 300), (80, 200), (2000, 50)])
def test_the_length_of_muscle_net_follows_from_the_cases(make_fingerprint, cases, epochs):
    """80 cases: 64 of them train, 10 candidates each, 5 batches of 128, 1000 in all."""
    sizes = {"shapes": [(20, 128, 128)] * cases, "components": [[100]] * cases}
    assert planned(make_fingerprint(**DWI | sizes)).recipe.stages[1].epochs == epochs


@pytest.mark.parametrize(("cases", "patience", "held_back"), [(11, None, None), (12, 10, (0, 5))])
def test_cases_are_held_back_to_end_the_first_stage(make_fingerprint, cases, patience, held_back):
    sizes = {"shapes": [(20, 128, 128)] * cases, "components": [[100]] * cases}
    fingerprint = make_fingerprint(**DWI | sizes)
    found = planned(fingerprint)
    edd, muscle = found.recipe.stages
    assert (edd.patience, edd.leave_out) == (patience, held_back)
    assert muscle.patience is None and muscle.leave_out is None
    assert ("too few" in reason(found, "recipe.stages.0.patience")) == (patience is None)
    crossed = make_plan(fingerprint, "edd_muscle", Budget(), {"cross_fitting": True}).recipe.stages
    assert [(s.patience, s.leave_out) for s in crossed[1:3]] == [(patience, (0, 2)), (patience, (1, 2))]


def test_candidates_have_the_area_of_60_published_pixels_on_every_grid(make_fingerprint):
    """60 pixels of 1.6 mm are 153.6 mm2: 240 of 0.8 mm."""
    found = make_plan(make_fingerprint(**DWI), "edd_muscle", Budget(), {"spacing_mm": 0.8})
    assert found.recipe.postprocessing[0].arguments["largest_px"] == 240
    assert found.recipe.stages[-1].sampling.arguments["largest_px"] == 240
    assert "up to 240 pixels" in reason(found, "recipe.postprocessing")


def test_the_full_slice_of_the_paper_is_the_middle_128_pixels(make_fingerprint):
    """230 and 267 mm are 144 and 167 pixels of 1.6 mm; the paper calls 128 x 128 the full slice."""

    def made(**options):
        return make_plan(make_fingerprint(**DWI), "edd_muscle", Budget(), options)

    found = made(slices="centre", patch_size=128)
    inference = found.recipe.inference
    assert (inference.patch_size, inference.tiles) == ([128, 128], "centre")
    assert make_tiling((20, 167, 144), inference).starts[1:] == ([19], [8])
    assert found.recipe.stages[0].sampling.arguments["where"] == "centre"
    assert "nothing is found beyond" in reason(found, "recipe.inference")
    smaller = made(slices="centre").recipe
    assert smaller.inference == inference and "where" not in smaller.stages[0].sampling.arguments
    assert made().recipe.inference.patch_size == []
    assert reason(found, "recipe.precision").startswith("float32, on CUDA mixed precision")


def test_stopping_takes_no_case_from_the_training_where_a_test_part_is_scored(make_fingerprint):
    """The paper: 274 cases train, 106 stop, 361 score. In two parts one in five of the training cases stops."""
    fingerprint = make_fingerprint(**DWI | {"shapes": [(20, 128, 128)] * 30, "components": [[100]] * 30})
    names = tuple(f"c{i:03}" for i in range(741))
    published = Fold(names[:274], names[274:380], names[380:])
    two_parts = Fold(names[:274], names[274:380])
    expected = {
        "validation": [(0, published.validation), (55, two_parts.train[::5])],
        "held_back": [(55, published.train[::5]), (55, two_parts.train[::5])],
        "none": [(0, published.validation), (0, two_parts.validation)],
    }
    for stopping, of_folds in expected.items():
        found = make_plan(fingerprint, "edd_muscle", Budget(), {"stopping": stopping})
        edd = found.recipe.stages[0]
        assert (edd.patience is None) == (stopping == "none")
        assert found.recipe.validation.cases == "all"
        for fold, (n, watched) in zip((published, two_parts), of_folds, strict=True):
            assert (len(held_back(fold, edd)), watched_cases(fold, edd)) == (n, watched)
        if stopping != "none":
            text = reason(found, "recipe.stages.0.leave_out")
            assert "19 of 30 cases train, 5 stop, 6 score" in text
    assert planned(fingerprint).recipe.stages[0].leave_out_in == "two_part_folds"


# ------------------------------------------------------------------------------------------------ options


def test_a_larger_batch_needs_fewer_batches_and_more_memory(dwi):
    small, large = (make_plan(dwi, "edd_muscle", Budget(), {"batch_size": n}) for n in (32, 256))
    assert (small.recipe.stages[0].batch_size, large.recipe.stages[0].batch_size) == (32, 256)
    assert small.recipe.stages[0].epochs < large.recipe.stages[0].epochs
    assert "about 0.9 GB" in reason(small, "memory") and "about 7.0 GB" in reason(large, "memory")


@pytest.mark.parametrize(
    ("patch", "field", "stacks", "dice"),
    [
        (32, 32, [2, 2, 2], 0.36),
        (64, 64, [2, 4, 5], 0.58),
        (96, 44, [2, 3, 3], 0.54),
        (128, 96, [2, 3, 3, 3], 0.48),
    ],
)
def test_each_patch_has_its_best_receptive_field(dwi, patch, field, stacks, dice):
    found = planned(dwi, Budget(24), patch_size=patch)
    assert found.recipe.stages[0].patch_size == [patch, patch]
    assert found.networks["main"].arguments["stacks"] == stacks
    assert dice == max(TABLE_3[patch].values())
    assert f"with a receptive field of {field} " in reason(found, "recipe.stages.0.patch_size")
    assert str(dice) in reason(found, "recipe.stages.0.patch_size")


@pytest.mark.parametrize("network", ["edd", "deconvnet"])
def test_all_pairs_of_table_3_can_be_planned_and_no_others(dwi, network):
    fields = sorted(DECONVNETS)
    for patch, published in TABLE_3.items():
        for field in fields:
            options = {"network": network, "patch_size": patch, "receptive_field": field}
            if field in published:
                found = planned(dwi, Budget(24), **options)
                assert found.networks["main"].arguments["stacks"] == list(DECONVNETS[field].stacks)
                continue
            message = (
                rf"(?s)no receptive field of {field} pixels with patches of {patch}.*Table 3: patch 32: 18, 32; "
                r"patch 64: 32, 44, 64; patch 96: 44, 64, 96; patch 128: 64, 96, 128.*choose one of these"
            )
            with pytest.raises(AutosegError, match=message):
                planned(dwi, **options)


@pytest.mark.parametrize(
    ("network", "registered", "field"),
    [("unet", "edd_unet", 46), ("fcn", "edd_fcn", 52), ("deeplab", "edd_deeplab", 44)],
)
def test_the_networks_of_the_comparison_are_trained_alone(dwi, network, registered, field):
    found = make_plan(dwi, "edd_muscle", Budget(), {"network": network})
    assert found.networks["main"].model_dump() == {"name": registered, "arguments": {"width": 32}}
    assert list(found.networks) == ["main"] and not found.recipe.postprocessing
    (stage,) = found.recipe.stages
    assert (stage.name, stage.loss.name, stage.patch_size) == ("train", "edd_muscle", [64, 64])
    assert found.recipe.inference.patch_size == []
    assert f"receptive field {field}" in reason(found, "networks.main")
    assert planned(dwi, network=network, receptive_field=field).networks == found.networks
    with pytest.raises(AutosegError, match=rf"(?s)'{network}' has a receptive field of {field}.*field=64"):
        planned(dwi, network=network, receptive_field=64)


def test_a_deconvnet_alone(dwi):
    found = planned(dwi, network="deconvnet", receptive_field=44)
    assert found.networks["main"].model_dump() == {
        "name": "deconvnet",
        "arguments": {"stacks": [2, 3, 3], "width": 32},
    }
    assert [stage.name for stage in found.recipe.stages] == ["train"]


@pytest.mark.parametrize("value", [False, "off"])
def test_without_muscle_net(dwi, value):
    found = make_plan(dwi, "edd_muscle", Budget(), {"muscle": value})
    assert list(found.networks) == ["main"] and not found.recipe.postprocessing
    assert [stage.name for stage in found.recipe.stages] == ["edd"]
    assert "EDD Net alone" in reason(found, "configuration")


def test_cross_fitting_trains_two_more_edd_nets(dwi):
    assert "off; as published" in reason(planned(dwi), "cross-fitting")
    found = make_plan(dwi, "edd_muscle", Budget(), {"cross_fitting": True})
    edd, *parts, muscle = found.recipe.stages
    assert [stage.name for stage in parts] == ["edd_part0", "edd_part1"]
    assert [stage.leave_out for stage in parts] == [(0, 2), (1, 2)]
    for part in parts:
        assert not part.keep and part.start == "scratch"
        assert part.model_copy(update={"name": "edd", "leave_out": None, "keep": True}) == edd
    assert muscle.sampling.arguments == {"stages": ["edd_part0", "edd_part1"], **CANDIDATES}
    assert "what EDD Net finds" in reason(found, "recipe.stages.3.sampling")
    assert "two EDD Nets" in reason(found, "cross-fitting")
    for k in (1, 2):
        assert "finds the candidates of these cases" in reason(found, f"recipe.stages.{k}.leave_out")


def test_the_channels_of_muscle_net_are_said(dwi, make_fingerprint):
    assert "probability in the first, each as 16 x 16: 4 channels" in reason(planned(dwi), "networks.muscle")
    two = make_fingerprint(**DWI | {"channels": ("DWI", "ADC")})
    assert "7 channels" in reason(planned(two), "networks.muscle")


def test_another_grid(dwi):
    found = make_plan(dwi, "edd_muscle", Budget(), {"spacing_mm": 0.8})
    assert found.preprocessing.spacing_mm == (None, 0.8, 0.8)
    assert "set; 1.6 mm in the paper" in reason(found, "preprocessing.spacing_mm")
    assert "288 x 288 pixels" in reason(found, "recipe.inference")
    assert sum(lesion_sizes(dwi, 0.8)) == pytest.approx(4 * sum(lesion_sizes(dwi, 1.6)))


def test_slices_smaller_than_a_patch_are_noted(make_fingerprint):
    small = make_fingerprint(**DWI | {"shapes": [(20, 128, 64)] * 10})
    text = reason(planned(small, patch_size=96, receptive_field=96), "note: patch")
    assert "larger than the slices of 144 x 72 pixels; beyond them lies the smallest intensity" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "fcn", "cross_fitting": True}, r"cross_fitting=true with planner.network=fcn"),
        ({"muscle": False, "cross_fitting": True}, r"cross_fitting=true with planner.muscle=false"),
    ],
)
def test_options_that_contradict_each_other_are_refused(dwi, options, message):
    with pytest.raises(AutosegError, match=message):
        planned(dwi, **options)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("patch_size", 50, "32, 64, 96 or 128"),
        ("network", "segnet", "deconvnet"),
        ("spacing_mm", 20, "at most 5"),
        ("batch_size", 0, "at least 1"),
    ],
)
def test_values_that_do_not_exist_are_refused(dwi, option, value, message):
    with pytest.raises(FaultsError, match=rf"(?s){option}.*{message}"):
        make_plan(dwi, "edd_muscle", Budget(), {f"planner.{option}": value})


def test_unknown_options_are_refused(dwi):
    with pytest.raises(AutosegError, match=r"(?s)no such option.*did you mean cross_fitting"):
        make_plan(dwi, "edd_muscle", Budget(), {"planner.crossfitting": True})


# ------------------------------------------------------------------------------------------------ memory


def test_short_memory_makes_the_network_narrower(dwi):
    widths = [
        planned(dwi, Budget(gb)).networks["main"].arguments["width"] for gb in (None, 3.6, 3.4, 2.0, 1.0)
    ]
    assert widths == [32, 32, 24, 16, 8]
    text = reason(planned(dwi, Budget(2.0)), "networks.main")
    assert "width 16 because 32, as in the paper, does not fit 2 GB with batches of 128" in text
    assert planned(dwi, Budget(80)).networks["main"].arguments["width"] == 32
    assert planned(dwi, Budget(2.0), batch_size=64).networks["main"].arguments["width"] == 32


def test_a_width_that_was_set_is_kept_or_refused(dwi):
    found = make_plan(dwi, "edd_muscle", Budget(8.0), {"width": 48})
    assert found.networks["main"].arguments["width"] == 48
    assert "width 48 as set" in reason(found, "networks.main")
    message = r"(?s)edd does not fit the memory.*8 GB.*at least 14\.\d GB, for width 128 .*planner.width"
    with pytest.raises(AutosegError, match=message):
        planned(dwi, Budget(8.0), width=128)


def test_too_little_memory_is_refused(dwi):
    message = (
        r"(?s)edd does not fit the memory.*0\.5 GB.*at least 0\.9 GB, for width 8 and batches of 128 patches of "
        r"64 x 64 pixels.*-gpu_memory_target a larger number, or planner.batch_size a smaller one"
    )
    with pytest.raises(AutosegError, match=message):
        planned(dwi, Budget(0.5))


SIZES = [
    *(("edd", field, variant.edd) for field, variant in DECONVNETS.items()),
    *(("deconvnet", field, variant.single) for field, variant in DECONVNETS.items()),
    *((network, None, comparator.size) for network, comparator in COMPARATORS.items()),
]


@pytest.fixture(scope="module")
def counted():
    """Peak of live float32 elements in a training step, counted operation by operation, and weights of a network."""
    path = Path(__file__).parents[2] / "benchmarks/live_memory.py"
    spec = importlib.util.spec_from_file_location("live_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def count(name: str, patches: int, edge: int, **arguments) -> tuple[int, int]:
        import torch

        from autoseg import networks
        from autoseg.labels import LabelSet
        from autoseg.training import losses

        with torch.device("meta"):
            network = networks.build(name, in_channels=1, out_channels=2, **arguments)
            loss = losses.build("edd_muscle", labels=LabelSet.from_labels({"background": 0, "lesion": 1}))
            images, target = torch.zeros(patches, 1, edge, edge), torch.zeros(patches, edge, edge).byte()
        free = [*network.parameters(), *network.buffers(), *loss.buffers()]
        with module.LiveMemory([images], free) as memory:
            loss(network.train()(images), target).backward()
        return memory.peak, sum(p.numel() for p in network.parameters())

    return count


@pytest.mark.parametrize(("network", "field", "size"), SIZES)
def test_memory_is_that_of_the_networks_themselves(counted, network, field, size: Cost):
    registered = COMPARATORS[network].registered if network in COMPARATORS else network
    stacks = {} if field is None else {"stacks": DECONVNETS[field].stacks}
    elements, parameters = counted(registered, 128, 64, **stacks)
    assert parameters == size.parameters
    assert elements / (128 * 64 * 64) == pytest.approx(size.elements_per_voxel, abs=0.8)


@pytest.mark.parametrize("width", [8, 16, 24, 48])
def test_memory_follows_the_width(counted, width):
    elements, parameters = counted("edd", 128, 64, width=width)
    estimate = memory_gb(EDDMuscleOptions(), DECONVNETS[64].edd, width)
    assert estimate == pytest.approx((elements + 3 * parameters) * 4 / 1e9, rel=0.025)


def test_stacks_and_receptive_fields_are_those_of_the_networks():
    from autoseg.networks.edd_muscle import STACKS, receptive_field

    assert {field: variant.stacks for field, variant in DECONVNETS.items()} == STACKS
    assert all(receptive_field(variant.stacks) == field for field, variant in DECONVNETS.items())
    assert {field for fields in TABLE_3.values() for field in fields} == set(DECONVNETS)
