"""Schedules and optimisers by value, and how the one reaches the other."""

import math

import pytest
import sweep
import torch

from autoseg.training import optimisers, schedules


def test_poly_is_stepped_per_epoch():
    poly = schedules.REGISTRY.build("poly", epochs=1000)
    assert poly(0)["lr_factor"] == 1
    assert poly(500.7)["lr_factor"] == pytest.approx(0.5**0.9)
    assert poly(1000)["lr_factor"] == 0


def test_cosine_restarts():
    cosine = schedules.REGISTRY.build("cosine", epochs=150, cycle_epochs=50)
    assert cosine(25)["lr_factor"] == pytest.approx(0.5)
    assert cosine(50)["lr_factor"] == 1
    assert cosine(49.999)["lr_factor"] < 1e-6


def test_settings_reach_the_optimiser():
    optimiser = optimisers.REGISTRY.build("sgd", [torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    for progress in (0.0, 1.0):
        schedules.apply(lambda p: {"lr_factor": 1 - p / 2, "momentum": 0.9}, progress, optimiser)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimiser.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("name", schedules.REGISTRY.names())
def test_every_schedule_stays_within_its_range(name):
    schedule = schedules.REGISTRY.build(name, epochs=7)
    assert all(0 <= schedule(e / 10)["lr_factor"] <= 1 for e in range(70))


@pytest.mark.parametrize("name", optimisers.REGISTRY.names())
def test_every_optimiser_goes_downhill(name):
    x = torch.nn.Parameter(torch.tensor([3.0]))
    optimiser = optimisers.REGISTRY.build(name, [x], lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        (x**2).sum().backward()
        optimiser.step()
    assert abs(x.item()) < 2.5


QUARTER = 0.5 + math.sqrt(0.5) / 2  # (1 + cos 45 degrees) / 2
# For each schedule, for 4 epochs: arguments, and the factor of the learning rate at some points of the training.
SCHEDULES = {
    "constant": [({}, {0: 1, 1.7: 1, 4: 1})],
    "poly": [
        ({"exponent": 2}, {0: 1, 0.9: 1, 1: 9 / 16, 1.9: 9 / 16, 2: 1 / 4, 3: 1 / 16, 4: 0}),
        ({"exponent": 1}, {0: 1, 1: 3 / 4, 3: 1 / 4, 4: 0}),
        ({}, {2: 0.5**0.9}),
    ],
    "exponential": [  # the first two epochs are alike, the end comes after the last one
        ({"end_factor": 1 / 8}, {0: 1, 1.9: 1, 2: 1 / 2, 3: 1 / 4, 4: 1 / 8}),
        ({"end_factor": 1 / 16, "constant_epochs": 0}, {0: 1, 1: 1 / 2, 3.5: 1 / 8}),
    ],
    "cosine": [
        ({}, {0: 1, 1: QUARTER, 2: 0.5, 3: 1 - QUARTER}),
        ({"cycle_epochs": 2}, {0: 1, 0.5: QUARTER, 1: 0.5, 1.5: 1 - QUARTER, 2: 1, 2.5: QUARTER, 3: 0.5}),
    ],
}
# For each optimiser, with learning rate 0.1 and x = 2 at first: arguments, two gradients, x after each.
OPTIMISERS = {
    "sgd": [
        ({}, (1, 3), (1.9, 1.6)),
        ({"momentum": 0.5}, (1, 3), (1.9, 1.55)),  # velocity 1, then 0.5 + 3
        ({"momentum": 0.5, "nesterov": True}, (1, 3), (1.85, 1.375)),  # 1 + 0.5, then 3 + 0.5 * 3.5
        ({"weight_decay": 0.5}, (1, 3), (1.8, 1.41)),  # 1 + 0.5 * 2, then 3 + 0.5 * 1.8
    ],
    "adam": [
        ({}, (5, 5), (1.9, 1.8)),  # the size of the gradient does not matter
        # m = 7/4, by 1 - 0.5^2: 7/3; v = 39/16, by 1 - 0.75^2: 39/7
        ({"betas": [0.5, 0.75]}, (1, 3), (1.9, 1.9 - 0.1 * (7 / 3) / math.sqrt(39 / 7))),
        ({"eps": 1.0}, (1, 1), (1.95, 1.9)),  # 1 / (1 + eps)
        ({"weight_decay": 1.0}, (-1,), (1.9,)),  # the gradient becomes -1 + 2
    ],
    "rmsprop_nesterov": [
        # without memory and momentum the step is that of the sign; by (1 - m) (1 + m) in the first step
        ({"rho": 0.0, "eps": 0.0, "momentum": 0.0}, (5, -3), (1.9, 2.0)),
        ({"rho": 0.0, "eps": 0.0, "momentum": 0.5}, (5, 5), (1.925, 1.8375)),  # v -0.05, then -0.075
        ({"rho": 0.0, "eps": 12.0, "momentum": 0.0}, (2,), (1.95,)),  # 2 / sqrt(4 + 12)
        ({"rho": 0.75, "eps": 0.0, "momentum": 0.0}, (4,), (1.8,)),  # 4 / sqrt(16 / 4)
    ],
    "adamw": [
        ({}, (5, 5), (1.898, 1.898 * 0.999 - 0.1)),  # first x shrinks by lr * 0.01
        (
            {"betas": [0.5, 0.75], "weight_decay": 0.0},
            (1, 3),
            (1.9, 1.9 - 0.1 * (7 / 3) / math.sqrt(39 / 7)),
        ),
        ({"eps": 1.0, "weight_decay": 0.0}, (1, 1), (1.95, 1.9)),
        ({"weight_decay": 0.5}, (-1, -1), (2.0, 2.0)),  # 2 * 0.95 + 0.1: the gradient stays -1
    ],
}
WHERE = "of tests/training/test_schedules.py"


@pytest.mark.parametrize("name", schedules.REGISTRY.names())
def test_every_schedule_by_hand(name):
    for arguments, factors in sweep.hand_worked(SCHEDULES, name, f"SCHEDULES {WHERE}"):
        schedule = schedules.REGISTRY.build(name, epochs=4, **arguments)
        found = {progress: schedule(progress)["lr_factor"] for progress in factors}
        assert found == pytest.approx(factors, abs=1e-12), arguments


@pytest.mark.parametrize("name", optimisers.REGISTRY.names())
def test_every_optimiser_by_hand(name):
    for arguments, gradients, expected in sweep.hand_worked(OPTIMISERS, name, f"OPTIMISERS {WHERE}"):
        x = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimiser = optimisers.REGISTRY.build(name, [x], lr=0.1, **arguments)
        for gradient, after in zip(gradients, expected, strict=True):
            x.grad = torch.full_like(x, gradient)
            optimiser.step()
            assert x.item() == pytest.approx(after, abs=1e-7), arguments


def test_no_case_is_left_over():
    sweep.refuse_leftovers(SCHEDULES, schedules.REGISTRY.names(), "SCHEDULES")
    sweep.refuse_leftovers(OPTIMISERS, optimisers.REGISTRY.names(), "OPTIMISERS")
