"""Sweeps over registries: each registered name must have a hand-worked case, so that a new one cannot go untested."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import pytest

Case = TypeVar("Case")


def hand_worked(cases: Mapping[str, Case], name: str, where: str) -> Case:
    """The case of ``name``; the test fails when there is none, and says where to add it."""
    if name not in cases:
        pytest.fail(f"'{name}' is registered but has no hand-worked case: add one to {where}", pytrace=False)
    return cases[name]


def refuse_leftovers(cases: Mapping[str, Case], names: Iterable[str], where: str) -> None:
    """Fail when there are cases of what is no longer registered: a sweep would never come to them."""
    left = sorted(set(cases) - set(names))
    assert not left, f"{where} has cases of {', '.join(left)}, which nobody registers"
