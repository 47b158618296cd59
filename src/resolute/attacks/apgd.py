"""APGD: projected gradient descent that chooses its own steps (Croce & Hein, ICML 2020)."""

from __future__ import annotations

import dataclasses
import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Ascent, GradientAttack, Move, Start
from resolute.attacks.ball import Images, Norm, ball_of
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which APGD reviews its progress: ``w_j = ceil(p_j steps)`` of section 3.1.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    before, share = 0.0, 0.22
    found: list[int] = []
    while share < 1:
        # In binary the sums of the paper's decimals end a hair above or below their product with the steps.
        found.append(math.ceil(round(share * steps, 9)))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return sorted(set(found))


@final
@dataclasses.dataclass(frozen=True)
class AutoStep:
    """The step rule of APGD (algorithm 1), image by image.

    A step is ``x + momentum * (z - x) + (1 - momentum) * (x - x_before)``, with ``z`` the plain projected step. At a
    checkpoint the length of the step is halved, and the run goes on from its best point, where fewer than ``rising`` of
    the last steps went up, or where neither the length nor the best value has changed since the checkpoint before.
    """

    momentum: float = 0.75
    rising: float = 0.75

    def begin(self, plan: Ascent, clean: Images) -> Move:
        return _AutoRun(self, plan, clean).move


@final
class _AutoRun:
    """What one run of APGD remembers of every image."""

    def __init__(self, rule: AutoStep, plan: Ascent, clean: Images) -> None:
        self.rule, self.ball, self.clean = rule, plan.ball, clean
        self.reviews = checkpoints(plan.steps)
        self.reviewed = 0
        self.taken = 0
        count = clean.shape[0]
        self.length = clean.new_zeros(count) + plan.step_size
        self.rises = torch.zeros(count, device=clean.device)
        self.before = self.best = self.best_gradient = clean
        self.last_value = self.best_value = self.reviewed_best = torch.full((count,), -torch.inf, device=clean.device)
        self.halved = torch.zeros(count, dtype=torch.bool, device=clean.device)

    def move(self, x: Images, value: Float[Tensor, " b"], gradient: Images) -> Images:
        if self.taken == 0:
            self.best, self.best_gradient, self.best_value = x, gradient, value
            # The paper compares with the value at the start, and takes the first step whole.
            self.last_value = self.reviewed_best = value
            following = self.ball.project(self.ball.ascend(x, gradient, self.length), self.clean)
        else:
            self._remember(x, value, gradient)
            if self.taken in self.reviews:
                x, gradient = self._review(x, gradient)
            z = self.ball.project(self.ball.ascend(x, gradient, self.length), self.clean)
            share = self.rule.momentum
            following = self.ball.project(x + share * (z - x) + (1 - share) * (x - self.before), self.clean)
        self.before = x
        self.taken += 1
        return following

    def _remember(self, x: Images, value: Float[Tensor, " b"], gradient: Images) -> None:
        self.rises += value > self.last_value
        self.last_value = value
        better = value > self.best_value
        self.best = _choose(better, x, self.best)
        self.best_gradient = _choose(better, gradient, self.best_gradient)
        self.best_value = torch.where(better, value, self.best_value)

    def _review(self, x: Images, gradient: Images) -> tuple[Images, Images]:
        rarely = self.rises < self.rule.rising * (self.taken - self.reviewed)
        stuck = ~self.halved & (self.best_value <= self.reviewed_best)
        self.halved = rarely | stuck
        self.length = torch.where(self.halved, self.length / 2, self.length)
        self.rises.zero_()
        self.reviewed, self.reviewed_best = self.taken, self.best_value
        self.last_value = torch.where(self.halved, self.best_value, self.last_value)
        return _choose(self.halved, self.best, x), _choose(self.halved, self.best_gradient, gradient)


def _choose(where: Tensor, a: Images, b: Images) -> Images:
    return torch.where(where.view(-1, 1, 1, 1), a, b)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD (Croce & Hein, ICML 2020): PGD with momentum whose steps begin at ``2 epsilon`` and halve by progress.

    It has no step size to tune, which is what makes it a fair judge between defences.

    Args:
        steps: gradient steps a restart.
        restarts: independent random starts; the best is kept for every image.
        norm: of ``epsilon``, as for ``PGD``.

    Example:
        >>> APGD(epsilon=4 / 255).ascent().rule
        AutoStep(momentum=0.75, rising=0.75)
    """

    steps: Count = 50
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "uniform"
    norm: Norm = "linf"

    def ascent(self) -> Ascent:
        return Ascent(
            objective=self.objective, ball=ball_of(self.norm, self.epsilon), steps=self.steps,
            step_size=2 * self.epsilon, start=self.start, restarts=self.restarts, rule=AutoStep(),
        )  # fmt: skip
