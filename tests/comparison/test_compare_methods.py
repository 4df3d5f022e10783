"""Comparing methods: differences, tests and corrections by hand, and the command on folders of small masks."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import stats

from autoseg import messages
from autoseg.cli import compare as command
from autoseg.cli import scoring_options
from autoseg.comparison import ranking
from autoseg.comparison.compare_methods import compare_folders, compared_metrics, not_compared
from autoseg.comparison.comparison_schema import Comparison, Difference, MetricComparison, read_comparison
from autoseg.comparison.comparison_text import sentence, sentences
from autoseg.comparison.figure import FIRST, SAME, SECOND, make_figure
from autoseg.comparison.method_table import format_method_table
from autoseg.comparison.methods import method_names
from autoseg.comparison.notes import SPOKEN, family, notes
from autoseg.errors import AutosegError
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.presets import PRESETS
from autoseg.evaluation.text import p_text, spoken
from autoseg.files import read_model

SHAPE, SPACING = (6, 16, 16), (4.0, 1.0, 0.5)

# RatLesNetv2, section 5: differences whose exact permutation test is 28 of 256 sign vectors.
D = np.array([0.05, 0.02, -0.01, 0.03, 0.04, 0.0, 0.06, -0.02])


# ---------------------------------------------------------------------------------------------- numbers, by hand


def one(a, b, better="higher", test="permutation"):
    """The only pair of two methods in one class."""
    scores = {"lesion": {"a": np.array(a, float), "b": np.array(b, float)}}
    return ranking.compare_metric(scores, better, test)["lesion"].pairs[0]


def test_a_published_case():
    pair = one(0.5 + D, np.full(8, 0.5))
    assert pair.difference == pytest.approx(0.02125)
    assert pair.p["permutation"] == 28 / 256 == pair.p_holm
    assert (pair.wins, pair.losses, pair.ties, pair.n, pair.better) == (5, 2, 1, 8, None)
    assert pair.p["t"] == pytest.approx(stats.ttest_1samp(D, 0).pvalue)
    assert pair.low < pair.difference < pair.high


def test_rank_biserial_by_hand():
    # ranks of .01 .02 .02 .03 .04 .05 .06: 1 2.5 2.5 4 5 6 7; positive 24.5, negative 3.5 of 28
    assert ranking.rank_biserial(np.array([0.05, 0.02, -0.01, 0.03, 0.04, 0, 0.06, -0.02, np.nan])) == 21 / 28
    assert np.isnan(ranking.rank_biserial(np.array([0.0, np.nan])))


@pytest.mark.parametrize("better, winner", [("higher", "b"), ("lower", "a")])
def test_the_direction_decides_who_is_better(better, winner):
    a = np.arange(8.0)
    pair = one(a, a + 1 + a / 10, better)
    assert pair.difference < 0 and pair.better == winner and pair.p_holm == 2 / 2**8
    assert (pair.wins, pair.losses) == ((0, 8) if better == "higher" else (8, 0))


def test_nearer_to_zero_is_better():
    a, b = np.array([-1, 1, -1, 1, -1, 1.0]), np.array([3, -3.5, 4, -4.5, 5, -5.5])
    pair = one(a, b, "zero")
    assert pair.mean_first == 1 and pair.difference == pytest.approx(1 - b[::1].__abs__().mean())
    assert pair.better == "a" and pair.wins == 6
    ranked = ranking.rank({"b": b, "a": a}, "zero")
    assert [row.method for row in ranked] == ["a", "b"] and ranked[0].sd == 0


def test_undefined_pairs_are_dropped_and_counted():
    nan = np.nan
    a, b, c = [1, nan, 3, 4, 5.0], [2, 2, nan, 6, 7.0], [0, 0, 0, 0, nan]
    scores = {"lesion": {name: np.array(v, float) for name, v in (("a", a), ("b", b), ("c", c))}}
    result = ranking.compare_metric(scores, "lower", "t")["lesion"]
    ab, ac, bc = result.pairs
    assert [(p.first, p.second) for p in result.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (ab.n, ab.undefined, ab.difference) == (3, 2, pytest.approx(-5 / 3))
    assert (ac.n, bc.n) == (3, 3)
    assert result.n == 2  # cases 0 and 3
    assert [(row.method, row.mean, row.undefined) for row in result.ranking] == [
        ("c", 0, 1),
        ("a", 2.5, 1),
        ("b", 4, 1),
    ]


def test_nothing_is_defined():
    pair = one([np.nan] * 3, [1, 2, 3])
    assert (pair.n, pair.undefined, pair.difference, pair.p_holm, pair.better) == (0, 3, None, None, None)


def test_holm_is_over_pairs_and_classes():
    random = np.random.default_rng(1)
    scores = {
        label: {m: random.normal(shift * k, 1, 9) for m, shift in zip("abc", (0, 0.3, 1.5), strict=True)}
        for k, label in enumerate(("core", "whole"))
    }
    found = ranking.corrected(scores, "higher", "wilcoxon")
    pairs = [pair for label in scores for pair in found[label]]
    raw = []
    for label in scores:
        for first, second in ("ab", "ac", "bc"):
            raw.append(stats.wilcoxon(scores[label][first], scores[label][second]).pvalue)
    assert [pair.p["wilcoxon"] for pair in pairs] == pytest.approx(raw)
    largest = 0.0
    for rank, i in enumerate(np.argsort(raw)):
        largest = max(largest, min(1, (6 - rank) * raw[i]))
        assert pairs[i].p_holm == pytest.approx(largest)


def test_holm_is_over_all_levels_of_a_stratum():
    a, b = np.arange(16.0), np.arange(16.0) + 1
    levels = {"lesion": [np.arange(8), np.arange(8, 16)]}
    small, large = ranking.corrected_levels({"lesion": {"a": a, "b": b}}, levels, "higher", "permutation")[
        "lesion"
    ]
    assert small[0].n == large[0].n == 8
    assert small[0].p["permutation"] == 2 / 2**8 and small[0].p_holm == 4 / 2**8 == large[0].p_holm


def test_wilcoxon_and_the_mean_may_contradict_each_other():
    """A little better in 30 cases and much worse in 3: Wilcoxon finds a difference, but not one of the mean."""
    b = np.full(33, 0.5)
    a = b + np.r_[np.linspace(0.01, 0.03, 30), np.full(3, -0.5)]
    pair = one(a, b, test="wilcoxon")
    assert pair.difference < 0 < pair.rank_biserial and pair.p_holm < 0.05
    assert pair.better is None
    results = {"dice": ranking.compare_metric({"lesion": {"a": a, "b": b}}, "higher", "wilcoxon")}
    assert "neither is called better" in " ".join(notes(results, {"dice": "higher"}, 33, "wilcoxon"))
    assert one(a, b).better is None  # the permutation test is about the mean and finds nothing


def test_a_p_value_and_an_interval_that_disagree_are_explained():
    """All differences of 7 cases are positive: p = 2/2^7 = 0.0156, by Holm over 4 tests 0.0625, and the interval of
    each pair lies above 0.
    """
    steps = np.array([1.0, 2, 3, 4, 5, 6, 7])
    many = {f"class {i}": {"a": steps, "b": 0 * steps} for i in range(4)}
    results = {"dice": ranking.compare_metric(many, "higher", "permutation")}
    pair = results["dice"]["class 0"].pairs[0]
    assert (pair.p["permutation"], pair.p_holm, pair.better) == (2 / 128, 8 / 128, None) and pair.low > 0
    (note,) = (n for n in notes(results, {"dice": "higher"}, 7, "permutation") if "leaves out 0" in n)
    assert (
        note.startswith("dice, a - b in class 0, a - b in class 1,")
        and "corrected for the number of tests" in note
    )
    assert "(before that it is 0.016)" in note and note.endswith("p decides")

    agreed = {
        "dice": ranking.compare_metric({"lesion": {"a": steps, "b": 0 * steps}}, "higher", "permutation")
    }
    assert "decides" not in " ".join(notes(agreed, {"dice": "higher"}, 7, "permutation"))


@pytest.mark.parametrize(
    "low, high, p, p_holm, better, test, expected",
    [
        (0.1, 0.5, 0.03, 0.09, None, "permutation", "(before that it is 0.03)"),
        (0.1, 0.5, 0.08, 0.08, None, "permutation", "the permutation test is stricter than a bootstrap"),
        (-0.5, -0.1, 0.08, 0.08, None, "t", "the paired t test is stricter than a bootstrap"),
        (-0.1, 0.5, 0.04, 0.04, "a", "permutation", "holds 0, yet p is at most 0.05"),
        (-0.1, 0.5, 0.04, 0.04, "a", "wilcoxon", "the Wilcoxon test is about ranks"),
        (-0.1, 0.5, 0.2, 0.4, None, "permutation", None),
        (0.1, 0.5, 0.01, 0.02, "a", "permutation", None),
        (None, None, None, None, None, "permutation", None),
    ],
)
def test_each_kind_of_disagreement(low, high, p, p_holm, better, test, expected):
    pair = Difference(
        **{"first": "a", "second": "b", "n": 9, "undefined": 0, "mean_first": 1, "mean_second": 0.7},
        **{"difference": 0.3, "low": low, "high": high, "wins": 6, "losses": 3, "ties": 0},
        **{"rank_biserial": 0.5, "p": {test: p}, "p_holm": p_holm, "better": better},
    )
    results = {"dice": {"lesion": MetricComparison(n=9, ranking=[], pairs=[pair])}}
    said = [note for note in notes(results, {"dice": "higher"}, 9, test) if note.endswith("p decides")]
    assert [expected in note for note in said] == ([True] if expected else [])


def test_too_few_cases_are_said():
    def said(n, n_methods=2, test="permutation"):
        scores = {"lesion": {f"m{i}": np.arange(n) + float(i) for i in range(n_methods)}}
        return notes({"dice": ranking.compare_metric(scores, "higher", test)}, {"dice": "higher"}, n, test)

    assert said(1) == ["one case: there are no intervals and no tests"]
    assert "the smallest two-sided p-value is 2/2^5 = 0.062" in said(5)[0]
    assert not any("no difference can be shown" in note for note in said(6))
    assert "no difference can be shown" not in " ".join(said(5, test="t"))
    assert "after correction for 10 tests" in said(8, n_methods=5)[0]  # 10 * 2/2^8 > 0.05
    assert "bootstrap intervals of 8 cases are too narrow" in said(8)
    assert said(12) == []


def test_the_family_is_stated():
    text = family(3, 2, "permutation")
    assert (
        "3 pairs of methods, 2 classes, 6 tests" in text
        and "Metrics are not corrected for each other" in text
    )
    assert "1 pair of methods, 1 class, 1 test;" in family(2, 1, "t")


# -------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    "p, text",
    [
        (0.0001, "p < 0.001"),
        (0.0042, "p = 0.004"),
        (0.0496, "p = 0.0496"),
        (0.0504, "p = 0.0504"),
        (0.0946, "p = 0.095"),
        (0.31, "p = 0.31"),
        (1.0, "p = 1.00"),
    ],
)
def test_p_values_for_reading(p, text):
    assert p_text(p, "p ") == text


def test_metrics_in_sentences():
    names = ("dice", "hd95_mm", "lesion_f1", "volume_difference_ml", "nsd_1mm")
    assert list(map(spoken, names)) == ["Dice", "HD95", "lesion F1", "volume difference", "NSD 1mm"]


# ---------------------------------------------------------------------------------------------------- names of methods


@pytest.mark.parametrize(
    "folders, names",
    [
        (["unet", "x/ratlesnet"], ["unet", "ratlesnet"]),
        (["r/D1/unet/fold_0/validation", "r/D1/ratles/fold_0/validation"], ["unet", "ratles"]),
        (["r/D1/unet/fold_0/validation", "r/D1/unet/fold_1/validation"], ["fold_0", "fold_1"]),
        (["unet/masks", "nnunet/masks"], ["unet", "nnunet"]),
        (["a/masks", "b"], ["a", "b"]),
        (["r/unet/fold_0/validation", "r/unet/fold_1/validation", "r/x/fold_0/validation"], None),
        (["pred", "pred/post"], ["pred", "post"]),
        (["a/x/1", "b/x/1", "a/y/1"], ["a/x", "b/x", "a/y"]),
    ],
)
def test_names_of_methods(tmp_path, folders, names):
    found = method_names([tmp_path / folder for folder in folders])
    assert len(set(found)) == len(folders)
    if names:
        assert found == names


# ----------------------------------------------------------------------------------------------------------- folders


def write(path: Path, array):
    image = sitk.GetImageFromArray(np.asarray(array, np.uint8))
    image.SetSpacing([float(v) for v in SPACING[::-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def box(z, y, x, size, value=1):
    array = np.zeros(SHAPE, np.uint8)
    array[z : z + 2, y : y + size, x : x + size] = value
    return array


def make(root: Path, n: int, labels=("lesion",)):
    """Truths, a perfect method, one that is shifted by one voxel, and one by two."""
    for i in range(n):
        truth = box(1, 2, 2, 4 + i % 8)
        if len(labels) > 1:
            truth = np.maximum(truth, box(3, 8, 8, 3, value=2))
        write(root / f"labelsTr/c{i:02}.nii.gz", truth)
        for shift, name in enumerate(("good", "fair", "poor")):
            write(root / f"{name}/c{i:02}.nii.gz", np.roll(truth, shift, axis=2))
    names = {"background": 0, **{name: i + 1 for i, name in enumerate(labels)}}
    info = {"channel_names": {"0": "T2"}, "labels": names, "numTraining": n, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(info))
    return root


@pytest.fixture
def folders(tmp_path):
    messages.forget_warnings()
    return make(tmp_path, 8)


def run(root, *more, methods=("good", "poor")):
    paths = [str(root / name) for name in methods]
    out = [] if "-o" in more else ["-o", str(root / "out")]
    return command.main([*paths, "-g", str(root / "labelsTr"), "-np", "1", *out, *map(str, more)])


def test_the_command_says_who_is_better(folders, capsys):
    assert run(folders) == 0
    said = capsys.readouterr().out
    head = "lesion: good is better than poor in Dice by "
    assert head in said and "p = 0.008 (Holm, permutation, 8 cases)" in said
    assert re.search(r"good is better than poor in HD95 by 1.00 mm \[1.00, 1.00\], p = 0.008", said)
    assert "preset autoseg:" in said and "1 pair of methods, 1 class, 1 test" in said
    assert "note: bootstrap intervals of 8 cases are too narrow" in said
    for name in (
        "comparison.json",
        "comparison.csv",
        "comparison_cases.csv",
        "comparison_table.csv",
        "comparison.png",
        "comparison.svg",
    ):
        assert str(folders / "out" / name) in said
        assert (folders / "out" / name).stat().st_size > 100


def test_files_say_the_same(folders):
    run(folders, methods=("good", "fair", "poor"))
    found = read_comparison(folders / "out")
    assert found == read_model(folders / "out/comparison.json", Comparison)
    assert found.command.startswith("autoseg_compare ") and found.preset.name == "autoseg"
    assert [m.name for m in found.methods] == ["good", "fair", "poor"] and len(found.cases) == 8
    dice = found.classes["lesion"]["dice"]
    assert [row.method for row in dice.ranking] == ["good", "fair", "poor"] and dice.ranking[0].mean == 1
    assert found.scores["lesion"]["dice"]["good"] == [1.0] * 8
    rows = list(csv.DictReader((folders / "out/comparison.csv").open()))
    first = rows[0]
    assert (first["first"], first["second"], first["metric"], first["n"]) == ("good", "fair", "dice", "8")
    assert float(first["difference"]) == pytest.approx(dice.pairs[0].difference)
    assert first["shown_to_be_better"] == "good" and first["stratum"] == ""
    cells = list(csv.DictReader((folders / "out/comparison_cases.csv").open()))
    assert len(cells) == 8 * 3 * len(found.metrics)
    assert cells[0] | {"value": 1.0} == {
        "preset": "autoseg",
        "case": "c00",
        "class": "lesion",
        "metric": "dice",
        "unit": "1",
        "method": "good",
        "value": 1.0,
    }


def pooled_counts(root, method):
    """Twice the voxels in both masks, and the voxels of each, of every case: ``[n, 2]``."""
    rows = []
    for path in sorted((root / "labelsTr").glob("*.nii.gz")):
        truth, mask = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(root / name / path.name))) > 0
            for name in ("labelsTr", method)
        )
        rows.append([2 * (truth & mask).sum(), truth.sum() + mask.sum()])
    return np.array(rows, float)


def test_one_table_holds_the_pooled_dice_and_all_differences(folders, capsys):
    """From the masks themselves, and one bootstrap of the same cases for both methods."""
    run(folders, "--preset", "resunet", methods=("good", "fair", "poor"))
    said = capsys.readouterr().out.split("in one table: ")[1]
    table = {row["method"]: row for row in csv.DictReader((folders / "out/comparison_table.csv").open())}
    assert list(table) == ["good", "fair", "poor", "good - fair", "good - poor", "fair - poor"]
    assert all(name in said for name in (*table, "micro_dice", "surface_hausdorff_mm", "tpr"))
    found = read_comparison(folders / "out").classes["lesion"]
    for row, of in (
        ("fair", found["dice"].ranking[1].mean),
        ("good - poor", found["dice"].pairs[1].difference),
    ):
        assert float(table[row]["dice"]) == pytest.approx(of)
    fair, poor = (pooled_counts(folders, name) for name in ("fair", "poor"))
    pooled = {"fair": fair.sum(0), "poor": poor.sum(0)}
    values = {name: two / one for name, (two, one) in pooled.items()}
    values["fair - poor"] = values["fair"] - values["poor"]
    drawn = np.random.default_rng(12345).integers(0, 8, (1000, 8))
    many = {"fair": fair[drawn].sum(1), "poor": poor[drawn].sum(1)}
    many = {name: sums[:, 0] / sums[:, 1] for name, sums in many.items()}
    many["fair - poor"] = many["fair"] - many["poor"]
    for name, value in values.items():
        low, high = np.percentile(many[name], [2.5, 97.5])
        cells = [float(table[name][f"micro_dice{end}"]) for end in ("", "_low", "_high")]
        assert cells == pytest.approx([value, low, high])


def test_a_comparison_of_an_earlier_autoseg_has_no_pooled_dice(folders):
    run(folders)
    path = folders / "out/comparison.json"
    content = json.loads(path.read_text())
    del content["micro_dice"]
    path.write_text(json.dumps(content))
    assert format_method_table(read_comparison(folders / "out")) == ""


def test_scores_are_those_of_the_masks(folders):
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr", preset="full")
    # a square of side s, shifted by 2: Dice (s - 2) / s
    expected = [(4 + i - 2) / (4 + i) for i in range(8)]
    assert found.scores["label 1"]["dice"]["poor"] == pytest.approx(expected)
    assert found.classes["label 1"]["dice"].pairs[0].mean_second == pytest.approx(np.mean(expected))
    assert found.classes["label 1"]["hd95_mm"].pairs[0].difference == -1.0  # two voxels of 0.5 mm


def test_no_difference_is_never_called_equality(folders):
    for path in (folders / "poor").iterdir():
        write(path, sitk.GetArrayFromImage(sitk.ReadImage(str(folders / "good" / path.name))))
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr", metrics=["dice"])
    assert sentences(found) == [
        "label 1: no difference shown between good and poor in Dice: 0.000 [0.000, 0.000], "
        "p = 1.00 (Holm, permutation, 8 cases)"
    ]


def test_undefined_distances_are_said(folders):
    write(folders / "poor/c00.nii.gz", np.zeros(SHAPE))
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr")
    pair = found.classes["label 1"]["hd95_mm"].pairs[0]
    assert (pair.n, pair.undefined) == (7, 1)
    assert "(Holm, permutation, 7 cases, 1 undefined)" in sentence(pair, "hd95_mm", found)
    assert any(note.startswith("hd95_mm: 1 of 8 cases dropped") for note in found.notes)
    assert found.scores["label 1"]["hd95_mm"]["poor"][0] is None


def test_several_classes_are_one_family(tmp_path):
    make(tmp_path, 7, labels=("core", "oedema"))
    assert run(tmp_path) == 0
    found = read_comparison(tmp_path / "out")
    core, oedema = (found.classes[name]["dice"].pairs[0] for name in ("core", "oedema"))
    assert core.p["permutation"] == oedema.p["permutation"] == 2 / 2**7
    assert core.p_holm == oedema.p_holm == 4 / 2**7
    assert len(sentences(found)) == 4


def test_sizes_are_strata_from_12_cases_on(tmp_path):
    make(tmp_path, 16)
    found = compare_folders([tmp_path / "good", tmp_path / "poor"], tmp_path / "labelsTr")
    (stratum,) = found.strata
    assert stratum.name == "voxels_truth" and "quartiles" in stratum.rule
    levels = stratum.classes["label 1"]
    assert sorted(case for level in levels for case in level.cases) == found.cases
    small, large = levels[0].metrics["dice"][0], levels[-1].metrics["dice"][0]
    assert small.difference > large.difference > 0  # a shift costs small lesions more


def test_strata_that_are_asked_for(folders, capsys):
    table = folders / "groups.csv"
    table.write_text("case,scanner\n" + "".join(f"c{i:02},{'AB'[i % 2]}\n" for i in range(8)))
    assert run(folders, "--groups", table, "--strata", "voxels_truth=100") == 0
    found = read_comparison(folders / "out")
    by_name = {stratum.name: stratum for stratum in found.strata}
    assert set(by_name) == {"scanner", "voxels_truth"}
    assert [(v.name, len(v.cases)) for v in by_name["scanner"].classes["lesion"]] == [("A", 4), ("B", 4)]
    assert "dice by scanner" in capsys.readouterr().out
    rows = list(csv.DictReader((folders / "out/comparison.csv").open()))
    assert {(row["stratum"], row["level"]) for row in rows} >= {("", ""), ("scanner", "A"), ("scanner", "B")}


def test_cases_that_not_all_have_are_left_out_and_counted(folders):
    (folders / "poor/c01.nii.gz").unlink()
    (folders / "good/c02.nii.gz").unlink()
    write(folders / "good/old.nii.gz", np.zeros(SHAPE))
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr")
    assert found.cases == ["c00", "c03", "c04", "c05", "c06", "c07"]
    assert found.left_out == {"c01": ["poor"], "c02": ["good"]}
    good = found.methods[0]
    assert (good.left_out, good.ignored) == (["c01"], ["old"])
    texts = " | ".join(messages.warning_counts())
    assert (
        "2 cases not compared, because not every method has it: c01 (not in poor), c02 (not in good)" in texts
    )
    assert "1 prediction of good without truth not scored: old" in texts
    assert found.warnings == list(messages.warning_counts())


def test_one_case(tmp_path, capsys):
    make(tmp_path, 1)
    assert run(tmp_path) == 0
    said = capsys.readouterr().out
    assert "no difference shown between good and poor in Dice: +0.500, not tested (1 case)" in said
    assert "note: one case: there are no intervals and no tests" in said


def test_the_chosen_test_decides(folders):
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr", test="t")
    pair = found.classes["label 1"]["dice"].pairs[0]
    scores = found.scores["label 1"]["dice"]
    assert pair.p_holm == pair.p["t"] == pytest.approx(stats.ttest_rel(scores["good"], scores["poor"]).pvalue)
    assert "(Holm, paired t, 8 cases)" in sentences(found)[0]


def test_further_tolerances_are_compared(folders):
    assert run(folders, "--nsd_mm", 0.5, "--preset", "isles22") == 0
    found = read_comparison(folders / "out")
    assert list(found.metrics)[-1] == "nsd_0.5mm" and "dice" in found.metrics
    assert found.preset.name == "isles22"


# ------------------------------------------------------------------------------------------------------------ series


def test_a_series_has_the_means_over_runs_and_groups(folders, capsys):
    """Shifts of 1 and 2 voxels share the number 8; a square of side s has Dice 1 - shift / s, and 1 at 16."""
    table = folders / "groups.csv"
    table.write_text("case,stage\n" + "".join(f"c{i:02},{'early' if i < 3 else 'late'}\n" for i in range(8)))
    options = ("--series", 8, 8, 16, "--groups", table, "--metrics", "dice")
    assert run(folders, *options, methods=("fair", "poor", "good")) == 0
    rows = list(csv.DictReader((folders / "out/series.csv").open()))
    found = {(row["stratum"], row["level"], row["number"]): row for row in rows}
    dice = [1 - 1.5 / (4 + i) for i in range(8)]
    for key, part in ((("all", ""), dice), (("stage", "early"), dice[:3]), (("stage", "late"), dice[3:])):
        row = found[(*key, "8")]
        assert (row["runs"], row["n"]) == ("2", str(len(part)))
        assert float(row["mean"]) == pytest.approx(np.mean(part))
        assert float(row["sd"]) == pytest.approx(np.std(part, ddof=1))
        assert float(found[(*key, "16")]["mean"]) == 1
    assert (folders / "out/series.png").stat().st_size > 1000
    assert "series\n" in capsys.readouterr().out
    assert run(folders, "--series", 8, "-o", folders / "x") == 1
    assert "8 for 2 folders" in capsys.readouterr().err


def test_a_series_leaves_out_cases_in_which_a_metric_is_undefined(folders, capsys):
    """The distance of an empty mask is undefined: the mean is over the seven others, each shifted by 2 rows of 1 mm."""
    path = folders / "poor" / "c03.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(image * 0, str(path))
    options = ("--series", 8, 16, "--metrics", "hausdorff_mm", "dice", "--preset", "full")
    assert run(folders, *options, methods=("poor", "good")) == 0
    assert "nan" not in (text := capsys.readouterr().out)
    rows = list(csv.DictReader((folders / "out/series.csv").open()))
    (row,) = (r for r in rows if (r["metric"], r["stratum"], r["number"]) == ("hausdorff_mm", "all", "8"))
    assert row["n"] == "7" and float(row["sd"]) == 0
    assert f"8       1     {float(row['mean']):.3f}" in text


# --------------------------------------------------------------------------------------------- every metric of a preset


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_drops_a_metric_in_silence(preset):
    """Each is compared, or said to be left out and why; each of its table that has a direction is compared."""
    choice = MetricChoice(preset)
    chosen = compared_metrics(choice)
    said = not_compared(choice, chosen)
    names = [name for text in said for name in text.split(": ")[1].split(", ")]
    own = {metric.name: metric for metric in choice.full_preset.metrics}
    assert sorted([*chosen, *names]) == sorted(own)
    assert all(name in chosen for name in choice.table if own[name].better)
    for text in said:
        for name in text.split(": ")[1].split(", "):
            assert (own[name].better is None) == text.startswith("only described")


def test_what_a_preset_leaves_out_is_printed(folders, capsys):
    assert run(folders) == 0
    assert "note: only described, because no value is better than another: volume_truth_ml," in (
        capsys.readouterr().out
    )


def test_compactness_is_compared_and_set_beside_the_truth(tmp_path, capsys):
    """The card's box (compactness 13.6704572 on repeated slices) and the same with a far voxel (13.7164571)."""
    box = np.zeros((18, 64, 64), np.uint8)
    box[5:9, 20:40, 20:40] = 1
    far = box.copy()
    far[0, 0, 0] = 1
    for i in range(7):
        for name, mask in (("labelsTr", box), ("same", box), ("far", far)):
            write(tmp_path / f"{name}/c{i}.nii.gz", mask)
    assert run(tmp_path, "--preset", "ratlesnetv2", methods=("same", "far")) == 0
    said = capsys.readouterr().out
    result = read_comparison(tmp_path / "out").classes["label 1"]["compactness_9slices_prediction"]
    (pair,) = result.pairs
    assert pair.difference == pytest.approx(13.6704572 - 13.7164571, abs=2e-7)
    assert pair.better == "same" and pair.p_holm == 2 / 2**7 and pair.sd == pytest.approx(0, abs=1e-12)
    same, beside = result.against_truth
    assert (same.difference, same.second, beside.second) == (0, "truth", "truth")
    assert beside.difference == pytest.approx(0.0459999, abs=2e-7)
    # of the two tests against the truth the smaller p-value counts twice
    assert (beside.p["permutation"], beside.p_holm, beside.better) == (2 / 2**7, 4 / 2**7, None)
    assert "beside the truth" in said and "method - truth" in said


