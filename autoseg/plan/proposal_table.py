"""What stands beside a plan, as text: the ranked table of the families, doubts, corrections, and how long it takes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from autoseg.messages import duration
from autoseg.plan.schema import ForetoldTime, Plan, Proposals, ProposedCorrection, ProposedFamily
from autoseg.plan.table import NARROWEST, WIDEST, in_columns

LONG = 12 * 3600.0
"""A fold that takes longer comes with what to do about it."""
GENERAL = "unet"
"""The family that any dataset can be given."""


def format_proposals(plan: Plan, width: int | None = None) -> str:
    """What was looked at and what else could be done, for a terminal; empty for a plan without.

    Args:
        plan: with its proposals.
        width: of the lines; the terminal's when None.
    """
    found = plan.proposals
    if found is None:
        return ""
    width = max(NARROWEST, min(width or shutil.get_terminal_size((100, 24)).columns, WIDEST))
    parts = [_looked_at(found, width)] if found.families else []
    parts += [_families(found, width), _choice(plan, found, width)] if found.families else []
    parts += [_corrections(found.corrections, width)] if found.corrections else []
    parts += [_time(plan, found.time, width)] if found.time is not None else []
    return "".join("\n".join([*part, ""]) + "\n" for part in parts)


def _looked_at(found: Proposals, width: int) -> list[str]:
    return ["THE DATA", *(line for label, text in found.looked_at for line in _entry(label, text, width))]


def _entry(label: str, text: str, width: int, indent: int = 14) -> list[str]:
    head = f"  {label:<{indent - 2}}"
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * indent) or [head.rstrip()]


def _families(found: Proposals, width: int) -> list[str]:
    """Scores and times in columns; then for and against, family by family."""
    table = [["", "family", "score", "", "a fold here", "length as published"]]
    for rank, row in enumerate(found.families, start=1):
        time = "" if row.fold_seconds is None else f"about {duration(row.fold_seconds)}"
        score = "" if row.verdict == "cannot" else f"{row.score:.2f}"
        table.append([f"{rank}", row.family, score, row.verdict, time, row.published])
    lines = ["METHODS, by what they were made for", *("  " + line for line in in_columns(table))]
    for row in found.families:
        lines += ["", f"  {row.family}", *_of_family(row, width)]
    return lines


def _of_family(row: ProposedFamily, width: int) -> Iterator[str]:
    other = row.verdict == "possible" and bool(row.against)  # then the evidence says what it was made for
    for sign, texts in ((" " if other else "+", row.evidence), ("-", row.against)):
        for text in texts:
            yield from textwrap.wrap(text, width, initial_indent=f"    {sign} ", subsequent_indent="      ")
    for label, text in (("runs", row.configuration), ("order", row.change)):
        if text:
            yield from textwrap.wrap(
                f"{label}: {text}", width, initial_indent="    ", subsequent_indent="      "
            )


def _choice(plan: Plan, found: Proposals, width: int) -> list[str]:
    """What was chosen, how sure that is, and what would tell."""
    best, unsure = found.families[0], bool(found.doubts)
    general = best.family == GENERAL
    said = "nothing published fits well, so unet, which fits any dataset" if general else best.family
    lines = [f"CHOICE: {said}{', but this is not sure' if unsure else ''}"]
    for doubt in found.doubts:
        lines += textwrap.wrap(doubt, width, initial_indent="  ? ", subsequent_indent="    ")
    note = (
        "The score says what a method was made for, not how well it will do: on other data the general unet was better "
        "than a method made for them. Only a trial on your own cases tells:"
    )
    return [
        *lines,
        *textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="  "),
        f"    autoseg_run {plan.dataset}",
    ]


def _corrections(corrections: Sequence[ProposedCorrection], width: int) -> list[str]:
    lines = ["CORRECTIONS that the data ask for, with any method; none is made unless you set it"]
    for one in corrections:
        lines += textwrap.wrap(f"{one.name}: {one.why}", width, initial_indent="  ", subsequent_indent="    ")
        lines.append(f"    --set {' '.join(one.words)}")
    return lines


def _time(plan: Plan, time: ForetoldTime, width: int) -> list[str]:
    """How long a fold takes here, and what to do where that is long."""
    shown = {stage: _step(seconds) for stage, seconds in time.step_seconds.items()}
    steps = ", ".join(f"{words} ({stage})" for stage, words in shown.items())
    steps = next(iter(shown.values())) if len({*shown.values()}) == 1 else steps
    least = "" if time.whole else "at least "
    memory = f", {time.peak_gb:g} GB at its peak" if time.peak_gb is not None else ""
    cut = f", cut by --hours {time.hours:g} (published: {time.published})" if time.hours is not None else ""
    text = (
        f"one fold takes {least}about {duration(time.fold_seconds)} on this device ({time.device}){cut}, by a step on "
        f"random numbers: {steps}{memory}"
    )
    lines = ["TIME", *textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")]
    return [*lines, *(_advice(plan) if time.fold_seconds > LONG and time.hours is None else [])]


def _advice(plan: Plan) -> list[str]:
    command = f"autoseg_plan_and_preprocess -d {plan.dataset} -pl {plan.planner}"
    return [
        "  That is long. Train on a card, or plan again with one of these:",
        f"    {command} -p night --hours 8",
        f"    {command} -p quick --set planner.length=quick",
    ]


def _step(seconds: float) -> str:
    if seconds >= 90:
        return duration(seconds)
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"
