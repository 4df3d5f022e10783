"""One function over many cases, in processes of their own."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path
from typing import TypeVar

from autoseg import messages
from autoseg.errors import AutosegError

Task = TypeVar("Task")
Result = TypeVar("Result")

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
ITK_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int,
    *,
    name_of: Callable[[Task], str] = str,
    doing: str = "working",
) -> Iterator[tuple[int, Result]]:
    """Call ``function`` on every task and yield ``(index of the task, result)`` as they finish.

    What was noted (:func:`autoseg.messages.note`), here or in the processes, is told when all are done.
    No more tasks are handed out than there are processes, so memory does not grow with their number, and
    when a process dies, the cases that were at work are known. A progress bar shows on a terminal.

    Args:
        function: of one argument, importable by name (processes are spawned).
        tasks: small things that can be sent to a process.
        processes: 1 calls the function in this process.
        name_of: how a task is called in messages.
        doing: one or two words for the progress bar.

    Raises:
        AutosegError: a process died; and whatever ``function`` raises.
    """
    from tqdm import tqdm

    with tqdm(total=len(tasks), desc=doing, unit="case", disable=None, leave=False) as bar:
        processes = min(processes, len(tasks))
        if processes <= 1:
            pairs: Iterator[tuple[int, Result]] = ((i, function(task)) for i, task in enumerate(tasks))
        else:
            pairs = _in_processes(function, tasks, processes, name_of)
        for pair in pairs:
            bar.update()
            yield pair
    messages.tell_notes()


def _with_notes(function: Callable[[Task], Result], task: Task) -> tuple[Result, list[tuple[str, str]]]:
    """What a worker process does: its notes come back beside the result."""
    return function(task), messages.take_notes()


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int, name_of: Callable[[Task], str]
) -> Iterator[tuple[int, Result]]:
    waiting = iter(enumerate(tasks))
    running: dict[Future[tuple[Result, list[tuple[str, str]]]], int] = {}
    others = active_children()
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            while True:
                # processes start at the first submits and inherit the limits
                with (
                    _one_thread_each(),
                    without_ctrl_c(),
                ):
                    while len(running) < processes and (following := next(waiting, None)):
                        running[pool.submit(_with_notes, function, following[1])] = following[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result, notes = future.result()
                    for about, name in notes:
                        messages.note(about, name)
                    yield running.pop(future), result
        except BrokenProcessPool:
            at_work = [name_of(tasks[i]) for i in sorted(running.values())]
            raise _died(at_work, processes) from None
        except KeyboardInterrupt:  # what is at work would else be waited for
            for process in active_children():
                if process not in others:
                    process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes that start in this block never see Ctrl-C, which is their parent's business."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def memory_gb() -> float:
    """All memory of the machine, in 1e9 bytes, or of the container where that is less; infinite where nobody says."""
    found = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found) / 1e9 if found else math.inf


def end_with_parent() -> None:
    """Start of a worker process: it ends when its parent was killed, instead of waiting for work for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start in this block use one thread each; what the user set stays."""
    added = [name for name in (*THREAD_LIMITS, ITK_THREADS) if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _died(at_work: Sequence[str], processes: int) -> AutosegError:
    return AutosegError(
        "a worker process died",
        where=" or ".join(at_work),
        found="it was stopped from outside, as happens when memory runs out, or it crashed",
        expected=f"{processes} processes that each hold one case",
        fix="use fewer processes (-np); the cases named here were being worked on",
    )
