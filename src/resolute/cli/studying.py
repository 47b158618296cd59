"""The command that runs a study, and what other commands need of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.cli.app import (
    Argument,
    Device,
    Memory,
    Precision,
    Range,
    Scale,
    SkipBroken,
    Weights,
    Workers,
    all_addressed,
    app,
    check_folder,
    check_seeds,
    parse_epsilon,
    parse_memory,
    parse_precision,
)
from resolute.cli.gating import UNGATED, FailUnder, Gates, JUnit, Summary
from resolute.cli.records import tell_bad
from resolute.engine.bench import Failure, Found
from resolute.engine.estimate import estimate
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine
from resolute.engine.remote import Place, at_place
from resolute.engine.running import plan_of, run
from resolute.engine.store import Store
from resolute.engine.workers import prepare
from resolute.errors import ConfigError, GateError
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study, with_options
from resolute.studies.record import Record
from resolute.studies.study import Study, count
from resolute.terminal import StudyDisplay, console, errors, name_file, plan_in_words, show_results, shown_progress

FAILED = 8

# Cells that are not worth an estimate: the display tells soon how long they take.
FEW = 8


@app.command(epilog="Example:  [bold]resolute study bsd100 --images BSD100/ --model edsr-s --model mine.pth[/bold]")
def study(
    source: Annotated[str, typer.Argument(help="A study in TOML, or the name of a built-in one.")],
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Images, folders, NAME=FOLDER of a data set or FILE.py:NAME, instead of the study's; may be repeated."
        ),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models, instead of the study's; may be repeated.")] = None,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    every: Annotated[int | None, typer.Option(help="Take each n-th image only.", min=1)] = None,
    skip_broken: SkipBroken = False,
    budget: Annotated[
        list[str] | None, typer.Option(help="Budgets, such as 4/255, instead of the study's; may be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seeds, instead of the study's; may be repeated.", callback=check_seeds)
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Noisy copies behind a smoothed score, or draws behind a CLEVER index.", min=1)
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first answer in minutes: fewer images, budgets and steps, no data needed."),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what is to be done and what it will cost, and stop.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder for the results, or s3://BUCKET/FOLDER and the like; runs/NAME if not given.",
            callback=check_folder,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "float32",
    memory: Memory = "",
    workers: Workers = 1,
    batch: Annotated[
        int,
        typer.Option(
            help="Cells handed out at a time; 0 for 1 on a CPU and 32 elsewhere.", min=0, rich_help_panel="Machine"
        ),
    ] = 0,
    ray: Annotated[
        str, typer.Option(help="Run on Ray: local, auto or the address of a cluster.", rich_help_panel="Machine")
    ] = "",
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Run a grid of models, attacks, budgets and images; print a table and write a report.

    Runs into one folder add up: start with every tenth image, and go on with all of them. A run that was stopped,
    however, goes on with the same command. Data sets that a study names are looked for in the folder that
    RESOLUTE_DATA names; --quick does without.
    """
    planned = read_study(source)
    if quick:
        if not isinstance(planned, Grid):
            raise ConfigError(f"the study {planned.name} has no quick form; leave out --quick")
        planned = planned.quickly()
    budgets = tuple(round(parse_epsilon(text, "--budget") * 255, 6) for text in budget or ())
    models = all_addressed(model or (), scale, weights, range, argument)
    options: dict[str, tuple[str, object]] = {
        "--images": ("images", tuple(images or ())),
        "--model": ("models", models),
        "--every": ("every", every),
        "--skip-broken": ("skip_broken", skip_broken),
        "--budget": ("epsilons", budgets),
        "--seed": ("seeds", tuple(seed or ())),
        "--samples": ("samples", samples),
        "--precision": ("precision", "" if precision == "float32" else parse_precision(precision)),
    }
    if isinstance(planned, Grid) and planned.clever is not None and samples is not None:
        options["--samples"] = ("clever", dataclasses.replace(planned.clever, samples=samples))
    planned = with_options(planned, options)
    machine = Machine(
        device=runtime.resolve_device(device), workers=workers, batch=batch, memory=parse_memory(memory), ray=ray
    )
    gates = Gates(fail_under or (), junit, summary)
    plan_and_run(planned, out or str(Path("runs") / planned.name), machine, only_plan=plan, gates=gates)


