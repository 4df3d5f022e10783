"""The parts of one kind by name: a family's own first, then autoseg's, then those of the other installed families."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from autoseg import messages, plugins
from autoseg.errors import AutosegError, nearest_names
from autoseg.plugins.trainer import Trainer


class Part(Protocol):
    """Any row."""

    @property
    def name(self) -> str:
        """In the plan."""


PartT = TypeVar("PartT", bound=Part)


class Registry(Generic[PartT]):
    """Where the rows of one kind are looked up.

    Args:
        kind: of the parts, for messages ("network", "loss").
        field: of :class:`autoseg.plugins.trainer.Trainer`, where families list theirs.
        rows: autoseg's own.
    """

    def __init__(self, kind: str, field: str, rows: Iterable[PartT] = ()) -> None:
        self.kind, self.field = kind, field
        self._own: dict[str, PartT] = {}
        for row in rows:
            if row.name in self._own:
                raise ValueError(f"two {kind}s are called {row.name!r}")
            self._own[row.name] = row

    def names(self) -> list[str]:
        """All names: autoseg's own and those of every installed family, sorted."""
        return sorted(self.rows())

    def rows(self) -> dict[str, PartT]:
        """All rows by name."""
        found = dict(self._own)
        for trainer in installed_trainers():
            for row in getattr(trainer, self.field):
                found.setdefault(row.name, row)
        return found

    def get(self, name: str, trainer: Trainer | None = None) -> PartT:
        """The row called ``name``: the trainer's, else autoseg's, else that of another installed family.

        Raises:
            AutosegError: there is none; the nearest names are given.
        """
        brought = {row.name: row for row in getattr(trainer, self.field)} if trainer else {}
        row = brought.get(name) or self._own.get(name)
        if row is None:
            known = {**self.rows(), **brought}
            if name not in known:
                raise AutosegError(f"there is no {self.kind} '{name}'", fix=nearest_names(name, known))
            row = known[name]
        return row

    def build(self, name: str, *args: Any, trainer: Trainer | None = None, **arguments: Any) -> Any:
        """Build the part; arguments that it does not know are refused with its own words.

        Raises:
            AutosegError: unknown name, or arguments that do not fit the builder's signature.
        """
        builder = self.get(name, trainer).build  # type: ignore[attr-defined]
        refuse_misfits(f"the {self.kind} '{name}'", builder, *args, **arguments)
        return builder(*args, **arguments)


@cache
def installed_trainers() -> tuple[Trainer, ...]:
    """Every trainer that loads, by name; one that does not costs only itself, which is said once."""
    found = []
    for name in plugins.names(plugins.TRAINERS):
        try:
            found.append(plugins.load(plugins.TRAINERS, name))
        except AutosegError as error:
            messages.warn(f"the parts of the trainer '{name}' are left out: {error.fault.found or error}")
    return tuple(found)


def refuse_misfits(what: str, function: Callable[..., Any], *args: Any, **arguments: Any) -> None:
    """Explain arguments that a function does not take; their values do not matter.

    Raises:
        AutosegError: unknown or missing arguments.
    """
    try:
        inspect.signature(function).bind(*args, **arguments)
    except TypeError as error:
        raise AutosegError(
            f"the arguments do not fit {what}",
            found=f"{error}",
            expected=str(inspect.signature(function)),
            fix="correct the arguments in the plan",
        ) from None
