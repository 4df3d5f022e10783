"""The script for a machine with a card runs through without one, on little of everything."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """benchmarks/gpu.py."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARKS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    return module


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / "gpu.json").read_text())["rows"]


def test_it_runs_through_on_a_cpu(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "network_names", lambda: ["edd_fcn", "muscle"])
    monkeypatch.setattr(gpu, "planner_names", lambda: ["unet"])
    monkeypatch.setattr(gpu, "STUDIES", [gpu.STUDIES[1]])
    assert gpu.main(["--out", str(tmp_path)]) == 0
    found = rows(tmp_path)
    assert [row["part"] for row in found] == [
        "machine",
        *["network"] * 2,
        "family",
        "speed",
        "predict",
        "nnU-Net",
    ]
    of = {row["part"]: row for row in found}
    assert of["network"]["ok"] and of["network"]["difference"] == 0
    assert of["family"]["ok"] and of["family"]["after_resume"] == 0
    assert of["speed"]["floor_ms"] > 0 and 0 <= of["speed"]["waiting"] < 1
    assert of["predict"]["differing_voxels"] == 0  # on a CPU both are float32
    assert of["predict"]["float32_s"] > of["predict"]["float32_network_ms"] / 1000


def test_an_early_end_leaves_what_is_known_and_an_error_is_a_line(gpu, tmp_path):
    results = gpu.Results(tmp_path / "gpu.json", until=gpu.time.monotonic() + 60)
    results.attempt("speed", "broken", lambda: {"never": 1 / 0})
    results.until = gpu.time.monotonic()
    results.attempt("speed", "late", lambda: {"ok": True})
    broken, late = rows(tmp_path)
    assert broken["ok"] is False and "ZeroDivisionError" in broken["error"]
    assert "left_out" in late and "ok" not in late


def test_missing_wheels_are_named_before_anything_is_done(gpu, capsys, monkeypatch):
    monkeypatch.setitem(gpu.WHEELS, "no_such_module", "no-such-wheel")
    assert gpu.main([]) == 2
    assert capsys.readouterr().out == "first: pip install no-such-wheel\n"


def test_all_wheels_that_it_needs_are_listed(gpu):
    """Those of setup.cfg that are left out draw reports, read DICOM, run tests, or come with the others."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read(BENCHMARKS.parent / "setup.cfg")
    lines = parser["options"]["install_requires"].splitlines()
    wanted = {line.split(">")[0] for line in lines if line and not line.startswith("#")}
    assert set(gpu.WHEELS.values()) <= wanted
    left_out = {"nilearn", "nibabel", "jinja2", "pydicom"}
    assert wanted - set(gpu.WHEELS.values()) - {"torch", "numpy", "scipy"} == left_out
