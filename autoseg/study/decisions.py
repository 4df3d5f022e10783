"""What is decided between two phases, from what the tasks of the one before have left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from autoseg import messages
from autoseg.comparison.comparison_schema import Comparison, read_comparison
from autoseg.errors import AutosegError
from autoseg.messages import duration
from autoseg.plugins.planner import Verdict
from autoseg.preparation.proposals import PlannedFamily, near_first
from autoseg.study.study_json import Candidate, Measure, Round, Standing

GENERAL = "unet"
"""The family that always takes part: it fits any data."""
TRIAL_SHARE, FOLDS_SHARE = 0.3, 0.92
"""Of the time that the user gave: for the trial, and of what is left after it for all folds."""


# --------------------------------------------------------------------------------------------------------- who


def proposed(ranked: Sequence[PlannedFamily], wanted: Sequence[str]) -> list[Candidate]:
    """The families that take part, with their scores and what speaks for each; those that cannot run are left out.

    Args:
        ranked: every installed family, best first.
        wanted: ``auto`` takes the first, those that fit, and those whose scores do not tell them apart from the first;
            ``all`` all that can run; names take themselves. The general family always takes part.

    Raises:
        AutosegError: none of them can run.
    """
    able = {one.family: one for one in ranked if one.match.verdict is not Verdict.CANNOT and not one.problem}
    near = near_first({name: one.match for name, one in able.items()}) if able else []
    if list(wanted) == ["all"]:
        chosen = list(able)
    elif list(wanted) == ["auto"]:
        fits = [name for name, one in able.items() if one.match.verdict >= Verdict.FITS]
        chosen = [name for name in able if name in (*fits, *list(able)[:1], *near)]
    else:
        chosen = list(wanted)
    names = list(dict.fromkeys([*chosen, *([GENERAL] if GENERAL in able else [])]))
    _say_absent([name for name in names if name not in able], ranked)
    if not any(name in able for name in names):
        raise AutosegError("no family can run on this dataset", fix="name others with --families")
    first = next(iter(able.values()))
    return [_candidate(able[name], first, name in near) for name in names if name in able]


def _candidate(one: PlannedFamily, first: PlannedFamily, near: bool) -> Candidate:
    scores = f"{one.match.score:.2f} and {first.match.score:.2f}"
    said = f"; its score does not tell it apart from {first.family} ({scores})" if near else ""
    return Candidate(family=one.family, plan=one.family, score=one.match.score, why=f"{one.match}{said}")


def _say_absent(names: Sequence[str], ranked: Sequence[PlannedFamily]) -> None:
    problems = {one.family: one.problem or one.match.words for one in ranked}
    for name in names:
        messages.warn(f"{name} takes no part: {problems.get(name, 'it did not answer')}")


# ----------------------------------------------------------------------------------------------------- how long


def kept_after(number: int, n: int) -> int:
    """How many families go on from a round of so many: the better half, and two while there are two."""
    return max(2, math.ceil(n / 2)) if number == 1 else n


def n_rounds(n: int) -> int:
    """How many rounds the trial of so many families has."""
    return 0 if n < 2 else 1 if n == 2 else 2


def round_seconds(measures: Mapping[str, Measure], number: int, available: float, devices: int) -> float:
    """Seconds of training for each family in a round: the second is twice as long as the first.

    Args:
        measures: of the families of this round.
        number: of the round.
        available: wall seconds for the trial from this round on.
        devices: that work side by side.
    """
    beside = max(one.start + one.predict for one in measures.values())
    n = len(measures)
    waves = [math.ceil(n / devices)]
    if number == 1 and n_rounds(n) == 2:
        waves.append(math.ceil(kept_after(1, n) / devices))
    shares = waves[0] + (2 * waves[1] if len(waves) > 1 else 0)
    return (available - sum(waves) * beside) / shares


def fold_seconds(measure: Measure, available: float, waves: int, members: int) -> float:
    """Seconds of training in a fold, of so much wall time for all of them, one wave of folds after the other."""
    return available / waves - measure.start - members * measure.predict


# -------------------------------------------------------------------------------------------------- who goes on


def standings(
    comparison: Comparison | None,
    measures: Mapping[str, Measure],
    seconds: Mapping[str, float],
    errors: Mapping[str, str],
    keep: int,
) -> list[Standing]:
    """Who goes on from a round, and why.

    The one with the best mean Dice goes on. Of the others nobody goes on that was shown to be worse than it; of the
    rest, from which the cases show no difference, first the cheapest, then by their means, as many as may.

    Args:
        comparison: of the families that did not fail; None where it is one.
        measures: of all.
        seconds: of training that each had.
        errors: of those that failed.
        keep: how many at most.
    """
    names = [family for family in measures if family not in errors]
    dice, f1 = (mean_scores(comparison, metric) for metric in ("dice", "lesion_f1"))
    cost = {family: measures[family].published for family in names}
    order = sorted(names, key=lambda family: (-dice.get(family, 0.0), cost[family]))
    rows = [
        Standing(
            family=family,
            dice=dice.get(family),
            lesion_f1=f1.get(family),
            seconds=seconds.get(family),
            cost=cost[family],
            goes_on=why[0],
            why=why[1],
        )
        for family, why in _reasons(order, cost, comparison, keep).items()
    ]
    failed = [Standing(family=family, goes_on=False, why=error) for family, error in errors.items()]
    return [*rows, *failed]


def _reasons(
    order: Sequence[str], cost: Mapping[str, float], comparison: Comparison | None, keep: int
) -> dict[str, tuple[bool, str]]:
    """Family to whether it goes on and why, in their order."""
    if not order:
        return {}
    leader, *others = order
    worse = {family: shown_worse(comparison, family, leader) for family in others}
    equal = [family for family in others if not worse[family]]
    cheapest = min([leader, *equal], key=lambda family: cost[family])
    places = [leader, *([cheapest] if cheapest != leader else []), *(f for f in equal if f != cheapest)]
    if keep == 1 and cheapest != leader:
        places = [cheapest, *(family for family in places if family != cheapest)]
    kept = places[:keep]
    found = {leader: (leader in kept, "the best mean Dice" if others else "the only one")}
    for family in others:
        if worse[family]:
            found[family] = False, f"shown to be worse than {leader}: {worse[family]}"
        elif family == cheapest:
            time = f"{duration(cost[family])} instead of {duration(cost[leader])} for a fold as published"
            found[family] = family in kept, f"no difference from {leader} is shown, and it is cheaper: {time}"
        else:
            went = "" if family in kept else f"; {keep} go on"
            found[family] = family in kept, f"no difference from {leader} is shown{went}"
    if leader not in kept:
        found[leader] = False, f"the best mean Dice, not shown to be better than {cheapest}, which is cheaper"
    return found


def mean_scores(comparison: Comparison | None, metric: str) -> dict[str, float]:
    """Method to its mean over cases and classes."""
    if comparison is None:
        return {}
    found: dict[str, list[float]] = {}
    for metrics in comparison.classes.values():
        for row in metrics[metric].ranking if metric in metrics else ():
            if row.mean is not None:
                found.setdefault(row.method, []).append(row.mean)
    return {method: fmean(values) for method, values in found.items()}


def shown_worse(comparison: Comparison | None, one: str, than: str) -> str:
    """What shows that a method is worse than another, in words; empty where the cases show no difference.

    It is worse in Dice or lesion F1 of some class, and better in neither of any.
    """
    losses = []
    for metrics in comparison.classes.values() if comparison else ():
        for metric in ("dice", "lesion_f1"):
            for pair in metrics[metric].pairs if metric in metrics else ():
                if {pair.first, pair.second} == {one, than} and pair.better is not None:
                    if pair.better == one:
                        return ""
                    losses.append(f"{metric} by {abs(pair.difference or 0):.3f}, p {pair.p_holm:.2g}")
    return ", ".join(losses)


def differences_said(comparison: Comparison) -> list[str]:
    """Every pair, a sentence each."""
    said = []
    for label, metrics in comparison.classes.items():
        for metric in ("dice", "lesion_f1"):
            for pair in metrics[metric].pairs if metric in metrics else ():
                p = "no test of so few cases" if pair.p_holm is None else f"p {pair.p_holm:.2g}"
                amount = f"{pair.difference or 0:+.3f} [{_end(pair.low)}, {_end(pair.high)}], {p}"
                words = (
                    f"{pair.better} is better" if pair.better else "no difference is shown"
                ) + f" between {pair.first} and {pair.second}"
                said.append(f"{label}, {metric}: {words}: {amount}, {pair.n} cases")
    return said


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def comparison_of(folder: Path) -> Comparison | None:
    """The comparison in a folder, or None."""
    return read_comparison(folder) if (folder / "comparison.json").exists() else None


# ------------------------------------------------------------------------------------------------- a small budget


def refuse_small(hours: float, needed: float, words: str) -> None:
    """A budget in which nothing can be trained.

    Args:
        hours: that the user gave.
        needed: seconds of the smallest study that works.
        words: what takes so long.

    Raises:
        AutosegError: it is less.
    """
    if hours * 3600 < needed:
        least = math.ceil(needed / 36) / 100
        raise AutosegError(
            "the time is too short for a study of these families",
            where=f"--hours {hours:g}",
            found=words,
            expected=f"at least --hours {least:g}",
            fix=f"run it again with --hours {least:g} (what was measured is kept), or with fewer --families",
        )


def decided_round(one: Round, rows: list[Standing], comparison: Comparison | None) -> Round:
    """The round with its end."""
    said = differences_said(comparison) if comparison else []
    cases = len(comparison.cases) if comparison else 0
    return one.model_copy(update={"standings": rows, "said": said, "cases": cases})