def test_sd_of_the_paired_differences():
    assert one(0.5 + D, np.full(8, 0.5)).sd == pytest.approx(np.sqrt(((D - D.mean()) ** 2).sum() / 7))
    assert one([1.0], [0.5]).sd is None


# ------------------------------------------------------------------------------------------------------------ figure


def test_every_dot_is_a_case(folders):
    found = compare_folders(
        [folders / name for name in ("good", "fair", "poor")],
        folders / "labelsTr",
        metrics=["dice", "hd95_mm"],
    )
    figure = make_figure(found)
    dice, hd95 = figure.axes
    scores = found.scores["label 1"]["dice"]
    for place, (first, second) in enumerate((("good", "fair"), ("good", "poor"), ("fair", "poor"))):
        drawn = dice.collections[place].get_offsets()[:, 0]
        assert sorted(drawn) == pytest.approx(sorted(np.subtract(scores[first], scores[second])))
    from matplotlib.colors import to_hex

    for axis in (dice, hd95):  # the first is better in every case, whichever direction is better
        colours = {to_hex(c) for dots in axis.collections for c in dots.get_facecolors()}
        assert colours == {FIRST.lower()}
    assert "second is better" in dice.get_xlabel().split("first - second")[0]
    assert "first is better" in hd95.get_xlabel().split("first - second, mm")[0]
    assert len({FIRST, SECOND, SAME}) == 3


