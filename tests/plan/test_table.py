"""The plan as a table."""

from __future__ import annotations

import pytest

from autoseg.plan import Inference, Named, PostStep, apply_overrides
from autoseg.plan.table import decisions, format_plan
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan


@pytest.fixture
def plan(make_fingerprint):
    spacings = [(s, 1.8, 1.8) for s in (6.0, 6.25, 6.5)]
    return make_plan(
        make_fingerprint(spacings, [(21, 128, 128)] * 3, channels=("DWI",)), "unet", Budget(), {}
    )


def flat(text: str) -> str:
    """One line, so that a test does not depend on where lines are broken."""
    return " ".join(text.split())


def test_every_decision_is_shown_with_its_reason(plan):
    text = format_plan(plan, width=80)
    for expected in (
        "Plan 'unet' for Dataset999_Test: 1 channel (DWI); segments lesion",
        "x 1.8 x 1.8 mm (z, y, x)",
        "24 x 128 x 128 voxels",
        "1000 epochs of 250 batches",
        "dice_ce (batch_dice no, deep_supervision yes)",
        "sgd (lr 0.01, momentum 0.99",
        "about ",
    ):
        assert expected in flat(text)
    for reason in plan.reasons:
        assert flat(reason.why) in flat(text), reason.what


@pytest.mark.parametrize("path", ["stages.0.epochs", "stages.train.epochs", "epochs"])
def test_decisions_hold_what_the_text_shows(plan, path):
    plan = apply_overrides(plan, {path: 20})
    text = flat(format_plan(plan, width=120))
    parts = dict(decisions(plan))
    assert list(parts)[:2] == ["CONFIGURATION", "PREPROCESSING"]
    for row, why in (entry for rows in parts.values() for entry in rows):
        assert flat(row.value) in text or len(row.value) > 33  # longer values are broken between two columns
        assert not why or why.split()[0] in text
    length = next((row, why) for row, why in parts["TRAINING"] if row.label == "length")
    assert length[0].value.startswith("20 epochs") and length[1].startswith(
        "set by you; the planner had: 1000"
    )
    whys = {why for rows in parts.values() for _, why in rows}
    assert {reason.why for reason in plan.reasons if "epochs" not in reason.what} <= whys


@pytest.mark.parametrize("width", [50, 72, 80, 95, 96, 100, 120])
def test_no_line_is_wider_than_the_terminal(plan, width):
    lines = format_plan(plan, width=width).splitlines()
    table = [line for line in lines if "convolutions" in line or line.lstrip()[:1].isdigit()]
    assert max(len(line) for line in lines if line not in table) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_network_stages_end_at_the_bottleneck(plan):
    lines = format_plan(plan, width=100).splitlines()
    first = next(i for i, line in enumerate(lines) if "features  kernel" in line)
    assert lines[first + 1].split()[:3] == ["24x128x128", "32", "1x3x3"]
    assert lines[first + 6].split()[:2] == ["6x4x4", "320"]


def test_an_edge_that_is_whole_stays_so_at_every_resolution(plan):
    recipe = plan.recipe
    stage = recipe.stages[0].model_copy(update={"patch_size": ["whole", 128, 128], "batch_size": 1})
    whole = plan.model_copy(update={"recipe": recipe.model_copy(update={"stages": [stage]})})
    lines = format_plan(whole, width=100).splitlines()
    first = next(i for i, line in enumerate(lines) if "features  kernel" in line)
    assert lines[first + 1].split()[0] == "wholex128x128"
    assert lines[first + 6].split()[0] == "wholex4x4"


def test_axes_that_are_all_whole_are_the_whole_image(plan):
    inference = plan.recipe.inference.model_copy(update={"patch_size": ["whole"] * 3})
    whole = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"inference": inference})})
    text = format_plan(whole, width=100)
    assert "the whole image at once; mirrored" in text and "whole x whole" not in text


def test_what_the_user_set_is_shown_and_said(plan):
    changes = {
        "stages.train.epochs": 7,
        "recipe.stages.0.schedule.name": "constant",
        "preprocessing.image_order": 1,
    }
    text = format_plan(apply_overrides(plan, changes), width=80)
    assert "7 epochs of 250 batches - set by you; the planner had: 1000 x 250 batches" in flat(text)
    assert "linear for images, label-wise linear for masks - set by you" in flat(text)
    assert "gradient clipped at 12 - set by you" in flat(text)
    assert text.count("set by you") == 3
    assert "before what you set" not in text
    smaller = apply_overrides(plan, {"stages.train.batch_size": 1})
    assert "- before what you set;" in flat(format_plan(smaller, width=80))


def test_clones_have_a_line(plan):
    changed = apply_overrides(plan, {"stages.0.sampling.clones": {"number": 2, "drawn": "each_epoch"}})
    line = "clones 2 of each training case, white noise in its lesions, drawn in each epoch - set by you"
    assert line in flat(format_plan(changed, width=80)) and "clones" not in format_plan(plan, width=80)


