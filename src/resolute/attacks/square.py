"""Square attack (Andriushchenko et al., ECCV 2020): a random search that sees outputs and no gradients."""

from __future__ import annotations

import dataclasses
import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Attack, Best, Problem
from resolute.attacks.ball import Ball, Images, Linf
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count, Share
from resolute.randomness import generator_for

# When the share of changed pixels is halved, as parts of the budget of queries (section 4.2 of the paper).
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Set random squares to the border of the l-infinity ball, and keep what raises the objective.

    Written for classifiers, whose margin it lowers; here it raises any objective. A model that stands up to gradients
    and falls to this one hides its gradients.

    Args:
        queries: runs of the model on each image.
        share: of the pixels that the first square covers; it shrinks as the queries run out.

    Example:
        >>> from resolute.models import Bicubic
        >>> found = Square(epsilon=4 / 255, queries=20)(Bicubic(2), torch.full((1, 3, 6, 6), 0.5))
        >>> found.gradients, bool((found.images - 0.5).abs().max() <= 4.001 / 255)
        (20, True)
    """

    queries: Count = 5000
    share: Share = 0.2
    objective: Objective = OutputShift()

    def aim(self) -> tuple[Objective, Ball]:
        return self.objective, Linf(self.epsilon)

    def search(self, task: Problem) -> tuple[Images, int]:
        clean = task.clean
        channels, height, width = clean.shape[1:]
        # One stream for all images, so that none depends on its place in a batch.
        generator = generator_for(task.seed, "square")
        best = Best(clean)
        with torch.no_grad():
            stripes = self.epsilon * _signs(channels, width, generator).to(clean)
            shift = stripes.expand_as(clean).clone()
            for query in range(self.queries):
                proposed = shift
                if query > 0:
                    side = self._side(query, height, width)
                    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in (height, width))
                    proposed = shift.clone()
                    colour = self.epsilon * _signs(channels, 1, generator).to(clean)
                    proposed[..., top : top + side, left : left + side] = colour
                x = task.ball.project(clean + proposed, clean)
                value = task.bound(x)
                better = best.update(x, value)
                shift = torch.where(better.view(-1, 1, 1, 1), proposed, shift)
                task.report(query + 1, self.queries)
        return best.images, self.queries

    def _side(self, query: int, height: int, width: int) -> int:
        halved = sum(query >= part * self.queries for part in _HALVINGS)
        return max(1, min(round(math.sqrt(self.share / 2**halved * height * width)), height, width))


def _signs(channels: int, width: int, generator: torch.Generator) -> Float[Tensor, "c 1 w"]:
    return torch.randint(0, 2, (channels, 1, width), generator=generator) * 2.0 - 1.0
