"""Commands that list models and metrics, or describe one; the lists do not wait for PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from resolute.cli.app import Argument, Range, Scale, Weights, addressed, app
from resolute.figures import figure
from resolute.plugins import GROUPS, Group, Plugin, plugins
from resolute.printing import console
from resolute.shipped import shipped
from resolute.table import Column, Row, Table, row

Json = Annotated[
    bool, typer.Option("--json", help="As JSON: what the columns mean, and the values as measured, one row a name.")
]

_ONE: dict[Group, str] = {
    "models": "model", "attacks": "attack", "objectives": "objective", "datasets": "data set",
    "studies": "kind of study",
}  # fmt: skip

_PARAMETERS = Column("weights")


def show(table: Table, json: bool) -> None:
    """Print a table for a person, or for a program."""
    if json:
        print(table.json(), end="")  # noqa: T201, for rich would fold long lines
    else:
        console.print(table.terminal())


@app.command(epilog="Example:  [bold]resolute models[/bold]")
def models(
    model: Annotated[
        str | None, typer.Argument(help="Show this one, by name, file or FILE.py:NAME, with its layers.")
    ] = None,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    json: Json = False,
) -> None:
    """List the built-in models and what other packages add, or describe one."""
    if model is not None:
        from resolute.defences import load_defended
        from resolute.models.tables import model_details

        show(model_details(load_defended(addressed(model, scale, weights, range, argument))), json)
        return
    show(_models_table(), json)
    added = [plugin for group in GROUPS for plugin in plugins(group)]
    if added and not json:
        console.print(_plugins_table(added).terminal())


@app.command(epilog="Example:  [bold]resolute metrics[/bold]")
def metrics(json: Json = False) -> None:
    """List the built-in quality metrics, and say which others have a name."""
    show(_scorers_table(), json)


def _models_table() -> Table:
    """Return the models, one a row; a denoiser does not scale."""
    columns = [
        Column("name", whole=True), Column("network"), Column("scale"), _PARAMETERS,
        Column("validation PSNR", "dB", better="higher"),
    ]  # fmt: skip
    rows: list[Row] = []
    for one in shipped("restorer"):
        scale = f"x{one.card['scale']}" if one.card["scale"] > 1 else "denoiser"
        rows.append(row(one.name, one.network, scale, one.parameters, one.validated("psnr_y", "psnr_rgb")))
    rows.append(row("bicubic", "Bicubic", "x4", 0, None))
    return Table("", columns, rows, ["resolute models NAME says more: sizes, layers, training, licence, hash."])


def _scorers_table() -> Table:
    """Return the quality metrics, one a row."""
    columns = [
        Column("name", whole=True), Column("network"), Column("range"), Column("better"), _PARAMETERS,
        Column("validation SROCC", meaning="rank correlation with people", digits=3, better="higher"),
    ]  # fmt: skip
    rows: list[Row] = []
    for one in shipped("scorer"):
        span, better = (figure(one.card[end], 0) for end in ("low", "high")), one.card["lower_better"]
        facts = (" to ".join(span), "lower" if better else "higher", one.parameters, one.validated("srocc"))
        rows.append(row(one.name, one.network, *facts))
    return Table("", columns, rows, ["Also niqe, brisque, pyiqa:NAME, piq:NAME, torchmetrics:NAME and FILE.py:NAME."])


def _plugins_table(added: Sequence[Plugin]) -> Table:
    """Return what other packages add, one name a row."""
    columns = [Column("added by packages"), Column("what"), Column("package")]
    return Table("", columns, [row(one.name, _ONE[one.group], f"{one.package} {one.version}") for one in added])
