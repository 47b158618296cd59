"""What is smoothed of an output besides its pixels: a region's mean, the output shrunk, a score of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from resolute.models.base import Scorer
from resolute.resize import downscale_tensor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Statistic:
    """A measurement of an output, of one value or of many; smoothed directly, its bounds are tighter than the pixels'.

    Attributes:
        name: in words and tables.
        measure: outputs ``(b, 3, h, w)`` in [0, 1] to values ``(b, ...)``.
        low, high: what no value leaves.
    """

    name: str
    measure: Callable[[Float[Tensor, "b 3 h w"]], Tensor]
    low: float = -math.inf
    high: float = math.inf


def region_mean(x: int, y: int, width: int, height: int) -> Statistic:
    """Return the mean of a region of the output over its pixels and channels, in pixels of the output.

    Raises:
        ValueError: the region is empty or begins outside.

    Example:
        >>> import torch
        >>> region_mean(0, 0, 2, 1).measure(torch.eye(2).expand(1, 3, 2, 2)).item()
        0.5
    """
    if min(x, y) < 0 or min(width, height) < 1:
        raise ValueError(f"a region is X,Y,W,H with X and Y from 0 and W and H from 1, not {x},{y},{width},{height}")
    return Statistic(
        name=f"mean of {x},{y},{width},{height}",
        measure=functools.partial(_mean, x, y, width, height),
        low=0.0,
        high=1.0,
    )


def downscaled(scale: int) -> Statistic:
    """Return the output shrunk by a factor with MATLAB's bicubic weights, clipped to [0, 1]: what it means in large."""
    return Statistic(name=f"shrunk by {scale}", measure=functools.partial(_shrunk, scale), low=0.0, high=1.0)


def score_of(scorer: Scorer) -> Statistic:
    """Return a quality score of the output; the metric is to be in evaluation mode."""
    name = type(scorer).__name__ if scorer.card is None else scorer.card.name
    low = -math.inf if scorer.low is None else scorer.low
    high = math.inf if scorer.high is None else scorer.high
    return Statistic(name=f"score by {name}", measure=scorer, low=low, high=high)


# At the level of the module, so that statistics can be sent to other processes.


def _mean(x: int, y: int, width: int, height: int, outputs: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    if y + height > outputs.shape[2] or x + width > outputs.shape[3]:
        size = f"{outputs.shape[3]} x {outputs.shape[2]}"
        raise ValueError(f"the region {x},{y},{width},{height} leaves the output of {size} pixels")
    return outputs[:, :, y : y + height, x : x + width].mean(dim=(1, 2, 3))


def _shrunk(scale: int, outputs: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h1 w1"]:
    return downscale_tensor(outputs, scale).clamp(0, 1)
