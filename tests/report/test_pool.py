"""Several folds as one cohort."""

import numpy as np
import pytest
from reports import write_scores

from autoseg.errors import AutosegError
from autoseg.evaluation.thresholds import read_thresholds
from autoseg.report.overlay import choose_cases
from autoseg.report.pool import mean_of_folds, pool


@pytest.fixture(scope="module")
def folds(raw, tmp_path_factory):
    """Two folds of six cases, and the same twelve cases at once, with all kinds of strata."""
    root = tmp_path_factory.mktemp("folds")
    (root / "groups.csv").write_text(
        "case,scanner,age\n" + "".join(f"case_{i:02},{'AB'[i % 2]},{30 + i}\n" for i in range(12))
    )
    options = {"strata": ["voxels_truth=q4", "volume_truth_ml=0.1,0.2"], "groups": root / "groups.csv"}
    parts = {"fold 0": range(6), "fold 1": range(6, 12), "all": range(12)}
    made = {
        name: write_scores(root / name, raw, part, probabilities=True, **options)
        for name, part in parts.items()
    }
    counts = {name: read_thresholds(root / name / "thresholds.csv") for name in parts}
    return made, counts


def test_folds_together_are_all_cases_at_once(folds):
    made, counts = folds
    pooled = pool(*({name: some[name] for name in ("fold 0", "fold 1")} for some in (made, counts)))
    at_once = made["all"]
    assert pooled.summary.classes == at_once.classes  # means, intervals, cohort values, agreement
    assert pooled.summary.strata == at_once.strata  # quartiles are cut anew
    assert pooled.left_out == ()
    assert [case.name for case in pooled.summary.cases] == [case.name for case in at_once.cases]
    assert pooled.origin["case_07"][0] == "fold 1"


def test_one_folder_stays_as_it_is(folds):
    made, counts = folds
    pooled = pool({"": made["all"]}, {"": counts["all"]})
    assert pooled.summary is made["all"] and pooled.origin["case_03"] == ("", made["all"].cases[3])


def test_strata_that_one_fold_lacks_are_left_out(folds):
    made, counts = folds
    without = made["fold 1"].model_copy(update={"strata": made["fold 1"].strata[:1]})
    pooled = pool({"fold 0": made["fold 0"], "fold 1": without}, {"fold 0": None, "fold 1": None})
    assert [one.name for one in pooled.summary.strata] == ["voxels_truth"]
    assert pooled.left_out == ("age", "scanner", "volume_truth_ml")
    assert "average_precision" not in pooled.summary.classes["lesion"].cohort


def test_a_case_of_two_folds_counts_in_both(folds):
    made, _ = folds
    pooled = pool({"fold 0": made["fold 0"], "fold 1": made["fold 0"]}, {"fold 0": None, "fold 1": None})
    assert len(pooled.summary.cases) == 12
    assert pooled.origin["case_02 (fold 1)"] == ("fold 1", made["fold 0"].cases[2])


def test_the_mean_of_folds(folds):
    made, _ = folds
    parts = {name: made[name] for name in ("fold 0", "fold 1")}
    values = [np.mean([case.classes["lesion"]["dice"] for case in part.cases]) for part in parts.values()]
    found = mean_of_folds(parts, "lesion", "dice")
    assert (found.mean, found.sd, found.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        2,
    )
    alone = mean_of_folds({"fold 0": made["fold 0"]}, "lesion", "dice")
    assert alone.sd is None and alone.mean == pytest.approx(values[0])


def test_a_warning_of_several_folds_is_said_once(folds):
    made, _ = folds
    said = {"fold 0": ["both", "one"], "fold 1": ["both"]}
    parts = {name: made[name].model_copy(update={"warnings": texts}) for name, texts in said.items()}
    found = pool(parts, {"fold 0": None, "fold 1": None}).summary.warnings
    assert found == ["fold 0, fold 1: both", "fold 0: one"]


def test_folds_of_other_classes_are_refused(folds):
    made, _ = folds
    other = made["fold 1"].model_copy(update={"classes": {"tumour": made["fold 1"].classes["lesion"]}})
    with pytest.raises(AutosegError, match="fold 0 and fold 1 were scored by different classes"):
        pool({"fold 0": made["fold 0"], "fold 1": other}, {})


def test_shown_cases_are_spread_over_the_order_of_dice(folds):
    summary = folds[0]["all"]
    shown = sorted(
        (case for case in summary.cases if not case.is_empty), key=lambda case: (case.mean_dice, case.name)
    )
    names = [case.name for case in shown]
    assert len(names) == 10  # two of the twelve show nothing
    assert [(rank, case.name) for rank, case in choose_cases(summary, 3)] == [
        ("worst", names[0]),
        ("median", names[4]),
        ("best", names[9]),
    ]
    assert [(rank, case.name) for rank, case in choose_cases(summary, 1)] == [("median", names[4])]
    assert [case.name for _, case in choose_cases(summary, 30)] == names
    assert choose_cases(summary, 0) == []
