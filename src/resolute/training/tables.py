"""What recipes of every kind share."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.defences.method import STRICT
from resolute.files import FileName

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerTable:
    """Adam and its schedule.

    Attributes:
        steps: optimiser steps; 0 where ridge regression is all that a metric learns by (``ScoreModelTable.ridge``).
        rate: peak learning rate.
        warmup: steps of linear rise.
        schedule: ``cosine`` to zero at the last step, or ``halve``: times ``factor`` every ``halve_every`` steps.
        halve_every, factor: see ``schedule``; EDSR's recipe halves.
        clip: largest gradient norm; 0 for no limit.
        ema: decay of the weight average that is validated and saved; 0 for none.
    """

    steps: int = pydantic.Field(default=300_000, ge=0)
    rate: float = pydantic.Field(default=1e-4, gt=0)
    warmup: int = pydantic.Field(default=0, ge=0)
    schedule: Literal["cosine", "halve"] = "halve"
    halve_every: int = pydantic.Field(default=200_000, ge=1)
    factor: float = pydantic.Field(default=0.5, gt=0, lt=1)
    clip: float = pydantic.Field(default=0.0, ge=0)
    ema: float = pydantic.Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunTable:
    """What a recipe of any kind begins with.

    Attributes:
        name: of the model that comes out, and of its files.
        start: weights to start from instead of random ones: the name of a recipe whose run lies beside this one, that
            of built-in weights, or a weights file.
        seed: of the initial weights, of what is drawn from the data, and of the noise.
        precision: ``bf16-mixed`` or ``32-true``.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
        validate_first: validate before the first step too.
    """

    name: FileName
    start: str = ""
    seed: int = 0
    precision: Precision = "32-true"
    checkpoint_every: int = pydantic.Field(default=1000, ge=1)
    validate_every: int = pydantic.Field(default=1000, ge=1)
    validate_first: bool = False