def test_the_chosen_configuration_is_marked(plan):
    lines = format_plan(plan, width=100).splitlines()
    rows = [line for line in lines if line.split()[:2] in (["*", "3d_fullres"], ["2d", "1.8x1.8"])]
    assert len(rows) == 2


def test_a_2d_plan_keeps_an_axis(make_fingerprint):
    fingerprint = make_fingerprint([(5, 1, 1)], [(20, 100, 100)] * 3)
    found = make_plan(fingerprint, "unet", Budget(), {"planner.configuration": "2d"})
    text = flat(format_plan(found, width=80))
    assert "1 x 1 mm (y, x); z as in each case" in text
    assert "mirrored on y, x" in text


def test_plans_of_other_families(plan):
    """Several stages, members, another network, no reasons, no alternatives."""
    stage = plan.recipe.stages[0]
    first = {"network": "first", "iterations_per_epoch": None, "snapshots": [5], "gradient_clip": None}
    second = {"name": "judge", "network": "second", "start": "train", "frozen": ["encoder.*"]}
    recipe = {
        "stages": [stage.model_copy(update=first), stage.model_copy(update=second)],
        "members": 3,
        "fusion": Named(name="majority"),
        "inference": Inference(patch_size=[]),
        "postprocessing": [PostStep(name="remove_small", arguments={"below_voxels": 20})],
    }
    networks = {"first": Named(name="edd", arguments={"width": 8}), "second": Named(name="muscle")}
    changes = {"reasons": [], "alternatives": {}, "networks": networks}
    other = plan.model_copy(update={**changes, "recipe": plan.recipe.model_copy(update=recipe)})
    text = flat(format_plan(other, width=100))
    for expected in (
        "first edd (width 8)",
        "TRAINING, stage judge of network second",
        "1000 epochs of one pass over the cases",
        "start weights of train",
        "frozen encoder.*",
        "snapshots after epochs 5",
        "the whole image at once; mirrored on z, y, x",
        "3 per fold, fused by majority",
        "remove_small (below_voxels 20)",
    ):
        assert expected in text


def test_the_words_of_version_2_are_shown(model_folder):
    changes = {
        "preprocessing.mask": {"channel": "TTP", "dilation": 1},
        "preprocessing.normalisation": [
            {"scheme": "zscore", "inside_mask": True},
            {"scheme": "fixed", "spread": "mean_absolute_deviation", "divide_by_mode": 16},
            {"scheme": "none", "factor": 1 / 255},
        ],
        "stages.0.channels": ["ADC", "MTT"],
        "stages.0.context": [2, 2, 2],
        "inference.context": [2, 2, 2],
        "stages.0.start": {"model": "unet__e1", "stage": "train", "weights": "best"},
        "stages.0.augmentation": {"name": "none", "share": 0.5, "transforms": [{"name": "quarter_turns"}]},
        "postprocessing": [{"name": "threshold", "fit": "validation"}],
        "inference.tiles": "centre",
    }
    plan = apply_overrides(model_folder.make_plan(channels=("ADC", "MTT", "TTP")), changes)
    rows = {row.label: row.value for _, part in decisions(plan) for row, _ in part}
    assert rows["mask"] == "channel TTP above 0, grown by 1 voxel; background outside"
    assert rows["intensities"] == (
        "ADC: zscore inside the mask; "
        "MTT: divided by the mode, then mean and mean absolute deviation of the training cases; "
        "TTP: none, times 0.003922"
    )
    assert rows["channels"] == "ADC, MTT" and rows["context"] == "2 x 2 x 2 voxels on each side"
    assert rows["start"] == "best weights of unet__e1, stage train, the same fold"
    assert rows["augmentation"] == "quarter_turns; 50% of the samples"
    assert rows["tiles"].startswith(
        "one of 8 x 8 x 8 voxels in the centre, background around it, 2 x 2 x 2 voxels of context on each side"
    )
    assert rows["post-processing"] == "threshold, learnt from validation cases"
    unapplied = apply_overrides(plan, {"postprocessing": [{"name": "threshold", "apply": False}]})
    rows = {row.label: row.value for _, part in decisions(unapplied) for row, _ in part}
    assert rows["post-processing"] == "threshold, not applied"
    assert "unet__e1" in format_plan(plan)


def test_chunks_are_shown_with_their_halo(model_folder):
    cut = {"patch_size": [31, "whole", "whole"], "tiles": "chunks"}
    for halo, words in (
        ([20, 0, 0], " side by side, 20 x 0 x 0 voxels seen around each;"),
        ([], " side by side;"),
    ):
        plan = apply_overrides(model_folder.make_plan(), {"inference": {**cut, "halo": halo}})
        rows = {row.label: row.value for _, part in decisions(plan) for row, _ in part}
        assert rows["tiles"].startswith(f"chunks of 31 x whole x whole voxels{words}")
