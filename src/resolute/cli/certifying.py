"""The commands that certify: scores of quality metrics, outputs of super-resolution models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resolute.attacks.score import ScoreAttack
from resolute.cli.app import (
    Argument,
    Device,
    DrawnSeed,
    Memory,
    Out,
    Range,
    Scale,
    SkipBroken,
    Weights,
    Workers,
    addressed,
    app,
    parse_arithmetic,
    parse_levels,
    parse_memory,
    parse_radius,
)
from resolute.cli.gating import FailUnder, Gates, JUnit, Summary
from resolute.cli.studying import announce_and_run
from resolute.defences import load_defended
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine
from resolute.engine.remote import Place
from resolute.engine.running import plan_of
from resolute.errors import ConfigError
from resolute.runtime import resolve_device
from resolute.studies.certification import DENOISER, METRIC, Certification
from resolute.studies.restoration import Restoration


@app.command(epilog="Example:  [bold]resolute certify photo.jpg[/bold]")
def certify(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    skip_broken: SkipBroken = False,
    metric: Annotated[
        str,
        typer.Option(help="Metric: a built-in name, a weights file, niqe, brisque, pyiqa:NAME or FILE.py:NAME."),
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
            help="Noisy copies, at most so many with --width; 1000 take ten times as long for intervals half as wide.",
            min=1,
        ),
    ] = 100,
    alpha: Annotated[float, typer.Option(help="Chance that the guarantee fails.", min=1e-12, max=0.5)] = 0.001,
    width: Annotated[float, typer.Option(help="Stop once the interval is this narrow; 0 to draw all.", min=0)] = 0.0,
    fit: Annotated[
        int,
        typer.Option(
            help="Shrink larger images to this many pixels a side for the metric; the radius stays that of the file. "
            "384 takes twice as long. 0: never.",
            min=0,
        ),
    ] = 256,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Noise on the 8-bit grid of the file's own pixels: sound in the computer's arithmetic, and slow for "
            "large files.",
        ),
    ] = False,
    deployed: Annotated[int, typer.Option(help="Cover a deployed median of so many fresh samples as well.", min=0)] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the metric: float32, or bfloat16, which is faster.", rich_help_panel="Machine")
    ] = "float32",
    attack: Annotated[
        str | None,
        typer.Option(help="Attack the metric too: improve its score, changing no sample by more than this, as 2/255."),
    ] = None,
    norm: Annotated[str, typer.Option(help="Of --attack: linf, or l2 over all pixels and channels.")] = "linf",
    adaptive: Annotated[
        bool,
        typer.Option("--adaptive", help="With --attack: also through noise and denoiser; the worse of both counts."),
    ] = False,
    out: Out = Path("runs/certify"),
    device: Device = "auto",
    workers: Workers = 1,
    seed: DrawnSeed = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Certify a metric too that gives equal images different scores.")
    ] = False,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Certify quality scores: an interval that no small perturbation of the file can move the median score out of.

    Writes records.jsonl and report.html, with --attack also the attacked images. What is there already is not done
    again, and another --epsilon is answered from the same samples. Exits with 10 where an attack refutes a
    certificate.
    """
    if adaptive and attack is None:
        raise ConfigError("--adaptive is about an attack: give its budget too, as --attack 2/255")
    if norm not in ("linf", "l2"):
        raise ConfigError(f"--norm is linf or l2, not {norm!r}")
    budget = 0.0 if attack is None else (parse_levels if norm == "linf" else parse_radius)(attack, "--attack")
    kinds = () if attack is None else (False, True) if adaptive else (False,)
    plan = Certification(
        images=tuple(map(str, images)), metric=metric, denoiser=denoiser, sigma=sigma,
        epsilon=parse_radius(epsilon), samples=samples, alpha=alpha, width=width, fit=fit,
        noise="grid" if exact else "gaussian", deployed=deployed, seed=seed, trusted=trust,
        precision=parse_arithmetic(precision), skip_broken=skip_broken,
        attacks=tuple(ScoreAttack(epsilon=budget, norm=norm, adaptive=kind, seed=seed or 0) for kind in kinds),
    )  # fmt: skip
    machine = Machine(device=resolve_device(device), workers=workers)
    announce_and_run(plan_of(plan), Place(out), machine, Gates(fail_under or (), junit, summary))


@app.command(
    "certify-restoration", epilog="Example:  [bold]resolute certify-restoration photo.png --model edsr-s[/bold]"
)
def certify_restoration(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Low-resolution images, or folders of them; with the high-resolution file of each beside it, as "
            "NAME_HR and NAME_LR or NAME and NAMEx4, also certified against that."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Built-in name (see `resolute models`), a weights file, or FILE.py:NAME; with +confine=0.05 behind "
            "it, which keeps it near bicubic interpolation, far more is certified of its mean output."
        ),
    ],
    truth: Annotated[
        bool,
        typer.Option("--truth", help="The images are high-resolution: shrink them first, and certify against them."),
    ] = False,
    radius: Annotated[
        list[str] | None,
        typer.Option(help="l2 radius over all pixels and channels in [0, 1]; may be repeated.", show_default="0.01"),
    ] = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="Standard deviation of the noise, up to 0.5; may be repeated.", show_default="0.02"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Noisy copies.", min=96)] = 1000,
    alpha: Annotated[float, typer.Option(help="Chance that a certified figure is wrong.", min=1e-12, max=0.3)] = 0.001,
    region: Annotated[
        list[str] | None,
        typer.Option(help="Bound the mean of this region too: X,Y,W,H in pixels of the output; may be repeated."),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Bound this quality score of the output too: a name or a file, as for certify.")
    ] = "",
    crop: Annotated[int, typer.Option(help="Cut the middle square of so many pixels out first.", min=0)] = 0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Noise on the 8-bit grid: sound in the computer's arithmetic.")
    ] = False,
    skip_broken: SkipBroken = False,
    scale: Scale = None,
    weights: Weights = "",
    range: Range = "",
    argument: Argument = None,
    out: Out = Path("runs/certify-restoration"),
    device: Device = "auto",
    workers: Workers = 1,
    memory: Memory = "512MiB",
    seed: DrawnSeed = None,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Certify what a model makes of images: a lower and an upper image that no small perturbation can leave.

    Writes records.jsonl, report.html and, by folders, lower, upper and defended outputs and maps of how far each pixel
    may move. What is there already is not done again.
    """
    address = addressed(model, scale, weights, range, argument)
    radii = tuple(parse_radius(text, "--radius") for text in radius or ("0.01",))
    if wrong := [one for one in radii if not 1e-5 <= one <= 1e5]:
        raise ConfigError(f"--radius is at least 0.00001 and at most 100000, not {wrong[0]:g}")
    restorer = load_defended(address)
    study = Restoration(
        models=(address,), images=tuple(map(str, images)), high_resolution=truth, crop=crop, scale=restorer.scale,
        sigmas=tuple(sigma or (0.02,)), epsilons=radii,
        samples=samples, alpha=alpha, seed=seed, noise="grid" if exact else "gaussian", regions=tuple(region or ()),
        metric=metric, memory=parse_memory(memory), skip_broken=skip_broken,
    )  # fmt: skip
    machine, gates = Machine(device=resolve_device(device), workers=workers), Gates(fail_under or (), junit, summary)
    # One cell may take an hour.
    announce_and_run(Plan(study, study.cells_of([restorer])), Place(out), machine, gates, dear=True)
