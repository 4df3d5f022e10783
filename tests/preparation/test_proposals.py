"""The ranked table: right on data as they are, right or openly unsure on distorted ones (docs/planner.md)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from distortions import DISTORTIONS

from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.physical_sense import voxel_fault
from autoseg.dataset.raw_layout import load_raw
from autoseg.evidence.facts import Evidence
from autoseg.phantoms import make_dataset
from autoseg.preparation.choice import ask_all
from autoseg.preparation.proposals import find_doubts

DOC = Path(__file__).parents[2] / "docs" / "planner.md"
BEGIN, END = "<!-- table of the tests -->", "<!-- end of the table -->"
SHARED = {
    "Dataset001_BRATS": "brainsegnet",
    "Dataset002_OpenMS": "unet",
    "Dataset011_RatT2": "ratlesnetv2",
    "Dataset012_DWI": "edd_muscle",
    "Dataset013_ISLESPerfusion": "brainsegnet",
    "Dataset014_ATLAST1": "resunet",
}
PHANTOMS = {"rat_t2": "ratlesnetv2", "dwi": "edd_muscle", "perfusion": "brainsegnet", "t1": "resunet"}
SCALES = {"rat_t2": 0.5, "dwi": 1.0, "perfusion": 0.5, "t1": 0.5}
RIGHT = {
    # a person's T2 in thick slices is what the scaled rat then is: nothing published fits it
    ("Dataset011_RatT2", "another species' size"): "unet",
    ("rat_t2", "another species' size"): "unet",
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A function that gives the fingerprint of a few phantoms of a kind."""

    @cache
    def measure(kind: str):
        folder = make_dataset(kind, 4, tmp_path_factory.mktemp(kind), seed=1, scale=SCALES[kind])
        return extract_fingerprint(load_raw(folder))

    return measure


def judged(fingerprint) -> tuple[str, list[str]]:
    """The family that is taken, and the doubts; where the raw data would be refused, ``refused``."""
    if any(voxel_fault(case.name, case.spacing_mm, case.shape) for case in fingerprint.cases):
        return "refused", ["a voxel size that no scanner has"]
    matches = ask_all(fingerprint)
    return next(iter(matches)), find_doubts(matches, Evidence(fingerprint))


def check(name: str, expected: str, fingerprint) -> None:
    for distortion, distort in DISTORTIONS.items():
        family, doubts = judged(distort(fingerprint))
        right = RIGHT.get((name, distortion), expected)
        assert family == right or doubts, f"{name}, {distortion}: {family} without a doubt"
        if distortion == "as it is":
            assert family == expected
            assert not [doubt for doubt in doubts if "apart" not in doubt], doubts


@pytest.mark.shared
@pytest.mark.parametrize(("name", "expected"), SHARED.items())
def test_right_on_the_shared_data_and_right_or_unsure_where_they_are_distorted(measured, name, expected):
    check(name, expected, measured(name))


@pytest.mark.parametrize(("kind", "expected"), PHANTOMS.items())
def test_right_on_phantoms_and_right_or_unsure_where_they_are_distorted(phantom, kind, expected):
    check(kind, expected, phantom(kind))


@pytest.mark.shared
def test_the_table_in_the_documentation_is_this_one(measured, phantom):
    """With AUTOSEG_WRITE_DOCS=1 the table is written instead."""
    data = {**{name: measured(name) for name in SHARED}, **{f"phantoms {k}": phantom(k) for k in PHANTOMS}}
    lines = ["| data | " + " | ".join(DISTORTIONS) + " |", "|---" * (len(DISTORTIONS) + 1) + "|"]
    for name, fingerprint in data.items():
        cells = [judged(distort(fingerprint)) for distort in DISTORTIONS.values()]
        shown = [family if family == "refused" else family + " ?" * bool(doubts) for family, doubts in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    text = DOC.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    table = "\n" + "\n".join(lines) + "\n"
    if os.environ.get("AUTOSEG_WRITE_DOCS"):
        DOC.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
    else:
        assert written == table
