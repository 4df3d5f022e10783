"""What autoseg tells the user while it works: messages, counted warnings, a log file.

The core never prints. It logs to ``LOGGER``; the commands decide where that goes.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("autoseg")
SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_LOOKS = 120.0, 0.2
"""Of a :class:`Ticker`: between two lines of a log, between two changes of the line on a terminal."""
_warnings: Counter[str] = Counter()
_notes: dict[str, dict[str, bool]] = {}
"""By what is noted, the files or cases in order, and whether the user was told."""


def info(message: str) -> None:
    """Tell the user something that needs no action."""
    LOGGER.info(message)


def signal_name(number: int) -> str:
    """What a user calls a signal: Ctrl-C, SIGTERM, SIGHUP."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def warn(message: str) -> None:
    """Warn the user, once; every further identical warning is only counted."""
    _warnings[message] += 1
    if _warnings[message] == 1:
        LOGGER.warning("warning: %s", message)


def note(about: str, name: str) -> None:
    """Remember something odd about a file or case; :func:`tell_notes` gives one warning for all that share it."""
    _notes.setdefault(about, {}).setdefault(name, False)


def tell_notes() -> None:
    """Warn of what was noted since the last time: one warning for each thing, with the names."""
    for about in list(_notes):
        _tell_note(about)


def note_first(about: str, name: str) -> None:
    """As :func:`note`, but the first name is told at once: the user may want to stop a work that goes on for long."""
    is_first = about not in _notes
    note(about, name)
    if is_first:
        _tell_note(about)


def _tell_note(about: str) -> None:
    names = _notes[about]
    new = [name for name, told in names.items() if not told]
    if new:
        warn(f"{about}: {some_of(new)}")
    names.update(dict.fromkeys(new, True))


def take_notes() -> list[tuple[str, str]]:
    """Hand over what was noted and not told, as pairs for :func:`note`: from a worker process to the main one."""
    pairs = [(about, name) for about, names in _notes.items() for name, told in names.items() if not told]
    _notes.clear()
    return pairs


def warning_counts() -> dict[str, int]:
    """How often each warning was given since the start or the last :func:`forget_warnings`."""
    return dict(_warnings)


def warnings_since(counts: dict[str, int]) -> list[str]:
    """The warnings that came after ``counts`` was taken by :func:`warning_counts`, each once."""
    return [text for text, n in warning_counts().items() if n > counts.get(text, 0)]


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Within the block nothing is said and no warning counts: for work on trial, that the user did not ask for."""
    warnings, notes = Counter(_warnings), {about: dict(names) for about, names in _notes.items()}
    before, LOGGER.disabled = LOGGER.disabled, True
    try:
        yield
    finally:
        LOGGER.disabled = before
        forget_warnings()
        _warnings.update(warnings)
        _notes.update(notes)


def forget_warnings() -> None:
    """Start counting warnings from zero."""
    _warnings.clear()
    _notes.clear()


def count_of(n: int, one: str, many: str = "") -> str:
    """``1 case``, ``2 cases``; ``1 entry does not fit``, ``2 entries do not fit``.

    Args:
        n: how many.
        one: what is said of one.
        many: what is said of another number; ``one`` with an s at its end if not given.
    """
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


def some_of(names: Sequence[str], limit: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def millilitres(volume: float) -> str:
    """A volume in ml for reading: ``1470 ml``, ``0.0213 ml``; three digits or all before the point, no exponent."""
    return f"{volume:.0f} ml" if volume >= 999.5 else f"{Decimal(f'{volume:.3g}'):f} ml"


def file_size(n_bytes: int) -> str:
    """A size for reading: ``0 KB`` for an empty file, ``38 KB``, ``2.9 MB``; 1 MB is a million bytes."""
    n_kb = -(-n_bytes // 1000)
    return f"{n_kb} KB" if n_kb < 1000 else f"{n_bytes / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """A time for reading: ``40 s``, ``12 min``, ``3.5 h``, ``17 days``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


class Ticker:
    """Says where a long work stands: in one changing line on a terminal, as a line every few minutes elsewhere.

    A log file gets the lines in both cases.

    Args:
        clock: seconds.
        terminal: whether a person looks on; None asks stderr.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, terminal: bool | None = None) -> None:
        self._clock, self._said = clock, clock()
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._line: Any = None
        self._shown = float("-inf")

    @property
    def due(self) -> bool:
        """Whether :meth:`tell` would say anything now; for texts that take time to put together."""
        return self._look_is_due or self._line_is_due

    @property
    def _look_is_due(self) -> bool:
        return self._terminal and self._clock() - self._shown >= SECONDS_BETWEEN_LOOKS

    @property
    def _line_is_due(self) -> bool:
        return self._clock() - self._said >= SECONDS_BETWEEN_LINES

    def tell(self, text: str, short: str = "") -> None:
        """The work stands at ``text``; call it as often as you like. ``short`` is for a narrow terminal."""
        if self._look_is_due:
            fits = len(text) < shutil.get_terminal_size().columns
            self._show(text if fits or not short else short)
            self._shown = self._clock()
        if self._line_is_due:
            self._said = self._clock()
            LOGGER.log(logging.DEBUG if self._terminal else logging.INFO, text)

    def said(self) -> None:
        """Something else has just said as much: the next line may wait."""
        self._said = self._clock()

    def close(self) -> None:
        """Take the changing line away."""
        if self._line is not None:
            self._line.close()
        self._line = None

    def _show(self, text: str) -> None:
        if self._line is None:
            from tqdm import tqdm

            self._line = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, file=sys.stderr)
        self._line.set_description_str(text)


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
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handler: logging.Handler = _LogFileHandler(
                self.path, encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:  # it is a convenience
            self._handler = logging.NullHandler()
            warn(f"{self.path}: messages are not kept: {error.strerror}")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._level = LOGGER.level
        LOGGER.setLevel(min(self._level or logging.INFO, logging.INFO))
        LOGGER.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self._handler)
        LOGGER.setLevel(self._level)
        with contextlib.suppress(OSError):  # on a full disk
            self._handler.close()


class _LogFileHandler(logging.FileHandler):
    """A full disk ends the log, not the work, and without a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Of writing one record."""
        LOGGER.removeHandler(self)
        warn(f"{self.baseFilename}: messages are no longer kept: {sys.exc_info()[1]}")


class _TerminalHandler(logging.Handler):
    """Writes whole lines to today's stderr without tearing a progress bar; a terminal that is gone is no error."""

    autoseg_terminal = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        # RuntimeError: a signal came while a line was written
        with contextlib.suppress(OSError, RuntimeError):
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(self.format(record), file=sys.stderr)
            else:
                sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
