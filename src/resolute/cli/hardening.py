"""The command that hardens: harden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import (
    Argument,
    Device,
    OnlyPlan,
    Precision,
    Range,
    Scale,
    Weights,
    addressed,
    app,
    check_folder,
    check_seeds,
    parse_levels,
    parse_precision,
)
from resolute.errors import ConfigError
from resolute.report.hardening import write_hardening
from resolute.terminal import console, errors, name_file, shown_progress
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.hardened import tables
from resolute.training.hardening import Watcher, harden
from resolute.training.recipe import hardening_methods
from resolute.training.task import Figures, describe_step, describe_validation

# Where hardening left the model no better than it was.
NO_BETTER = 9


@app.command("harden", epilog="Example:  [bold]resolute harden my_edsr_x4.pt --data photos/[/bold]")
def harden_model(
    model: Annotated[str, typer.Argument(help="Weights file, FILE.py:CLASS with --weights, or a built-in name.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Photographs, or folders of them, a hundred or more; NAMEx4 beside NAME is its input. May be repeated."
        ),
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Of training; ten if not given.", min=0.01, show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of training, instead of minutes: the same on every machine.", min=1)
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Largest change of a pixel, as 4/255, the default.", show_default=False)
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            help="Of every batch that is attacked, 0.2 if not given; a step takes longer with more.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How, with + between several: {', '.join(hardening_methods())}. What the recipe names if not given.",
            show_default=False,
        ),
    ] = None,
    clean_loss: Annotated[
        float | None,
        typer.Option(
            help="Clean PSNR that may be lost on photographs held out, in dB, 0.05 if not given: the more, the more "
            "robust. 0 for no limit.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help='A recipe in TOML with task = "harden", for the rest.')] = "harden",
    test: Annotated[
        list[Path] | None,
        typer.Option(
            help="Judge on these high-resolution images, by more attacks, instead of on photographs held out."
        ),
    ] = None,
    tested: Annotated[int, typer.Option(help="Images to judge on at most, spread evenly.", min=1)] = 20,
    crop: Annotated[
        int | None,
        typer.Option(
            help="Judge on the middle of each --test image only, of so many low-resolution pixels a side.",
            min=16,
            show_default=False,
        ),
    ] = None,
    plan: OnlyPlan = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result; runs/NAME-hardened if not given.", callback=check_folder)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.", callback=check_seeds)] = None,
    device: Device = "auto",
    precision: Precision = "float32",
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
) -> None:
    """Make a checkpoint robust in minutes: adversarial fine-tuning, weights back in the form in which they came.

    Writes NAME-hardened with the layout, keys and number type of the file that was given, for the program that it came
    from; a card; and a page with figures and pictures: clean PSNR, and what strong attacks leave, before and after, on
    images that were not trained on. Killed at any moment, the same command goes on.
    Exits with 9 where the model is no better than before.
    """
    if minutes is not None and steps is not None:
        raise ConfigError("give --minutes or --steps, not both")
    with shown_progress() as show:
        made = harden(
            addressed(model, scale, weights, range, argument), data, out, recipe=recipe, minutes=minutes, steps=steps,
            methods=None if method is None else method.split("+"), clean_loss=clean_loss,
            epsilon=None if budget is None else parse_levels(budget, "--budget"), share=share, seed=seed,
            test=test or (), tested=tested, crop=crop, device=device, precision=parse_precision(precision),
            watcher=_Display(show, only_plan=plan).watcher,
        )  # fmt: skip
    for sentence in made.sentences():
        console.print(escape(sentence), highlight=False)
    console.print(tables(made)[0].terminal())
    if made.note:
        console.print(escape(made.note), highlight=False)
    name_file("weights", made.weights)
    name_file("report", write_hardening(made.weights.parent))
    if not made.improved:
        raise typer.Exit(NO_BETTER)


# The fewest steps with which published networks were hardened, see docs/harden.md.
ENOUGH = 400


class _Display:
    """What goes on, in one line."""

    def __init__(self, show: Callable[[float, int, str], None], *, only_plan: bool) -> None:
        self._show, self._only_plan = show, only_plan
        self._steps = 0
        self._validated = ""
        self.watcher = Watcher(read=self._read, planned=self._planned, step=self._step, judged=show)

    def _read(self, done: int, total: int) -> None:
        self._show(done, total, "reading photographs")

    def _planned(self, recipe: HardenRecipe, seconds: float) -> None:
        self._steps = recipe.optimizer.steps
        minutes = self._steps * seconds / 60
        few = f" So few steps harden little: {ENOUGH} take {ENOUGH * seconds / 60:.0f} minutes."
        errors.print(
            f"training: {self._steps} steps of {seconds:.3g} s, {minutes:.1f} minutes in all; then judging, which can "
            f"take longer. What is done is not done again.{few if self._steps < ENOUGH / 2 else ''}",
            highlight=False,
            soft_wrap=True,
        )
        if self._only_plan:
            raise typer.Exit

    def _step(self, step: int, figures: Figures) -> None:
        if validation := describe_validation(figures):
            self._validated = f"  validation {validation}"
        if step == self._steps:
            errors.print(f"trained {step} steps:{self._validated}", highlight=False)
        self._show(step, self._steps, f"training  {describe_step(figures)}{self._validated}")
