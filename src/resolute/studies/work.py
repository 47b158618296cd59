"""Doing one unit of a study, the same on every machine: attack, measure, and make do with the memory that there is."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.batch import out_of_memory
from resolute.attacks.transfer import Transfer, WarmStart
from resolute.defences import undefended
from resolute.errors import ResoluteError
from resolute.models.base import Restorer
from resolute.models.tiling import Tiled
from resolute.studies.cell import Cell, Clean, measure_all
from resolute.studies.plan import Plan, Unit
from resolute.studies.steepness import Index, Probe
from resolute.studies.store import FIGURES, Record

Share = Callable[[float], None]

_BLANK = {
    "ssim": ("clean_ssim_y", "attacked_ssim_y", "sr_ssim"),
    "features": (
        "phi_mean", "phi_std", "phi_range", "attacked_phi_mean", "attacked_phi_std", "attacked_phi_range", "phi_moved",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Failure:
    """A cell or index that could not be computed.

    Attributes:
        key, title: of the cell.
        reason: why, and what to do.
    """

    key: str
    title: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of a unit.

    Attributes:
        records: of cells.
        images: the attacked image of each record, on the 8-bit grid; none once they are files.
        indices: CLEVER.
        failures: what could not be computed.
    """

    records: list[Record] = dataclasses.field(default_factory=list[Record])
    images: list[Float[Tensor, "1 3 h w"]] = dataclasses.field(default_factory=list[Tensor])
    indices: list[Index] = dataclasses.field(default_factory=list[Index])
    failures: list[Failure] = dataclasses.field(default_factory=list[Failure])

    def __add__(self, other: Found) -> Found:
        return Found(
            self.records + other.records,
            self.images + other.images,
            self.indices + other.indices,
            self.failures + other.failures,
        )


@final
class Bench:
    """Where units of one plan are done: the models on their device, and what attacks on one image share."""

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan = plan
        self.device = device
        self._cleans: list[Clean] = []
        self._tiled: dict[tuple[int, int], Restorer] = {}

    def do(self, unit: Unit, progress: Share) -> Found:
        """Compute a unit; where memory does not suffice, in halves, then in tiles, and in the end not at all.

        Args:
            unit: of the plan.
            progress: called with the share that is done.
        """
        try:
            return self._do(unit, progress)
        except (RuntimeError, MemoryError) as error:
            if not _starved(error):
                raise
            self._free()
            reason = f"the memory of {self.device} does not suffice: {_line(error)}"
        except FloatingPointError as error:
            reason = _line(error)
            if len(unit.cells) <= 1:
                return self._failed(unit, reason)
        except ValueError as error:  # an attack on a layer that tiles do not reach
            if not unit.tile:
                raise
            return self._failed(unit, f"the memory of {self.device} does not suffice, and in tiles: {_line(error)}")
        parts = unit.smaller()
        if parts and parts[0].tile:
            hindrance = self._against_tiles(unit)
            if hindrance:
                return self._failed(unit, f"{reason}; {hindrance}")
        if not parts:
            return self._failed(unit, reason)
        found = Found()
        for number, part in enumerate(parts):
            found += self.do(part, lambda share, number=number: progress((number + share) / len(parts)))
        return found

    def given_up(self, unit: Unit) -> Found:
        """Return a unit as failed because its workers were lost."""
        return self._failed(unit, f"its worker was killed {unit.deaths + 1} times, probably for want of memory")

    def _do(self, unit: Unit, progress: Share) -> Found:
        if unit.probe is not None:
            return Found(indices=[self._index(self.plan.probes[unit.probe], progress)])
        cells = [self._placed(self.plan.cells[place], unit.tile) for place in unit.cells]
        # Those of the last unit are often those of this one; older ones would fill the memory.
        self._cleans = cleans = [self._clean(cell) for cell in cells]
        measured = measure_all(cells, cleans, progress=progress)
        return Found(
            records=[trimmed(record, self.plan.measures) for record, _ in measured],
            images=[image.cpu() for _, image in measured],
        )

    def _placed(self, cell: Cell, tile: int) -> Cell:
        model = cell.model.to(self.device)
        if not tile:
            return cell
        tiled = self._tiled.setdefault((id(model), tile), Tiled(model, tile))
        return dataclasses.replace(cell, model=tiled)

    def _clean(self, cell: Cell) -> Clean:
        known = next((clean for clean in self._cleans if clean.belongs_to(cell)), None)
        return known or Clean.of(cell.model, cell.subject)

    def _index(self, probe: Probe, progress: Share) -> Index:
        try:
            return probe.take(self.device, lambda done, total: progress(done / total))
        except RuntimeError as error:
            if not _starved(error) or probe.table.batch == 1:
                raise
        self._free()
        table = dataclasses.replace(probe.table, batch=probe.table.batch // 2)
        return self._index(dataclasses.replace(probe, table=table), progress)

    def _free(self) -> None:
        self._cleans = []
        gc.collect()  # what failed may hang in cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _against_tiles(self, unit: Unit) -> str:
        cell = self.plan.cells[unit.cells[0]]
        if undefended(cell.model) is not cell.model:
            return "a model with a defence around it cannot work in tiles; use smaller images or another --device"
        if isinstance(cell.attack, Transfer | WarmStart):
            return "the source of a transfer attack cannot work in tiles; use smaller images or another --device"
        try:
            self._placed(cell, 128)
        except ResoluteError as error:
            return _line(error)
        return ""

    def _failed(self, unit: Unit, reason: str) -> Found:
        titles = self.plan.titles(unit)
        return Found(
            failures=[Failure(key, title, reason) for key, title in zip(self.plan.keys(unit), titles, strict=True)]
        )


def trimmed(record: Record, measures: Sequence[str]) -> Record:
    """Return the record with the figures of these measures only; PSNRs are always among them."""
    asked = {"psnr", *measures}
    kept = " ".join(name for name in FIGURES.split() if name in asked)
    blank = {field: None for name, fields in _BLANK.items() if name not in asked for field in fields}
    return dataclasses.replace(record, measures=kept, **blank)


def _starved(error: RuntimeError | MemoryError) -> bool:
    # The last is what oneDNN says when the memory for its own use does not suffice.
    return isinstance(error, MemoryError) or out_of_memory(error) or "could not create a primitive" in str(error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
