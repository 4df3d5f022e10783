"""The rooms: no circles of imports, no two files or classes of one name.

All imports count, those within functions and those for type checkers too: a circle that is hidden is still one.
"""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "autoseg": ROOT / "autoseg",
    "autoseg.planners": ROOT / "planners",
    "autoseg.trainers": ROOT / "trainers",
    "autoseg.dataset_conversion": ROOT / "dataset_conversion",
}
PAPERS = ("planners", "trainers", "dataset_conversion", "networks")
"""Folders whose files are named after a paper, a family or a public dataset; such a name may come in other rooms."""

KNOWN: set[str] = set()

Graph = dict[str, set[str]]


# ------------------------------------------------------------------------------------------------------ reading


@cache
def sources() -> dict[str, Path]:
    """Module, by the name that it is imported by, to its file; a package is its ``__init__.py``."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports, wherever in its text."""
    known, found = sources(), set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & set(known)


@cache
def graph_of_files() -> Graph:
    return {module: imported(module) for module in sources()}


def folder_of(module: str) -> str:
    """The room of a module: the folder below the package, with the folders in it; a module at the root is its own."""
    return module.split(".")[1] if "." in module else module


def graph_of_folders(files: Graph) -> Graph:
    found: Graph = defaultdict(set)
    for module, others in files.items():
        found[folder_of(module)] |= {folder_of(other) for other in others} - {folder_of(module)}
    return dict(found)


def reached(graph: Graph, start: str) -> set[str]:
    """All that can be come to from a start; the start itself only by a circle."""
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        new = graph.get(open_ends.pop(), set()) - found
        found |= new
        open_ends += new
    return found


def circles(graph: Graph) -> set[frozenset[str]]:
    """The largest sets of which each member comes to every other, and to itself."""
    ends = {name: reached(graph, name) for name in graph}
    return {
        frozenset({name, *(other for other in ends[name] if name in ends[other])})
        for name in graph
        if name in ends[name]
    }


def described(found: set[frozenset[str]], graph: Graph) -> str:
    lines = []
    for circle in sorted(found, key=sorted):
        lines += [f"\na circle of {len(circle)}:"]
        lines += [
            f"  {name} imports {other}" for name in sorted(circle) for other in sorted(graph[name] & circle)
        ]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- the reader


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}, "f": {"a"}}
    assert circles(graph) == {frozenset("bc"), frozenset("e")}


def test_lazy_and_type_only_imports_count():
    files = graph_of_files()
    assert "autoseg.report.page" in files["autoseg.cli.report"]  # within a function
    assert "autoseg.plugins.converter" in files["autoseg.cli.convert"]  # for type checkers
    assert "autoseg.plugins" in files["autoseg.cli.convert"]  # from autoseg import plugins
    assert {"autoseg.planners.unet", "autoseg.trainers.unet"} <= set(files)
    assert folder_of("autoseg.evaluation.metrics.pair") == folder_of("autoseg.evaluation") == "evaluation"
    assert folder_of("autoseg.files") == "files"


# ------------------------------------------------------------------------------------------------------ the rules


def test_files_import_each_other_in_no_circle():
    found = {c for c in circles(graph_of_files()) if not {folder_of(module) for module in c} <= KNOWN}
    assert not found, described(found, graph_of_files())


def test_folders_import_each_other_in_no_circle():
    graph = graph_of_folders(graph_of_files())
    found = {circle for circle in circles(graph) if not circle <= KNOWN}
    lines = [
        f"  {module} imports {other}"
        for module, others in sorted(graph_of_files().items())
        for other in sorted(others)
        if any(len({folder_of(module), folder_of(other)} & circle) == 2 for circle in found)
    ]
    assert not found, "\n".join([described(found, graph), "by", *lines])


@pytest.mark.parametrize("plug_ins", ["planners", "trainers", "dataset_conversion"])
def test_the_core_imports_no_plug_in(plug_ins):
    core = {m for m in sources() if not any(m.startswith(name) for name in list(FOLDERS)[1:])}
    assert not {(m, o) for m in core for o in graph_of_files()[m] if folder_of(o) == plug_ins}


def test_evaluation_imports_neither_training_nor_what_shows_its_scores():
    rooms = graph_of_folders(graph_of_files())
    assert not rooms["evaluation"] & {"training", "report", "comparison"}
    assert not rooms["comparison"] & {"training", "report"}


def test_no_two_files_share_a_name():
    places, papers = defaultdict(list), set()
    for path in sources().values():
        if path.name != "__init__.py":
            places[path.stem].append(str(path.relative_to(ROOT)))
            papers |= {path.stem} if path.parent.name in PAPERS else set()
    assert not {name: found for name, found in places.items() if len(found) > 1 and name not in papers}


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for module in sources():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{module}:{node.lineno}")
    assert not {name: found for name, found in places.items() if len(found) > 1 and name not in KNOWN}


def test_only_one_file_asks_what_kind_a_device_is():
    """autoseg/device.py answers by ability; "meta", of trials without a device, is no kind that computes."""
    asks = re.compile(r"""\.type\s*(==|!=|in)\s*[("'](?!meta)""")
    files = [path for room in ("autoseg", "trainers", "planners") for path in (ROOT / room).rglob("*.py")]
    found = [path.name for path in files if path.name != "device.py" and asks.search(path.read_text("utf-8"))]
    assert files and not found
