"""The command about damage that nobody meant: survive."""

from __future__ import annotations

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
    Photographs,
    Range,
    Scale,
    Seed,
    SharedOut,
    SkipBroken,
    Weights,
    Workers,
    all_addressed,
    app,
    parse_memory,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import plan_and_run
from resolute.corruptions import CORRUPTIONS
from resolute.defences import load_defended
from resolute.engine.queue import Machine
from resolute.runtime import resolve_device
from resolute.studies.survival import Survival


@app.command(epilog="Example:  [bold]resolute survive mine.pth --images photos/[/bold]")
def survive(
    models: Models,
    images: Photographs = None,
    low_resolution: Annotated[
        bool, typer.Option("--low-resolution", help="The images are inputs as they are; nothing is known of the truth.")
    ] = False,
    corruption: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(CORRUPTIONS)}, instead of all; may be repeated.")
    ] = None,
    crop: Crop = 0,
    every: Every = 1,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    plan: OnlyPlan = False,
    out: SharedOut = "runs/survive",
    device: Device = "auto",
    memory: Memory = "",
    workers: Workers = 1,
    seed: Seed = 0,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """See what a super-resolution model survives: JPEG, WebP, noise, blur and the like on its input, five severities.

    Bicubic interpolation goes through the same. Told are the PSNR against the truth, and the consistency: whether the
    output, shrunk again, still fits the input. What was stopped goes on with the same command.
    """
    named = all_addressed(models, scale, weights, range, argument)
    study = Survival(
        models=tuple(dict.fromkeys([*named, "bicubic"])), images=tuple(images or ("samples",)),
        high_resolution=not low_resolution, corruptions=tuple(corruption or CORRUPTIONS), crop=crop, every=every,
        scale=load_defended(named[0]).scale, seed=seed, skip_broken=skip_broken,
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers, memory=parse_memory(memory))
    gates = Gates(fail_under or (), junit, summary)
    plan_and_run(study, out, machine, only_plan=plan, gates=gates)
