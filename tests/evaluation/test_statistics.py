"""Published numbers, scipy as a second implementation, hand-worked cases."""

import math
import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from autoseg.evaluation.statistics import (
    _counts,
    bland_altman,
    compare_paired,
    describe_interval,
    fit_log_volume,
    holm,
    interval_of_means,
    kruskal_wallis,
    landis_koch,
    led_by_few,
    mean_interval,
    median_interval,
    paired_t,
    permutation_test,
    r_squared_interval,
    ratio_interval,
    t_interval,
    wilcoxon,
)

# The bootstrap over scans of Tomita et al. 2020 (3D-ResU-Net), 1000 resamples; worked example
DICE = [0, 0.12, 0.35, 0.5, 0.61, 0.66, 0.7, 0.74, 0.78, 0.81, 0.85, 0.9]
# The paired permutation test of Valverde et al. 2020 (RatLesNetv2); worked example
DIFFERENCES = [0.05, 0.02, -0.01, 0.03, 0.04, 0, 0.06, -0.02]


def test_percentile_interval_of_a_worked_example():
    assert mean_interval(DICE, resamples=1000, seed=0) == pytest.approx((0.4241042, 0.7267083), abs=5e-8)


def test_resamples_are_rows_of_one_stream_whatever_the_block():
    """Many cases are drawn in blocks of rows; numpy draws them at once here."""
    drawn = np.random.default_rng(3).integers(0, 3000, (700, 3000))
    counts = _counts(3000, 700, 3)
    assert np.array_equal(
        counts[[0, 349, 350, 699]], [np.bincount(drawn[i], minlength=3000) for i in (0, 349, 350, 699)]
    )
    assert (counts.sum(1, dtype=int) == 3000).all()


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("seed", range(4))
def test_bootstrap_against_scipy(method, seed):
    values = np.random.default_rng(seed).beta(4, 1.2, 40) ** (1 + seed)
    scipy_name = {"percentile": "percentile", "bca": "BCa"}[method]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method=scipy_name, random_state=np.random.default_rng(9)
    ).confidence_interval
    found = mean_interval(values, method=method, resamples=20_000)
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_bca_of_the_same_resamples_is_scipy_s_to_the_last_digit():
    """scipy draws its resamples by ``integers(0, n, (resamples, n))`` of the generator, when done in one batch."""
    values = np.random.default_rng(5).exponential(size=25)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=1500, method="BCa", random_state=np.random.default_rng(11)
    ).confidence_interval
    found = mean_interval(values, method="bca", resamples=1500, seed=11)
    assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_bca_follows_the_long_tail():
    values = np.random.default_rng(2).exponential(size=30)
    plain, corrected = mean_interval(values), mean_interval(values, method="bca")
    assert corrected[0] > plain[0] and corrected[1] > plain[1]
    mirrored = mean_interval(-values, method="bca")
    assert mirrored == pytest.approx((-corrected[1], -corrected[0]), abs=1e-12)


def test_normal_interval_by_hand():
    """1, 2, 3: mean 2, SD 1, half width 1.96 / sqrt(3)."""
    half = 1.96 / math.sqrt(3)
    assert mean_interval([1, 2, 3], method="normal") == pytest.approx((2 - half, 2 + half))
    low, high = mean_interval([1, 2, 3], method="normal", confidence=0.99)
    assert high - low == pytest.approx(2 * 2.5758293 / math.sqrt(3))


def test_students_interval_by_hand():
    """1, 2, 3: two degrees of freedom, t 4.3027 from the table; of 9 cases (8) it is 2.3060."""
    half = 4.302653 / math.sqrt(3)
    assert mean_interval([1, 2, 3], method="t") == pytest.approx((2 - half, 2 + half), abs=1e-6)
    low, high = mean_interval(range(9), method="t")
    assert high - low == pytest.approx(2 * 2.306004 * np.std(range(9), ddof=1) / 3, abs=1e-5)
    assert "Student's t" in describe_interval("t")


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_is_near_the_normal_interval_for_many_values(method):
    values = np.random.default_rng(1).normal(5, 2, 1000)
    assert mean_interval(values, method=method) == pytest.approx(
        mean_interval(values, method="normal"), abs=0.02
    )


