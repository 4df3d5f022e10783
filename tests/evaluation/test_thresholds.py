"""Published numbers, plain counting, scikit-learn as a second implementation."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from autoseg.errors import AutosegError
from autoseg.evaluation.thresholds import (
    THRESHOLDS,
    Counts,
    average_precision_interval,
    count,
    mdsc_case,
    mdsc_global,
    mdsc_intervals,
    pooled,
    precision_recall,
    read_thresholds,
    write_thresholds,
)


def volume(values, dtype=float):
    return np.array(values, dtype).reshape(1, 1, -1)


def counts(probability, truth, dtype=float):
    return count(volume(probability, dtype), volume(truth, bool))


def random_case(seed, dtype=np.float64, shape=(5, 20, 30)):
    """Probabilities that are multiples of 0.01, most of them 0, and a truth that follows them."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(0, 101, shape) * (generator.random(shape) < 0.3)
    truth = generator.random(shape) < 0.02 + steps / 130
    return (steps / 100).astype(dtype), truth & (steps > 0)


def test_thresholds_are_the_decimals():
    assert [f"{t:.2f}" for t in THRESHOLDS[[0, 1, 29, 57, 99]]] == ["0.00", "0.01", "0.29", "0.57", "0.99"]
    assert all(float(f"{t:.2f}") == t for t in THRESHOLDS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["multiples of 0.01", "any", "near zero"])
def test_counts_against_plain_counting(dtype, kind):
    probability, truth = random_case(0, dtype)
    if kind != "multiples of 0.01":
        generator = np.random.default_rng(1)
        probability = (generator.random(truth.shape) * (1 if kind == "any" else 0.02)).astype(dtype)
    found = count(probability, truth)
    for k, t in enumerate(THRESHOLDS):
        lesion = probability > dtype(t)
        expected = ((lesion & truth).sum(), (lesion & ~truth).sum(), (~lesion & truth).sum())
        assert (found.tp[k], found.fp[k], found.fn[k]) == expected
    assert found.tp.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_probability_is_not_above_itself_in_any_precision(dtype):
    for k in range(100):
        assert np.flatnonzero(counts([k / 100], [1], dtype).tp).tolist() == list(range(k))


def test_ignored_voxels_count_nowhere():
    probability, truth = random_case(3)
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 5:15] = True
    found, kept = count(probability, truth, ignore), count(probability[~ignore], truth[~ignore])
    for name in ("tp", "fp", "fn"):
        assert np.array_equal(getattr(found, name), getattr(kept, name))


def test_a_mask_is_a_probability_of_0_or_1():
    _, truth = random_case(0)
    found = count(truth, truth)
    assert (found.tp == truth.sum()).all() and not found.fp.any() and not found.fn.any()
    assert np.array_equal(count(truth.astype(np.uint8), truth).tp, found.tp)


def test_no_voxel_at_all():
    assert not count(np.zeros((0, 4, 4), np.float32), np.zeros((0, 4, 4), bool)).tp.any()


@pytest.mark.parametrize(
    ("probability", "found"),
    [([2.5, 0.1], "from 0.1 to 2.5"), ([-1, 0.1], "from -1 to 0.1"), ([math.nan, 0.1], "not numbers")],
)
def test_logits_are_refused(probability, found):
    with pytest.raises(AutosegError, match=rf"not probabilities\n.*{found}(.|\n)*not logits"):
        counts(probability, [1, 0])


def test_rounding_beyond_one_is_tolerated():
    assert counts([1.0004, -0.0004], [1, 0]).dice[99] == 1


def test_shapes_must_agree():
    with pytest.raises(AutosegError, match="probabilities and truth differ in shape"):
        count(np.zeros((2, 3, 4)), np.zeros((2, 3, 5), bool))
    with pytest.raises(AutosegError, match="probabilities and ignored voxels differ in shape"):
        count(np.zeros((2, 3, 4)), np.zeros((2, 3, 4), bool), np.zeros((2, 3, 5), bool))


# -------------------------------------------------------------------------------------------------------- summaries


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maximal_dice_of_a_worked_example(dtype):
    """Tomita et al. 2020 (3D-ResU-Net), mDSC on the grid 0, 0.05, ..., 0.95 with p > t."""
    cases = [
        counts([0.9, 0.8, 0.75, 0.6, 0.6, 0.6], [1, 1, 1, 0, 0, 0], dtype),
        counts([0.5, 0.3, 0.2, 0.05, 0.1, 0.1], [1, 0, 0, 0, 0, 0], dtype),
    ]
    best = mdsc_global(cases)
    assert best.value == pytest.approx(0.8333333, abs=5e-8)
    assert best.thresholds == (0.3, 0.35, 0.4, 0.45)
    assert mdsc_case(cases) == 1


def test_macro_and_micro_dice_of_a_worked_example():
    """Tomita et al. 2020 (3D-ResU-Net), micro-DSC: voxels of all scans pooled, p > 0.5."""
    cases = [
        counts([0.9, 0.8, 0.4, 0.2, 0.1, 0.6], [1, 1, 1, 0, 0, 0]),
        counts([0.3, 0.45, 0.2, 0.05, 0.55, 0.1], [0, 1, 0, 0, 0, 0]),
    ]
    assert np.mean([one.dice[50] for one in cases]) == pytest.approx(0.3333333, abs=5e-8)
    assert pooled(cases).dice[50] == 0.5


