"""Where every command begins: is ``autoseg`` this project?

Another project on PyPI has the same import name. Installed beside this one, it takes the place of this package or of
its first file, and a command would end in an import error that explains nothing. So this module lies outside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

DISTRIBUTION = "autoseg-lesion"


def __getattr__(name: str) -> Callable[[], int]:
    """The command whose file is ``autoseg/cli/NAME.py``, as the entry points in setup.cfg name it."""
    if name.startswith("_"):
        raise AttributeError(name)
    refuse_other_project()
    main: Callable[[], int] = import_module(f"autoseg.cli.{name}").main
    return main


def refuse_other_project() -> None:
    """Leave with a message where the package ``autoseg`` is another project's, or was damaged by it.

    Raises:
        SystemExit: with what was found and the remedy.
    """
    package = import_module("autoseg")
    if getattr(package, "DISTRIBUTION", None) == DISTRIBUTION:
        return
    places = [package.__file__] if getattr(package, "__file__", None) else list(package.__path__)
    sys.exit(
        f"error: the package 'autoseg' is not that of {DISTRIBUTION}\n"
        f"  found: {', '.join(map(str, places))}\n"
        f"  expected: that of {DISTRIBUTION}; another project on PyPI is called autoseg and takes its place\n"
        f"  what to do: pip uninstall autoseg {DISTRIBUTION}, then install {DISTRIBUTION} alone"
    )
