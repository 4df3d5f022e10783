"""What all commands share: folders that a next command needs, options that nobody knows."""

import shlex

import pytest

from autoseg.cli import common, plan_and_preprocess, train


def test_a_next_command_gets_the_folders_that_the_environment_does_not_name(tmp_path, monkeypatch):
    monkeypatch.setenv("autoseg_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("autoseg_preprocessed", raising=False)
    assert common.folder_options(raw=None, preprocessed=None) == ""
    assert common.folder_options(raw=tmp_path / "x" / ".." / "raw") == ""
    said = common.folder_options(raw=tmp_path / "my raw", preprocessed="prepared")
    assert shlex.split(said) == ["--raw", str(tmp_path / "my raw"), "--preprocessed", "prepared"]


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        (train, ["1", "0", "--device", "cpu"], "-device"),
        (train, ["1", "0", "--device=cpu"], "-device"),
        (train, ["1", "0", "--sett", "epochs=1"], "--set"),
        (plan_and_preprocess, ["-d", "1", "--gpu_memory_target", "4"], "-gpu_memory_target"),
    ],
)
def test_an_option_that_is_not_known_is_answered_with_the_one_that_is_meant(command, words, meant, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "unrecognized arguments: --" in said and f"; did you mean {meant}?" in said


def test_nothing_is_meant_by_a_word_that_is_like_no_option(capsys):
    with pytest.raises(SystemExit):
        train.main(["1", "0", "more"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: more\n")
