"""Attacks by gradients: FGSM, I-FGSM, MI-FGSM and PGD on the output, FDA on the features."""

from __future__ import annotations

import dataclasses
from typing import Annotated, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import Ascent, GradientAttack, Move, Start, StepRule, Straight
from resolute.attacks.ball import Images, Linf, Norm, ball_of
from resolute.attacks.objective import FeatureDisruption, Objective, OutputShift
from resolute.attacks.options import Count
from resolute.errors import ConfigError


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
        ball = Linf(self.epsilon)
        return Ascent(objective=self.objective, ball=ball, steps=1, step_size=self.epsilon, start=self.start)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class IFGSM(GradientAttack):
    """Iterative FGSM for super-resolution (eq. 14; Choi et al., ICCV 2019): T steps of ``epsilon / T``.

    The whole path is only as long as the radius, so it starts within 1e-3/255 of the clean image: from a random point
    of the ball it could not reach the far side and would be weaker.

    Args:
        steps: T, 50 in the paper.

    Example:
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
        return _iterated(self, Straight())


@final
@dataclasses.dataclass(frozen=True)
class Momentum:
    """Steps along ``g``, where ``g <- decay * g + gradient / ||gradient||_1`` (eqs 6 and 7 of the paper)."""

    decay: float

    def begin(self, plan: Ascent, clean: Images) -> Move:
        carried = torch.zeros_like(clean)

        def move(x: Images, value: Float[Tensor, " b"], gradient: Images) -> Images:
            size = gradient.abs().flatten(1).sum(dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
            carried.mul_(self.decay).add_(gradient / size)
            return plan.ball.project(plan.ball.ascend(x, carried, plan.step_size), clean)

        return move


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Momentum iterative FGSM (Dong et al., CVPR 2018): T steps of ``epsilon / T`` along an average of gradients.

    Args:
        steps: T.
        decay: share of the past that is kept; 1 in the paper, and 0 is I-FGSM.

    Example:
        >>> MIFGSM(epsilon=4 / 255).ascent().rule
        Momentum(decay=1.0)
    """

    steps: Count = 50
    decay: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 1.0
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return _iterated(self, Momentum(self.decay))


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FDA(GradientAttack):
    """Feature disruptive attack (eq. 13; Ganeshan et al., ICCV 2019): T steps of ``epsilon / T`` on features alone.

    Args:
        steps: T, 50 in the paper.
        objective: the disruption of the model's feature layer; ``FeatureDisruption(layers=(...))`` for others.

    Example:
        >>> FDA(epsilon=4 / 255, objective=FeatureDisruption(layers=("head", "body"))).steps
        50
    """

    steps: Count = 50
    restarts: Count = 1
    objective: Objective = FeatureDisruption()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return _iterated(self, Straight())


def _iterated(attack: IFGSM | MIFGSM | FDA, rule: StepRule) -> Ascent:
    return Ascent(
        objective=attack.objective, ball=Linf(attack.epsilon), steps=attack.steps,
        step_size=attack.epsilon / attack.steps, start=attack.start, restarts=attack.restarts, rule=rule,
    )  # fmt: skip


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
            objective=self.objective, ball=ball_of(self.norm, self.epsilon), steps=self.steps,
            step_size=self.relative_step * self.epsilon, start=self.start, restarts=self.restarts,
        )  # fmt: skip


def has_gradient(model: nn.Module, x: Images) -> bool:
    """Return whether a gradient reaches images through a model; a session of ONNX has none.

    Example:
        >>> from resolute.models import Bicubic
        >>> has_gradient(Bicubic(2), torch.rand(1, 3, 8, 8))
        True
    """
    corner = x[..., :16, :16].clone().requires_grad_()
    try:
        output = model(corner)
        # The square alone is flat where an output is black.
        (gradient,) = torch.autograd.grad((output + 1).square().sum(), corner)
    except (RuntimeError, ConfigError):  # the latter of a file of ONNX
        return False
    return bool(gradient.abs().max() > 0)
