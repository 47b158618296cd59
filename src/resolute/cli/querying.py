"""The command that asks records in SQL."""

from __future__ import annotations

import contextlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from resolute.cli.app import app
from resolute.cli.records import tell_bad
from resolute.engine.query import QueryResult, documentation, find_runs, view_columns
from resolute.engine.query import query as ask
from resolute.engine.remote import at_place
from resolute.errors import ConfigError
from resolute.files import write_text
from resolute.studies.kinds import RECORDS
from resolute.table.fitting import FittingTable
from resolute.terminal import console


class Format(Enum):
    """How an answer is written."""

    table = "table"
    csv = "csv"
    parquet = "parquet"
    json = "json"


@app.command(
    epilog='Example:  [bold]resolute query "SELECT model, avg(sr_psnr) FROM attacks GROUP BY model" --runs runs/[/bold]'
)
def query(
    sql: Annotated[str | None, typer.Argument(help="Over the views that --columns lists, such as attacks.")] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(help="Folders of studies, or above them, or s3://BUCKET/FOLDER and the like; may be repeated."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Of the answer.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="File for the answer; needed for parquet.")] = None,
    show: Annotated[bool, typer.Option("--columns", help="List the columns, and stop.")] = False,
) -> None:
    """Ask the records of studies in SQL (DuckDB); it changes none of them."""
    if show:
        if out is not None:
            write_text(out, documentation())
            return
        for view in RECORDS:
            console.print(_columns_table(view))
        return
    if not sql:
        raise ConfigError('give a query, such as "SELECT * FROM attacks LIMIT 5"; --columns lists what there is')
    if form is Format.parquet and out is None:
        raise ConfigError("--format parquet writes a file; name it with --out")
    with contextlib.ExitStack() as places:
        folders = [places.enter_context(at_place(run, ".jsonl")).folder for run in runs or ["runs"]]
        found = find_runs(folders)
        _show(ask(sql, found, out if form is Format.parquet else None), form, out)
        tell_bad(found)


def _show(answer: QueryResult, form: Format, out: Path | None) -> None:
    text = {Format.csv: answer.csv, Format.json: answer.json}.get(form)
    if form is Format.parquet:
        console.print(f"{len(answer.rows)} rows in [bold]{escape(str(out))}[/bold]", soft_wrap=True)
    elif text is None and out is None:
        console.print(_answer_table(answer))
    elif text is None:
        raise ConfigError("--format table is for the terminal; choose csv, json or parquet with --out")
    elif out is None:
        typer.echo(text(), nl=False)
    else:
        write_text(out, text())


def _answer_table(answer: QueryResult) -> Table:
    table = FittingTable()
    for place, name in enumerate(answer.names):
        numbers = all(isinstance(row[place], int | float) for row in answer.rows if row[place] is not None)
        side = "right" if numbers else "left"
        table.add_column(escape(name), justify=side, no_wrap=numbers, overflow="fold")
    for row in answer.rows:
        table.add_row(*(f"{value:.6g}" if isinstance(value, float) else escape(str(value)) for value in row))
    return table


def _columns_table(view: str) -> Table:
    table = Table(title=view)
    for name in ("column", "type", "what it holds"):
        table.add_column(name, no_wrap=name != "what it holds")
    for column in view_columns(view):
        table.add_row(column.name, column.kind, escape(column.text))
    return table