def test_a_metric_that_is_undefined_in_every_case(folders, capsys):
    for path in (folders / "poor").iterdir():
        write(path, np.zeros(SHAPE))
    assert run(folders, "--metrics", "hd95_mm") == 0
    printed = capsys.readouterr().out
    assert "good and poor cannot be compared in HD95: not tested (0 cases, 8 undefined)" in printed
    assert "undefined in every case" in (folders / "out/comparison.svg").read_text()


def test_at_most_four_metrics_are_main(folders):
    names = ["dice", "hd95_mm", "lesion_f1", "hausdorff_mm", "volume_difference_ml"]
    found = compare_folders([folders / "good", folders / "poor"], folders / "labelsTr", metrics=names)
    assert found.main == names[:4] and list(found.metrics) == names


def test_the_figure_holds_names_as_they_are(folders):
    """A dollar sign is not the start of a formula."""
    assert run(folders, "--names", "a$b", "c$d_1") == 0
    assert "a$b - c$d_1" in (folders / "out/comparison.svg").read_text()


# --------------------------------------------------------------------------------------------------------- bad input


def refused(root, capsys, *texts, more=(), methods=("good", "poor")):
    """The command says all texts, exits with 1 and leaves nothing behind."""
    before = sorted(root.rglob("*"))
    assert run(root, *more, methods=methods) == 1
    said = capsys.readouterr().err
    for text in texts:
        assert text in said, said
    assert sorted(root.rglob("*")) == before


