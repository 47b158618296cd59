"""A quality metric as a training loss, bare or behind its defence ("IP training" in Shumitskaya et al., CVIU 2025)."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.certificates.median import DenoisedScorer, ExpectedScore
from resolute.defences.dms_iqa import scaled, score_range
from resolute.errors import ConfigError
from resolute.models.base import Restorer, Scorer, frozen
from resolute.models.registry import load
from resolute.randomness import generator_for
from resolute.training.denoise_recipe import RewardTable


@final
class Reward:
    """What a restored image earns: the score of a metric, of its mean under noise, or of that behind a denoiser.

    Args:
        table: what the recipe says.
        metric: the metric; it and the denoiser are never trained.
        denoiser: weights of the denoiser, where they are not what ``table.denoiser`` names.

    Attributes:
        scorer: what is climbed.
        denoiser: between noise and metric, or None.

    Raises:
        ConfigError: the metric has no range to scale its scores by; a denoiser without noise to remove.
        CheckpointError: the denoiser cannot be loaded.

    Example:
        >>> from resolute.models import as_scorer
        >>> brightness = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="brightness", low=0.0, high=2.0)
        >>> reward = Reward(RewardTable(weight=1.0), brightness)
        >>> reward.loss(torch.full((2, 3, 8, 8), 0.5)).item()
        0.75
    """

    def __init__(self, table: RewardTable, metric: Scorer, denoiser: Path | None = None) -> None:
        score_range(metric)
        if table.denoiser and not table.defended:
            raise ConfigError("reward.denoiser removes the noise of reward.sigma, which is 0: set it, or name none")
        self.table = table
        self.denoiser: Restorer | None = None
        self.scorer: Scorer = metric
        if table.denoiser:
            self.denoiser = load(denoiser or table.denoiser, scale=1)
            self.denoiser.requires_grad_(False)
            self.scorer = DenoisedScorer(metric, self.denoiser)
        if table.defended:
            self.scorer = ExpectedScore(self.scorer, table.sigma, table.draws)

    def noise(self, shape: tuple[int, ...], seed: int, step: int) -> Float[Tensor, "b n c h w"]:
        """Return the draws of a step for images of ``shape``, ``(b, c, h, w)``: fresh ones, of (seed, step) alone."""
        drawn = (shape[0], self.table.draws, *shape[1:])
        return torch.randn(drawn, generator=generator_for(seed, "reward", step))

    def loss(
        self, restored: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b n 3 h w"] | None = None
    ) -> Float[Tensor, ""]:
        """Return ``mean (1 - m)``; gradients flow to ``restored`` and to nothing else.

        Args:
            restored: in [0, 1].
            noise: draws of standard deviation 1; by default those that ``ExpectedScore`` always takes.
        """
        with frozen(self.scorer):
            if noise is not None and isinstance(self.scorer, ExpectedScore):
                scores = self.scorer.under(restored, noise)
            else:
                scores = self.scorer(restored)
        return 1 - scaled(scores, self.scorer).mean()
