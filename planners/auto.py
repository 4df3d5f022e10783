"""The planner ``auto``: asks every installed planner how well it fits, and lets the best one plan."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from autoseg import messages, plugins
from autoseg.errors import AutosegError
from autoseg.fingerprint import Fingerprint
from autoseg.plan import Plan, Reason
from autoseg.plugins.planner import Budget, Match, Planner
from autoseg.preparation.choice import make_plan


class AutoOptions(BaseModel, extra="allow"):
    """Options of whichever planner is chosen; they are checked there."""


def match(fingerprint: Fingerprint) -> Match:
    """As well as the best of the others."""
    return max(
        ask_all(fingerprint).values(), key=lambda found: found.score, default=Match(0, "no other planner")
    )


def ask_all(fingerprint: Fingerprint) -> dict[str, Match]:
    """What every installed planner says, best first; a planner that does not load is left out with a warning."""
    found: dict[str, Match] = {}
    for name in plugins.names(plugins.PLANNERS):
        if name == "auto":
            continue
        try:
            found[name] = plugins.load(plugins.PLANNERS, name).match(fingerprint)
        except AutosegError as error:
            messages.warn(
                f"auto leaves out the planner '{name}': {error.fault.problem} ({error.fault.found})"
            )
        except Exception as error:  # a third party's fault must not cost the user the other methods
            messages.warn(f"auto leaves out the planner '{name}': {type(error).__name__}: {error}")
    return dict(sorted(found.items(), key=lambda item: (-item[1].score, item[0])))


def plan(fingerprint: Fingerprint, budget: Budget, options: AutoOptions) -> Plan:
    """The plan of the planner that fits best; the scores and reasons of all come first among its reasons.

    Raises:
        AutosegError: no planner can run on this dataset, or the chosen one does not know an option.
    """
    matches = ask_all(fingerprint)
    best = next(iter(matches), None)
    if best is None or matches[best].score <= 0:
        raise AutosegError(
            "no installed planner fits this dataset",
            where=fingerprint.dataset,
            found="; ".join(f"{name}: {m.reason}" for name, m in matches.items()) or "no planner",
            expected="at least the planner 'unet', which comes with autoseg and fits any dataset",
            fix="install autoseg again, or name a planner with -pl",
        )
    passed: dict[str, Any] = {f"planner.{name}": value for name, value in options.model_dump().items()}
    chosen = make_plan(fingerprint, best, budget, passed)
    return chosen.model_copy(update={"reasons": [_reason(best, matches), *chosen.reasons]})


def _reason(best: str, matches: dict[str, Match]) -> Reason:
    others = [f"{name} {m.score:.2f} ({m.reason})" for name, m in matches.items() if name != best]
    why = f"it fits best of {len(matches)}: {matches[best].score:.2f}, {matches[best].reason}"
    if len(matches) == 1:
        why = f"the only installed planner: {matches[best].reason}"
    return Reason(what="method", value=best, why="; ".join([why, *others]))


PLANNER = Planner(
    name="auto",
    summary="asks all installed planners and takes the one that fits best",
    match=match,
    plan=plan,
    options=AutoOptions,
)
