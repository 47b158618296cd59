"""The command about two forms of one network: twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resolute.cli.app import (
    Argument,
    Crop,
    Device,
    Every,
    Out,
    Photographs,
    Range,
    Scale,
    Seed,
    SkipBroken,
    Weights,
    Workers,
    addressed,
    app,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import plan_and_run
from resolute.defences import load_defended
from resolute.engine.queue import Machine
from resolute.models.forms import FORMS
from resolute.runtime import resolve_device
from resolute.studies.twin import Twin


@app.command(epilog="Example:  [bold]resolute twin mine.pth float16 mine.onnx[/bold]")
def twin(
    model: Annotated[str, typer.Argument(help="Built-in name, weights file or FILE.py:NAME.")],
    forms: Annotated[
        list[str],
        typer.Argument(metavar="FORM...", help=f"Other files of the same network, or {', '.join(FORMS)}."),
    ],
    images: Photographs = None,
    low_resolution: Annotated[
        bool, typer.Option("--low-resolution", help="The images are inputs as they are; nothing is known of the truth.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Levels of 255 by which a value as saved may differ.", min=0, max=255)
    ] = 1,
    level: Annotated[
        float, typer.Option(help="How far from an image to search for a difference, in levels of 255; 0: not.", min=0)
    ] = 8,
    steps: Annotated[int, typer.Option(help="Of the search.", min=1)] = 30,
    crop: Crop = 128,
    every: Every = 1,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    out: Out = Path("runs/twin"),
    device: Device = "auto",
    workers: Workers = 1,
    seed: Seed = 0,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Compare two forms of one network: half precision, eight-bit weights, ONNX, another export.

    How far are their outputs apart, on photographs and on inputs searched for the largest difference, and is that
    within a tolerance? For a bound that fails a job: --fail-under "largest-difference=1".
    """
    first = addressed(model, scale, weights, range, argument)
    others = [f"{first}+as={form}" if form in FORMS else form for form in forms]
    study = Twin(
        models=(first, *others), images=tuple(images or ("samples",)), high_resolution=not low_resolution,
        tolerance=tolerance, level=level, steps=steps, crop=crop, every=every, scale=load_defended(first).scale,
        seed=seed, skip_broken=skip_broken,
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers)
    plan_and_run(study, str(out), machine, only_plan=False, gates=Gates(fail_under or (), junit, summary))