def test_one_folder(folders, capsys):
    refused(
        folders, capsys, "there is nothing to compare with", "1 folder", "autoseg_evaluate", methods=["good"]
    )


def test_the_same_folder_twice(folders, capsys):
    refused(folders, capsys, "a folder is given twice", methods=["good", "poor", "good/../good"])
    refused(folders, capsys, "predictions and truths are the same folder", methods=["good", "labelsTr"])


def test_a_missing_and_an_empty_folder(folders, capsys):
    refused(folders, capsys, "the folder of predictions of none is missing", methods=["good", "none"])
    (folders / "empty").mkdir()
    refused(folders, capsys, "the folder of predictions of empty holds no mask", methods=["good", "empty"])


def test_no_common_case(folders, capsys):
    for path in list((folders / "poor").iterdir())[:4]:
        (folders / "good" / path.name).unlink()
    for path in list((folders / "good").iterdir()):
        (folders / "poor" / path.name).unlink()
    refused(
        folders,
        capsys,
        "no case has a truth and a prediction of every method",
        "4 of good, 4 of poor",
        "folds",
    )


def test_names_that_do_not_fit(folders, capsys):
    refused(folders, capsys, "the names of the methods do not fit", "1 names for 2", more=["--names", "a"])
    refused(folders, capsys, "a different name for each folder", more=["--names", "a", "a"])


