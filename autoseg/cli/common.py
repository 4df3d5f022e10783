"""What all commands share: options, messages at the end, exit codes.

Exit codes: 0 done; 1 an error that the message explains; 2 wrong arguments; 129, 130 and 143 stopped by
SIGHUP, Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from autoseg import messages, strict_json
from autoseg.errors import AutosegError, near_names

if TYPE_CHECKING:
    from pathlib import Path


def run(
    main: Callable[[argparse.Namespace], int | None],
    arguments: argparse.Namespace,
    *,
    again: str | Callable[[], str] = "",
) -> int:
    """Run a command and turn what happened into messages and an exit code.

    Args:
        main: the command.
        arguments: of it.
        again: how to go on after it was stopped; a function is asked then.
    """
    messages.show_messages()
    messages.forget_warnings()
    heard: list[int] = []
    try:
        with _stop_on_signals(heard):
            code = main(arguments) or 0
            if heard:  # raised where nothing comes out, and not again before the end
                raise KeyboardInterrupt
            return code
    except (Exception, KeyboardInterrupt) as error:
        # some imports turn a signal that comes while they run into an error of their own
        if heard or isinstance(error, KeyboardInterrupt):
            number = heard[0] if heard else int(signal.SIGINT)
            way = again if isinstance(again, str) else again()
            _say(f"\nstopped by {messages.signal_name(number)}{way and '; ' + way}\n")
            return 128 + number
        return _explain(error)
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            _count_warnings()


def _explain(error: BaseException) -> int:
    """Say what went wrong; the exit code. What nobody has thought of is raised."""
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        return 0
    if isinstance(error, OSError):  # of a file that nothing else has explained
        from pathlib import Path

        from autoseg.files import write_error

        error = write_error(Path(error.filename or "the output of the command"), error)
    if not isinstance(error, AutosegError):
        raise error
    print(f"\nerror: {error}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _stop_on_signals(heard: list[int]) -> Iterator[None]:
    """Within the block signals end the command in order, and are put into a list; a second one ends it at once.

    What whoever started the process wants ignored, as nohup does, stays so.
    """
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        heard.append(number)
        _say("\nstopping; Ctrl-C once more leaves at once\n")
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # only the main thread may
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        with _lost_stops_come_again():
            yield
    finally:
        for one, handler in before.items():
            signal.signal(one, signal.SIG_DFL if heard else handler)


@contextlib.contextmanager
def _lost_stops_come_again() -> Iterator[None]:
    """A stop that is raised where the interpreter lets no error out, as in a destructor, is raised once more."""
    before, alarm = sys.unraisablehook, getattr(signal, "SIGALRM", None)
    handler = signal.getsignal(alarm) if alarm is not None else None

    def lost(unraisable: Any) -> None:
        if alarm is None or not isinstance(unraisable.exc_value, KeyboardInterrupt):
            before(unraisable)
            return
        stop = unraisable.exc_value

        def again(*_: object) -> None:
            raise stop

        with contextlib.suppress(ValueError):  # only the main thread may
            signal.signal(alarm, again)
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = lost
    try:
        yield
    finally:
        sys.unraisablehook = before
        if alarm is not None and signal.getsignal(alarm) is not handler:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(alarm, handler)


def _say(text: str) -> None:
    """To the terminal, from within a signal too; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _count_warnings() -> None:
    """Say how many warnings stand above, and which of them came again."""
    counts = messages.warning_counts()
    if counts:
        print(f"\n{messages.count_of(len(counts), 'warning')}, see above", file=sys.stderr)
    for message, count in counts.items():
        if count > 1:
            print(f"  {count} times: {message.splitlines()[0]}", file=sys.stderr)


def parser(summary: str, *, examples: str = "") -> argparse.ArgumentParser:
    """A parser whose help starts with what the command is for and ends with examples; it knows ``--version``."""
    command = _Parser(
        description=summary,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--version", action=_Version, nargs=0, help="print the version of autoseg and leave")
    return command


class _Parser(argparse.ArgumentParser):
    """Answers an option that it does not know with those that may be meant; some have one dash, others two."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and leave."""
        prefix = "unrecognized arguments: "
        words = message.removeprefix(prefix).split() if message.startswith(prefix) else []
        hints = dict.fromkeys(hint for word in words if word.startswith("-") for hint in self._meant(word))
        super().error(f"{message}; did you mean {' or '.join(hints)}?" if hints else message)

    def _meant(self, word: str) -> list[str]:
        """The options that are most like a word."""
        known = {option.lstrip("-"): option for option in self._option_string_actions}
        name = word.partition("=")[0].lstrip("-")
        return [known[one] for one in ([name] if name in known else near_names(name, known))]


class _Version(argparse.Action):
    """Prints the version; it is looked up only when it is asked for, which costs time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and leave."""
        import autoseg

        print(f"autoseg {autoseg.__version__}")
        parser.exit()


def fold(text: str) -> int | str:
    """The fold that was typed: its number, or ``all``.

    Raises:
        AutosegError: it is neither.
    """
    from autoseg.errors import AutosegError

    if text == "all" or (text.isdecimal() and len(text) < 10):
        return text if text == "all" else int(text)
    raise AutosegError(
        f"fold '{text}' is not known", expected="a number from 0, or all", fix="for example: 0"
    )


def add_folders(command: argparse.ArgumentParser, *kinds: str) -> None:
    """Add ``--raw``, ``--preprocessed``, ``--results`` as asked."""
    for kind in kinds:
        command.add_argument(
            f"--{kind}", metavar="FOLDER", help=f"instead of the environment's autoseg_{kind}"
        )


def folder_options(**folders: str | Path | None) -> str:
    """The options that lead a next command to the same folders, to be appended to it; none for the environment's.

    Args:
        folders: by kind, ``raw``, ``preprocessed`` and ``results``; None where no option named one.
    """
    named = [
        f" --{kind} {shlex.quote(str(folder))}"
        for kind, folder in folders.items()
        if folder and not _is_environments(kind, folder)
    ]
    return "".join(named)


def _is_environments(kind: str, folder: str | Path) -> bool:
    """Whether the environment alone leads there."""
    from pathlib import Path

    there = os.environ.get(f"autoseg_{kind}")
    return bool(there) and Path(there or "").expanduser().resolve() == Path(folder).expanduser().resolve()


def add_set(
    command: argparse.ArgumentParser,
    help_text: str = "change a value of the plan, such as epochs=20 (value: JSON or text)",
) -> None:
    """Add ``--set path=value``, which may be repeated."""
    command.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help=help_text,
    )


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """``path=value`` pairs as a dict; values are JSON where they parse as such, text otherwise.

    Raises:
        AutosegError: a pair without ``=``.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise AutosegError(
                f"--set {pair}: there is no value",
                expected="PATH=VALUE, such as epochs=20",
                fix="add =VALUE",
            )
        try:
            overrides[path] = strict_json.parse(text)
        except ValueError:
            overrides[path] = text
    return overrides


def parse_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs of an option as a dict.

    Raises:
        AutosegError: a pair without ``=``, or a name twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value:
            raise AutosegError(
                f"{option} {pair}: there is no value",
                expected="NAME=VALUE",
                fix="name the channel, = and its value",
            )
        if name in found:
            raise AutosegError(
                f"{option} names {name} twice", found=f"{found[name]}, {value}", fix="keep one"
            )
        found[name] = value
    return found


def default_processes() -> int:
    """Worker processes when ``-np`` is not given: the cores that this process may use, at most 8."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, available)
