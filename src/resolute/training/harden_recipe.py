"""The recipe that hardens a model which is trained already: by which methods, and how long."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.training.restore_recipe import DataTable, LossTable, MethodTables
from resolute.training.tables import STRICT, OptimizerTable, RunTable


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HardenRecipe(RunTable, MethodTables):
    """Fine-tuning of a super-resolution model towards robustness; BatchNorm and dropout stay as in use.

    Without any method it is plain fine-tuning, the baseline of all of them.

    Attributes:
        minutes: of training on the machine at hand, from which the number of steps is computed once, before the first;
            0 for ``optimizer.steps``.
        anchor: share of the model's own clean output, as it was before, in what clean patches are to become; the rest
            is the original. It costs robustness nothing and keeps the clean PSNR (docs/harden.md).
        search: arithmetic in which patches are attacked; ``bfloat16`` costs nothing but bits where the processor has
            it, and makes a step faster (docs/harden.md). Weights and loss are ``precision``.
        level: budget of the judge, in levels of 255, where no method has one of its own.
        clean_loss: dB of clean PSNR that may be lost on what is held out; 0 for no limit. The less is lost at a
            validation, the more weigh attacked patches and penalties from there on, beside 1 for a clean patch. What
            costs more in the end is taken back, along the straight line between the weights after and before. The noise
            of single steps is larger than such a limit: ``harden`` averages the weights over some fifty steps where
            ``optimizer.ema`` says nothing.
        weights: sha256 of the weights that it starts from, filled in by ``harden``.
        photos: sha256 of the names and sizes of the photographs, filled in by ``harden``.

    Example:
        >>> from resolute.training.recipe import read_recipe
        >>> recipe = read_recipe("harden")
        >>> recipe.adversarial.level, recipe.adversarial.start, recipe.budget
        (4.0, 'uniform', 4.0)
    """

    task: Literal["harden"] = "harden"
    minutes: float = pydantic.Field(default=10.0, ge=0)
    anchor: float = pydantic.Field(default=0.5, ge=0, le=1)
    data: DataTable = dataclasses.field(default_factory=DataTable)
    loss: LossTable = dataclasses.field(default_factory=LossTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    search: Literal["float32", "bfloat16"] = "float32"
    level: float = pydantic.Field(default=4.0, ge=1, le=255)
    clean_loss: float = pydantic.Field(default=0.0, ge=0)
    weights: str = ""
    photos: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversarial is not None and self.adversarial.combine == "sum":
            raise ConfigError("adversarial.combine: hardening takes the mean over clean and attacked patches")
        if self.jitter is not None and self.jitter.spared and self.loss.kind != "mse":
            raise ConfigError('jitter.spared: a variance is a part of a mean square; set loss.kind = "mse"')
        if self.jitter is not None and self.jitter.spared and self.jitter.copies < 2:
            raise ConfigError("jitter.spared: one copy has no variance; set jitter.copies to 2 or more")

    @property
    def budget(self) -> float:
        """The largest change of a pixel that the methods train against, in levels of 255, by which the judge goes."""
        levels = [one.level for one in (self.adversarial, self.consistency) if one is not None]
        return max(levels, default=self.level)
