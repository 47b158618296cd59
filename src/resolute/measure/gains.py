"""What attacks gain on a metric, in the scores of the field's comparison (Antsiferova et al., AAAI 2024).

Scores are first put on one scale: towards better quality, the worst of the clean images at 0 and the best at 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from resolute.figures import Interval
from resolute.measure.agreement import Scores

Values = NDArray[np.float64]

# As the comparison has it: a score that did not move has no logarithm.
_UNMOVED = 1e-6


@dataclasses.dataclass(frozen=True)
class Gains:
    """What an attack gained over a set of images, on the scale of the clean scores.

    Intervals are the mean and Student's 95 % interval over the images.

    Attributes:
        absolute: attacked less clean score.
        relative: the same over the clean score plus 1.
        r_score: logarithm to base 10 of how far the score could have moved over how far it did (Zhang et al., 2022);
            higher is more robust.
        wasserstein: distance of the distributions of clean and attacked scores, negative where the mean fell.
        energy: energy distance of the same two, with the same sign.
    """

    absolute: Interval
    relative: Interval
    r_score: Interval
    wasserstein: float
    energy: float


def gains_of(clean: Scores, attacked: Scores, *, lower_better: bool = False) -> Gains:
    """Return what an attack gained, from the scores of images before and after it.

    Raises:
        ValueError: the two differ in number, a score is not finite, or the clean ones are all equal and make no scale.

    Example:
        >>> found = gains_of([20.0, 60.0, 100.0], [100.0, 100.0, 100.0])
        >>> found.absolute.mean, round(found.relative.mean, 3), round(found.wasserstein, 3)
        (0.5, 0.444, 0.5)
    """
    from scipy import stats  # slow to import, and seldom needed

    before, after = (np.asarray(values, dtype=np.float64) for values in (clean, attacked))
    if before.ndim != 1 or before.shape != after.shape or not np.isfinite([*before, *after]).all():
        raise ValueError("gains need as many attacked scores as clean ones, all of them finite")
    if before.size == 0 or np.ptp(before) == 0:
        raise ValueError("gains are on the scale of the clean scores, which takes two that differ")
    worst, best = (before.max(), before.min()) if lower_better else (before.min(), before.max())
    before, after = ((values - worst) / (best - worst) for values in (before, after))
    moved = after - before
    sign = float(np.sign(moved.mean()))
    return Gains(
        absolute=_interval(moved),
        relative=_interval(moved / (before + 1)),
        r_score=_interval(np.log10(np.maximum(1 - before, before) / (np.abs(moved) + _UNMOVED))),
        wasserstein=sign * float(stats.wasserstein_distance(before, after)),
        energy=sign * float(stats.energy_distance(before, after)),
    )


def _interval(values: Values) -> Interval:
    from scipy import stats

    middle, n = float(values.mean()), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
    return Interval(middle, middle - half, middle + half, n)
