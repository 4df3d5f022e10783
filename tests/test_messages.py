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


def test_a_command_says_each_warning_once_and_counts_them_at_its_end(capsys):
    def warn_twice(_):
        messages.warn("the first\nwith details")
        messages.warn("the second")
        messages.warn("the second")

    assert common.run(warn_twice, Namespace()) == 0
    said = capsys.readouterr().err
    assert said.count("the first") == said.count("with details") == said.count("warning: the second") == 1
    assert said.endswith("2 warnings, see above\n  2 times: the second\n")
