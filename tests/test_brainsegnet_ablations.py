"""The tables of the paper by the commands: Brain SegNet, its ablations and another network, trained small, compared."""

import csv
from pathlib import Path

import pytest
import runs

from autoseg.cli import compare, make_phantom, plan_and_preprocess, train

DATASET = "Dataset912_PhantomPerfusion"
TINY = [
    "planner.length=quick", "planner.width=2", "planner.refine_width=4", "epochs=1", "iterations_per_epoch=2",
    "batch_size=2", "validation.cases=0", "inference.patch_size=[]",
]  # fmt: skip
ROWS = {
    "full": [],
    "no_focal": ["focal=off"],
    "at_once": ["curriculum=off"],
    "baseline": ["baseline=on"],
    "voxresnet": ["networks.main.name=voxresnet", "networks.main.arguments={}"],
}
"""Name of the plan and model to what is set for it, as docs/families/brainsegnet.md has it."""


@pytest.mark.slow
def test_one_table_of_the_ablations(tmp_path: Path, monkeypatch, capsys):
    runs.set_folders(monkeypatch, tmp_path)
    phantoms = ["-n", "4", "--scale", "0.125", "-id", "912", "-np", "1", "-o", str(tmp_path / "raw")]
    assert make_phantom.main(["perfusion", *phantoms]) == 0
    for name, settings in ROWS.items():
        plan = ["-d", "912", "-pl", "brainsegnet", "-p", name, "-np", "1", "--set", *TINY, *settings]
        assert plan_and_preprocess.main(plan) == 0
        assert train.main(["912", "0", "-p", name, "-device", "cpu"]) == 0
    results = tmp_path / "results" / DATASET
    folders = [str(results / f"brainsegnet__{name}" / "fold_0" / "validation") for name in ROWS]
    table = [
        "-g",
        str(tmp_path / "raw" / DATASET / "labelsTr"),
        "--preset",
        "brainsegnet",
        "-o",
        str(tmp_path / "table"),
    ]
    assert compare.main([*folders, "--names", *ROWS, *table]) == 0
    with (tmp_path / "table" / "comparison_cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(ROWS)
    assert {row["metric"] for row in rows} >= {"dice", "ppv", "tpr"}
    text = capsys.readouterr().out
    assert all(f" {name} " in text[text.index("place") :] for name in ROWS)


@pytest.mark.slow
def test_the_stages_are_logged_and_drawn(tmp_path: Path, monkeypatch):
    """Where one begins stands in the log, with its length, and a line in curves.png (tests/training/test_curves.py)."""
    runs.set_folders(monkeypatch, tmp_path)
    phantoms = ["-n", "4", "--scale", "0.125", "-id", "912", "-np", "1", "-o", str(tmp_path / "raw")]
    assert make_phantom.main(["perfusion", *phantoms]) == 0
    plan = ["-d", "912", "-pl", "brainsegnet", "-np", "1", "--set", *TINY]
    assert plan_and_preprocess.main(plan) == 0 and train.main(["912", "0", "-device", "cpu"]) == 0
    fold = tmp_path / "results" / DATASET / "brainsegnet__brainsegnet" / "fold_0"
    log = (fold / "train.log").read_text()
    places = [log.index(f"stage {name}: 1 epoch of 2 iterations") for name in ("plain", "half", "focal")]
    assert places == sorted(places) and (fold / "curves.png").stat().st_size > 10_000
