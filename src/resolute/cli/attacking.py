"""Commands about super-resolution models: demo, attack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.attacks.names import ATTACKS, OBJECTIVES
from resolute.attacks.registry import AttackTable
from resolute.cli.app import (
    Argument,
    Device,
    Memory,
    Out,
    Precision,
    Range,
    Scale,
    Seed,
    SkipBroken,
    Weights,
    addressed,
    app,
    parse_epsilon,
    parse_memory,
    parse_precision,
)
from resolute.cli.studying import FAILED, announce, run_cells
from resolute.defences import load_defended
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine
from resolute.engine.remote import Place
from resolute.engine.running import plan_of
from resolute.report.export import write_outputs
from resolute.report.writing import write_report
from resolute.studies.attacked import AttackRecord
from resolute.studies.demonstration import submissions
from resolute.studies.grid import Grid
from resolute.studies.grid_tables import images_table
from resolute.studies.kinds import read_study, with_options
from resolute.studies.verdicts import sentences_of
from resolute.terminal import console, name_file, show_results


@app.command(epilog="Example:  [bold]resolute demo[/bold]")
def demo(
    out: Out = Path("runs/demo"), device: Device = "auto", precision: Precision = "float32", seed: Seed = 0
) -> None:
    """Show an attack, a defence and a gamed score that is caught.

    On sample photographs. Writes one page and prints its tables. Takes about a minute on two cores, and needs no
    network and no data.
    """
    grid = with_options(
        read_study("demo"), {"--seed": ("seed", seed), "--precision": ("precision", parse_precision(precision))}
    )
    machine = Machine(device=runtime.resolve_device(device))
    folders = (out, out / "scores")
    for study, folder in zip((grid, submissions(folders[1], machine.device)), folders, strict=True):
        plan = plan_of(study)
        announce(plan, folder, machine)
        records, _ = run_cells(plan, Place(folder), machine)
        if not records:
            raise typer.Exit(FAILED)
        if alarm := show_results(study, records):
            console.print(escape(alarm), highlight=False)
    name_file("the page with the pictures", write_report(folders, out / "report.html"))


@app.command(
    epilog="Example:  [bold]resolute attack edsr-s photo.png --attack ifgsm --epsilon 4/255[/bold]\n\n"
    "Any network, by its code:  [bold]resolute attack nets/rlfn.py:RLFN photo.png --weights rlfn.pth --scale 4 "
    "--range 255[/bold]"
)
def attack(
    model: Annotated[
        str, typer.Argument(help="Built-in name (see `resolute models`), a weights file, or FILE.py:NAME.")
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Low-resolution images, or folders of them; with the high-resolution file of each beside it, as "
            "NAME_HR and NAME_LR or NAME and NAMEx4, also measured against that."
        ),
    ],
    kind: Annotated[str, typer.Option("--attack", help=f"One of {', '.join(ATTACKS)}, or FILE.py:NAME.")] = "ifgsm",
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel, as 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[int | None, typer.Option(help="Gradient steps; the attack's own number if not given.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Independent runs; the worst case is kept.")] = None,
    objective: Annotated[
        str | None, typer.Option(help=f"Climb this instead: {', '.join(OBJECTIVES)} or FILE.py:NAME.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer of a feature objective, or all-relu, all-conv, body.*; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Any field of the attack or its objective, as queries=500, source=edsr-s, mask=attacked or "
            "region=0,0,0.5,1; may be repeated."
        ),
    ] = None,
    ground_truth: Annotated[
        bool,
        typer.Option(
            "--ground-truth", help="The images are high-resolution: shrink them first, and measure against them."
        ),
    ] = False,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    out: Out = Path("runs/attack"),
    device: Device = "auto",
    precision: Precision = "float32",
    memory: Memory = "",
    seed: Seed = 0,
) -> None:
    """Attack a model on your images; write the attacked images, their outputs and the figures.

    Bicubic interpolation is attacked beside it, for comparison. Writes, for every image, IMAGE.attacked.png,
    IMAGE.sr-clean.png and IMAGE.sr-attacked.png, and figures.json. All figures belong to the files as saved. An image
    that takes more than --memory is attacked in tiles, one after the other, and its outputs are kept if they fit. Runs
    into one folder add up: of an image that is there already the pictures are called IMAGE.MODEL.
    """
    machine = Machine(device=runtime.resolve_device(device), memory=parse_memory(memory))
    table = AttackTable.typed(
        option or (), kind, objective=objective, layers=tuple(layer or ()), steps=steps, restarts=restarts
    )
    address = addressed(model, scale, weights, range, argument)
    attacked = load_defended(address)
    # Layers that are named are those of the model alone.
    beside = () if layer or "layers" in table.options else ("bicubic",)
    study = Grid(
        name="attack", models=(address, *beside), attacks=(table,), epsilons=(round(parse_epsilon(epsilon) * 255, 6),),
        images=tuple(str(image) for image in images), high_resolution=ground_truth, scale=attacked.scale, seed=seed,
        precision=parse_precision(precision), outputs=True, skip_broken=skip_broken,
    )  # fmt: skip
    plan = Plan(study, study.cells_of([attacked, *(load_defended(name, attacked.scale) for name in beside)]))
    found, failures = run_cells(plan, Place(out), machine)
    records = [record for record in found if isinstance(record, AttackRecord)]
    if not records:
        raise typer.Exit(FAILED)
    own = [record for record in records if record.model != "bicubic"] or records
    written = write_outputs(own, out)
    console.print(images_table(records).terminal())
    for sentence in (*sentences_of(records, {}), *(f"{doubt}." for doubt in plan.doubts())):
        console.print(escape(sentence), highlight=False)
    console.print(f"{len(written)} images and figures.json are in [bold]{escape(str(out))}[/bold]", soft_wrap=True)
    if failures:
        raise typer.Exit(FAILED)
