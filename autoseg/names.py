"""Names that become files and folders: of cases, stages, networks, plans, trainers, models and datasets.

They come from files that others wrote (dataset.json, splits.json, plan.json, bundles) and from options. One pattern
holds for all: a name that fits is one entry of a folder, never a way to another one, on every common file system.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from autoseg.errors import AutosegError

LONGEST = 200  # bytes in UTF-8; file systems take 255, and numbers and endings follow

_UNSEEN = r"\x00-\x1f\x7f-\xa0\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff"
_NEVER = rf'{_UNSEEN}\ud800-\udfff/\\:*?"<>|'

NAME = rf"[^{_NEVER} .](?:[^{_NEVER}]*[^{_NEVER} .])?"
"""The pattern, to be matched in full: letters, digits and signs of any script; spaces and dots within."""

EXPECTED = f'no / \\ : * ? " < > |, no dot or space at either end, up to {LONGEST} bytes'
"""The pattern in words."""

_PATTERN = re.compile(NAME)


def is_name(text: str) -> bool:
    """Whether a text fits the pattern and is short enough."""
    return bool(_PATTERN.fullmatch(text)) and len(text.encode("utf-8")) <= LONGEST


def shown(text: str) -> str:
    """The beginning of a text that may hold anything, in quotes, with unseen characters spelled out."""
    return ascii(text[:60]) + ("..." if len(text) > 60 else "")


def refuse_bad_name(what: str, text: str, *, where: str = "", fix: str = "choose another name") -> str:
    """The same text, if it is a name.

    Args:
        what: it names, such as ``plan``.
        text: perhaps a name.
        where: it stands.
        fix: what to do about it.

    Raises:
        AutosegError: it is none.
    """
    if is_name(text):
        return text
    raise AutosegError(
        f"this cannot name a {what}", where=where, found=shown(text), expected=EXPECTED, fix=fix
    )


def _checked(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"cannot be the name of a file: {EXPECTED}")
    return text


def _checked_within(text: str) -> str:
    for part in text.split("/"):
        _checked(part)
    return text


Name = Annotated[str, AfterValidator(_checked)]
"""A name in a typed file."""

NameWithin = Annotated[str, AfterValidator(_checked_within)]
"""A name in a typed file that leads into folders below, by ``/``, and never out of them."""
