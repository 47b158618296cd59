"""Attacks that hide a higher quality score: in the busy parts of an image, and at an equal mean squared error."""

from __future__ import annotations

import dataclasses
from typing import Annotated, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.attacks.ascent import Ascent, GradientAttack, Move, Start, StepRule
from resolute.attacks.ball import Images, Linf
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count

_LUMA = (0.299, 0.587, 0.114)
# Of Adam, as everybody has them.
_FIRST, _SECOND = 0.9, 0.999


def activity(x: Images) -> Float[Tensor, "b 1 h w"]:
    """Return how busy each place of an image is, 0 to 1: Sobel's gradient of the luma over its maximum, dilated.

    The largest value counts among the 5 x 5 around a pixel but for the corners.

    Example:
        >>> x = torch.zeros(1, 3, 9, 9)
        >>> x[..., 6:] = 1.0
        >>> activity(x)[0, 0, 4].tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    weights = torch.tensor(_LUMA[: x.shape[1]]).to(x).view(1, -1, 1, 1)
    padded = F.pad((x * weights).sum(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).to(x)
    size = F.conv2d(padded, torch.stack([sobel, sobel.T]).unsqueeze(1)).square().sum(dim=1, keepdim=True).sqrt()
    wide = F.max_pool2d(size, (3, 5), stride=1, padding=(1, 2))
    tall = F.max_pool2d(size, (5, 3), stride=1, padding=(2, 1))
    return torch.maximum(wide, tall) / size.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)


@final
@dataclasses.dataclass(frozen=True)
class WeighedAdam:
    """Steps of Adam, of a length that each pixel's ``activity`` weighs.

    The gradient is weighed in the authors' description; what weighs it drops out of Adam's quotient, so that here the
    step is.
    """

    def begin(self, plan: Ascent, clean: Images) -> Move:
        weight, first, second = activity(clean), torch.zeros_like(clean), torch.zeros_like(clean)
        taken = 0

        def move(x: Images, value: Float[Tensor, " b"], gradient: Images) -> Images:
            nonlocal taken
            taken += 1
            # Adam squares gradients that may be too small for it.
            gradient = gradient / gradient.abs().flatten(1).amax(dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
            first.mul_(_FIRST).add_((1 - _FIRST) * gradient)
            second.mul_(_SECOND).add_((1 - _SECOND) * gradient.square())
            mean, size = first / (1 - _FIRST**taken), (second / (1 - _SECOND**taken)).sqrt()
            step = torch.as_tensor(plan.step_size).to(x).view(-1, 1, 1, 1)
            return plan.ball.project(x + step * weight * mean / size.clamp_min(1e-8), clean)

        return move


@final
@dataclasses.dataclass(frozen=True)
class Sideways:
    """Steps along the part of the gradient that leaves the mean squared error from the clean image as it is."""

    def begin(self, plan: Ascent, clean: Images) -> Move:
        def move(x: Images, value: Float[Tensor, " b"], gradient: Images) -> Images:
            shift = x - clean
            length = shift.square().sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
            along = (gradient * shift).sum(dim=(1, 2, 3), keepdim=True) / length
            return plan.ball.project(plan.ball.ascend(x, gradient - along * shift, plan.step_size), clean)

        return move


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Korhonen(GradientAttack):
    """The attack of Korhonen and You (2022): steps of Adam, large where the image is busy and none where flat.

    Args:
        steps: gradient steps.
        relative_step: longest step as a share of ``epsilon``; ten of 0.3 are Adam's at 0.005 for 4/255.

    Example:
        >>> Korhonen(epsilon=4 / 255).ascent().rule
        WeighedAdam()
    """

    steps: Count = 10
    relative_step: Annotated[float, pydantic.Field(gt=0, le=2)] = 0.3
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return _within(self, WeighedAdam())


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MADC(GradientAttack):
    """Maximum differentiation competition (Wang and Simoncelli, 2008): a higher score at an equal mean squared error.

    Every step is orthogonal to the change so far, so that the error grows no faster than it must.

    Args:
        steps: gradient steps, 8 in the comparison of Antsiferova et al. (AAAI 2024).
        relative_step: step as a share of ``epsilon``.

    Example:
        >>> MADC(epsilon=4 / 255).ascent().rule
        Sideways()
    """

    steps: Count = 8
    relative_step: Annotated[float, pydantic.Field(gt=0, le=2)] = 0.25
    restarts: Count = 1
    objective: Objective = OutputShift()
    start: Start = "tiny"

    def ascent(self) -> Ascent:
        return _within(self, Sideways())


def _within(attack: Korhonen | MADC, rule: StepRule) -> Ascent:
    return Ascent(
        objective=attack.objective, ball=Linf(attack.epsilon), steps=attack.steps,
        step_size=attack.relative_step * attack.epsilon, start=attack.start, restarts=attack.restarts, rule=rule,
    )  # fmt: skip
