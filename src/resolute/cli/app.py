"""The application, and what its commands share: options, budgets as people type them, and errors in one line.

Nothing here imports PyTorch, so that ``resolute --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import io
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, final

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup
from typer.models import CommandInfo

import resolute
from resolute.cli.stopping import INTERRUPTED, KEPT, TERMINATED, Terminated
from resolute.errors import ConfigError, OutputError, ResoluteError
from resolute.folders import SUFFIXES
from resolute.of_file import told_in_one_line
from resolute.offline import OFFLINE, keep_offline
from resolute.printing import console, errors

# Of each command its module in this package, and what it does: the first paragraph of its help.
COMMANDS = {
    "demo": (
        "attacking",
        "Show an attack, a defence and a gamed score that is caught.",
    ),
    "attack": ("attacking", "Attack a model on your images; write the attacked images, their outputs and the figures."),
    "audit": (
        "auditing",
        "Tell which submitted images have a score that looks gamed.",
    ),
    "benchmark": (
        "benchmarking",
        "Attack models by the standard suite, for figures that can be compared.",
    ),
    "certify": (
        "certifying",
        "Certify quality scores: an interval that no small perturbation of the file can move the median score out of.",
    ),
    "certify-restoration": (
        "certifying",
        "Certify what a model makes of images: a lower and an upper image that no small perturbation can leave.",
    ),
    "check": (
        "checking",
        "Check whether a model only looks robust: masked gradients, randomness, attacks that were too weak.",
    ),
    "compare-models": (
        "choosing",
        "Tell which of several models to take: quality, robustness, time and memory on your own photographs, at once.",
    ),
    "survive": (
        "surviving",
        "See what a super-resolution model survives: JPEG, WebP, noise, blur and the like on its input, five "
        "severities.",
    ),
    "twin": (
        "twinning",
        "Compare two forms of one network: half precision, eight-bit weights, ONNX, another export.",
    ),
    "faithful": (
        "trusting",
        "Tell what an output invents: what its input bears out, how far its pixels move, and which of them to trust.",
    ),
    "export": (
        "exporting",
        "Write a model for programs without Resolute: any batch, any size, checked against the model itself.",
    ),
    "harden": (
        "hardening",
        "Make a checkpoint robust in minutes: adversarial fine-tuning, weights back in the form in which they came.",
    ),
    "leaderboard": (
        "publishing",
        "Build a leaderboard as a static site: one for every suite of attacks and set of images, and a page an entry.",
    ),
    "submit": ("publishing", "Write the entry of a model for a leaderboard, from the records of a study."),
    "recheck": (
        "publishing",
        "Check an entry: compute its figures again from the records, and some records from the model and the images.",
    ),
    "query": ("querying", "Ask the records of studies in SQL (DuckDB); it changes none of them."),
    "serve": (
        "serving",
        "Open a local page: drop an image, attack a model, see what it invents, harden one, certify a score.",
    ),
    "study": ("studying", "Run a grid of models, attacks, budgets and images; print a table and write a report."),
    "train": (
        "training",
        "Train a model, a quality metric or a denoiser from a recipe; a killed run goes on where it stopped.",
    ),
    "models": ("naming", "List the built-in models and what other packages add, or describe one."),
    "metrics": ("naming", "List the built-in quality metrics, and say which others have a name."),
    "attacks": ("listing", "List the attacks and what they can climb."),
    "recipes": ("listing", "List the recipes of training and hardening."),
    "studies": ("listing", "List the built-in studies and what they ask."),
    "report": ("viewing", "Make one page, or Markdown tables, from the results of studies."),
}

# What each of three people asks, and the command that answers.
QUESTIONS = {
    "You ship a super-resolution model": {
        "How much can a small change destroy?": "attack MODEL photo.png",
        "How does it compare with published ones?": "benchmark MODEL --images BSD100/",
        "Is it robust, or was the attack weak?": "check MODEL",
        "Does it survive JPEG, noise and blur?": "survive MODEL",
        "Does half precision or ONNX change it?": "twin MODEL float16 mine.onnx",
        "Which of several for my photos?": "compare-models A B --images photos/",
        "Did it invent this detail?": "faithful MODEL photo.png",
        "How far can an output move at most?": "certify-restoration photo.png --model MODEL",
        "What makes it robust in minutes?": "harden MODEL --data photos/",
    },
    "You run a quality benchmark": {
        "Which of these scores were gamed?": "audit submissions/",
        "How far can a score be moved at most?": "certify photos/",
        "What does an attack do to the scores?": "certify photos/ --attack 2/255 --adaptive",
    },
    "You do research": {
        "Does a figure of the paper hold?": "study lambda --quick",
        "What is there by name?": "models; so metrics, attacks, recipes, studies",
        "What changed since the last run?": "report --compare runs/old runs/new",
        "What do the records say?": 'query "SELECT * FROM attacks"',
    },
    "You want to see it first": {
        "One page in a minute, without data": "demo",
        "A local page to drop an image on": "serve",
    },
}

# What `--help` leaves out, so that it fits a screen, and what shows it: panels, and options wherever they are.
PANELS = ("Model", "Machine", "Gates")
RARE = {
    "alpha", "calibration", "crop", "denoiser", "deployed", "every", "exact", "jpeg", "layer", "noise", "norm",
    "objective", "option", "recipe", "region", "restarts", "seed", "share", "skip_broken", "tested", "trust", "width",
}  # fmt: skip
WHOLE = "--help-all"


@final
class Commands(TyperGroup):
    """The commands; only the one that is run is imported, for PyTorch takes seconds, and its errors become one line."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A file may have a name that is no text.
                stream.reconfigure(errors="backslashreplace")
        try:
            with told_in_one_line():
                return super().invoke(ctx)
        except ResoluteError as error:
            errors.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except ValueError as error:
            # What a study refuses, where an option is not as narrow.
            told = _refused(error)
            if told is None:
                raise
            errors.print(f"[red]error:[/red] {escape(told)}", soft_wrap=True)
            raise typer.Exit(ConfigError.exit_code) from None
        except OSError as error:
            # A reader that has gone away, as after `| head`, is told to nobody.
            if error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            if error.errno == errno.ENAMETOOLONG:
                where = f"{str(error.filename)[:80]}...: "
            errors.print(f"[red]error:[/red] {escape(f'{where}{error.strerror or error}')}", soft_wrap=True)
            raise typer.Exit(
                OutputError.exit_code if error.errno != errno.ENAMETOOLONG else ConfigError.exit_code
            ) from None
        except Terminated:
            errors.print(f"terminated: {KEPT}")
            raise typer.Exit(TERMINATED) from None
        except KeyboardInterrupt:
            errors.print(f"interrupted: {KEPT}")
            raise typer.Exit(INTERRUPTED) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            _show_questions()
            raise typer.Exit
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name in COMMANDS:
            command.short_help = re.split("[:;]", COMMANDS[cmd_name][1])[0]
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            self.commands = with_commands(args[0]).commands
        found: tuple[Any, Any, list[str]] = super().resolve_command(ctx, args)
        name, command, rest = found
        brief = "--help" in rest and WHOLE not in rest
        rest = ["--help" if word == WHOLE else word for word in rest]
        if "--help" in rest:
            # Only blank lines part paragraphs.
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
        options = [one for one in command.params if one.opts[0].startswith("-")]
        rare = [one for one in options if one.rich_help_panel in PANELS or one.name in RARE]
        if brief and rare:
            for option in rare:
                option.hidden = True
            command.epilog = f"{command.epilog}\n\n{len(rare)} more options:  [bold]resolute {name} {WHOLE}[/bold]"
        return name, command, rest


