"""DMS-IQA: the loss that trains a denoiser to stand before a quality metric (Shumitskaya et al., CVIU 2025).

``L = L_MSE + lam_t * L_target + lam_r * L_rank``, where the metric M scores the denoised image r_i = M(D(z_i)) and the
clean one s_i = M(x_i), both scaled to [0, 1] and higher for better. The denoiser learns to keep the score where it was
and the order of the images right, not only their pixels. The paper's text leaves the terms open; they are defined here
after the code and the follow-up work of its authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.errors import ConfigError
from resolute.models.base import Scorer, frozen


class Losses(NamedTuple):
    """The three terms of a batch, unweighted."""

    mse: Float[Tensor, ""]
    target: Float[Tensor, ""]
    rank: Float[Tensor, ""]


def dms_iqa_losses(
    metric: Scorer,
    denoised: Float[Tensor, "b 3 h w"],
    clean: Float[Tensor, "b 3 h w"],
    order: Float[Tensor, " b"] | None = None,
    both: bool = False,
) -> Losses:
    """Return the three terms of a batch; gradients flow through the metric to ``denoised`` and not to the metric.

    Args:
        metric: runs in evaluation mode and comes back as it was.
        denoised: the denoiser's output, in [0, 1].
        clean: what it should be.
        order: human scores to rank by, higher for better; by default the metric's scores of the clean images.
        both: rank by those scores of the metric too: the mean of both terms.

    Raises:
        ConfigError: the metric has no finite range.
    """
    with frozen(metric):
        scores = scaled_scores(metric, denoised)
        with torch.no_grad():
            targets = scaled_scores(metric, clean)
    orders = [targets] if order is None else [order, targets] if both else [order]
    return Losses(
        mse=F.mse_loss(denoised, clean),
        target=target_loss(scores, targets),
        rank=torch.stack([rank_loss(scores, each) for each in orders]).mean(),
    )


def target_loss(scores: Float[Tensor, " b"], targets: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return ``mean |r_i - s_i|``.

    Example:
        >>> target_loss(torch.tensor([0.5, 0.25]), torch.tensor([0.25, 0.25])).item()
        0.125
    """
    return (scores - targets).abs().mean()


def rank_loss(scores: Float[Tensor, " b"], order: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return how wrong the order of ``scores`` is: 0 exactly where no pair is the other way round than in ``order``.

    ``1/B**2 * sum_ij w_ij / (1 + max_ij w_ij)`` with ``w_ij = max(0, (r_i - r_j) * sign(s_j - s_i))``, the monotonicity
    loss of LinearityIQA (Li et al., ACM Multimedia 2020).

    Example:
        >>> rank_loss(torch.tensor([0.1, 0.2]), torch.tensor([10.0, 30.0])).item()
        0.0
        >>> rank_loss(torch.tensor([1.0, 0.0]), torch.tensor([10.0, 30.0])).item()
        0.25
    """
    wrong = F.relu((scores[:, None] - scores[None, :]) * (order[None, :] - order[:, None]).sign().to(scores))
    return wrong.mean() / (1 + wrong.max())


class LossBalance(nn.Module):
    """A weighted sum that keeps every term as large as the first, however large each happens to be.

    The weight of a term is ``factor * average(first term) / average(term)``, the averages exponential ones over the
    steps so far: weights inverse to the average of the loss, as in the authors' later code, here with that of the first
    term at its factor, so that a learning rate means the same with any choice of terms.

    Args:
        factors: of each term, on top of that; 0 switches a term off.
        momentum: of the averages.
        floor: a term whose average is below this counts as solved and is not raised further.

    Example:
        >>> balance = LossBalance((1.0, 0.5))
        >>> round(balance((torch.tensor(0.01), torch.tensor(3.0))).item(), 6)
        0.015
    """

    sums: Tensor
    total: Tensor

    def __init__(self, factors: Sequence[float], momentum: float = 0.99, floor: float = 1e-4) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self.momentum = momentum
        self.floor = floor
        self.register_buffer("sums", torch.zeros(len(self.factors), dtype=torch.float64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    def forward(self, losses: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Take the losses into the averages, in training mode, and return their weighted sum."""
        if self.training:
            values = torch.stack([loss.detach().to(self.sums) for loss in losses])
            self.sums.lerp_(values, 1 - self.momentum)
            self.total.lerp_(torch.ones_like(self.total), 1 - self.momentum)
        weights = self.weights()
        terms = zip(weights, losses, self.factors, strict=True)
        return torch.stack([weight.to(loss) * loss for weight, loss, factor in terms if factor > 0]).sum()

    def weights(self) -> Float[Tensor, " n"]:
        """Return the present weight of each term."""
        averages = (self.sums / self.total.clamp(min=torch.finfo(torch.float64).tiny)).clamp(min=self.floor)
        return torch.tensor(self.factors).to(averages) * averages[0] / averages


def scaled_scores(metric: Scorer, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Return the scores on the scale of [0, 1], higher for better whatever the metric says.

    Raises:
        ConfigError: the metric has neither a proven nor a usual range.
    """
    return scaled(metric(x), metric)


def scaled(scores: Float[Tensor, " b"], metric: Scorer) -> Float[Tensor, " b"]:
    """Return scores that a metric gave on the scale of [0, 1], higher for better whatever the metric says.

    Raises:
        ConfigError: the metric has neither a proven nor a usual range.
    """
    low, high = score_range(metric)
    shares = (scores - low) / (high - low)
    return 1 - shares if metric.lower_better else shares


def score_range(metric: Scorer) -> tuple[float, float]:
    """Return the range of a metric's scores: the proven one, or else the usual one.

    Raises:
        ConfigError: it has neither.
    """
    if metric.low is not None and metric.high is not None:
        return metric.low, metric.high
    if metric.usual is None:
        raise ConfigError("the metric has no range to scale its scores by; declare `usual`, the range they span")
    return metric.usual
