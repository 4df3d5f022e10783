"""Ctrl-C and SIGTERM: finish the iteration, save, leave."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """The user stopped the training; everything is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Set when the user wants to stop; looked at between two iterations."""

    def __init__(self) -> None:
        self.signal = int(signal.SIGTERM)
        self.requested = False

    def set(self, number: int) -> None:
        """Ask for a stop."""
        self.signal = number
        self.requested = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block Ctrl-C and SIGTERM only set the request; a second Ctrl-C stops at once."""
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
