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
from resolute.errors import CellError, ImageError, ResoluteError, class_and_line
from resolute.models.base import Restorer, Scorer, name_of
from resolute.models.foreign import Foreign
from resolute.models.tiling import Tiled
from resolute.of_file import told_in_one_line
from resolute.runtime import occupied_bytes, out_of_memory
from resolute.studies.record import Record
from resolute.studies.study import Answer, Bench, InTiles, Progress

Shared = TypeVar("Shared")
Module = TypeVar("Module", bound=nn.Module)

# A side that every network and metric takes, in pixels.
ROOM = 64

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
        self._placed: list[nn.Module] = []

    def place(self, model: Module) -> Module:
        placed = model.to(self.device)
        self._placed.append(placed)
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
        if problems := {cell.key: cell.problem for cell in self.plan.of(unit) if cell.problem}:
            rest = self.plan.without(unit, problems)
            failures = [Failure(c.key, c.title, c.problem) for c in self.plan.of(unit) if c.problem]
            return Found(failures=failures) + (self._do(rest, records, progress) if rest.cells else Found())
        try:
            self.tile = unit.tile
            self._placed.clear()
            return Found(self.plan.study.answer(self.plan.of(unit), self, progress))
        except (FloatingPointError, CellError, ImageError) as error:
            reason = _line(error)
            if len(unit.cells) == 1:
                return self.failed(unit, reason)
        except Exception as error:  # A network of somebody else can raise anything.
            if small := self.too_small(unit, error):
                return self.failed(unit, small)
            if isinstance(error, ValueError) and unit.tile:  # an attack on a layer that tiles do not reach
                return self.failed(unit, f"the memory of {self.device} does not suffice, and in tiles: {_line(error)}")
            if not _starved(error):
                raise
            self._kept.clear()
            gc.collect()  # what failed may hang in cycles
            torch.cuda.empty_cache()  # does nothing without a GPU
            reason = f"the memory of {self.device} does not suffice: {_line(error)}"
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

    def too_small(self, unit: Unit, error: Exception) -> str:
        """Say which model of a unit that failed takes no images as small, and larger ones; empty where all do."""
        size = self.plan.of(unit)[0].shape[-2:]
        if min(size, default=ROOM) >= ROOM:
            return ""
        height, width = size
        for model in self._placed:
            if self._takes(model, max(height, ROOM), max(width, ROOM)) and not self._takes(model, height, width):
                called = name_of(model) if isinstance(model, Restorer | Scorer) else type(model).__name__
                return f"an image of {width} x {height} pixels is too small for {called}: {class_and_line(error)}"
        return ""

    def _takes(self, model: nn.Module, height: int, width: int) -> bool:
        try:
            with torch.no_grad():
                model(torch.full((1, 3, height, width), 0.5, device=self.device))
        except Exception:  # A network of somebody else can raise anything.
            return False
        return True

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


def _starved(error: Exception) -> bool:
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    # The last is what oneDNN says when the memory for its own use does not suffice.
    return out_of_memory(error) or "could not create a primitive" in str(error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
