"""The commands where another project that is also called autoseg takes this one's place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import autoseg
import autoseg_start

ROOT = Path(__file__).parents[2]
START = "import sys; from autoseg_start import train; sys.exit(train())"


def run_beside(folder: Path) -> subprocess.CompletedProcess[str]:
    """``autoseg_train --help`` where this folder comes before all others."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", START, "--help"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


def test_another_project_of_this_name_is_named_with_the_remedy(tmp_path):
    """As its wheel has them: a first file and a module that is called like our folder of commands."""
    (tmp_path / "autoseg").mkdir()
    (tmp_path / "autoseg" / "__init__.py").write_text('__version__ = "1.1.1"\n')
    (tmp_path / "autoseg" / "cli.py").write_text("def main():\n    return 0\n")
    done = run_beside(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"found: {tmp_path / 'autoseg' / '__init__.py'}" in done.stderr
    assert "pip uninstall autoseg autoseg-lesion" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_lost_its_first_file_is_named(tmp_path, monkeypatch):
    """Its uninstallation takes the file away that both have; a folder without one is still a package."""
    found = sys.modules["autoseg"]
    bare = type(sys)("autoseg")
    bare.__path__ = [str(tmp_path / "autoseg")]
    monkeypatch.setitem(sys.modules, "autoseg", bare)
    with pytest.raises(SystemExit, match=f"(?s)found: {tmp_path}.*what to do: pip uninstall"):
        autoseg_start.refuse_other_project()
    monkeypatch.setitem(sys.modules, "autoseg", found)
    autoseg_start.refuse_other_project()


def test_the_name_for_pip_is_that_of_the_metadata():
    from importlib.metadata import metadata

    found = metadata(autoseg_start.DISTRIBUTION)
    assert (found["Name"], found["Version"]) == (autoseg.DISTRIBUTION, autoseg.__version__)


def test_no_command_that_does_not_exist():
    with pytest.raises(ModuleNotFoundError, match="no_such_command"):
        autoseg_start.no_such_command  # noqa: B018 - the access is what is tested
    with pytest.raises(AttributeError):
        autoseg_start.__path__  # noqa: B018
