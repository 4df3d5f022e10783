"""Plug-ins are found by entry point; a miss is explained."""

from importlib.metadata import EntryPoint

import pytest

from autoseg import plugins
from autoseg.errors import AutosegError
from autoseg.plugins.planner import Planner
from autoseg.plugins.trainer import Trainer


@pytest.mark.parametrize("name", plugins.names(plugins.PLANNERS))
def test_every_planner_loads(name):
    planner = plugins.load(plugins.PLANNERS, name)
    assert isinstance(planner, Planner) and planner.name == name and planner.summary


@pytest.mark.parametrize("name", plugins.names(plugins.TRAINERS))
def test_every_trainer_loads(name):
    trainer = plugins.load(plugins.TRAINERS, name)
    assert isinstance(trainer, Trainer) and trainer.name == name and trainer.summary


def test_an_unknown_plugin_gives_the_nearest_names():
    with pytest.raises(AutosegError, match=r"(?s)there is no planner 'unnet'.*did you mean unet"):
        plugins.load(plugins.PLANNERS, "unnet")
    with pytest.raises(AutosegError, match=r"(?s)there is no trainer 'une'.*did you mean unet"):
        plugins.load(plugins.TRAINERS, "une")


def test_a_package_that_is_broken_in_any_way_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_planner.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("broken", "broken_planner:PLANNER", plugins.PLANNERS)
    monkeypatch.setattr(plugins, "_found", lambda group: {"broken": entry})
    with pytest.raises(AutosegError, match=r"(?s)'broken' does not load.*ZeroDivisionError"):
        plugins.load(plugins.PLANNERS, "broken")