def test_dice_of_empty_masks():
    nothing = counts([0, 0.2], [0, 0]).dice
    assert nothing[19] == 0 and nothing[20] == 1
    assert counts([0.2, 0], [0, 1]).dice.tolist() == [0] * 100
    assert mdsc_case([counts([0, 0.2], [0, 0])]) == 1


def test_no_case_has_no_summary():
    assert (
        math.isnan(mdsc_global([]).value) and mdsc_global([]).thresholds == () and math.isnan(mdsc_case([]))
    )
    assert math.isnan(precision_recall([]).average_precision)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_against_scikit_learn(seed, dtype):
    cases = [random_case(10 * seed + i, dtype) for i in range(3)]
    found = precision_recall(count(*case) for case in cases)
    scores = np.concatenate([p.ravel() for p, _ in cases]).astype(float).round(2)
    truths = np.concatenate([t.ravel() for _, t in cases])
    assert found.average_precision == pytest.approx(average_precision_score(truths, scores), abs=1e-12)
    precision, recall, at = precision_recall_curve(truths, scores)
    ours = dict(zip(THRESHOLDS.round(2), zip(found.precision, found.recall, strict=True), strict=True))
    for p, r, s in zip(precision, recall, at, strict=False):
        if s > 0:  # lesion where p >= s is lesion where p > s - 0.01
            assert ours[round(s - 0.01, 2)] == pytest.approx((p, r), abs=1e-12)


def test_average_precision_of_a_worked_example():
    """4 of 10 voxels are lesion. Recall rises 1/4 at ranks 1, 2 and 3 and at rank 7: (1 + 1 + 1 + 4/7) / 4."""
    truth = [0, 0, 1, 1, 0, 1, 0, 1, 0, 0]
    scores = [0.1, 0.4, 0.35, 0.8, 0.6, 0.7, 0.2, 0.9, 0.55, 0.05]
    assert precision_recall([counts(scores, truth)]).average_precision == pytest.approx(0.892857, abs=5e-7)


def test_intervals_against_a_slow_bootstrap():
    """Every resample is drawn and scored as if its cases were the data."""
    cases = [count(*random_case(i)) for i in range(6)]
    drawn = [[cases[i] for i in rows] for rows in np.random.default_rng(12345).integers(0, 6, (200, 6))]
    slow = {
        function: np.percentile([function(some) for some in drawn], [2.5, 97.5])
        for function in (lambda some: mdsc_global(some).value, mdsc_case)
    }
    for found, expected in zip(mdsc_intervals(cases, 200), slow.values(), strict=True):
        assert found == pytest.approx(expected)
    averages = [precision_recall(some).average_precision for some in drawn]
    assert average_precision_interval(cases, 200) == pytest.approx(np.percentile(averages, [2.5, 97.5]))


def test_precision_and_recall_where_they_are_undefined():
    found = precision_recall([counts([0.5, 0.2], [0, 0])])
    assert np.isnan(found.recall).all() and math.isnan(found.average_precision)
    assert found.precision[0] == 0 and math.isnan(found.precision[50])
    missed = precision_recall([counts([0, 0], [1, 0])])
    assert (missed.recall == 0).all() and missed.average_precision == 0


# ------------------------------------------------------------------------------------------------------------ files


def test_file_and_back(tmp_path):
    cases = {
        f"case, {i}": {"lesion": count(*random_case(i)), "core": count(*random_case(9 + i))} for i in range(2)
    }
    path = tmp_path / "thresholds.csv"
    write_thresholds(path, cases)
    lines = path.read_text().splitlines()
    assert lines[0] == "case,class,threshold,tp,fp,fn" and len(lines) == 1 + 2 * 2 * 100
    assert lines[6].startswith('"case, 0",lesion,0.05,')
    read = read_thresholds(path)
    assert list(read) == list(cases) and list(read["case, 0"]) == ["lesion", "core"]
    for name, classes in cases.items():
        for label, one in classes.items():
            assert all(
                np.array_equal(getattr(read[name][label], a), getattr(one, a)) for a in ("tp", "fp", "fn")
            )


def test_no_file(tmp_path):
    with pytest.raises(AutosegError, match="the file is missing\n.*autoseg_evaluate"):
        read_thresholds(tmp_path / "thresholds.csv")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda lines: [], "another header"),
        (lambda lines: ["a,b", *lines[1:]], "another header"),
        (lambda lines: lines[:-1], "99 rows of a, lesion"),
        (lambda lines: [*lines, lines[-1]], "threshold 0.99 of a, lesion out of order"),
        (lambda lines: [lines[0], lines[2], lines[1]], "threshold 0.01 of a, lesion out of order"),
        (lambda lines: [line.replace(",0,", ",x,") for line in lines], "'x'"),
        (lambda lines: [lines[0], "a,lesion"], "not enough values"),
    ],
)
def test_spoiled_files(tmp_path, spoil, found):
    path = tmp_path / "thresholds.csv"
    write_thresholds(path, {"a": {"lesion": Counts(*np.zeros((3, 100), np.int64))}})
    path.write_text("\n".join(spoil(path.read_text().splitlines())))
    with pytest.raises(AutosegError, match=rf"is not a table of counts at thresholds\n.*{found}"):
        read_thresholds(path)
