"""Work in a thread of its own, told step by step: how far it is, what came out, and an end whenever nobody waits."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from resolute.of_file import told_in_one_line

Result = TypeVar("Result")

# Seconds between two signs of life; more often a browser on the same two cores would take time from the work.
PAUSE = 0.2


class _StoppedError(Exception):
    """Somebody does not want to wait any longer."""


@dataclasses.dataclass(frozen=True)
class Step:
    """How far a job is.

    Attributes:
        done, total: in its own units.
        values: of what is climbed, one an evaluation so far; empty where nothing is.
        what: the units, in words.
        note: what else is known by now; may be empty.
    """

    done: int
    total: int
    values: list[float]
    what: str = "step"
    note: str = ""


@runtime_checkable
class Report(Protocol):
    """Called by work with how far it is; ends it where nobody waits any longer."""

    def __call__(self, done: int, total: int, what: str = ..., note: str = ...) -> None: ...


def stream(
    work: Callable[[Report], Result], what: str, stop: threading.Event | None = None, seen: Sequence[float] = ()
) -> Generator[Step, None, Result | None]:
    """Run work in a thread of its own, and yield how far it is until it is done, stopped, or nobody listens.

    Args:
        work: called with what it is to report to.
        what: the units that it counts in.
        stop: set by whoever does not want to wait.
        seen: values of what is climbed, to which the work adds.

    Returns:
        What the work returned; None where it was stopped.
    """
    halt = stop or threading.Event()
    news: queue.Queue[Step | Exception | None] = queue.Queue()
    results: list[Result] = []

    def report(done: int, total: int, what: str = what, note: str = "") -> None:
        if halt.is_set():
            raise _StoppedError
        news.put(Step(done, total, list(seen), what, note))

    def run() -> None:
        try:
            with told_in_one_line():
                results.append(work(report))
            news.put(None)
        except Exception as error:  # handed on to who asked for the work
            news.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            found, step = news.get(), None
            # Only the newest counts, and the newest before an end is the whole curve.
            while isinstance(found, Step):
                step = found
                if news.empty():
                    break
                found = news.get()
            if isinstance(found, _StoppedError):
                return None
            if step is not None:
                yield step
            if isinstance(found, Exception):
                raise found
            if found is None:
                return results[0]
            halt.wait(PAUSE)
    finally:
        halt.set()
        thread.join()