def plan_and_run(study: Study, out: str, machine: Machine, *, only_plan: bool, gates: Gates = UNGATED) -> None:
    """Plan a study, say what it will cost, and run it unless only the plan is wanted."""
    gates.parsed(study)
    with at_place(out) as place:
        with shown_progress():
            cells = plan_of(study)
        announce(cells, place.folder, machine)
        if only_plan:
            tell_bad([place.folder], torn=False)
        else:
            run_study(cells, place, machine, gates)


def announce(plan: Plan, folder: Path, machine: Machine) -> None:
    """Say what is to be done and what it will cost."""
    store = Store(folder)
    records, bad = store.read_all()
    units = plan.units({record.key for record in records if store.whole(record)}, machine.cells)
    if machine.workers > 1 and units:
        prepare()
    with shown_progress() as show:
        cost = estimate(plan, units, machine, lambda done, total: show(done, total, "trying a few steps"))
    left = sum(len(unit.cells) for unit in units)
    torn = sum(line.torn for line in bad)
    if torn and left:
        console.print(f"{count(torn, 'torn line')} of a stopped run left out; what it held is done again")
    console.print(plan_in_words(plan, left, cost, machine), highlight=False, soft_wrap=True)


def announce_and_run(plan: Plan, place: Place, machine: Machine, gates: Gates = UNGATED, *, dear: bool = False) -> Path:
    """Run a study, and say before what it will cost where its cells are many, or dear; see ``run_study``."""
    gates.parsed(plan.study)
    if dear or len(plan) > FEW:
        announce(plan, place.folder, machine)
    return run_study(plan, place, machine, gates)


def run_study(plan: Plan, place: Place, machine: Machine, gates: Gates = UNGATED) -> Path:
    """Run a study, print what came out, write its report and return its path.

    Raises:
        RefutedError, FlaggedError, GateError: an attack refuted a certificate, a submission is flagged, or a figure
            does not keep its bound; the page is written all the same.
        BadRecordsError: the folder also holds lines that are no records.
    """
    from resolute.report.writing import write_report

    gates.parsed(plan.study)
    records, failures = run_cells(plan, place, machine)
    if not records:
        raise typer.Exit(FAILED)
    alarm = show_results(plan.study, records)
    doubts = plan.doubts()
    # The warning at loading may be hours away.
    for doubt in doubts:
        console.print(escape(f"{doubt}."), highlight=False)
    page = write_report([place.folder], place.folder / "report.html")
    place.push_all()
    name_file("report", place.name_of(page))
    missed: GateError | ConfigError | None = None
    try:
        gates.passed(plan.study, records, doubts)
    except (GateError, ConfigError) as error:
        missed = error
    # Files for others are written by now; of several codes the first of these counts.
    if alarm:
        raise plan.study.alarmed(alarm)
    if failures:
        raise typer.Exit(FAILED)
    tell_bad([place.folder], torn=False)
    if missed is not None:
        raise missed
    return page


def run_cells(plan: Plan, place: Place, machine: Machine) -> tuple[list[Record], list[Failure]]:
    """Run a study's cells under a live display, and say what could not be computed."""
    with StudyDisplay() as live:

        def on_found(found: Found) -> None:
            place.push(found)
            live.found(found)

        records = run(plan, place.folder, machine, progress=live.step, on_found=on_found)
    for failure in live.failures[:5]:
        told = failure.reason.removeprefix(failure.title).lstrip(": ")
        errors.print(f"[yellow]not computed:[/yellow] {escape(f'{failure.title}: {told}')}", soft_wrap=True)
    if live.failures:
        told = f"{len(live.failures)} of {len(plan)} were not computed"
        where = escape(place.name_of(place.folder / "failed.jsonl"))
        errors.print(f"{told}, see {where}; the same command tries again")
    return records, live.failures
