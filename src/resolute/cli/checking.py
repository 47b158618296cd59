"""The command that doubts a defence: check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from resolute import runtime
from resolute.cli.app import Argument, Device, Range, Scale, Seed, Weights, addressed, app, guarded, parse_levels
from resolute.defences import load_defended
from resolute.errors import ImageError
from resolute.images import find_images, from_uint8, read_image, sample_image, to_uint8
from resolute.resize import downscale
from resolute.studies.check import Check, write_check
from resolute.studies.flags import RULES, Flag
from resolute.terminal import console, shown_progress

# Small, since an attack on few pixels shows a masked gradient as well as one on many.
_SIDE = 32
_SAMPLES = ("coffee", "chelsea", "astronaut")


@app.command(epilog="Example:  [bold]resolute check edsr-s+round8[/bold]")
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="Built-in name, weights file or FILE.py:NAME, with defences around it if wanted, as edsr-s+mix=0.5."
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"Low-resolution images or folders, instead of three samples; the middle {_SIDE} x {_SIDE} pixels of "
            "each are used. May be repeated."
        ),
    ] = None,
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel, as 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[
        int, typer.Option(help="Gradient steps; more where the loss has not plateaued.", min=2)
    ] = Check.steps,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the work: finds what is broken badly.")] = False,
    twin: Annotated[
        str | None, typer.Option(help="The same model without its defence, by name or file, to transfer attacks from.")
    ] = None,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    out: Annotated[Path, typer.Option(help="Folder for check.json and check.md.")] = Path("runs/check"),
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Check whether a model only looks robust: masked gradients, randomness, attacks that were too weak.

    Attacks the model in many ways that should agree, and raises a flag where they do not. A flag is a finding, not
    an error; docs/flags.md says what each means and what to do. Takes about a minute on two free cores, several
    times as long for random resizing.
    """
    with guarded():
        plan = Check(epsilon=parse_levels(epsilon), steps=steps, seed=seed)
        plan = plan.quickly() if quick else plan
        place = runtime.resolve_device(device)
        restorer = load_defended(addressed(model, scale, weights, range, argument)).to(place)
        other = load_defended(twin, restorer.scale).to(place) if twin is not None else None
        names, pixels = _samples(restorer.scale) if not images else _crops(images)
        with shown_progress() as show:
            flags = plan.run(restorer, pixels.to(place), twin=other, progress=show)
        page = write_check(out, plan, restorer, names, flags)
        console.print(flags_table(flags))
        raised = [flag.name for flag in flags if flag.raised]
        if raised:
            console.print(f"what they mean, and what to do: docs/flags.md#{raised[0]} and so on", highlight=False)
        else:
            console.print("no flag raised; what each would mean: docs/flags.md", highlight=False)
        console.print(f"check.json and check.md are in [bold]{escape(str(page.parent))}[/bold]", soft_wrap=True)


def flags_table(flags: list[Flag]) -> Table:
    """Return all flags, one a row, the raised ones first."""
    count = sum(flag.raised for flag in flags)
    table = Table(
        title=f"{count} of {len(flags)} flags raised",
        caption="Figures in dB are SR-PSNR, means over the images; the lower, the stronger the attack.",
    )
    table.add_column("flag", overflow="fold")
    for name in ("figure", "raised if"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seen", overflow="fold")
    previous = True
    for flag in flags:
        if previous and not flag.raised:
            table.add_section()
        previous = flag.raised
        figure = "-" if flag.figure is None else f"{flag.figure:.2f}"
        name = f"[bold red]{flag.name}[/bold red]" if flag.raised else flag.name
        table.add_row(name, figure, RULES[flag.name].words, escape(flag.words))
    return table


def _samples(scale: int) -> tuple[list[str], Float[Tensor, "b 3 h w"]]:
    large = [to_uint8(_middle(sample_image(name), _SIDE * scale)) for name in _SAMPLES]
    return list(_SAMPLES), torch.stack([from_uint8(downscale(image, scale)) for image in large])


def _crops(paths: list[Path]) -> tuple[list[str], Float[Tensor, "b 3 h w"]]:
    files = find_images(paths)
    pixels = [from_uint8(to_uint8(read_image(file))) for file in files]
    side = min(_SIDE, *(size for image in pixels for size in image.shape[-2:]))
    if side < 8:
        raise ImageError(f"the smallest image has {side} pixels a side, and a check needs 8; leave it out")
    return [str(file) for file in files], torch.stack([_middle(image, side) for image in pixels])


def _middle(image: Float[Tensor, "3 h w"], side: int) -> Float[Tensor, "3 side1 side2"]:
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]
