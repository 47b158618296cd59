"""What the local page does: read an upload, attack it, certify it, one step at a time so that it can be watched."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import final

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from resolute.attacks.ascent import Attack
from resolute.attacks.gradient import IFGSM
from resolute.attacks.objective import Bound, Objective, OutputShift
from resolute.attacks.registry import AttackTable
from resolute.certificates.certificate import Certificate
from resolute.certificates.median import certify
from resolute.errors import ImageError
from resolute.images import from_uint8, read_formats, read_image, sample_image, to_uint8
from resolute.models.base import Restorer, Scorer
from resolute.models.fitted import size_within
from resolute.serve.stream import Report, Step, stream
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, Subject, measure_all
from resolute.studies.datasets import middle
from resolute.studies.grid import Grid

# No other machine can reach it.
HOST = "127.0.0.1"
MAX_BYTES = 10_000_000
MAX_PIXELS = 20_000_000

Pixels = Float[Tensor, "3 h w"]
Large = Float[Tensor, "3 sh sw"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """An attack on one image, finished.

    Attributes:
        record: the figures, as in a study.
        clean, attacked: inputs.
        clean_output, attacked_output: what the model makes of them, in [0, 1].
        truth: the photograph that the input was shrunk from; None where the image is the input itself.
    """

    record: AttackRecord
    clean: Pixels
    attacked: Pixels
    clean_output: Large
    attacked_output: Large
    truth: Large | None


def read_upload(path: str | None, sample: str) -> Pixels:
    """Read an uploaded image after a look at its size, or a sample photograph where nothing was uploaded.

    Raises:
        ImageError: it is too large, damaged, or no image.

    Example:
        >>> read_upload(None, "coffee").shape
        torch.Size([3, 400, 600])
    """
    if path is None:
        return sample_image(sample)
    file = Path(path)
    size = file.stat().st_size if file.is_file() else 0
    if size > MAX_BYTES:
        raise ImageError(f"{file.name} has {size / 1e6:.1f} MB, and {MAX_BYTES / 1e6:.0f} are allowed; shrink it first")
    try:
        # Reads the header only: an image of a few kilobytes can unfold to gigabytes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=read_formats()) as header:
                pixels = header.width * header.height
    except Exception:  # whatever a damaged file raises, read_image says it in a sentence
        pixels = 0
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"{file.name} has {pixels / 1e6:.0f} megapixels, and {MAX_PIXELS / 1e6:.0f} are allowed; shrink it first"
        )
    try:
        return read_image(file)
    except ImageError as error:
        # Where the server keeps uploads is nobody's business.
        raise ImageError(str(error).replace(str(file), file.name)) from None


def attack_steps(
    model: Restorer,
    image: Pixels,
    *,
    kind: str = "ifgsm",
    level: float = 4.0,
    steps: int = 20,
    side: int = 96,
    photograph: bool = True,
    stop: threading.Event | None = None,
) -> Generator[Step, None, Trial | None]:
    """Attack the middle of an image; yield how far it is, and return what came out, None where it was stopped.

    Args:
        model: under attack.
        image: RGB float in [0, 1].
        kind: name of the attack.
        level: budget, in levels of 255.
        steps: of the attack.
        side: largest side of the input, in pixels; the middle of a larger image is used.
        photograph: shrink the image first, and compare with it; otherwise it is the input.
        stop: set by whoever does not want to wait.

    Raises:
        ImageError: the image is too small for the model.
        ConfigError: no such attack.
    """
    subject = _subject(image, model.scale, side, photograph)
    seen: list[float] = []
    taken = 1 if kind == "fgsm" else steps
    table = AttackTable(kind) if kind == "fgsm" else AttackTable(kind, steps=steps)
    attack = _watched(table.build(level / 255), seen)

    def work(report: Report) -> Trial:
        clean = Clean.of(model, subject)
        cell = AttackCell.of(model, attack, kind, subject, seed=0)
        (judged,) = measure_all([cell], [clean], progress=lambda share: report(round(share * taken), taken))
        truth = None if subject.truth is None else subject.truth[0]
        clean_output = clean.output[0].clamp(0, 1)
        return Trial(judged.record, subject.low[0], judged.attacked, clean_output, judged.output.clamp(0, 1), truth)

    return (yield from stream(work, "attack step", stop, seen))


def certify_steps(
    scorer: Scorer,
    image: Pixels,
    *,
    sigma: float = 0.12,
    epsilon: float = 0.05,
    samples: int = 200,
    fit: int = 256,
    stop: threading.Event | None = None,
) -> Generator[Step, None, Certificate | None]:
    """Certify the score of an image; yield how far it is, and return the certificate, None where it was stopped.

    Args:
        scorer: the metric.
        image: RGB float in [0, 1].
        sigma: of the noise.
        epsilon: l2 radius.
        samples: noisy copies.
        fit: larger images are shrunk to this many pixels a side before the noise; the radius is that of the image.
        stop: set by whoever does not want to wait.

    Raises:
        ImageError: the image is too small for the metric.
    """
    size = size_within(image, fit)
    smallest = scorer.card.smallest if scorer.card is not None else 1
    if min(size or image.shape[1:]) < smallest:
        raise ImageError(f"the image is too small: the metric needs {smallest} pixels a side")

    def work(report: Report) -> Certificate:
        return certify(scorer, image, sigma, epsilon, samples, size=size, progress=report)

    return (yield from stream(work, "noisy copy", stop))


def middle_of(image: Pixels, scale: int, side: int, *, photograph: bool) -> Float[Tensor, "3 h1 w1"]:
    """Return the middle of an image that a trial is about, in 8 bits, an input of at most ``side`` pixels a side.

    Raises:
        ImageError: the image is too small.
    """
    ratio = scale if photograph else 1
    if min(image.shape[1:]) < 8 * ratio:
        raise ImageError(f"the image is too small: {8 * ratio} pixels a side are needed")
    return from_uint8(to_uint8(middle(image, side * ratio)))


def _subject(image: Pixels, scale: int, side: int, photograph: bool) -> Subject:
    study = Grid(
        name="trial", models=("",), attacks=(AttackTable(kind="ifgsm"),), high_resolution=photograph, scale=scale
    )
    return study.prepare("image", middle_of(image, scale, side, photograph=photograph))


@final
@dataclasses.dataclass(frozen=True)
class _Seen:
    """An objective that notes its values, for the curve under the progress bar."""

    inner: Objective
    values: list[float] = dataclasses.field(compare=False, repr=False)

    def bind(self, model: nn.Module, clean: Float[Tensor, "b c h w"]) -> Bound:
        bound = self.inner.bind(model, clean)

        def noted(x: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
            value = bound(x)
            self.values.append(float(value.detach().sum()))
            return value

        return noted


def _watched(attack: Attack, seen: list[float]) -> Attack:
    # The other attacks may hold anything in this place; their curve stays empty.
    if isinstance(attack, IFGSM) and isinstance(attack.objective, OutputShift):
        return dataclasses.replace(attack, objective=_Seen(attack.objective, seen))
    return attack
