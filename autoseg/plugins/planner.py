"""What a planner is: how well does this family fit the dataset, and how is it configured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pydantic import BaseModel

from autoseg.errors import AutosegError
from autoseg.fingerprint import Fingerprint
from autoseg.plan import Plan

MOST_MEMORY_GB = 10_000


class Verdict(IntEnum):
    """How well a family fits a dataset, from worst to best.

    CANNOT: it would not run. POSSIBLE: it runs, and was not published for such data. FITS: such data are close to those
    that it was published for. MADE_FOR_IT: they are of the kind that it was published for.
    """

    CANNOT = 0
    POSSIBLE = 1
    FITS = 2
    MADE_FOR_IT = 3

    def __str__(self) -> str:
        return self.name.casefold().replace("_", " ")


@dataclass(frozen=True)
class Match:
    """A family's verdict on a dataset, with its evidence::

        Match(Verdict.POSSIBLE, ("rats",), against=("three channels instead of one",))

    The better verdict goes first; of the same verdict the one with fewer reasons against it, then the name. So a family
    that fits no data in particular, ``unet``, goes before one that was made for others, and after any that fits.

    Attributes:
        verdict: see there.
        reasons: what speaks for it, in words.
        against: how the data differ from those that the family was made for.

    Raises:
        TypeError: the verdict is a number, or a single text stands where a tuple of texts belongs.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.verdict, Verdict):
            raise TypeError(f"a match has a Verdict, not {self.verdict!r}")
        if not isinstance(self.reasons, tuple) or not isinstance(self.against, tuple):
            raise TypeError("the reasons of a match, and those against it, are tuples of texts")

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the best first."""
        return -self.verdict, len(self.against)

    @property
    def words(self) -> str:
        """All that is known, in one line without the verdict."""
        but = "but " if self.reasons and self.against else ""
        return ", ".join((*self.reasons, *(f"{but * (i == 0)}{text}" for i, text in enumerate(self.against))))

    def __str__(self) -> str:
        return f"{self.verdict}: {self.words}" if self.words else str(self.verdict)


@dataclass(frozen=True)
class Budget:
    """What may be spent on a training.

    Attributes:
        memory_gb: what the device can hold; None leaves it to the planner's default.
        quick: the plan is for trying out on a CPU: a small patch, a narrow network, an optimiser that needs few steps.
            How long it trains autoseg limits itself, so a planner may leave this word alone.

    Raises:
        AutosegError: no card has so much memory, or it is no number above 0.
    """

    memory_gb: float | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if self.memory_gb is not None and not 0 < self.memory_gb <= MOST_MEMORY_GB:
            raise AutosegError(
                "no card has so much memory" if self.memory_gb > 0 else "the memory is no number above 0",
                found=f"{self.memory_gb:g} GB",
                expected=f"GB, above 0 and up to {MOST_MEMORY_GB}, such as 24",
                fix="give -gpu_memory_target the memory of the card",
            )


class NoOptions(BaseModel, extra="forbid"):
    """The options of a planner that has none."""


@dataclass(frozen=True)
class Planner:
    """A planner plug-in::

        PLANNER = Planner("tiny", "a tiny method", match, plan, TinyOptions)

    Attributes:
        name: as of the entry point.
        summary: one line for lists and help.
        match: judges a dataset.
        plan: configures the family for it; takes the fingerprint, the budget and an ``options`` object.
        options: typed options, set by ``--set planner.NAME=VALUE``. ``length`` is autoseg's own, for every planner
            (:class:`autoseg.preparation.quick.Common`).
    """

    name: str
    summary: str
    match: Callable[[Fingerprint], Match]
    plan: Callable[[Fingerprint, Budget, Any], Plan]
    options: type[BaseModel] = NoOptions
