"""What the local page hardens: a small built-in model for a minute or two, judged by one attack before and after."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Attack
from resolute.attacks.gradient import PGD
from resolute.attacks.targeted import ReferenceShift, Truth
from resolute.errors import ConfigError
from resolute.images import SAMPLE_NAMES, read_image, sample_image, write_png
from resolute.models.base import Restorer
from resolute.serve.asking import IMAGE
from resolute.serve.jobs import Pixels, middle_of
from resolute.serve.stream import Report, Step, stream
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.hardened import Hardening
from resolute.training.hardening import Watcher, harden
from resolute.training.task import Figures, describe_validation

# Nobody waits longer for a page, and others wait for it: minutes of training, and the largest side of what is judged.
MINUTES, SIDE = 3.0, 64
# Of each attack of the judge; that of `resolute harden` takes three hundred, and a hundred and fifty.
STEPS = 30


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Hardened:
    """A hardening, finished.

    Attributes:
        made: figures and sentences; its weights lie in the folder that was given.
        before, after: outputs for the attacked input of each, ``(3, sh, sw)`` in [0, 1].
        clean: pairs of words and output, for the input without an attack, and the original.
    """

    made: Hardening
    before: Float[Tensor, "3 sh sw"]
    after: Float[Tensor, "3 sh sw"]
    clean: tuple[tuple[str, Float[Tensor, "3 sh sw"]], ...]


def harden_steps(
    name: str,
    model: Restorer,
    image: Pixels,
    folder: Path,
    *,
    but: str = "",
    minutes: float = 1.0,
    level: float = 4.0,
    side: int = 48,
    device: str = "cpu",
    stop: threading.Event | None = None,
) -> Generator[Step, None, Hardened | None]:
    """Harden a model on the sample photographs, and judge it on an image; yield how far it is.

    Args:
        name: of the model, as the page lists it.
        model: the same, loaded; stays as it is.
        image: to judge on: a photograph, RGB float in [0, 1], which is shrunk first.
        folder: an empty one, for all that is written; the weights are in it when the work is done.
        but: the sample photograph that is not trained on, because it is judged on; may be empty.
        minutes: of training.
        level: budget, in levels of 255.
        side: largest side of the judged input, in pixels; the middle of a larger image is used.
        device: a torch device.
        stop: set by whoever does not want to wait.

    Returns:
        The model before and after, under the same attack; None where it was stopped.

    Raises:
        ConfigError: the minutes are more than ``MINUTES``.
        ImageError: the image is too small for the model.
    """
    if not 0 < minutes <= MINUTES:
        raise ConfigError(f"{minutes:g} minutes are more than the {MINUTES:g} that the page gives; use resolute harden")
    pixels = middle_of(image, model.scale, min(side, SIDE), photograph=True)

    def work(report: Report) -> Hardened:
        photographs = [one for one in SAMPLE_NAMES if one != but]
        for number, one in enumerate(photographs):
            report(number, len(photographs), "photograph read")
            write_png(folder / "photographs" / f"{one}.png", sample_image(one))
        write_png(folder / IMAGE, pixels)
        made = harden(
            name, folder / "photographs", folder / "hardened", minutes=minutes, epsilon=level / 255,
            test=folder / IMAGE, attacks=_judge(level / 255), device=device,
            watcher=_watcher(report),
        )  # fmt: skip
        (files,) = made.pictures.values()

        def picture(role: str, what: str) -> Float[Tensor, "3 sh sw"]:
            return read_image(folder / "hardened" / files[role][what])

        clean = tuple(
            (words, picture(role, what))
            for words, role, what in (
                ("before, clean input", "before", "clean output"),
                ("hardened, clean input", "after", "clean output"),
                ("original", "before", "original"),
            )
        )
        return Hardened(made, picture("before", "output"), picture("after", "output"), clean)

    return (yield from stream(work, "training step", stop))


def _judge(epsilon: float) -> dict[str, Attack]:
    """Return the attacks of the judge of `resolute harden`, with fewer steps and one start."""
    truth = ReferenceShift(Truth())
    return {
        "APGD": APGD(epsilon=epsilon, steps=STEPS),
        "PGD on the truth": PGD(epsilon=epsilon, steps=STEPS, objective=truth),
    }


def _watcher(report: Report) -> Watcher:
    steps, said = 0, ""

    def planned(recipe: HardenRecipe, seconds: float) -> None:
        nonlocal steps
        steps = recipe.optimizer.steps
        report(0, steps, note=f"{steps * seconds / 60:.1f} minutes in all, then the judge")

    def step(done: int, figures: Figures) -> None:
        nonlocal said
        said = describe_validation(figures) or said
        report(done, steps, note=said)

    def judged(done: float, total: int, what: str) -> None:
        report(round(100 * done / total), 100, f"percent of the judging ({what})")

    return Watcher(
        read=lambda done, total: report(done, total, "photograph read"), planned=planned, step=step, judged=judged
    )
