"""The ranked table: what each family would do with a dataset, what speaks for it and against it, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.evidence.corrections import corrections
from autoseg.evidence.facts import Evidence
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    ForetoldTime,
    PatchSize,
    Plan,
    Proposals,
    ProposedCorrection,
    ProposedFamily,
    Stage,
)
from autoseg.plan.table import length_words
from autoseg.plugins.planner import ALL_FITS, OTHER_KIND, Budget, Match, Verdict
from autoseg.preparation.choice import ask_all, make_plan

NEAR = 0.1
"""Scores that differ by no more leave the order open."""
GENERAL = "unet"
"""The family that fits any dataset."""

TimeOf = Callable[[Plan], ForetoldTime | None]


@dataclass(frozen=True)
class PlannedFamily:
    """A family that could take a dataset, with the plan that it would make.

    Attributes:
        family: its name.
        match: its verdict.
        plan: None where it cannot run, or cannot plan.
        problem: why it has no plan; empty where it has one.
    """

    family: str
    match: Match
    plan: Plan | None = None
    problem: str = ""


def find_candidates(fingerprint: Fingerprint, budget: Budget) -> list[PlannedFamily]:
    """All installed families, best first, each with its plan."""
    return [_candidate(name, match, fingerprint, budget) for name, match in ask_all(fingerprint).items()]


def _candidate(name: str, match: Match, fingerprint: Fingerprint, budget: Budget) -> PlannedFamily:
    if match.verdict is Verdict.CANNOT:
        return PlannedFamily(name, match, problem=match.words)
    try:
        with messages.muted():  # what a plan warns of that nobody may follow
            return PlannedFamily(name, match, make_plan(fingerprint, name, budget))
    except AutosegError as error:
        return PlannedFamily(name, match, problem=f"{error.fault.problem} ({error.fault.found})")


def propose(
    candidates: Sequence[PlannedFamily], fingerprint: Fingerprint, time_of: TimeOf = lambda plan: None
) -> Proposals:
    """The table of all families.

    Args:
        candidates: best first, the first of them with the plan that is made.
        fingerprint: of the dataset.
        time_of: how long a fold of a plan takes on the device at hand; None where that was not measured.
    """
    evidence, matches = Evidence(fingerprint), {c.family: c.match for c in candidates}
    families = [_row(candidate, matches, time_of) for candidate in candidates]
    return Proposals(
        looked_at=looked_at(fingerprint),
        families=families,
        doubts=find_doubts(matches, evidence),
        corrections=proposed_corrections(fingerprint),
    )


def looked_at(fingerprint: Fingerprint) -> list[tuple[str, str]]:
    """The facts that families are judged by, in words."""
    return Evidence(fingerprint).words


def proposed_corrections(fingerprint: Fingerprint) -> list[ProposedCorrection]:
    """What :func:`autoseg.evidence.corrections.corrections` finds, as the plan keeps it."""
    return [
        ProposedCorrection(name=one.name, why=one.why, words=list(one.words))
        for one in corrections(Evidence(fingerprint))
    ]


def _row(candidate: PlannedFamily, matches: Mapping[str, Match], time_of: TimeOf) -> ProposedFamily:
    match, plan = candidate.match, candidate.plan
    time = time_of(plan) if plan is not None else None
    return ProposedFamily(
        family=candidate.family,
        verdict=str(match.verdict),
        score=match.score,
        evidence=list(match.reasons),
        against=[
            *match.against,
            *[candidate.problem] * (plan is None and match.verdict is not Verdict.CANNOT),
        ],
        configuration=configuration_words(plan) if plan is not None else "",
        published=length_words(plan) if plan is not None else "",
        fold_seconds=time.fold_seconds if time is not None else None,
        change=_change(candidate.family, matches),
    )


# ------------------------------------------------------------------------------------------------ how sure it is


def find_doubts(matches: Mapping[str, Match], evidence: Evidence) -> list[str]:
    """Why another family than the first may be the right one."""
    best, near = next(iter(matches)), near_first(matches)
    found = [*evidence.doubts]
    for name in (best, *near):
        found += [f"{name}: {doubt}" for doubt in matches[name].doubts]
    if near:
        scores = ", ".join(f"{name} {matches[name].score:.2f}" for name in (best, *near))
        found.append(f"the data do not tell {' and '.join([best, *near])} apart ({scores})")
    return found


def near_first(matches: Mapping[str, Match]) -> list[str]:
    """The families whose scores do not tell them apart from the first, best first; none that cannot run."""
    (_, first), *others = matches.items()
    return [name for name, match in others if first.score - match.score <= NEAR + 1e-9 and match.score > 0]


def _change(family: str, matches: Mapping[str, Match]) -> str:
    """What would move a family to the first place, or take it from there."""
    (best, first), *others = matches.items()
    match = matches[family]
    if family == best:
        if not others:
            return "the only one"
        second, other = others[0]
        lead = first.score - other.score
        return f"{lead:.2f} before {second}" if lead > 0 else f"level with {second}, before it by name"
    if match.verdict is Verdict.CANNOT:
        return ""
    lifting = [
        text
        for text, cost in zip(match.against, match.costs, strict=False)
        if cost < OTHER_KIND and ALL_FITS - sum(match.costs) + cost > first.score
    ]
    if lifting:
        return "first without: " + "; or without: ".join(lifting)
    if family == GENERAL:
        return f"first where no other scores above {match.score:.2f}"
    return "not first without any one of these" if match.against else f"level with {best}, after it by name"


# ------------------------------------------------------------------------------------------------ what it would run


def configuration_words(plan: Plan) -> str:
    """Networks, patches and batches in a line: ``unet 3D, patch 20 x 256 x 224, batch 2``."""
    parts = [_stage_words(plan, stage) for stage in plan.recipe.stages]
    return "; then ".join(dict.fromkeys(parts))


def _stage_words(plan: Plan, stage: Stage) -> str:
    patch = _patch_words(stage.patch_size)
    return f"{plan.networks[stage.network].name}, {patch}, batch {stage.batch_size}"


def _patch_words(patch: PatchSize) -> str:
    if not patch or all(edge == "whole" for edge in patch):
        return "whole slices" if len(patch) == 2 else "whole images"
    return "patch " + " x ".join(map(str, patch))
