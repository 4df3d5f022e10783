"""Which planner plans, and with which of the user's changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from autoseg import messages, plugins
from autoseg.errors import AutosegError, nearest_names
from autoseg.fingerprint import Fingerprint
from autoseg.orientation import described
from autoseg.plan import Plan, Reason, Recipe, apply_overrides
from autoseg.plan.plan_paths import expected_at, validate_settings
from autoseg.plugins.planner import Budget, Match, Planner, Verdict
from autoseg.preparation.quick import Common, make_quick

OPTIONS = "planner."
"""Begins the paths of a planner's options."""
AUTO = "auto"
"""Stands for the planner that fits a dataset best."""


def make_plan(
    fingerprint: Fingerprint, planner_name: str, budget: Budget, overrides: dict[str, Any] | None = None
) -> Plan:
    """Ask a planner for a plan and apply the user's changes.

    Args:
        fingerprint: of the dataset.
        planner_name: an installed planner; ``auto`` takes the one that fits best, and says what all others said.
        budget: memory of the training device.
        overrides: dotted path to value; paths that start with ``planner.`` go to the planner before it plans,
            all others change its plan. An option of the planner that is no field of a plan may leave ``planner.`` out,
            where the planner was named. ``planner.length`` is an option of every planner
            (:class:`autoseg.preparation.quick.Common`).

    Raises:
        AutosegError: unknown planner or path; a value that does not fit; no planner can run on this dataset.
    """
    if planner_name == AUTO:
        return _make_best_plan(fingerprint, budget, overrides or {})
    planner = _load(planner_name)
    known = {*planner.options.model_fields, *Common.model_fields}
    short = known - set(Plan.model_fields) - set(Recipe.model_fields)
    options, changes = _parted(overrides or {}, short)
    return _planned(planner, fingerprint, budget, options, changes)


def _load(name: str) -> Planner:
    """The planner called ``name``; where there is none, ``auto`` is among the names that are offered."""
    known = [AUTO, *plugins.names(plugins.PLANNERS)]
    if name not in known:
        raise AutosegError(
            f"there is no planner '{name}'",
            found=f"to choose from: {', '.join(known)}",
            fix=nearest_names(name, known),
        )
    planner: Planner = plugins.load(plugins.PLANNERS, name)
    return planner


def _make_best_plan(fingerprint: Fingerprint, budget: Budget, overrides: dict[str, Any]) -> Plan:
    """The plan of the planner that fits best; the verdicts of all come first among its reasons."""
    matches = ask_all(fingerprint)
    best = next(iter(matches), None)
    if best is None or matches[best].verdict is Verdict.CANNOT:
        raise AutosegError(
            "no installed planner fits this dataset",
            where=fingerprint.dataset,
            found="; ".join(f"{name}: {found.words}" for name, found in matches.items()) or "no planner",
            expected="at least the planner 'unet', which comes with autoseg and fits any dataset",
            fix="install autoseg again, or name a planner with -pl",
        )
    options, changes = _parted(overrides, set(Common.model_fields))
    plan = _planned(plugins.load(plugins.PLANNERS, best), fingerprint, budget, options, {})
    plan = plan.model_copy(update={"reasons": [_reason(best, matches), *plan.reasons]})
    return apply_overrides(plan, changes) if changes else plan


def ask_all(fingerprint: Fingerprint) -> dict[str, Match]:
    """What every installed planner says, best first; one that does not load or answer is left out with a warning."""
    found: dict[str, Match] = {}
    for name in plugins.names(plugins.PLANNERS):
        try:
            found[name] = _ask(name, fingerprint)
        except AutosegError as error:
            messages.warn(
                f"auto leaves out the planner '{name}': {error.fault.problem} ({error.fault.found})"
            )
        except Exception as error:  # a third party's fault must not cost the user the other methods
            messages.warn(f"auto leaves out the planner '{name}': {type(error).__name__}: {error}")
    return dict(sorted(found.items(), key=lambda item: (*item[1].rank, item[0])))


