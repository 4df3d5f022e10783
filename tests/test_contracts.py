"""docs/code.md and docs/glossary.md against the code: rooms, contract points, places; an example in each contract."""

import configparser
import importlib
import pkgutil
import re
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel
from test_structure import folder_of, graph_of_files

import autoseg
from autoseg.plan import Plan, Recipe, Strict, schema
from autoseg.plugins import parts
from autoseg.plugins.converter import Converter
from autoseg.plugins.planner import Match, Planner
from autoseg.plugins.registry import Registry, installed_trainers
from autoseg.plugins.trainer import Trainer

ROOT = Path(__file__).parents[1]
CODE, GLOSSARY = ROOT / "docs" / "code.md", ROOT / "docs" / "glossary.md"
PLACE = re.compile(r"`(autoseg(?:\.\w+)*:\w+(?:\.\w+)*)`")
QUOTED = re.compile(r"`([^`]+)`")
COLUMNS = ["contract", "class", "listed in", "words of the plan", "registry", "used by", "autoseg's own"]
PLUG_INS = {"Planner": "autoseg.planners", "Trainer": "autoseg.trainers", "Converter": "autoseg.converters"}
CONTRACTS = [
    *(Planner, Match, Trainer, Converter),
    *(value for name, value in vars(parts).items() if isinstance(value, type) and name.endswith("Part")),
]


# ----------------------------------------------------------------------------------------------------- reading


def table() -> list[dict[str, list[str]]]:
    """The rows of docs/code.md under "Contract points": column to what is quoted in its cell."""
    lines = CODE.read_text(encoding="utf-8").partition("## Contract points")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == COLUMNS
    return [
        dict(zip(COLUMNS, [QUOTED.findall(cell) for cell in row], strict=True), contract=[row[0]])
        for row in cells[2:]
    ]


def found_at(place: str) -> object:
    """What lies at ``module:name.name``."""
    module, _, path = place.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def by_class() -> dict[str, dict[str, list[str]]]:
    """The rows of the table by the name of their class."""
    return {row["class"][0].partition(":")[2]: row for row in table()}


def registries() -> dict[str, Registry]:
    """All registries of autoseg, by their field of the trainer."""
    found = {}
    for module in pkgutil.walk_packages(autoseg.__path__, "autoseg."):
        if not module.name.startswith(("autoseg.cli", "autoseg.report")):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Registry) and name == "REGISTRY":
                    found[value.field] = value
    return found


def own_names(registry: Registry) -> set[str]:
    """Names of the rows that no family brings, and no test (``test_...``, see tests/model_folder.py)."""
    brought = [row for trainer in installed_trainers() for row in getattr(trainer, registry.field)]
    own = {name for name, row in registry.rows().items() if not any(row is other for other in brought)}
    return {name for name in own if not name.startswith("test_")}


def shipped(group: str) -> set[str]:
    """Names of autoseg's own plug-ins."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.entry_points"][group].split("\n")
    return {line.partition("=")[0].strip() for line in lines if line.strip()}


def refuse_differences(what: str, listed: set[str], there: set[str]) -> None:
    missing, extra = sorted(there - listed), sorted(listed - there)
    assert not missing, f"docs/code.md lacks {what}: {', '.join(missing)}"
    assert not extra, f"docs/code.md has {what} that the code does not: {', '.join(extra)}"


def has_field(model: object, name: str) -> object:
    """The type of a field of a model or of the models in a list, a dict or a union; None where there is none."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(name)
        return None if field is None else field.annotation
    found = (has_field(argument, name) for argument in typing.get_args(model))
    return next((one for one in found if one is not None), None)


# ------------------------------------------------------------------------------------------------------- the rooms


def rooms() -> dict[str, int]:
    """Room to its line in the table of rooms."""
    text = CODE.read_text(encoding="utf-8").partition("## The rooms")[2].partition("\n## ")[0]
    lines = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("/"): n for n, line in enumerate(lines) for name in QUOTED.findall(line)}


def test_every_room_is_listed():
    there = {folder_of(module) for module in graph_of_files()}
    refuse_differences(
        "rooms", set(rooms()), there - {"autoseg", "planners", "trainers", "dataset_conversion"}
    )


def test_rooms_import_only_those_above_them():
    order = rooms()
    wrong = [
        f"{module} imports {other}"
        for module, others in graph_of_files().items()
        for other in others
        if order.get(folder_of(other), -1) > order.get(folder_of(module), len(order))
    ]
    assert not wrong, f"the order of rooms in docs/code.md does not hold: {', '.join(wrong)}"


