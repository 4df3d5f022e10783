"""Works through tasks on this machine: one for each device, each a process of its own with its share of the threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.files import hash_json
from autoseg.messages import count_of
from autoseg.parallel import THREAD_LIMITS
from autoseg.study.state import (
    ATTEMPTS,
    State,
    TaskRecord,
    before,
    has_failed,
    left_seconds,
    read_task_record,
    settled,
    states,
    write_task_record,
)
from autoseg.study.study_json import RECORDS, Study, Task

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 120.0
"""What a stopped training has to save itself before it is killed."""
ERROR_CHARACTERS = 1500
RUN = (
    "import sys; from importlib import import_module; "
    "sys.exit(import_module('autoseg.cli.' + sys.argv[1]).main(sys.argv[2:]))"
)
"""What a process runs: a command by the name of its file."""


@dataclass
class Running:
    """A task at work."""

    task: Task
    device: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    record: TaskRecord
    earlier: float


@dataclass
class LocalExecutor:
    """Devices of this machine, such as ``cuda:0 cuda:1`` or twice ``cpu``.

    Attributes:
        devices: one task at a time works on each.
        cores: in all; each device gets an equal part of them as threads.
    """

    devices: list[str]
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    _running: dict[int, Running] = field(default_factory=dict, init=False)

    def run(self, study: Study) -> None:
        """Work until every task is done, failed or left out.

        Raises:
            AutosegError: all devices have vanished.
            KeyboardInterrupt: the user stopped it; what ran has saved itself.
        """
        self._wait_for_others(study)
        with self._stopping(study):
            while not settled(found := states(study, self._alive())):
                for slot in range(len(self.devices)):
                    if slot not in self._running and (task := self._next(study, found)):
                        self._start(study, slot, task)
                        found[task.id] = "running"
                time.sleep(LOOK_SECONDS)
                for slot, one in list(self._running.items()):
                    if one.process.poll() is not None:
                        del self._running[slot]
                        self._end(study, slot, one)

    def run_once(self, study: Study, task: Task) -> None:
        """One attempt at a task whose inputs are there.

        Raises:
            KeyboardInterrupt: it was stopped, and what ran has saved itself.
        """
        with self._stopping(study):
            self._start(study, 0, task)
            self._running[0].process.wait()
            self._end(study, 0, self._running.pop(0))

    def _alive(self) -> list[str]:
        return [one.task.id for one in self._running.values()]

    def _next(self, study: Study, found: Mapping[str, State]) -> Task | None:
        """The first task that waits for nothing."""
        for task in study.tasks:
            if found[task.id] == "waiting" and all(
                found[one.id] == "done" for one in before(task, study.tasks)
            ):
                return task
        return None

    def _wait_for_others(self, study: Study) -> None:
        """Processes of a run that was killed end by themselves, or have nearly ended; two of one would clash."""
        told = False
        while "running" in states(study).values():
            if not told:
                messages.info("waiting for what an earlier autoseg_run has left at work")
            told = True
            time.sleep(1)

    # ------------------------------------------------------------------------------------------------ one task

    def _start(self, study: Study, slot: int, task: Task) -> None:
        device = self.devices[slot]
        before_it = read_task_record(study.folder, task)
        words = filled(task.command, device, self._threads)
        log = open(log_path(study, task), "ab")  # noqa: SIM115 - closed when the process has ended
        process = subprocess.Popen(
            python_of(words),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(THREAD_LIMITS, str(self._threads)),
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        record = TaskRecord(
            made_by=hash_json(task.command),
            attempts=before_it.attempts + 1 if before_it and before_it.code is not None else 1,
            process=process.pid,
            machine=os.uname().nodename,
            device=device if task.needs.gpu else "",
            started=time.time(),
            seconds=before_it.seconds if before_it else 0.0,
        )
        write_task_record(study.folder, task, record)
        self._running[slot] = Running(task, device, process, log, record, record.seconds)

    @property
    def _threads(self) -> int:
        return max(1, self.cores // len(self.devices))

    def _end(self, study: Study, slot: int, one: Running) -> None:
        one.log.close()
        code, seconds = one.process.returncode, one.earlier + time.time() - one.record.started
        error = "" if code == 0 else last_error(log_path(study, one.task))
        vanished = code != 0 and one.task.needs.gpu and is_gone(one.device)
        attempts = one.record.attempts - vanished
        # one that explains nothing may do better the next time
        code = 1 if code == 1 and error.startswith("error:") and not vanished else code
        if code == 1 and not error.startswith("error:"):
            code = 70
        lost = {"code": None if vanished else code, "attempts": attempts}
        record = one.record.model_copy(update={**lost, "seconds": seconds, "error": error})
        write_task_record(study.folder, one.task, record)
        tell_end(study, one.task, record)
        if vanished:
            self._drop(slot)

    def _drop(self, slot: int) -> None:
        device = self.devices.pop(slot)
        self._running = {n - (n > slot): one for n, one in self._running.items()}
        messages.warn(f"{device} has vanished; {count_of(len(self.devices), 'device')} left")
        if not self.devices:
            raise AutosegError(
                "all devices have vanished",
                found=f"{device} cannot be used any more",
                fix="look at the machine (nvidia-smi), then run the same command again: it goes on",
            )

    # ------------------------------------------------------------------------------------------------ the end

    @contextlib.contextmanager
    def _stopping(self, study: Study) -> Iterator[None]:
        """Whatever ends the block, no process is left at work."""
        try:
            yield
        finally:
            for one in self._running.values():
                with contextlib.suppress(OSError):
                    one.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + PATIENCE_SECONDS
            for one in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(max(0.0, until - time.monotonic()))
                if one.process.poll() is None:
                    one.process.kill()
                    one.process.wait()
                one.log.close()
                seconds = one.earlier + time.time() - one.record.started
                write_task_record(
                    study.folder, one.task, one.record.model_copy(update={"seconds": seconds, "machine": ""})
                )
            self._running = {}


def tell_end(study: Study, task: Task, record: TaskRecord) -> None:
    """One line for each task that ended."""
    found = states(study)
    n = sum(state == "done" for state in found.values())
    left = left_seconds(study, found)
    where = f"[{n} of {len(found)}{f', {messages.duration(left)} left' if left else ''}]"
    took = messages.duration(record.seconds)
    if record.code == 0:
        messages.info(f"{where} {task.id}: done in {took}")
    elif has_failed(record):
        messages.info(f"{where} {task.id}: failed after {took}, see {log_path(study, task)}\n{record.error}")
    else:
        messages.info(f"{where} {task.id}: died, attempt {record.attempts} of {ATTEMPTS}; it is tried again")


def filled(command: Sequence[str], device: str, processes: int) -> list[str]:
    """A task's command with what is known when it starts."""
    values = {"{device}": device, "{processes}": str(processes)}
    return [values.get(word, word) for word in command]


