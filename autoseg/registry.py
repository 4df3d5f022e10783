"""A table from names to builders, with listing and the nearest name on a miss."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from autoseg.errors import AutosegError, nearest_names

Function = TypeVar("Function", bound=Callable[..., Any])


class Registry:
    """Builders by name.

    Args:
        kind: what is registered, for messages ("network", "loss").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Function], Function]:
        """A decorator that enters a builder under ``name``."""

        def enter(builder: Function) -> Function:
            if name in self._builders:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._builders[name] = builder
            return builder

        return enter

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._builders)

    def get(self, name: str) -> Callable[..., Any]:
        """The builder called ``name``.

        Raises:
            AutosegError: there is none; the nearest names are given.
        """
        if name not in self._builders:
            raise AutosegError(f"there is no {self.kind} '{name}'", fix=nearest_names(name, self._builders))
        return self._builders[name]

    def build(self, name: str, *args: Any, **arguments: Any) -> Any:
        """Call the builder; arguments that it does not know are refused with its own words.

        Raises:
            AutosegError: unknown name, or arguments that do not fit the builder's signature.
        """
        builder = self.get(name)
        refuse_misfits(f"the {self.kind} '{name}'", builder, *args, **arguments)
        return builder(*args, **arguments)


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
