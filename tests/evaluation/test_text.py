"""Numbers and tables for reading, by hand."""

import pytest

from autoseg.evaluation.text import alike, csv_cell, grid, number, repeated, with_interval
from autoseg.messages import count_of, some_of


@pytest.mark.parametrize(
    "value, unit, expected",
    [
        (None, "1", "-"),
        (0.65814, "1", "0.658"),
        (0, "ml", "0"),
        (0.042461, "ml", "0.04246"),
        (-12.3456, "mm", "-12.35"),
        (999.96, "mm", "1000.0"),
        (1234567.8, "voxels", "1234568"),
    ],
)
def test_numbers(value, unit, expected):
    assert number(value, unit) == expected


def test_numbers_that_are_read_together_have_the_decimals_of_the_largest():
    assert alike("ml", 0.5, 123.456, None) == ["0.5", "123.5", "-"]
    assert alike("1", 0.5, 1) == ["0.500", "1.000"]
    assert alike("mm", 0.0, None) == ["0", "-"]
    assert with_interval(1.5, 0.25, 20, "mm") == "1.50 [0.25, 20.00]"
    assert with_interval(1.5, None, None, "mm") == "1.500"
    assert with_interval(None, None, None, "1") == "-"


def test_cells_of_programs_have_ten_digits():
    assert [csv_cell(value) for value in (None, 3, 1 / 3, 2.0)] == ["", "3", "0.3333333333", "2"]


def test_names():
    assert [count_of(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert some_of("abc") == "a, b, c" and some_of("abc", 1) == "a and 2 more"


def test_columns_are_as_wide_as_their_widest_cell():
    assert grid(["a", "name"], [["long", "x"], ["y"]]) == "a     name\n----  ----\nlong  x\ny"


def test_only_leading_cells_repeat():
    rows = [["a", "x", 1], ["a", "x", 1], ["a", "y", 1], ["b", "y", 1]]
    assert list(repeated(rows, 2)) == [0, 2, 1, 0]
    assert list(repeated([], 2)) == []
