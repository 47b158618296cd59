"""The command that asks whether a model invents: faithful."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.certificates.faithfulness import Nudges
from resolute.certificates.gap import least_photographs
from resolute.certificates.trust import Trust
from resolute.cli.app import (
    Argument,
    Crop,
    Device,
    Every,
    Memory,
    OnlyPlan,
    Range,
    Scale,
    Seed,
    SharedOut,
    SkipBroken,
    Weights,
    Workers,
    addressed,
    app,
    parse_epsilon,
    parse_memory,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import FAILED, announce, plan_and_run, run_cells
from resolute.defences import load_defended
from resolute.engine.queue import Machine
from resolute.engine.remote import Place
from resolute.engine.running import plan_of
from resolute.errors import ConfigError
from resolute.runtime import resolve_device
from resolute.studies.faithful import MADE, Faithful, enough, trust_of
from resolute.terminal import console, name_file


@app.command(epilog="Example:  [bold]resolute faithful mine.pth photo.png[/bold]")
def faithful(
    model: Annotated[
        str, typer.Argument(help="Built-in name, weights file or FILE.py:NAME, with defences around it if wanted.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Inputs as they are: files, folders or data sets.", show_default=False),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="The true image: one file, or files or folders with a file of each name.",
            show_default=False,
        ),
    ] = None,
    high_resolution: Annotated[
        bool, typer.Option("--high-resolution", help="The images are the truth, to be shrunk first.")
    ] = False,
    bound: Annotated[str, typer.Option(help="Error that a trusted pixel is to stay within.")] = "16/255",
    rate: Annotated[
        float, typer.Option(help="Of the trusted pixels that may exceed it, in expectation.", min=1e-3, max=0.5)
    ] = 0.1,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help=f"Photographs with truth: measure errors on them, once, and keep those in {MADE}.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="File of the calibration: read it, or with --calibrate write it. By default the one that comes with "
            "the model or was made here.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[float, typer.Option(help="On the input, in levels of 255.", min=0.1, max=255)] = Nudges.noise,
    jpeg: Annotated[int, typer.Option(help="Quality at which the input is stored.", min=1, max=100)] = Nudges.jpeg,
    epsilon: Annotated[str, typer.Option(help="Budget of the attack on the input.")] = f"{Nudges.level:g}/255",
    steps: Annotated[int, typer.Option(help="Of that attack.", min=1)] = Nudges.steps,
    crop: Crop = 0,
    every: Every = 1,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    plan: OnlyPlan = False,
    out: SharedOut = "runs/faithful",
    device: Device = "auto",
    memory: Memory = "",
    workers: Workers = 1,
    seed: Seed = 0,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Tell what an output invents: what its input bears out, how far its pixels move, and which of them to trust.

    Told are the detail that the input can neither confirm nor refute, what contradicts it, and how far noise, JPEG and
    an attack on the input move each pixel, beside bicubic interpolation. With a calibration, the page covers what is
    not to be trusted. With --truth it has the real errors too.
    """
    least_photographs(rate)
    named = addressed(model, scale, weights, range, argument)
    found = load_defended(named)
    if not images and calibrate is None:
        raise ConfigError("name the images to ask about, or photographs with --calibrate FOLDER")
    if not images and (fail_under or junit or summary):
        raise ConfigError("gates are about images, and there are none: name them, or leave out --fail-under")
    levels = round(parse_epsilon(bound, "--bound") * 255, 6)
    if levels >= 255:
        raise ConfigError(f"--bound is an error below 255/255, such as 16/255, not {bound!r}")
    asked = Faithful(
        models=(named,), images=tuple(images or (str(calibrate),)), truths=tuple(map(str, truth or ())),
        high_resolution=high_resolution, bound=levels, rate=rate,
        calibration="" if calibration is None else str(calibration), noise=noise, jpeg=jpeg,
        level=round(parse_epsilon(epsilon) * 255, 6), steps=steps, crop=crop, every=every, scale=found.scale,
        seed=seed, skip_broken=skip_broken,
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers, memory=parse_memory(memory))
    if calibrate is not None:
        made = _calibrated(asked, calibrate, machine, only_plan=plan)
        if made is None:
            return  # what follows needs the calibration
        if not images:
            enough(Trust.read(made), rate)
        asked = dataclasses.replace(asked, calibration=str(made))
    if images:
        asked = dataclasses.replace(asked, models=tuple(dict.fromkeys((named, "bicubic"))))
        gates = Gates(fail_under or (), junit, summary)
        plan_and_run(asked, out, machine, only_plan=plan, gates=gates)


def _calibrated(asked: Faithful, folder: Path, machine: Machine, *, only_plan: bool) -> Path | None:
    """Measure the errors on photographs, write the calibration of the model and return its path; None for a plan."""
    honest = dataclasses.replace(
        asked, name="calibration", images=(str(folder),), truths=(), high_resolution=True, calibration="", honest=True
    )
    # The records are kept, so that a stopped run goes on.
    key = repr((honest.models, honest.bound, honest.crop, honest.every, str(folder.resolve())))
    place = Place(MADE / hashlib.sha256(key.encode()).hexdigest()[:12])
    cells = plan_of(honest)
    announce(cells, place.folder, machine)
    if only_plan:
        return None
    records, _ = run_cells(cells, place, machine)
    if not records:
        raise typer.Exit(FAILED)
    photographs = folder.resolve().name + (f", one in {asked.every}" if asked.every > 1 else "")
    (made,) = trust_of(honest, records, photographs)
    path = Path(asked.calibration) if asked.calibration else MADE / f"{made.fingerprint}-{made.bound:g}.json"
    made.write(path)
    console.print(escape(honest.results(records).sentences[0]), highlight=False, soft_wrap=True)
    name_file("calibration", str(path))
    return path