def test_two_values_against_all_their_resamples():
    """Resampled means of 0 and 1 are 0, 0.5, 1 with probability 1/4, 1/2, 1/4."""
    assert mean_interval([0.0, 1.0]) == (0, 1)
    assert mean_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)
    assert mean_interval([0.0, 1.0], method="bca") == (0, 1)


@pytest.mark.parametrize("method", ["percentile", "bca", "normal", "t"])
def test_equal_values_have_no_width_and_few_values_no_interval(method):
    assert mean_interval(np.full(7, 0.3), method=method) == pytest.approx((0.3, 0.3), abs=1e-15)
    assert all(math.isnan(end) for end in mean_interval([0.5], method=method))
    assert all(math.isnan(end) for end in mean_interval([], method=method))
    assert all(math.isnan(end) for end in mean_interval([0.5, math.nan], method=method))


def test_undefined_scores_are_left_out():
    assert mean_interval([*DICE, math.nan]) == mean_interval(DICE)


def test_intervals_of_a_mean_of_5000_cases_take_little_memory():
    values = np.random.default_rng(0).random(5000)
    tracemalloc.start()
    mean_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    _counts.cache_clear()
    assert peak < 64e6  # 2000 resamples as float64 alone would be 80 MB


def test_an_interval_says_how_it_was_made():
    assert describe_interval() == "95 % percentile bootstrap over cases, 2000 resamples, seed 12345"
    assert (
        describe_interval("bca", resamples=500, seed=1)
        == "95 % BCa bootstrap over cases, 500 resamples, seed 1"
    )
    assert "mean ± 1.96 SD / sqrt(n)" in describe_interval("normal")


def test_interval_of_a_ratio_against_a_plain_loop():
    random = np.random.default_rng(1)
    parts, wholes = random.integers(0, 9, 12), random.integers(0, 20, 12)
    generator, ratios = np.random.default_rng(12345), []
    for drawn in generator.integers(0, 12, (300, 12)):
        if wholes[drawn].sum():
            ratios.append(parts[drawn].sum() / wholes[drawn].sum())
    expected = tuple(np.percentile(ratios, [2.5, 97.5]))
    assert ratio_interval(parts, wholes, resamples=300) == pytest.approx(expected)
    assert np.isnan(ratio_interval(parts[:1], wholes[:1])).all()
    assert np.isnan(ratio_interval(parts, np.zeros(12))).all()


# ----------------------------------------------------------------------------------------------------- paired tests


def test_permutation_test_of_a_worked_example():
    assert np.mean(DIFFERENCES) == pytest.approx(0.02125)
    assert permutation_test(DIFFERENCES) == 28 / 256
    assert permutation_test(DIFFERENCES, exact=False) == pytest.approx(28 / 256, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_exact_permutation_against_a_plain_loop(seed):
    values = np.random.default_rng(seed).normal(0.4, 1, 7).round(1)  # ties and zeros
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=7)
    ]
    expected = np.mean([total >= abs(values.sum()) - 1e-9 for total in sums])
    assert permutation_test(values) == pytest.approx(expected)


def test_permutation_of_many_cases_is_near_scipy_s_and_the_t_test():
    values = np.random.default_rng(4).normal(0.02, 0.1, 200)
    theirs = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        n_resamples=10_000,
        random_state=np.random.default_rng(0),
        vectorized=True,
    ).pvalue
    assert permutation_test(values) == pytest.approx(theirs, abs=0.015)
    assert permutation_test(values) == pytest.approx(paired_t(values), abs=0.015)


def test_a_permutation_p_value_is_never_zero_and_needs_no_sign():
    strong = np.random.default_rng(0).normal(5, 1, 60)
    assert permutation_test(strong) == 1 / 10_001
    assert permutation_test(-strong) == 1 / 10_001
    assert permutation_test(1e9 * np.array(DIFFERENCES)) == 28 / 256


