"""Median smoothing: draw scores of noisy copies of an image and certify their median (MS, DMS and DMS-IQA)."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import Arithmetic, Progress
from resolute.attacks.score import noisy_scores
from resolute.certificates.certificate import Bounds, Certificate, Smoothing, bounds_of, sampled_median
from resolute.certificates.copies import BLOCK, running
from resolute.certificates.noise import Kind, noise_for, values_sha256
from resolute.errors import MetricError
from resolute.models.base import Scorer, ScorerCard, frozen
from resolute.models.fitted import resized, resizing_norm
from resolute.randomness import generator_for

Stop = Callable[[Bounds], bool]

# Of the copies that a thread scores at once.
PIXELS = 8 * 256 * 256


@final
class DenoisedScorer(Scorer):
    """A metric behind a denoiser, ``M(clip(D(x)))``: with median smoothing, DMS and DMS-IQA.

    The identity as denoiser gives the metric itself, bit for bit.

    Args:
        scorer: the metric M.
        denoiser: D, ``(b, 3, h, w)`` to the same shape.
    """

    def __init__(self, scorer: Scorer, denoiser: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer
        self.denoiser = denoiser
        self.declare(scorer)
        inner = getattr(denoiser, "card", None)
        if scorer.card is not None:
            name = inner.name if inner is not None else type(denoiser).__name__
            self.card = dataclasses.replace(
                scorer.card, name=f"{scorer.card.name} behind {name}", architecture=self.arguments()
            )

    def arguments(self) -> dict[str, object]:
        inner = getattr(self.denoiser, "card", None)
        denoiser = dataclasses.asdict(inner) if inner is not None else {"class": type(self.denoiser).__name__}
        return {"class": "DenoisedScorer", "scorer": self.scorer.arguments(), "denoiser": denoiser}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.scorer(self.denoiser(x).clamp(0, 1))


def certify(
    scorer: Scorer,
    image: Float[Tensor, "3 h w"],
    sigma: float = 0.12,
    epsilon: float = 0.05,
    n: int = 1000,
    alpha: float = 0.001,
    *,
    seed: int | None = None,
    noise: Kind = "gaussian",
    deployed: int = 0,
    size: tuple[int, int] | None = None,
    trusted: bool = False,
    stop: Stop | None = None,
    precision: Arithmetic = "float32",
    progress: Progress | None = None,
) -> Certificate:
    """Certify the median score of an image under Gaussian noise (Theorem 1).

    The noisy copies are clipped to [0, 1] before they are scored. The noise of copy i depends on (seed, image, i)
    alone, so threads, batches and resuming change nothing; memory does not grow with n but for the scores themselves.

    Args:
        scorer: the metric; with a denoiser in front, a ``DenoisedScorer``.
        image: RGB float in [0, 1].
        sigma: standard deviation of the noise.
        epsilon: l2 radius of the perturbations of the image as given, over all pixels and channels.
        n: samples; at most so many where ``stop`` is given.
        alpha: chance that the guarantee fails, both sides together.
        seed: of the noise, to repeat a run; None to let the operating system draw one now that the image is fixed.
            Whoever knows the seed can search for an image whose noise misleads.
        noise: ``gaussian`` in float32, or ``grid``, exact on the 8-bit grid; then put resizing into the scorer, as
            ``FittedScorer`` does.
        deployed: end to end: let the guarantee cover a deployed median of so many fresh samples as well.
        size: (height, width) to resize the image to before the noise.
        trusted: certify a metric that is known to score equal images differently, or an image by the others of its
            batch, too; the certificate then holds only if it draws afresh at every call.
        stop: sequential mode: sampling ends as soon as it returns True, as ``width_below`` and ``decided_at`` do. The
            bounds come from a confidence sequence, which is valid at every time, and are somewhat wider for it.
        precision: ``bfloat16`` runs metric and denoiser under autocast, several times as fast where the processor has
            it. The theorem holds for any function, so for that one too, but its scores differ slightly.
        progress: called with (samples done, samples in all).

    Raises:
        ValueError: the image is no RGB image in [0, 1], or a parameter is out of range.
        MetricError: a ``ValueError`` too: the metric is not to be ``trusted``, or a score is outside the range that its
            card calls proven.

    Example:
        >>> from resolute.models import as_scorer
        >>> brightness = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="brightness", low=0.0, high=1.0)
        >>> certificate = certify(brightness, torch.full((3, 16, 16), 0.5), epsilon=0.05, n=200)
        >>> certificate.lower <= certificate.score <= certificate.upper
        True
    """
    made = Smoothing(
        sigma=sigma, n=n, alpha=alpha, seed=seed, noise=noise, deployed=deployed, sequential=stop is not None,
        precision=precision,
    )  # fmt: skip
    norm = 1.0 if size is None else resizing_norm((image.shape[-2], image.shape[-1]), size)
    image = prepared(image, size)
    if seed is None:
        made = dataclasses.replace(made, seed=secrets.randbits(63), drawn=True)
    assert made.seed is not None
    card = scorer.card or scorer.describe(type(scorer).__name__)
    low = -math.inf if card.low is None else card.low
    high = math.inf if card.high is None else card.high
    # So that impossible parameters are refused before any sampling.
    bounds_of(np.zeros(1), epsilon, made, low, high, norm=norm)
    if not trusted:
        _require_function(scorer, card, image)
    drawn, done = np.empty(n), 0
    source, together = noise_for(noise, image, sigma, made.seed), _together(scorer, image)
    with frozen(scorer), running(scorer, source, image, n, precision, together) as score:
        while done < n:
            last = min(done + BLOCK, n)
            drawn[done:last] = score(done).double().numpy()
            done = last
            if progress is not None:
                progress(done, n)
            ordered = np.sort(drawn[:done])
            abstain = not np.isfinite(ordered).all()
            if stop is not None and stop(bounds_of(ordered, epsilon, made, low, high, norm=norm, abstain=abstain)):
                break
    scores = drawn[:done].copy()
    ordered = np.sort(scores)
    non_finite = int((~np.isfinite(scores)).sum())
    finite = ordered[np.isfinite(ordered)]
    if finite.size and (finite[0] < low or finite[-1] > high):
        raise MetricError(
            f"{card.name} scored {finite[0]:g} to {finite[-1]:g}, outside the range [{low:g}, {high:g}] that its card "
            "calls proven: mend the card"
        )
    return Certificate(
        score=math.nan if non_finite else sampled_median(ordered),
        bounds=bounds_of(ordered, epsilon, made, low, high, norm=norm, abstain=non_finite > 0),
        smoothing=made, samples=len(scores), non_finite=non_finite, size=(image.shape[1], image.shape[2]),
        resized=size is not None, norm=norm, image_sha256=values_sha256(image), scorer=dataclasses.asdict(card),
        low=low, high=high, scores=scores,
    )  # fmt: skip


def width_below(width: float) -> Stop:
    """Return the rule that stops once the interval is no wider than ``width``."""
    return lambda bounds: bounds.width <= width


def decided_at(threshold: float) -> Stop:
    """Return the rule that stops once the interval lies on one side of ``threshold``."""
    return lambda bounds: bounds.lower > threshold or bounds.upper < threshold


def prepared(image: Float[Tensor, "3 h w"], size: tuple[int, int] | None) -> Float[Tensor, "3 new_h new_w"]:
    """Return the image that is certified: checked, and resized to (height, width) where a size is given.

    Raises:
        ValueError: it is no RGB image in [0, 1].
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0 or not image.is_floating_point():
        raise ValueError(f"an image is a float tensor (3, height, width), not {tuple(image.shape)} {image.dtype}")
    image = image.detach().float()
    if not bool(torch.isfinite(image).all()) or float(image.min()) < 0 or float(image.max()) > 1:
        raise ValueError("an image is finite and in [0, 1]; divide 8-bit values by 255")
    if size is not None:
        image = resized(image[None], size)[0]
    return image


