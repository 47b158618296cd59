"""The command that trains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.cli.app import Device, app, check_folder, check_seeds
from resolute.terminal import console, shown_progress
from resolute.training.recipe import adjusted, read_recipe


@app.command(epilog="Example:  [bold]resolute train edsr-s-entropy --data photos/ --out runs/mine[/bold]")
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe in TOML, or the name of a built-in one, such as rcan or rcan-entropy.")
    ],
    data: Annotated[
        list[Path], typer.Option(help="Folder of images, for a quality metric with scores in mos.csv; may be repeated.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run; runs/NAME if not given.", callback=check_folder)
    ] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes to train on together.", min=1)] = 1,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.", callback=check_seeds)] = None,
    metric: Annotated[
        str | None, typer.Option(help="Quality metric in the loop of a denoiser, a name or a file, not the recipe's.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="File of the frozen features that a quality metric or SRGAN rests on.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Weights to go on from, a file or the run of a recipe beside this one.")
    ] = None,
) -> None:
    """Train a model, a quality metric or a denoiser from a recipe; a killed run goes on where it stopped.

    Writes NAME.safetensors, its model card NAME.md, checkpoint.pt, at least once a minute, and log.jsonl with every
    validation.
    """
    from lightning_fabric.utilities import rank_zero_only

    from resolute.training.loop import train as run_training
    from resolute.training.task import describe_step, describe_validation

    planned = adjusted(read_recipe(recipe), seed=seed, metric=metric, backbone=backbone, start=start)
    validated = ""
    # One of several processes shows it.
    with shown_progress(silent=os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0") as show:

        def on_read(done: int, total: int) -> None:
            show(done, total, "reading images")

        def on_step(done: int, figures: dict[str, float]) -> None:
            nonlocal validated
            if held_out := describe_validation(figures):
                validated = f"  validation {held_out}"
            show(done, planned.optimizer.steps, f"training  {describe_step(figures)}{validated}")

        place = out or Path("runs") / planned.name
        trained = run_training(
            planned, data, place, device=runtime.resolve_device(device), devices=devices, on_step=on_step,
            on_read=on_read,
        )  # fmt: skip
    if last := describe_validation(trained.figures):
        rank_zero_only(console.print)(f"validation {last}")
    rank_zero_only(console.print)(f"weights and model card: [bold]{escape(str(trained.weights))}[/bold]")
