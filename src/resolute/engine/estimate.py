"""What a study will cost, told before it starts: a few steps of every model and attack on its largest image."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Hashable

import torch

from resolute.engine.bench import PlanBench
from resolute.engine.plan import Plan, Unit
from resolute.engine.queue import Machine
from resolute.errors import CellError
from resolute.studies.study import Cell

# Seconds for one model and attack, and for all of them together.
EACH, ALL = 0.5, 20.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is left to do of a study.

    Attributes:
        seconds: that it will take; None where nothing could be tried.
        memory: bytes that each worker needs; None where that cannot be told.
        unknown: how many cells are not in ``seconds``, since trying them failed.
    """

    seconds: float | None
    memory: int | None
    unknown: int = 0


class _EnoughError(Exception):
    """Enough was seen."""


class _Watch:
    """Takes the time of shares, and ends what is watched after a while."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.began = time.perf_counter()
        self.seen: list[tuple[float, float]] = []

    def __call__(self, share: float) -> None:
        now = time.perf_counter()
        self.seen.append((now, share))
        if len(self.seen) > 1 and share > self.seen[0][1] and now - self.began > self.patience:
            raise _EnoughError

    def seconds(self) -> float:
        """Return what the whole would take."""
        moments = [(moment, share) for moment, share in self.seen if share > 0]
        (begin, first), (end, last) = (moments[0], moments[-1]) if moments else ((0.0, 1.0), (0.0, 1.0))
        # The first step warms up.
        return (end - begin) / (last - first) if last > first else (time.perf_counter() - self.began) / first


def estimate(
    plan: Plan, units: list[Unit], machine: Machine, progress: Callable[[int, int], None] | None = None
) -> Estimate:
    """Try what the units hold for a few steps, and return what all of it will cost on this machine.

    On a GPU cells share batches, so that it will take less.

    Args:
        plan: of the study.
        units: that are to be done.
        machine: how they will be run.
        progress: called with (tries done, tries in all).

    Raises:
        ResoluteError: an attack and a model do not go together, told before anything was spent on others.
    """
    kinds: dict[Hashable, list[Cell]] = {}
    for unit in units:
        for cell in plan.of(unit):
            kinds.setdefault(cell.like, []).append(cell)
    if not kinds:
        return Estimate(0.0, None)
    patience = min(EACH, ALL / len(kinds))
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    places = {cell.key: place for place, cell in enumerate(plan.cells)}
    seconds, tried, later, unknown = 0.0, 0.0, 0.0, 0
    try:
        for number, work in enumerate(kinds.values(), start=1):
            largest = max(work, key=lambda cell: cell.cost)
            cost = sum(cell.cost for cell in work)
            one = None if largest.needs else _try(plan, Unit(cells=(places[largest.key],)), machine, patience)
            if one is not None:
                seconds += one / largest.cost * cost
                tried += cost
            elif largest.needs:
                later += cost
            else:
                unknown += len(work)
            if progress is not None:
                progress(number, len(kinds))
    finally:
        torch.set_num_threads(threads)
    # What needs the answers of others cannot be tried; it goes at the pace of the rest.
    seconds += later * (seconds / tried if tried else 0.0)
    return Estimate(seconds / machine.workers if tried else None, _peak(machine.device), unknown)


def _try(plan: Plan, unit: Unit, machine: Machine, patience: float) -> float | None:
    """Return the seconds that one cell takes; None where it fails, as the run will tell better."""
    watch = _Watch(patience)
    try:
        plan.study.answer(plan.of(unit), PlanBench(plan, machine.device, machine.memory_each), watch)
    except _EnoughError:
        pass
    except (RuntimeError, MemoryError, FloatingPointError, CellError):
        return None
    return watch.seconds()


def _peak(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
