"""Attacks on the output: FGSM, I-FGSM and PGD, one objective under three step rules."""

from __future__ import annotations

import dataclasses
from typing import Annotated, final

import pydantic

from resolute.attacks.ascent import Ascent, GradientAttack, Start
from resolute.attacks.ball import Linf, Norm, ball_of
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015): one step to the border of the l-infinity ball.

    It starts within 1e-3/255 of the clean image, where the objective of eq. 14 has a gradient at all.

    Example:
        >>> FGSM(epsilon=4 / 255).ascent().steps
        1
    """

    objective: Objective = OutputShift()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return Ascent(
            objective=self.objective, ball=Linf(self.epsilon), steps=1, step_size=self.epsilon, start=self.start
        )


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class IFGSM(GradientAttack):
    """Iterative FGSM for super-resolution (eq. 14; Choi et al., ICCV 2019): T steps of ``epsilon / T``.

    The whole path is only as long as the radius, so it starts within 1e-3/255 of the clean image: from a random point
    of the ball it could not reach the far side and would be weaker.

    Args:
        steps: T, 50 in the paper.

    Example:
        >>> import torch
        >>> from resolute.models import EDSR
        >>> x = torch.rand(1, 3, 8, 8)
        >>> found = IFGSM(epsilon=4 / 255, steps=3)(EDSR(scale=2, blocks=1, channels=4), x)
        >>> bool((found.images - x).abs().max() <= 4.001 / 255)
        True
    """

    steps: Count = 50
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return Ascent(
            objective=self.objective,
            ball=Linf(self.epsilon),
            steps=self.steps,
            step_size=self.epsilon / self.steps,
            start=self.start,
            restarts=self.restarts,
        )


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent (Madry et al., ICLR 2018): longer steps from random points of the ball.

    Args:
        steps: gradient steps a restart.
        relative_step: step as a share of ``epsilon``.
        restarts: independent random starts; the best is kept for every image.
        norm: of ``epsilon``, the l-infinity norm or the l2 norm over all pixels and channels.

    Example:
        >>> round(PGD(epsilon=4 / 255).ascent().step_size * 255, 3)
        0.4
    """

    steps: Count = 50
    relative_step: Annotated[float, pydantic.Field(gt=0, le=2)] = 0.1
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "uniform"
    norm: Norm = "linf"

    def ascent(self) -> Ascent:
        return Ascent(
            objective=self.objective,
            ball=ball_of(self.norm, self.epsilon),
            steps=self.steps,
            step_size=self.relative_step * self.epsilon,
            start=self.start,
            restarts=self.restarts,
        )
