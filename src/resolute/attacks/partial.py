"""The partial attack (Choi et al., ICCV 2019): perturb one part of the image, and damage the rest of the output."""

from __future__ import annotations

import dataclasses
from typing import final

from resolute.attacks.ascent import Ascent, GradientAttack, same_budget
from resolute.attacks.ball import L2, Linf, Masked, Rectangle, Region
from resolute.attacks.objective import Objective, RegionShift


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Partial(GradientAttack):
    """Another attack held inside a region of the image; the damage counts where nothing was touched.

    What it finds says how far a perturbation spreads: the receptive field at work.

    Args:
        attack: how to climb, of the same budget; its own objective is not used.
        region: the pixels that may change; the middle quarter if not given.
        objective: the shift outside the region if None.

    Example:
        >>> from resolute.attacks import IFGSM
        >>> attack = Partial(epsilon=4 / 255, attack=IFGSM(epsilon=4 / 255), region=Rectangle(0, 0, 0.5, 1))
        >>> attack.ascent().objective
        RegionShift(region=Rectangle(top=0, left=0, bottom=0.5, right=1))
    """

    attack: GradientAttack
    region: Region = Rectangle()
    objective: Objective | None = None

    def __post_init__(self) -> None:
        same_budget(self, self.attack)
        super().__post_init__()

    def ascent(self) -> Ascent:
        plan = self.attack.ascent()
        if not isinstance(plan.ball, Linf | L2):
            raise ValueError(f"a region can be cut out of Linf and L2, not of {plan.ball}")
        objective = self.objective if self.objective is not None else RegionShift(self.region)
        return dataclasses.replace(plan, ball=Masked(plan.ball, self.region), objective=objective)
