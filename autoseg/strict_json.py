"""JSON as the standard has it, within limits: what a file from elsewhere may hold is known before anything follows it.

Python's reader takes more than the standard (NaN, Infinity), the last of two equal keys, numbers of any length and
halves of characters, and fails in its own ways on deep nests. Here each of these is refused in words.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

DEEPEST = 64
"""Lists and objects within each other; autoseg's own files need 12."""

LONGEST_INTEGER = 40
"""Digits of a whole number; hashes are text."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is not JSON, or goes beyond the limits; says which.
    """
    try:
        content = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _refuse_deep(content)
    if _HALF.search(text):  # the only way in; a whole pair is one character by now
        _refuse_halves(text)
    return content


_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the entry {ascii(twice[:60])} is there twice")
    return content


def _refuse_deep(content: Any) -> None:
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(DEEPEST):
        boxes = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for box in boxes for item in box if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _refuse_halves(text: str) -> None:
    """An escape \\ud800 to \\udfff without its other half is no character, and cannot be written anywhere."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"it has {ascii(half)}, which is half of a character") from None
