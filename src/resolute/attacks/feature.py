"""The feature disruptive attack, FDA (Ganeshan et al., ICCV 2019), as used on super-resolution models."""

from __future__ import annotations

import dataclasses
from typing import final

from resolute.attacks.ascent import Ascent, GradientAttack, Start
from resolute.attacks.ball import Linf
from resolute.attacks.objective import FeatureDisruption, Objective
from resolute.attacks.options import Count


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FDA(GradientAttack):
    """Feature disruptive attack (eq. 13): ``steps`` steps of ``epsilon / steps`` on the features alone.

    Args:
        steps: 50 in the paper.
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
        return Ascent(
            objective=self.objective,
            ball=Linf(self.epsilon),
            steps=self.steps,
            step_size=self.epsilon / self.steps,
            start=self.start,
            restarts=self.restarts,
        )
