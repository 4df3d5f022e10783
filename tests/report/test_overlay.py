"""Which cases are drawn."""

from types import SimpleNamespace

from autoseg.evaluation.summary import CaseScores
from autoseg.report.overlay import choose_cases


def case(name, dice, voxels=5):
    scores = {"dice": dice, "voxels_truth": voxels, "voxels_prediction": voxels}
    scores |= {"volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    return CaseScores(name=name, prediction_sha256="", truth_sha256="", classes={"lesion": scores})


def chosen(*cases):
    return {rank: c.name for rank, c in choose_cases(SimpleNamespace(cases=list(cases)), 3)}


def test_worst_median_and_best():
    cases = [case("a", 0.5), case("b", 0.1), case("c", 0.9), case("d", 0.3), case("e", 0.6)]
    assert chosen(*cases) == {"worst": "b", "median": "a", "best": "c"}
    assert chosen(*cases[:2]) == {"worst": "b", "best": "a"}
    assert chosen(cases[0]) == {"only": "a"}


def test_cases_that_show_nothing_are_passed_over():
    assert chosen(case("sham", 1.0, 0), case("a", 0.2), case("b", 0.4)) == {"worst": "a", "best": "b"}
    assert chosen(case("sham", 1.0, 0)) == {"only": "sham"}
