"""One iteration and the start of a stage, worked out by hand on networks of one or two numbers."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from autoseg.bundle import weights
from autoseg.plan import Named, Stage
from autoseg.plugins.parts import Batch
from autoseg.plugins.trainer import Trainer
from autoseg.training import optimisers, schedules
from autoseg.training.checkpoint import Position
from autoseg.training.distributed import World
from autoseg.training.interrupt import StopRequest
from autoseg.training.stage import StageContext, _load_start, _Running, _step


def make_stage(name="train", **changes):
    parts = {"patch_size": [8, 8, 8], "batch_size": 1, "epochs": 1, "loss": Named(name="dice_ce")}
    parts |= {"optimiser": Named(name="sgd", arguments={"lr": 0.1}), "schedule": Named(name="constant")}
    return Stage(name=name, **{**parts, **changes})


def make_running(start, optimiser, scale):
    """A network that weighs its inputs, without a bias; the loss is the sum of its outputs."""
    network = torch.nn.Linear(len(start), 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([start]))
    made = optimisers.build(optimiser.name, network.parameters(), **optimiser.arguments)
    return _Running(
        network=network,
        forward=network,
        optimiser=made,
        schedule=schedules.build("constant", epochs=1),
        loss=lambda outputs, target: outputs.sum(),
        scaler=torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None),
        autocast=contextlib.nullcontext,
        position=Position(),
    )


SCALES = pytest.mark.parametrize("scale", [None, 1024.0], ids=["unscaled", "scaled"])


def weights_after_a_step(start, gradient, clip, scale):
    """The gradient of the weights is the input."""
    stage = make_stage(gradient_clip=clip)
    running = make_running(start, stage.optimiser, scale)
    batch = Batch(torch.tensor([gradient]), torch.zeros(1), ("a",), 0.0)
    _step(SimpleNamespace(stage=stage), running, batch, 0.0)
    ((value, cases),) = running.pending
    assert cases == ("a",) and value.item() == sum(w * x for w, x in zip(start, gradient, strict=True))
    return running.network.weight[0].tolist()


@SCALES
@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, 0.6),  # 1 - 0.1 * 4
        (1.0, 0.9),  # 1 - 0.1 * 1
        (2.5, 0.75),
        (5.0, 0.6),  # the gradient is smaller than that, its scaled one is not
    ],
)
def test_the_update_is_the_rate_times_the_clipped_gradient(clip, expected, scale):
    assert weights_after_a_step([1.0], [4.0], clip, scale) == pytest.approx([expected], abs=1e-6)


@SCALES
def test_it_is_the_norm_of_the_whole_gradient_that_is_clipped(scale):
    """The norm of (3, 4) is 5: with 1 as the largest, 0.6 and 0.8 are left."""
    found = weights_after_a_step([1.0, 1.0], [3.0, 4.0], 1.0, scale)
    assert found == pytest.approx([0.94, 0.92], abs=1e-6)


# ---------------------------------------------------------------------------------------------------- the start

KEPT = {"first": 1.0, "second": 2.0, "other": 3.0}
"""Weights that earlier stages have left; ``other`` is of another network."""


def make_context(plan, folder, start):
    """The fourth stage; the third one trains another network."""
    kept = [make_stage(name, network="second" if name == "other" else "main") for name in KEPT]
    recipe = plan.recipe.model_copy(update={"stages": [*kept, make_stage("last", start=start)]})
    networks = dict.fromkeys(("main", "second"), plan.networks["main"])
    return StageContext(
        plan=plan.model_copy(update={"recipe": recipe, "networks": networks}),
        plan_hash="x",
        cases_hash="x",
        trainer=Trainer("test", "of this test"),
        member=1,
        index=len(KEPT),
        seed_key=(7, 0),
        source=None,
        validate=None,
        folder=folder,
        journal=None,
        device=torch.device("cpu"),
        world=World(),
        stop=StopRequest(),
        n_outputs=2,
    )


@pytest.mark.parametrize(
    ("start", "expected"), [("previous", 2.0), ("first", 1.0), ("second", 2.0), ("scratch", 9.0)]
)
def test_a_stage_starts_from_the_last_stage_of_its_network_or_the_one_it_names(
    start, expected, tmp_path, model_folder
):
    context = make_context(model_folder.make_plan(), tmp_path, start)
    for member in (0, 1):
        for name, value in KEPT.items():
            path = tmp_path / "weights" / f"member{member}.{name}.safetensors"
            tensors = {"weight": torch.full((1, 1), value + 10 * (1 - member))}
            weights.save(path, tensors, network="main", stage=name, member=member, epoch=1, plan_hash="x")
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 9.0)
    _load_start(context, network)
    assert network.weight.item() == expected
