"""What the commands share: where they print, how a progress bar looks, and how certificates are shown."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import final

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from resolute.engine.bench import Failure, Found
from resolute.engine.estimate import Estimate
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine
from resolute.printing import console, errors
from resolute.studies.attacked import AttackRecord
from resolute.studies.record import Record
from resolute.studies.study import Described, Study, count


def name_file(what: str, path: Path | str) -> None:
    """Say where something was written, on one line however long, so that it can be copied."""
    console.print(f"{what}: [bold]{escape(str(path))}[/bold]", soft_wrap=True)


def progress_bar() -> Progress:
    """Return a progress bar with an estimate of the time that is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )


@contextlib.contextmanager
def shown_progress() -> Generator[Callable[[float, int, str], None]]:
    """Yield a function (done, in all, title) that moves a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("reading", total=None)

        def show(done: float, total: int, title: str) -> None:
            bar.update(task, completed=done, total=total, description=escape(title))

        yield show


@final
class StudyDisplay:
    """How far a study is: done, rate, what is left, and the worst so far.

    A live display in a terminal, a line from time to time elsewhere.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._live = errors.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), console=errors
        )
        self._task = self._bar.add_task("reading", total=None, count="")
        self._worst: AttackRecord | None = None
        self._began = time.monotonic()
        self._first: float | None = None
        self._told = self._began
        self._frame = Live(self, console=errors, transient=True, refresh_per_second=4) if self._live else None

    def __rich__(self) -> Group:
        """Return the bar and the worst so far."""
        return Group(self._bar, *([Text(self._worst_line())] if self._worst else []))

    def __enter__(self) -> StudyDisplay:
        if self._frame is not None:
            self._frame.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._frame is not None:
            self._frame.stop()

    def step(self, done: float, total: int, title: str) -> None:
        """Show how far it is."""
        if self._first is None:
            self._first = done
        now = time.monotonic()
        part = f" ({100 * (done % 1):.0f} % of the next)" if done % 1 > 0 and total < 100 else ""
        count = f"{int(done)}/{total}{part}{self._pace(done - self._first, total - done, now - self._began)}"
        self._bar.update(self._task, completed=done, total=total, description=escape(title), count=count)
        last = done >= total > self._first and self._told < math.inf
        if not self._live and (last or now - self._told > 10):
            self._told = math.inf if last else now
            errors.print(escape(f"{count}  {title}{'; ' + self._worst_line() if self._worst else ''}"), soft_wrap=True)

    def found(self, found: Found) -> None:
        """Take note of results."""
        self.failures += found.failures
        for record in found.records:
            if (
                isinstance(record, AttackRecord)
                and record.sr_psnr is not None
                and record.sr_psnr < _sr_psnr(self._worst)
            ):
                self._worst = record

    def _pace(self, done: float, left: float, seconds: float) -> str:
        if done <= 0 or seconds <= 0:
            return ""
        rate = done / seconds
        pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        return f"  {pace}  {duration(left / rate)} left" if left > 0 else f"  {pace}  in {duration(seconds)}"

    def _worst_line(self) -> str:
        worst = self._worst
        if worst is None:
            return ""
        cell = f"{worst.image}, {worst.model}, {worst.attack} {worst.epsilon * 255:g}/255"
        return f"worst so far: SR-PSNR {_sr_psnr(worst):.2f} dB, {cell}"


def _sr_psnr(record: AttackRecord | None) -> float:
    return math.inf if record is None or record.sr_psnr is None else record.sr_psnr


def plan_in_words(plan: Plan, left: int, cost: Estimate, machine: Machine) -> str:
    """Return what a study is to do, and what it will cost, in sentences."""
    study, cells = plan.study, plan.cells
    what = study.outline(cells) if isinstance(study, Described) else count(len(cells), "cell")
    words = f"{escape(study.name)}: {what}"
    if not left:
        return f"{words}, all done"
    words += f"; {left} to do" if left < len(plan) else ""
    if cost.seconds is not None:
        bound = "at most " if machine.device.startswith("cuda") else "about "
        place = "on Ray, divided by its nodes" if machine.ray else f"on {count(machine.workers, 'worker')}"
        words += f", {bound}{duration(cost.seconds)} {place}"
    if cost.memory is not None:
        words += f", about {cost.memory / 2**30:.1f} GiB each"
    return f"{words}.{f' {cost.unknown} could not be tried.' if cost.unknown else ''}"


def duration(seconds: float) -> str:
    """Return a time as people say it.

    Example:
        >>> duration(4.2), duration(95), duration(9000), duration(400000)
        ('4 s', '2 min', '2.5 h', '4.6 days')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def show_results(study: Study, found: Sequence[Record]) -> str:
    """Print tables and what follows from them, in sentences; return the alarm that the records raise."""
    results = study.results(found)
    for table in results.brief or results.tables:
        console.print(table.terminal())
    for sentence in results.sentences:
        console.print(escape(sentence), highlight=False)
    return results.alarm
