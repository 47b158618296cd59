"""How well scores agree with opinions: SROCC, and PLCC as it is and after a logistic curve, with intervals."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from resolute.measure.intervals import Interval

Values = NDArray[np.float64]
Scores = Sequence[float] | Values


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of scores with opinions over a set of images, with bootstrap intervals over the images.

    Attributes:
        srocc: Spearman's rank correlation.
        plcc: Pearson's correlation of the scores as they are.
        plcc_logistic: Pearson's correlation after a 4-parameter logistic curve was fitted to the opinions.
    """

    srocc: Interval
    plcc: Interval
    plcc_logistic: Interval


def srocc(scores: Scores, opinions: Scores) -> float:
    """Return Spearman's rank correlation; 0 where one side is constant.

    Example:
        >>> srocc([1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
        1.0
    """
    from scipy.stats import rankdata  # slow to import, and seldom needed

    scores, opinions = _checked(scores, opinions)
    return _pearson(rankdata(scores), rankdata(opinions))


def least_srocc(lower: Scores, upper: Scores, opinions: Scores) -> float:
    """Return what SROCC is at least, wherever in its interval each score lies; -1 unless that is above 0.

    The covariance of two rankings is half the sum, over pairs, of how far the opinions' ranks lie apart, less than 0
    where the scores are the other way round. A pair whose intervals overlap counts as such. Ties only narrow the spread
    of the scores' ranks, so that a covariance above 0 over the largest spread is a bound.

    Args:
        lower: beginnings of the intervals; may be infinite.
        upper: their ends.
        opinions: to agree with.

    Raises:
        ValueError: the three differ in number or are none, an interval is none, an opinion is not finite.

    Example:
        >>> least_srocc([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [10.0, 20.0, 30.0])
        1.0
        >>> least_srocc([1.0, 2.0, 2.2], [1.5, 2.5, 3.5], [10.0, 20.0, 30.0])
        0.5
    """
    from scipy.stats import rankdata

    low, high = (np.asarray(values, dtype=np.float64) for values in (lower, upper))
    opinions, _ = _checked(opinions, opinions)
    if not low.shape == high.shape == opinions.shape or not (low <= high).all():
        raise ValueError("an SROCC is bounded by as many intervals as opinions, none of which ends below its beginning")
    ranks = rankdata(opinions)
    covariance = 0.0
    for rank, begins in zip(ranks, low, strict=True):
        apart = rank - ranks[ranks < rank]
        covariance += float(np.where(begins > high[ranks < rank], apart, -apart).sum()) / 2
    n = len(ranks)
    spread = float(np.square(ranks - ranks.mean()).sum()) * (n**3 - n) / 12
    return round(covariance / math.sqrt(spread), 12) if covariance > 0 else -1.0


def plcc(scores: Scores, opinions: Scores) -> float:
    """Return Pearson's correlation; 0 where one side is constant.

    Example:
        >>> round(plcc([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]), 6)
        1.0
    """
    return _pearson(*_checked(scores, opinions))


def plcc_logistic(scores: Scores, opinions: Scores) -> float:
    """Return Pearson's correlation after the logistic curve of VQEG has been fitted (see ``fit_logistic``).

    Example:
        >>> x = np.linspace(-3, 3, 30)
        >>> round(plcc_logistic(x, 1 / (1 + np.exp(-4 * x))), 6)
        1.0
    """
    scores, opinions = _checked(scores, opinions)
    return _pearson(fit_logistic(scores, opinions)(scores), opinions)


