"""Running the units of a study in several processes of one machine, any of which may die."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import final

import torch

from resolute.errors import ConfigError, ResoluteError
from resolute.runtime import tune_allocator
from resolute.studies.plan import DEATHS, Plan, Unit
from resolute.studies.running import PATIENCE, Machine, Shelf, Tally, give_up
from resolute.studies.work import Bench, Found


def _context() -> BaseContext:
    """Return how processes are started: from one that has imported everything and done nothing, where there is such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@final
class _Worker:
    """A process with a copy of the plan, and the unit that it is at work on."""

    def __init__(self, content: bytes, folder: Path, device: str, threads: int) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.unit: Unit | None = None
        arguments = (theirs, str(folder), device, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)  # pyright: ignore[reportAttributeAccessIssue], a gap in the stubs
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        with contextlib.suppress(OSError):
            self.connection.send_bytes(content)

    def give(self, unit: Unit) -> None:
        """Hand a unit out."""
        self.unit = unit
        with contextlib.suppress(OSError):  # a dead worker is noticed where it is listened to
            self.connection.send(unit)

    def answer(self) -> object:
        """Return the next message: a share, what was found, ``taken``, an error; None from a dead process."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


@final
class Workers:
    """Several processes at the units of one plan; a unit whose process dies goes to another one."""

    def __init__(self, plan: Plan, folder: Path, machine: Machine, tally: Tally) -> None:
        self.plan = plan
        self.folder = folder
        self.machine = machine
        self.tally = tally
        self._content = packed(plan)
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        self._idle_deaths = 0

    def run(self, units: Sequence[Unit]) -> None:
        """Run units.

        Raises:
            OutputError: a result cannot be written; those before it are kept.
            RuntimeError: a worker met a defect, told with its traceback, or workers die before they begin.
        """
        waiting, taken = deque(units), deque[Unit]()
        try:
            while waiting or taken or self._busy():
                if not waiting and not self._busy():
                    self.tally.tell("waiting for another run")
                    time.sleep(PATIENCE)
                    waiting, taken = taken, deque[Unit]()
                self._hand_out(waiting)
                ready = wait([worker.connection for worker in self._busy()])
                for worker in [worker for worker in self._busy() if worker.connection in ready]:
                    self._hear(worker, waiting, taken)
        finally:
            for worker in self._workers:
                worker.stop()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.unit is not None]

    def _hand_out(self, waiting: deque[Unit]) -> None:
        wanted = min(self.machine.workers, len(waiting) + len(self._busy()))
        while len(self._workers) < wanted:
            device = self.machine.device_of(next(self._numbers))
            self._workers.append(_Worker(self._content, self.folder, device, self.machine.threads))
        for worker in self._workers:
            if worker.unit is None and waiting:
                worker.give(waiting.popleft())

    def _hear(self, worker: _Worker, waiting: deque[Unit], taken: deque[Unit]) -> None:
        unit = worker.unit
        assert unit is not None
        match worker.answer():
            case float() as share:
                self._idle_deaths = 0
                self.tally.step(unit, share)
            case Found() as found:
                worker.unit = None
                self.tally.found(unit, found)
            case "taken":
                worker.unit = None
                taken.append(unit)
            case BaseException() as error:
                raise error
            case _:
                self._bury(worker, unit, waiting)

    def _bury(self, worker: _Worker, unit: Unit, waiting: deque[Unit]) -> None:
        worker.stop()
        self._workers.remove(worker)
        self.tally.lost(unit)
        self._idle_deaths += 1
        if self._idle_deaths > DEATHS * self.machine.workers:
            raise RuntimeError("workers die before they begin; run with --workers 1 to see why")
        again = unit.after_death()
        waiting.extendleft(reversed(again))
        if not again:
            give_up(self.plan, unit, self.folder, self.tally)


def packed(plan: Plan) -> bytes:
    """Return the plan as bytes for another process.

    Raises:
        ConfigError: a model cannot be packed.
    """
    try:
        return pickle.dumps(plan)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(f"this study cannot be sent to other processes ({error}); run it with --workers 1") from None


def _serve(connection: Connection, folder: str, device: str, threads: int) -> None:
    """Do what comes down the pipe until it closes: what a worker runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers Ctrl-C, and ends this one
    tune_allocator()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        plan: Plan = pickle.loads(connection.recv_bytes())
        bench, shelf = Bench(plan, device), Shelf(plan, Path(folder))
        while True:
            unit: Unit = connection.recv()
            try:
                connection.send(_answer(unit, bench, shelf, connection))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except ResoluteError as error:
                connection.send(error)
            except Exception:
                connection.send(RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))


def _answer(unit: Unit, bench: Bench, shelf: Shelf, connection: Connection) -> Found | str:
    told = -1.0

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            connection.send(share)

    mine = shelf.claim(unit)
    if mine == "taken":
        return "taken"
    if mine == "done":
        return Found()
    tell(0.0)
    found = bench.do(mine, tell)
    shelf.put(found)
    shelf.release(unit)
    return dataclasses.replace(found, images=[])