def python_of(words: Sequence[str]) -> list[str]:
    """A command as this Python runs it: nobody's PATH decides which autoseg that is."""
    return [sys.executable, "-c", RUN, words[0].removeprefix("autoseg_"), *words[1:]]


def log_path(study: Study, task: Task) -> Path:
    """Where a task's messages go."""
    path = study.folder / RECORDS / f"{task.id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def last_error(path: Path) -> str:
    """The end of what a failed task said: from its last ``error:`` on, or its last lines."""
    text = path.read_text(encoding="utf-8", errors="replace")[-20 * ERROR_CHARACTERS :]
    _, marked, explained = text.rpartition("\nerror: ")
    if marked and "Traceback (most recent call last)" not in explained:
        return f"error: {explained.strip()}"[:ERROR_CHARACTERS]
    return text.strip()[-ERROR_CHARACTERS:]


def is_gone(device: str) -> bool:
    """Whether a device cannot be used any more; asked in a process of its own, as a broken one breaks whoever asks."""
    if device.partition(":")[0] == "cpu":
        return False
    probe = (
        "import sys, torch; from autoseg.device import choose_device; "
        "torch.ones(1, device=choose_device(sys.argv[1])).cpu()"
    )
    return subprocess.run([sys.executable, "-c", probe, device], capture_output=True).returncode != 0


def _end_with_parent() -> None:
    """In the new process: the kernel asks it to end when whoever started it was killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
