"""What a planner is: how well does this family fit the dataset, and how is it configured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


ALL_FITS = 0.95
"""The score of a family that was made for such data: a paper is no proof for another hospital's."""
LEAST = {Verdict.MADE_FOR_IT: 0.9, Verdict.FITS: 0.55}
"""The scores from which a family was made for the data, or fits them."""
OTHER_KIND = 0.75
"""What it costs that the data are of another kind than those that a family was made for, not different in one thing."""
LEAST_SCORE = 0.05
"""Of a family that runs."""
USUAL = {Verdict.MADE_FOR_IT: ALL_FITS, Verdict.FITS: 0.75, Verdict.POSSIBLE: 0.5}
USUAL_COST = 0.05
"""The score of a match by its verdict alone, and what each reason against it costs, where a planner does not weigh
them; :attr:`Match.rank` keeps the verdicts in order."""


@dataclass(frozen=True)
class Match:
    """A family's verdict on a dataset, with its evidence::

        Match(Verdict.POSSIBLE, ("rats",), against=("three channels instead of one",))

    The better verdict goes first; of the same verdict the better score, then the one with fewer reasons against it,
    then the name. So a family that fits no data in particular, ``unet``, goes before one that was made for others, and
    after any that fits.

    Attributes:
        verdict: see there.
        reasons: what speaks for it, in words.
        against: how the data differ from those that the family was made for.
        costs: of each reason against it, what it takes from the score; empty where the planner does not weigh them.
        doubts: why the family may be the right one or not, in words, where the data leave it open.

    Raises:
        TypeError: the verdict is a number, or a single text stands where a tuple of texts belongs.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    costs: tuple[float, ...] = field(default=(), compare=False)
    doubts: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.verdict, Verdict):
            raise TypeError(f"a match has a Verdict, not {self.verdict!r}")
        if not isinstance(self.reasons, tuple) or not isinstance(self.against, tuple):
            raise TypeError("the reasons of a match, and those against it, are tuples of texts")
        if self.costs and len(self.costs) != len(self.against):
            raise TypeError("a match has a cost for each reason against it, or none")

    @classmethod
    def weighed(
        cls,
        reasons: Sequence[str],
        against: Sequence[tuple[str, float]],
        *,
        made_for: str = "",
        doubts: Sequence[str] = (),
    ) -> Match:
        """The match that follows from what the differences cost, which take from a score of :data:`ALL_FITS`.

        Args:
            reasons: what speaks for it.
            against: differences in words, each with its cost; those without words are left out.
            made_for: said instead of the reasons where it does not fit.
            doubts: as of the class.
        """
        there = [(text, cost) for text, cost in against if text]
        score = ALL_FITS - sum(cost for _, cost in there)
        verdict = next(
            (verdict for verdict, least in LEAST.items() if score > least - 1e-9), Verdict.POSSIBLE
        )
        fits = verdict is not Verdict.POSSIBLE or not made_for
        texts, costs = [text for text, _ in there], [cost for _, cost in there]
        return cls(
            verdict, tuple(reasons) if fits else (made_for,), tuple(texts), tuple(costs), tuple(doubts)
        )

    @property
    def score(self) -> float:
        """From 0, where it cannot run, to 1: how much of what the family was published for is there. Not how well it
        will segment, which only a trial tells.
        """
        if self.verdict is Verdict.CANNOT:
            return 0.0
        if self.costs:
            return max(LEAST_SCORE, round(ALL_FITS - sum(self.costs), 3))
        return max(LEAST_SCORE, round(USUAL[self.verdict] - USUAL_COST * len(self.against), 3))

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sorts the best first."""
        return -self.verdict, -self.score, len(self.against)

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
