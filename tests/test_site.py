"""The site of docs/: every link leads somewhere, and mkdocs builds it without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_of_the_docs(page):
    folder = (DOCS / page).parent
    links = LINK.findall((DOCS / page).read_text(encoding="utf-8"))
    lost = [link for link in links if not (folder / link).exists()]
    outside = [link for link in links if not (folder / link).resolve().is_relative_to(DOCS)]
    assert not lost and not outside, f"{page}: {lost + outside}"


def test_the_pages_of_the_site_are_there():
    named = re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert named and not [name for name in named if name not in PAGES]


def test_the_site_builds(tmp_path):
    pytest.importorskip("material", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "i-have-dicom" / "index.html").is_file()
