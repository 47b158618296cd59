"""Running the units of a study in several processes of one machine, any of which may die."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.context
import pickle
import signal
import time
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any, final

import torch

from resolute.engine.bench import Found, PlanBench
from resolute.engine.plan import DEATHS, Plan
from resolute.engine.queue import PATIENCE, ClaimedUnit, Machine, Queue, wait_for_others
from resolute.errors import ConfigError, ResoluteError
from resolute.of_file import adopt, sources
from resolute.offline import keep_offline
from resolute.runtime import tune_allocator

# From a process that has imported everything and done nothing, where there is such.
_FAST = "forkserver" in multiprocessing.get_all_start_methods()


def _context() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver" if _FAST else "spawn")
    if _FAST:
        context.set_forkserver_preload([__name__])
    return context


def prepare() -> None:
    """Begin with what workers start from, so that it is ready when they are wanted; seconds of another core."""
    _context()
    if _FAST:
        from multiprocessing import forkserver

        forkserver.ensure_running()


@final
class _Worker:
    """A process with a copy of the plan, and the task that it is at work on."""

    def __init__(self, content: bytes, device: str, threads: int, memory: int) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.task: ClaimedUnit | None = None
        self.process = context.Process(target=_serve, args=(theirs, device, threads, memory), daemon=True)  # pyright: ignore[reportAttributeAccessIssue], a gap in the stubs
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        with contextlib.suppress(OSError):
            self.connection.send_bytes(content)

    def give(self, task: ClaimedUnit) -> None:
        """Hand a task out."""
        self.task = task
        with contextlib.suppress(OSError):  # a dead worker is noticed where it is listened to
            _send(self.connection, task)

    def hear(self) -> object:
        """Return the next message: a share, what was found, an error; None from a dead process."""
        try:
            return _receive(self.connection)
        except (EOFError, OSError, pickle.UnpicklingError):
            return None

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


@final
class Workers:
    """Several processes at the units of one run; a unit whose process dies goes to another one."""

    def __init__(self, queue: Queue, machine: Machine) -> None:
        self.queue = queue
        self.machine = machine
        self._content = packed(queue.plan)
        self._memory = machine.memory_each
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        self._idle_deaths = 0

    def run(self) -> None:
        """Do all that waits.

        Raises:
            OutputError: a result cannot be written; those before it are kept.
            RuntimeError: a worker met a defect, told with its traceback, or workers die before they begin.
        """
        try:
            while self.queue or self._busy():
                self._hand_out()
                busy = self._busy()
                if not busy:
                    wait_for_others(self.queue)
                    continue
                ready = wait([worker.connection for worker in busy])
                for worker in busy:
                    if worker.connection in ready:
                        self._hear(worker)
        finally:
            for worker in self._workers:
                worker.stop()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _hand_out(self) -> None:
        while self.queue and len(self._busy()) < self.machine.workers:
            task = self.queue.take()
            if task is None:
                return
            free = next((worker for worker in self._workers if worker.task is None), None)
            if free is None:
                device = self.machine.device_of(next(self._numbers))
                self._workers.append(free := _Worker(self._content, device, self.machine.threads, self._memory))
            free.give(task)

    def _hear(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None
        match worker.hear():
            case float() as share:
                self._idle_deaths = 0
                self.queue.step(task.unit, share)
            case Found() as found:
                worker.task = None
                # Files are written while it is at work on the next; what needs them waits for that.
                self._hand_out()
                self.queue.put(task.unit, found)
            case BaseException() as error:
                raise error
            case _:  # the process is dead
                worker.stop()
                self._workers.remove(worker)
                self._idle_deaths += 1
                if self._idle_deaths > DEATHS * self.machine.workers:
                    raise RuntimeError("workers die before they begin; run with --workers 1 to see why")
                self.queue.lost(task.unit)


def packed(plan: Plan) -> bytes:
    """Return the plan as bytes for another process.

    Raises:
        ConfigError: a model cannot be packed.
    """
    try:
        content = pickle.dumps(plan)
        return pickle.dumps((sources(), content))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(f"this study cannot be sent to other processes ({error}); run it with --workers 1") from None


def unpacked(content: bytes) -> Plan:
    """Return the plan that ``packed`` has made bytes of, with one's own code as it was there."""
    code, plan = pickle.loads(content)
    adopt(code)
    return pickle.loads(plan)


# Plain pickles: what multiprocessing itself sends of a tensor is a handle, worth nothing once its owner is dead.


def _send(connection: Any, message: object) -> None:
    connection.send_bytes(pickle.dumps(message))


def _receive(connection: Any) -> object:
    return pickle.loads(connection.recv_bytes())


def _serve(connection: Connection, device: str, threads: int, memory: int) -> None:
    """Do what comes down the pipe until it closes: what a worker runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers Ctrl-C, and ends this one
    keep_offline()
    tune_allocator()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        plan = unpacked(connection.recv_bytes())
        bench = PlanBench(plan, device, memory)
        while True:
            task = _receive(connection)
            assert isinstance(task, ClaimedUnit)
            try:
                _send(connection, _answer(task, bench, connection))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except ResoluteError as error:
                _send(connection, error)
            except Exception:
                _send(connection, RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))


def _answer(task: ClaimedUnit, bench: PlanBench, connection: Connection) -> Found:
    told = -1.0

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            _send(connection, share)

    tell(0.0)
    return bench.do(task.unit, task.records, tell)
