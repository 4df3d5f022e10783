"""The memory that plans foretell, against a count of what their training keeps."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "planners"))
from fingerprints import fingerprint

from autoseg import plugins
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.training import memory
from autoseg.training.memory import largest_shape, step_gb, warn_of_small_card, with_memory
from autoseg.training.step_count import count_step

PERFUSION = ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")
DATA = {
    "dwi": fingerprint([[6.0, 1.8, 1.8]], [(21, 128, 128)] * 12, channels=("DWI",)),
    "rat": fingerprint([[1.0, 0.117, 0.117]], [(18, 256, 256)] * 12, channels=("T2",)),
    "t1": fingerprint([[1.0, 1.0, 1.0]], [(121, 168, 132)] * 12, relative_size=0.31),
    "perfusion": fingerprint([[5.0, 1.2, 1.2]], [(22, 139, 113)] * 12, channels=PERFUSION),
}
OPTIONS = {
    "unet": [{}, {"planner.preset": "M"}, {"planner.configuration": "2d"}],
    "ratlesnetv2": [
        {"planner.network": name}
        for name in ("ratlesnetv2", "lvl2", "densenet", "ratlesnet", "voxresnet", "unet3d")
    ],
    "edd_muscle": [{"planner.network": name} for name in ("edd", "deconvnet", "unet", "fcn", "deeplab")],
}
"""What is planned beside the default; a new family is swept without an entry."""
FEW = {"unet": ("dwi", "perfusion"), "ratlesnetv2": ("rat",), "edd_muscle": ("dwi",), "resunet": ("t1",)}
SWEEP = [
    pytest.param(planner, data, options, id=f"{planner}-{data}-{number}")
    for planner in plugins.names(plugins.PLANNERS)
    for data in FEW.get(planner, ("perfusion",))
    for number, options in enumerate([*OPTIONS.get(planner, [{}]), {"planner.length": "quick"}])
]


def foretold(plan) -> tuple[float, torch.dtype | None]:
    """The row of the plan in GB, and what it was counted in."""
    (row,) = [reason for reason in plan.reasons if reason.what == memory.ROW]
    words = row.value.split()
    number = float(words[words.index("GB") - 1])
    return number, torch.bfloat16 if row.why.startswith("counted for mixed precision") else None


@pytest.mark.parametrize(("planner", "data", "options"), SWEEP)
def test_every_family_foretells_what_its_training_takes(planner, data, options):
    plan = make_plan(DATA[data], planner, Budget(), options)
    gb, dtype = foretold(plan)
    counted = step_gb(plan, dtype, largest_shape(plan, DATA[data]))
    assert gb == pytest.approx(counted, rel=0.15, abs=0.06)  # the row has one digit


@pytest.mark.parametrize("planner", plugins.names(plugins.PLANNERS))
def test_a_budget_is_kept(planner, budget_gb=4.0):
    data = DATA[FEW.get(planner, ("perfusion",))[-1]]
    plan = make_plan(data, planner, Budget(memory_gb=budget_gb), {})
    _, dtype = foretold(plan)
    assert step_gb(plan, dtype, largest_shape(plan, data)) <= 1.02 * budget_gb


@pytest.mark.parametrize(
    ("planner", "data"), [("ratlesnetv2", "t1"), ("resunet", "t1"), ("brainsegnet", "perfusion")]
)
def test_the_largest_patch_that_fits_is_found(planner, data):
    """A budget that cuts patch or batch down is filled."""
    plan = make_plan(DATA[data], planner, Budget(memory_gb=3.5), {})
    assert step_gb(plan, None, largest_shape(plan, DATA[data])) > 0.8 * 3.5


# ------------------------------------------------------------------------------------------------ the count itself


def test_a_count_is_that_of_a_network_worked_by_hand():
    """DWI's U-Net: parameters of nnU-Net's network, FLOPs from the convolutions, memory that the batch doubles."""
    plan = make_plan(DATA["dwi"], "unet", Budget(), {})
    trainer, stage = plugins.load(plugins.TRAINERS, "unet"), plan.recipe.stages[0]
    two = count_step(plan, stage, trainer, dtype=torch.bfloat16)
    four = count_step(plan, stage, trainer, dtype=torch.bfloat16, batch_size=4)
    assert four.flop == 2 * two.flop and four.parameters == two.parameters
    weights_gb = 10e-9 * two.parameters  # float32 and momentum, and two bytes for mixed precision
    assert four.peak_gb - weights_gb == pytest.approx(2 * (two.peak_gb - weights_gb), rel=0.02)
    exact = count_step(plan, stage, trainer)
    assert exact.flop == two.flop and 1.5 < exact.peak_gb / two.peak_gb < 2


# ------------------------------------------------------------------------------------------- what the user changes


def test_the_row_follows_another_network():
    set_to = {"networks.main.arguments.features_per_stage": [8, 16, 32, 64, 64, 64], "epochs": 5}
    plan = make_plan(DATA["dwi"], "unet", Budget(), {})
    narrow = make_plan(DATA["dwi"], "unet", Budget(), set_to)
    (before,), (after,) = (
        [r for r in with_memory(p, DATA["dwi"]).reasons if r.what == memory.ROW] for p in (plan, narrow)
    )
    assert before == next(r for r in plan.reasons if r.what == memory.ROW)  # nothing was set
    assert after.value == "about 0.3 GB" and "as planned about 1.3 GB" in after.why
    assert len(narrow.reasons) == len(plan.reasons)


def test_the_row_follows_precision_and_leaves_alone_what_does_not_matter():
    float32 = with_memory(make_plan(DATA["dwi"], "unet", Budget(), {"precision": "float32"}), DATA["dwi"])
    (row,) = [r for r in float32.reasons if r.what == memory.ROW]
    assert row.value == "about 2.1 GB" and "float32" in row.why and "mixed" not in row.why
    longer = make_plan(DATA["dwi"], "unet", Budget(), {"epochs": 3, "inference.step": 0.6})
    assert with_memory(longer, DATA["dwi"]) is longer


def test_a_card_that_is_too_small_is_said_before_the_training(monkeypatch, caplog):
    plan = make_plan(DATA["dwi"], "unet", Budget(), {})
    card = torch.device("cuda")
    monkeypatch.setattr(memory, "lower_precision", lambda *_: torch.bfloat16)
    for free, device, said in ((1e9, card, True), (8e9, card, False), (0, torch.device("cpu"), False)):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        caplog.clear()
        warn_of_small_card(plan, device, (21, 128, 128))
        assert ("takes about 1.3 GB" in caplog.text) is said
