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
from autoseg.plan import hash_plan
from autoseg.plan.proposal_table import format_proposals
from autoseg.plugins.planner import Budget, Match, Verdict
from autoseg.preparation.choice import ask_all, make_plan
from autoseg.preparation.proposals import find_candidates, find_doubts, propose

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


# ------------------------------------------------------------------------------------------------ the table itself

DWI = {
    "spacings": [(6.5, 1.8, 1.8)],
    "shapes": [(20, 128, 128)] * 10,
    "channels": ("DWI",),
    "components": [[300, 20]] * 10,
}


def test_every_family_has_a_row_with_what_it_would_run(make_fingerprint):
    fingerprint = make_fingerprint(**DWI)
    found = propose(find_candidates(fingerprint, Budget()), fingerprint)
    rows = {row.family: row for row in found.families}
    assert next(iter(rows)) == "edd_muscle" and list(rows)[1] == "unet"
    assert rows["edd_muscle"].configuration.startswith("edd, patch 64 x 64, batch 128; then muscle")
    assert rows["unet"].published == "1000 epochs of 250" and rows["unet"].score == 0.5
    assert rows["edd_muscle"].change == "0.45 before unet" and not found.doubts
    assert rows["ratlesnetv2"].score == 0 and rows["ratlesnetv2"].configuration == ""


def test_what_would_change_the_order_is_said(make_fingerprint):
    """The channel's name alone keeps edd_muscle from the first place; the slices too, and nothing alone does."""
    fingerprint = make_fingerprint(**{**DWI, "channels": ("T2",)})
    found = propose(find_candidates(fingerprint, Budget()), fingerprint)
    rows = {row.family: row for row in found.families}
    assert rows["edd_muscle"].change == "first without: T2 instead of DWI"
    assert rows["unet"].change == "0.05 before edd_muscle"
    assert found.doubts == ["the data do not tell unet and edd_muscle apart (unet 0.50, edd_muscle 0.45)"]
    assert "not first" in rows["resunet"].change


def test_the_first_row_is_the_planner_that_auto_takes(make_fingerprint):
    for changes in ({}, {"channels": ("T2",)}, {"spacings": [(1, 0.12, 0.12)]}):
        fingerprint = make_fingerprint(**{**DWI, **changes})
        first = find_candidates(fingerprint, Budget())[0]
        assert first.family == make_plan(fingerprint, "auto", Budget()).planner
        assert hash_plan(first.plan) == hash_plan(make_plan(fingerprint, first.family, Budget()))


def test_planning_the_others_says_nothing(make_fingerprint):
    from autoseg import messages

    messages.forget_warnings()
    messages.warn("of before")
    find_candidates(make_fingerprint(**{**DWI, "components": [[1]] * 10}), Budget())
    assert messages.warning_counts() == {"of before": 1}
    messages.forget_warnings()


def test_a_family_that_cannot_plan_keeps_its_row(make_fingerprint, monkeypatch):
    from autoseg.errors import AutosegError
    from autoseg.preparation import proposals

    def refuse(fingerprint, name, budget):
        raise AutosegError("no U-Net fits", found="1 MB")

    fingerprint = make_fingerprint(**DWI)
    monkeypatch.setattr(proposals, "make_plan", refuse)
    row = propose(find_candidates(fingerprint, Budget()), fingerprint).families[1]
    assert row.family == "unet" and row.against == ["no U-Net fits (1 MB)"] and row.configuration == ""


def printed(fingerprint, width=100) -> str:
    plan = make_plan(fingerprint, "auto", Budget())
    found = propose(find_candidates(fingerprint, Budget()), fingerprint)
    return format_proposals(plan.model_copy(update={"proposals": found}), width)


@pytest.mark.parametrize("width", [60, 100, 130])
def test_the_printed_table_says_what_was_chosen_and_how_sure_that_is(make_fingerprint, width):
    sure, unsure = (printed(make_fingerprint(**{**DWI, "channels": c}), width) for c in (("DWI",), ("T2",)))
    assert "\nCHOICE: edd_muscle\n" in sure and "?" not in sure
    assert (
        "CHOICE: nothing published fits well, so unet, which fits any dataset, but this is not sure" in unsure
    )
    assert "  ? the data do not tell" in unsure and "autoseg_run Dataset999_Test" in unsure
    texts = [line for line in sure.splitlines() if not line.startswith(("METHODS", "    autoseg"))]
    assert max(len(line) for line in texts if "possible" not in line and "family" not in line) <= max(
        width, 76
    )


def test_a_match_follows_from_what_its_differences_cost():
    assert Match.weighed(["a"], []).verdict is Verdict.MADE_FOR_IT and Match.weighed(["a"], []).score == 0.95
    fits = Match.weighed(["a"], [("b", 0.3), ("", 0.5), ("c", 0.1)], made_for="made for d")
    assert (fits.verdict, fits.score, fits.reasons) == (Verdict.FITS, 0.55, ("a",))
    other = Match.weighed(["a"], [("b", 0.5)], made_for="made for d")
    assert (other.verdict, other.score, other.reasons) == (Verdict.POSSIBLE, 0.45, ("made for d",))
    assert Match.weighed([], [("b", 0.9), ("c", 0.9)]).score == 0.05
    with pytest.raises(TypeError, match="a cost for each reason"):
        Match(Verdict.FITS, against=("a", "b"), costs=(0.1,))


def test_scores_without_costs_keep_the_verdicts_in_order():
    many = tuple("abcdefghijklm")
    scores = [Match(v, against=many[:n]).score for v in sorted(Verdict, reverse=True) for n in (0, 3)]
    assert scores == [0.95, 0.8, 0.75, 0.6, 0.5, 0.35, 0.0, 0.0]
    assert Match(Verdict.FITS, against=many).rank < Match(Verdict.POSSIBLE).rank
