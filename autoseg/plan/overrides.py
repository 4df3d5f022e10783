"""What a user changes in a plan with ``--set``: paths into it, and values that are validated as a whole."""

from __future__ import annotations

from typing import Any

from autoseg.errors import AutosegError, nearest_names
from autoseg.files import validate
from autoseg.plan.schema import Plan

OFF = ("off", False, None)
"""Values by which ``--set postprocessing.STEP=...`` takes a step out."""


def apply_overrides(plan: Plan, overrides: dict[str, Any]) -> Plan:
    """The plan with some values changed by the user, validated as a whole and recorded.

    Args:
        plan: it is not changed.
        overrides: dotted path to value, such as ``{"recipe.stages.0.epochs": 20}``. ``stages.0.epochs``
            is short for it: a path that starts with a field of the recipe may leave ``recipe.`` out.
            A list element is named by its index or by its name (``stages.train.epochs``); a step of the
            post-processing that is set to ``off`` is taken out. Where the patch of the prediction was that of the last
            stage, it follows a change of it, unless it is changed too.

    Raises:
        AutosegError: a path does not exist; the nearest names are given.
        FaultsError: a value does not fit.
    """
    content = plan.model_dump(mode="json")
    for path, value in overrides.items():
        _set(content, path, value)
    changed = {tuple(path.removeprefix("recipe.").split(".")[:2]) for path in overrides}
    asked = changed & {("inference",), ("inference", "patch_size")}
    if not asked and content["recipe"]["inference"]["patch_size"] == plan.recipe.stages[-1].patch_size:
        content["recipe"]["inference"]["patch_size"] = content["recipe"]["stages"][-1]["patch_size"]
    content["overrides"] = {**content["overrides"], **overrides}
    return validate(content, Plan, where="plan with --set")


def _set(content: Any, path: str, value: Any) -> None:
    """Change one value in nested dicts and lists."""
    parts = path.split(".")
    if parts[0] not in content and parts[0] in content["recipe"]:
        parts = ["recipe", *parts]
    place = content
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        key = _key(place, part, path, may_be_new=last and depth > 0 and parts[depth - 1] == "arguments")
        if last and parts[:-1] == ["recipe", "postprocessing"] and value in OFF:
            del place[key]
        elif last:
            place[key] = value
        else:
            place = place[key]


def _key(place: Any, part: str, path: str, *, may_be_new: bool) -> str | int:
    """The key or index that ``part`` means in ``place``."""
    if isinstance(place, list) and part.lstrip("-").isdigit() and -len(place) <= int(part) < len(place):
        return int(part)
    if isinstance(place, list) and part in (names := [v.get("name") for v in place if isinstance(v, dict)]):
        return names.index(part)
    if isinstance(place, dict) and (part in place or may_be_new):
        return part
    if isinstance(place, dict):
        known = list(place) if "recipe" not in place else [*place, *place["recipe"]]
    elif isinstance(place, list):
        known = [*(str(i) for i in range(len(place))), *(v["name"] for v in place if "name" in v)]
    else:
        known = []
    raise AutosegError(
        f"--set {path}: there is no '{part}'",
        found=f"a value without parts: {place!r}" if not known else "",
        expected="a path into plan.json, such as stages.0.epochs=20",
        fix=nearest_names(part, known) if known else "leave the end of the path out",
    )
