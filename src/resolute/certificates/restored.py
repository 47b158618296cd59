"""The certificate of an upscaled image: what no small perturbation of the input can change about it."""

from __future__ import annotations

import dataclasses
import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute import notebook
from resolute.certificates.certificate import Smoothing
from resolute.certificates.noise import rounded_gaussian
from resolute.certificates.order_statistics import Ranks, fixed_ranks, level, median_rank, samples_needed
from resolute.certificates.samples import Samples
from resolute.certificates.spread import Spread

Image = Float[Tensor, "3 h w"]

# The first group of every certificate.
PIXELS = "pixels"


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Values of which all intervals hold together: the pixels, or those of one statistic.

    Attributes:
        name: what they are.
        shape: of the values.
        places: where they lie among the samples.
        low, high: what no value leaves.
    """

    name: str
    shape: tuple[int, ...]
    places: slice
    low: float
    high: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JointBounds:
    """Intervals for one radius that hold together for all values of a group.

    Attributes:
        epsilon: l2 radius over all pixels and channels of the input, on the scale of [0, 1].
        lower, upper: of the true medians.
        ranks: the order statistics used, counted from 1; both None where the samples are too few.
    """

    epsilon: float
    lower: Tensor
    upper: Tensor
    ranks: Ranks

    @property
    def vacuous(self) -> bool:
        """Whether the intervals say no more than the range of the values does."""
        return self.ranks.low is None

    @property
    def widest(self) -> float:
        """The width of the widest interval."""
        return float((self.upper - self.lower).max())


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RestorationCertificate:
    """What was proven about the upscaled form of one image.

    Three outputs are spoken of, all of the same noisy copies: the per-pixel median, of which the images hold; the mean
    and the centre, of which only the norm of the change is bounded, and better. Each statement fails with probability
    at most ``error`` by itself.

    Attributes:
        epsilon: l2 radius that was asked for; others need no new samples.
        output: the sampled median, ``(3, sh, sw)``, the defended output.
        mean: the sampled mean of the copies behind ``spread``.
        plain: the model's output without noise.
        smoothing: how it was sampled.
        samples: the outputs behind the ranks.
        groups: the pixels, then the statistics.
        spread: what the norm of a change follows from.
        model: name of the model.
        size: (height, width) of the input.
        scale: upscaling factor.
        image_sha256: of the input.
    """

    epsilon: float
    output: Image
    mean: Image
    plain: Image
    smoothing: Smoothing
    samples: Samples = dataclasses.field(repr=False)
    groups: tuple[Group, ...]
    spread: Spread = dataclasses.field(repr=False)
    model: str
    size: tuple[int, int]
    scale: int
    image_sha256: str

    def at(self, epsilon: float) -> RestorationCertificate:
        """Return the certificate at another radius, from the same samples."""
        return dataclasses.replace(self, epsilon=epsilon)

    def bounds(self, name: str = PIXELS) -> JointBounds:
        """Return the intervals of a group at the radius: of the pixels, or of a statistic by its name.

        The true quantiles bound all medians of the perturbed image at once; that n samples bound all those quantiles
        is a union over the values, each of whose two sides errs with alpha over twice their number.

        Raises:
            KeyError: there is no such group.
        """
        group = {group.name: group for group in self.groups}[name]
        ranks = fixed_ranks(
            self.smoothing.n, level(self.epsilon, self.smoothing.sigma), self.smoothing.alpha / group.count
        )
        if ranks.low is None or ranks.high is None:
            ends = [torch.full(group.shape, end) for end in (group.low, group.high)]
        else:
            ends = [
                self.samples.bracket(rank)[side][group.places].view(group.shape)
                for side, rank in enumerate((ranks.low, ranks.high))
            ]
        return JointBounds(epsilon=self.epsilon, lower=ends[0], upper=ends[1], ranks=ranks)

    def value(self, name: str) -> Tensor:
        """Return the sampled medians of a group, the middle of the bracket where ranks are not exact."""
        group = {group.name: group for group in self.groups}[name]
        low, high = self.samples.bracket(median_rank(self.smoothing.n))
        return ((low + high) / 2)[group.places].view(group.shape)

    @property
    def lower(self) -> Image:
        """No pixel of a perturbed image's median output is below this."""
        return self.bounds().lower

    @property
    def upper(self) -> Image:
        """No pixel of a perturbed image's median output is above this."""
        return self.bounds().upper

    def moves(self) -> Image:
        """Return how far each value of the output can move from the defended output at most."""
        bounds = self.bounds()
        return torch.maximum(bounds.upper - self.output, self.output - bounds.lower).clamp_min(0)

    def sr_psnr(self) -> float:
        """Return the SR-PSNR in dB that the median output of no perturbed image falls below, by the pixels' bounds."""
        return psnr_of(float(self.moves().double().square().mean().sqrt()))

    def sr_psnr_mean(self) -> float:
        """Return the SR-PSNR in dB between the true mean outputs of the image and any perturbed one at least."""
        return psnr_of(self.spread.mean(self.epsilon) / math.sqrt(self.spread.values))

    def sr_psnr_centre(self) -> float:
        """Return the SR-PSNR in dB between the centre here and that of any perturbed image at least."""
        return psnr_of(self.spread.centre(self.epsilon) / math.sqrt(self.spread.values))

    def sr_psnr_best(self) -> tuple[str, float]:
        """Return which output is the best bounded, ``median``, ``mean`` or ``centre``, and by which SR-PSNR in dB."""
        found = {"median": self.sr_psnr(), "mean": self.sr_psnr_mean(), "centre": self.sr_psnr_centre()}
        best = max(found, key=lambda name: found[name])
        return best, found[best]

    def psnr_to(self, truth: Image) -> tuple[float, float]:
        """Return the least and the largest PSNR in dB that the median output of a perturbed image can have to a truth.

        Over RGB, unrounded and uncropped.

        Raises:
            ValueError: the truth has another size.
        """
        if truth.shape != self.output.shape:
            raise ValueError(f"the truth is {tuple(truth.shape)}, and the output {tuple(self.output.shape)}")
        bounds = self.bounds()
        above, below = bounds.upper - truth, truth - bounds.lower
        worst = torch.maximum(above, below).clamp_min(0).double().square().mean().sqrt()
        best = torch.maximum(-above, -below).clamp_min(0).double().square().mean().sqrt()
        return psnr_of(float(worst)), psnr_of(float(best))

    def psnr_to_by_mean(self, truth: Image) -> float:
        """Return the least PSNR in dB that the true mean output of a perturbed image can have to a truth."""
        own = float((self.mean - truth).double().norm())
        far = own + self.spread.sampling + self.spread.mean(self.epsilon)
        return psnr_of(far / math.sqrt(self.spread.values))

    def largest_change(self) -> float:
        """Return how far any value of the output can move from the defended output at most, in [0, 1]."""
        return float(self.moves().max())

    def needed(self) -> float:
        """Return how many samples bound all pixels at the radius at all; infinity where no number does."""
        return needed(self.epsilon, self.smoothing, self.groups[0].count)

    @property
    def error(self) -> float:
        """Chance that a statement fails: alpha, and in grid mode what the drawing of the noise may add."""
        if self.smoothing.noise == "gaussian":
            return self.smoothing.alpha
        draws = self.smoothing.n * 3 * self.size[0] * self.size[1]
        return self.smoothing.alpha + draws * rounded_gaussian(self.smoothing.sigma).total_variation

    def words(self) -> str:
        """Return in words what is guaranteed, under which assumptions, and what is not."""
        made = self.smoothing
        sound = (
            "The noise was drawn exactly on the 8-bit grid, so the proof also holds in the computer's arithmetic for "
            "perturbed images on that grid."
            if made.noise == "grid"
            else "The noise is float32: the proof is for real numbers, and rounding is not accounted for."
        )
        origin = (
            ""
            if made.drawn
            else " The seed of the noise was given, to repeat a run: for an image whose maker knew it the confidence "
            "does not hold."
        )
        ranks = "" if self.samples.exact else " Ranks are bracketed by the bins of histograms, ends rounded outwards."
        best, decibels = self.sr_psnr_best()
        # The median's is in the first clause.
        norm = (
            f"; and the {best} output, the best bounded in norm of the three, keeps {decibels:.1f} dB of SR-PSNR at "
            f"least (with {max(0.0, 100 * (1 - 3 * self.error)):.6g} %, for it was chosen)"
            if best != "median" and decibels > 0
            else ""
        )
        joint = (
            f"every pixel of the median output stays between the lower and the upper image, all "
            f"{self.groups[0].count:,} values at once, none moving by more than {self.largest_change():.3g} of 1, "
            f"which makes {self.sr_psnr():.1f} dB of SR-PSNR at least"
            if not self.bounds().vacuous
            else f"nothing is proven of single pixels: it takes {self.needed():,} samples"
        )
        return (
            f"With confidence {100 * (1 - self.error):.6g} % each, for every perturbation of the input of l2 norm up "
            f"to {self.epsilon:g} (over all pixels and channels in [0, 1]), whoever chose it and whatever they know of "
            f"{self.model}, under noise of sigma {made.sigma:g}: {joint}{norm}.{origin}{ranks} {sound} The proof "
            "is of the true median, mean and centre; sampled ones stray from them. Nothing is said "
            "about larger perturbations, about whether the output is a good one, or about the model without noise."
        )

    def __repr__(self) -> str:
        best, decibels = self.sr_psnr_best()
        return (
            f"RestorationCertificate({self.model}: median {self.sr_psnr():.1f} dB, {best} {decibels:.1f} dB within l2 "
            f"radius {self.epsilon:g}, sigma {self.smoothing.sigma:g}, {self.smoothing.n} samples, alpha "
            f"{self.smoothing.alpha:g})"
        )

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction], notebooks call it
        caption = "defended output"
        return notebook.picture(self.output, caption) + notebook.paragraph(self.words())


def needed(epsilon: float, made: Smoothing, values: int) -> float:
    """Return how many samples bound so many values together at all; infinity where no number does.

    Example:
        >>> needed(0.05, Smoothing(sigma=0.05), 1), needed(0.05, Smoothing(sigma=0.05), 3 * 480 * 320)
        (44, 120)
    """
    return samples_needed(level(epsilon, made.sigma), made.alpha / values)


def psnr_of(root_mean_square: float) -> float:
    """Return the PSNR in dB of a root mean square error on the scale of [0, 1].

    Example:
        >>> psnr_of(0.01), psnr_of(0.0)
        (40.0, inf)
    """
    if root_mean_square in (0.0, math.inf):
        return math.inf if root_mean_square == 0 else -math.inf
    return -20 * math.log10(root_mean_square)
