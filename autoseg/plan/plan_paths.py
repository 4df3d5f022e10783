"""Paths into a plan, for whoever mistypes one: those that exist with their values, and what a value may be."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import BaseModel

from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names
from autoseg.files import Model, validate
from autoseg.messages import count_of
from autoseg.plan.schema import Plan, Recipe, Stage

RECORDS = {
    *("version", "planner", "planner_options", "dataset", "fingerprint_hash", "channel_names", "labels"),
    *("regions_class_order", "reasons", "overrides", "alternatives", "proposals"),
}
"""Fields of a plan that say where it comes from; a user changes none of them."""

NEAREST = 6
LONGEST_VALUE, LONGEST_HINT = 60, 120


def settings(plan: Plan) -> dict[str, Any]:
    """Every path that ``--set`` takes in this plan with its value, as short as it can be written."""
    content = plan.model_dump(mode="json", exclude=RECORDS)
    return dict(_leaves({**content.pop("recipe"), **content}, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths and values below a place; lists of named entries are gone into, by name."""
    parts: Mapping[str, Any] = {}
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        parts = {str(entry.get("name", index)): entry for index, entry in enumerate(value)}
    if not parts:
        yield path, value
    for name, part in parts.items():
        yield from _leaves(part, f"{path}.{name}" if path else name)


def unknown_path(plan: Plan, path: str, part: str, place: Any) -> AutosegError:
    """The error for a path that is not in the plan.

    Args:
        plan: the plan at hand.
        path: that was asked for, from the top of the plan.
        part: the first part of it that is not there.
        place: where it was looked for.
    """
    short = path.removeprefix("recipe.")
    if short.startswith("planner."):
        return AutosegError(
            f"--set {short}: options of the planner belong to the planning",
            found="a plan that is made already",
            fix=f"autoseg_plan_and_preprocess -d {plan.dataset} -pl {plan.planner} --set {short}=...",
        )
    known = _names_at(place)
    lines = [f"{p}={shortened(json.dumps(value))}" for p, value in nearest(plan, short).items()]
    hint = nearest_names(part, known) if known else "leave the end of the path out"
    return AutosegError(
        f"--set {short}: there is no '{part}'",
        found="" if known else "an empty list" if place == [] else f"a value without parts: {place!r}",
        expected="a path into plan.json; in this plan there are"
        + "".join(f"\n            {x}" for x in lines),
        fix=hint if len(hint) <= LONGEST_HINT else "take one of these; all others stand in plan.json",
    )


def _names_at(place: Any) -> list[str]:
    """What could have stood there."""
    if isinstance(place, dict):
        top = [*Recipe.model_fields, *Stage.model_fields] if "recipe" in place else []
        return [*(name for name in place if not top or name not in RECORDS), *top]
    if isinstance(place, list):
        return [
            *map(str, range(len(place))),
            *(v["name"] for v in place if isinstance(v, dict) and "name" in v),
        ]
    return []


def nearest(plan: Plan, path: str) -> dict[str, Any]:
    """The paths of a plan that are most like ``path``, with their values, best first."""
    found = settings(plan)
    likeness = {name: (_alike(path, name), -len(name)) for name in found}
    return {name: found[name] for name in sorted(found, key=likeness.__getitem__, reverse=True)[:NEAREST]}


def _alike(path: str, name: str) -> float:
    """0 to 4: how alike wholes and last parts are, the share of parts that agree from the first on, and initials.

    So ``learning_rate`` finds ``lr``.
    """
    parts, there = path.split("."), name.split(".")
    pairs = ((path, name), (parts[-1], there[-1]))
    likeness = sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
    same = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(parts, there, strict=False))
    )
    initials = "".join(word[:1] for word in parts[-1].split("_"))
    return likeness + same / len(there) + (len(initials) > 1 and there[-1] == initials)


def shortened(text: str) -> str:
    """A value's text as it fits onto a line."""
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


