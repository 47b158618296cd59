"""The command about gamed scores: audit."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.certificates.gap import Screening, least_photographs
from resolute.cli.app import Device, DrawnSeed, Out, Workers, app
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import FAILED, announce_and_run, run_cells
from resolute.engine.queue import Machine
from resolute.engine.remote import Place
from resolute.engine.running import plan_of
from resolute.errors import ConfigError
from resolute.runtime import resolve_device
from resolute.studies.audit import MADE, Audit, calibration_of
from resolute.studies.certification import METRIC
from resolute.studies.record import Record
from resolute.terminal import console, name_file


@app.command(epilog="Example:  [bold]resolute audit submissions/ --reference originals/[/bold]")
def audit(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Submitted images, or folders of them.", show_default=False)
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="The original: one file for all images, or a folder or files of their names; may be repeated.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(help="Metric: a built-in name, a weights file, niqe, brisque, pyiqa:NAME or FILE.py:NAME."),
    ] = METRIC,
    rate: Annotated[float, typer.Option(help="Of honest photographs that may be flagged.", min=1e-6, max=0.5)] = 0.01,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of honest photographs like those submitted: measure their gaps once, and keep them for this "
            f"metric in {MADE}; may be repeated, one a source.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="File with the gaps of honest photographs: read it, or with --calibrate write it. By default the one "
            "that was made here or comes with the metric.",
            show_default=False,
        ),
    ] = None,
    defence: Annotated[
        str,
        typer.Option(help="Of the second score: purifiers and size-SHARE, joined by +, or noise-0.05 for a median."),
    ] = Screening.defence,
    fit: Annotated[
        int, typer.Option(help="Shrink larger images to this many pixels a side for the metric. 0: never.", min=0)
    ] = Screening.fit,
    samples: Annotated[int, typer.Option(help="Noisy copies, where the defence is noise.", min=1)] = Screening.samples,
    out: Out = Path("runs/audit"),
    device: Device = "auto",
    workers: Workers = 1,
    seed: DrawnSeed = None,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Tell which submitted images have a score that looks gamed.

    Beside each score stands a defended one. Where the gap of both is larger than honest photographs have it, but for a
    stated rate of false alarms, the image is flagged; with its original also where it gained without visible
    improvement. Writes records.jsonl and report.html. Exits with 12 where an image is flagged, with 8 where one cannot
    be judged; the others are.
    """
    least_photographs(rate)
    named = images or calibrate
    if not named:
        raise ConfigError("name the images to audit, or honest photographs with --calibrate FOLDER")
    plan = Audit(
        images=tuple(map(str, named)), references=tuple(map(str, reference or ())), metric=metric,
        defence=defence, fit=fit, samples=samples, rate=rate,
        calibration="" if calibration is None else str(calibration), seed=seed,
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers)
    if calibrate:
        made = _calibrated(plan, calibrate, machine)
        plan = dataclasses.replace(plan, calibration=str(made))
    if images:
        announce_and_run(plan_of(plan), Place(out), machine, Gates(fail_under or (), junit, summary))


def _calibrated(plan: Audit, folders: list[Path], machine: Machine) -> Path:
    """Measure the gaps of honest photographs, write their calibration and return its path."""
    sources = {folder.resolve().name: folder for folder in folders}
    if len(sources) < len(folders):
        raise ConfigError("two folders of honest photographs have the same name, which is that of their source")
    plans = {name: plan_of(_honest(plan, folder)) for name, folder in sources.items()}
    needed = least_photographs(plan.rate)
    for name, folder in sources.items():
        if len(plans[name]) < needed:
            raise ConfigError(
                f"a false-alarm rate of {100 * plan.rate:g} % takes {needed} honest photographs, and {folder} has "
                f"{len(plans[name])}; add some, or raise --rate"
            )
    records: dict[str, list[Record]] = {}
    for name, folder in sources.items():
        # The records are kept, so that a stopped run goes on.
        asked = repr((plan.metric, plan.screening, str(folder.resolve())))
        place = Place(MADE / hashlib.sha256(asked.encode()).hexdigest()[:12])
        records[name], _ = run_cells(plans[name], place, machine)
        if not records[name]:
            raise typer.Exit(FAILED)
        told = plans[name].study.results(records[name]).sentences[0]
        console.print(escape(told), highlight=False, soft_wrap=True)
    made = calibration_of(plan, records)
    made.threshold(plan.rate)
    path = Path(plan.calibration) if plan.calibration else MADE / f"{made.fingerprint}.json"
    made.write(path)
    name_file("calibration", str(path))
    return path


def _honest(plan: Audit, folder: Path) -> Audit:
    return dataclasses.replace(
        plan, name="calibration", images=(str(folder),), references=(), calibration="", honest=True
    )
