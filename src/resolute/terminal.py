"""What the commands share: where they print, how a progress bar looks, and how certificates are shown."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import final

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from resolute import runtime
from resolute.errors import RefutedError
from resolute.report.certificates import write_certificates
from resolute.report.certified_iqa import iqa_page, iqa_tables
from resolute.report.families import sentences_of
from resolute.report.metric_as_loss import Finding, restorers_page, restorers_table
from resolute.studies.attacked import alarms, words
from resolute.studies.certified import Certification
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.certified_iqa_summary import Results
from resolute.studies.claims import check, summary_of
from resolute.studies.datasets import dataset_title
from resolute.studies.estimate import Estimate
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.plan import Plan
from resolute.studies.running import Machine
from resolute.studies.steepness import read_indices
from resolute.studies.store import Record
from resolute.studies.study import Study
from resolute.studies.summary import by_dataset
from resolute.studies.work import Failure, Found
from resolute.tables import attacks_table, certificates_table, claims_table, results_table

# Wide where nobody looks, so that what reads the output finds names and hashes whole; COLUMNS says otherwise.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200

console = Console(width=WIDTH)
errors = Console(stderr=True, width=WIDTH)


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
        self._worst: Record | None = None
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
        count = f"{int(done)}/{total}{self._pace(done - self._first, total - done, now - self._began)}"
        self._bar.update(self._task, completed=done, total=total, description=escape(title), count=count)
        last = done >= total > self._first and self._told < math.inf
        if not self._live and (last or now - self._told > 10):
            self._told = math.inf if last else now
            errors.print(escape(f"{count}  {title}{'; ' + self._worst_line() if self._worst else ''}"), soft_wrap=True)

    def found(self, found: Found) -> None:
        """Take note of results."""
        self.failures += found.failures
        for record in found.records:
            if record.sr_psnr is not None and record.sr_psnr < _sr_psnr(self._worst):
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


def _sr_psnr(record: Record | None) -> float:
    return math.inf if record is None or record.sr_psnr is None else record.sr_psnr


def plan_in_words(study: Study, plan: Plan, left: int, cost: Estimate, machine: Machine) -> str:
    """Return what a study is to do, and what it will cost, in sentences."""
    seeds = len(study.seeds) or 1
    parts = (
        (len(study.models), "model"), (len(study.attacks), "attack"), (len(study.epsilons), "budget"),
        (len({cell.subject.name for cell in plan.cells}), "image"), (seeds, "seed"),
    )  # fmt: skip
    grid = " x ".join(_count(number, thing) for number, thing in parts)
    indices = f" and {_count(len(plan.probes), 'CLEVER index', 'CLEVER indices')}" if plan.probes else ""
    words = f"{escape(study.name)}: {grid} = {_count(len(plan.cells), 'cell')}{indices}"
    if not left:
        return f"{words}, all done"
    words += f"; {left} to do" if left < len(plan) else ""
    if cost.seconds is not None:
        bound = "at most " if machine.device.startswith("cuda") else "about "
        place = "on Ray, divided by its nodes" if machine.ray else f"on {_count(machine.workers, 'worker')}"
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


def _count(number: int, thing: str, things: str = "") -> str:
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def show_results(study: Study, records: Sequence[Record], out: Path) -> None:
    """Print a table for each data set, what was published beside it, and what follows, in sentences."""
    indices = read_indices(out)
    for dataset, ours in by_dataset(records).items():
        several = len({record.dataset for record in records}) > 1
        console.print(results_table(ours, dataset_title(dataset) if several else ""))
        findings = check(study.expected, ours, [index for index in indices if index.dataset == dataset])
        if findings:
            console.print(claims_table(findings))
            console.print(summary_of(findings), highlight=False)
        for sentence in sentences_of(ours):
            console.print(escape(sentence), highlight=False)


def certify_images(plan: Certification, images: Sequence[Path], out: Path, device: str) -> Path:
    """Certify images under a progress bar, print tables and sentences, and write the page; return its path.

    One image is told in sentences; of several, the attack that raised the undefended score most.

    Raises:
        RefutedError: an attack refuted a certificate; the page is written all the same.
    """
    with shown_progress() as show:
        rows = plan.run(images, out, device=runtime.resolve_device(device), progress=show)
    console.print(certificates_table(rows))
    if len(rows) == 1:
        console.print(escape(rows[0]["words"]), highlight=False)
    if plan.attacks:
        console.print(attacks_table(rows))
        row = max(rows, key=lambda row: abs(row["attacks"][0]["attacked"] - row["attacks"][0]["clean"]))
        for attack in row["attacks"]:
            name = f"{row['image']}: " if len(rows) > 1 else ""
            console.print(escape(name + words(row, attack)), highlight=False)
    page = write_certificates(out, rows)
    name_file("report", page)
    if found := alarms(rows):
        raise RefutedError(" ".join(found))
    return page


def run_kind(plan: CertifiedIqa | MetricAsLoss, out: Path, device: str) -> Path:
    """Run a study that is not about super-resolution, print what came out, write its page and return its path."""
    if isinstance(plan, MetricAsLoss):
        return compare_restorers(plan, out, device)
    return compare_defences(plan, out, device)


def compare_defences(plan: CertifiedIqa, out: Path, device: str) -> Path:
    """Judge defences under a progress bar, print tables and sentences, and write the page; return its path.

    Raises:
        RefutedError: an attack refuted a certificate; the page is written all the same.
    """
    with shown_progress() as show:
        plan.run(out, device=runtime.resolve_device(device), progress=show)
    results = Results.read(out)
    for table in iqa_tables(results):
        console.print(table)
    for sentence in results.sentences():
        console.print(escape(sentence), highlight=False)
    page = iqa_page([out], out / "report.html")
    name_file("report", page)
    if alarm := results.alarm():
        raise RefutedError(alarm)
    return page


def compare_restorers(plan: MetricAsLoss, out: Path, device: str) -> Path:
    """Judge restorers under a progress bar, print a table and the verdicts, and write the page; return its path."""
    with shown_progress() as show:
        plan.run(out, device=runtime.resolve_device(device), progress=show)
    finding = Finding.read(out)
    console.print(restorers_table(finding))
    for found in finding.verdicts:
        console.print(escape(found.sentence), highlight=False)
    page = restorers_page([out], out / "report.html")
    name_file("report", page)
    return page
