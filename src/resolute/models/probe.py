"""What a quality metric does, as against what it declares: a few calls on sample images, recorded on its card."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.errors import ConfigError, class_and_line
from resolute.images import sample_image
from resolute.models.base import Scorer, ScorerCard, frozen

# Relative to the spread of the scores: matrix products of another size round otherwise, random crops are far above.
TOLERANCE = 1e-3

_SAMPLES = ("coffee", "chelsea", "astronaut")


def probe(scorer: Scorer, card: ScorerCard | None = None, side: int | None = None) -> ScorerCard:
    """Return the card with what three sample images tell: batch invariance, determinism, gradient, range.

    Batch invariance is a condition of every Monte Carlo over noisy copies in batches, determinism of a certificate
    that can be checked again, a gradient of every white-box attack. The metric and the global random state are left
    as they were.

    Args:
        scorer: the metric, probed in evaluation mode.
        card: the card to complete; by default the metric's own, or one of its declared facts.
        side: of the sample images, in pixels; by default 128 or the smallest that the metric can score.

    Raises:
        ConfigError: the metric fails on the samples, returns another shape or numbers that are not finite, or leaves
            the range that its card calls proven.

    Example:
        >>> from resolute.models import QualityNet
        >>> card = probe(QualityNet())
        >>> card.batch_invariant, card.deterministic, card.differentiable
        (True, True, True)
    """
    card = card or scorer.card or scorer.describe(type(scorer).__name__)
    images = _samples(side or max(128, card.smallest))
    with frozen(scorer), torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            together, again = (_scores(scorer, images, card) for _ in range(2))
            alone = torch.cat([_scores(scorer, image[None], card) for image in images])
        differentiable = _has_gradient(scorer, images)
    gap = float((together - alone).abs().max())
    spread = max(float(together.max() - together.min()), 1e-3 * float(together.abs().max()))
    return dataclasses.replace(
        card,
        batch_invariant=gap <= TOLERANCE * spread,
        batch_gap=gap,
        deterministic=bool(torch.equal(together, again)),
        differentiable=differentiable,
    )


def _samples(side: int) -> Float[Tensor, "3 3 s s"]:
    shots = [sample_image(name)[None] for name in _SAMPLES]
    return torch.cat([F.interpolate(shot, (side, side), mode="bilinear", antialias=True) for shot in shots])


def _scores(scorer: Scorer, images: Float[Tensor, "b 3 h w"], card: ScorerCard) -> Float[Tensor, " b"]:
    shape = tuple(images.shape)
    try:
        scores = scorer(images)
    except (Exception, SystemExit) as error:  # A metric of somebody else can raise anything.
        raise ConfigError(
            f"the metric {card.name} fails on images of shape {shape}: {class_and_line(error)}"
        ) from error
    if not isinstance(scores, Tensor) or scores.shape != (len(images),):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(f"the metric {card.name} returns {got} for {len(images)} images, not one score an image")
    if not scores.isfinite().all():
        raise ConfigError(f"the metric {card.name} returns {scores.tolist()} for sample images of shape {shape}")
    low, high = card.low, card.high
    if (low is not None and scores.min() < low) or (high is not None and scores.max() > high):
        raise ConfigError(f"the metric {card.name} returns {scores.tolist()}, outside its range [{low}, {high}]")
    return scores.detach()


def _has_gradient(scorer: Scorer, images: Float[Tensor, "b 3 h w"]) -> bool:
    images = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(scorer(images).sum(), images)
    except Exception:  # Through numpy, through a detached tensor or an integer: no gradient, whatever it is called.
        return False
    return bool(gradient.isfinite().all() and (gradient.flatten(1).abs().amax(dim=1) > 0).all())
