"""What the local page asks of an output: what it has invented. The study of faithfulness, on one image."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator
from pathlib import Path
from typing import final

from resolute.chart import BICUBIC
from resolute.engine.bench import Found
from resolute.engine.queue import Machine
from resolute.engine.running import run
from resolute.errors import CellError
from resolute.images import write_png
from resolute.models.base import Restorer
from resolute.serve.jobs import Pixels, middle_of
from resolute.serve.stream import Report, Step, stream
from resolute.studies.faithful import Faithful
from resolute.studies.results import Case

# By which sentences name it.
IMAGE = "your image.png"


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """Whether a model has invented what its output shows, for one image.

    Attributes:
        sentences: the verdict first, as `resolute faithful` says it.
        case: its pictures.
    """

    sentences: tuple[str, ...]
    case: Case


def faithful_steps(
    name: str,
    model: Restorer,
    image: Pixels,
    folder: Path,
    *,
    side: int = 96,
    photograph: bool = True,
    device: str = "cpu",
    stop: threading.Event | None = None,
) -> Generator[Step, None, Asked | None]:
    """Ask what an output invents; yield how far it is, and return the answer, None where it was stopped.

    Args:
        name: of the model, as the page lists it.
        model: the same, loaded.
        image: RGB float in [0, 1].
        folder: an empty one, for all that is written.
        side: largest side of the input, in pixels; the middle of a larger image is used.
        photograph: shrink the image first, and compare with it; otherwise it is the input.
        device: a torch device.
        stop: set by whoever does not want to wait.

    Raises:
        ImageError: the image is too small for the model.
        CellError: the model cannot be asked.
    """
    pixels = middle_of(image, model.scale, side, photograph=photograph)

    def work(report: Report) -> Asked:
        write_png(folder / IMAGE, pixels)
        study = Faithful(
            models=tuple(dict.fromkeys((name, BICUBIC))), images=(str(folder / IMAGE),),
            high_resolution=photograph, scale=model.scale,
        )  # fmt: skip

        def raised(found: Found) -> None:
            for failure in found.failures:
                raise CellError(failure.reason)

        records = run(
            study, folder / "study", Machine(device=device), on_found=raised,
            progress=lambda done, total, _: report(round(100 * done / total), 100),
        )  # fmt: skip
        case = next(iter(study.cases(records, folder / "study")))
        assert isinstance(case, Case)
        return Asked(tuple(study.results(records).sentences), case)

    return (yield from stream(work, "percent of the questions", stop))
