"""The queue of a run: hands out what is to be done, and writes what comes of it."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import final

import torch

from resolute.engine.bench import Found, PlanBench
from resolute.engine.journal import Claims, Journal, RecordsRead
from resolute.engine.plan import Plan, Unit
from resolute.engine.store import RECORDS_STEM, Store
from resolute.images import write_png
from resolute.runtime import free_bytes, occupied_bytes
from resolute.studies.record import Record

Tell = Callable[[float, int, str], None]

# How long to wait before asking again whether another run has finished what it has claimed.
PATIENCE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """How to run.

    Attributes:
        device: a torch device.
        workers: processes on this machine; one means this process.
        batch: at most so many cells a unit; 0 for 1 on a CPU and 32 elsewhere.
        memory: bytes that all workers together may occupy, on a GPU of its memory; 0 for half of what is free.
        ray: ``local``, ``auto`` or the address of a Ray cluster to run on, where memory has no cap; empty for this
            machine alone.
    """

    device: str = "cpu"
    workers: int = 1
    batch: int = 0
    memory: int = 0
    ray: str = ""

    @property
    def cells(self) -> int:
        """At most so many cells a unit."""
        return self.batch or (1 if self.device == "cpu" else 32)

    @functools.cached_property
    def memory_each(self) -> int:
        """Bytes that one worker may occupy."""
        used = 0 if self.device.startswith("cuda") else occupied_bytes()
        return (self.memory or used + free_bytes(self.device) // 2) // self.workers

    @property
    def threads(self) -> int:
        """Threads of a worker."""
        return max(1, torch.get_num_threads() // self.workers)

    def device_of(self, worker: int) -> str:
        """Return the device of one of the workers; those on ``cuda`` go round the GPUs."""
        several = self.device == "cuda" and torch.cuda.device_count() > 1
        return f"cuda:{worker % torch.cuda.device_count()}" if several else self.device


@dataclasses.dataclass(frozen=True)
class ClaimedUnit:
    """A unit that is this run's to do, and the records that its cells need."""

    unit: Unit
    records: Mapping[str, Record]


@final
class Queue:
    """The units of a run: hands them out, and writes what comes of them. No other part of a run writes.

    Args:
        plan: of the run.
        folder: of the study.
        batch: at most so many cells a unit.
        tell: called with (cells done, cells in all, title of the one at work).
        on_found: called with what is found, once it is on disk.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        batch: int,
        tell: Tell | None = None,
        on_found: Callable[[Found], None] | None = None,
    ) -> None:
        self.plan = plan
        self.store = Store(folder)
        self._tell = tell
        self._on_found = on_found
        self._seen = RecordsRead(self.store)
        self._claims = Claims(folder)
        self._journals = {stem: Journal(folder, stem) for stem in (RECORDS_STEM, "failed")}
        self._failed: dict[str, str] = {}
        self._waiting = deque(plan.units(self.done(), batch))
        self._shares: dict[Unit, float] = {}
        self._total = sum(cell.cost for cell in plan.cells)
        self._spent = self._total - sum(map(plan.cost, self._waiting))

    def __len__(self) -> int:
        """Return the number of units that wait."""
        return len(self._waiting)

    def done(self) -> Mapping[str, Record]:
        """Return the records of all cells that are answered, by whomever."""
        return self.store.whole_of(self._seen.refresh())

    def _done_of(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the records of those of these cells that are answered: a look at all, for each unit, would add up."""
        known = self._seen.refresh()
        return {key: known[key] for key in keys if key in known and self.store.whole(known[key])}

    def take(self) -> ClaimedUnit | None:
        """Claim the next unit that can be done now; None where all that wait are claimed elsewhere or need others."""
        for _ in range(len(self._waiting)):
            unit = self._waiting.popleft()
            keys = self.plan.keys(unit)
            if not self._claims.take(keys):
                self._waiting.append(unit)
                continue
            # Looked at only now: what another run finished before it let go of its claim is there to see.
            left = self.plan.without(unit, self._done_of(keys))
            if not left.cells:
                self._claims.release(keys)
                self._passed(unit)
                continue
            needs = {key for cell in self.plan.of(left) for key in cell.needs}
            lacking = [self._failed[key] for key in needs if key in self._failed]
            if lacking:
                self.put(left, PlanBench(self.plan, "cpu").failed(left, f"what it needs has failed: {lacking[0]}"))
            elif needs == (known := self._done_of(needs)).keys():
                return ClaimedUnit(left, known)
            else:
                self._claims.release(keys)
                self._waiting.append(unit)
        return None

    def step(self, unit: Unit, share: float) -> None:
        """Take note that a share of a unit is done."""
        self._shares[unit] = share * self.plan.cost(unit)
        self.tell(self.plan.title(unit))

    def put(self, unit: Unit, found: Found) -> None:
        """Write what came of a unit, pictures first, so that every record has its own; then give its claim back.

        Raises:
            OutputError: it cannot be written; all before it is kept.
        """
        records: list[Record] = []
        for answer in found.answers:
            files = {f"{folder}/{answer.record.key}.png": picture for folder, picture in answer.pictures.items()}
            for file, picture in files.items():
                write_png(self.store.folder / file, picture)
            records.append(dataclasses.replace(answer.record, files=tuple(files)))
        if records:
            self._journals[RECORDS_STEM].append(*[record.as_line() for record in records])
        if found.failures:
            self._journals["failed"].append(*[dataclasses.asdict(failure) for failure in found.failures])
            self._failed |= {failure.key: failure.title for failure in found.failures}
        self._claims.release(self.plan.keys(unit))
        if self._on_found is not None:
            answers = [dataclasses.replace(a, record=r) for a, r in zip(found.answers, records, strict=True)]
            self._on_found(dataclasses.replace(found, answers=answers))
        self._passed(unit)

    def lost(self, unit: Unit) -> None:
        """Take note that the worker of a unit is gone: it is tried again, smaller at last, or given up."""
        self._shares.pop(unit, None)
        self._claims.release(self.plan.keys(unit))
        again = unit.after_death()
        self._waiting.extendleft(reversed(again))
        if not again:
            reason = f"its worker was killed {unit.deaths + 1} times, probably for want of memory"
            self.put(unit, PlanBench(self.plan, "cpu").failed(unit, reason))

    def tell(self, title: str) -> None:
        """Tell how far the run is; cells count by what they cost."""
        if self._tell is not None:
            share = (self._spent + sum(self._shares.values())) / (self._total or 1)
            self._tell(len(self.plan) * min(1.0, share), len(self.plan), title)

    def close(self) -> None:
        """Leave files and claims to others."""
        for journal in self._journals.values():
            journal.close()
        self._claims.close()

    def _passed(self, unit: Unit) -> None:
        self._shares.pop(unit, None)
        self._spent += self.plan.cost(unit)
        self.tell(self.plan.title(unit))


def wait_for_others(queue: Queue) -> None:
    """Wait a little for what another run is at work on."""
    if queue:
        queue.tell("waiting for another run")
        time.sleep(PATIENCE)