def _ask(name: str, fingerprint: Fingerprint) -> Match:
    """What one planner says.

    Raises:
        TypeError: something else than a :class:`autoseg.plugins.planner.Match`.
    """
    answer = plugins.load(plugins.PLANNERS, name).match(fingerprint)
    if not isinstance(answer, Match):
        raise TypeError(f"its match is a {type(answer).__name__}, not a Match")
    return answer


def _reason(best: str, matches: dict[str, Match]) -> Reason:
    if len(matches) == 1:
        return Reason(what="method", value=best, why=f"the only installed planner: {matches[best].words}")
    others = [f"{name} {found.verdict} ({found.words})" for name, found in matches.items() if name != best]
    why = f"it fits best of {len(matches)}, {matches[best]}"
    return Reason(what="method", value=best, why="; ".join([why, *others]))


def _parted(overrides: dict[str, Any], short: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the planner, and changes of its plan."""
    options, changes = {}, {}
    for path, value in overrides.items():
        if path.startswith(OPTIONS) or path in short:
            options[path.removeprefix(OPTIONS)] = value
        else:
            changes[path] = value
    return options, changes


def _planned(
    planner: Planner,
    fingerprint: Fingerprint,
    budget: Budget,
    options: dict[str, Any],
    changes: dict[str, Any],
) -> Plan:
    """A plan of one planner.

    Raises:
        AutosegError: an option that it does not have.
        FaultsError: a value that does not fit.
    """
    known = {**planner.options.model_fields, **Common.model_fields}
    for name in options:
        if name not in known:
            raise _unknown_option(planner, name)
    common = {name: options.pop(name) for name in [*options] if name in Common.model_fields}
    length = validate_settings(common, Common, where="options of every planner", typed=_option).length
    typed = validate_settings(options, planner.options, where=f"options of {planner.name}", typed=_option)
    plan = planner.plan(fingerprint, replace(budget, quick=length == "quick"), typed)
    plan = _oriented(plan, fingerprint)
    if length == "quick":
        plan = make_quick(plan)
    return apply_overrides(plan, changes) if changes else plan


def _option(path: str) -> str:
    """How a user writes an option of the planner; what is wrong with several of them together is of no one."""
    return "options together" if path == "the whole" else f"{OPTIONS}{path}"


def _unknown_option(planner: Planner, name: str) -> AutosegError:
    """The error for an option that a planner does not have; all that there are come with it."""
    lines = [
        f"planner.{option}={json.dumps(field.get_default(call_default_factory=True), default=str)}"
        f"  ({expected_at(model, option) or 'see its page'})"
        for model in (Common, planner.options)
        for option, field in model.model_fields.items()
    ]
    return AutosegError(
        f"--set planner.{name}: the planner '{planner.name}' has no such option",
        expected="one of these, here with what they are when left out"
        + "".join(f"\n            {x}" for x in lines),
        fix=nearest_names(name, {*planner.options.model_fields, *Common.model_fields}),
    )


def _oriented(plan: Plan, fingerprint: Fingerprint) -> Plan:
    """The plan of any planner with the orientation of the facts that it was made from, unless it names one itself."""
    chosen, settings = fingerprint.orientation, plan.preprocessing
    if chosen is None or settings.orientation is not None:
        return plan
    stored = {case.name: case.orientation for case in fingerprint.cases}
    reasons = list(plan.reasons)
    if set(stored.values()) != {chosen}:
        why = (
            f"that of most cases; stored are {described(stored)}; the others are turned, without interpolation, and "
            "predicted masks are turned back"
        )
        reasons.append(Reason(what="preprocessing.orientation", value=chosen, why=why))
    preprocessing = settings.model_copy(update={"orientation": chosen})
    return plan.model_copy(update={"preprocessing": preprocessing, "reasons": reasons})
