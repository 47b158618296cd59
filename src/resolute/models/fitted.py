"""Images shrunk for a metric: to which size, by how much that lengthens a change of them, and a metric that does it."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.models.base import Scorer


def size_within(images: Float[Tensor, "*b 3 h w"], longest: int) -> tuple[int, int] | None:
    """Return the (height, width) at which the longer side is so long; None where it is not longer, or 0.

    Example:
        >>> size_within(torch.zeros(3, 400, 600), 300), size_within(torch.zeros(3, 400, 600), 0)
        ((200, 300), None)
    """
    height, width = images.shape[-2:]
    if not longest or max(height, width) <= longest:
        return None
    shrink = longest / max(height, width)
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def resized(images: Float[Tensor, "b 3 h w"], size: tuple[int, int]) -> Float[Tensor, "b 3 new_h new_w"]:
    """Return images in [0, 1] of another (height, width), by antialiased bicubic interpolation, clipped.

    Example:
        >>> resized(torch.rand(1, 3, 8, 8), (4, 6)).shape
        torch.Size([1, 3, 4, 6])
    """
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def resizing_norm(size: tuple[int, int], new: tuple[int, int]) -> float:
    """Return by how much resizing from one (height, width) to another lengthens a change of an image at most.

    Resizing is linear along both sides, and its operator norm the product of theirs; clipping to [0, 1] afterwards
    lengthens nothing.

    Example:
        >>> round(resizing_norm((500, 500), (384, 384)), 3), resizing_norm((8, 8), (8, 8))
        (0.769, 1.0)
    """
    return _side_norm(size[0], new[0]) * _side_norm(size[1], new[1])


@functools.lru_cache(maxsize=64)
def _side_norm(length: int, new: int) -> float:
    if length == new:
        return 1.0
    # Columns of pixels, each with a light in another place: what comes out is the matrix of the map.
    lights = torch.eye(length, dtype=torch.float64)[None, None]
    matrix = F.interpolate(lights, (new, length), mode="bicubic", antialias=True)[0, 0].numpy()
    gram = matrix @ matrix.T if new < length else matrix.T @ matrix
    # One part in a million more than computed, which no rounding of the largest eigenvalue reaches.
    return math.sqrt(float(np.linalg.eigvalsh(gram)[-1])) * (1 + 1e-6)


@final
class FittedScorer(Scorer):
    """A metric that shrinks what it gets until the longer side has so many pixels: noise and radius stay the file's.

    Where noise is exact on the 8-bit grid this is the way to shrink, since what was shrunk is on no grid.

    Args:
        scorer: the metric.
        longest: side in pixels; smaller images stay as they are.

    Example:
        >>> from resolute.models import as_scorer
        >>> width = as_scorer(lambda x: torch.full((len(x),), float(x.shape[-1])), name="width", low=0.0, high=1e4)
        >>> FittedScorer(width, 24)(torch.rand(1, 3, 32, 48))
        tensor([24.])
    """

    def __init__(self, scorer: Scorer, longest: int) -> None:
        super().__init__()
        self.scorer = scorer
        self.longest = longest
        self.declare(scorer)
        self.independent = scorer.independent
        self.size_rule = f"shrunk to {longest} pixels a side, then {scorer.size_rule}"
        if scorer.card is not None:
            self.card = dataclasses.replace(scorer.card, size_rule=self.size_rule, architecture=self.arguments())

    def arguments(self) -> dict[str, object]:
        return {"class": "FittedScorer", "scorer": self.scorer.arguments(), "longest": self.longest}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        size = size_within(x, self.longest)
        return self.scorer(x if size is None else resized(x, size))
