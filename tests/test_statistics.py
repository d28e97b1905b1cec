"""Statistics against published examples, closed forms, other libraries and their own promises."""

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats
import skfolio.measures as sk
from arch.bootstrap import SPA, StationaryBootstrap

from experiments import statistics as s
from experiments.resampling import (
    long_run_deviation,
    optimal_block_length,
    stationary_bootstrap_indices,
)
from experiments.seeds import quantiles
from market.measures import max_drawdown, sharpe_ratio

WRONG: Any = "x"


def autoregression(rng, n_periods, coefficient, n_series=1):
    """Stationary AR(1) of unit variance, shape (T, n_series)."""
    shocks = rng.normal(size=(n_periods + 50, n_series)) * math.sqrt(1 - coefficient**2)
    series = np.zeros_like(shocks)
    for t in range(1, len(shocks)):
        series[t] = coefficient * series[t - 1] + shocks[t]
    return series[50:]


# ---- Sharpe ratios: the worked examples of the papers


def test_probabilistic_sharpe_ratio_of_the_2012_paper():
    """24 months at 0.458 a month, skewness -2.448, kurtosis 10.164: 0.982 if normal, else 0.913."""
    assert s.probabilistic_sharpe_ratio(0.458, 24) == pytest.approx(0.982, abs=5e-4)
    got = s.probabilistic_sharpe_ratio(0.458, 24, skewness=-2.448, kurtosis=10.164)
    assert got == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(
    ("per_year", "skewness", "kurtosis", "years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_minimum_track_record_of_the_2012_paper(per_year, skewness, kurtosis, years):
    """An annual Sharpe ratio of 2 to be above 1 with 95 %, from daily, weekly, monthly returns."""
    root = math.sqrt(per_year)
    length = s.minimum_track_record_length(2 / root, 1 / root, 0.95, skewness, kurtosis)
    assert length / per_year == pytest.approx(years, abs=5e-3)


@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "expected"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_deflated_sharpe_ratio_of_the_2014_paper(trials, skewness, kurtosis, expected):
    """Five years of daily returns, annual ratio 2.5, annual variance of the trials 1/2."""
    got = s.deflated_sharpe_ratio(2.5 / 250**0.5, 1250, trials, 0.5 / 250, skewness, kurtosis)
    assert got == pytest.approx(expected, abs=5e-5)


def test_expected_maximum_of_the_2014_paper_and_by_simulation():
    assert s.expected_maximum_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    best = np.random.default_rng(0).normal(0, 0.3, size=(20_000, 50)).max(axis=1)
    assert s.expected_maximum_sharpe(50, 0.09) == pytest.approx(
        best.mean(), rel=0.02
    )  # asymptotic in N


def test_sharpe_statistics_equal_skfolio():
    returns = 0.03 + np.random.default_rng(3).standard_t(5, size=400)
    sharpe = returns.mean() / returns.std(ddof=1)
    moments = scipy.stats.skew(returns), scipy.stats.kurtosis(returns, fisher=False)
    got = s.probabilistic_sharpe_ratio(sharpe, 400, *moments, benchmark=0.01)
    expected = sk.probabilistic_sharpe_ratio(returns, benchmark_sharpe_ratio=0.01)
    assert got == pytest.approx(expected, rel=1e-12)
    trials = np.random.default_rng(4).normal(0, 0.05, 30)
    got = s.deflated_sharpe_ratio(sharpe, 400, 30, trials.var(ddof=1), *moments)
    assert got == pytest.approx(sk.deflated_sharpe_ratio(returns, trials), rel=1e-12)


def test_minimum_track_record_is_where_the_probability_reaches_the_confidence():
    arguments = {"skewness": -0.5, "kurtosis": 6.0}
    length = s.minimum_track_record_length(0.08, 0.02, 0.9, **arguments)
    got = s.probabilistic_sharpe_ratio(0.08, length, benchmark=0.02, **arguments)
    assert got == pytest.approx(0.9, rel=1e-12)
    np.testing.assert_array_equal(
        s.minimum_track_record_length([0.01, 0.02], benchmark=0.02), [math.inf, math.inf]
    )


def test_one_trial_is_not_deflated_and_more_trials_deflate_more():
    plain = s.probabilistic_sharpe_ratio(0.1, 500)
    got = s.deflated_sharpe_ratio(0.1, 500, [1, 1.5, 2, 10, 1000], 0.002)
    assert got[0] == plain
    assert np.all(np.diff(got[1:]) < 0)
    assert s.deflated_sharpe_ratio(0.1, 500, 1000, 0.0) == plain


def test_moments_no_distribution_has_give_nan():
    assert math.isnan(s.probabilistic_sharpe_ratio(1.0, 100, skewness=3.0, kurtosis=2.0))


def test_probabilistic_sharpe_ratio_is_calibrated():
    """Without skill it is uniform: above 0.95 in 5 % of samples, skewed and fat-tailed ones too."""
    rng = np.random.default_rng(5)
    returns = rng.gamma(4.0, size=(300, 4000)) - 4.0
    sharpe = sharpe_ratio(returns, periods_per_year=1)
    moments = scipy.stats.skew(returns), scipy.stats.kurtosis(returns, fisher=False)
    probability = s.probabilistic_sharpe_ratio(sharpe, 300, *moments)
    assert np.mean(probability > 0.95) == pytest.approx(0.05, abs=0.012)


# ---- overfitting


def brute_force_overfitting(returns, n_blocks):
    """The paper's algorithm, one split at a time."""
    blocks = np.array_split(np.arange(len(returns)), n_blocks)
    logits = []
    for chosen in itertools.combinations(range(n_blocks), n_blocks // 2):
        inside = np.concatenate([blocks[i] for i in chosen])
        outside = np.setdiff1d(np.arange(len(returns)), inside)
        best = np.argmax(sharpe_ratio(returns[inside]))
        rank = scipy.stats.rankdata(sharpe_ratio(returns[outside]))[best]
        share = rank / (returns.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
    return np.array(logits)


@pytest.mark.parametrize(("n_periods", "n_configurations"), [(160, 7), (160, 12), (168, 5)])
def test_overfitting_equals_brute_force(n_periods, n_configurations):
    rng = np.random.default_rng(n_periods + n_configurations)
    returns = 0.01 * rng.normal(size=(n_periods, n_configurations)) + 0.001
    expected = brute_force_overfitting(returns, 8)
    np.testing.assert_allclose(s.overfitting_logits(returns, 8), expected, rtol=1e-9, atol=1e-12)
    probability = s.probability_of_backtest_overfitting(returns, 8)
    assert probability == np.mean(expected <= 1e-12)


def test_overfitting_of_noise_is_a_coin_and_of_skill_is_none():
    rng = np.random.default_rng(2)
    noise = [
        s.probability_of_backtest_overfitting(rng.normal(size=(240, 20)), 6) for _ in range(150)
    ]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.08)
    skill = rng.normal(size=(960, 20))
    skill[:, 3] += 0.3
    assert s.probability_of_backtest_overfitting(skill) == 0.0


def test_overfitting_where_the_winner_of_one_half_loses_the_other():
    """Two configurations, each good in its half of the time: what wins inside loses outside."""
    noise = 0.001 * np.random.default_rng(0).normal(size=(40, 2))
    good = np.where(np.arange(40)[:, None] < 20, [0.01, 0.0], [0.0, 0.01])
    assert s.probability_of_backtest_overfitting(noise + good, n_blocks=2) == 1.0


def test_overfitting_counts_cash_as_a_ratio_of_zero():
    rng = np.random.default_rng(1)
    returns = np.column_stack([np.zeros(200), rng.normal(-1.0, 1.0, (200, 3))])
    assert s.probability_of_backtest_overfitting(returns, 4) == 0.0


# ---- resampling of time


def test_blocks_start_anywhere_go_on_and_have_the_length_asked_for():
    index = stationary_bootstrap_indices(200, 2000, 8.0, np.random.default_rng(0))
    assert index.shape == (200, 2000)
    goes_on = (index[1:] == (index[:-1] + 1) % 200).mean()
    assert goes_on == pytest.approx(1 - 1 / 8 + 1 / 8 / 200, abs=2e-3)
    counts = np.bincount(index.ravel(), minlength=200) / index.size
    np.testing.assert_allclose(counts, 1 / 200, rtol=0.06)


def test_variance_of_resampled_means_is_that_of_politis_and_romano():
    """Lemma 1 gives it in closed form; arch's own resampling agrees."""
    rng = np.random.default_rng(1)
    series = autoregression(rng, 300, 0.6)
    index = stationary_bootstrap_indices(300, 20_000, 10.0, rng)
    expected = long_run_deviation(series, 10.0)[0] / math.sqrt(300)
    assert series[index, 0].mean(axis=0).std() == pytest.approx(expected, rel=0.02)
    arch = StationaryBootstrap(10, series[:, 0], seed=2)
    means = arch.apply(np.mean, reps=3000)
    assert means.std() == pytest.approx(expected, rel=0.05)


def test_long_run_deviation_by_hand():
    series, length = np.array([[1.0], [-1.0], [0.0]]), 2.0
    c1 = (1.0 * -1.0 + -1.0 * 0.0) / 3
    k1 = (2 / 3) * 0.5 + (1 / 3) * 0.25
    k2 = (1 / 3) * 0.25 + (2 / 3) * 0.5
    expected = math.sqrt(2 / 3 + 2 * (k1 * c1 + k2 * 0.0))
    assert long_run_deviation(series, length)[0] == pytest.approx(expected)


def test_optimal_block_length_grows_with_dependence():
    rng = np.random.default_rng(0)
    lengths = [optimal_block_length(autoregression(rng, 2000, c)) for c in (0.0, 0.5, 0.9)]
    assert lengths[0] < 4 < lengths[1] < lengths[2]
    assert optimal_block_length(np.full((100, 2), 0.01)) == 1.0


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_interval_covers_the_true_sharpe(coefficient):
    rng, true, n = np.random.default_rng(10), 0.05, 150
    covered = 0
    for seed in range(n):
        returns = true + autoregression(rng, 500, coefficient)[:, 0]
        got = s.stationary_bootstrap_interval(
            returns, lambda r: r.mean(axis=0) / r.std(axis=0), n_resamples=300, rng=seed
        )
        covered += got.low <= true <= got.high
    assert covered / n == pytest.approx(0.95, abs=0.05)


def test_blocks_widen_the_interval_of_dependent_returns():
    returns = 0.05 + autoregression(np.random.default_rng(3), 1500, 0.5)[:, 0]
    by_day = s.stationary_bootstrap_interval(returns, block_length=1)
    blocks = s.stationary_bootstrap_interval(returns)
    ratio = (blocks.high - blocks.low) / (by_day.high - by_day.low)
    assert ratio == pytest.approx(math.sqrt(3), rel=0.2)  # sqrt((1 + c) / (1 - c))


def test_interval_over_seeds_shares_the_blocks():
    """Seeds that are copies add nothing to what one says; seeds that differ add their spread."""
    rng = np.random.default_rng(0)
    market = 0.0005 + 0.01 * rng.normal(size=(800, 1))
    alone = s.stationary_bootstrap_interval(market[:, 0], rng=1)
    copies = s.stationary_bootstrap_interval(np.repeat(market, 6, axis=1), rng=1)
    assert copies.estimate == pytest.approx(alone.estimate)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.06)
    skill = np.linspace(-0.002, 0.002, 6)
    fixed = s.stationary_bootstrap_interval(market + skill, resample_seeds=False, rng=1)
    spread = s.stationary_bootstrap_interval(market + skill, rng=1)
    assert fixed.estimate == spread.estimate
    assert spread.high - spread.low > 1.2 * (fixed.high - fixed.low)


def test_interval_of_seeds_is_that_of_the_interquartile_mean():
    returns = 0.01 * np.random.default_rng(0).normal(size=(300, 8))
    got = s.stationary_bootstrap_interval(returns)
    assert got.estimate == pytest.approx(scipy.stats.trim_mean(sharpe_ratio(returns), 0.25))
    assert got.low < got.estimate < got.high


def test_any_measure_and_what_is_undefined():
    rng = np.random.default_rng(0)
    fall = s.stationary_bootstrap_interval(0.01 * rng.normal(size=(250, 3)), max_drawdown)
    assert 0 < fall.low < fall.estimate < fall.high < 1
    constant = s.stationary_bootstrap_interval(np.full(100, 0.001))
    assert all(math.isnan(value) for value in constant)
    # one day that differs: resamples without it have no Sharpe ratio and are left out
    rare = s.stationary_bootstrap_interval(np.eye(1, 50)[0], block_length=1)
    assert rare.low < rare.estimate < rare.high


def test_same_rng_same_interval():
    returns = np.random.default_rng(0).normal(size=(200, 2))
    one, two, other = (s.stationary_bootstrap_interval(returns, rng=seed) for seed in (4, 4, 5))
    assert one == two != other
    assert s.stationary_bootstrap_interval(returns, rng=np.random.default_rng(4)) == one


# ---- differences of Sharpe ratios


def test_contributions_have_the_ratio_as_mean_and_its_variance():
    returns = np.random.default_rng(0).gamma(3.0, size=500) - 2.9
    ratio = returns.mean() / returns.std()
    skewness, kurtosis = scipy.stats.skew(returns), scipy.stats.kurtosis(returns, fisher=False)
    parts = s.sharpe_contributions(returns)
    assert parts.mean() == pytest.approx(ratio)
    mertens = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    assert parts.var() == pytest.approx(mertens)


def test_difference_is_that_of_the_ratios_and_zero_outside_means_significant():
    rng = np.random.default_rng(1)
    reference = 0.01 * rng.normal(size=1000)
    for edge in np.linspace(0.0, 0.0015, 7):
        returns = 0.5 * reference + edge + 0.008 * rng.normal(size=1000)
        got = s.sharpe_difference(returns, reference, n_resamples=499, confidence=0.9)
        expected = sharpe_ratio(returns) - sharpe_ratio(reference)
        assert got.difference == pytest.approx(expected, rel=1e-9)
        assert (got.low > 0 or got.high < 0) == (got.p_value < 0.1)


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_no_difference_is_claimed_in_about_one_case_of_twenty(coefficient):
    rng, n = np.random.default_rng(20), 150
    claims = 0
    for seed in range(n):
        common, ours, theirs = 0.05 + autoregression(rng, 400, coefficient, 3).T
        got = s.sharpe_difference(ours + common, theirs + common, n_resamples=300, rng=seed)
        claims += got.p_value <= 0.05
    assert claims / n <= 0.10  # 5 % and 3 standard errors


def test_pairing_finds_a_small_edge_over_a_correlated_reference():
    rng = np.random.default_rng(0)
    reference = 0.01 * rng.normal(size=1500)
    returns = reference + 0.0003 + 0.001 * rng.normal(size=1500)
    paired = s.sharpe_difference(returns, reference)
    assert paired.p_value < 0.01
    assert 0 < paired.low < paired.difference < paired.high
    shuffled = s.sharpe_difference(returns, rng.permutation(reference))
    assert shuffled.p_value > 0.1


def test_difference_of_the_same_of_multiples_and_of_cash():
    returns = 0.01 * np.random.default_rng(0).normal(size=300)
    same = (0.0, 0.0, 0.0, 1.0)
    assert s.sharpe_difference(returns, returns) == same
    assert s.sharpe_difference(returns, 2.0 * returns) == same
    assert s.sharpe_difference(np.repeat(returns[:, None], 5, axis=1), returns) == same
    assert all(math.isnan(v) for v in s.sharpe_difference(returns, np.full(300, 1e-4)))


def test_difference_over_seeds_counts_their_spread():
    rng = np.random.default_rng(3)
    market = 0.01 * rng.normal(size=(1000, 1))
    lucky = market + np.array([0.003, -0.002, -0.0015, 0.0025, 0.001])
    free = s.sharpe_difference(lucky, market, n_resamples=500)
    fixed = s.sharpe_difference(lucky, market, n_resamples=500, resample_seeds=False)
    assert free.difference == fixed.difference
    assert free.p_value > 0.1 > 0.01 > fixed.p_value


def test_few_seeds_that_differ_get_students_interval():
    """Where the seeds' spread is all there is, the interval is the textbook one of 3 numbers."""
    days = np.random.default_rng(1).normal(0.0004, 0.01, 400)
    ours = days[:, None] + np.array([-0.002, 0.0005, 0.004])
    found = s.sharpe_difference(ours, days, n_resamples=200)
    ratios = sharpe_ratio(ours)
    half = scipy.stats.t.ppf(0.975, 2) * ratios.std(ddof=1) / 3**0.5
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)
    expected = scipy.stats.ttest_1samp(ratios, sharpe_ratio(days)).pvalue
    assert found.p_value == pytest.approx(expected, rel=0.05)
    assert found.difference == pytest.approx(ratios.mean() - sharpe_ratio(days))


def test_seeds_that_agree_are_not_punished():
    rng = np.random.default_rng(2)
    days = rng.normal(0.0004, 0.01, 400)
    alone = days + rng.normal(0.0003, 0.002, 400)
    one, five = (
        s.sharpe_difference(returns, days, n_resamples=500)
        for returns in (alone, np.repeat(alone[:, None], 5, axis=1))
    )
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


# ---- seeds


def test_interquartile_mean_by_hand_and_by_scipy():
    assert s.interquartile_mean([1, 2, 3, 100]) == 2.5
    assert s.interquartile_mean([5.0, 1.0, 3.0]) == 3.0
    scores = np.random.default_rng(0).normal(size=(11, 4))
    assert s.interquartile_mean(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, None))
    expected = scipy.stats.trim_mean(scores, 0.25, axis=0)
    np.testing.assert_allclose(s.interquartile_mean(scores, axis=0), expected)
    scores[2, 1] = math.nan
    np.testing.assert_array_equal(
        np.isnan(s.interquartile_mean(scores, 0)), [False, True, False, False]
    )


