"""Confidence intervals for means over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from resolute.figures import Interval


def bootstrap_mean(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of ``values`` with a percentile bootstrap interval.

    For a paired comparison of two models give the differences image by image: pairing removes the spread that both
    models share, which is most of it.

    Raises:
        ValueError: no values, or a value that is not finite.

    Example:
        >>> bootstrap_mean([1.0, 2.0, 3.0, 4.0]).mean
        2.5
    """
    from scipy import stats  # slow to import, and seldom needed

    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("an interval needs at least one value, all of them finite")
    middle = float(data.mean())
    if data.size == 1 or np.ptp(data) == 0:
        return Interval(middle, middle, middle, data.size)
    result = stats.bootstrap(
        (data,), np.mean, confidence_level=confidence, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = result.confidence_interval
    return Interval(middle, float(low), float(high), data.size)


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known; None where there is none.

    Example:
        >>> mean([1.0, None, 2.0])
        1.5
    """
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
