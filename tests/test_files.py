"""Files that are whole or absent."""

import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from autoseg import files, messages
from autoseg.errors import AutosegError, FaultsError, nearest_names


class Thing(BaseModel):
    size_mm: float
    name: str


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ValueError):
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ValueError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AutosegError, match="cannot be written") as caught:
        files.write_text(tmp_path / "file" / "a.txt", "x")
    assert "a folder that you may write to" in str(caught.value)


def test_a_full_disk_is_explained():
    error = files.write_error("out/a.nii.gz", OSError(28, "No space left on device"))
    assert "the disk is full" in str(error) and "what is done is kept" in str(error)


def test_nan_becomes_null(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [float("nan"), 1.0]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, 1.0]}


def test_all_faults_of_a_file_are_shown_at_once(tmp_path):
    (tmp_path / "a.json").write_text('{"size_mm": "big"}')
    with pytest.raises(FaultsError) as caught:
        files.read_model(tmp_path / "a.json", Thing)
    assert "size_mm" in str(caught.value) and "name" in str(caught.value) and "'big'" in str(caught.value)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(AutosegError, match="run make_it first"):
        files.read_json(tmp_path / "a.json", made_by="make_it")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert files.hash_json({"a": 1, "b": 2}) == files.hash_json({"b": 2, "a": 1})
    assert files.hash_json({"a": 1}) != files.hash_json({"a": 2})


def test_a_lock_that_is_held_is_explained(tmp_path):
    with files.exclusive(tmp_path / ".lock", doing="training fold 0"):
        with pytest.raises(AutosegError, match="another process is training fold 0"):
            with files.exclusive(tmp_path / ".lock", doing="training fold 0"):
                pass
    with files.exclusive(tmp_path / ".lock", doing="training fold 0"):
        pass


def test_nearest_names():
    assert nearest_names("unnet", ["unet", "auto"]) == "did you mean unet?"
    assert nearest_names("zzz", ["unet", "auto"]) == "choose one of: auto, unet"


def test_a_table_quotes_what_it_must():
    assert files.csv_text([["a", "b,c"], [None, 1.5]]) == 'a,"b,c"\n,1.5\n'


def test_an_exact_model_refuses_what_it_does_not_know():
    class Exact(files.ExactModel):
        size_mm: float

    with pytest.raises(FaultsError, match="colour"):
        files.validate({"size_mm": 1, "colour": "red"}, Exact, where="here")


@pytest.mark.parametrize("content", [{"version": 2, "size_mm": 1, "name": "x"}, [], {}])
def test_a_file_of_another_version_is_refused(tmp_path, content):
    files.write_json(tmp_path / "a.json", content)
    with pytest.raises(AutosegError, match="(?s)the things are of another version.*run autoseg_thing again"):
        files.read_version(tmp_path / "a.json", Thing, 1, what="the things are", made_by="autoseg_thing")


def test_a_file_of_this_version_is_read(tmp_path):
    files.write_json(tmp_path / "a.json", {"version": 1, "size_mm": 2, "name": "x"})
    found = files.read_version(tmp_path / "a.json", Thing, 1, what="the things are", made_by="autoseg_thing")
    assert found == Thing(size_mm=2, name="x")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        *((cell, cell) for cell in ("", "a", "-0.5", "+1e-3", "-1", "1=1", "a@b", "it's", "-inf")),
        *(
            (cell, "'" + cell)
            for cell in ("=1+1", "+x", "-x", "@SUM(A1)", "\tx", " =x", "'=x", "-1+1", "\uff1dx")
        ),
    ],
)
def test_no_cell_of_a_table_starts_a_formula(cell, text):
    (row,) = csv.reader(io.StringIO(files.csv_text([["first", cell]]), newline=""))
    assert row == ["first", text] and files.csv_words(text) == cell


def test_numbers_and_empty_cells_stay():
    assert files.csv_text([[-0.5, -1, None, True, "=x"]]) == "-0.5,-1,,True,'=x\n"


def test_one_function_writes_all_tables():
    root, folders = Path(files.__file__).parents[1], ("autoseg", "dataset_conversion", "planners", "trainers")
    sources = [path for folder in folders for path in (root / folder).rglob("*.py")]
    writers = re.compile(r"csv\.(Dict)?[wW]riter|to_csv|savetxt")
    assert len(sources) > 200
    assert [path.name for path in sources if writers.search(path.read_text("utf-8"))] == ["files.py"]


# ------------------------------------------------------------------------------- what killed processes have left


def dead_process() -> int:
    """The number of a process that has ended."""
    return int(
        subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout
    )