def _together(scorer: Scorer, image: Float[Tensor, "3 h w"]) -> int:
    """Return how many copies are scored at once on a CPU: several small ones, which takes a quarter less time.

    A metric of others gets them alone: samples cannot prove that it scores each by itself.
    """
    if not scorer.independent:
        return 1
    room = PIXELS // (image.shape[1] * image.shape[2])
    return next((count for count in (8, 4, 2) if count <= room), 1)


def _require_function(scorer: Scorer, card: ScorerCard, image: Float[Tensor, "3 h w"]) -> None:
    """Refuse a metric that is no function of the image, by its card or, where that does not know, by asking twice."""
    same = card.deterministic
    if same is None:
        with frozen(scorer), torch.no_grad():
            once, again = (scorer(image[None]).double() for _ in range(2))
        # But for the order in which a GPU adds up.
        same = torch.allclose(once, again, rtol=1e-5, atol=0, equal_nan=True)
    wrong = "" if same else "gives equal images different scores"
    if card.batch_invariant is False and image.device.type != "cpu":  # where it gets every copy alone
        wrong = wrong or "scores an image by the others of its batch"
    if wrong:
        raise MetricError(f"{card.name} {wrong}, and no certificate holds for it; trusted=True (--trust) makes one")


@final
class ExpectedScore(Scorer):
    """The mean score of a few noisy copies, with gradients: how an attack or a training climbs a smoothed metric.

    Args:
        scorer: the metric inside the smoothing.
        sigma: standard deviation of the noise.
        draws: noisy copies of each image, the same ones at every call.
        seed: of the noise, which the defender does not share.
    """

    def __init__(self, scorer: Scorer, sigma: float, draws: int = 8, seed: int = 1) -> None:
        super().__init__()
        self.scorer = scorer
        self.sigma = sigma
        self.draws = draws
        self.seed = seed
        self.declare(scorer)

    def arguments(self) -> dict[str, object]:
        inner = self.scorer.arguments()
        return {"class": "ExpectedScore", "scorer": inner, "sigma": self.sigma, "draws": self.draws, "seed": self.seed}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        generator = generator_for(self.seed, "expectation")
        noise = torch.randn((1, self.draws, *x.shape[1:]), generator=generator)
        return self.under(x, noise.expand(len(x), -1, -1, -1, -1).to(x))

    def under(self, x: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b n 3 h w"]) -> Float[Tensor, " b"]:
        """Return the mean score under noise of the caller's own, of standard deviation 1 and as many draws as it has.

        Example:
            >>> from resolute.models import as_scorer
            >>> brightness = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="brightness", low=0.0, high=1.0)
            >>> expected = ExpectedScore(brightness, sigma=0.25)
            >>> expected.under(torch.full((1, 3, 4, 4), 0.5), torch.ones(1, 2, 3, 4, 4)).item()
            0.75
        """
        return noisy_scores(self.scorer, x, self.sigma, noise).mean(dim=1)
