"""Preprocessing in parts: together they are the whole, and no two write one file."""

import json

import pytest
import runs
import small

from autoseg.cli.plan_and_preprocess import main
from autoseg.dataset.part import CasesPart
from autoseg.dataset.part_lock import exclusive_part

PLAN = ["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]
KEPT = ["-d", "1", "-p", "unet", "--keep_plan", "-np", "1"]


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """The folder of a plan that nothing was preprocessed by."""
    small.dataset(tmp_path / "raw", n=5, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    assert main([*PLAN, "--no_pp"]) == 0
    return tmp_path / "preprocessed" / small.NAME / "unet"


def stored(folder):
    return {path.name: path.read_bytes() for path in (folder / "store").iterdir()}


def test_the_parts_are_the_whole_bit_for_bit(planned, capsys):
    before = (planned / "plan.json").read_bytes()
    assert main([*KEPT, "--part", "2/2"]) == 0
    assert sorted(p.name for p in (planned / "store").glob("*.json")) == ["case_001.json", "case_003.json"]
    capsys.readouterr()
    assert main([*KEPT, "--part", "1/2"]) == 0
    said = capsys.readouterr().out
    assert "3 cases preprocessed" in said and "no longer in the raw data" not in said
    assert main([*KEPT, "--part", "1/2"]) == 0  # goes on from what is there
    assert "0 cases preprocessed in" in (said := capsys.readouterr().out) and "3 were up to date" in said
    assert (planned / "plan.json").read_bytes() == before
    parts = stored(planned)
    for path in (planned / "store").iterdir():
        path.unlink()
    assert main(KEPT) == 0
    assert stored(planned) == parts and len(parts) == 4 * 5


def test_who_would_write_the_same_cases_is_refused(planned, capsys):
    with exclusive_part(planned, CasesPart(1, 2), doing="preparing"):
        for words in ([], ["--part", "1/2"], ["--part", "3/3"]):
            assert main([*KEPT, *words]) == 1
            assert "another process is preparing" in capsys.readouterr().err
        assert not (planned / "store").exists()
        assert main([*KEPT, "--part", "2/2"]) == 0
    assert len(list((planned / "store").glob("*.json"))) == 2


def test_a_part_needs_the_plan_that_is_there(planned, capsys):
    for words in ([*PLAN, "--part", "1/2"], [*KEPT, "--no_pp", "--part", "1/2"]):
        assert main(words) == 1
        assert "of the preprocessing by a plan that is there" in capsys.readouterr().err
    assert main([*KEPT, "--part", "1/2", "--set", "preprocessing.spacing_mm=[3,3,3]"]) == 1
    assert "parts are preprocessed by the plan that is there" in capsys.readouterr().err
    assert json.loads((planned / "plan.json").read_text())["preprocessing"]["spacing_mm"] != [3, 3, 3]
