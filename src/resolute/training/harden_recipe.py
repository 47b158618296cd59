"""The recipe that hardens a model which is trained already: adversarial fine-tuning, and how long."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.training.restore_recipe import AdversarialTable, DataTable, LossTable
from resolute.training.tables import STRICT, OptimizerTable, RunTable


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HardenRecipe(RunTable):
    """Adversarial fine-tuning of a super-resolution model; BatchNorm and dropout stay as in use.

    Attributes:
        minutes: of training on the machine at hand, from which the number of steps is computed once, before the first;
            0 for ``optimizer.steps``.
        anchor: share of the model's own clean output, as it was before, in what clean patches are to become; the rest
            is the original. It costs robustness nothing and keeps the clean PSNR (docs/harden.md).
        adversarial: the attack on a share of every batch.
        weights: sha256 of the weights that it starts from, filled in by ``harden``.
        photos: sha256 of the names and sizes of the photographs, filled in by ``harden``.

    Example:
        >>> from resolute.training.recipe import read_recipe
        >>> recipe = read_recipe("harden")
        >>> recipe.adversarial.level, recipe.adversarial.start
        (4.0, 'uniform')
    """

    task: Literal["harden"] = "harden"
    minutes: float = pydantic.Field(default=10.0, ge=0)
    anchor: float = pydantic.Field(default=0.5, ge=0, le=1)
    data: DataTable = dataclasses.field(default_factory=DataTable)
    loss: LossTable = dataclasses.field(default_factory=LossTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    adversarial: AdversarialTable = dataclasses.field(default_factory=AdversarialTable)
    weights: str = ""
    photos: str = ""

    def __post_init__(self) -> None:
        if self.adversarial.combine == "sum":
            raise ConfigError("adversarial.combine: hardening takes the mean over clean and attacked patches")
