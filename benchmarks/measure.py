"""Wall time and peak memory of a command with all its processes (Linux).

Memory is the proportional set size (PSS) from /proc, summed over the process tree and sampled every 50 ms, so that
shared pages are counted once; the largest single process is given beside it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One run of a command: seconds, GB over all processes, GB of the largest process."""

    seconds: float
    tree_gb: float
    process_gb: float


def measure(command: Sequence[str], environment: dict[str, str]) -> Measured:
    """Run a command to its end and measure it.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = {"tree": 0.0, "process": 0.0}
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join(timeout=2)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    return Measured(seconds, peak["tree"], peak["process"])


def _watch(process: subprocess.Popen, peak: dict[str, float]) -> None:
    while process.poll() is None:
        sizes = [_pss_gb(pid) for pid in _tree(process.pid)]
        peak["tree"] = max(peak["tree"], sum(sizes))
        peak["process"] = max(peak["process"], max(sizes, default=0.0))
        time.sleep(0.05)


def _tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as handle:
                    parent = int(handle.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            parents.setdefault(parent, []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += parents.get(pid, [])
    return found


def _pss_gb(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as handle:
            for line in handle:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024 / 1e9
    except OSError:
        pass
    return 0.0
