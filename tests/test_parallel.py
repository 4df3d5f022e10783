"""Worker processes do not outlive the process that started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="POSIX signals")

SCRIPT = """
import os, sys, time
from autoseg.parallel import each

def work(task):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece, whatever Python is told about buffers
    time.sleep(0.3)

if __name__ == "__main__":
    list(each(work, list(range(1000)), 2))
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    pids = set()
    while len(pids) < 2:
        pids.add(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


COMMAND = """
import sys
from autoseg.cli import common
from script import each, work

def main(arguments):
    list(each(work, list(range(1000)), 2))

if __name__ == "__main__":
    sys.exit(common.run(main, None, again="run the command again"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_with_workers_ends_in_order(number, tmp_path):
    """All its processes get the signal, as of Ctrl-C on a terminal; nobody leaves a traceback."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "command.py").write_text(COMMAND)
    parent = subprocess.Popen(
        [sys.executable, "command.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pids = {int(parent.stdout.readline()) for _ in range(4)}
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"stopped by {name}; run the command again" in said.decode() and b"Traceback" not in said
    assert not any(alive(pid) for pid in pids)