def _refused(error: ValueError) -> str | None:
    """Return in a line what pydantic refuses; None for other errors."""
    from pydantic import ValidationError  # a tenth of a second, which --help does not wait for

    if not isinstance(error, ValidationError):
        return None
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}, not {str(first['input'])[:80]}"


app = typer.Typer(
    name="resolute",
    cls=Commands,
    help="Measure and harden super-resolution models, and certify image-quality metrics, against adversarial "
    "perturbations.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"resolute {resolute.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no other machine for anything, also not for what a name asks for."),
    ] = False,
) -> None:
    if offline:
        os.environ[OFFLINE] = "1"
    keep_offline()


def _show_questions() -> None:
    words = Table.grid(padding=(0, 3, 0, 2))
    for person, asked in QUESTIONS.items():
        words.add_row(Text(f"\n{person}", style="bold"), "")
        for question, command in asked.items():
            words.add_row(Text(f"  {question}"), Text(f"resolute {command}"))
    console.print(words)
    console.print(f"\nAll commands: {', '.join(sorted(COMMANDS))}; each explains itself with --help.", highlight=False)


def _stand_in() -> None:
    """Take the place of a command in the list until its module replaces it."""


for _name, (_, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(_stand_in)


def with_commands(*names: str) -> TyperGroup:
    """Return the program with these commands imported, or with all; the others only have their place in the list."""
    group = cast(TyperGroup, typer.main.get_command(app))
    for name in names or COMMANDS:
        group.commands[name] = _command(name)
    return group


_imported: dict[str, CommandInfo] = {}


def _command(name: str) -> Any:
    """Return a command, imported.

    Its stand-in stays in the application, built anew at every call: all commands together take a fifth of a second.
    """
    importlib.import_module(f"resolute.cli.{COMMANDS[name][0]}")
    while len(app.registered_commands) > len(COMMANDS):
        found = app.registered_commands.pop()
        assert found.callback is not None
        _imported[found.name or found.callback.__name__.replace("_", "-")] = found
    return typer.main.get_command_from_info(
        _imported[name],
        pretty_exceptions_short=app.pretty_exceptions_short,
        rich_markup_mode=app.rich_markup_mode,
    )


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.", rich_help_panel="Machine")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the search: float32; mixed, most steps in bfloat16 where the processor has it; or bfloat16, which is "
        "weaker for I-FGSM.",
        rich_help_panel="Machine",
    ),
]


