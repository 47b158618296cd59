"""Commands that show what is there: models, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import app, guarded
from resolute.defences import load_defended
from resolute.models.registry import built_in_models, load
from resolute.models.scorers import built_in_scorers, load_scorer
from resolute.tables import model_details, models_table, scorers_table
from resolute.terminal import console


@app.command(epilog="Example:  [bold]resolute models[/bold]")
def models(
    model: Annotated[str | None, typer.Argument(help="Show this one, by name or file, with its layers.")] = None,
) -> None:
    """List the built-in models, or describe one."""
    with guarded():
        if model is None:
            console.print(models_table([load(name) for name in [*built_in_models(), "bicubic"]]))
            if built_in_scorers():
                console.print(scorers_table([load_scorer(name) for name in built_in_scorers()]))
        else:
            console.print(model_details(load_defended(model)))


@app.command(epilog="Example:  [bold]resolute report runs/demo[/bold]")
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of one or more studies.")],
    out: Annotated[
        Path | None, typer.Option(help="A page (.html) or tables (.md); report.html in the first folder if not given.")
    ] = None,
) -> None:
    """Make one self-contained page, or Markdown tables, from the results of one or more studies."""
    from resolute.report.kinds import write_any

    with guarded():
        page = write_any(folders, out or folders[0] / "report.html")
        console.print(f"report: [bold]{escape(str(page))}[/bold]")
