"""The command line: parse, call, print."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.attacks.registry import ATTACKS, OBJECTIVES, AttackTable
from resolute.errors import ConfigError, ResoluteError
from resolute.models.registry import built_in_models, load
from resolute.models.scorers import built_in_scorers, load_scorer
from resolute.studies.certified import DENOISER, METRIC, Certification
from resolute.studies.demonstration import certification, write_photographs
from resolute.studies.export import write_outputs
from resolute.studies.gaming import Gaming
from resolute.studies.kinds import read_study, with_options
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.store import Record
from resolute.studies.study import Study
from resolute.tables import model_details, models_table, results_table, scorers_table
from resolute.terminal import certify_images, console, errors, progress_bar, run_kind, shown_progress
from resolute.training.recipe import adjusted, read_recipe

INTERRUPTED = 130

app = typer.Typer(
    name="resolute",
    help="Measure and harden super-resolution models, and certify image-quality metrics, against adversarial "
    "perturbations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.", rich_help_panel="Machine")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the search: float32, bfloat16, or auto, which takes the faster one.", rich_help_panel="Machine"
    ),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; the same command goes on where it stopped.")]


@app.command(epilog="Example:  [bold]resolute demo[/bold]")
def demo(out: Out = Path("runs/demo"), device: Device = "auto", precision: Precision = "auto", seed: Seed = 0) -> None:
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
    kind: Annotated[str, typer.Option("--attack", help=f"One of {', '.join(ATTACKS)}.")] = "ifgsm",
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel, as 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[int | None, typer.Option(help="Gradient steps; the attack's own number if not given.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Independent runs; the worst case is kept.")] = None,
    objective: Annotated[str | None, typer.Option(help=f"Climb this instead: {', '.join(OBJECTIVES)}.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer of a feature objective; may be repeated.")] = None,
    ground_truth: Annotated[
        bool, typer.Option(help="The images are high-resolution: shrink them first, and measure against them.")
    ] = False,
    out: Out = Path("runs/attack"),
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
) -> None:
    """Attack a model on your images; write the attacked images, their outputs and the figures.

    Writes, for every image, IMAGE.attacked.png, IMAGE.sr-clean.png and IMAGE.sr-attacked.png, and figures.json. All
    figures belong to the files as saved.
    """
    with guarded():
        table = AttackTable.checked(
            kind=kind, objective=objective, layers=tuple(layer or ()), steps=steps, restarts=restarts
        )
        study = Study(
            name="attack",
            models=(model,),
            attacks=(table,),
            epsilons=(round(parse_epsilon(epsilon) * 255, 6),),
            images=tuple(str(image) for image in images),
            high_resolution=ground_truth,
            scale=load(model).scale,
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
        list[Path] | None, typer.Option(help="Images or folders, instead of the study's; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models, instead of the study's; may be repeated.")] = None,
    every: Annotated[int | None, typer.Option(help="Take each n-th image only.", min=1)] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Budgets, such as 4/255, instead of the study's; may be repeated.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Noisy copies behind a smoothed score.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME if not given.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Run a grid of models, attacks, budgets and images; print a table and write a report.

    Runs into one folder add up: start with every tenth image, and go on with all of them.
    """
    with guarded():
        planned = read_study(source)
        budgets = tuple(round(parse_epsilon(text) * 255, 6) for text in budget or ())
        options: dict[str, tuple[str, object]] = {
            "--images": ("images", tuple(str(path) for path in images or ())),
            "--model": ("restorers" if isinstance(planned, MetricAsLoss) else "models", tuple(model or ())),
            "--every": ("every", every),
            "--budget": ("epsilons", budgets),
            "--samples": ("samples", samples),
        }
        planned = with_options(planned, options)
        place = out or Path("runs") / planned.name
        if isinstance(planned, Study):
            run_study(planned, place, device, precision)
        elif precision != "auto":
            raise ConfigError(f"the study {planned.name} has nothing for --precision to set; leave it out")
        else:
            run_kind(planned, place, device)