def check_seeds(seed: Any) -> Any:
    """Return what ``--seed`` was given: a number, several, or None.

    Raises:
        ConfigError: one that no record could hold.
    """
    for one in cast("list[int]", seed) if isinstance(seed, list | tuple) else [seed or 0]:
        if not -(2**63) <= one < 2**63:
            raise ConfigError(f"--seed is a whole number of at most 64 bits, not {one}")
    return seed


Seed = Annotated[int, typer.Option(help="Of everything random.", callback=check_seeds)]
DrawnSeed = Annotated[
    int | None,
    typer.Option(
        help="Of the noise, to repeat a run; if not given, the operating system draws one once the image is read.",
        callback=check_seeds,
        show_default=False,
    ),
]


def check_folder(out: Any) -> Any:
    """Return what ``--out`` was given for a folder: a path, an address of a store, or None.

    Raises:
        ConfigError: it is empty, as where a variable of a shell has no value.
        OutputError: a file is in its place; said before anything is loaded.
    """
    if not str(out):
        raise ConfigError("--out is empty: give it a folder")
    if out is not None and "://" not in str(out):
        # Unlike those of Path it takes any name.
        place = next((one for one in (Path(out), *Path(out).parents) if os.path.exists(one)), "")  # noqa: PTH110
        if not os.path.isdir(place or "."):  # noqa: PTH112
            raise OutputError(f"{place} is a file; give --out a folder")
    return out


Out = Annotated[
    Path,
    typer.Option(help="Folder for the results; the same command goes on where it stopped.", callback=check_folder),
]
SharedOut = Annotated[
    str,
    typer.Option(
        help="Folder for the results, or s3://BUCKET/FOLDER; runs add up.",
        callback=check_folder,
    ),
]

# Of the commands that put models through photographs.
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Built-in names, weights files or FILE.py:NAME, with defences around them if wanted.",
    ),
]
Photographs = Annotated[
    list[str] | None,
    typer.Option(help="High-resolution photographs, folders or data sets, instead of five samples; may be repeated."),
]
Crop = Annotated[int, typer.Option(help="Use the middle square of so many pixels; 0 for whole images.", min=0)]
Every = Annotated[int, typer.Option(help="Take each n-th image only.", min=1)]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Say what it will cost, and stop.")]

SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave images out that cannot be read, and say and count them.")
]

Workers = Annotated[
    int, typer.Option(help="Processes on this machine, which share its cores.", min=1, rich_help_panel="Machine")
]

# What a file does not tell about itself.
Scale = Annotated[
    int | None,
    typer.Option(
        help="Upscaling factor, where the file holds several or is code; FILE#x4.",
        min=1,
        max=64,
        rich_help_panel="Model",
    ),
]
Weights = Annotated[
    str, typer.Option(help="Weights for the code of FILE.py:NAME; #weights=FILE.", rich_help_panel="Model")
]
Range = Annotated[
    str,
    typer.Option(
        "--range", help="White to the network: 255, or 1:255 for in and out; #range=255.", rich_help_panel="Model"
    ),
]
Argument = Annotated[
    list[str] | None,
    typer.Option(help="Of NAME in FILE.py:NAME, as nf=48; may be repeated; #nf=48.", rich_help_panel="Model"),
]


Memory = Annotated[
    str,
    typer.Option(
        help="What this may occupy, as 3G or 800M, on a GPU of its memory: a larger image is attacked in tiles. Half "
        "of what is free if not given.",
        rich_help_panel="Machine",
    ),
]


