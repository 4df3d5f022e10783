"""Hands the open tasks of a study to Snakemake, which knows Slurm, Kubernetes, other schedulers and clouds.

A Snakefile is written from the same list that :mod:`autoseg.study.executor` works through; its rules run one task each
by :mod:`autoseg.study.one_task`, which keeps the same records. So a study may go on in the other way at any time.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.files import write_text
from autoseg.study.executor import tell_end
from autoseg.study.state import read_task_record, states
from autoseg.study.study_json import Study, Task

SNAKEFILE = "Snakefile"
LEAST_MINUTES = 30
"""That a job asks for; where more is expected, twice as much, and each time that it is submitted again once more."""
AGAIN = 2
"""A job that dies is submitted again so often."""


@dataclass
class SnakemakeExecutor:
    """Snakemake with one of its installed executors.

    Attributes:
        name: such as ``slurm``, or ``local`` for processes on this machine.
        device: that tasks train on: ``cuda`` or ``cpu``.
        jobs: at most at once.
        processes: of a task that trains nothing, and threads of one that does.
        profile: folder of a Snakemake profile; None for none.
        options: further ones of Snakemake, as they are.
    """

    name: str
    device: str
    jobs: int
    processes: int = 4
    profile: Path | None = None
    options: Sequence[str] = field(default_factory=tuple)

    def run(self, study: Study) -> None:
        """Until every task is done, failed or left out.

        Raises:
            AutosegError: Snakemake is not installed, or ended without doing anything.
        """
        found = states(study)
        open_tasks = [task for task in study.tasks if found[task.id] in ("waiting", "running")]
        path = study.folder / SNAKEFILE
        write_text(path, snakefile(study, open_tasks, self.device, self.processes))
        log = study.folder / "snakemake.log"
        messages.info(f"{len(open_tasks)} tasks for Snakemake ({self.name}), which writes to {log}")
        command = [*_snakemake(), "--snakefile", str(path), "--directory", str(study.folder)]
        command += ["--executor", self.name, "--jobs", str(self.jobs), "--keep-going", "--nolock"]
        command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--retries", str(AGAIN)]
        command += ["--latency-wait", "60", "--cores", str(self.jobs * self.processes)]
        command += ["--profile", str(self.profile)] if self.profile else []
        with open(log, "ab") as said:
            done = subprocess.run(
                [*command, *self.options], stdout=said, stderr=subprocess.STDOUT, check=False
            )
        self._conclude(study, open_tasks, done.returncode, log)

    def _conclude(self, study: Study, tasks: Sequence[Task], code: int, log: Path) -> None:
        """What became of the tasks; those that it gave up have failed."""
        begun = False
        for task in tasks:
            record = read_task_record(study.folder, task)
            if record is not None:
                begun = True
                tell_end(study, task, record)
        left = [name for name, state in states(study).items() if state in ("waiting", "running")]
        if left and (code or not begun):
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            raise AutosegError(
                f"Snakemake ended with {code} and left tasks undone: {', '.join(left[:5])}",
                where=str(log),
                found=text[-600:] or "nothing was said",
                fix="correct this (the account and partition of the cluster, say, in the --profile), and run the same "
                "command again: what is done is kept",
            )


def snakefile(study: Study, tasks: Sequence[Task], device: str, processes: int) -> str:
    """A rule for each task; the first asks for all that they leave.

    Args:
        study: whose tasks they are.
        tasks: that are not done.
        device: that they train on.
        processes: threads of a job.
    """
    outputs = [output for task in tasks for output in task.outputs]
    rules = [
        f"# The open tasks of {study.dataset}, written by autoseg_run; it is written again for each phase.",
        f"rule all:\n    input: {json.dumps(outputs)}",
        *(_rule(study, task, device, processes) for task in tasks),
    ]
    return "\n\n\n".join(rules) + "\n"


def _rule(study: Study, task: Task, device: str, processes: int) -> str:
    gpu = task.needs.gpu and device.partition(":")[0] == "cuda"
    minutes = max(LEAST_MINUTES, math.ceil(2 * task.needs.seconds / 60))
    command = [
        sys.executable,
        "-m",
        "autoseg.study.one_task",
        str(study.folder),
        task.id,
        device,
        str(processes),
    ]
    lines = [
        f"rule {_identifier(task.id)}:",
        f"    input: {json.dumps(task.inputs)}",
        f"    output: {json.dumps(task.outputs)}",
        f"    threads: {processes}",
        "    resources:",
        f"        mem_mb={round(1000 * task.needs.memory_gb)},",
        f"        runtime=lambda wildcards, attempt: {minutes} * attempt,",
        *(["        gpu=1,"] if gpu else []),
        f"    shell: {json.dumps(_escaped(shlex.join(command)))}",
    ]
    return "\n".join(lines)


def _identifier(name: str) -> str:
    return "task_" + "".join(c if c.isalnum() else "_" for c in name)


def _escaped(text: str) -> str:
    """Braces are Snakemake's."""
    return text.replace("{", "{{").replace("}", "}}")


def _snakemake() -> list[str]:
    """The command, of this environment or on the PATH.

    Raises:
        AutosegError: it is not installed.
    """
    if importlib.util.find_spec("snakemake") is not None:
        return [sys.executable, "-m", "snakemake"]
    if found := shutil.which("snakemake"):
        return [found]
    raise AutosegError(
        "Snakemake is not installed",
        found="--executor",
        expected="Snakemake 9 beside autoseg, with the plug-in of the executor",
        fix="pip install 'autoseg-lesion[cluster]', or leave --executor out to work on this machine alone",
    )