@app.command(epilog="Example:  [bold]resolute certify photo.jpg[/bold]")
def certify(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    metric: Annotated[
        str, typer.Option(help="Quality metric: a built-in name, a weights file, niqe, brisque or pyiqa:NAME.")
    ] = METRIC,
    denoiser: Annotated[
        str,
        typer.Option(
            help=f"Denoiser in front of it, a name such as {DENOISER} or a file; none by default (median smoothing), "
            "with one it takes several times as long.",
            show_default=False,
        ),
    ] = "",
    epsilon: Annotated[str, typer.Option(help="l2 radius over all pixels and channels in [0, 1].")] = "0.05",
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise.", min=0.001, max=10)] = 0.12,
    samples: Annotated[
        int,
        typer.Option(
            help="Noisy copies, at most so many with --width; 1000 take five times as long for intervals a quarter "
            "narrower.",
            min=1,
        ),
    ] = 200,
    alpha: Annotated[float, typer.Option(help="Chance that the guarantee fails.", min=1e-12, max=0.5)] = 0.001,
    width: Annotated[float, typer.Option(help="Stop once the interval is this narrow; 0 to draw all.", min=0)] = 0.0,
    fit: Annotated[
        int,
        typer.Option(
            help="Shrink larger images to this many pixels a side, where score and radius are then measured; 512 takes "
            "twice as long. 0: never.",
            min=0,
        ),
    ] = 384,
    exact: Annotated[bool, typer.Option(help="Noise on the 8-bit grid: sound in the computer's arithmetic.")] = False,
    deployed: Annotated[int, typer.Option(help="Cover a deployed median of so many fresh samples as well.", min=0)] = 0,
    precision: Annotated[
        str,
        typer.Option(help="Of the metric: float32, or bfloat16, which is faster.", rich_help_panel="Machine"),
    ] = "float32",
    attack: Annotated[
        str | None,
        typer.Option(help="Game the metric too: raise its score by changing no sample by more than this, as 2/255."),
    ] = None,
    norm: Annotated[str, typer.Option(help="Of --attack: linf, or l2 over all pixels and channels.")] = "linf",
    adaptive: Annotated[bool, typer.Option(help="With --attack: also climb through the noise and denoiser.")] = False,
    out: Out = Path("runs/certify"),
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Certify quality scores: an interval that no small perturbation can move the smoothed score out of.

    Writes certificates.jsonl, certificates.csv and report.html, with --attack also attacks.jsonl, attacks.csv and the
    attacked images. Images that are there already are not done again.
    """
    with guarded():
        if adaptive and attack is None:
            raise ConfigError("--adaptive is about an attack: give its budget too, as --attack 2/255")
        if norm not in ("linf", "l2"):
            raise ConfigError(f"--norm is linf or l2, not {norm!r}")
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"--precision is float32 or bfloat16, not {precision!r}")
        budget = 0.0 if attack is None else (parse_epsilon if norm == "linf" else parse_radius)(attack, "--attack")
        kinds = () if attack is None else (False, True) if adaptive else (False,)
        plan = Certification(
            metric=metric, denoiser=denoiser, sigma=sigma, epsilon=parse_radius(epsilon), samples=samples, alpha=alpha,
            width=width, fit=fit, noise="grid" if exact else "gaussian", deployed=deployed, seed=seed,
            precision=precision,
            attacks=tuple(Gaming(epsilon=budget, norm=norm, adaptive=kind) for kind in kinds),
        )  # fmt: skip
        certify_images(plan, images, out, device)


@app.command(epilog="Example:  [bold]resolute train edsr-s-entropy --data photos/ --out runs/mine[/bold]")
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe in TOML, or the name of a built-in one.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder of images, for a quality metric with scores in mos.csv; may be repeated."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the run; runs/NAME if not given.")] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes to train on together.", min=1)] = 1,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Quality metric in the loop of a denoiser, a name or a file, not the recipe's.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="File of the frozen features of a metric that rests on some.")
    ] = None,
) -> None:
    """Train a model, a quality metric or a denoiser from a recipe; a killed run goes on where it stopped.

    Writes NAME.safetensors, its model card NAME.md, log.jsonl and checkpoint.pt.
    """
    with guarded():
        from lightning_fabric.utilities import rank_zero_only

        from resolute.training.loop import train as run_training
        from resolute.training.task import describe_step, describe_validation

        planned = adjusted(read_recipe(recipe), seed=seed, metric=metric, backbone=backbone)
        with progress_bar() as bar:
            reading = bar.add_task("reading images", total=None)
            training = bar.add_task("training", total=planned.optimizer.steps, visible=False)

            def on_read(done: int, total: int) -> None:
                bar.update(reading, completed=done, total=total)

            def on_step(done: int, figures: dict[str, float]) -> None:
                bar.update(reading, visible=False)
                line, held_out = describe_step(figures), describe_validation(figures)
                bar.update(training, completed=done, description=line, visible=True)
                if held_out:
                    bar.console.print(f"step {done}: {line}  validation {held_out}", highlight=False)

            place = out or Path("runs") / planned.name
            trained = run_training(
                planned,
                data,
                place,
                device=runtime.resolve_device(device),
                devices=devices,
                on_step=on_step,
                on_read=on_read,
            )
        rank_zero_only(console.print)(f"weights and model card: [bold]{escape(str(trained.weights))}[/bold]")


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
            console.print(model_details(load(model)))


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


def run_study(study: Study, out: Path, device: str, precision: str) -> Path:
    """Run a study, print what came out, write its report and return its path."""
    from resolute.report import write_report
    from resolute.report.tables import pairings

    records = run_cells(study, out, device, precision)
    console.print(results_table(records))
    for pairing in pairings(records):
        console.print(pairing.verdict, highlight=False)
    page = write_report([out], out / "report.html")
    console.print(f"report: [bold]{escape(str(page))}[/bold]")
    return page


def run_cells(study: Study, out: Path, device: str, precision: str) -> list[Record]:
    """Run a study's cells under a progress bar."""
    place = runtime.resolve_device(device)
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"--precision is auto, float32 or bfloat16, not {precision!r}")
    chosen = runtime.fast_precision(place) if precision == "auto" else precision
    with shown_progress() as show:
        return study.run(out, device=place, precision=chosen, progress=show)  # pyright: ignore[reportArgumentType]