def test_the_next_write_removes_what_a_killed_process_left(tmp_path):
    machine = files._machine()
    theirs = f".tmp-{machine}-{dead_process()}-a.txt"
    mine, elsewhere = f".tmp-{machine}-{os.getppid()}-b.txt", f".tmp-00000000-{dead_process()}-c.txt"
    for name in (theirs, mine, elsewhere, ".tmp-of-somebody-else"):
        (tmp_path / name).write_text("half")
    files.write_text(tmp_path / "d.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([mine, elsewhere, ".tmp-of-somebody-else", "d.txt"])
    files.remove_leftovers(tmp_path, owned=True)  # whoever holds the lock knows that nobody writes
    assert sorted(os.listdir(tmp_path)) == [".tmp-of-somebody-else", "d.txt"]


def test_what_nobody_touched_for_a_week_is_removed_wherever_it_was_made(tmp_path):
    path = tmp_path / ".tmp-00000000-1-a.txt"
    path.write_text("half")
    os.utime(path, times=(0, 0))
    files.remove_leftovers(tmp_path)
    assert not os.listdir(tmp_path)


def test_a_killed_write_leaves_a_file_that_the_next_process_removes(tmp_path):
    code = "import os, sys; from pathlib import Path; from autoseg import files\n"
    code += "with files.atomic_path(Path(sys.argv[1])) as path:\n path.write_text('half'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")])
    assert [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]
    files.write_text(tmp_path / "a.txt", "whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_was_about_to_be_replaced_comes_back(tmp_path):
    replaced = tmp_path / f".replaced-{files._machine()}-{dead_process()}-model"
    replaced.mkdir()
    (replaced / "plan.json").write_text("{}")
    files.remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "plan.json").exists() and not replaced.exists()


def test_a_half_made_folder_is_gone_whatever_happens(tmp_path):
    with pytest.raises(ValueError):
        with files.half_made_folder(tmp_path / "model") as half_made:
            (half_made / "plan.json").write_text("{}")
            raise ValueError
    assert not os.listdir(tmp_path)


def test_the_check_of_a_folder_leaves_nothing_even_while_it_writes(tmp_path, monkeypatch):
    seen, plain = [], files.tempfile.TemporaryFile

    def looked(*args, **options):
        made = plain(*args, **options)
        seen.extend(os.listdir(tmp_path))
        return made

    monkeypatch.setattr(files.tempfile, "TemporaryFile", looked)
    files.check_writable(tmp_path)
    assert seen == [] and os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------- file systems that refuse


@pytest.mark.parametrize("name", ["ENOLCK", "ENOTSUP", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_a_warning(name, tmp_path, monkeypatch, caplog):
    import fcntl

    def refused(*_):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", refused)
    messages.forget_warnings()
    with files.exclusive(tmp_path / ".lock", doing="training fold 0"):
        pass
    assert any(
        "gives no locks" in text and "start one at a time" in text for text in messages.warning_counts()
    )


def test_a_file_system_without_flock_at_all_locks_by_a_file(tmp_path, monkeypatch):
    """As filelock does it; what a kill on another machine leaves is named."""
    import fcntl

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    path = tmp_path / ".lock"
    with files.exclusive(path, doing="training fold 0"):
        pass
    path.write_text("1\nanother-machine\n")
    with pytest.raises(AutosegError, match=f"if it was killed on another machine, delete {path}"):
        with files.exclusive(path, doing="training fold 0"):
            pass
    path.unlink()
    with files.exclusive(path, doing="training fold 0"):
        pass


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.os, "open", refused)
    with pytest.raises(AutosegError, match="(?s)the file system is read-only.*choose another folder"):
        with files.exclusive(tmp_path / ".lock", doing="training fold 0"):
            pass


def test_a_lock_is_waited_for_where_that_is_asked(tmp_path):
    """Held by a process that lets go after a moment."""
    code = "import sys, time; from pathlib import Path; from autoseg import files\n"
    code += (
        "with files.exclusive(Path(sys.argv[1]), doing='it'):\n print('held', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with files.exclusive(tmp_path / ".lock", doing="it", wait=True):
            pass


def test_a_file_that_may_not_grow_is_explained_and_nothing_is_left(tmp_path):
    """The limit of a real process stands for a quota."""
    code = "import resource, sys; from pathlib import Path; from autoseg import files\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    code += "files.write_bytes(Path(sys.argv[1]), bytes(5000))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert "the file is too large" in done.stderr and not os.listdir(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_ways_to_go_on(number):
    text = str(files.write_error("a", OSError(number, os.strerror(number))))
    assert "the disk is full" in text and "autoseg_train with --c" in text and "--continue_prediction" in text


def test_a_damaged_file_names_the_command_that_makes_it(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(AutosegError, match="correct the file, or run make_it"):
        files.read_json(tmp_path / "a.json", made_by="make_it")
