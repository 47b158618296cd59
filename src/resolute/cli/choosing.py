"""The command that helps to choose between models: compare-models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resolute.cli.app import (
    Argument,
    Crop,
    Device,
    Every,
    Memory,
    Models,
    OnlyPlan,
    Out,
    Photographs,
    Range,
    Scale,
    Seed,
    SkipBroken,
    Weights,
    Workers,
    all_addressed,
    app,
    parse_memory,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import plan_and_run
from resolute.defences import load_defended
from resolute.engine.queue import Machine
from resolute.runtime import resolve_device
from resolute.studies.choice import Choice

# What scores outputs where no truth is known.
_METRIC = "quality-m"


@app.command(epilog="Example:  [bold]resolute compare-models a.pth b.onnx edsr-s --images photos/[/bold]")
def compare_models(
    models: Models,
    images: Photographs = None,
    low_resolution: Annotated[
        bool,
        typer.Option(
            "--low-resolution",
            help="The images are inputs as they are; outputs are scored without a reference.",
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            help=f"Quality metric that scores outputs; {_METRIC} if not given with --low-resolution, else none."
        ),
    ] = None,
    level: Annotated[
        float, typer.Option(help="Budget of the attack, in levels of 255; 0 for none.", min=0, max=255)
    ] = 4,
    steps: Annotated[int, typer.Option(help="Of the attack.", min=1)] = 20,
    crop: Crop = 256,
    every: Every = 1,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    plan: OnlyPlan = False,
    out: Out = Path("runs/compare-models"),
    device: Device = "auto",
    memory: Memory = "",
    workers: Workers = 1,
    seed: Seed = 0,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Tell which of several models to take: quality, robustness, time and memory on your own photographs, at once.

    Quality, faithfulness to the input, what is left under mild damage and under attack, time and memory: one table and
    one page, with bicubic interpolation beside them. What was stopped goes on with the same command.
    """
    named = all_addressed(models, scale, weights, range, argument)
    scored = (_METRIC if low_resolution else "") if metric is None else metric
    study = Choice(
        models=tuple(dict.fromkeys([*named, "bicubic"])), images=tuple(images or ("samples",)),
        high_resolution=not low_resolution, metric=scored, level=level, steps=steps, crop=crop, every=every,
        scale=load_defended(named[0]).scale, seed=seed, skip_broken=skip_broken,
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers, memory=parse_memory(memory))
    plan_and_run(study, str(out), machine, only_plan=plan, gates=Gates(fail_under or (), junit, summary))
