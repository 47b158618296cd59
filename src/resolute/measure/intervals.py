"""Confidence intervals for means over images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap confidence interval.

    Attributes:
        mean: of the values given.
        low, high: ends of the interval; equal to the mean where one value cannot show a spread.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


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
    mean = float(data.mean())
    if data.size == 1 or np.ptp(data) == 0:
        return Interval(mean, mean, mean, data.size)
    result = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high), data.size)
