"""From feature maps to a score in a proven range: what the learned quality metrics share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def mean_and_std(
    maps: Float[Tensor, "b c h w"], floor: float = 1e-4
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Return the mean and the standard deviation of every channel of every image, in float32 at least.

    ``floor`` is added to the variance, so that the root and its logarithm have a finite gradient on a flat image.

    Example:
        >>> mean, std = mean_and_std(torch.ones(2, 3, 4, 4))
        >>> mean.shape, std.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    values = maps.to(torch.promote_types(maps.dtype, torch.float32))
    # In two passes, which is several times as fast as torch.var_mean on maps in channels_last order.
    mean = values.mean(dim=(2, 3), keepdim=True)
    variance = (values - mean).square().mean(dim=(2, 3))
    return mean.flatten(1), (variance + floor).sqrt()


@final
class ScoreHead(nn.Module):
    """A perceptron from pooled features to a score that cannot leave [low, high]: ``low + (high - low) * sigmoid(z)``.

    It runs in float32 whatever the autocast of the network before it: bfloat16 resolves a score of 70 to 0.5.

    Args:
        features: length of the input.
        hidden: units between; 0 for a linear head.
        low, high: the range, kept with the weights.

    Example:
        >>> ScoreHead(8, hidden=4)(torch.full((2, 8), 1e9)).shape
        torch.Size([2])
    """

    range: Tensor

    def __init__(self, features: int, hidden: int, low: float = 0.0, high: float = 100.0) -> None:
        if not low < high:
            raise ValueError(f"low is below high, not {low} and {high}")
        super().__init__()
        self.register_buffer("range", torch.tensor([low, high], dtype=torch.float32))
        self.norm = nn.LayerNorm(features)
        self.hidden = nn.Sequential(nn.Linear(features, hidden), nn.GELU()) if hidden else nn.Sequential()
        self.score = nn.Linear(hidden or features, 1)

    def forward(self, pooled: Float[Tensor, "b f"]) -> Float[Tensor, " b"]:
        with torch.autocast(pooled.device.type, enabled=False):
            share = torch.sigmoid(self.score(self.hidden(self.norm(pooled))).squeeze(1))
            low, high = self.range.unbind()
            # Clamped because the last rounding could step over the end.
            return (low + (high - low) * share).clamp(low, high)


def read_head(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the ``ScoreHead`` that a metric calls ``head``: hidden units, and ends of the range."""
    low, high = state["head.range"].tolist()
    first = state.get("head.hidden.0.weight")
    return {"hidden": 0 if first is None else len(first), "low": low, "high": high}


@torch.no_grad()
def fit_linear(head: ScoreHead, features: Float[Tensor, "n f"], scores: Float[Tensor, " n"], penalty: float) -> None:
    """Set a linear head by ridge regression of the scores' logits on standardised features.

    Args:
        head: with no hidden units.
        features: of so many images.
        scores: of the same images, on the head's range; those at its ends count as one per mille inside.
        penalty: on the squared weights of the standardised features, against a sum of squared errors.

    Raises:
        ValueError: the head is no linear one.

    Example:
        >>> head, features = ScoreHead(8, hidden=0), torch.rand(50, 8)
        >>> fit_linear(head, features, 20 + 40 * features[:, 0], penalty=0.1)
        >>> bool((head(features) - 20 - 40 * features[:, 0]).abs().mean() < 5)
        True
    """
    if len(head.hidden):
        raise ValueError("ridge regression fits a linear head, and this one has hidden units")
    low, high = head.range.double().unbind()
    logits = torch.logit(((scores.double() - low) / (high - low)).clamp(1e-3, 1 - 1e-3))
    seen = F.layer_norm(features.double(), features.shape[1:], eps=head.norm.eps)
    mean, std = seen.mean(dim=0), seen.std(dim=0) + 1e-6
    seen = (seen - mean) / std
    # By the kernel: there are fewer images than features.
    kernel = seen @ seen.T + penalty * torch.eye(len(seen), dtype=seen.dtype, device=seen.device)
    weights = seen.T @ torch.linalg.solve(kernel, logits - logits.mean())
    # The norm's own gain standardises, so that in training all weights of the head are of one size.
    head.norm.weight.copy_(1 / std)
    head.norm.bias.copy_(-mean / std)
    head.score.weight.copy_(weights[None])
    head.score.bias.fill_(logits.mean())
