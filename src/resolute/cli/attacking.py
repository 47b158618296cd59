"""Commands about super-resolution models: demo, attack, study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.attacks.registry import KINDS, OBJECTIVES, AttackTable
from resolute.cli.app import Device, Out, Precision, Seed, app, guarded, parse_epsilon
from resolute.defences import load_defended
from resolute.errors import ConfigError
from resolute.studies.demonstration import certification, write_photographs
from resolute.studies.export import write_outputs
from resolute.studies.kinds import read_study, with_options
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.store import Record
from resolute.studies.study import Study
from resolute.tables import results_table
from resolute.terminal import certify_images, console, run_kind, show_results, shown_progress


@app.command(epilog="Example:  [bold]resolute demo[/bold]")
def demo(
    out: Out = Path("runs/demo"), device: Device = "auto", precision: Precision = "float32", seed: Seed = 0
) -> None:
    """Attack the two built-in models on sample photographs, then certify and game the quality scores of the same ones.

    Prints tables and writes two reports. Takes up to three minutes on two cores, needs no network and no data.
    """
    with guarded():
        pages = [run_study(dataclasses.replace(Study.read("demo"), seed=seed), out, device, precision)]
        quality = out / "quality"
        pages.append(certify_images(certification(seed), [write_photographs(quality / "photos")], quality, device))
        console.print(f"both reports: {' '.join(f'[bold]{escape(str(page))}[/bold]' for page in pages)}")


@app.command(epilog="Example:  [bold]resolute attack edsr-s photo.png --attack ifgsm --epsilon 4/255[/bold]")
def attack(
    model: Annotated[str, typer.Argument(help="Built-in name (see `resolute models`) or a weights file.")],
    images: Annotated[list[Path], typer.Argument(help="Low-resolution images, or folders of them.")],
    kind: Annotated[str, typer.Option("--attack", help=f"One of {', '.join(KINDS)}.")] = "ifgsm",
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel, as 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[int | None, typer.Option(help="Gradient steps; the attack's own number if not given.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Independent runs; the worst case is kept.")] = None,
    objective: Annotated[str | None, typer.Option(help=f"Climb this instead: {', '.join(OBJECTIVES)}.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer of a feature objective; may be repeated.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="More of the attack, as queries=500, source=edsr-s or mask=0,0,0.5,1; may be repeated."),
    ] = None,
    ground_truth: Annotated[
        bool, typer.Option(help="The images are high-resolution: shrink them first, and measure against them.")
    ] = False,
    out: Out = Path("runs/attack"),
    device: Device = "auto",
    precision: Precision = "float32",
    seed: Seed = 0,
) -> None:
    """Attack a model on your images; write the attacked images, their outputs and the figures.

    Writes, for every image, IMAGE.attacked.png, IMAGE.sr-clean.png and IMAGE.sr-attacked.png, and figures.json. All
    figures belong to the files as saved.
    """
    with guarded():
        table = AttackTable.typed(
            option or (), kind=kind, objective=objective, layers=tuple(layer or ()), steps=steps, restarts=restarts
        )
        study = Study(
            name="attack",
            models=(model,),
            attacks=(table,),
            epsilons=(round(parse_epsilon(epsilon) * 255, 6),),
            images=tuple(str(image) for image in images),
            high_resolution=ground_truth,
            scale=load_defended(model).scale,
            seed=seed,
        )
        records = run_cells(study, out, device, precision)
        written = write_outputs(study, records, out)
        console.print(results_table(records))
        console.print(f"{len(written)} images and figures.json are in [bold]{escape(str(out))}[/bold]")


@app.command(epilog="Example:  [bold]resolute study bsd100 --images BSD100/ --model edsr-s --model mine.pth[/bold]")
def study(
    source: Annotated[str, typer.Argument(help="A study in TOML, or the name of a built-in one.")],
    images: Annotated[
        list[str] | None,
        typer.Option(help="Images, folders, or NAME=FOLDER of a data set, instead of the study's; may be repeated."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models, instead of the study's; may be repeated.")] = None,
    every: Annotated[int | None, typer.Option(help="Take each n-th image only.", min=1)] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Budgets, such as 4/255, instead of the study's; may be repeated.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Noisy copies behind a smoothed score, or draws behind a CLEVER index.", min=1)
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first answer in minutes: fewer images, budgets and steps, no data needed."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME if not given.")] = None,
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Run a grid of models, attacks, budgets and images; print a table and write a report.

    Runs into one folder add up: start with every tenth image, and go on with all of them. Data sets that a study names
    are looked for in the folder that RESOLUTE_DATA names; --quick does without.
    """
    with guarded():
        planned = read_study(source)
        if quick and not isinstance(planned, Study):
            raise ConfigError(f"the study {planned.name} has no quick form; leave out --quick")
        if quick and isinstance(planned, Study):
            planned = planned.quickly()
        budgets = tuple(round(parse_epsilon(text) * 255, 6) for text in budget or ())
        options: dict[str, tuple[str, object]] = {
            "--images": ("images", tuple(images or ())),
            "--model": ("restorers" if isinstance(planned, MetricAsLoss) else "models", tuple(model or ())),
            "--every": ("every", every),
            "--budget": ("epsilons", budgets),
            "--samples": ("samples", samples),
        }
        if isinstance(planned, Study) and planned.clever is not None and samples is not None:
            options["--samples"] = ("clever", dataclasses.replace(planned.clever, samples=samples))
        planned = with_options(planned, options)
        place = out or Path("runs") / planned.name
        if isinstance(planned, Study):
            run_study(planned, place, device, precision)
        elif precision != "float32":
            raise ConfigError(f"the study {planned.name} has nothing for --precision to set; leave it out")
        else:
            run_kind(planned, place, device)


def run_study(study: Study, out: Path, device: str, precision: str) -> Path:
    """Run a study, print what came out, write its report and return its path."""
    from resolute.report import write_report

    records = run_cells(study, out, device, precision)
    show_results(study, records, out)
    page = write_report([out], out / "report.html")
    console.print(f"report: [bold]{escape(str(page))}[/bold]")
    return page


def run_cells(study: Study, out: Path, device: str, precision: str) -> list[Record]:
    """Run a study's cells under a progress bar."""
    place = runtime.resolve_device(device)
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision is float32 or bfloat16, not {precision!r}")
    with shown_progress() as show:
        return study.run(out, device=place, precision=precision, progress=show)  # pyright: ignore[reportArgumentType]
