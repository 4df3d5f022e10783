"""The planner ``brainsegnet``: what it is made for, the published numbers, its ablations, other data and cards."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from autoseg.errors import AutosegError, FaultsError
from autoseg.inference.tiling import make_tiling
from autoseg.planners._brainsegnet_settings import (
    PLANES_AT_ONCE,
    BrainSegNetOptions,
    parameters,
    prediction_gb,
    training_gb,
)
from autoseg.planners.brainsegnet import contrast_of, match, plan, wanted_patch
from autoseg.plugins.planner import Budget, Verdict
from autoseg.preparation.choice import ask_all, make_plan
from autoseg.trainers.brainsegnet import TRAINER
from autoseg.training.check_recipe import check_recipe

MAPS = ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")
SERIES = ("PWI_mean", "PWI_max", "PWI_min")
ISLES = {"spacings": [(6.5, 1.0, 1.0)], "shapes": [(19, 192, 192)] * 9, "channels": MAPS}
SUB_REGIONS = {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
BRATS = {
    "spacings": [(1, 1, 1)],
    "shapes": [(155, 240, 240)] * 8,
    "channels": ("FLAIR", "T1", "T1c", "T2"),
    "labels": SUB_REGIONS,
}
ENOUGH = Budget(memory_gb=32)


def planned(fingerprint, budget=ENOUGH, **settings):
    return plan(fingerprint, budget, BrainSegNetOptions(**settings))


def why(found, what: str) -> str:
    return next(reason.why for reason in found.reasons if reason.what == what)


@pytest.fixture
def isles(make_fingerprint):
    return make_fingerprint(**ISLES)


@pytest.fixture
def brats(make_fingerprint):
    """Raw intensities, whose most frequent one is 96."""
    return with_values(make_fingerprint(**BRATS), min=0, mode=96.0)


def with_values(fingerprint, **values):
    """The same data with other intensities in all channels."""
    cases = [
        case.model_copy(update={"brain": [b.model_copy(update=values) for b in case.brain]})
        for case in fingerprint.cases
    ]
    return fingerprint.model_copy(update={"cases": cases})


# ------------------------------------------------------------------------------------------------ whether it fits


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.MADE_FOR_IT, "6 perfusion and diffusion maps"),
        ({"channels": (*MAPS, *SERIES)}, Verdict.MADE_FOR_IT, "9 perfusion and diffusion maps"),
        ({"channels": ("ADC", "Tmax")}, Verdict.FITS, "2 maps instead of six"),
        ({"channels": (*MAPS, "FLAIR")}, Verdict.FITS, "1 channel that is no map"),
        ({"channels": ("ADC", "DWI")}, Verdict.POSSIBLE, "channels ADC, DWI with one kind of lesion"),
        ({"channels": ("Tmax",)}, Verdict.POSSIBLE, "one channel (Tmax) with one kind of lesion"),
        ({"spacings": [(1, 0.1, 0.1)]}, Verdict.FITS, "scans of 19 mm"),
        (BRATS, Verdict.MADE_FOR_IT, "4 MR contrasts with 4 sub-regions"),
        (
            {**BRATS, "channels": ("FLAIR", "T1c")},
            Verdict.FITS,
            "2 MR contrasts (FLAIR, T1c) instead of four",
        ),
        ({**BRATS, "labels": None}, Verdict.POSSIBLE, "FLAIR, T1, T1c, T2 with one kind of lesion"),
        (
            {**BRATS, "spacings": [(5, 1, 1)], "shapes": [(30, 240, 240)] * 8},
            Verdict.FITS,
            "slices far apart",
        ),
    ],
)
def test_it_is_made_for_maps_of_strokes_and_contrasts_of_tumours(make_fingerprint, changes, verdict, words):
    found = match(make_fingerprint(**{**ISLES, **changes}))
    assert found.verdict is verdict and words in found.words


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("Dataset013_ISLESPerfusion", Verdict.MADE_FOR_IT), ("Dataset001_BRATS", Verdict.FITS)],
)
def test_auto_takes_it_for_such_data(measured, name, verdict):
    found = ask_all(measured(name))
    best, *others = found
    assert best == "brainsegnet" and found[best].verdict is verdict
    assert all(found[other].verdict < verdict for other in others if other != "deepmedic")


@pytest.mark.parametrize("name", ["Dataset002_OpenMS", "Dataset012_DWI", "Dataset014_ATLAST1"])
def test_auto_leaves_other_data_to_others(measured, name):
    assert next(iter(ask_all(measured(name)))) != "brainsegnet"


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("FLAIR", "FLAIR"), ("t2_flair", "FLAIR"), ("T1", "T1"), ("T1c", "T1c"), ("T1-Gd", "T1c"), ("T1ce", "T1c"),
        ("T1w+c", "T1c"), ("T2", "T2"), ("T2w", "T2"), ("MPRAGE", "T1"), ("ADC", ""), ("CT", ""),
    ],
)  # fmt: skip
def test_names_of_contrasts(channel, kind):
    assert contrast_of(channel) == kind


# ------------------------------------------------------------------------------------------- the published numbers


def test_the_published_recipe_of_isles(isles):
    found = planned(isles)
    plain, half, focal = found.recipe.stages
    for stage in (plain, half, focal):
        assert (stage.patch_size, stage.batch_size, stage.epochs) == ([7, 96, 96], 40, 500)
        assert stage.iterations_per_epoch is None and stage.channels == []
        assert stage.optimiser.name == "adam" and stage.optimiser.arguments == {"lr": 1e-4}
        assert stage.schedule.name == "constant" and stage.sampling.name == "sub_volumes"
        assert stage.sampling.arguments == {"rule": "around_lesion", "epoch": "one_per_scan"}
    assert [s.augmentation.share for s in (plain, half, focal)] == [0, 0.5, 0.75]
    assert [s.loss.arguments["gamma"] for s in (plain, half, focal)] == [0, 0, 2]
    assert [s.start for s in (plain, half, focal)] == ["scratch", "previous", "previous"]
    assert [s.optimiser_state for s in (plain, half, focal)] == ["fresh", "previous", "fresh"]
    assert [s.keep for s in (plain, half, focal)] == [False, False, True]
    assert found.networks["main"].arguments == {"width": 32, "refine_width": 128}
    assert {e.scheme for e in found.preprocessing.normalisation} == {"fixed"}
    assert {e.spread for e in found.preprocessing.normalisation} == {"mean_absolute_deviation"}
    assert found.preprocessing.spacing_mm == (None,) * 3 and not found.preprocessing.crop_to_nonzero
    assert found.recipe.inference.patch_size == [] and not found.recipe.postprocessing
    check_recipe(found, TRAINER)


def test_the_augmentation_has_the_papers_ranges_and_order(isles):
    plain, half, focal = planned(isles).recipe.stages
    assert not plain.augmentation.transforms and half.augmentation.transforms == focal.augmentation.transforms
    found = [(t.name, t.arguments) for t in half.augmentation.transforms]
    assert found == [
        ("slice_factor", {"low": 0.8, "high": 1.2, "about": "raw_zero"}),
        ("quarter_turns", {}),
        ("rescale", {"low": 0.5, "high": 1.2}),
        ("flip", {"axis": 2}),
        ("flip", {"axis": 1}),
    ]
    assert half.augmentation.name == "none"


def test_the_published_recipe_of_brats(brats):
    found = planned(brats)
    assert {tuple(stage.patch_size) for stage in found.recipe.stages} == {(12, 128, 128)}
    assert {stage.batch_size for stage in found.recipe.stages} == {40}
    assert {e.divide_by_mode for e in found.preprocessing.normalisation} == {16.0}
    check_recipe(found, TRAINER)


def test_the_published_memory():
    """About 8 GB on each of four cards with 10 sub-volumes of 12 x 128 x 128, in the paper."""
    assert training_gb(10 * 12 * 128 * 128, BrainSegNetOptions(), 4, 5) == pytest.approx(8, rel=0.15)


# -------------------------------------------------------------------------------------- ablations and other options


def test_the_ablations(isles):
    def stages(**settings):
        found = planned(isles, **settings)
        check_recipe(found, TRAINER)
        return [
            (
                s.name,
                s.epochs,
                s.batch_size,
                s.augmentation.share,
                s.loss.arguments["gamma"],
                s.optimiser_state,
            )
            for s in found.recipe.stages
        ]

    plain = ("plain", 500, 40, 0.0, 0, "fresh")
    half = ("half", 500, 40, 0.5, 0, "previous")
    assert stages(focal=False) == [plain, half, ("most", 500, 40, 0.75, 0, "previous")]
    assert stages(curriculum=False) == [("focal", 1500, 36, 1.0, 2, "fresh")]
    baseline = [("baseline", 2000, 40, 0.0, 0, "fresh")]
    assert stages(baseline=True) == stages(focal=False, curriculum=False) == baseline
    assert stages(carry_optimizer=True) == [plain, half, ("focal", 500, 40, 0.75, 2, "previous")]


@pytest.mark.parametrize("setting", ["focal=off", "curriculum=off", "baseline=on", "baseline=true"])
def test_each_ablation_is_one_word_of_set(isles, setting):
    name, _, value = setting.partition("=")
    found = make_plan(isles, "brainsegnet", ENOUGH, {name: True if value == "true" else value})
    assert [s.name for s in found.recipe.stages] != ["plain", "half", "focal"]


def test_the_augmented_training(isles):
    found = planned(isles, training="augmented")
    (stage,) = found.recipe.stages
    check_recipe(found, TRAINER)
    assert stage.augmentation.name == "nnunet" and stage.augmentation.share == 1
    assert found.networks["main"].arguments["normalisation"] == "instance"
    assert stage.loss.arguments == {"gamma": 2, "dice_weight": 1} and stage.schedule.name == "poly"
    # (1 - t)^0.9 has the mean 1 / 1.9: about the published rate
    assert stage.optimiser.arguments["lr"] / 1.9 == pytest.approx(1e-4, rel=0.06)


def test_other_options(isles, make_fingerprint):
    stage = planned(isles, epoch="all_subvolumes", crops="around_voxel").recipe.stages[0]
    assert stage.sampling.arguments == {"rule": "around_voxel", "epoch": "all_subvolumes"}
    found = planned(isles, map_dropout=0.2).recipe.stages
    assert [s.augmentation.transforms[-1].arguments for s in found[1:]] == [{"p": 0.2}] * 2
    assert not found[0].augmentation.transforms
    assert planned(isles, map_dropout=0.2).preprocessing.may_be_missing == list(MAPS)
    masked = planned(isles, map_dropout=0.2, mask="TTP").preprocessing
    assert masked.may_be_missing == [name for name in MAPS if name != "TTP"]
    assert planned(isles).preprocessing.may_be_missing == []
    zscore = planned(isles, normalisation="zscore").preprocessing.normalisation
    assert {(e.scheme, e.inside_nonzero) for e in zscore} == {("zscore", True)}
    assert planned(isles, width=16, refine_width=64).networks["main"].arguments["refine_width"] == 64


def test_the_mask_is_that_of_the_comparison(isles):
    assert planned(isles).preprocessing.mask is None
    found = planned(isles, mask="auto", normalisation="zscore")
    mask = found.preprocessing.mask
    assert (mask.channel, mask.dilation, mask.fill_holes) == ("TTP", 1, True)
    assert all(entry.inside_mask for entry in found.preprocessing.normalisation)
    assert planned(isles, mask="ADC").preprocessing.mask.channel == "ADC"
    check_recipe(found, TRAINER)
    with pytest.raises(AutosegError, match=r"(?s)planner.mask=TTX.*did you mean TTP"):
        planned(isles, mask="TTX")


@pytest.mark.parametrize(
    ("inputs", "expected"), [("maps", list(MAPS)), ("pwi", list(SERIES)), ("maps+pwi", [])]
)
def test_which_channels_the_network_sees(make_fingerprint, inputs, expected):
    nine = make_fingerprint(**{**ISLES, "channels": (*MAPS, *SERIES)})
    found = planned(nine, inputs=inputs)
    assert {tuple(stage.channels) for stage in found.recipe.stages} == {tuple(expected)}
    check_recipe(found, TRAINER)


@pytest.mark.parametrize("inputs", ["pwi", "maps+pwi"])
def test_channels_that_are_not_there_are_named(isles, inputs):
    with pytest.raises(
        AutosegError, match="(?s)planner.inputs.*ADC, MTT.*PWI_mean, PWI_max and PWI_min.*--pwi"
    ):
        planned(isles, inputs=inputs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"baseline": True, "focal": True}, "baseline is without focal loss and curriculum, found focal on"),
        ({"training": "augmented", "focal": False}, "are ablations of training=published"),
        ({"inference": "centre"}, "whole"),
        ({"map_dropout": 1.5}, "at most 1"),
        ({"map_dropout": 0.2, "baseline": True}, "map_dropout is of augmented samples"),
        ({"carry_optimizer": True, "baseline": True}, "carry_optimizer is of the curriculum"),
        ({"carry_optimizer": True, "curriculum": False}, "carry_optimizer is of the curriculum"),
        ({"carry_optimizer": True, "training": "augmented"}, "carry_optimizer is of the curriculum"),
    ],
)
def test_options_that_contradict_each_other(isles, settings, words):
    with pytest.raises(FaultsError, match=words) as caught:
        make_plan(
            isles, "brainsegnet", ENOUGH, {f"planner.{name}": value for name, value in settings.items()}
        )
    assert "the whole " not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- intensities


def test_intensities_that_are_normalised_already_are_not_divided_by_their_mode(make_fingerprint):
    found = planned(with_values(make_fingerprint(**BRATS), min=-3, mode=16.0))
    assert {e.divide_by_mode for e in found.preprocessing.normalisation} == {None}
    assert "values below 0" in why(found, "preprocessing.normalisation")
    small = planned(with_values(make_fingerprint(**BRATS), min=0, max=1, mode=None))
    assert {e.divide_by_mode for e in small.preprocessing.normalisation} == {None}


def test_beyond_a_scan_lies_its_background(make_fingerprint, isles):
    """The least value of maps and raw contrasts; 0 where scans were z-scored, before or here."""
    scored = planned(with_values(make_fingerprint(**BRATS), min=-3)).recipe.stages[0]
    assert scored.sampling.arguments["outside"] == "zero"
    assert planned(isles, normalisation="zscore").recipe.stages[0].sampling.arguments["outside"] == "zero"
    assert "outside" not in planned(isles).recipe.stages[0].sampling.arguments  # the sampler's own: minimum


def test_maps_are_not_divided_by_their_mode(make_fingerprint):
    found = planned(with_values(make_fingerprint(**ISLES), min=0, mode=96.0))
    assert {e.divide_by_mode for e in found.preprocessing.normalisation} == {None}


# ------------------------------------------------------------------------------------------- other grids and memory


@pytest.mark.parametrize(
    ("thin", "shape", "expected"),
    [
        (True, (20, 256, 256), (7, 96, 96)),
        (False, (155, 240, 240), (12, 128, 128)),
        (True, (5, 60, 64), (5, 64, 64)),  # the next multiple of 8, padded
        (False, (181, 100, 217), (12, 104, 128)),
    ],
)
def test_the_sub_volume_is_the_published_one_within_the_scan(thin, shape, expected):
    assert wanted_patch(thin, shape) == expected


def test_a_stack_of_few_slices_is_thin_whatever_their_distance(make_fingerprint):
    coarse = make_fingerprint(**{**ISLES, "spacings": [(6, 4.8, 4.8)], "shapes": [(21, 48, 48)] * 5})
    assert planned(coarse).recipe.stages[0].patch_size == [7, 48, 48]


def test_the_depth_is_the_axis_of_the_slices(make_fingerprint):
    sagittal = make_fingerprint(**{**ISLES, "spacings": [(1, 1, 6)], "shapes": [(192, 192, 19)] * 5})
    found = planned(sagittal)
    assert found.preprocessing.transpose == (2, 0, 1) and found.recipe.stages[0].patch_size == [7, 96, 96]


@pytest.mark.parametrize("budget", [16, 8, 4, 2, 1, 0.5])
def test_less_memory_first_takes_samples_then_planes(isles, budget):
    found = planned(isles, Budget(memory_gb=budget))
    (stage, *_) = found.recipe.stages
    voxels = stage.batch_size * math.prod(stage.patch_size)
    assert training_gb(voxels, BrainSegNetOptions(), 6, 2) <= budget
    assert stage.batch_size >= 10 and stage.patch_size[0] == 7
    if stage.patch_size != [7, 96, 96]:
        y, x = stage.patch_size[1:]
        more = 10 * 7 * (y + 8) * (x + 8)
        assert training_gb(more, BrainSegNetOptions(), 6, 2) > budget  # and no smaller than it must be
        assert "does not fit" in why(found, "recipe.stages.0.patch_size")
    check_recipe(found, TRAINER)


def test_small_batches_are_said(isles):
    found = planned(isles, Budget(memory_gb=0.32))
    assert 2 <= found.recipe.stages[0].batch_size < 10
    assert "planner.training=augmented" in why(found, "note: small batches")
    with pytest.raises(AutosegError, match="(?s)does not fit the memory.*0.1 GB.*-gpu_memory_target"):
        planned(isles, Budget(memory_gb=0.1))


def test_that_an_epoch_shows_few_scans_more_than_once_is_said(isles, make_fingerprint):
    """Nine scans, of which seven train in one of five folds: a batch of 40 shows each 5.7 times."""
    note = "note: large batch"
    assert "about 7 training scans 5.7 times" in why(planned(isles), note)
    all_of_isles = make_fingerprint(**{**ISLES, "shapes": [(19, 192, 192)] * 50})
    assert note not in [reason.what for reason in planned(all_of_isles).reasons]
    assert note not in [reason.what for reason in planned(isles, epoch="all_subvolumes").reasons]


def test_one_pass_is_published_for_stacks_and_not_for_heads(isles, brats):
    assert "as published for thin stacks" in why(planned(isles), "recipe.inference")
    assert "the paper predicts heads in chunks of 31 planes" in why(planned(brats), "recipe.inference")


def test_a_whole_scan_is_predicted_where_it_fits(brats):
    """124 elements (4 channels, twice the width, 7/16 of the refinement's) of 155 x 240 x 240 voxels are 4.4 GB."""
    assert planned(brats, Budget(memory_gb=6)).recipe.inference.patch_size == []
    found = planned(brats, Budget(memory_gb=4))
    inference = found.recipe.inference
    assert inference.halo == [20, 0, 0] and inference.patch_size[1:] == ["whole", "whole"]
    assert inference.tiles == "chunks" and "4.4 GB of 4" in why(found, "recipe.inference")
    tiling = make_tiling((155, 240, 240), inference)
    seen = max(tiling.around(tile)[0].stop - tiling.around(tile)[0].start for tile in tiling)
    assert prediction_gb(seen, 240 * 240, BrainSegNetOptions(), 4, 5) <= 4
    with_one_less = math.ceil(155 / (len(tiling) - 1)) + 40
    assert prediction_gb(with_one_less, 240 * 240, BrainSegNetOptions(), 4, 5) > 4


def test_chunks_are_never_mostly_halo(brats):
    found = planned(brats, Budget(memory_gb=1), inference="auto")
    assert found.recipe.inference.patch_size[0] == 8


def test_the_papers_chunks(brats):
    found = planned(brats, inference="concatenate")
    inference = found.recipe.inference
    assert make_tiling((155, 240, 240), inference).starts[0] == [0, 31, 62, 93, 124]
    assert inference.tiles == "chunks" and inference.halo == []
    assert "at a seam about 7 planes on each side" in why(found, "recipe.inference")


def test_a_way_of_prediction_that_is_set_is_explained_for_these_scans(isles, brats):
    too_large = planned(brats, Budget(memory_gb=3), inference="whole")
    assert "4.4 GB of 3" in why(too_large, "recipe.inference")
    assert "planner.inference=chunks gives the same in less" in why(too_large, "recipe.inference")
    one_chunk = why(planned(isles, inference="concatenate"), "recipe.inference")
    assert "one chunk without seams" in one_chunk and "at a seam" not in one_chunk


def test_a_quick_plan(isles):
    found = make_plan(isles, "brainsegnet", Budget(), {"planner.length": "quick"})
    assert found.networks["main"].arguments == {"width": 8, "refine_width": 16}
    for stage in found.recipe.stages:
        assert stage.epochs <= 30 and stage.iterations_per_epoch <= 20
        assert stage.batch_size * math.prod(stage.patch_size) <= 300_000
    check_recipe(found, TRAINER)


def test_regions_are_outputs_of_their_own(make_fingerprint):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    found = planned(make_fingerprint(**{**BRATS, "labels": labels, "regions_class_order": [1, 2]}))
    check_recipe(found, TRAINER)


# ------------------------------------------------------------------------------------------------------ the counts


@pytest.fixture(scope="module")
def live_memory():
    path = Path(__file__).parents[2] / "benchmarks/live_memory.py"
    spec = importlib.util.spec_from_file_location("live_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LiveMemory


def network(in_channels, outputs, options):
    import torch

    from autoseg import networks

    widths = {"width": options.width, "refine_width": options.refine_width}
    with torch.device("meta"):
        return networks.build("brainsegnet", in_channels=in_channels, out_channels=outputs, **widths)


SIZES = [(6, 2, {}), (4, 5, {}), (9, 2, {"refine_width": 64}), (2, 5, {"width": 8, "refine_width": 16})]


@pytest.mark.parametrize(("in_channels", "outputs", "widths"), SIZES)
def test_memory_is_that_of_the_network_itself(live_memory, in_channels, outputs, widths):
    import torch

    from autoseg.labels import LabelSet
    from autoseg.training import losses

    options = BrainSegNetOptions(**widths)
    made = network(in_channels, outputs, options)
    assert parameters(options.width, options.refine_width, in_channels, outputs) == sum(
        p.numel() for p in made.parameters()
    )
    labels = LabelSet.from_labels({"background": 0, **{f"l{i}": i for i in range(1, outputs)}})
    with torch.device("meta"):
        loss = losses.build("brainsegnet", labels=labels)
        image = torch.zeros(40, in_channels, 7, 96, 96)
        target = torch.zeros(40, 7, 96, 96, dtype=torch.int16)
    free = [*made.parameters(), *made.buffers()]
    with live_memory([image, target], free) as memory:
        loss(made.train()(image), target).backward()
    voxels, weights = 40 * 7 * 96 * 96, sum(p.numel() for p in made.parameters())
    counted = (memory.peak + 3 * weights) * 4 / 1e9  # the weights, and Adam's two moments
    assert training_gb(voxels, options, in_channels, outputs) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("planes", [7, 19, 31, 64, 155])
@pytest.mark.parametrize(("in_channels", "outputs", "widths"), SIZES)
def test_so_is_that_of_a_prediction(live_memory, in_channels, outputs, widths, planes):
    import torch

    options, size = BrainSegNetOptions(**widths), (planes, 64, 64)
    made, image = network(in_channels, outputs, options), torch.zeros(1, in_channels, *size, device="meta")
    with torch.no_grad(), live_memory([image], [*made.parameters(), *made.buffers()]) as memory:
        made.eval()(image)
    counted = memory.peak * 4 / 1e9
    found = prediction_gb(planes, 64 * 64, options, in_channels, outputs)
    assert found == pytest.approx(counted, rel=0.04)


def test_the_network_refines_as_many_planes_at_a_time():
    from autoseg.networks.brainsegnet import PLANES

    assert PLANES == PLANES_AT_ONCE
