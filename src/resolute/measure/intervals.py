"""Confidence intervals for means over images."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from resolute.figures import Interval

_AT_ONCE = 2**22


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
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("an interval needs at least one value, all of them finite")
    middle = float(data.mean())
    if data.size == 1 or np.ptp(data) == 0:
        return Interval(middle, middle, middle, data.size)
    # scipy.stats.bootstrap has the same figures, and takes seconds to import.
    means = np.concatenate([data[drawn].mean(axis=1) for drawn in _resampled(data.size, resamples, seed)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(middle, float(low), float(high), data.size)


def _resampled(size: int, resamples: int, seed: int) -> Iterable[NDArray[np.int64]]:
    """Return the resamples as places in the data, a row each, in parts that memory holds."""
    if size * resamples <= _AT_ONCE:
        return [_drawn(size, resamples, seed)]
    rng, rows = np.random.default_rng(seed), max(1, _AT_ONCE // size)
    return (rng.integers(0, size, (min(rows, resamples - done), size)) for done in range(0, resamples, rows))


@functools.lru_cache(maxsize=2)
def _drawn(size: int, resamples: int, seed: int) -> NDArray[np.int64]:
    # The next row of a table is of as many images.
    return np.random.default_rng(seed).integers(0, size, (resamples, size))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known; None where there is none.

    Example:
        >>> mean([1.0, None, 2.0])
        1.5
    """
    known = [value for value in values if value is not None]
    return (known[0] if len(known) == 1 else float(np.mean(known))) if known else None
