"""Seconds of a function, and how many operations a second a machine reaches in a product of large matrices."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MATRIX = {"cpu": 1536, "cuda": 8192}
MATRIX_SECONDS = 0.5


def seconds_of(function: Callable[[], object], device: str) -> float:
    """One run, until the device is done with it; on a CPU in seconds of the processor, of all threads together.

    Those depend little on what else the machine does.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    _wait(device)
    started = clock()
    function()
    _wait(device)
    return clock() - started


def matrix_rate(device: str, precision: str) -> float:
    """Floating point operations a second, the best of some products of two square matrices."""
    n, dtype = MATRIX[device], getattr(torch, precision)
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    taken: list[float] = []
    while len(taken) < 4 or sum(taken) < MATRIX_SECONDS:
        taken.append(seconds_of(lambda: a @ b, device))
    return 2 * n**3 / min(taken)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
