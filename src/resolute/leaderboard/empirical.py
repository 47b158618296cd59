"""What attacks reached, with all that such figures cannot say together, whoever wrote them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Annotated

import pydantic

from resolute.studies.summary import WORST

Short = Annotated[str, pydantic.Field(min_length=1, max_length=200)]
# Outputs that go astray lie far below zero, and two single floats in [0, 1] differ by no less than 150 dB allow.
Decibels = Annotated[float, pydantic.Field(ge=-800, le=150, allow_inf_nan=False)]
Level = Annotated[float, pydantic.Field(gt=0, le=255, allow_inf_nan=False)]

# Of rounded means, in dB; and of the same image through the same model on two machines.
SLACK = 1e-3
AGAIN = 0.05


class Part(pydantic.BaseModel):
    """What every part of an entry is: frozen, and without keys that nobody knows."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Figure(Part):
    """A mean over images with its 95 % bootstrap interval."""

    mean: Decibels
    low: Decibels
    high: Decibels
    n: int = pydantic.Field(ge=1)

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Figure:
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"the mean {self.mean:g} lies outside of its interval [{self.low:g}, {self.high:g}]")
        return self


class Empirical(Part):
    """What attacks reached; another attack may reach more.

    Attributes:
        attack: label, or ``worst case`` for the worst attack of the suite on each image.
        level: budget in levels of 255.
        unmoved: images whose output did not change; their infinite SR-PSNR is in no mean.
        sr_psnr: attacked output against the model's own clean output, dB.
        attacked_psnr, clean_psnr: outputs against the ground truth, on Y, dB; null without ground truth.
    """

    attack: Short
    level: Level
    images: int = pydantic.Field(ge=1)
    unmoved: int = pydantic.Field(ge=0)
    sr_psnr: Figure | None
    attacked_psnr: Figure | None
    clean_psnr: Figure | None

    @pydantic.model_validator(mode="after")
    def _counted(self) -> Empirical:
        if self.unmoved > self.images:
            raise ValueError(f"{self.unmoved} of {self.images} images unmoved")
        if (self.sr_psnr.n if self.sr_psnr else 0) != self.images - self.unmoved:
            raise ValueError("sr_psnr is a mean over other images than those that moved")
        if any(figure is not None and figure.n > self.images for figure in (self.attacked_psnr, self.clean_psnr)):
            raise ValueError(f"a mean over more than the {self.images} images")
        return self


def contradiction(rows: Sequence[Empirical], attacks: Collection[str], cells: int) -> str:
    """Return what contradicts itself, in a clause; empty where nothing does.

    Args:
        rows: an attack and budget each.
        attacks: labels of the suite.
        cells: how many records there are said to be.
    """
    if unknown := {one.attack for one in rows} - {*attacks, WORST}:
        return f"figures of {min(unknown)!r}, which is no attack of the suite"
    single = [one for one in rows if one.attack != WORST]
    if cells != sum(one.images for one in single):
        return f"{cells} records, where the figures are of {sum(one.images for one in single)}"
    clean = [one.clean_psnr for one in rows]
    if any(_apart(one, other) for one, other in itertools.pairwise(clean)):
        return "clean_psnr differs between attacks, to which it has nothing to do"
    worst = sorted((one for one in rows if one.attack == WORST), key=lambda one: one.level)
    milder = [(one, other) for one in worst for other in single if other.level == one.level]
    # What a smaller budget allows a larger one allows too.
    for strong, weak in [*milder, *((large, small) for small, large in itertools.pairwise(worst))]:
        for name, low, high in (
            ("sr_psnr", strong.sr_psnr, weak.sr_psnr),
            ("attacked_psnr", strong.attacked_psnr, weak.attacked_psnr),
        ):
            if low is not None and high is not None and low.n == high.n and low.mean > high.mean + SLACK:
                return (
                    f"{name} of {strong.attack} at {strong.level:g}/255 is above that of {weak.attack} at "
                    f"{weak.level:g}/255, which it cannot be"
                )
    return ""


def _apart(one: Figure | None, other: Figure | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    return one.n == other.n and abs(one.mean - other.mean) > AGAIN
