"""Trainings as a user runs them, for tests: where their files lie, and how to stop one."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import small
import torch

from autoseg.bundle import weights
from autoseg.cli import plan_and_preprocess
from autoseg.training import stage as stage_module


def set_folders(patch, root: Path) -> None:
    """The three roots, through the environment."""
    for kind in ("raw", "preprocessed", "results"):
        patch.setenv(f"autoseg_{kind}", str(root / kind))


def prepare(patch, root: Path) -> Path:
    """Five cases, planned for the general U-Net and preprocessed."""
    small.dataset(root / "raw", n=5, n_test=1)
    set_folders(patch, root)
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]) == 0
    return root


def copied(patch, root: Path, to: Path) -> Path:
    """A copy that the environment points to."""
    shutil.copytree(root, to)
    set_folders(patch, to)
    return to


def torchrun(root: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """A training in two processes on the CPU."""
    script = root / "run.py"
    script.write_text("import sys\nfrom autoseg.cli import train\nsys.exit(train.main(sys.argv[1:]))\n")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        str(script),
    ]
    return subprocess.run(
        [*command, *arguments, "-device", "cpu"], capture_output=True, text=True, timeout=timeout
    )


def fold(root: Path) -> Path:
    """The folder of fold 0."""
    return root / "results" / small.NAME / "unet__unet" / "fold_0"


def final(root: Path) -> dict[str, torch.Tensor]:
    """Its last weights."""
    return weights.read(fold(root) / "weights" / "member0.train.safetensors").tensors


def log(root: Path) -> list[dict]:
    """Its epochs."""
    return [json.loads(line) for line in (fold(root) / "log.jsonl").read_text().splitlines()]


def same(one, two) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def stop_after(monkeypatch, iterations: int) -> None:
    """Ask for a stop after this many iterations, as a signal would."""
    step, done = stage_module._step, []

    def counted(context, running, batch, progress):
        step(context, running, batch, progress)
        done.append(1)
        if len(done) == iterations:
            context.stop.set(signal.SIGTERM)

    monkeypatch.setattr(stage_module, "_step", counted)
