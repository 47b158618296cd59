"""The quick form of a study: the same question with less, for a first answer in minutes."""

from __future__ import annotations

import dataclasses

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.registry import AROUND, ATTACKS, AttackTable
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
            >>> Quick(steps=10).lighten(AttackTable(kind="ifgsm")).steps
            10
        """
        if table.attacks:
            return dataclasses.replace(table, attacks=tuple(map(self.lighten, table.attacks)))
        # An attack around another hands these settings on to it.
        kind = ATTACKS.get(AROUND.get(table.kind, (table.kind,))[0])
        usual = {field.name: field.default for field in dataclasses.fields(kind)} if kind is not None else {}
        less: dict[str, int] = {}
        for name, most in (
            ("steps", self.steps),
            ("restarts", self.restarts),
            ("queries", self.queries),
            ("draws", self.draws),
        ):
            set_to: object = getattr(table, name) or usual.get(name)
            if most is not None and isinstance(set_to, int) and set_to > most:
                less[name] = most
        return dataclasses.replace(table, **less)

    def lighten_clever(self, table: CleverTable | None) -> CleverTable | None:
        """Return a CLEVER index of at most this many draws."""
        if table is None or self.clever_samples is None:
            return table
        return dataclasses.replace(table, samples=min(table.samples, self.clever_samples))
