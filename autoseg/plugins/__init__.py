"""How planners, trainers and converters are found: by entry point, in any installed package.

A third party adds a method with a package of its own::

    [options.entry_points]
    autoseg.planners =
        mymethod = mypackage.planner:PLANNER
    autoseg.trainers =
        mymethod = mypackage.trainer:TRAINER
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from autoseg import messages
from autoseg.errors import AutosegError, nearest_names

PLANNERS = "autoseg.planners"
TRAINERS = "autoseg.trainers"
CONVERTERS = "autoseg.converters"


def names(group: str) -> list[str]:
    """The names that are installed in one of the three groups, sorted."""
    return sorted(_found(group))


def load(group: str, name: str) -> Any:
    """The plug-in called ``name``.

    Raises:
        AutosegError: no such plug-in, or its package does not import.
    """
    found = _found(group)
    kind = group.rpartition(".")[2].removesuffix("s")
    if name not in found:
        raise AutosegError(
            f"there is no {kind} '{name}'",
            found=f"installed: {', '.join(sorted(found)) or 'none'}",
            fix=nearest_names(name, found),
        )
    try:
        return found[name].load()
    except Exception as error:  # whatever it is, a broken package must not hide the others
        raise AutosegError(
            f"the {kind} '{name}' does not load",
            where=found[name].value,
            found=f"{type(error).__name__}: {error}",
            fix="mend or remove the package that provides it",
        ) from error


def _found(group: str) -> dict[str, EntryPoint]:
    """All entry points of a group by name; autoseg's own win a clash, which is said."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.get(entry.name)
        if other is None or other.value == entry.value:
            found[entry.name] = entry
            continue
        winner = other if other.value.startswith("autoseg.") else entry
        messages.warn(
            f"two plug-ins are called '{entry.name}': {other.value} and {entry.value}; using {winner.value}"
        )
        found[entry.name] = winner
    return found