def test_interquartile_mean_interval_covers():
    rng, n, covered = np.random.default_rng(0), 400, 0
    for seed in range(n):
        got = s.interquartile_mean_interval(
            rng.normal(1.0, 1.0, (10, 3)), n_resamples=300, rng=seed
        )
        covered += got.low <= 1.0 <= got.high
    assert covered / n == pytest.approx(0.94, abs=0.035)
    assert s.interquartile_mean_interval([2.0]) == (2.0, 2.0, 2.0)


def test_performance_profile():
    got = s.performance_profile([[0.1, 0.5], [0.9, 0.5]], [-1.0, 0.1, 0.5, 0.89, 0.9])
    np.testing.assert_array_equal(got, [1.0, 0.75, 0.25, 0.25, 0.0])


def test_probability_of_improvement_is_mann_whitney():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 6, (8, 3)), rng.integers(0, 5, (6, 3))
    u = scipy.stats.mannwhitneyu(ours, theirs, axis=0).statistic
    got = s.probability_of_improvement(ours, theirs)
    assert got.estimate == pytest.approx(np.mean(u / 48))
    assert got.low < got.estimate < got.high
    assert s.probability_of_improvement([2, 3], [0, 1]) == (1.0, 1.0, 1.0)
    assert s.probability_of_improvement([1, 1], [1, 1]).estimate == 0.5


