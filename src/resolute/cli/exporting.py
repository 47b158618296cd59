"""The command that writes models for other programs: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import Argument, Range, Scale, Weights, addressed, app
from resolute.defences import load_defended
from resolute.errors import ConfigError
from resolute.export import TOLERANCE, export
from resolute.models.scorers import load_scorer
from resolute.terminal import console


@app.command("export", epilog="Example:  [bold]resolute export edsr-s-entropy edsr.onnx[/bold]")
def export_model(
    model: Annotated[
        str, typer.Argument(help="Built-in name, a weights file or FILE.py:NAME: a model, or a denoiser.")
    ],
    out: Annotated[Path, typer.Argument(help="File to write: .onnx, or .pt2 for torch.export.load.")],
    metric: Annotated[bool, typer.Option("--metric", help="The model is a quality metric.")] = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a model for programs without Resolute: any batch, any size, checked against the model itself.

    Nothing is written where file and model differ. A metric's range and a model's card go into an ONNX file, and come
    back when Resolute loads it.
    """
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already; choose another name, or write over it with --force")
    address = addressed(model, scale, weights, range, argument)
    if metric and address != model:
        raise ConfigError("--scale, --weights, --range and --argument are about a model; leave them or --metric out")
    made = export(load_scorer(model) if metric else load_defended(address), out)
    console.print(
        f"[bold]{escape(str(made.path))}[/bold] ({made.form}) differs from the model by {made.difference:.1g} at "
        f"most, {made.relative:.1g} of its largest output; {TOLERANCE:g} is allowed",
        soft_wrap=True,
    )