def test_metrics_that_do_not_fit(folders, capsys):
    refused(folders, capsys, "there is no metric dise", "did you mean dice", more=["--metrics", "dise"])
    refused(
        folders,
        capsys,
        "assd_mm is not a metric of the preset autoseg",
        "the preset full and of isles2017 and of resunet",
        "--preset full",
        more=["--metrics", "dice", "assd_mm"],
    )
    refused(
        folders,
        capsys,
        "voxels_truth cannot be compared, because no value of it is better",
        more=["--metrics", "voxels_truth"],
    )
    more = ["--metrics", "hd95_mm", "--without", "distance"]
    refused(folders, capsys, "hd95_mm was left out", "--without", more=more)
    refused(folders, capsys, "there is no preset 'isles'", more=["--preset", "isles"])


def test_strata_that_depend_on_the_method(folders, capsys):
    refused(
        folders,
        capsys,
        "hd95_mm splits the cases of each method in another way",
        "a quantity of the truth",
        more=["--strata", "hd95_mm=0.6"],
    )


def test_a_groups_file_that_is_missing(folders, capsys):
    refused(folders, capsys, "none.csv", "missing", more=["--groups", folders / "none.csv"])


def test_masks_that_do_not_fit(folders, capsys):
    write(folders / "poor/c03.nii.gz", np.zeros((6, 16, 17)))
    refused(folders, capsys, "c03", "the prediction's shape is not that of the truth")


