"""Changes of a file, each a function of a random generator: what bugs, old programs, disks and attackers write."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

DEEP, LONG = 100_000, 5_000

VALUES: list[Callable[[], Any]] = [
    *(
        lambda v=v: v
        for v in (None, True, False, -1, 0, 1, 2, 7, 255, 256, 65_536, 50_000_000, 10**9, 10**12)
    ),
    *(lambda v=v: v for v in (2**31, 2**63, 2**64, -(2**63), 10**39, 0.5, -0.5, 1e-300, 1e30, 1e308, -0.0)),
    *(
        lambda v=v: v
        for v in ("", " ", "0", "1", "abc", "NaN", "inf", "whole", "all", "../../evil", "/evil", "a/b")
    ),
    *(
        lambda v=v: v
        for v in ("\x00", "\x1b[2J", "\ud800", "a\udfffb", "=1+1", "ü", "x" * 300, "x" * 100_000)
    ),
    *(lambda v=v: v for v in ([], {}, [[]], [0], [1, 2], [None], ["a"], {"": 0}, {"a": {}}, {"name": "x"})),
    lambda: [0] * 2000,
    lambda: ["a"] * 2000,
    lambda: {f"label{i}": i for i in range(2000)},
    lambda: nested(40),
    lambda: nested(200),
]


def value(rng: random.Random) -> Any:
    """Something that does not belong where it is put."""
    return copy.deepcopy(rng.choice(VALUES)())


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def changed_json(content: Any, rng: random.Random) -> bytes:
    """A JSON file with one to three changes of its entries, and sometimes one of its text."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _changed(content, rng)
    text = json.dumps(content, indent=rng.choice((None, 1)))
    return _changed_text(text, rng) if rng.random() < 0.3 else text.encode()


def paths(content: Any, before: str = "") -> list[str]:
    """All places of a JSON content, as dotted paths."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    here = [f"{before}{key}" for key, _ in items]
    return here + [path for key, item in items for path in paths(item, f"{before}{key}.")]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All pairs of a box and a key in it."""
    found: list[tuple[Any, Any]] = []
    boxes = [value]
    while boxes:
        box = boxes.pop()
        for key in list(box) if isinstance(box, dict) else range(len(box)) if isinstance(box, list) else ():
            found.append((box, key))
            if isinstance(box[key], (dict, list)) and len(box[key]) < 1000:
                boxes.append(box[key])
    return found


def _changed(content: Any, rng: random.Random) -> Any:
    places = _places(content)
    if not places or rng.random() < 0.02:
        return value(rng)
    box, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del box[key]
    elif kind == 1 and isinstance(box, dict):
        box[rng.choice(("", "x", "../evil", "\ud800", "name", str(key) + "_", "7"))] = box.pop(key)
    elif kind == 1:
        box.insert(key, value(rng))
    elif kind == 2:
        other_box, other = rng.choice(places)
        box[key] = json.loads(json.dumps(other_box[other])) if _holds(other_box, other) else None
    elif kind == 3 and isinstance(box[key], (int, float)) and not isinstance(box[key], bool):
        box[key] = box[key] * rng.choice((-1, 0, 2, 1000, 10**6, 10**12, 1e-6))
    else:
        box[key] = value(rng)
    return content


def _holds(box: Any, key: Any) -> bool:
    return key in box if isinstance(box, dict) else key < len(box)


def _changed_text(text: str, rng: random.Random) -> bytes:
    number = next((i for i in rng.sample(range(len(text)), len(text)) if text[i].isdigit()), 0)
    rest = text[number + 1 :]
    return rng.choice(
        (
            lambda: (text[:number] + "NaN" + rest).encode(),
            lambda: (text[:number] + "-Infinity" + rest).encode(),
            lambda: (text[:number] + "1e999" + rest).encode(),
            lambda: (text[:number] + "9" * LONG + rest).encode(),
            lambda: (text[:number] + "[" * DEEP + "]" * DEEP + rest).encode(),
            lambda: (text[:number] + '{"a":' * DEEP + "1" + "}" * DEEP + rest).encode(),
            lambda: text.replace("{", '{"name": 1, "name": 2, ', 1).encode(),
            lambda: text.encode("utf-8-sig"),
            lambda: text.encode("utf-16"),
            lambda: text.encode()[: rng.randrange(len(text))],
            lambda: changed_bytes(text.encode(), rng),
            lambda: text.encode() + b"\xff",
            lambda: b"",
        )
    )()


def changed_bytes(content: bytes, rng: random.Random, first: int = 0, last: int | None = None) -> bytes:
    """Some bytes between two places changed, removed or added; or the end cut off."""
    found = bytearray(content)
    last = len(found) if last is None else min(last, len(found))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(first, last)
        kind = rng.randrange(10)
        if kind < 4:
            found[place : place + 1] = bytes([rng.randrange(256)])
        elif kind < 6:
            found[place : place + 1] = (
                bytes([found[place] ^ 1 << rng.randrange(8)]) if place < len(found) else b""
            )
        elif kind < 8:
            width = rng.choice((2, 4, 8))
            found[place : place + width] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * width
        elif kind == 8:
            found[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        else:
            del found[place : place + rng.randrange(1, 9)]
        last = min(last, len(found))
        if last <= first:
            break
    return bytes(found[: rng.randrange(len(found))] if found and rng.random() < 0.05 else found)
