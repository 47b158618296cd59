"""Consistency under attack, as in TRADES (Zhang et al., ICML 2019), for models whose answers are images.

The loss on clean patches stays what it is; beside it stands the distance between what the model makes of a patch and of
the neighbour on which it differs most. What weighs it trades clean PSNR for robustness.
"""

from __future__ import annotations

from typing import final

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resolute.defences.adversarial import attacked_patches
from resolute.defences.method import STRICT, Distance, High, Low, Moment, TwinMethod


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Consistency(TwinMethod):
    """A penalty on the distance of the output from that for the worst neighbour.

    Attributes:
        weight: of the penalty, β of TRADES; the distance is the recipe's loss.
        level: largest change of a pixel, in levels of 255.
        steps: of the search for the neighbour, from a random point of the ball.
        relative_step: length of a step as a share of ``level``.
        ramp: share of the training over which ``level`` rises from 0.
    """

    weight: float = pydantic.Field(default=1.0, gt=0)
    level: float = pydantic.Field(default=4.0, gt=0, le=255)
    steps: int = pydantic.Field(default=10, ge=1)
    relative_step: float = pydantic.Field(default=0.25, gt=0, le=2)
    ramp: float = pydantic.Field(default=0.0, ge=0, le=1)

    def twin(self, model: nn.Module, low: Low, moment: Moment) -> Low:
        return attacked_patches(
            model, low, low, epsilon=self.level / 255 * moment.risen(self.ramp), steps=self.steps,
            relative_step=self.relative_step, start="uniform", reference="self", generator=moment.generator,
        )  # fmt: skip

    def penalty(self, output: High, other: High, shift: Low, distance: Distance) -> Float[Tensor, ""]:
        return self.weight * distance(other, output)
