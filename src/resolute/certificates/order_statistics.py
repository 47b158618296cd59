"""Which order statistics bound a smoothed median: exact binomial ranks, fixed in advance or valid at every time.

All ranks count from 1: ``X_(1)`` is the smallest of n scores. Write ``q_p(x)`` for the p-quantile of the score of
``x + N(0, sigma^2 I)``. Theorem 1 (Chiang et al., NeurIPS 2020, Lemma 1, at p = 1/2): for every ``||u||_2 <= epsilon``

    q_{p_low}(x) <= q_{1/2}(x + u) <= q_{p_high}(x),    p_low = Phi(-epsilon/sigma),  p_high = Phi(epsilon/sigma).

The number of samples at or below ``q_p`` is binomial with a success rate of at least p, and the number strictly below
it binomial with a rate of at most p, whatever the law of the score. So the ranks below hold for discrete scores too,
and for every median where there are several.
"""

from __future__ import annotations

import dataclasses
import math

from scipy import special


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The two order statistics that bound the median, counted from 1.

    Attributes:
        low: ``X_(low) <= q_{p_low}`` with its share of the confidence; None where n samples cannot say so.
        high: ``X_(high) >= q_{p_high}`` likewise.
    """

    low: int | None
    high: int | None


def level(epsilon: float, sigma: float, slack: float = 0.0) -> float:
    """Return ``p_low`` of Theorem 1 for the quantile ``1/2 - slack``; ``p_high`` is one minus it.

    Raises:
        ValueError: epsilon is negative, sigma not positive, or slack outside [0, 1/2).

    Example:
        >>> round(level(0.05, 0.12), 4)
        0.3385
    """
    if not (0 <= epsilon < math.inf and 0 < sigma < math.inf and 0 <= slack < 0.5):
        raise ValueError(
            f"epsilon is at least 0, sigma above 0 and slack in [0, 1/2); not {epsilon}, {sigma} and {slack}"
        )
    return float(special.ndtr(special.ndtri(0.5 - slack) - epsilon / sigma))


def fixed_ranks(n: int, p_low: float, alpha: float) -> Ranks:
    """Return the tightest ranks for ``p_low`` and ``1 - p_low`` from n samples, n chosen before any was seen.

    ``low = max{k : P[Bin(n, p_low) >= k] >= 1 - alpha/2}`` and ``high = n + 1 - low`` by symmetry; each side errs with
    probability at most alpha/2.

    Example:
        >>> fixed_ranks(1000, level(0.05, 0.12), alpha=0.002)
        Ranks(low=293, high=708)
        >>> fixed_ranks(1000, level(0.30, 0.12), alpha=0.002)
        Ranks(low=None, high=None)
    """
    _check(n, p_low, alpha)
    # P[Bin >= k] >= 1 - alpha/2 is P[Bin < k] <= alpha/2, which keeps its precision where alpha is small. The
    # incomplete beta function is that chance, and spares the half second that scipy.stats takes to import.
    low, above = 0, n + 1
    while above - low > 1:
        rank = (low + above) // 2
        if special.betaincc(rank, n - rank + 1, p_low) <= alpha / 2:
            low = rank
        else:
            above = rank
    return _symmetric(n, low)


def samples_needed(p_low: float, alpha: float) -> float:
    """Return the smallest n for which ``fixed_ranks`` bounds both sides; infinity where no number does.

    ``P[Bin(n, p_low) >= 1] >= 1 - alpha/2`` is ``(1 - p_low)^n <= alpha/2``.

    Example:
        >>> samples_needed(level(0.30, 0.12), alpha=0.002)
        1109
        >>> fixed_ranks(1109, level(0.30, 0.12), alpha=0.002)
        Ranks(low=1, high=1109)
    """
    _check(1, p_low, alpha)
    return math.ceil(math.log(alpha / 2) / math.log1p(-p_low)) if p_low > 0 else math.inf


def sequential_ranks(n: int, p_low: float, alpha: float, horizon: int) -> Ranks:
    """Return ranks that hold at every n at once, so that one may stop whenever one likes.

    One-sided test martingale (Robbins; Howard & Ramdas, Bernoulli 2022): with S the samples at or below ``q_p``,

        M_n = E_theta[theta^S (1 - theta)^(n - S)] / (p^S (1 - p)^(n - S)),   theta ~ Beta(m p, m (1 - p)) below p,

    is a supermartingale of mean at most 1 for every law whose rate is at least p. By Ville's inequality it ever reaches
    ``2/alpha`` with probability at most alpha/2, so ``low`` is the largest rank whose S would have reached it.

    Args:
        n: samples so far.
        p_low: see ``level``.
        alpha: chance that the bounds fail at any n, both sides together.
        horizon: about where one expects to stop; it shapes the prior (m), never the validity.

    Example:
        >>> fixed_ranks(1000, 0.3385, 0.002).low > sequential_ranks(1000, 0.3385, 0.002, horizon=1000).low > 270
        True
    """
    _check(n, p_low, alpha)
    if p_low == 0:
        return Ranks(None, None)
    # The normal mixture that is tightest at the horizon has this precision (Howard et al. 2021, prop. 3).
    strength = horizon / (-float(special.lambertw(-((alpha / 2) ** 2) / math.e, -1).real) - 1)
    a, b = strength * p_low, strength * (1 - p_low)
    threshold = math.log(2 / alpha)

    def log_martingale(s: int) -> float:
        posterior = special.betaln(a + s, b + n - s) + _log_betainc(a + s, b + n - s, p_low)
        prior = special.betaln(a, b) + _log_betainc(a, b, p_low)
        return float(posterior - prior - s * math.log(p_low) - (n - s) * math.log1p(-p_low))

    # Few successes are evidence that the rate is below p: the martingale falls as s rises.
    low, above = 0, math.floor(n * p_low) + 1
    while low < above:
        middle = (low + above) // 2
        if log_martingale(middle) >= threshold:
            low = middle + 1
        else:
            above = middle
    return _symmetric(n, low)


def median_slack(n: int, alpha: float) -> float:
    """Return t such that the sampled median of n scores lies between the quantiles ``1/2 - t`` and ``1/2 + t``.

    Holds with probability at least 1 - alpha, alpha/2 a side; the sampled median is ``X_(median_rank(n))``.

    Raises:
        ValueError: no t below 1/2 will do, because n is too small for alpha.

    Example:
        >>> round(median_slack(1000, alpha=0.002), 3)
        0.049
    """
    _check(n, 0.5, alpha)
    rank = median_rank(n)
    # Below the quantile 1/2 - t with chance P[Bin(n, 1/2 - t) >= rank], above 1/2 + t with P[Bin(n, 1/2 + t) < rank].
    below = float(special.betaincinv(rank, n - rank + 1, alpha / 2))
    above = float(special.betainccinv(rank, n - rank + 1, alpha / 2))
    slack = max(0.5 - below, above - 0.5)
    if slack >= 0.5 - 1e-12:
        raise ValueError(f"a median of {n} samples says nothing at alpha {alpha}; take more samples")
    return slack


def median_rank(n: int) -> int:
    """Return the rank of the sampled median, the lower of the two middle ones where n is even.

    Example:
        >>> median_rank(5), median_rank(6)
        (3, 3)
    """
    return (n + 1) // 2


def _symmetric(n: int, low: int) -> Ranks:
    return Ranks(low, n + 1 - low) if low > 0 else Ranks(None, None)


def _log_betainc(a: float, b: float, p: float) -> float:
    share = float(special.betainc(a, b, p))
    # Where all mass lies above p the share underflows; bounded from below by the first term of its series.
    return math.log(share) if share > 0 else a * math.log(p) + b * math.log1p(-p) - math.log(a) - special.betaln(a, b)


def _check(n: int, p: float, alpha: float) -> None:
    if n < 1 or not 0 <= p < 1 or not 0 < alpha < 1:
        raise ValueError(f"n is at least 1, p in [0, 1) and alpha in (0, 1); not {n}, {p} and {alpha}")
