"""Every command: its help, its page in the docs, and that neither needs the heavy libraries."""

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    e.name: e.value for e in distribution("autoseg-lesion").entry_points if e.group == "console_scripts"
}
HEAVY = ("torch", "SimpleITK", "scipy", "sklearn", "matplotlib", "pydantic", "numpy", "blosc2")
PROBE = """
import sys
from {module} import {command}
try:
    {command}(["--help"])
except SystemExit as stop:
    print("loaded:", [name for name in {heavy} if name in sys.modules], "code:", stop.code)
"""


def test_all_commands_of_the_design_are_there():
    names = ["plan_and_preprocess", "train", "predict", "evaluate", "compare", "agreement", "report"]
    names += ["export", "import", "import_weights", "convert", "make_phantom"]
    assert {f"autoseg_{name}" for name in names} <= set(SCRIPTS)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_help_is_light_and_has_examples(name):
    module, _, command = SCRIPTS[name].partition(":")
    code = PROBE.format(module=module, command=command, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("loaded: [] code: 0"), done.stdout + done.stderr
    assert "examples:" in done.stdout


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_command_knows_its_version_without_other_arguments(name):
    module, _, command = SCRIPTS[name].partition(":")
    code = PROBE.format(module=module, command=command, heavy=HEAVY).replace("--help", "--version")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"autoseg {distribution('autoseg-lesion').version}\nloaded: [] code: 0\n", (
        done.stderr
    )


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_command_has_a_page(name):
    page = ROOT / "docs" / "commands" / f"{name.removeprefix('autoseg_')}.md"
    assert page.read_text().startswith(f"# {name}")


@pytest.mark.parametrize(
    "page",
    ["raw", "dataset_json", "fingerprint", "plan_json", "splits", "store", "bundle", "summary", "comparison"],
)
def test_every_file_format_has_a_page(page):
    assert (ROOT / "docs" / "formats" / f"{page}.md").read_text().startswith("# ")


def test_links_between_the_pages_lead_somewhere():
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []
