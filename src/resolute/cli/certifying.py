"""The command about quality metrics: certify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resolute.attacks.score import ScoreAttack
from resolute.cli.app import (
    Device,
    Out,
    SkipBroken,
    Workers,
    app,
    check_seeds,
    parse_arithmetic,
    parse_levels,
    parse_radius,
)
from resolute.cli.studying import run_study
from resolute.engine.queue import Machine
from resolute.engine.remote import Place
from resolute.engine.running import plan_of
from resolute.errors import ConfigError
from resolute.runtime import resolve_device
from resolute.studies.certification import DENOISER, METRIC, Certification


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
            help="Noise on the 8-bit grid of the file's own pixels: sound in the computer's arithmetic, and slow for "
            "large files."
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
        bool, typer.Option(help="With --attack: also through noise and denoiser; the worse of both counts.")
    ] = False,
    out: Out = Path("runs/certify"),
    device: Device = "auto",
    workers: Workers = 1,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the noise, to repeat a run; if not given, the operating system draws one once the image is read.",
            callback=check_seeds,
            show_default=False,
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Certify a metric too that gives equal images different scores.")
    ] = False,
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
    run_study(plan_of(plan), Place(out), Machine(device=resolve_device(device), workers=workers))
