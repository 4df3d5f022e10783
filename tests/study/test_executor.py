"""The list of tasks and whoever works through it: states, order, attempts, what was killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoseg.errors import AutosegError
from autoseg.files import hash_json
from autoseg.study import executor as module
from autoseg.study.executor import LocalExecutor, filled
from autoseg.study.state import TaskRecord, read_task_record, spent_seconds, states, write_task_record
from autoseg.study.study_json import Folders, Needs, Settings, Study, Task, read_study

NOTE = "import sys, pathlib, time; name = sys.argv[1]; log = pathlib.Path(sys.argv[2]); "
DO = NOTE + "log.open('a').write(name + '\\n'); pathlib.Path(sys.argv[3]).write_text(name)"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """With tasks that are Python scripts."""
    monkeypatch.setattr(module, "python_of", lambda words: [sys.executable, "-c", *words])
    folders = Folders(raw="raw", preprocessed="pre", results=str(tmp_path))
    found = Study(autoseg_version="0", dataset="Dataset001_A", folders=folders, settings=Settings())
    found.folder.mkdir(parents=True)
    return found


def task(study, name, after=(), script=DO, gpu=False):
    """A task that leaves a file of its name, after those that it needs."""
    out = study.folder / f"{name}.out"
    return Task(
        id=name,
        phase="folds",
        command=[script, name, str(study.folder / "log"), str(out)],
        inputs=[str(study.folder / f"{one}.out") for one in after],
        outputs=[str(out)],
        needs=Needs(gpu=gpu, seconds=10),
    )


def done(study):
    path = study.folder / "log"
    return path.read_text().split() if path.exists() else []


def test_tasks_wait_for_what_they_read(study):
    slow = DO.replace("log.open", "time.sleep(0.3); log.open")
    study.tasks = [task(study, "a", script=slow), task(study, "b", ["a"]), task(study, "c", ["a", "b"])]
    LocalExecutor(["cpu", "cpu"]).run(study)  # the second device has nothing to do
    assert done(study) == ["a", "b", "c"]
    assert set(states(study).values()) == {"done"}
    LocalExecutor(["cpu"]).run(study)
    assert done(study) == ["a", "b", "c"]  # nothing twice


def test_another_command_or_a_lost_file_is_another_task(study):
    study.tasks = [task(study, "a")]
    LocalExecutor(["cpu"]).run(study)
    study.tasks[0].command.append("more")
    assert states(study) == {"a": "waiting"}
    study.tasks[0].command.pop()
    (study.folder / "a.out").unlink()
    assert states(study) == {"a": "waiting"}


def test_one_that_explains_itself_fails_at_once_and_only_what_needs_it_is_left_out(study):
    error = NOTE + "print('\\nerror: a: no such thing'); sys.exit(1)"
    study.tasks = [task(study, "a", script=error), task(study, "b", ["a"]), task(study, "c")]
    LocalExecutor(["cpu"]).run(study)
    assert states(study) == {"a": "failed", "b": "left out", "c": "done"}
    record = read_task_record(study.folder, study.tasks[0])
    assert (record.attempts, record.error) == (1, "error: a: no such thing")


def test_one_that_dies_is_tried_three_times(study):
    dies = NOTE + "log.open('a').write('x\\n'); import os; os.kill(os.getpid(), 9)"
    study.tasks = [task(study, "a", script=dies)]
    LocalExecutor(["cpu"]).run(study)
    assert done(study) == ["x"] * 3 and states(study) == {"a": "failed"}


def test_one_that_dies_once_is_done_in_the_end(study):
    once = NOTE + "first = not log.exists(); log.open('a').write('x\\n'); first and sys.exit(9); "
    study.tasks = [task(study, "a", script=once + "pathlib.Path(sys.argv[3]).write_text('y')")]
    LocalExecutor(["cpu"]).run(study)
    assert done(study) == ["x", "x"] and states(study) == {"a": "done"}


def test_two_devices_work_side_by_side_with_half_of_the_threads(study):
    """Each waits until the other has begun."""
    script = NOTE + (
        "import os; pathlib.Path(sys.argv[3] + '.begun').write_text(os.environ['OMP_NUM_THREADS']); "
        "other = pathlib.Path(sys.argv[3].replace(name + '.out', dict(a='b', b='a')[name] + '.out.begun')); "
        "end = time.time() + 60\nwhile not other.exists() and time.time() < end: time.sleep(0.02)\n"
        "pathlib.Path(sys.argv[3]).write_text(str(other.exists()))"
    )
    study.tasks = [task(study, name, script=script, gpu=True) for name in "ab"]
    LocalExecutor(["cpu", "cpu"], cores=6).run(study)
    assert [(study.folder / f"{name}.out").read_text() for name in "ab"] == ["True", "True"]
    assert (study.folder / "a.out.begun").read_text() == "3"


def test_a_device_that_vanishes_costs_no_attempt_and_the_others_go_on(study, monkeypatch):
    fails_on = "import sys; sys.argv[4] == 'cuda:1' and sys.exit(1); "
    script = fails_on + DO.replace("import sys, ", "import ")
    one = task(study, "a", script=script, gpu=True)
    one.command.append("{device}")
    study.tasks = [one]
    monkeypatch.setattr(module, "is_gone", lambda device: device == "cuda:1")
    run = LocalExecutor(["cuda:1", "cuda:0"])
    run.run(study)
    assert run.devices == ["cuda:0"] and states(study) == {"a": "done"}
    assert read_task_record(study.folder, one).attempts == 1


def test_the_last_device_that_vanishes_ends_the_run(study, monkeypatch):
    study.tasks = [task(study, "a", script="import sys; sys.exit(1)", gpu=True)]
    monkeypatch.setattr(module, "is_gone", lambda device: True)
    with pytest.raises(AutosegError, match="all devices have vanished"):
        LocalExecutor(["cuda:0"]).run(study)
    assert states(study) == {"a": "waiting"}


def test_what_is_stopped_is_asked_to_save_itself_and_waits(study, monkeypatch):
    """As Ctrl-C does: the task hears SIGTERM, ends in order, and has no attempt on its record."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    script = NOTE + (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: (log.open('a').write('saved\\n'), sys.exit(143))); "
        "log.open('a').write('began\\n'); time.sleep(60)"
    )
    study.tasks = [task(study, "a", script=script)]

    def ctrl_c():
        _wait(lambda: done(study))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ctrl_c).start()
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(["cpu"]).run(study)
    assert done(study) == ["began", "saved"]
    assert states(study) == {"a": "waiting"}
    assert read_task_record(study.folder, study.tasks[0]).code is None


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_task_ends_when_whoever_started_it_was_killed(study, tmp_path):
    """SIGKILL gives the parent no time to stop anything."""
    script = NOTE + "pathlib.Path(sys.argv[3]).write_text(str(__import__('os').getpid())); time.sleep(60)"
    study.tasks = [task(study, "a", script=script)]
    study.write()
    code = (
        "import sys, pathlib; from autoseg.study import executor as m; "
        "from autoseg.study.study_json import read_study; "
        "m.python_of = lambda words: [sys.executable, '-c', *words]; "
        "m.LocalExecutor(['cpu']).run(read_study(pathlib.Path(sys.argv[1])))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(study.folder)])
    out = study.folder / "a.out"
    _wait(lambda: out.exists() and out.read_text())
    child = int(out.read_text())
    parent.kill()
    parent.wait()
    _wait(lambda: not _is_alive(child))
    assert read_study(study.folder).tasks == study.tasks


def _wait(reached):
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def _is_alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_one_that_runs_elsewhere_on_this_machine_is_running(study, monkeypatch):
    study.tasks = [task(study, "a")]
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "autoseg"])
    record = TaskRecord(
        made_by=hash_json(study.tasks[0].command), process=sleeper.pid, machine=os.uname().nodename
    )
    write_task_record(study.folder, study.tasks[0], record)
    assert states(study) == {"a": "running"}
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    assert states(study) == {"a": "waiting"}


def test_what_was_spent_is_shared_by_the_devices(study):
    study.tasks, study.devices = [task(study, "a"), task(study, "b")], 2
    for one, seconds in zip(study.tasks, (30.0, 50.0), strict=True):
        record = TaskRecord(made_by=hash_json(one.command), seconds=seconds, code=0)
        write_task_record(study.folder, one, record)
    assert spent_seconds(study) == 40.0


def test_a_command_is_filled_in_when_it_starts():
    assert filled(["x", "-device", "{device}", "-np", "{processes}"], "cuda:1", 4) == [
        *("x", "-device", "cuda:1", "-np", "4")
    ]
