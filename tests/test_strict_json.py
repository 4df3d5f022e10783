"""JSON within limits: what Python's reader takes beyond the standard, or fails on in its own ways."""

import json

import pytest

from autoseg import strict_json
from autoseg.cli.common import parse_overrides
from autoseg.errors import AutosegError
from autoseg.files import read_json, write_json

GOOD = {"a": [1, -2.5e3, True, None, "ü \U0001f9e0"], "b": {"c": []}, "d": 10**39, "e": ""}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_what_is_json_is_read_as_python_reads_it():
    for text in (json.dumps(GOOD), json.dumps(GOOD, ensure_ascii=False), "7", '"x"', nested(60)):
        assert strict_json.parse(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": NaN}', "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("1e999", "the number 1e999 is too large"),
        ("9" * 5000, "a number of 5000 digits"),
        (f"[{'9' * 41}]", "a number of 41 digits"),
        ('{"epochs": 3, "epochs": 300}', "the entry 'epochs' is there twice"),
        (nested(100_000), "deeper than 64 levels"),
        (nested(900), "deeper than 64 levels"),
        ('{"a":' * 70 + "1" + "}" * 70, "deeper than 64 levels"),
        (r'{"a": "\ud800"}', "half of a character"),
        (r'{"\udfff": 1}', "half of a character"),
        ("{", "Expecting property name"),
    ],
    ids=range(12),
)
def test_what_is_refused(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        strict_json.parse(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AutosegError, match=f"is not valid JSON(?s:.*){words}") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xff\xfe{\x00}\x00", b""])
def test_bytes_that_are_no_text(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AutosegError, match="is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_mark_before_the_text_is_read_over(tmp_path):
    """As some editors put it before UTF-8."""
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_folder_and_a_file_without_end(tmp_path):
    with pytest.raises(AutosegError, match="cannot be read"):
        read_json(tmp_path)
    with open(tmp_path / "a.json", "wb") as handle:
        handle.truncate(300 << 20)  # takes no space on the disk
    with pytest.raises(AutosegError, match="larger than 256 MiB"):
        read_json(tmp_path / "a.json")


def test_what_is_written_can_be_read(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("inf"), "y": [float("nan"), 1]})
    assert read_json(tmp_path / "a.json") == {"x": None, "y": [None, 1]}


@pytest.mark.parametrize(
    "text", ["NaN", "1e999", nested(100_000), "9" * 5000, '{"a": 1, "a": 2}', r'"\ud800"']
)
def test_values_of_a_command_that_are_no_json_are_text(text):
    assert parse_overrides([f"stages.0.epochs={text}"]) == {"stages.0.epochs": text}
