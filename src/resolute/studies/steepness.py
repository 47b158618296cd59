"""CLEVER indices of a study (eq. 15; figures 5c to 9c of the paper): one for each model and image, resumable."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pydantic
from pydantic.dataclasses import dataclass

from resolute.measure.clever import clever, clever_power
from resolute.models.base import Restorer
from resolute.studies.cell import Subject
from resolute.studies.store import cell_key, read_rows


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """The CLEVER index of one model on one image.

    Attributes:
        key: hash of all that determines it.
        model: as in ``Record``.
        weights: as in ``Record``.
        image: as in ``Record``.
        pixels: as in ``Record``.
        width: as in ``Record``.
        height: as in ``Record``.
        dataset: as in ``Record``.
        seed: of the draws.
        samples: draws behind the index.
        radius: of the draws, on the scale of [0, 1].
        index: the largest gradient norm found; larger is more vulnerable.
        typical: the median over the draws.
        seconds: what it cost.
        climbed: the largest norm that ascents found; None where there were none.
    """

    key: str
    model: str
    weights: str
    image: str
    pixels: str
    width: int
    height: int
    dataset: str
    seed: int
    samples: int
    radius: float
    index: float
    typical: float
    seconds: float
    climbed: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """One unit of work: the index of one model on one image."""

    model: Restorer
    subject: Subject
    pixels: str
    table: CleverTable
    seed: int

    @property
    def title(self) -> str:
        """What a person calls this unit."""
        assert self.model.card is not None
        return f"{self.subject.name}, {self.model.card.name}, CLEVER"

    @property
    def key(self) -> str:
        """What says whether it is done."""
        assert self.model.card is not None
        facts = (self.model.card.name, self.model.card.sha256, self.pixels, self.seed)
        ascents = (self.table.ascents,) if self.table.ascents else ()
        return cell_key("clever", *facts, self.table.samples, self.table.radius, *ascents)

    def take(self, device: str, progress: Callable[[int, int], None]) -> Index:
        """Compute the index."""
        began = time.perf_counter()
        model, table = self.model.to(device), self.table
        assert model.card is not None
        low, radius = self.subject.low.to(device), table.radius / 255
        found = clever(
            model,
            low,
            samples=table.samples,
            radius=radius,
            batch=table.batch,
            seed=self.seed,
            progress=progress,
        )
        climbed = None
        if table.ascents:
            climbed = clever_power(model, low, starts=table.ascents, radius=radius, batch=table.batch, seed=self.seed)
        return Index(
            key=self.key,
            model=model.card.name,
            weights=model.card.sha256,
            image=self.subject.name,
            pixels=self.pixels,
            width=self.subject.low.shape[-1],
            height=self.subject.low.shape[-2],
            dataset=self.subject.dataset,
            seed=self.seed,
            samples=table.samples,
            radius=radius,
            index=found.index,
            typical=float(found.gradient_norms.median()),
            seconds=round(time.perf_counter() - began, 3),
            climbed=climbed.index if climbed is not None else None,
        )


def read_indices(folder: Path) -> list[Index]:
    """Return all whole indices of a study's folder, each key once; none where none were taken."""
    return read_rows(folder, "clever", Index, _rank)


def _rank(index: Index) -> tuple[float, float]:
    return index.index, -index.seconds
