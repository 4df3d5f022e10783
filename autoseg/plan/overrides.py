"""What is changed in a plan, by the user with ``--set`` or by whoever made it: paths and values, validated."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from autoseg.files import validate
from autoseg.plan.plan_paths import unknown_path, validate_settings
from autoseg.plan.schema import Plan, Reason, Recipe, Stage

OFF = ("off", False, None)
"""Values by which ``--set postprocessing.STEP=...`` takes a step out."""

QUICK = "quick plan, for trying out"
"""Why a value of a plan for ``planner.length=quick`` is another than that of the full one."""

SHOWN_WITH = {"schedule": "optimiser", "gradient_clip": "optimiser", "iterations_per_epoch": "epochs"}
"""Fields of a stage that have no reason of their own, and the field whose reason speaks of them."""


def apply_overrides(plan: Plan, overrides: dict[str, Any]) -> Plan:
    """The plan with some values changed by the user, validated as a whole and recorded.

    Args:
        plan: it is not changed.
        overrides: dotted path to value, such as ``{"recipe.stages.0.epochs": 20}``. ``stages.0.epochs``
            is short for it: a path that starts with a field of the recipe may leave ``recipe.`` out. One that starts
            with a field of a stage, such as ``epochs``, is for all stages.
            A list element is named by its index or by its name (``stages.train.epochs``); a step of the
            post-processing that is set to ``off`` is taken out. Where the patch of the prediction was that of the last
            stage, it follows a change of it, unless it is changed too.

    Raises:
        AutosegError: a path does not exist; the nearest ones of this plan are given.
        FaultsError: a value does not fit; what was expected is given.
    """
    content = _changed(plan, overrides)
    content["overrides"] = {**plan.overrides, **overrides}
    before = plan.model_dump(mode="json")
    paths = {_by_index(before, long): path for path in overrides for long in long_paths(plan, path)}

    def typed(found: str) -> str:
        whole = next((long for long in paths if f"{found}.".startswith(f"{long}.")), None)
        return found if whole is None else paths[whole] + found[len(whole) :]

    return validate_settings(content, Plan, where="plan with --set", typed=typed)


def replan(plan: Plan, changes: Mapping[str, Any], why: str) -> Plan:
    """The plan with some values changed by whoever made it; the reasons follow.

    Args:
        plan: it is not changed.
        changes: as of :func:`apply_overrides`.
        why: the reason for all of them; what the plan had instead is added. A value that it has already keeps its place
            and gets the reason. A reason that speaks of more than the value stays, and the change is added to it.
    """
    content, before = _changed(plan, changes), plan.model_dump(mode="json")
    reasons, names = list(plan.reasons), [stage.name for stage in plan.recipe.stages]
    for path, value in _long(plan, changes).items():
        index = _reason_of(path, reasons, names)
        if index is not None and not reasons[index].why.startswith(why):
            had, same = reasons[index], _set(plan, before, path, value) == value
            text = why if same else f"{why}; else {had.value}"
            if part := _part_of(path, had.what):
                text = had.why if same else f"{had.why}; but {part}={_in_words(value)}: {why}"
            reasons[index] = had.model_copy(update={"why": text})
    content["reasons"] = [reason.model_dump(mode="json") for reason in reasons]
    return validate(content, Plan, where="the plan")


def _changed(plan: Plan, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's content with the changes, not validated yet."""
    content = plan.model_dump(mode="json")
    paths = _long(plan, changes)
    for path, value in paths.items():
        _set(plan, content, path, value)
    changed = {tuple(path.removeprefix("recipe.").split(".")[:2]) for path in paths}
    asked = changed & {("inference",), ("inference", "patch_size")}
    if not asked and plan.recipe.inference.patch_size == plan.recipe.stages[-1].patch_size:
        # values of another kind, which are refused later
        with contextlib.suppress(KeyError, IndexError, TypeError):
            content["recipe"]["inference"]["patch_size"] = content["recipe"]["stages"][-1]["patch_size"]
    return content


def _long(plan: Plan, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes by their paths as the plan has them: one for each stage where a path starts with a field of a stage."""
    return {long: value for path, value in changes.items() for long in long_paths(plan, path)}


def long_paths(plan: Plan, path: str) -> list[str]:
    """What a path that ``--set`` takes stands for, from the top of the plan."""
    first = path.split(".")[0]
    if first in Plan.model_fields:
        return [path]
    if first in Recipe.model_fields:
        return [f"recipe.{path}"]
    if first in Stage.model_fields:
        return [f"recipe.stages.{index}.{path}" for index in range(len(plan.recipe.stages))]
    return [path]


def _set(plan: Plan, content: Any, path: str, value: Any) -> Any:
    """Change one value in nested dicts and lists, and return what was there."""
    parts = path.split(".")
    place, had = content, None
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        key = _key(place, part, may_be_new=last and depth > 0 and parts[depth - 1] == "arguments")
        if key is None:
            raise unknown_path(plan, path, part, place)
        if last and parts[:-1] == ["recipe", "postprocessing"] and value in OFF:
            del place[key]
        elif last:
            had = place.get(key) if isinstance(place, dict) else place[key]
            place[key] = value
        else:
            place = place[key]
    return had


def _by_index(place: Any, path: str) -> str:
    """A path with the entries of lists by their indices from 0."""
    parts: list[str] = []
    for part in path.split("."):
        key = _key(place, part, may_be_new=False)
        parts.append(part if key is None else str(key % len(place) if isinstance(key, int) else key))
        place = None if key is None else place[key]
    return ".".join(parts)


def _key(place: Any, part: str, *, may_be_new: bool) -> str | int | None:
    """The key or index that ``part`` means in ``place``; None where it means nothing."""
    if isinstance(place, list) and part.lstrip("-").isdecimal() and -len(place) <= int(part) < len(place):
        return int(part)
    if isinstance(place, list) and part in (names := [v.get("name") for v in place if isinstance(v, dict)]):
        return names.index(part)
    return part if isinstance(place, dict) and (part in place or may_be_new) else None


def _part_of(path: str, what: str) -> str:
    """What of a reason's subject a path means, from there; empty for all of it, or where it is shown with another."""
    return path.removeprefix(f"{what}.") if path.startswith(f"{what}.") else ""


def _in_words(value: Any) -> str:
    """A value of a plan, for a reason."""
    return "none" if value in (None, [], {}) else str(value)


def _reason_of(path: str, reasons: list[Reason], names: list[str]) -> int | None:
    """The index of the reason that speaks of a path: the one with the longest path at or above it.

    Args:
        path: into the plan.
        reasons: of the plan.
        names: of its stages.
    """
    parts = [SHOWN_WITH.get(part, part) for part in path.split(".")]
    if parts[1:2] == ["stages"] and parts[2] in names:
        parts[2] = str(names.index(parts[2]))
    above = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    where = {reason.what: index for index, reason in enumerate(reasons)}
    return next((where[what] for what in above if what in where), None)
