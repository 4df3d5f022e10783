"""How commands end that are stopped or that the system refuses something: a line, an exit code, never a traceback."""

import errno
import os
import signal
import sys
import time

import pytest

from autoseg import messages
from autoseg.cli import common


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_in_order(name, capfd):
    number = getattr(signal, name)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert common.run(lambda _: signal.raise_signal(number), None, again="run it again") == 128 + number
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # a second one ends it without a word
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    said = capfd.readouterr().err
    assert said.startswith("\nstopping; Ctrl-C once more leaves at once\n")
    assert f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}; run it again" in said


def test_a_signal_within_a_destructor_is_not_lost(capfd):
    """Where the interpreter lets no error out: the stop comes again, also in the import machinery."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hook = sys.unraisablehook

    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(_):
        Dying()
        time.sleep(20)

    try:
        assert common.run(work, None) == 130
        assert sys.unraisablehook is hook
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert "stopped by Ctrl-C" in capfd.readouterr().err


def test_signals_that_are_to_be_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        assert common.run(lambda _: signal.raise_signal(signal.SIGHUP), None) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_command_changed_for_signals_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    assert common.run(lambda _: 0, None) == 0
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_an_error_of_the_system_that_nothing_else_explains_is_a_message(number, capfd):
    def refused(_):
        raise OSError(number, os.strerror(number), "some/file.json")

    assert common.run(refused, None) == 1
    said = capfd.readouterr().err
    assert "error: some/file.json: " in said and os.strerror(number) in said and "Traceback" not in said


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch):
    """As after a hang-up: a training goes on to save."""

    class Gone:
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

        flush = write

    messages.show_messages()
    monkeypatch.setattr(sys, "stderr", Gone())
    messages.info("saved")


def test_a_log_that_cannot_be_kept_is_a_warning(tmp_path):
    messages.forget_warnings()
    (tmp_path / "train.log").mkdir()
    with messages.LogFile(tmp_path / "train.log"):
        messages.info("on we go")
    assert any("messages are not kept" in text for text in messages.warning_counts())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_ends_the_log_and_not_the_work(tmp_path, capfd):
    messages.forget_warnings()
    (tmp_path / "train.log").symlink_to("/dev/full")
    with messages.LogFile(tmp_path / "train.log"):
        messages.info("on we go")
        messages.info("and on")
    assert any("messages are no longer kept" in text for text in messages.warning_counts())
    assert "Traceback" not in capfd.readouterr().err


def test_a_signal_within_an_import_is_a_stop_too(capfd):
    """Some modules written in C answer it with an ImportError."""
    before = signal.getsignal(signal.SIGTERM)

    def interrupted(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    try:
        assert common.run(interrupted, None) == 128 + signal.SIGTERM
    finally:
        for one in (signal.SIGINT, signal.SIGHUP):
            signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
        signal.signal(signal.SIGTERM, before)
    assert "stopped by SIGTERM" in capfd.readouterr().err


def test_an_error_that_nobody_has_thought_of_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        common.run(lambda _: 1 // 0, None)
