"""Random noise: the floor under every attack, which anything that deserves the name must beat."""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import torch

from resolute.attacks.ascent import Attack, Best, Problem
from resolute.attacks.ball import Ball, Images, Norm, ball_of
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count
from resolute.randomness import generator_for


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomNoise(Attack):
    """The worst of many random perturbations; the model is only run, never differentiated.

    Args:
        draws: perturbations tried.
        shape: ``uniform`` in the ball; ``signs``, every value at the border, up or down by the toss of a coin; or
            ``both`` by turns.
        norm: of ``epsilon``, as for ``PGD``.

    Example:
        >>> from resolute.models import Bicubic
        >>> found = RandomNoise(epsilon=4 / 255, draws=3)(Bicubic(2), torch.full((1, 3, 5, 5), 0.5))
        >>> found.gradients, bool(found.objective > 0)
        (3, True)
    """

    draws: Count = 100
    shape: Literal["both", "uniform", "signs"] = "both"
    norm: Norm = "linf"
    objective: Objective = OutputShift()

    def aim(self) -> tuple[Objective, Ball]:
        return self.objective, ball_of(self.norm, self.epsilon)

    def search(self, task: Problem) -> tuple[Images, int]:
        best = Best(task.clean)
        # A stream a draw, the same for all images, so that none depends on its place in a batch.
        with torch.no_grad():
            for draw in range(self.draws):
                generator = generator_for(task.seed, "noise", draw)
                if self.shape == "signs" or (self.shape == "both" and draw % 2 == 1):
                    coins = torch.randint(0, 2, task.clean.shape[1:], generator=generator) * 2 - 1
                    x = task.ball.ascend(task.clean, coins.to(task.clean).expand_as(task.clean), self.epsilon)
                else:
                    x = task.clean + task.ball.random(torch.zeros_like(task.clean[:1]), generator, self.epsilon)
                x = task.ball.project(x, task.clean)
                value = task.bound(x)
                best.update(x, value)
                task.report(draw + 1, self.draws)
        return best.images, self.draws