def test_probability_of_improvement_resamples_seeds():
    """Against a plain loop over resamples."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.5, 1, 9), rng.normal(0, 1, 7)
    drawn = []
    for _ in range(4000):
        a, b = rng.choice(ours, 9), rng.choice(theirs, 7)
        drawn.append(np.mean(a[:, None] > b) + 0.5 * np.mean(a[:, None] == b))
    got = s.probability_of_improvement(ours, theirs, n_resamples=4000)
    np.testing.assert_allclose(got[1:], quantiles(np.array(drawn), 0.95), atol=0.02)


# ---- many agents at once


def test_superior_predictive_ability_equals_arch_on_differences_of_one_scale():
    rng = np.random.default_rng(0)
    returns, benchmark = rng.normal(size=(400, 5)), rng.normal(size=400)
    got = s.superior_predictive_ability(returns, benchmark, block_length=4, n_resamples=2000)
    lead = returns - benchmark[:, None]
    scaled = lead / long_run_deviation(lead, 4.0)
    test = SPA(np.zeros(400), -scaled, block_size=4, reps=2000, seed=9)
    test.compute()
    expected = test.pvalues[["consistent", "lower", "upper"]].to_numpy()
    np.testing.assert_allclose(got[:3], expected, atol=0.04)
    assert got.lower <= got.p_value <= got.upper


def test_superior_predictive_ability_does_not_let_a_volatile_agent_hide_a_good_one():
    rng = np.random.default_rng(1)
    returns = np.column_stack([0.1 + 0.5 * rng.normal(size=600), 20.0 * rng.normal(size=600)])
    got = s.superior_predictive_ability(returns, np.zeros(600))
    assert got.p_value < 0.01
    np.testing.assert_array_equal(got.superior, [True, False])


@pytest.mark.parametrize("measure", ["mean", "sharpe"])
def test_superior_predictive_ability_seldom_claims_an_edge_in_noise(measure):
    rng, n = np.random.default_rng(2), 60
    claims = 0
    for seed in range(n):
        returns = 0.001 + 0.01 * rng.normal(size=(250, 6))
        got = s.superior_predictive_ability(
            returns[:, 1:], returns[:, 0], measure=measure, n_resamples=200, rng=seed
        )
        claims += got.p_value <= 0.05
        assert got.superior.any() <= (got.p_value < 0.07)
    assert claims / n <= 0.13  # 5 % and 3 standard errors


def test_superior_agents_are_all_found():
    rng = np.random.default_rng(4)
    returns = 0.01 * rng.normal(size=(1000, 4)) + np.array([0.002, 0.0, 0.003, -0.002])
    got = s.superior_predictive_ability(returns, 0.01 * rng.normal(size=1000))
    np.testing.assert_array_equal(got.superior, [True, False, True, False])
    both = s.superior_predictive_ability(returns[:, [0, 2]], np.zeros(1000))
    assert both.superior.all()


def test_sharpe_and_mean_can_disagree():
    """Leverage earns more and is no better: only the mean calls it superior."""
    rng = np.random.default_rng(5)
    benchmark = 0.002 + 0.01 * rng.normal(size=1000)
    returns = np.column_stack([3.0 * benchmark, benchmark + 0.005 * rng.normal(size=1000)])
    assert s.superior_predictive_ability(returns, benchmark).p_value < 0.01
    by_ratio = s.superior_predictive_ability(returns, benchmark, measure="sharpe")
    assert by_ratio.p_value > 0.1
    assert not by_ratio.superior.any()


def test_copies_of_the_benchmark_are_not_superior():
    benchmark = 0.01 * np.random.default_rng(0).normal(size=300)
    copies = np.column_stack([benchmark, benchmark + 1e-17, benchmark - 0.001])
    got = s.superior_predictive_ability(copies, benchmark)
    assert got[:3] == (1.0, 1.0, 1.0)
    assert not got.superior.any()
    with pytest.raises(ValueError, match="agent 1 leads the benchmark by the same amount"):
        s.superior_predictive_ability(np.column_stack([benchmark, benchmark + 0.1]), benchmark)


def test_model_confidence_set_keeps_the_best_and_drops_the_worse():
    rng = np.random.default_rng(0)
    returns = 0.01 * rng.normal(size=(800, 4)) + np.array([0.002, 0.0, 0.002, -0.001])
    got = s.model_confidence_set(returns)
    np.testing.assert_array_equal(got.included, [True, False, True, False])
    assert got.p_values.max() == 1.0
    np.testing.assert_array_equal(got.included, got.p_values > 0.05)


def test_model_confidence_set_treats_copies_alike():
    rng = np.random.default_rng(1)
    one, two = 0.01 * rng.normal(size=(2, 500)) + np.array([[0.003], [0.0]])
    got = s.model_confidence_set(np.column_stack([two, one, two + 1e-17, one]))
    assert got.p_values[0] == got.p_values[2] < 0.05
    assert got.p_values[1] == got.p_values[3] == 1.0
    assert s.model_confidence_set(np.column_stack([one, one])).included.all()


def test_model_confidence_set_contains_the_best_as_often_as_promised():
    rng, n, kept = np.random.default_rng(3), 60, 0
    for seed in range(n):
        returns = 0.01 * rng.normal(size=(250, 4)) + np.array([0.001, 0.001, 0.0, 0.0])
        got = s.model_confidence_set(returns, confidence=0.9, n_resamples=200, rng=seed)
        kept += bool(got.included[:2].all())
    assert kept / n >= 0.80


# ---- multiple testing


def test_holm_and_benjamini_hochberg_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(s.adjust_p_values(p), [0.03, 0.06, 0.06, 0.02])
    bh = s.adjust_p_values(p, "benjamini-hochberg")
    np.testing.assert_allclose(bh, [0.02, 0.04, 0.04, 0.02])
    np.testing.assert_allclose(s.adjust_p_values([0.9, 0.8]), [1.0, 1.0])


def test_a_test_that_could_not_be_made_is_not_counted():
    got = s.adjust_p_values([0.02, math.nan, 0.03])
    np.testing.assert_allclose(got, [0.04, math.nan, 0.04])
    assert s.adjust_p_values([]).shape == (0,)


def test_holm_bounds_any_false_claim():
    p = np.random.default_rng(0).random((2000, 12))
    claims = [(s.adjust_p_values(row) <= 0.05).any() for row in p]
    assert np.mean(claims) == pytest.approx(0.05, abs=0.015)


# ---- errors, imports


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: s.probabilistic_sharpe_ratio(0.1, 1), "`n_periods` must be at least 2, got 1"),
        (lambda: s.expected_maximum_sharpe(0, 1.0), "`n_trials` must be at least 1, got 0"),
        (lambda: s.deflated_sharpe_ratio(0.1, 9, 5, -1.0), "`trials_variance` must be at least 0"),
        (lambda: s.minimum_track_record_length(0.1, confidence=1.0), "`confidence` must be in"),
        (lambda: s.probability_of_backtest_overfitting(np.ones((50, 3)), 7), "even number.*got 7"),
        (lambda: s.probability_of_backtest_overfitting(np.ones((9, 3))), r"got \(9, 3\)"),
        (lambda: s.stationary_bootstrap_interval([0.1]), r"`returns` must have shape.*got \(1,\)"),
        (lambda: s.stationary_bootstrap_interval([0.1, math.nan]), "`returns` must be finite"),
        (lambda: s.stationary_bootstrap_interval([1, 2], confidence=95), "`confidence`.*got 95"),
        (lambda: s.stationary_bootstrap_interval([1, 2], block_length=0), "`block_length`.*got 0"),
        (lambda: s.stationary_bootstrap_interval([1, 2], n_resamples=0), "`n_resamples`.*got 0"),
        (lambda: s.sharpe_difference([0.1, 0.2], [0.1] * 3), "must have 2 periods.*got 3"),
        (lambda: s.interquartile_mean([]), r"`scores` must hold at least one.*got shape \(0,\)"),
        (lambda: s.interquartile_mean_interval([math.inf]), "`scores` must be finite"),
        (lambda: s.probability_of_improvement([[1, 2]], [1, 2]), "must have 2 tasks, got 1"),
        (lambda: s.superior_predictive_ability(np.ones((9, 2)), np.ones(8)), r"shape \(9,\)"),
        (lambda: s.model_confidence_set(np.eye(5), measure=WRONG), "`measure` must be.*got 'x'"),
        (lambda: s.model_confidence_set(np.ones((5, 2)), measure="sharpe"), "does not vary"),
        (lambda: s.adjust_p_values([0.5, 1.5]), "`p_values` must be"),
        (lambda: s.adjust_p_values([0.5], WRONG), "`method` must be.*got 'x'"),
    ],
)
def test_errors_name_argument_rule_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_reading_it_imports_no_heavy_package():
    code = (
        "import sys; import experiments.statistics;"
        "print([k for k in ('torch', 'arch', 'scipy.stats', 'skfolio') if k in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
