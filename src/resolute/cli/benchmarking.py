"""The command that runs the standard suite: benchmark."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from resolute.cli.app import (
    Argument,
    Device,
    Memory,
    Models,
    OnlyPlan,
    Range,
    Scale,
    SharedOut,
    Weights,
    Workers,
    all_addressed,
    app,
    parse_memory,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import plan_and_run
from resolute.engine.queue import Machine
from resolute.runtime import resolve_device
from resolute.studies.kinds import SUITE, standard_suite

# Images of the quick form at most.
_QUICK = 4


@app.command(epilog="Example:  [bold]resolute benchmark mine.pth --images BSD100/[/bold]")
def benchmark(
    models: Models,
    images: Annotated[
        str | None,
        typer.Option(help="Folder of the 100 images of BSD100; if not given, it is looked for below RESOLUTE_DATA."),
    ] = None,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first answer in a minute, on sample photographs or a few of --images, in a folder whose name ends "
            "in -quick; to be compared with nothing.",
        ),
    ] = False,
    plan: OnlyPlan = False,
    out: SharedOut = f"runs/{SUITE}",
    device: Device = "auto",
    memory: Memory = "",
    workers: Workers = 1,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Attack models by the standard suite, for figures that can be compared.

    The suite has no setting: twenty crops of BSD100 shrunk by four, changes of 1, 4 and 8/255, random signs as the
    floor, the paper's I-FGSM and FDA, FDA on all activations, APGD on the output and on the distance from the truth,
    and Square; the worst of them on each image counts, for the output's distance from the clean one (SR-PSNR) and from
    the truth. Bicubic interpolation goes through the same. What was stopped goes on with the same command.
    """
    named = all_addressed(models, scale, weights, range, argument)
    suite = standard_suite()
    if quick:
        suite = suite.quickly()
    suite = dataclasses.replace(suite, models=tuple(dict.fromkeys([*named, *suite.models])))
    if images is not None:
        folder = images.removeprefix("bsd100=")  # as studies write it
        suite = dataclasses.replace(suite, images=(folder,) if quick else (f"bsd100={folder}",))
    if quick:
        photos = len(dataclasses.replace(suite, every=1).photos())
        suite = dataclasses.replace(suite, every=max(suite.every, -(-photos // _QUICK)))
    machine = Machine(device=resolve_device(device), workers=workers, memory=parse_memory(memory))
    gates = Gates(fail_under or (), junit, summary)
    plan_and_run(suite, f"{out}-quick" if quick else out, machine, only_plan=plan, gates=gates)
