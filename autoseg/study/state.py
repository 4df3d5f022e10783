"""Which tasks are done, running, waiting or failed: read from what lies on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from autoseg.errors import AutosegError
from autoseg.files import ExactModel, hash_json, read_model, write_json
from autoseg.study.study_json import RECORDS, Study, Task

State = Literal["done", "running", "waiting", "failed", "left out"]
ATTEMPTS = 3
"""A task that dies, by a signal or without an explanation, is started so often; one that explains itself, once."""


class TaskRecord(ExactModel):
    """``tasks/ID.json``: the last attempt at a task.

    Attributes:
        made_by: hash of the command; another command is another task.
        attempts: so far, this one included.
        process: that runs it, on the machine of that name.
        started: seconds since 1970.
        seconds: that all attempts took together; up to the last one while it runs.
        code: exit code; None while it runs or where it was cut off.
        error: the end of what a failed one said.
    """

    made_by: str
    attempts: int = 1
    process: int = 0
    machine: str = ""
    device: str = ""
    started: float = 0.0
    seconds: float = 0.0
    code: int | None = None
    error: str = ""


def record_path(folder: Path, task: Task) -> Path:
    """Where the record of a task lies."""
    return folder / RECORDS / f"{task.id}.json"


def read_task_record(folder: Path, task: Task) -> TaskRecord | None:
    """The record of a task; None where it never began, or began with another command, or is damaged."""
    path = record_path(folder, task)
    if not path.exists():
        return None
    try:
        record = read_model(path, TaskRecord)
    except AutosegError:  # a disk that was full: the command finds what is done
        return None
    return record if record.made_by == hash_json(task.command) else None


def write_task_record(folder: Path, task: Task, record: TaskRecord) -> None:
    """Write it."""
    write_json(record_path(folder, task), record)


def is_done(task: Task, record: TaskRecord | None) -> bool:
    """Whether its command ended well and what it leaves is there."""
    return record is not None and record.code == 0 and all(Path(output).exists() for output in task.outputs)


def has_failed(record: TaskRecord | None) -> bool:
    """Whether it is not tried again."""
    if record is None or record.code in (None, 0):
        return False
    return record.code == 1 or record.attempts >= ATTEMPTS


def states(study: Study, alive: Iterable[str] = ()) -> dict[str, State]:
    """Id of each task to its state.

    Args:
        study: with its tasks.
        alive: tasks that this process runs; others run where their process is alive on this machine.
    """
    records = {task.id: read_task_record(study.folder, task) for task in study.tasks}
    found: dict[str, State] = {}
    for task in study.tasks:
        record = records[task.id]
        if is_done(task, record):
            found[task.id] = "done"
        elif task.id in set(alive) or runs(record):
            found[task.id] = "running"
        elif has_failed(record):
            found[task.id] = "failed"
        else:
            lost = any(found[one.id] in ("failed", "left out") for one in before(task, study.tasks))
            found[task.id] = "left out" if lost else "waiting"
    return found


def before(task: Task, tasks: Iterable[Task]) -> list[Task]:
    """The tasks that leave what a task reads."""
    wanted = set(task.inputs)
    return [one for one in tasks if wanted & set(one.outputs)]


def runs(record: TaskRecord | None) -> bool:
    """Whether the process of an attempt that never ended is alive on this machine."""
    if record is None or record.code is not None or record.machine != os.uname().nodename:
        return False
    try:
        words = Path(f"/proc/{record.process}/cmdline").read_bytes()
    except OSError:
        return False
    return b"autoseg" in words


def settled(found: Mapping[str, State]) -> bool:
    """Whether nothing is left to do."""
    return all(state in ("done", "failed", "left out") for state in found.values())


def spent_seconds(study: Study) -> float:
    """Wall time that the tasks took so far, side by side."""
    records = (read_task_record(study.folder, task) for task in study.tasks)
    return sum(record.seconds for record in records if record is not None) / study.devices


def left_seconds(study: Study, found: Mapping[str, State]) -> float:
    """Wall time that the known tasks will take, by what is expected of each."""
    open_tasks = [task for task in study.tasks if found[task.id] in ("running", "waiting")]
    return sum(task.needs.seconds for task in open_tasks) / study.devices
