"""Running the units of a study so that none is lost and none done twice, here in this process."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, final

import torch

from resolute.images import write_png
from resolute.studies.journal import Claims, Journal, Seen
from resolute.studies.plan import Plan, Unit
from resolute.studies.store import Record, Store
from resolute.studies.work import Bench, Found

Progress = Callable[[float, int, str], None]

# How long to wait before asking again whether another run has finished what it has claimed.
PATIENCE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """How to run.

    Attributes:
        device: a torch device.
        workers: processes on this machine; one means this process.
        batch: at most so many cells a unit; 0 for 1 on a CPU and 32 elsewhere.
        ray: ``local``, ``auto`` or the address of a Ray cluster to run on; empty for this machine alone.
    """

    device: str = "cpu"
    workers: int = 1
    batch: int = 0
    ray: str = ""

    @property
    def cells(self) -> int:
        """At most so many cells a unit."""
        return self.batch or (1 if self.device == "cpu" else 32)

    @property
    def threads(self) -> int:
        """Threads of a worker."""
        return max(1, torch.get_num_threads() // self.workers)

    def device_of(self, worker: int) -> str:
        """Return the device of one of the workers; those on ``cuda`` go round the GPUs."""
        several = self.device == "cuda" and torch.cuda.device_count() > 1
        return f"cuda:{worker % torch.cuda.device_count()}" if several else self.device


@final
class Shelf:
    """Where a process puts what it has found: its own journals in the study's folder, and its claims there."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.store = Store(folder)
        self._journals = {stem: Journal(folder, stem) for stem in ("records", "clever", "failed")}
        self._seen = [Seen(folder, stem) for stem in ("records", "clever")]
        self._claims = Claims(folder)

    def done(self) -> set[str]:
        """Return the keys of all that is done, by whomever."""
        records, indices = (seen.refresh() for seen in self._seen)
        held = {key for key, line in records.items() if _holds(line, self.plan.measures)}
        return held | indices.keys()

    def claim(self, unit: Unit) -> Unit | Literal["done", "taken"]:
        """Claim a unit, and return what of it is left to do."""
        keys = self.plan.keys(unit)
        if not self._claims.take(keys):
            return "taken"
        # Looked at only now: what another run finished before it let go of its claim is there to see.
        done = self.done()
        if all(key in done for key in keys):
            self._claims.release(keys)
            return "done"
        return self.plan.without(unit, done)

    def put(self, found: Found) -> None:
        """Write what was found, images first, so that every record has its image.

        Raises:
            OutputError: it cannot be written; all before it is kept.
        """
        for record, image in zip(found.records, found.images, strict=True):
            write_png(self.store.image_path(record.key), image[0])
        for stem, rows in (("records", found.records), ("clever", found.indices), ("failed", found.failures)):
            if rows:
                self._journals[stem].append(*[dataclasses.asdict(row) for row in rows])

    def release(self, unit: Unit) -> None:
        """Give the claim on a unit back."""
        self._claims.release(self.plan.keys(unit))

    def close(self) -> None:
        """Leave files and claims to others."""
        for journal in self._journals.values():
            journal.close()
        self._claims.close()


def finished(plan: Plan, folder: Path) -> set[str]:
    """Return the keys of all that the folder holds."""
    return Shelf(plan, folder).done()


def _holds(line: dict[str, Any], measures: Sequence[str]) -> bool:
    try:
        return Record(**line).holds(measures)
    except TypeError:
        return False


@final
class Tally:
    """What the run as a whole has done so far, and telling it."""

    def __init__(
        self, plan: Plan, done: int, progress: Progress | None, on_found: Callable[[Found], None] | None
    ) -> None:
        self.plan = plan
        self.done = done
        self._progress = progress
        self._on_found = on_found
        self._shares: dict[Unit, float] = {}

    def step(self, unit: Unit, share: float) -> None:
        """Take note that a share of a unit is done."""
        self._shares[unit] = share * len(self.plan.keys(unit))
        self.tell(self.plan.title(unit))

    def found(self, unit: Unit, found: Found) -> None:
        """Take note of what came of a unit."""
        self._shares.pop(unit, None)
        self.done += len(self.plan.keys(unit))
        if self._on_found is not None:
            self._on_found(found)
        self.tell(self.plan.title(unit))

    def lost(self, unit: Unit) -> None:
        """Take note that what was done of a unit is gone."""
        self._shares.pop(unit, None)

    def tell(self, title: str) -> None:
        """Tell how far the run is."""
        if self._progress is not None:
            self._progress(self.done + sum(self._shares.values()), len(self.plan), title)


def run_here(plan: Plan, units: Sequence[Unit], folder: Path, device: str, tally: Tally) -> None:
    """Run units in this process, in order; those that another run has claimed last.

    Raises:
        OutputError: a result cannot be written; those before it are kept.
    """
    shelf, bench, waiting = Shelf(plan, folder), Bench(plan, device), deque(units)
    refused = 0
    try:
        while waiting:
            unit = waiting.popleft()
            mine = shelf.claim(unit)
            if mine == "taken":
                waiting.append(unit)
                refused += 1
                if refused >= len(waiting):
                    tally.tell("waiting for another run")
                    time.sleep(PATIENCE)
                continue
            refused = 0
            found = Found()
            if mine != "done":
                found = bench.do(mine, lambda share, unit=unit: tally.step(unit, share))
                shelf.put(found)
                shelf.release(unit)
            tally.found(unit, found)
    finally:
        shelf.close()


def give_up(plan: Plan, unit: Unit, folder: Path, tally: Tally) -> None:
    """Record a unit as failed because its workers were lost."""
    shelf, found = Shelf(plan, folder), Bench(plan, "cpu").given_up(unit)
    shelf.put(found)
    shelf.close()
    tally.found(unit, found)