def parse_epsilon(text: str, option: str = "--epsilon") -> float:
    """Return a budget on the scale of [0, 1] from ``4/255`` or ``0.0157``.

    Raises:
        ConfigError: neither, or not in (0, 1].

    Example:
        >>> round(parse_epsilon("4/255"), 4)
        0.0157
    """
    value = _fraction(text)
    if not 0 < value <= 1:
        raise ConfigError(f"{option} is a radius in (0, 1], such as 4/255 or 0.0157, not {text!r}")
    return value


def parse_radius(text: str, option: str = "--epsilon") -> float:
    """Return an l2 radius, which may be larger than 1.

    Raises:
        ConfigError: no number, or a negative one.

    Example:
        >>> parse_radius("0.05"), round(parse_radius("510/255"), 3)
        (0.05, 2.0)
    """
    value = _fraction(text)
    if not 0 <= value < math.inf:
        raise ConfigError(f"{option} is an l2 radius of at least 0, such as 0.05, not {text!r}")
    return value


def _fraction(text: str) -> float:
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(?:/\s*([0-9.]+))?\s*", text)
    try:
        return float(match[1]) / float(match[2] or 1) if match else math.nan
    except (ValueError, ZeroDivisionError):
        return math.nan


@contextlib.contextmanager
def guarded() -> Generator[None]:
    """Turn errors that a user can mend into one line and an exit code."""
    try:
        yield
    except ResoluteError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        errors.print("interrupted: what was finished is kept; the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    runtime.tune_allocator()
    app()
