"""A user's own metric: any callable from images to scores as a Scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import Scorer, ScorerCard
from resolute.models.probe import probe
from resolute.models.weights import weights_sha256


@final
class FunctionScorer(Scorer):
    """A callable as a metric; made by ``as_scorer``, which probes it."""

    def __init__(self, function: Callable[[Tensor], Tensor], card: ScorerCard, *, single: bool) -> None:
        super().__init__()
        # A module among the attributes is a submodule: its weights follow .to() and are frozen by attacks.
        self.function = function
        self.name, self.single = card.name, single
        self.declare(card)

    def arguments(self) -> dict[str, object]:
        return {"class": "FunctionScorer", "name": self.name, "single": self.single}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        self.require_size(x)
        if self.single:
            scores = torch.stack([torch.as_tensor(self.function(image)).reshape(()) for image in x])
        else:
            scores = self.function(x)
            if scores.ndim > 1 and scores.shape == (len(x), *[1] * (scores.ndim - 1)):
                scores = scores.flatten()
        if self.low is not None or self.high is not None:
            scores = scores.clamp(self.low, self.high)
        return scores


def as_scorer(
    function: Callable[[Tensor], Tensor],
    name: str,
    *,
    low: float | None = None,
    high: float | None = None,
    lower_better: bool = False,
    single: bool = False,
    size_rule: str = "any",
    smallest: int = 1,
    licence: str = "unknown",
) -> Scorer:
    """Wrap a callable as a metric, probe it, and give it a card.

    The callable gets RGB float in [0, 1], ``(b, 3, h, w)``, and returns ``(b,)`` or ``(b, 1)``.

    Args:
        function: the callable; a module's weights become part of the metric.
        name: what the metric is called in tables and records.
        low: the least score, None for no bound. Scores are clamped to it, which proves it.
        high: the greatest score, likewise.
        lower_better: True where a lower score means better quality.
        single: the callable takes one image, ``(3, h, w)``, and returns one number.
        size_rule: what the callable does to the size of its input, in words.
        smallest: least side of an image that it can score, in pixels.
        licence: terms under which it may be used.

    Raises:
        ConfigError: the callable fails on sample images, or returns something else than one finite score an image.
        ValueError: ``low`` is not below ``high``.

    Example:
        >>> metric = as_scorer(lambda x: x.std(dim=(1, 2, 3)), "contrast", low=0.0, high=1.0)
        >>> metric(torch.zeros(2, 3, 8, 8))
        tensor([0., 0.])
        >>> metric.card.batch_invariant
        True
    """
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low is below high, not {low} and {high}")
    state = function.state_dict() if isinstance(function, nn.Module) else {}
    card = ScorerCard(
        name=name, architecture={}, low=low, high=high, lower_better=lower_better, size_rule=size_rule,
        smallest=smallest, licence=licence, sha256=weights_sha256(state) if state else "",
    )  # fmt: skip
    scorer = FunctionScorer(function, card, single=single).eval()
    scorer.card = probe(scorer, dataclasses.replace(card, architecture=scorer.arguments()))
    return scorer
