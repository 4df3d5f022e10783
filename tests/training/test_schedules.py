"""Schedules at known points, and how they reach the optimiser."""

import pytest
import torch

from autoseg.training import optimisers, schedules


def test_poly_is_stepped_per_epoch():
    poly = schedules.build("poly", epochs=1000)
    assert poly(0)["lr_factor"] == 1
    assert poly(500.7)["lr_factor"] == pytest.approx(0.5**0.9)
    assert poly(1000)["lr_factor"] == 0


def test_cosine_restarts():
    cosine = schedules.build("cosine", epochs=150, cycle_epochs=50)
    assert cosine(25)["lr_factor"] == pytest.approx(0.5)
    assert cosine(50)["lr_factor"] == 1
    assert cosine(49.999)["lr_factor"] < 1e-6


def test_settings_reach_the_optimiser():
    optimiser = optimisers.build("sgd", [torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    for progress in (0.0, 1.0):
        schedules.apply(lambda p: {"lr_factor": 1 - p / 2, "momentum": 0.9}, progress, optimiser)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimiser.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("name", schedules.REGISTRY.names())
def test_every_schedule_stays_within_its_range(name):
    schedule = schedules.build(name, epochs=7)
    assert all(0 <= schedule(e / 10)["lr_factor"] <= 1 for e in range(70))


@pytest.mark.parametrize("name", optimisers.REGISTRY.names())
def test_every_optimiser_goes_downhill(name):
    x = torch.nn.Parameter(torch.tensor([3.0]))
    optimiser = optimisers.build(name, [x], lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        (x**2).sum().backward()
        optimiser.step()
    assert abs(x.item()) < 2.5
