"""The parts of one kind by name: a family's own first, then autoseg's, then those of the other installed families."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

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
    """Explain arguments that a function does not take, or that are of another type than it says; as in JSON a list may
    stand for a tuple and a whole number for any number.

    Raises:
        AutosegError: unknown or missing arguments, or such of another type.
    """
    try:
        inspect.signature(function).bind(*args, **arguments)
        for name, adapter in (_typed(function) if isinstance(function, Hashable) else {}).items():
            if name in arguments:
                _refuse_other_type(name, arguments[name], adapter)
    except TypeError as error:
        raise AutosegError(
            f"the arguments do not fit {what}",
            found=f"{error}",
            expected=str(inspect.signature(function)),
            fix="correct the arguments in the plan",
        ) from None


@cache
def _typed(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """What checks the type of each argument; only types that a plan could hold."""
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError, AttributeError):  # names for type checkers alone; no function of Python's
        return {}
    adapters = {}
    for name, hint in hints.items():
        with contextlib.suppress(PydanticUserError, TypeError):  # no type that JSON knows
            adapters[name] = TypeAdapter(hint)
    return adapters


def _refuse_other_type(name: str, value: Any, adapter: TypeAdapter[Any]) -> None:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return  # no argument of a plan
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise TypeError(f"{name} = {value!r}: {problem[0].lower()}{problem[1:]}") from None
