"""MI-FGSM: gradients of past steps carry on (Dong et al., CVPR 2018)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Ascent, GradientAttack, Move, Start
from resolute.attacks.ball import Linf
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import Count


@final
@dataclasses.dataclass(frozen=True)
class Momentum:
    """Steps along ``g``, where ``g <- decay * g + gradient / ||gradient||_1`` (eqs 6 and 7 of the paper)."""

    decay: float

    def begin(self, plan: Ascent, clean: Float[Tensor, "b c h w"]) -> Move:
        carried = torch.zeros_like(clean)

        def move(
            x: Float[Tensor, "b c h w"], value: Float[Tensor, " b"], gradient: Float[Tensor, "b c h w"]
        ) -> Float[Tensor, "b c h w"]:
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
        return Ascent(
            objective=self.objective,
            ball=Linf(self.epsilon),
            steps=self.steps,
            step_size=self.epsilon / self.steps,
            start=self.start,
            restarts=self.restarts,
            rule=Momentum(self.decay),
        )
