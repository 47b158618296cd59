"""The command that doubts a defence: check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resolute.cli.app import (
    Argument,
    Device,
    OnlyPlan,
    Range,
    Scale,
    Seed,
    SkipBroken,
    Weights,
    Workers,
    addressed,
    app,
    check_folder,
    parse_levels,
)
from resolute.cli.studying import plan_and_run
from resolute.engine.queue import Machine
from resolute.runtime import resolve_device
from resolute.studies.check import SIDE, Check
from resolute.studies.check_suite import CheckSuite


@app.command(epilog="Example:  [bold]resolute check edsr-s+round8[/bold]")
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="Built-in name, weights file or FILE.py:NAME, with defences around it if wanted, as edsr-s+mix=0.5."
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"Low-resolution images or folders, instead of three samples; the middle {SIDE} x {SIDE} pixels of "
            "each are used, and of pairs the low-resolution file. May be repeated."
        ),
    ] = None,
    skip_broken: SkipBroken = False,
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel, as 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[
        int, typer.Option(help="Gradient steps; more where the loss has not plateaued.", min=2)
    ] = CheckSuite.steps,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the work: finds what is broken badly.")] = False,
    twin: Annotated[
        str | None, typer.Option(help="The same model without its defence, by name or file, to transfer attacks from.")
    ] = None,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    plan: OnlyPlan = False,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results; STUDY/check puts them on the page of a study.", callback=check_folder
        ),
    ] = Path("runs/check"),
    device: Device = "auto",
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Check whether a model only looks robust: masked gradients, randomness, attacks that were too weak.

    Attacks the model in many ways that should agree, and raises a flag where they do not. A flag is a finding, not
    an error; the page says what each means and what to do. Takes about a minute on two free cores, several
    times as long for random resizing.
    """
    suite = CheckSuite(epsilon=parse_levels(epsilon), steps=steps, seed=seed)
    study = Check(
        models=(addressed(model, scale, weights, range, argument),),
        images=tuple(map(str, images or ())),
        twin=twin or "",
        suite=suite.quickly() if quick else suite,
        skip_broken=skip_broken,
    )
    machine = Machine(device=resolve_device(device), workers=workers)
    plan_and_run(study, str(out), machine, only_plan=plan)
