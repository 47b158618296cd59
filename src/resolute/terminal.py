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
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from resolute.engine.bench import Failure, Found
from resolute.engine.estimate import Estimate
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine
from resolute.printing import console, errors
from resolute.studies.attacked import AttackRecord
from resolute.studies.record import Record
from resolute.studies.study import Described, Study, count

# Seconds before the first line where none can be updated, and between two.
FIRST, NEXT = 10.0, 60.0


def name_file(what: str, path: Path | str) -> None:
    """Say where something was written, on one line however long, so that it can be copied."""
    console.print(f"{what}: [bold]{escape(str(path))}[/bold]", soft_wrap=True)


@final
class Pace:
    """How fast something goes, in words, and when a line about it is due where none can be updated.

    Example:
        >>> Pace().words(3, 9)
        '3/9'
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._due = self._began + FIRST
        self._first: float | None = None
        self._total = 0

    def words(self, done: float, total: int) -> str:
        """Return how much is done, how fast it goes and what is left; another total is another thing."""
        now = time.monotonic()
        if self._first is None or total != self._total:
            self._began, self._first, self._total = now if self._total else self._began, done, total
        part = f" ({100 * (done % 1):.0f} % of the next)" if done % 1 > 0 and total < 100 else ""
        gained, seconds, left = done - self._first, now - self._began, total - done
        if gained <= 0 or seconds <= 0:
            return f"{int(done)}/{total}{part}"
        rate = gained / seconds
        pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        end = f"{duration(left / rate)} left" if left > 0 else f"in {duration(seconds)}"
        return f"{int(done)}/{total}{part}  {pace}  {end}"

    def tell(self, line: str, *, now: bool = False) -> None:
        """Print a line if this is no terminal and one is due, or is to be printed now."""
        if not errors.is_terminal and (now or time.monotonic() > self._due):
            self._due = time.monotonic() + NEXT
            errors.print(escape(line), soft_wrap=True, highlight=False)


@contextlib.contextmanager
def shown_progress(*, silent: bool = False) -> Generator[Callable[[float, int, str], None]]:
    """Yield a function (done, in all, title) that moves a bar in a terminal, and tells elsewhere once a minute."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    pace = Pace()
    with Progress(*columns, console=errors, transient=True, disable=silent) as bar:
        task = bar.add_task("reading", total=None, count="")

        def show(done: float, total: int, title: str) -> None:
            count = pace.words(done, total)
            bar.update(task, completed=done, total=total, description=escape(title), count=count)
            if not silent:
                pace.tell(f"{count}  {title}")

        yield show


@final
class StudyDisplay:
    """How far a study is: done, rate, what is left, and the worst so far.

    A live display in a terminal, a line a minute elsewhere.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._live = errors.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), console=errors
        )
        self._task = self._bar.add_task("reading", total=None, count="")
        self._worst: AttackRecord | None = None
        self._pace = Pace()
        self._all_told = False
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
        count = self._pace.words(done, total)
        self._bar.update(self._task, completed=done, total=total, description=escape(title), count=count)
        last = done >= total and count != f"{total}/{total}" and not self._all_told
        self._all_told |= last
        self._pace.tell(f"{count}  {title}{'; ' + self._worst_line() if self._worst else ''}", now=last)

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
