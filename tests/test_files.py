"""Files that are whole or absent."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from autoseg import files
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
