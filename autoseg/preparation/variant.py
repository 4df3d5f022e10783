"""Variants of a prepared plan: the same planner, data and overrides, some other options of the planner.

A training can take one without preparing anything again, as long as the preprocessing stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from autoseg import plugins
from autoseg.files import validate
from autoseg.plan import Plan, Recipe
from autoseg.plan.schema import Stage
from autoseg.plugins.planner import Budget, Planner
from autoseg.preparation.choice import OPTIONS, make_plan
from autoseg.preparation.prepared import Prepared
from autoseg.preparation.quick import Common


def parted(plan: Plan, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``--set`` of a training says, as options of the plan's planner and as changes of the plan.

    An option that is no field of a plan may leave ``planner.`` out.
    """
    short: set[str] = set()
    if plan.planner in plugins.names(plugins.PLANNERS):
        fields = {*Plan.model_fields, *Recipe.model_fields, *Stage.model_fields}
        short = set(_planner(plan).options.model_fields) - fields
    options, changes = {}, {}
    for path, value in overrides.items():
        if path.startswith(OPTIONS) or path in short:
            options[path.removeprefix(OPTIONS)] = value
        else:
            changes[path] = value
    return options, changes


def make_variant(prepared: Prepared, options: Mapping[str, Any]) -> Plan:
    """The prepared plan as its planner makes it with some other options.

    What a user set when planning holds for it too, and so does all else in which the prepared plan is not what the
    planner makes of the data by itself, such as what the memory of another card asked for.

    Raises:
        AutosegError: the planner is not installed or has no such option.
        FaultsError: a value that does not fit.
    """
    before = own_options(prepared.plan)
    first, other = (_planned(prepared, chosen) for chosen in (before, {**before, **options}))
    there, base, variant = (plan.model_dump(mode="json") for plan in (prepared.plan, first, other))
    merged = _carried(there, base, variant)
    merged["reasons"] = variant["reasons"]
    return validate(merged, Plan, where=f"the plan of {prepared.plan.planner} with other options")


def own_options(plan: Plan) -> dict[str, Any]:
    """The options of the planner that are not as they are when left out."""
    defaults = _defaults(_planner(plan))
    return {name: value for name, value in plan.planner_options.items() if value != defaults.get(name)}


def variant_name(plan: Plan, options: Mapping[str, Any]) -> str:
    """What tells a model of a variant from that of the prepared plan: ``E2``, ``focal-off``; empty for no difference.

    Args:
        plan: the prepared one.
        options: as they were set; typed values of the variant's plan.
    """
    defaults = _defaults(_planner(plan))
    before = {**defaults, **plan.planner_options}
    words = (_word(name, value) for name, value in options.items() if value != before.get(name))
    return "__".join(words)


def typed_options(plan: Plan, names: Iterable[str]) -> dict[str, Any]:
    """Options of the plan's planner with their values, as plain data."""
    values = {**_defaults(_planner(plan)), **plan.planner_options}
    return {name: values.get(name) for name in names}


def _word(name: str, value: Any) -> str:
    if isinstance(value, str) and value not in ("none", "auto") and value.isidentifier():
        return value
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    return f"{name}-{re.sub(r'[^A-Za-z0-9.+-]+', '-', text).strip('-.')}"


def _planner(plan: Plan) -> Planner:
    planner: Planner = plugins.load(plugins.PLANNERS, plan.planner)
    return planner


def _defaults(planner: Planner) -> dict[str, Any]:
    """What the options are when they are left out."""
    fields = {**Common.model_fields, **planner.options.model_fields}
    return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}


def _planned(prepared: Prepared, options: Mapping[str, Any]) -> Plan:
    changes = {f"{OPTIONS}{name}": value for name, value in options.items()}
    plan = prepared.plan
    return make_plan(prepared.fingerprint, plan.planner, Budget(), {**plan.overrides, **changes})


def _carried(there: Any, base: Any, variant: Any) -> Any:
    """``variant`` with what differs between ``base`` and ``there``, wherever the variant itself is as the base."""
    if variant == base:
        return there
    if all(isinstance(part, dict) for part in (there, base, variant)):
        return {
            key: _carried(there[key], base[key], value) if key in there and key in base else value
            for key, value in variant.items()
        }
    if all(isinstance(part, list) for part in (there, base, variant)) and len(there) == len(base) == len(
        variant
    ):
        return [_carried(*parts) for parts in zip(there, base, variant, strict=True)]
    return variant
