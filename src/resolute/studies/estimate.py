"""What a study will cost, told before it starts: a few steps of every model and attack on its largest image."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence

import torch

from resolute.attacks.targeted import with_truth
from resolute.defences import surrogate
from resolute.studies.cell import Cell, Clean
from resolute.studies.plan import Plan, Unit
from resolute.studies.running import Machine
from resolute.studies.steepness import Probe

# Seconds for one model and attack, and for all of them together.
EACH, ALL = 0.5, 20.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is left to do of a study.

    Attributes:
        seconds: that it will take; None where nothing could be tried.
        memory: bytes that each worker needs; None where that cannot be told.
        unknown: how many cells and indices are not in ``seconds``, since trying them failed.
    """

    seconds: float | None
    memory: int | None
    unknown: int = 0


class _EnoughError(Exception):
    """Enough was seen."""


class _Watch:
    """Take the time of shares, and end what is watched after a while."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.began = time.perf_counter()
        self.seen: list[tuple[float, float]] = []

    def __call__(self, done: float, total: float) -> None:
        now = time.perf_counter()
        self.seen.append((now, done / total))
        if len(self.seen) > 1 and now - self.began > self.patience:
            raise _EnoughError

    def seconds(self) -> float:
        """Return what the whole would take."""
        if len(self.seen) > 1:
            # The first step warms up.
            (begin, first), (end, last) = self.seen[0], self.seen[-1]
            return (end - begin) / (last - first)
        return (time.perf_counter() - self.began) / (self.seen[0][1] if self.seen else 1.0)


def estimate(
    plan: Plan, units: Sequence[Unit], machine: Machine, progress: Callable[[int, int], None] | None = None
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
    kinds: dict[tuple[int, str], list[Cell | Probe]] = {}
    for unit in units:
        for place in unit.cells:
            cell = plan.cells[place]
            kinds.setdefault((id(cell.model), cell.label), []).append(cell)
        if unit.probe is not None:
            probe = plan.probes[unit.probe]
            kinds.setdefault((id(probe.model), ""), []).append(probe)
    if not kinds:
        return Estimate(0.0, None)
    patience = min(EACH, ALL / len(kinds))
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, unknown = 0.0, 0
    try:
        for number, work in enumerate(kinds.values(), start=1):
            one = _try(max(work, key=_pixels), machine.device, patience)
            if one is None:
                unknown += len(work)
            else:
                seconds += one * sum(map(_pixels, work))
            if progress is not None:
                progress(number, len(kinds))
    finally:
        torch.set_num_threads(threads)
    known = unknown < sum(map(len, kinds.values()))
    return Estimate(seconds / machine.workers if known else None, _peak(machine.device), unknown)


def _try(work: Cell | Probe, device: str, patience: float) -> float | None:
    """Return the seconds for one pixel of one cell or index; None where it fails, as the run will tell better."""
    watch = _Watch(patience)
    model = work.model.to(device)
    besides = 0.0
    try:
        if isinstance(work, Cell):
            began = time.perf_counter()
            Clean.of(model, work.subject)
            besides = time.perf_counter() - began
            watch = _Watch(patience)
            low = work.subject.low.to(device)
            with_truth(work.attack, work.subject.truth)(surrogate(model), low, progress=watch)
        else:
            work.take(device, watch)
    except _EnoughError:
        pass
    except (RuntimeError, MemoryError, FloatingPointError):
        return None
    finally:
        if device != "cpu":
            model.to("cpu")
    return (watch.seconds() + besides) / _pixels(work)


def _pixels(work: Cell | Probe) -> int:
    return work.subject.low.shape[-2] * work.subject.low.shape[-1]


def _peak(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
