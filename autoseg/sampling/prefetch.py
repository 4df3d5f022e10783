"""Work ahead in a thread, and worker processes that never fail in silence."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from autoseg.errors import AutosegError
from autoseg.parallel import end_with_parent, without_ctrl_c

Item = TypeVar("Item")

POLL_SECONDS = 0.1
NOTICE_SECONDS = 3.0
"""Within this time Python's pool notices the death of a worker by itself, unless it hangs."""


class Prefetcher(Generic[Item]):
    """Iterates in a thread, ``depth`` items ahead of the consumer. An error there is raised here.

    Args:
        items: runs in the thread, and is closed there.
        depth: finished items that may wait.
    """

    def __init__(self, items: Generator[Item, None, None], depth: int = 2) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoseg-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        while True:
            try:
                kind, value = self._queue.get(timeout=POLL_SECONDS)
                break
            except queue.Empty:
                if self._stop.is_set():
                    raise StopIteration from None
                if not self._thread.is_alive() and self._queue.empty():
                    raise AutosegError("the thread that prepares patches ended early") from None
        if kind == "item":
            return value
        self._stop.set()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """End the thread, whatever it is doing, and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:  # any error belongs to the consumer
            self._put("error", error)
        finally:
            self._items.close()

    def _put(self, kind: str, value: Any) -> bool:
        """Hand over, or give up when nobody wants more."""
        while not self._stop.is_set():
            try:
                self._queue.put((kind, value), timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False


class WorkerPool:
    """Spawned worker processes for one function; results come back in the order of the calls.

    Args:
        workers: how many.
        prepare: called once in each; picklable by name.
    """

    def __init__(self, workers: int, prepare: Callable[[], None]) -> None:
        self.workers = workers
        self._in_flight: dict[Future[Any], str] = {}
        self._pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(prepare,)
        )

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers that run."""
        return list(self._pool._processes or {})

    def submit(self, case: str, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call ``function`` in a worker."""
        try:
            with without_ctrl_c():
                future = self._pool.submit(function, *args)
        except BrokenProcessPool as error:
            raise self._died() from error
        self._in_flight[future] = case
        return future

    def result(self, future: Future[Any]) -> Any:
        """What the call returned.

        Raises:
            AutosegError: a worker died; the cases that were being worked on are named.
        """
        try:
            self._wait(future)
            value = future.result()
        except BrokenProcessPool as error:
            raise self._died() from error
        self._in_flight.pop(future, None)
        return value

    def _wait(self, future: Future[Any]) -> None:
        """Until the call has ended, or a worker has and Python's own pool did not notice.

        A worker that is killed while it sends a result leaves half a message, and its lock, behind: the pool would wait
        for the other half for ever.
        """
        silent_since = None
        while not wait([future], timeout=POLL_SECONDS).done:
            if not self._a_worker_is_dead:
                silent_since = None
            elif silent_since is None:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > NOTICE_SECONDS:
                self._break()
                raise self._died()

    @property
    def _a_worker_is_dead(self) -> bool:
        return any(process.exitcode is not None for process in list((self._pool._processes or {}).values()))

    def _break(self) -> None:
        """End all workers, and the pool's thread: with no writer left, it finds the end of the pipe."""
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool._result_queue._writer.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop the workers without waiting for what was not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._in_flight.clear()

    def _died(self) -> AutosegError:
        unfinished = [
            case for future, case in self._in_flight.items() if not future.done() or future.exception()
        ]
        cases = list(dict.fromkeys(unfinished[: self.workers])) or ["unknown"]
        return AutosegError(
            "a worker process died while it was augmenting patches",
            where=f"case {', '.join(cases)}",
            found="a process that ended without an error of its own; most often the system stopped it for memory",
            expected=f"{self.workers} living workers",
            fix="use fewer workers and continue: --c -workers N; 0 works without processes",
        )


def _begin(prepare: Callable[[], None]) -> None:
    """Start of a worker: it does not outlive the parent."""
    end_with_parent()
    prepare()
