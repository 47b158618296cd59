"""What the commands share: where they print, how a progress bar looks, and how certificates are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from resolute import runtime
from resolute.report.certificates import write_certificates
from resolute.report.certified_iqa import iqa_page, iqa_tables
from resolute.report.families import sentences_of
from resolute.report.metric_as_loss import Finding, restorers_page, restorers_table
from resolute.studies.certified import Certification
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.certified_iqa_summary import Results
from resolute.studies.claims import check, summary_of
from resolute.studies.datasets import dataset_title
from resolute.studies.gaming import words
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.steepness import read_indices
from resolute.studies.store import Record
from resolute.studies.study import Study
from resolute.studies.summary import by_dataset
from resolute.tables import attacks_table, certificates_table, claims_table, results_table

console = Console()
errors = Console(stderr=True)


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
    console.print(f"report: [bold]{escape(str(page))}[/bold]")
    return page


def run_kind(plan: CertifiedIqa | MetricAsLoss, out: Path, device: str) -> Path:
    """Run a study that is not about super-resolution, print what came out, write its page and return its path."""
    if isinstance(plan, MetricAsLoss):
        return compare_restorers(plan, out, device)
    return compare_defences(plan, out, device)


def compare_defences(plan: CertifiedIqa, out: Path, device: str) -> Path:
    """Judge defences under a progress bar, print tables and sentences, and write the page; return its path."""
    with shown_progress() as show:
        plan.run(out, device=runtime.resolve_device(device), progress=show)
    results = Results.read(out)
    for table in iqa_tables(results):
        console.print(table)
    for sentence in results.sentences():
        console.print(escape(sentence), highlight=False)
    page = iqa_page([out], out / "report.html")
    console.print(f"report: [bold]{escape(str(page))}[/bold]")
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
    console.print(f"report: [bold]{escape(str(page))}[/bold]")
    return page
