"""The certificate: a proven interval of a smoothed score, and all that is needed to check it again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resolute import notebook
from resolute.attacks.ascent import Arithmetic
from resolute.certificates.noise import Kind, rounded_gaussian
from resolute.certificates.order_statistics import (
    Ranks,
    fixed_ranks,
    level,
    median_rank,
    median_slack,
    samples_needed,
    sequential_ranks,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How a score was smoothed and sampled: everything but the samples that determines a certificate.

    Attributes:
        sigma: standard deviation of the noise, on the scale of [0, 1].
        n: samples drawn, or allowed at most in sequential mode.
        alpha: chance that the guarantee fails, all sides together.
        seed: of the noise; None for one that the operating system draws once the image is fixed.
        drawn: whether the seed was so drawn.
        noise: ``gaussian`` in float32, or ``grid``, exact on the 8-bit grid.
        deployed: samples behind the deployed score that the guarantee is to cover too (end to end); 0 for the true
            median alone.
        sequential: whether sampling could stop early.
        precision: of the metric and its denoiser; in ``bfloat16`` the certificate is of the metric so computed.
    """

    sigma: float = 0.12
    n: int = 1000
    alpha: float = 0.001
    seed: int | None = None
    drawn: bool = False
    noise: Kind = "gaussian"
    deployed: int = 0
    sequential: bool = False
    precision: Arithmetic = "float32"

    def __post_init__(self) -> None:
        if not (0 < self.sigma <= 10 and self.n >= 1 and 0 < self.alpha < 1 and self.deployed >= 0):
            raise ValueError(
                "smoothing needs sigma in (0, 10], n of at least 1, alpha in (0, 1) and deployed of at least 0, "
                f"not {self}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """An interval for one radius.

    Attributes:
        epsilon: l2 radius over all pixels and channels of the image as given, on the scale of [0, 1].
        lower, upper: the interval; the metric's proven range, or infinite, on a side that the samples cannot bound.
        ranks: the order statistics used, counted from 1.
    """

    epsilon: float
    lower: float
    upper: float
    ranks: Ranks

    @property
    def vacuous(self) -> bool:
        """Whether a side says no more than the metric's range does."""
        return self.ranks.low is None or self.ranks.high is None

    @property
    def width(self) -> float:
        """The paper's delta read as a width: no two images of the ball differ by more."""
        return self.upper - self.lower


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What was proven about one image.

    Attributes:
        score: the sampled median, the defended score; NaN where the metric abstained.
        bounds: the interval at the radius asked for.
        smoothing: how it was sampled.
        samples: scores drawn, at most ``smoothing.n``.
        non_finite: samples that were NaN or infinite; any makes the certificate abstain.
        size: (height, width) at which the noise was added.
        resized: whether the image was resized to that size first.
        norm: by how much resizing can lengthen a change of the image at most, its operator norm; 1 where it was not.
        image_sha256: of the image at that size.
        scorer: the metric's card, as a mapping.
        low, high: the metric's proven range; infinite where it has none.
        scores: ``(samples,)`` in the order drawn.
    """

    score: float
    bounds: Bounds
    smoothing: Smoothing
    samples: int
    non_finite: int
    size: tuple[int, int]
    resized: bool
    norm: float = 1.0
    image_sha256: str
    scorer: dict[str, object]
    low: float
    high: float
    scores: NDArray[np.float64] = dataclasses.field(repr=False)

    @property
    def abstained(self) -> bool:
        """Whether nothing is claimed beyond the metric's range."""
        return self.non_finite > 0

    @property
    def lower(self) -> float:
        """Lower end of the interval."""
        return self.bounds.lower

    @property
    def upper(self) -> float:
        """Upper end of the interval."""
        return self.bounds.upper

    @property
    def delta(self) -> float:
        """The paper's delta: the larger distance from the score to an end of the interval."""
        return max(self.upper - self.score, self.score - self.lower)

    def at(self, epsilon: float, alpha: float | None = None) -> Bounds:
        """Return the interval at another radius, from the same samples.

        Each radius holds with the certificate's confidence by itself; or, for the true median alone, with that of
        another ``alpha``, chosen before the samples were seen.
        """
        made = self.smoothing
        if alpha is not None:
            made = dataclasses.replace(made, alpha=alpha, deployed=0)
        return bounds_of(self._sorted, epsilon, made, self.low, self.high, norm=self.norm, abstain=self.abstained)

    def curve(self, epsilons: Sequence[float]) -> list[Bounds]:
        """Return the intervals at many radii, from the same samples; see ``at``."""
        return [self.at(epsilon) for epsilon in epsilons]

    def shift(self, epsilon: float) -> float:
        """Return a bound on ``|G(x + u) - G(x)|`` with G the true median, for every u of norm up to epsilon (eq. 1).

        Four one-sided bounds share alpha: both ends at epsilon, and both ends of the unperturbed median.
        """
        near, far = self._unmoved, self._halved(epsilon)
        return max(far.upper - near.lower, near.upper - far.lower)

    def largest_epsilon(self, delta: float) -> float:
        """Return the largest radius at which the true median provably moves by at most ``delta``; 0 if there is none.

        The true shift grows with the radius and so does its bound; hence choosing the radius by the samples does not
        cost confidence: to err, the bound must fail at the one radius where the true shift passes ``delta``.
        """
        if not self.shift(0.0) <= delta:
            return 0.0
        inside, outside = 0.0, 8 * self.smoothing.sigma / self.norm
        if self.shift(outside) <= delta:
            return outside
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self.shift(middle) <= delta else (inside, middle)
        return inside

    def needed(self, epsilon: float) -> float:
        """Return how many samples bound both sides at a radius at all; infinity where no number does.

        What stopping early or covering a deployed median takes beyond that is left out.
        """
        return samples_needed(level(epsilon * self.norm, self.smoothing.sigma), self.smoothing.alpha)

    def exhausted(self, epsilon: float) -> bool:
        """Whether ``shift`` is bounded up to this radius and, for want of samples, at none beyond it."""
        return not self._halved(epsilon).vacuous and self._halved(epsilon * (1 + 1e-6) + 1e-9).vacuous

    @property
    def saturated(self) -> bool:
        """Whether the score is an end of the metric's range, where a range that is too small cuts scores off."""
        return self.score in (self.low, self.high)

    @property
    def error(self) -> float:
        """Chance that the guarantee fails: alpha, and in grid mode what the drawing of the noise may add."""
        if self.smoothing.noise == "gaussian":
            return self.smoothing.alpha
        draws = self.samples * 3 * self.size[0] * self.size[1]
        return self.smoothing.alpha + draws * rounded_gaussian(self.smoothing.sigma).total_variation

    def words(self) -> str:
        """Return in words what is guaranteed, under which assumptions, and what is not."""
        made, name = self.smoothing, self.scorer["name"]
        if self.abstained:
            return (
                f"{name} returned {self.non_finite} scores that are not finite on noisy copies of this image, so "
                "nothing is certified."
            )
        deployed = (
            f"and the deployed score, a median of {made.deployed} fresh samples whose noise the attacker cannot "
            "foresee, "
            if made.deployed
            else ""
        )
        sound = (
            "The noise was drawn exactly on the 8-bit grid, so the proof also holds in the computer's arithmetic for "
            "perturbed images on that grid."
            if made.noise == "grid"
            else "The noise is float32: the proof is for real numbers, and rounding is not accounted for."
        )
        if made.precision == "bfloat16":
            sound += " The metric is the one computed in bfloat16."
        needed = self.needed(self.bounds.epsilon)
        more = f" At this radius it takes {needed:,} samples to bound both." if self.samples < needed < math.inf else ""
        vacuous = (
            " A side that the samples cannot bound is given as the metric's proven range, or as infinite: it says "
            f"nothing.{more}"
            if self.bounds.vacuous
            else ""
        )
        if self.scorer.get("deterministic") is False:
            sound += f" {name} scores equal images differently: it must draw afresh at every call."
        if self.saturated:
            sound += (
                f" The score is an end of the range that {name} declares: if that range is too small, scores are cut "
                "off there and the interval says nothing."
            )
        reach = "" if made.deployed else " A deployed score is a sampled median and may stray from the true one."
        return (
            f"With confidence {100 * (1 - self.error):.6g} %, the median of {name} under noise of sigma {made.sigma:g} "
            f"{deployed}stays in [{self.lower:.6g}, {self.upper:.6g}] for every perturbation of the image of l2 norm "
            f"up to {self.bounds.epsilon:g} (over all pixels and channels in [0, 1]{self._resizing}), whoever chose it "
            f"and whatever they know of the metric.{self._origin}{vacuous} {sound}{reach} Nothing is said about larger "
            "perturbations, about whether the score is a good one, or about the metric without noise."
        )

    @property
    def _resizing(self) -> str:
        if not self.resized:
            return ""
        height, width = self.size
        return (
            f"; the noise was added after resizing it to {width} x {height}, which makes a change at most "
            f"{self.norm:.3g} times as long"
        )

    @property
    def _origin(self) -> str:
        if self.smoothing.drawn:
            return ""
        return (
            " The seed of the noise was given, to repeat a run: for an image whose maker knew it the confidence does "
            "not hold."
        )

    def __repr__(self) -> str:
        interval = "abstained" if self.abstained else f"{self.score:.4g} in [{self.lower:.4g}, {self.upper:.4g}]"
        return (
            f"Certificate({self.scorer['name']}: {interval} within l2 radius {self.bounds.epsilon:g}, sigma "
            f"{self.smoothing.sigma:g}, {self.samples} samples, alpha {self.smoothing.alpha:g})"
        )

    def _repr_html_(self) -> str:
        return notebook.paragraph(repr(self)) + notebook.paragraph(self.words())

    def plot(self, epsilons: Sequence[float] | None = None) -> Any:
        """Draw the interval against the radius and return the matplotlib axes.

        Each radius holds with the certificate's confidence by itself.

        Args:
            epsilons: radii; from 0 to twice the one asked for, or to sigma if that was 0, if not given.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        end = 2 * self.bounds.epsilon or self.smoothing.sigma
        radii = np.linspace(0, end, 101).tolist() if epsilons is None else list(epsilons)
        bounds = self.curve(radii)
        lower, upper = [found.lower for found in bounds], [found.upper for found in bounds]
        return notebook.plot_bounds(radii, lower, upper, self.score, str(self.scorer["name"]))

    def as_record(self) -> dict[str, Any]:
        """Return the certificate without its samples as plain data, for JSON; infinities become None."""
        record = {name: value for name, value in dataclasses.asdict(self).items() if name != "scores"}
        record |= {"delta": self.delta, "vacuous": self.bounds.vacuous, "error": self.error, "words": self.words()}
        return json.loads(json.dumps(_finite(record)))

    def _halved(self, epsilon: float) -> Bounds:
        return self.at(epsilon, self.smoothing.alpha / 2)

    @functools.cached_property
    def _unmoved(self) -> Bounds:
        return self._halved(0.0)

    @functools.cached_property
    def _sorted(self) -> NDArray[np.float64]:
        return np.sort(self.scores)


def bounds_of(
    ordered: NDArray[np.float64],
    epsilon: float,
    made: Smoothing,
    low: float,
    high: float,
    *,
    norm: float = 1.0,
    abstain: bool = False,
) -> Bounds:
    """Return the interval at ``epsilon`` from scores in ascending order.

    A change of the image of length epsilon is one of at most ``norm`` times that where the noise is added. A guarantee
    that covers a deployed median too gives half of alpha to the deployed sampling.
    """
    alpha, slack = made.alpha, 0.0
    if made.deployed:
        alpha, slack = made.alpha / 2, median_slack(made.deployed, made.alpha / 2)
    p_low = level(epsilon * norm, made.sigma, slack)
    n = len(ordered)
    if abstain:
        ranks = Ranks(None, None)
    elif made.sequential:
        ranks = sequential_ranks(n, p_low, alpha, horizon=made.n)
    else:
        ranks = fixed_ranks(n, p_low, alpha)
    return Bounds(
        epsilon=epsilon,
        lower=float(ordered[ranks.low - 1]) if ranks.low else low,
        upper=float(ordered[ranks.high - 1]) if ranks.high else high,
        ranks=ranks,
    )


def sampled_median(ordered: NDArray[np.float64]) -> float:
    """Return the median of scores in ascending order, the lower of the two middle ones where n is even."""
    return float(ordered[median_rank(len(ordered)) - 1])


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
