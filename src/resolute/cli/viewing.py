"""The command that shows what studies came to: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import app
from resolute.cli.records import tell_bad
from resolute.errors import ConfigError
from resolute.report.assets import MEGABYTES
from resolute.terminal import console, name_file


@app.command(epilog="Example:  [bold]resolute report runs/demo[/bold]")
def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of one or more studies.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two studies of one kind: show what changed from the first to the second, instead."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A page (.html) or tables (.md); if not given, report.html in the first folder, or comparison.html in "
            "the second of two."
        ),
    ] = None,
    megabytes: Annotated[
        float, typer.Option(help="That the page may take; pictures are left out, the mildest first.", min=0.1)
    ] = MEGABYTES,
) -> None:
    """Make one page, or Markdown tables, from the results of studies."""
    from resolute.report.comparison import compare_folders, write_comparison
    from resolute.report.writing import write_report

    if (compare is None) != bool(folders):
        raise ConfigError("name the folders of studies to report on, or two of them behind --compare, not both")
    if compare is not None:
        if out is not None and out.suffix != ".html":
            raise ConfigError("--compare writes a page; give --out a name that ends in .html")
        found = compare_folders(*compare)
        page = write_comparison(found, out or compare[1] / "comparison.html")
        for sentence in found.sentences:
            console.print(escape(sentence), highlight=False)
    else:
        assert folders is not None
        page = write_report(folders, out or folders[0] / "report.html", megabytes=megabytes)
    name_file("report", page)
    tell_bad(compare or folders or ())
