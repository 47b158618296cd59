import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from resolute.measure import agreement_difference, agreement_of, least_srocc, plcc, plcc_logistic, srocc
from resolute.measure.agreement import fit_logistic


def pairs(n=60, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    return scores, np.tanh(2 * scores) + noise * rng.normal(size=n)


def test_correlations_are_scipys():
    a, b = pairs()
    b = b.round(1)  # with ties
    assert srocc(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert plcc(a, b) == pytest.approx(pearsonr(a, b).statistic)


def test_the_logistic_mends_a_bent_scale_and_leaves_ranks_alone():
    a, b = pairs(noise=0.02)
    assert plcc_logistic(a, b) > plcc(a, b) + 0.02
    assert plcc_logistic(a, b) > 0.99
    bent = fit_logistic(a, b)(np.sort(a))
    assert (np.diff(bent) >= 0).all()
    # A lower-is-better metric agrees after the curve as well as before it disagreed.
    assert plcc_logistic(-a, b) == pytest.approx(plcc_logistic(a, b), abs=1e-4)


def test_where_a_curve_fits_no_better_the_line_does():
    a = np.arange(10.0)
    assert plcc_logistic(a, 3 * a + 1) == pytest.approx(1.0, abs=1e-3)
    assert fit_logistic(a, 0 * a + 2.0)(a) == pytest.approx(np.full(10, 2.0), abs=1e-6)


def test_constant_scores_agree_with_nothing():
    assert srocc([1.0, 1.0, 1.0], [0.0, 2.0, 1.0]) == plcc([1.0, 1.0, 1.0], [0.0, 2.0, 1.0]) == 0.0
    assert plcc_logistic([1.0, 1.0, 1.0], [0.0, 2.0, 1.0]) == 0.0


def test_intervals_cover_what_they_should():
    truth = srocc(*pairs(n=20_000, noise=1.0, seed=99))
    inside = 0
    for seed in range(40):
        a, b = pairs(n=80, noise=1.0, seed=seed)
        # Against constant scores, which agree with nothing: the same interval, without 200 curves to fit.
        found = agreement_difference(a, np.zeros(len(a)), b, resamples=200)
        assert found.low <= found.mean <= found.high
        inside += found.low <= truth <= found.high
    assert inside >= 40 * 0.95 - 3 * math.sqrt(40 * 0.95 * 0.05)


def test_pairing_finds_small_differences():
    a, b = pairs(n=125)
    worse = a + 0.3 * np.random.default_rng(5).normal(size=len(a))
    gain = agreement_difference(a, worse, b, resamples=300)
    assert gain.low > 0
    assert gain.mean == pytest.approx(srocc(a, b) - srocc(worse, b))
    apart = agreement_of(a, b, resamples=100).srocc, agreement_of(worse, b, resamples=100).srocc
    assert apart[1].high > apart[0].low
    same = agreement_difference(a, a, b, resamples=100)
    assert (same.low, same.mean, same.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "opinions"), [([], []), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, math.nan], [1.0, 2.0])]
)
def test_what_cannot_be_compared_is_refused(scores, opinions):
    for measure in (srocc, plcc, plcc_logistic, agreement_of):
        with pytest.raises(ValueError, match="opinions"):
            measure(scores, opinions)


@pytest.mark.parametrize("seed", range(20))
def test_no_scores_in_their_intervals_agree_less_than_the_least_srocc(seed):
    rng = np.random.default_rng(seed)
    opinions = rng.integers(0, 6, 9).astype(float)
    low = opinions + rng.normal(0, 0.5, 9)
    high = low + rng.uniform(0, 1.5, 9)
    least = least_srocc(low, high, opinions)
    found = [srocc(np.round(rng.uniform(low, high), 1).clip(low, high), opinions) for _ in range(200)]
    found += [srocc(np.where(rng.random(9) < 0.5, low, high), opinions) for _ in range(200)]
    assert least <= min(found)
    assert least_srocc(low, low, opinions) <= srocc(low, opinions)


def test_the_least_srocc_is_reached_and_says_where_it_is_no_bound():
    opinions = [1.0, 2.0, 3.0, 4.0]
    assert least_srocc([0, 1, 2, 3], [1.5, 1.5, 2.5, 3.5], opinions) == srocc([1.4, 1.3, 2.0, 3.0], opinions)
    assert least_srocc([0, 0, 0, 0], [1, 1, 1, 1], opinions) == -1
    assert least_srocc([-np.inf, 2], [np.inf, 3], [1, 2]) == -1
    for low, high in (([0.0], [1.0, 2.0]), ([1.0, 0.0], [0.0, 1.0]), ([np.nan, 0.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="intervals"):
            least_srocc(low, high, [1.0, 2.0])
