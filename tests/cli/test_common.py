"""What all commands share: folders that a next command needs."""

import shlex

from autoseg.cli import common


def test_a_next_command_gets_the_folders_that_the_environment_does_not_name(tmp_path, monkeypatch):
    monkeypatch.setenv("autoseg_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("autoseg_preprocessed", raising=False)
    assert common.folder_options(raw=None, preprocessed=None) == ""
    assert common.folder_options(raw=tmp_path / "x" / ".." / "raw") == ""
    said = common.folder_options(raw=tmp_path / "my raw", preprocessed="prepared")
    assert shlex.split(said) == ["--raw", str(tmp_path / "my raw"), "--preprocessed", "prepared"]
