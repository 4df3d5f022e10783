"""Hundreds of damaged and hostile files of each kind: taken, or refused in one page; never a traceback, a hang, growth.

The same files in every run. More of them, or others:

    AUTOSEG_FUZZ_COUNT=20000 AUTOSEG_FUZZ_SEED=7 pytest tests/fuzz

tests/fuzz/attack.py says how to get at a single file by its number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")

COUNTS = {
    "dataset.json": 500,
    "plan.json": 200,
    "--set": 300,
    "splits.json": 500,
    "model_card.json": 400,
    "bundle.zip": 300,
    "weights.safetensors": 400,
    "checkpoint.safetensors": 400,
    "header.nii": 400,
    "header.nii.gz": 400,
}
GROWTH_MB = 256  # of the process, over all files of a kind


@pytest.mark.parametrize("kind", COUNTS)
def test_each_file_costs_only_itself(kind):
    count = int(os.environ.get("AUTOSEG_FUZZ_COUNT", COUNTS[kind]))
    seed = os.environ.get("AUTOSEG_FUZZ_SEED", "0")
    command = [sys.executable, str(Path(__file__).with_name("attack.py")), "--seed", seed]
    done = subprocess.run(
        [*command, "--count", str(count), "--", kind],
        capture_output=True,
        text=True,
        timeout=300 + count,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, f"the process died ({done.returncode}): {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert not result["failures"], json.dumps(result["failures"][:5], indent=1)
    assert result["taken"] + result["refused"] == count and result["refused"] > count / 2
    assert result["grown_mb"] < GROWTH_MB
