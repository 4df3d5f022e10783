"""What is said: counts in words, and every warning once."""

from argparse import Namespace

import pytest

from autoseg import messages
from autoseg.cli import common
from autoseg.messages import count_of


@pytest.mark.parametrize(
    "n, things, expected",
    [
        (0, ("case",), "0 cases"),
        (1, ("case",), "1 case"),
        (2, ("case",), "2 cases"),
        (1, ("entry does not fit", "entries do not fit"), "1 entry does not fit"),
        (2, ("entry does not fit", "entries do not fit"), "2 entries do not fit"),
    ],
)
def test_counts_agree_with_what_is_counted(n, things, expected):
    assert count_of(n, *things) == expected


@pytest.mark.parametrize(
    "volume, text",
    [
        (0, "0 ml"),
        (1.25e-7, "0.000000125 ml"),  # a voxel of 0.05 mm
        (0.004, "0.004 ml"),
        (1.4, "1.4 ml"),
        (12.345, "12.3 ml"),
        (999.4, "999 ml"),
        (999.6, "1000 ml"),
        (1474.4, "1474 ml"),
    ],
)
def test_volumes_are_plain_numbers(volume, text):
    assert messages.millilitres(volume) == text


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 KB"),
        (1, "1 KB"),
        (37_500, "38 KB"),
        (999_000, "999 KB"),
        (999_001, "1.0 MB"),
        (2_900_000, "2.9 MB"),
    ],
)
def test_small_files_have_a_size_too(size, text):
    assert messages.file_size(size) == text


def test_a_command_says_each_warning_once_and_counts_them_at_its_end(capsys):
    def warn_twice(_):
        messages.warn("the first\nwith details")
        messages.warn("the second")
        messages.warn("the second")

    assert common.run(warn_twice, Namespace()) == 0
    said = capsys.readouterr().err
    assert said.count("the first") == said.count("with details") == said.count("warning: the second") == 1
    assert said.endswith("2 warnings, see above\n  2 times: the second\n")
