"""What an attacker climbs who knows of the audit: a higher score whose gap is not flagged."""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.objective import Bound, Images
from resolute.attacks.score import noisy_scores
from resolute.certificates.gap import Screening
from resolute.errors import ConfigError
from resolute.models.base import Scorer
from resolute.models.fitted import resized, size_within
from resolute.randomness import generator_for


@final
@dataclasses.dataclass(frozen=True)
class Unflagged:
    """The metric's score, less twice what its gap has above the one that is flagged.

    Below that gap the score alone is climbed, above it the defended score, which closes the gap; JPEG passes for the
    identity backwards, and a score behind noise is a mean over fresh noise at every step.

    Args:
        screening: of the audit.
        threshold: largest gap that is not flagged, which the attacker knows.
        sign: 1 where a higher score is better, -1 where a lower one is.
        draws: noisy copies at each step, where the defence is noise.
        seed: of that noise, which is not the defender's.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import as_scorer
        >>> sharpness = as_scorer(lambda x: x.diff(dim=-1).abs().mean(dim=(1, 2, 3)), name="sharpness")
        >>> x = torch.linspace(0.2, 0.8, 256).view(1, 1, 16, 16).expand(1, 3, -1, -1)
        >>> evade = PGD(epsilon=4 / 255, steps=3, objective=Unflagged(Screening("blur-3"), 0.1))
        >>> bool(sharpness(evade(sharpness, x).images) > sharpness(x))
        True
    """

    screening: Screening
    threshold: float
    sign: Literal[1, -1] = 1
    draws: int = 8
    seed: int = 1

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        if not isinstance(model, Scorer):
            raise ConfigError(f"an audit is of a quality metric, not of {type(model).__name__}")
        alone, behind, sigma = self.screening.alone(model), self.screening.defended(model), self.screening.sigma
        generator = generator_for(self.seed, "unflagged")

        def defended(x: Images) -> Float[Tensor, " b"]:
            if sigma is None:
                return behind(x)
            size = size_within(x, self.screening.fit)
            x = x if size is None else resized(x, size)
            noise = torch.randn((len(x), self.draws, *x.shape[1:]), generator=generator)
            return noisy_scores(model, x, sigma, noise.to(x)).mean(dim=1)

        def value(x: Images) -> Float[Tensor, " b"]:
            score, kept = self.sign * alone(x).float(), self.sign * defended(x).float()
            return score - 2 * (score - kept - self.threshold).clamp_min(0)

        return value
