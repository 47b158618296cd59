"""The quick form of a study: the same question with less, for a first answer in minutes."""

from __future__ import annotations

import dataclasses

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.registry import AttackTable
from resolute.studies.steepness import CleverTable


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Quick:
    """What a study does with less in its quick form; unset settings stay as they are.

    Attributes:
        models, epsilons, images, every, crop: as in ``Study``; the sample photographs where nothing is said.
        steps: at most so many for every attack that counts them.
        restarts, queries, draws: the same for these.
        clever_samples: at most so many draws behind a CLEVER index.
    """

    models: tuple[str, ...] | None = pydantic.Field(default=None, min_length=1)
    epsilons: tuple[float, ...] | None = pydantic.Field(default=None, min_length=1)
    images: tuple[str, ...] | None = ("samples",)
    every: int | None = pydantic.Field(default=None, ge=1)
    crop: int | None = pydantic.Field(default=None, ge=0)
    steps: int | None = pydantic.Field(default=None, ge=1)
    restarts: int | None = pydantic.Field(default=None, ge=1)
    queries: int | None = pydantic.Field(default=None, ge=1)
    draws: int | None = pydantic.Field(default=None, ge=1)
    clever_samples: int | None = pydantic.Field(default=None, ge=1)

    def lighten(self, table: AttackTable) -> AttackTable:
        """Return an attack with at most this many steps and restarts, where it has such.

        Example:
            >>> Quick(steps=10).lighten(AttackTable("ifgsm")).options
            {'steps': 10}
        """
        limits = {"steps": self.steps, "restarts": self.restarts, "queries": self.queries, "draws": self.draws}
        return table.at_most({name: most for name, most in limits.items() if most is not None})

    def lighten_clever(self, table: CleverTable | None) -> CleverTable | None:
        """Return a CLEVER index of at most this many draws."""
        if table is None or self.clever_samples is None:
            return table
        return dataclasses.replace(table, samples=min(table.samples, self.clever_samples))
