"""What a planner is: how well does this family fit the dataset, and how is it configured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from autoseg.fingerprint import Fingerprint
from autoseg.plan import Plan


@dataclass(frozen=True)
class Match:
    """How well a family fits a dataset: 0 (cannot run) to 1 (made for it), and why."""

    score: float
    reason: str


@dataclass(frozen=True)
class Budget:
    """What the device that will train can hold; None leaves it to the planner's default."""

    memory_gb: float | None = None


class NoOptions(BaseModel, extra="forbid"):
    """The options of a planner that has none."""


@dataclass(frozen=True)
class Planner:
    """A planner plug-in.

    Attributes:
        name: as of the entry point.
        summary: one line for lists and help.
        match: judges a dataset.
        plan: configures the family for it; takes the fingerprint, the budget and an ``options`` object.
        options: typed options, set by ``--set planner.NAME=VALUE``.
    """

    name: str
    summary: str
    match: Callable[[Fingerprint], Match]
    plan: Callable[[Fingerprint, Budget, Any], Plan]
    options: type[BaseModel] = NoOptions
