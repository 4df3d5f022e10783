"""Which planner plans, and with which of the user's changes."""

from __future__ import annotations

from typing import Any

from autoseg import plugins
from autoseg.errors import AutosegError, nearest_names
from autoseg.files import validate
from autoseg.fingerprint import Fingerprint
from autoseg.plan import Plan, Recipe, apply_overrides
from autoseg.plugins.planner import Budget, Planner


def make_plan(
    fingerprint: Fingerprint, planner_name: str, budget: Budget, overrides: dict[str, Any] | None = None
) -> Plan:
    """Ask a planner for a plan and apply the user's changes.

    Args:
        fingerprint: of the dataset.
        planner_name: an installed planner; ``auto`` takes the one that fits best.
        budget: memory of the training device.
        overrides: dotted path to value; paths that start with ``planner.`` go to the planner before it plans,
            all others change its plan. An option of the planner that is no field of a plan may leave ``planner.`` out.

    Raises:
        AutosegError: unknown planner or path; a value that does not fit.
    """
    planner: Planner = plugins.load(plugins.PLANNERS, planner_name)
    prefix = "planner."
    short = set(planner.options.model_fields) - set(Plan.model_fields) - set(Recipe.model_fields)
    options, changes = {}, {}
    for path, value in (overrides or {}).items():
        if path.startswith(prefix) or path in short:
            options[path.removeprefix(prefix)] = value
        else:
            changes[path] = value
    if planner_name != "auto":
        _refuse_unknown_options(planner, options)
    plan = planner.plan(
        fingerprint, budget, validate(options, planner.options, where=f"options of {planner.name}")
    )
    return apply_overrides(plan, changes) if changes else plan


def _refuse_unknown_options(planner: Planner, options: dict[str, Any]) -> None:
    known = planner.options.model_fields
    for name in options:
        if name not in known:
            raise AutosegError(
                f"--set planner.{name}: the planner '{planner.name}' has no such option",
                fix=nearest_names(name, known),
            )