def test_classes_that_differ(folders, capsys):
    (folders / "dataset.json").unlink()
    write(folders / "poor/c03.nii.gz", box(0, 0, 0, 3, value=2))
    refused(
        folders, capsys, "do not have the same classes", "good: label 1; poor: label 1, label 2", "-djfile"
    )


def test_another_comparison_is_not_replaced(folders, capsys):
    assert run(folders) == 0
    capsys.readouterr()
    refused(folders, capsys, "comparison.json is there, of other folders", "-o", methods=["good", "fair"])
    assert run(folders) == 0  # the same again
    refused(
        folders, capsys, "comparison.json is there, made with other settings", "preset: isles22", "--overwrite",
        more=["--preset", "isles22"],
    )  # fmt: skip
    assert run(folders, "--preset", "isles") == 1 and run(folders, "--strata", "size") == 1
    said = capsys.readouterr().err
    assert "there is no preset 'isles'" in said and "--overwrite" not in said
    assert run(folders, "--preset", "isles22", "--overwrite") == 0
    (folders / "out/comparison.json").write_text("{}")
    assert run(folders, methods=["good", "fair"]) == 0  # nothing that could still be read


def test_output_that_cannot_be_a_folder(folders, capsys):
    (folders / "file").write_text("x")
    refused(folders, capsys, "cannot be written", more=["-o", folders / "file" / "out"])


def test_a_comparison_of_another_version(folders):
    run(folders)
    path = folders / "out/comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    with pytest.raises(AutosegError, match="another version"):
        read_comparison(folders / "out")


# ----------------------------------------------------------------------------------------------------- sweep of presets


@pytest.mark.parametrize("preset", scoring_options.PRESETS)
def test_every_preset_can_be_compared(preset):
    chosen = compared_metrics(MetricChoice(preset))
    assert chosen and all(metric.better is not None for metric in chosen.values())


def test_the_tests_on_offer_are_those_that_there_are():
    assert tuple(SPOKEN) == command.TESTS
