import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolute.measure import intervals
from resolute.measure.intervals import Interval, bootstrap_mean

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(values)
@settings(max_examples=30, deadline=None)
def test_the_mean_lies_inside_and_the_interval_inside_the_values(data):
    found = bootstrap_mean(data, resamples=200)
    slack = 1e-9 * max(1.0, *map(abs, data))
    assert found.mean == pytest.approx(np.mean(data))
    assert found.n == len(data)
    assert min(data) - slack <= found.low <= found.high <= max(data) + slack
    assert found.low - slack <= found.mean <= found.high + slack or len(set(data)) < 4


def test_ninety_five_in_a_hundred_intervals_hold_the_true_mean():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        found = bootstrap_mean(rng.normal(3.0, 2.0, 50).tolist(), resamples=400, seed=trial)
        held += found.low <= 3.0 <= found.high
    # Binomial noise of 400 trials is 1.1 %; a percentile bootstrap of 50 values falls a little short of its promise.
    assert 0.91 <= held / 400 <= 0.975


def test_a_larger_confidence_is_a_wider_interval():
    data = np.random.default_rng(0).normal(size=40).tolist()
    found = [bootstrap_mean(data, confidence=confidence) for confidence in (0.5, 0.8, 0.95, 0.99)]
    assert np.all(np.diff([interval.high - interval.low for interval in found]) > 0)


def test_the_width_is_that_of_the_normal_approximation():
    data = np.random.default_rng(0).normal(10, 3, 400)
    found = bootstrap_mean(data.tolist(), resamples=4000)
    error = 1.96 * data.std() / math.sqrt(data.size)
    assert found.low == pytest.approx(data.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(data.mean() + error, abs=0.1 * error)


def test_pairing_shows_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(0)
    plain = rng.normal(30, 4, 60)
    hardened = plain + rng.normal(0.3, 0.3, 60)
    one, other = bootstrap_mean(plain.tolist()), bootstrap_mean(hardened.tolist())
    assert one.high > other.low
    paired = bootstrap_mean((hardened - plain).tolist())
    assert paired.low > 0
    assert paired.low < 0.3 < paired.high


@pytest.mark.parametrize("at_once", [1500, 2**22])
def test_the_figures_are_those_of_scipy(at_once, monkeypatch):
    from scipy import stats

    monkeypatch.setattr(intervals, "_AT_ONCE", at_once)

    for size in (2, 7, 100):
        data = np.random.default_rng(size).normal(30, 4, size)
        found = bootstrap_mean(data.tolist(), confidence=0.9, resamples=500, seed=3)
        theirs = stats.bootstrap(
            (data,), np.mean, confidence_level=0.9, n_resamples=500, method="percentile", rng=np.random.default_rng(3)
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=1e-12)


def test_the_seed_decides_the_resamples_and_nothing_global_does():
    data = np.random.default_rng(0).normal(size=20).tolist()
    state = np.random.get_state()[1].copy()  # noqa: NPY002, to see that it is not used
    first, again, other = (bootstrap_mean(data, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_values_without_spread_give_a_point():
    assert bootstrap_mean([2.5]) == Interval(2.5, 2.5, 2.5, 1)
    assert bootstrap_mean([2.5, 2.5, 2.5]) == Interval(2.5, 2.5, 2.5, 3)


@pytest.mark.parametrize("data", [[], [1.0, math.inf], [math.nan], [-math.inf, 1.0]])
def test_infinite_values_are_never_averaged(data):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(data)


def test_it_reads_well():
    assert str(Interval(31.046, 30.5, 31.599, 12)) == "31.05 [30.50, 31.60]"