def fit_logistic(scores: Scores, opinions: Scores) -> Callable[[Values], Values]:
    """Return the least-squares curve ``b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4))`` from scores to opinions.

    Where there are fewer than four points, the fit does not converge, or fits worse than a line, the best line is
    returned.

    Raises:
        ValueError: scores and opinions differ in number, are none or not finite.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    scores, opinions = _checked(scores, opinions)
    spread = float(scores.std())
    if spread == 0:
        return lambda x: np.full_like(x, opinions.mean())
    slope, offset = np.polyfit(scores, opinions, 1)
    line = np.poly1d((slope, offset))
    if len(scores) < 4:
        return line  # fewer points than the curve has parameters
    ends = (opinions.max(), opinions.min()) if slope >= 0 else (opinions.min(), opinions.max())
    start = (*ends, float(scores.mean()), spread)
    try:
        # The covariance of the parameters, of which nothing is made, may exceed all numbers.
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", OptimizeWarning)
            found, _ = curve_fit(_logistic, scores, opinions, start, jac=_slopes, maxfev=1000, ftol=1e-6, xtol=1e-6)
    except RuntimeError:
        return line
    errors = [float(np.square(f - opinions).sum()) for f in (_logistic(scores, *found), line(scores))]
    return (lambda x: _logistic(x, *found)) if np.isfinite(errors[0]) and errors[0] < errors[1] else line


def _logistic(x: Values, top: float, bottom: float, middle: float, width: float) -> Values:
    from scipy.special import expit

    return bottom + (top - bottom) * expit((x - middle) / width)


def _slopes(x: Values, top: float, bottom: float, middle: float, width: float) -> Values:
    """Return the curve's derivatives with respect to its four parameters."""
    share = _logistic(x, 1.0, 0.0, middle, width)
    shift = (bottom - top) * share * (1 - share) / width
    return np.stack((share, 1 - share, shift, shift * (x - middle) / width), axis=1)


def agreement_of(
    scores: Scores, opinions: Scores, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Agreement:
    """Return the agreement of ``scores`` with ``opinions``, with percentile bootstrap intervals over the images.

    The logistic curve is fitted anew in every resample.

    Raises:
        ValueError: scores and opinions differ in number, are none or not finite.

    Example:
        >>> found = agreement_of([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 5.0], resamples=50)
        >>> found.srocc.low <= found.srocc.mean <= found.srocc.high
        True
    """
    checked = (tuple(values.tolist()) for values in _checked(scores, opinions))
    return _agreement(*checked, confidence, resamples, seed)


# The fits take seconds, and terminal and page ask for the same ones.
@functools.lru_cache(maxsize=64)
def _agreement(
    scores: tuple[float, ...], opinions: tuple[float, ...], confidence: float, resamples: int, seed: int
) -> Agreement:
    data = np.array(scores), np.array(opinions)
    found = (_interval(measure, data, confidence, resamples, seed) for measure in (srocc, plcc, plcc_logistic))
    return Agreement(*found)


def agreement_interval(
    scores: Scores, opinions: Scores, measure: Callable[[Scores, Scores], float] = srocc, *, resamples: int = 1000
) -> Interval:
    """Return one measure of agreement with its 95 % bootstrap interval over the images.

    Raises:
        ValueError: scores and opinions differ in number, are none or not finite.

    Example:
        >>> agreement_interval([1.0, 2.0, 3.0], [1.0, 2.0, 9.0], resamples=50).mean
        1.0
    """
    return _interval(measure, _checked(scores, opinions), 0.95, resamples, 0)


def agreement_difference(
    first: Scores,
    second: Scores,
    opinions: Scores,
    measure: Callable[[Scores, Scores], float] = srocc,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return by how much ``first`` agrees better than ``second``, with a paired bootstrap interval over the images.

    Raises:
        ValueError: the three differ in number, are none or not finite.

    Example:
        >>> opinions = np.arange(10.0)
        >>> agreement_difference(opinions, -opinions, opinions, resamples=50).mean
        2.0
    """
    first, opinions = _checked(first, opinions)
    second, _ = _checked(second, opinions)

    def difference(a: Values, b: Values, truth: Values) -> float:
        return measure(a, truth) - measure(b, truth)

    return _interval(difference, (first, second, opinions), confidence, resamples, seed)


def _interval(
    measure: Callable[..., float], data: tuple[Values, ...], confidence: float, resamples: int, seed: int
) -> Interval:
    rng = np.random.default_rng(seed)
    n = len(data[0])
    values = [measure(*(column[chosen] for column in data)) for chosen in rng.integers(0, n, (resamples, n))]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(measure(*data), float(low), float(high), n)


def _checked(scores: Scores, opinions: Scores) -> tuple[Values, Values]:
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(opinions, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size < 1 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("agreement needs as many scores as opinions, at least one, all of them finite")
    return a, b


def _pearson(a: Values, b: Values) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    # Rounded so that perfect agreement reads 1, not 1 and a few units of the last place.
    return round(float(a @ b) / norm, 12) if norm > 0 else 0.0