def parse_memory(text: str) -> int:
    """Return a number of bytes from ``3G``, ``2.5GB`` or ``800M``; 0 from an empty text.

    Raises:
        ConfigError: it is no such size, or below one megabyte.

    Example:
        >>> parse_memory("3G"), parse_memory("2.5 GB"), parse_memory("1GiB"), parse_memory("")
        (3000000000, 2500000000, 1073741824, 0)
    """
    if not text:
        return 0
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt])(i?)b?\s*", text, re.IGNORECASE)
    size = float(match[1]) * (1024 if match[3] else 1000) ** ("kmgt".index(match[2].lower()) + 1) if match else 0.0
    if not 1e6 <= size < 2**63:
        raise ConfigError(f"--memory is a size such as 3G, 2.5GB or 800M, not {text!r}")
    return int(size)


def addressed(
    model: str, scale: int | None = None, weights: str = "", range: str = "", arguments: Sequence[str] | None = None
) -> str:
    """Return a model's address with the options of the command line in it.

    Raises:
        ConfigError: the address says something else, or an option does not belong to such a model.

    Example:
        >>> addressed("carn.pth+mix=0.5", scale=4)
        'carn.pth#x4+mix=0.5'
        >>> addressed("edsr-s")
        'edsr-s'
    """
    if scale is None and not weights and not range and not arguments:
        return model
    from resolute.defences.loading import undefended
    from resolute.models.address import complete, parse_address

    address, defences = undefended(model)
    told = complete(parse_address(address), scale=scale, weights=weights, range=range, arguments=arguments or ())
    return "+".join([str(told), *defences])


def all_addressed(
    models: Sequence[str], scale: int | None, weights: str, range: str, arguments: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the addresses of models with the options of the command line, which are about one of them.

    Raises:
        ConfigError: as ``addressed``, there are options and not one model, or a model is an image.
    """
    for model in models:
        # What a shell makes of --images *.png.
        if Path(model).suffix.lower() in SUFFIXES:
            raise ConfigError(f"{model} is an image, no model: write --images before every image, or name their folder")
    if len(models) != 1 and (scale is not None or weights or range or arguments):
        raise ConfigError(
            "--scale, --weights, --range and --argument are about one --model or MODEL; for several write "
            "FILE#x4,range=255"
        )
    return tuple(addressed(model, scale, weights, range, arguments) for model in models)


def parse_epsilon(text: str, option: str = "--epsilon") -> float:
    """Return a budget on the scale of [0, 1] from ``4/255`` or ``0.0157``, which means the level that it rounds.

    Raises:
        ConfigError: neither, or not in (0, 1].

    Example:
        >>> parse_epsilon("4/255") == parse_epsilon("0.0157"), parse_epsilon("0.031")
        (True, 0.031)
    """
    value = _fraction(text)
    whole = math.floor(value * 255) / 255 if 0 < value <= 1 else value
    # Of a decimal only ever the level below, so that no attack gets more than was asked for.
    if 0 < whole < value and round(whole, len(text.strip().partition(".")[2])) == value:
        value = whole
    if not 0 < value <= 1:
        raise ConfigError(f"{option} is a radius in (0, 1], such as 4/255 or 0.0157, not {text!r}")
    return value


def parse_levels(text: str, option: str = "--epsilon") -> float:
    """Return an l-infinity budget on the scale of [0, 1] for 8-bit images; warn where it is between levels.

    Raises:
        ConfigError: as ``parse_epsilon``, or the budget is below 1/255.
    """
    from resolute.attacks.ball import Linf, check_levels  # with PyTorch, for which --help does not wait

    value = parse_epsilon(text, option)
    try:
        check_levels(Linf(value))
    except ConfigError as error:
        raise ConfigError(f"{option}: {error.message}") from None
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


def parse_precision(text: str) -> Literal["float32", "bfloat16", "mixed"]:
    """Return the arithmetic of a search.

    Raises:
        ConfigError: there is no such one.

    Example:
        >>> parse_precision("mixed")
        'mixed'
    """
    return "mixed" if text == "mixed" else parse_arithmetic(text, ", mixed")


def parse_arithmetic(text: str, others: str = "") -> Literal["float32", "bfloat16"]:
    """Return an arithmetic, or raise ``ConfigError``."""
    if text not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision is one of float32, bfloat16{others}, not {text!r}")
    return text


def _fraction(text: str) -> float:
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(?:/\s*([0-9.]+))?\s*", text)
    try:
        return float(match[1]) / float(match[2] or 1) if match else math.nan
    except (ValueError, ZeroDivisionError):
        return math.nan