# ------------------------------------------------------------------------------------------- what a value may be


def validate_settings(
    content: Any, model: type[Model], *, where: str, typed: Callable[[str], str] = str
) -> Model:
    """Hold values that a user has set against a schema; what does not fit is answered with what is expected there.

    Args:
        content: plain data.
        model: a plan, or the options of a planner.
        where: what the data are.
        typed: how the user wrote a path of the model.

    Raises:
        FaultsError: values that do not fit.
    """
    try:
        return validate(content, model, where=where)
    except FaultsError as error:
        faults = dict.fromkeys(_in_plain_words(fault, model, typed) for fault in error.faults)
        some = count_of(len(faults), "value does", "values do")
        raise FaultsError(f"{where}: {some} not fit", [*faults], "setting") from None


def _in_plain_words(fault: Fault, model: type[BaseModel], typed: Callable[[str], str]) -> Fault:
    """A fault of a schema for whoever typed the value; what a validator of ours says stays as it is."""
    fault = replace(fault, where=_whole_choice(model, fault.where))
    expected = fault.expected or expected_at(model, fault.where)
    own = not (expected and fault.problem.startswith("Input should be"))
    text = fault.found[1:-1] if len(fault.found) > 2 and fault.found[0] in "'\"" else fault.found
    problem = fault.problem if own else "this value does not fit"
    return replace(fault, where=typed(fault.where), problem=problem, found=text, expected=expected)


def _whole_choice(model: type[BaseModel], path: str) -> str:
    """The path of a value that may be a list or something plain; pydantic adds the type that it has tried."""
    whole = _schema(model)
    place, named, seen = whole, whole.get("$defs", {}), []
    for part in path.split("."):
        kinds = {one.get("type") for one in place.get("anyOf", [])}
        if "array" in kinds and len(kinds - {"null"}) > 1:
            break
        place = _below(place, part, named)
        seen.append(part)
    return ".".join(seen)


def expected_at(model: type[BaseModel], path: str) -> str:
    """Type and range of a value in words; empty for a part that has values of its own.

    Args:
        model: a plan, or the options of a planner.
        path: into it.
    """
    whole = _schema(model)
    place, named = whole, whole.get("$defs", {})
    for part in path.split("."):
        place = _below(place, part, named)
    return _words(place, named)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _below(place: dict[str, Any], part: str, named: dict[str, Any]) -> dict[str, Any]:
    """The schema of a part; empty where nothing is known of it."""
    place = _resolved(place, named)
    if part in place.get("properties", {}):
        found: dict[str, Any] = place["properties"][part]
        return found
    if part.isdecimal() and "items" in place:
        return dict(place["items"])
    further = place.get("additionalProperties")
    return dict(further) if isinstance(further, dict) else {}


def _resolved(place: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference stands for."""
    if "$ref" in place:
        return dict(named[place["$ref"].rpartition("/")[2]])
    return place


def _words(place: dict[str, Any], named: dict[str, Any]) -> str:
    """A schema in words."""
    place = _resolved(place, named)
    if "anyOf" in place:
        return " or ".join(filter(None, (_words(one, named) for one in place["anyOf"])))
    if "enum" in place or "const" in place:
        *others, last = map(str, place["enum"]) if "enum" in place else (json.dumps(place["const"]),)
        return f"{', '.join(others)} or {last}" if others else last
    if place.get("type") == "array":
        if "prefixItems" in place:
            return f"a list of {len(place['prefixItems'])} values"
        inner = _words(place.get("items", {}), named)
        return f"a list of entries, each {inner}" if inner else "a list"
    plain = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    plain |= {"string": "text", "null": "null"}
    return plain.get(place.get("type", ""), "") + _range(place)


def _range(place: dict[str, Any]) -> str:
    """The bounds of a number in words."""
    said = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    bounds = [f"{words} {place[key]:.12g}" for key, words in said.items() if key in place]
    return f", {' and '.join(bounds)}" if bounds else ""
