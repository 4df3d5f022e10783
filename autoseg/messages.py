"""What autoseg tells the user while it works: messages, counted warnings, a log file.

The core never prints. It logs to ``LOGGER``; the commands decide where that goes.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

LOGGER = logging.getLogger("autoseg")
_warnings: Counter[str] = Counter()


def info(message: str) -> None:
    """Tell the user something that needs no action."""
    LOGGER.info(message)


def warn(message: str) -> None:
    """Warn the user, once; every further identical warning is only counted."""
    _warnings[message] += 1
    if _warnings[message] == 1:
        LOGGER.warning("warning: %s", message)


def warning_counts() -> dict[str, int]:
    """How often each warning was given since the start or the last :func:`forget_warnings`."""
    return dict(_warnings)


def warnings_since(counts: dict[str, int]) -> list[str]:
    """The warnings that came after ``counts`` was taken by :func:`warning_counts`, each once."""
    return [text for text, n in warning_counts().items() if n > counts.get(text, 0)]


def forget_warnings() -> None:
    """Start counting warnings from zero."""
    _warnings.clear()


def duration(seconds: float) -> str:
    """A time for reading: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_messages(stream_level: int = logging.INFO) -> None:
    """Send messages to the terminal (stderr). Called by the commands, not by the library."""
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    if not any(getattr(handler, "autoseg_terminal", False) for handler in LOGGER.handlers):
        handler = _TerminalHandler()
        handler.setLevel(stream_level)
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)


class LogFile:
    """A context in which all messages also go, with the time, to a file.

    Args:
        path: the file; it is appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> LogFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._level = LOGGER.level
        LOGGER.setLevel(min(self._level or logging.INFO, logging.INFO))
        LOGGER.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self._handler)
        LOGGER.setLevel(self._level)
        self._handler.close()


class _TerminalHandler(logging.Handler):
    """Writes whole lines to today's stderr without tearing a progress bar."""

    autoseg_terminal = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(self.format(record), file=sys.stderr)
        else:
            sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()