def test_wilcoxon_by_hand():
    """1 to 5, all positive: 2 of the 32 sign vectors are as extreme."""
    assert wilcoxon([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert wilcoxon([*range(1, 6), 0, math.nan]) == pytest.approx(stats.wilcoxon([*range(1, 6), 0]).pvalue)


def test_paired_t_by_hand():
    """Mean 2, SD 1, n 3: t = 2 sqrt(3) with 2 degrees of freedom, p = 1 - t / sqrt(2 + t²)."""
    t = 2 * math.sqrt(3)
    assert paired_t([1, 2, 3]) == pytest.approx(1 - t / math.sqrt(2 + t**2))


@pytest.mark.parametrize("test", [permutation_test, wilcoxon, paired_t])
def test_no_difference_and_too_few(test):
    assert test([0.0, 0, 0, 0]) == 1
    assert math.isnan(test([0.3])) and math.isnan(test([])) and math.isnan(test([0.3, math.nan]))


def test_equal_differences_have_no_t():
    assert math.isnan(paired_t([0.1, 0.1, 0.1]))
    assert permutation_test([0.1, 0.1, 0.1]) == 2 / 8


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.2 times 4, 3, 2, 1; the third is raised to the second."""
    assert holm([0.2, 0.01, 0.03, 0.02]) == pytest.approx([0.2, 0.04, 0.06, 0.06])
    found = holm([0.01, math.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(found[1])
    assert holm([0.7, 0.8]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_holm_keeps_the_order_and_is_between_none_and_bonferroni(seed):
    p = np.random.default_rng(seed).random(20) ** 3
    corrected = holm(p)
    assert (corrected >= p).all() and (corrected <= np.minimum(20 * p, 1) + 1e-15).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()
    # definition: the largest of (m - rank) p over all that are at most as large
    ranks = np.argsort(np.argsort(p))
    assert corrected == pytest.approx(
        [min(1, max((20 - ranks[j]) * p[j] for j in range(20) if p[j] <= q)) for q in p]
    )


def test_comparison_of_two_methods():
    b = np.array([0.5, 0.6, 0.7, 0.8, 0.65, 0.55, 0.75, 0.9, 0.4])
    a = b + np.array([*DIFFERENCES, math.nan])
    found = compare_paired(a, b)
    assert (found.n, found.wins_a, found.wins_b, found.ties) == (8, 5, 2, 1)
    assert found.difference == pytest.approx(0.02125) == found.mean_a - found.mean_b
    assert found.p_permutation == 28 / 256
    assert found.p_t == pytest.approx(stats.ttest_rel(a[:8], b[:8]).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(np.round(a - b, 9)[:8]).pvalue)
    assert (found.low, found.high) == pytest.approx(mean_interval(DIFFERENCES, method="bca"), abs=1e-12)


def test_comparison_turns_round_with_the_methods():
    a, b = np.random.default_rng(0).random((2, 15))
    one, other = compare_paired(a, b), compare_paired(b, a)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert (one.wins_a, one.p_permutation, one.p_wilcoxon) == (
        other.wins_b,
        other.p_permutation,
        other.p_wilcoxon,
    )


@pytest.mark.parametrize(
    ("better", "wins"), [("higher", (2, 1)), ("lower", (1, 2)), ("zero", (0, 3)), (None, (2, 1))]
)
def test_what_wins_depends_on_the_metric(better, wins):
    found = compare_paired([3, 5, -2, 1], [1, 4, 1, 1], better=better)
    assert (found.wins_a, found.wins_b, found.ties) == (*wins, 1)


def test_comparison_without_a_common_case():
    found = compare_paired([math.nan, 1], [1, math.nan])
    assert found.n == 0 and math.isnan(found.difference) and math.isnan(found.p_t) and math.isnan(found.low)


# ------------------------------------------------------------------------------------------- agreement and regression


def test_bland_altman_of_a_worked_example():
    """As Pérez Malla et al. 2019 (DeepMedic on ISLES 2017): limits at 1.96 SD, SD with n - 1."""
    found = bland_altman([10, 22, 31, 5], [12, 20, 35, 5])
    assert (found.mean, found.n) == (-1, 4)
    assert (found.sd, found.low_limit, found.high_limit) == pytest.approx(
        (2.581989, -6.060698, 4.060698), abs=5e-7
    )


def test_bland_altman_intervals():
    differences = np.random.default_rng(0).normal(3, 2, 50)
    found = bland_altman(differences + 7, np.full(50, 7))
    theirs = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found.mean_interval == pytest.approx((theirs.low, theirs.high))
    half = found.low_limit - found.low_limit_interval[0]
    # Bland and Altman 1986: the standard error of a limit is about sqrt(3 / n) SD
    assert half == pytest.approx(stats.t.ppf(0.975, 49) * found.sd * math.sqrt(3 / 50), rel=0.02)
    assert found.high_limit_interval == pytest.approx((found.high_limit - half, found.high_limit + half))


def test_bland_altman_of_too_few():
    assert math.isnan(bland_altman([], []).mean)
    one = bland_altman([3, math.nan], [1, 2])
    assert (one.mean, one.n) == (2, 1) and math.isnan(one.low_limit) and math.isnan(one.mean_interval[0])


def test_dice_against_log_volume_is_scipy_s_line():
    generator = np.random.default_rng(0)
    volume = np.append(10 ** generator.uniform(0, 4, 40), [0.0, 50.0])
    dice = np.append(0.2 + 0.15 * np.log10(volume[:40]) + generator.normal(0, 0.1, 40), [0.5, math.nan])
    found = fit_log_volume(dice, volume)
    theirs = stats.linregress(np.log10(volume[:40]), dice[:40])
    assert found.n == 40
    assert (found.slope, found.intercept, found.r_squared) == pytest.approx(
        (theirs.slope, theirs.intercept, theirs.rvalue**2)
    )
    in_ml = fit_log_volume(dice, volume * 0.008)
    assert (in_ml.slope, in_ml.r_squared) == pytest.approx((found.slope, found.r_squared))


def test_dice_against_log_volume_without_a_line():
    assert math.isnan(fit_log_volume([0.5, 0.6], [10, 10]).slope)
    assert math.isnan(fit_log_volume([0.5], [10]).r_squared)
    flat = fit_log_volume([0.5] * 5, [1, 10, 100, 1000, 10000])
    assert flat.slope == 0 and math.isnan(flat.r_squared)


def test_few_cases_have_no_r_squared_and_a_few_more_no_interval():
    """Two points always lie on a line; the R2 of many resamples of five cases is that of two."""
    generator = np.random.default_rng(1)
    dice, volume = generator.uniform(0, 1, 10), 10 ** generator.uniform(0, 3, 10)
    for n in range(11):
        found, ends = fit_log_volume(dice[:n], volume[:n]), r_squared_interval(dice[:n], volume[:n])
        assert math.isnan(found.r_squared) == (n < 5) and math.isnan(found.slope) == (n < 2)
        assert all(math.isnan(end) for end in ends) == (n < 10)
    unrelated = generator.normal(size=(2, 2000, 5))
    mean = np.mean([np.corrcoef(x, y)[0, 1] ** 2 for x, y in zip(*unrelated, strict=True)])
    assert mean == pytest.approx(1 / 4, abs=0.02)  # 1 / (n - 1), the reason for the limit


def test_words_of_landis_and_koch():
    values = [-0.1, 0, 0.2, 0.21, 0.4, 0.41, 0.6, 0.61, 0.8, 0.81, 1, math.nan, None]
    assert [landis_koch(value) for value in values] == [
        "poor",
        *["slight"] * 2,
        *["fair"] * 2,
        *["moderate"] * 2,
        *["substantial"] * 2,
        *["almost perfect"] * 2,
        *["undefined"] * 2,
    ]


@pytest.mark.parametrize("n, k", [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (20, 6), (25, 8), (50, 18)])
def test_interval_of_a_median_is_that_of_the_tables(n, k):
    """Ranks of the 95 % interval as in tables of the sign test (Conover, Practical Nonparametric Statistics)."""
    values = np.random.default_rng(n).permutation(n) + 1.0
    assert median_interval(values) == (k, n + 1 - k)
    assert all(math.isnan(end) for end in median_interval([1.0, 2, 3, 4, 5, np.nan]))


def test_few_cases_lead_a_mean_that_lies_outside_the_quartiles():
    assert led_by_few([1, 1, 2, 2, 70]) == (1, 2)
    assert led_by_few([1, 1, 2, 3, 4]) is None and led_by_few([]) is None
    assert led_by_few([0, 0.8, 0.85, 0.9, 0.95, np.nan]) == (0.8, 0.9)


def test_intervals_of_what_follows_from_means_against_a_slow_bootstrap():
    """Every resample is drawn and the value computed from its cases, one by one."""
    generator = np.random.default_rng(0)
    volume = 10 ** generator.uniform(0, 3, 15)
    dice = np.clip(0.2 + 0.2 * np.log10(volume) + generator.normal(0, 0.1, 15), 0, 1)
    drawn = np.random.default_rng(12345).integers(0, 15, (300, 15))
    slow = [fit_log_volume(dice[rows], volume[rows]).r_squared for rows in drawn]
    assert r_squared_interval(dice, volume, resamples=300) == pytest.approx(np.percentile(slow, [2.5, 97.5]))
    ratio = interval_of_means(
        np.stack([dice, volume], 1), lambda means: means[:, 0] / means[:, 1], resamples=300
    )
    assert ratio == pytest.approx(ratio_interval(dice, volume, resamples=300))
    assert all(math.isnan(end) for end in r_squared_interval(dice, np.ones(15)))


def test_interval_of_a_mean_by_students_t():
    values = np.array([0.1, 0.4, 0.2, 0.7])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert t_interval(values.mean(), values.std(ddof=1), 4) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ groups of cases


def test_kruskal_wallis_by_hand():
    """Ranks 1, 3, 5, 7, 9 and 2, 4, ..., 10: sums 25 and 30, H = 12 / 110 (125 + 180) - 33 = 3 / 11."""
    found = kruskal_wallis([[0.1, 0.3, math.nan, 0.5, 0.7, 0.9], [0.2, 0.4, 0.6, 0.8, 1.0], []])
    assert found.h == pytest.approx(3 / 11) and found.degrees_of_freedom == 1
    assert found.p == pytest.approx(math.erfc(math.sqrt(3 / 22)))  # chi-squared with one degree of freedom


def test_kruskal_wallis_of_ties_by_hand():
    """1, 1, 2 and 2, 3, 3: ranks 1.5, 1.5, 3.5 and 3.5, 5.5, 5.5; ties take 1 - 3 * 6 / 210 of the spread."""
    h = 12 / 42 * (6.5**2 / 3 + 14.5**2 / 3) - 21
    assert kruskal_wallis([[1, 1, 2], [2, 3, 3]]).h == pytest.approx(h / (1 - 18 / 210))


def test_kruskal_wallis_without_differences_or_groups():
    for groups in ([], [[1, 2]], [[1, 2], [math.nan]], [[1, 1], [1, 1]]):
        found = kruskal_wallis(groups)
        assert math.isnan(found.h) and math.isnan(found.p)


def test_the_p_value_of_a_line_is_scipy_s():
    random = np.random.default_rng(4)
    volume = random.lognormal(2, 2, 31)
    dice = 0.4 + 0.1 * np.log10(volume) + random.normal(0, 0.2, 31)
    theirs = stats.linregress(np.log10(volume), dice)
    found = fit_log_volume(dice, volume)
    assert (found.p, found.r_squared) == pytest.approx((theirs.pvalue, theirs.rvalue**2), rel=1e-9)
    assert fit_log_volume(np.log10(volume), volume).p == pytest.approx(0, abs=1e-30)
    assert math.isnan(fit_log_volume(dice[:4], volume[:4]).p)
