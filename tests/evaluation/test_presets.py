"""Presets against published values, the public scorers' values, and docs/metrics.md."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.metrics.metric import NAN, Metric
from autoseg.evaluation.metrics.pair import Pair
from autoseg.evaluation.presets import PRESETS, Preset, find_preset, metrics_named
from autoseg.evaluation.strata import parse_rule

SIZE = (3, 3, 3)
SOME, NOTHING = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
SOME[1, 1, :2] = True
PAIRS = {"prediction": (NOTHING, SOME), "truth": (SOME, NOTHING), "both": (NOTHING, NOTHING)}


def score(name, prediction, truth, spacing_mm=(1, 1, 1)):
    pair = Pair(prediction, truth, spacing_mm)
    return {metric.name: metric(pair) for metric in PRESETS[name].metrics}


# ------------------------------------------------------------------------------------------------- all of them


def test_names():
    assert list(PRESETS) == [
        "autoseg",
        "full",
        "isles22",
        "isles24",
        "atlas2",
        "isles2017",
        "brats",
        "ratlesnetv2",
        "edd_muscle",
        "brainsegnet",
        "deepmedic",
        "resunet",
    ]
    assert all(find_preset(name).name == name for name in PRESETS)
    with pytest.raises(AutosegError, match="there is no preset 'isles2'\n.*did you mean isles2"):
        find_preset("isles2")
    with pytest.raises(AutosegError, match="'zzz'\n.*choose one of: atlas2, autoseg, brainsegnet"):
        find_preset("zzz")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_every_preset(preset):
    assert preset.title and preset.table and preset.metrics
    assert preset.source or preset.name in ("autoseg", "full")
    assert all(note.endswith(".") for note in preset.notes)
    names = {metric.name for metric in preset.metrics}
    assert all(parse_rule(rule, names).metric in names for rule in preset.strata)
    random = np.random.default_rng(0)
    pairs = [*PAIRS.values(), (random.random((4, 6, 5)) > 0.6, random.random((4, 6, 5)) > 0.6), (SOME, SOME)]
    for prediction, truth in pairs:
        for name, value in score(preset.name, prediction, truth, (3.0, 1.0, 0.5)).items():
            assert math.isfinite(value) or math.isnan(value), name


def test_the_default_is_what_it_was():
    """Its names and their order are those of the first version of summary.csv."""
    assert [metric.name for metric in find_preset("autoseg").metrics] == [
        *(
            "dice",
            "hd95_mm",
            "hausdorff_mm",
            "volume_truth_ml",
            "volume_prediction_ml",
            "volume_difference_ml",
        ),
        *("voxels_truth", "voxels_prediction", "tp", "fp", "fn", "tn", "lesions_truth", "lesions_prediction"),
        *("lesions_found", "lesions_missed", "lesions_false", "lesion_f1"),
    ]


def test_full_is_everything():
    assert find_preset("full").metrics == tuple(METRICS.values())


def test_presets_that_do_not_fit():
    dice = METRICS["dice"]
    with pytest.raises(
        AutosegError, match="two metrics of the preset mine have the same name\n  found:    dice"
    ):
        Preset("mine", "", (dice, replace(dice, empties=None)), ())
    with pytest.raises(AutosegError, match="shows metrics that it does not compute\n  found:    iou\n.*dice"):
        Preset("mine", "", (dice,), ("dice", "iou"))
    with pytest.raises(AutosegError, match="shows metrics that it does not compute\n  found:    mcc"):
        Preset("mine", "", (dice,), ("dice",), in_words=("mcc",))
    with pytest.raises(AutosegError, match="there is no metric 'dise'\n.*did you mean dice"):
        metrics_named("dise")


# --------------------------------------------------------------------------------------------------- challenges


@pytest.mark.parametrize("name", ["isles22", "isles24", "atlas2"])
def test_challenges_on_empty_masks(name):
    """As their scripts: both empty 1, one of them 0; the counts and volumes differ by what there is."""
    found = {which: score(name, *pair) for which, pair in PAIRS.items()}
    for metric in ("dice", "lesion_f1"):
        assert [found[which][metric] for which in ("prediction", "truth", "both")] == [0, 0, 1]
    assert [one["lesion_count_difference_absolute"] for one in found.values()] == [1, 1, 0]
    assert [one["volume_difference_absolute_ml"] for one in found.values()] == pytest.approx(
        [0.002, 0.002, 0]
    )


@pytest.mark.parametrize(
    "name, f1, count", [("isles22", 0.7826087, 3), ("isles24", 0.56, 3), ("atlas2", 0.6551724, 2)]
)
def test_challenges_give_what_their_scripts_give(name, f1, count):
    """The scripts on these masks; ATLAS batch-wise and on masks of numbers: its 6 voxels are 0.006 ml."""
    random = np.random.default_rng(0)
    truth = random.random((6, 9, 8)) > 0.93
    prediction = (truth & (random.random(truth.shape) > 0.3)) | (random.random(truth.shape) > 0.96)
    found = score(name, prediction, truth)
    assert found["dice"] == pytest.approx(0.6486486, abs=5e-8)
    assert found["lesion_f1"] == pytest.approx(f1, abs=5e-8)
    assert found["lesion_count_difference_absolute"] == count
    assert found["volume_difference_absolute_ml"] == pytest.approx(0.006)


def test_brats_regions():
    """Worked by hand on nine voxels; Hu et al. 2020, Brain SegNet, definitions of the text."""
    truth, prediction = (
        np.array(v).reshape(1, 1, 9) for v in ([0, 1, 2, 3, 4, 4, 2, 0, 1], [0, 1, 2, 2, 4, 3, 2, 2, 0])
    )
    expected = {  # Dice, sensitivity, specificity, precision
        "whole": (0.857143, 0.857143, 0.5, 0.857143),
        "core": (0.75, 0.6, 1, 1),
        "enhancing": (0.666667, 0.5, 1, 1),
    }
    regions = find_preset("brats").regions
    assert set().union(*regions.values()) == set(find_preset("brats").label_words)
    assert regions == {"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)}
    for region, values in regions.items():
        found = score("brats", np.isin(prediction, values), np.isin(truth, values))
        assert [found[m] for m in ("dice", "tpr", "tnr", "ppv")] == pytest.approx(expected[region], abs=5e-7)
    assert score("brats", NOTHING, NOTHING)["dice"] == 1


# ------------------------------------------------------------------------------------------------------- papers


@pytest.mark.parametrize("name", ["isles2017", "brainsegnet"])
def test_dice_precision_and_recall_by_hand(name):
    """Truth of 5 voxels, 4 predicted, 3 of them rightly; a case that is missed altogether has 0 of each."""
    truth, prediction = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    truth[0, 0, :3] = truth[0, 1, :2] = True
    prediction[0, 0, 1:] = prediction[0, 1, 1] = True
    found = score(name, prediction, truth)
    metrics = ("dice", "ppv", "tpr")
    assert [found[m] for m in metrics] == pytest.approx([2 * 3 / 9, 3 / 4, 3 / 5])
    assert [score(name, NOTHING, SOME)[m] for m in metrics] == [0, 0, 0]


def test_deepmedic_on_a_slice():
    """Definitions of Pérez Malla et al. 2019 on a hand-worked slice."""
    rows = "1100 1100 0000 0001", "1110 1000 0000 0000"
    truth, prediction = (np.array([[int(v) for v in row] for row in r.split()], bool)[None] for r in rows)
    found = score("deepmedic", prediction, truth)
    expected = {
        "dice": 0.666667,
        "ppv": 0.75,
        "tpr": 0.6,
        "tnr": 0.909091,
        "accuracy": 0.8125,
        "mcc": 0.544949,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-7)
    assert found["hausdorff_mm"] == pytest.approx(3.162278, abs=5e-7)
    assert score("deepmedic", prediction, truth, (1, 2, 1))["hausdorff_mm"] == pytest.approx(5)
    missed = score("deepmedic", NOTHING, SOME)
    assert [missed[m] for m in ("dice", "ppv", "tpr", "mcc")] == [0, 0, 0, 0]
    assert math.isnan(missed["hausdorff_mm"])
    assert missed["hausdorff_penalised_mm"] == pytest.approx(np.linalg.norm(SOME.shape))
    both = score("deepmedic", NOTHING, NOTHING)
    assert both["dice"] == 1 and math.isnan(both["mcc"])
    assert find_preset("deepmedic").interval == "t"


def test_deepmedic_measures_between_borders():
    """A prediction with a hole: its border is 7 voxels from that of the truth, but no voxel is farther than 3."""
    truth = np.ones((21, 21, 21), bool)
    prediction = truth.copy()
    prediction[8:13, 8:13, 8:13] = False
    assert score("deepmedic", prediction, truth)["hausdorff_mm"] == 7
    assert METRICS["hausdorff_voxels_mm"](Pair(prediction, truth, (1, 1, 1))) == 3


def test_edd_muscle_on_empty_masks():
    """Chen et al. 2017 have lesions everywhere; false alarms of other cases count as such, not in Dice and DR."""
    names = ("dice", "detected", "lesions_false", "lesion_size_false")
    found = {
        which: [score("edd_muscle", *pair, (6, 1.6, 1.6))[n] for n in names] for which, pair in PAIRS.items()
    }
    assert found["prediction"] == [0, 0, 0, 0]
    assert found["truth"] == pytest.approx([NAN, NAN, 1, 2], nan_ok=True)
    assert found["both"] == pytest.approx([1, NAN, 0, 0], nan_ok=True)


def test_edd_muscle_dice():
    truth, prediction = np.zeros((1, 8, 8), bool), np.zeros((1, 8, 8), bool)
    truth[0, [0, 0, 1, 1, 0, 5, 6, 7], [0, 1, 0, 1, 6, 1, 2, 3]] = True
    prediction[0, [1, 1, 3, 3, 7, 6], [1, 2, 5, 6, 7, 2]] = True
    found = score("edd_muscle", prediction, truth)
    assert found["dice"] == pytest.approx(0.285714, abs=5e-7)
    assert (found["lesions_truth"], found["lesions_prediction"], found["detected"]) == (3, 4, 1)


def test_ratlesnetv2_values():
    """A box and the same with one far voxel; Valverde et al. 2020, values by the published definitions."""
    truth = np.zeros((18, 64, 64), bool)
    truth[5:9, 20:40, 20:40] = True
    prediction = truth.copy()
    prediction[0, 0, 0] = True
    found = score("ratlesnetv2", prediction, truth, (1.0, 0.1171875, 0.1171875))
    expected = {
        "dice": 0.9996876,
        "hausdorff_mm": 5.9988606,
        "hausdorff_9slices_mm": 6.2286011,
        "compactness_9slices_prediction": 13.7164571,
        "compactness_9slices_truth": 13.6704572,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-7)
    assert found["lesions_prediction"] == 2
    false_alarm = np.zeros_like(truth)
    false_alarm[0, 0, 0] = True
    found = score("ratlesnetv2", false_alarm, np.zeros_like(truth))
    assert (found["dice"], found["dice_ratlesnetv2"]) == (0, pytest.approx(0.9999864, abs=5e-8))


def test_resunet_values():
    """Two cubes, one around the other; surface-distance, named by Tomita et al. 2020."""
    truth, prediction = np.zeros((24, 24, 24), bool), np.zeros((24, 24, 24), bool)
    truth[7:15, 7:15, 7:15] = prediction[6:16, 6:16, 6:16] = True
    found = score("resunet", prediction, truth)
    expected = {"surface_hausdorff_mm": 1.7320508, "assd_mm": 1.0357913, "assd_mean_mm": 1.0291619, "tpr": 1}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-7)
    assert find_preset("resunet").resamples == 1000
    assert score("resunet", NOTHING, SOME)["ppv"] == 0
    assert math.isnan(score("resunet", SOME, NOTHING)["tpr"])


# ----------------------------------------------------------------------------------------------- docs/metrics.md

DOCS = Path(__file__).parents[2] / "docs/metrics.md"
EMPTIES = ("empty prediction", "empty truth", "both empty")


def tables():
    """All tables of the page: a list of rows each, a row maps the title of a column to its cell."""
    found, header = [], None
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if header is None:
            header = cells
            found.append([])
        elif set(line) - set("|-"):
            assert len(cells) == len(header), line
            found[-1].append(dict(zip(header, cells, strict=True)))
    return [rows for rows in found if rows]


def rows_with(*columns):
    return [row for rows in tables() if set(columns) <= set(rows[0]) for row in rows]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def cell_of(value):
    """What the page says for a value at an empty mask."""
    return "defined" if value is None else "undefined" if math.isnan(value) else f"{value:g}"


def described(metric: Metric) -> tuple[str, ...]:
    return metric.unit, *(cell_of(metric.when_empty(which)) for which in ("prediction", "truth", "both"))


def documented(row):
    return row["unit"], *(row[column] for column in EMPTIES)


def default_rows():
    return {code(row["metric"])[0]: row for row in rows_with("metric", "what it is", *EMPTIES)}


def changed_rows():
    return {
        (code(row["preset"])[0], code(row["metric"])[0]): row
        for row in rows_with("preset", "metric", *EMPTIES)
    }


def test_docs_have_every_metric_in_order():
    assert list(default_rows()) == list(METRICS)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_docs_say_unit_and_empties_of_every_metric(preset):
    default, changed = default_rows(), changed_rows()
    for metric in preset.metrics:
        row = changed.get((preset.name, metric.name), default[metric.name])
        assert documented(row) == described(metric), metric.name


def test_docs_list_no_change_that_is_none():
    for (preset, name), row in changed_rows().items():
        assert name in {metric.name for metric in PRESETS[preset].metrics}
        assert documented(row) != documented(default_rows()[name])


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_docs_say_what_comes_out(metric):
    """The values themselves, not only what the table of the code promises."""
    for which, column in zip(PAIRS, EMPTIES, strict=True):
        value, said = metric(Pair(*PAIRS[which], (1, 1, 1))), default_rows()[metric.name][column]
        assert math.isnan(value) == (said == "undefined"), which
        if said not in ("defined", "undefined"):
            assert value == float(said)


def test_docs_list_every_preset():
    rows = {code(row["preset"])[0]: row for row in rows_with("preset", "lesions", "printed")}
    assert list(rows) == list(PRESETS)
    for name, preset in PRESETS.items():
        row = rows[name]
        assert tuple(code(row["printed"])) == preset.table
        further = [metric.name for metric in preset.metrics if metric.name not in preset.table]
        assert code(row["also computed"]) == further or (
            name == "full" and row["also computed"] == "all others"
        )
        assert tuple(code(row["strata"])) == preset.strata
        resampled = preset.interval in ("percentile", "bca")
        kind = f"{preset.interval}, {preset.resamples} resamples" if resampled else f"{preset.interval}, mean"
        assert row["interval of the mean"].startswith(kind)
        assert_rule(preset, row["lesions"])
    headings = re.findall(r"^### (\w+)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [name for name in PRESETS if name not in ("autoseg", "full")]


def assert_rule(preset, said):
    """The rule stands in the definitions of the lesion metrics."""
    definitions = {metric.name: metric.definition for metric in preset.metrics if metric.group == "lesion"}
    assert bool(said) == bool(definitions)
    if said:
        dimensions, connectivity, matching = said.split(", ")
        assert definitions["lesions_truth"].startswith(f"{connectivity} components")
        assert ("slices" in definitions["lesions_truth"]) == (dimensions == "2D")
        matched = definitions.get("lesions_false", "share no voxel")
        assert ("share no voxel" if matching == "any voxel" else matching) in matched
