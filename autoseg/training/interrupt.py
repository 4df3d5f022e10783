"""Ctrl-C, SIGTERM and hang-ups: say so, finish the iteration, save, leave."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from autoseg import messages

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The user stopped the training; everything is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(messages.signal_name(number))
        self.number = number


class StopRequest:
    """Set when the user wants to stop; looked at between two iterations.

    Attributes:
        requested: whether the user does.
        signal: the one that said so.
        at_once: a further signal raises :class:`Interrupted` wherever the program is.
    """

    def __init__(self) -> None:
        self.signal = int(signal.SIGTERM)
        self.requested = False
        self.at_once = False

    def set(self, number: int) -> None:
        """Ask for a stop."""
        self.signal = number
        self.requested = True

    def check(self) -> None:
        """Raise :class:`Interrupted` when a stop was asked for."""
        if self.requested:
            raise Interrupted(self.signal)

    def from_now_on_at_once(self) -> None:
        """From here on nothing is left to save: stop now if that was asked for, and at once when it is."""
        self.at_once = True
        self.check()

    def comes_within(self, seconds: float) -> bool:
        """Whether a stop is asked for, now or within this time."""
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.requested


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block Ctrl-C, SIGTERM and SIGHUP set the request; a second Ctrl-C stops at once, without saving.

    Signals that whoever started the process wants ignored, as nohup does, stay so.
    """
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        first = not stop.requested
        stop.set(number)
        if stop.at_once:
            raise Interrupted(number)
        if first:
            messages.info(
                "stopping: finishing the step, then saving (Ctrl-C once more leaves without saving)"
            )

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    except Exception as error:
        # some imports turn what the handler raises into an error of their own
        if stop.requested and stop.at_once:
            raise Interrupted(stop.signal) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
