"""CLEVER indices of a study (eq. 15; figures 5c to 9c of the paper): one for each model and image, resumable."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import ClassVar, final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.measure.clever import clever, clever_power
from resolute.models.base import Restorer
from resolute.runtime import out_of_memory
from resolute.studies.attacked import Subject
from resolute.studies.record import Record, record_key
from resolute.studies.study import RestorerCell, about


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class CleverTable:
    """How the index is taken, as written in TOML.

    Attributes:
        samples: N_s, draws for each image; 1024 in the paper.
        radius: alpha_c in levels of 255; 1 in the paper.
        batch: draws evaluated together, which changes no figure.
        ascents: starts from which the steepest point is climbed to as well, 10 steps each; 0 for none.
    """

    samples: int = pydantic.Field(default=1024, ge=1)
    radius: float = pydantic.Field(default=1.0, gt=0, le=255)
    batch: int = pydantic.Field(default=8, ge=1)
    ascents: int = pydantic.Field(default=0, ge=0)

    @property
    def words(self) -> str:
        """What determines the index, in words."""
        climbed = (
            f"; climbed: the largest on the way of {self.ascents} ascents of 10 sign steps" if self.ascents else ""
        )
        return f"largest gradient norm of {self.samples} uniform draws within {self.radius:g}/255{climbed}"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CleverRecord(Record):
    """The CLEVER index of one super-resolution model on one image.

    Attributes:
        draws: behind the index.
        radius: of the draws, on the scale of [0, 1].
        index: the largest gradient norm found; larger is more vulnerable.
        typical: the median over the draws.
        climbed: the largest norm that ascents found; None where there were none.
    """

    view: ClassVar[str] = "clever"

    draws: int
    radius: float
    index: float
    typical: float
    climbed: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CleverCell(RestorerCell):
    """The index of one model on one image."""

    subject: Subject
    table: CleverTable
    seed: int

    @staticmethod
    def of(model: Restorer, subject: Subject, table: CleverTable, seed: int) -> CleverCell:
        """Return the cell that asks for the index of a model on an image."""
        assert model.card is not None
        name, weights = model.card.name, model.card.sha256
        return CleverCell(
            key=record_key(
                "clever", name, weights, *subject.identity, seed, table.samples, table.radius, table.ascents
            ),
            title=f"{subject.name}, {name}, CLEVER",
            like=("clever", name, weights),
            shape=tuple(subject.low.shape),
            cost=float(subject.low.shape[-2] * subject.low.shape[-1]),
            model=model,
            subject=subject,
            table=table,
            seed=seed,
        )


def take(cell: CleverCell, model: Restorer, progress: Callable[[int, int], None]) -> CleverRecord:
    """Compute an index, with as many draws at a time as the memory holds; the model is on its device."""
    began = time.perf_counter()
    subject, table = cell.subject, cell.table
    assert model.card is not None
    device = next(model.parameters(), subject.low).device
    low, radius, batch = subject.low.to(device), table.radius / 255, table.batch
    while True:
        try:
            found = clever(
                model, low, samples=table.samples, radius=radius, batch=batch, seed=cell.seed, progress=progress
            )
            climb = table.ascents and clever_power(
                model, low, starts=table.ascents, radius=radius, batch=batch, seed=cell.seed
            )
            break
        except RuntimeError as error:
            if not out_of_memory(error) or batch == 1:
                raise
            batch //= 2
    return CleverRecord(
        **about(cell, model.card, subject.name, subject.low[0], cell.seed),
        dataset=subject.dataset,
        draws=table.samples,
        radius=radius,
        index=found.index,
        typical=float(found.gradient_norms.median()),
        seconds=round(time.perf_counter() - began, 3),
        climbed=climb.index if climb else None,
    )