# ------------------------------------------------------------------------------------------------------- the table


def test_every_class_is_listed():
    rows = {f.name: f.type for f in fields(Trainer)}
    brought = {name for kind in rows.values() for name in re.findall(r"\w+", kind) if hasattr(parts, name)}
    there = brought | {kind.__name__ for kind in CONTRACTS if kind is not Match} | set(PLUG_INS)
    refuse_differences("classes", set(by_class()), there)
    assert len(table()) == len(by_class()), "a class stands twice in the table of docs/code.md"
    for row in table():
        assert found_at(row["class"][0]).__name__ == row["class"][0].partition(":")[2]


def test_every_field_of_a_trainer_is_listed_with_the_class_of_its_rows():
    types = {f.name: f.type for f in fields(Trainer) if f.name not in ("name", "summary", "preset")}
    listed = {
        place.removeprefix("Trainer."): kind
        for kind, row in by_class().items()
        for place in row["listed in"]
        if place.startswith("Trainer.")
    }
    refuse_differences("fields of Trainer", set(listed), set(types))
    for name, kind in listed.items():
        assert kind in types[name], f"Trainer.{name} holds {types[name]}, docs/code.md says {kind}"


def test_every_own_row_is_listed():
    known = registries()
    listed = {row["listed in"][0].removeprefix("Trainer."): row for row in table() if row["registry"]}
    refuse_differences("registries", {name for name in listed if name in known}, set(known))
    for field, registry in known.items():
        assert found_at(listed[field]["registry"][0]) is registry, f"the registry of {field} lies elsewhere"
        refuse_differences(
            f"{field} of autoseg's own", set(listed[field]["autoseg's own"]), own_names(registry)
        )


@pytest.mark.parametrize(("kind", "group"), PLUG_INS.items())
def test_every_plug_in_of_autoseg_is_listed(kind, group):
    row = by_class()[kind]
    assert row["listed in"] == [group]
    refuse_differences(f"{kind.casefold()}s", set(row["autoseg's own"]), shipped(group))


@pytest.mark.parametrize("row", table(), ids=lambda row: row["contract"][0])
def test_the_words_are_words_of_the_plan(row):
    for path in row["words of the plan"]:
        first, *rest = path.split(".")
        place = has_field(Plan, first) or has_field(Recipe, first)
        for name in rest:
            place = place and has_field(place, name)
        assert place, f"docs/code.md names {path}, which is no path into plan.json"


def test_every_word_of_the_plan_is_explained():
    text = (ROOT / "docs" / "formats" / "plan_json.md").read_text(encoding="utf-8")
    models = [
        value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, Strict)
    ]
    words = {f"{model.__name__}.{name}" for model in models for name in model.model_fields}
    missing = sorted(word for word in words if f"`{word.rpartition('.')[2]}`" not in text)
    assert not missing, f"docs/formats/plan_json.md does not name {', '.join(missing)}"


def test_every_contract_has_a_place_where_it_is_used():
    assert not [row["contract"] for row in table() if not any(PLACE.match(f"`{p}`") for p in row["used by"])]


@pytest.mark.parametrize(
    "place",
    sorted({place for page in (CODE, GLOSSARY) for place in PLACE.findall(page.read_text(encoding="utf-8"))}),
)
def test_every_named_place_exists(place):
    try:
        found_at(place)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"docs name {place}: {error}", pytrace=False)


def test_a_wrong_table_is_noticed():
    with pytest.raises(AssertionError, match="lacks losses: focal"):
        refuse_differences("losses", {"dice_ce"}, {"dice_ce", "focal"})
    with pytest.raises(AssertionError, match="has losses that the code does not: hinge"):
        refuse_differences("losses", {"dice_ce", "hinge"}, {"dice_ce"})


# ------------------------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda kind: kind.__name__)
def test_every_public_contract_has_an_example(contract):
    """A literal block that makes one: ``::``, an empty line, and an indented call of the class."""
    text = contract.__doc__ or ""
    blocks = re.findall(r"::\n\n((?:[ ]{4,}.*\n|\n)+)", text)
    assert any(f"{contract.__name__}(" in block for block in blocks), f"{contract.__name__} has no example"


def test_all_the_public_contracts_are_swept():
    names = {kind.__name__ for kind in CONTRACTS}
    expected = "Network Loss Optimiser Schedule Sampler Source Transform Fusion Step"
    assert {f"{kind}Part" for kind in expected.split()} <= names
    assert {"Planner", "Match", "Trainer", "Converter"} <= names
