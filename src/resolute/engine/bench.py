"""Answering one unit, the same on every machine, with the memory that there is."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast, final

import torch
from torch import nn

from resolute.engine.plan import Plan, Unit
from resolute.errors import CellError, ResoluteError
from resolute.models.base import Restorer
from resolute.models.foreign import Foreign
from resolute.models.tiling import Tiled
from resolute.of_file import told_in_one_line
from resolute.runtime import occupied_bytes, out_of_memory
from resolute.studies.record import Record
from resolute.studies.study import Answer, Bench, InTiles, Progress

Shared = TypeVar("Shared")
Module = TypeVar("Module", bound=nn.Module)

# What the last few cells had in common is often what the next ones have; older things would fill the memory.
KEPT = 64


@dataclasses.dataclass(frozen=True)
class Failure:
    """A cell that has no answer: its key and title, and the reason with what to do."""

    key: str
    title: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of a unit."""

    answers: list[Answer] = dataclasses.field(default_factory=list[Answer])
    failures: list[Failure] = dataclasses.field(default_factory=list[Failure])

    def __add__(self, other: Found) -> Found:
        return Found(self.answers + other.answers, self.failures + other.failures)

    @property
    def records(self) -> list[Record]:
        """Those of all answers."""
        return [answer.record for answer in self.answers]


@final
class PlanBench(Bench):
    """Where the units of one plan are answered: its models on their device, and what its cells have in common."""

    def __init__(self, plan: Plan, device: str, memory: float = math.inf) -> None:
        self.plan = plan
        self.device = device
        self.memory = memory
        self.tile = 0
        self._records: Mapping[str, Record] = {}
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._tiled: dict[tuple[int, int], Restorer] = {}

    def place(self, model: Module) -> Module:
        placed = model.to(self.device)
        if isinstance(placed, Foreign):
            placed.lay_out()
        if not self.tile or not isinstance(placed, Restorer):
            return placed
        key = id(placed), self.tile
        if key not in self._tiled:
            self._tiled[key] = Tiled(placed, self.tile)
        return cast("Module", self._tiled[key])

    def room(self) -> float:
        on_gpu = self.device.startswith("cuda")
        return self.memory - (torch.cuda.memory_allocated(self.device) if on_gpu else occupied_bytes())

    def shared(self, key: Hashable, make: Callable[[], Shared]) -> Shared:
        key = key, self.tile
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def record(self, key: str) -> Record:
        return self._records[key]

    def do(self, unit: Unit, records: Mapping[str, Record], progress: Progress) -> Found:
        """Answer a unit; where memory does not suffice, in halves, then in tiles, and in the end not at all.

        Args:
            unit: of the plan.
            records: that its cells need, by key.
            progress: called with the share that is done.

        Raises:
            ConfigError: code of one's own that an attack or a metric is has failed.
        """
        with told_in_one_line():
            return self._do(unit, records, progress)

    def _do(self, unit: Unit, records: Mapping[str, Record], progress: Progress) -> Found:
        self._records = records
        try:
            self.tile = unit.tile
            return Found(self.plan.study.answer(self.plan.of(unit), self, progress))
        except (RuntimeError, MemoryError) as error:
            if not _starved(error):
                raise
            self._kept.clear()
            gc.collect()  # what failed may hang in cycles
            torch.cuda.empty_cache()  # does nothing without a GPU
            reason = f"the memory of {self.device} does not suffice: {_line(error)}"
        except (FloatingPointError, CellError) as error:
            reason = _line(error)
            if len(unit.cells) == 1:
                return self.failed(unit, reason)
        except ValueError as error:  # an attack on a layer that tiles do not reach
            if not unit.tile:
                raise
            return self.failed(unit, f"the memory of {self.device} does not suffice, and in tiles: {_line(error)}")
        finally:
            self.tile = 0
        parts = unit.smaller()
        if not parts:
            return self.failed(unit, reason)
        if parts[0].tile and (hindrance := self._against_tiles(parts[0])):
            return self.failed(unit, f"{reason}; {hindrance}")
        found = Found()
        for number, part in enumerate(parts):
            found += self._do(part, records, lambda share, number=number: progress((number + share) / len(parts)))
        return found

    def failed(self, unit: Unit, reason: str) -> Found:
        """Return a unit as failed, for a reason."""
        return Found(failures=[Failure(cell.key, cell.title, reason) for cell in self.plan.of(unit)])

    def _against_tiles(self, unit: Unit) -> str:
        (cell,) = self.plan.of(unit)
        study = self.plan.study
        if not isinstance(study, InTiles):
            return "use smaller images, or another --device"
        try:
            return study.without_tiles(cell)
        except ResoluteError as error:
            return _line(error)


def _starved(error: RuntimeError | MemoryError) -> bool:
    # The last is what oneDNN says when the memory for its own use does not suffice.
    return isinstance(error, MemoryError) or out_of_memory(error) or "could not create a primitive" in str(error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
