"""The same list of tasks through Snakemake: its file, its local executor in processes of its own, a real Slurm."""

import importlib.util
import shutil
import sys

import pytest

from autoseg.errors import AutosegError
from autoseg.study import snakemake as module
from autoseg.study.executor import LocalExecutor
from autoseg.study.snakemake import SnakemakeExecutor, snakefile
from autoseg.study.state import read_task_record, states
from autoseg.study.study_json import Folders, Needs, Settings, Study, Task

installed = importlib.util.find_spec("snakemake") is not None or shutil.which("snakemake") is not None
needs_snakemake = pytest.mark.skipif(
    not installed, reason="Snakemake is not installed: autoseg-lesion[cluster]"
)
needs_slurm = pytest.mark.skipif(
    not (installed and shutil.which("sbatch")), reason="Slurm (sbatch) is not installed, or no Snakemake"
)


@pytest.fixture
def study(tmp_path):
    """Two datasets of phantoms, the second after the first, and one that cannot be made."""
    folders = Folders(raw=str(tmp_path / "raw"), preprocessed="pre", results=str(tmp_path / "results"))
    found = Study(autoseg_version="0", dataset="Dataset001_A", folders=folders, settings=Settings())
    first, second = (
        f"{folders.raw}/{name}/dataset.json" for name in ("Dataset911_PhantomRatT2", "Dataset912_PhantomDWI")
    )
    found.tasks = [
        _task("first", ["rat_t2", "-n", "1"], folders.raw, [], first),
        _task("wrong", ["cat", "-n", "1"], folders.raw, [], f"{folders.raw}/none"),
        _task("second", ["dwi", "-n", "1"], folders.raw, [first], second),
        _task(
            "after_wrong", ["t1", "-n", "1"], folders.raw, [f"{folders.raw}/none"], f"{folders.raw}/neither"
        ),
    ]
    found.folder.mkdir(parents=True)
    found.write()
    return found


def _task(name, words, raw, inputs, output):
    command = ["autoseg_make_phantom", *words, "-o", raw, "--scale", "0.125", "-np", "{processes}"]
    needs = Needs(gpu=name == "second", seconds=3000, memory_gb=2)
    return Task(id=name, phase="folds", command=command, inputs=inputs, outputs=[output], needs=needs)


def test_a_rule_for_each_task_and_one_for_all(study):
    text = snakefile(study, study.tasks, "cuda", 4)
    assert text.count("\nrule ") == 5 and "rule task_after_wrong:" in text
    assert text.count("gpu=1") == 1
    assert "runtime=lambda wildcards, attempt: 100 * attempt" in text  # twice 3000 s
    assert f"{sys.executable} -m autoseg.study.one_task {study.folder} first cuda 4" in text
    assert "gpu" not in snakefile(study, study.tasks, "cpu", 4)


def test_without_snakemake_it_says_how_to_have_it(study, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(AutosegError, match=r"(?s)Snakemake is not installed.*autoseg-lesion\[cluster\]"):
        SnakemakeExecutor("slurm", "cpu", jobs=2).run(study)


def end_of(study):
    assert states(study) == {"first": "done", "wrong": "failed", "second": "done", "after_wrong": "left out"}
    assert "there is no kind of phantom" in read_task_record(study.folder, study.tasks[1]).error


@pytest.mark.slow
@needs_snakemake
def test_its_local_executor_does_what_this_machine_does(study):
    SnakemakeExecutor("local", "cpu", jobs=2, processes=1).run(study)
    end_of(study)
    ended = read_task_record(study.folder, study.tasks[0])
    SnakemakeExecutor("local", "cpu", jobs=2, processes=1).run(study)  # nothing is open
    LocalExecutor(["cpu"]).run(study)
    assert read_task_record(study.folder, study.tasks[0]) == ended


@pytest.mark.slow
@needs_slurm
def test_a_real_slurm_does_the_same(study):
    options = ("--slurm-no-account", "--slurm-status-command", "squeue")
    SnakemakeExecutor("slurm", "cpu", jobs=2, processes=1, options=options).run(study)
    end_of(study)
