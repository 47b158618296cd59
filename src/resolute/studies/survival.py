"""The study of what a model survives: photographs damaged on their way to it, at five severities."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.chart import BICUBIC
from resolute.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from resolute.defences import load_defended
from resolute.errors import ConfigError, ImageError
from resolute.figures import or_infinite
from resolute.files import FileName
from resolute.measure.parts import consistency as consistency_of
from resolute.models.base import Restorer
from resolute.models.tiling import Tiled
from resolute.randomness import stream_seed
from resolute.runtime import full_float32
from resolute.studies.attacked import BROKEN, Subject, against_truth, psnr_between
from resolute.studies.datasets import dataset_title
from resolute.studies.grid_cases import Replay
from resolute.studies.record import Record, record_key
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.results import Case, Measured, Missing, Quantity, Results, View
from resolute.studies.scored import finite
from resolute.studies.study import Answer, Bench, Cell, InTiles, Progress, RestorerCell, about, count, one_by_one
from resolute.studies.survival_results import SurvivalRecord, decibels, results_of, worst_first

# Pictures are of the middle severity, and of so many images of each corruption.
_SHOWN, _IMAGES = 3, 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SurvivalCell(RestorerCell):
    """One model, one corruption at one severity, one image."""

    subject: Subject
    corruption: str
    severity: int
    seed: int


def damaged(subject: Subject, kind: str, severity: int, scale: int, seed: int) -> Float[Tensor, "1 3 h w"]:
    """Return the input of an image with a corruption; noise differs from image to image, and not between models."""
    truth = None if subject.truth is None else subject.truth[0]
    own = stream_seed(seed, subject.pixels) % 2**32
    return corrupted(subject.low[0], kind, severity, truth=truth, scale=scale, seed=own)[None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Clean:
    """What all corruptions of one image have in common, for a model."""

    output: Tensor
    psnr_y: float | None
    ssim_y: float | None
    consistency: float | None

    @staticmethod
    def of(model: Restorer, subject: Subject, device: str) -> _Clean:
        output = restored(model, subject.low, device)
        return _Clean(output, *against_truth(output, subject, model.scale), consistency(output, subject.low))


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Survival(RestoreStudy, InTiles):
    """Models x corruptions x severities x images.

    Attributes:
        corruptions: kinds; ``kernel`` counts only where the high-resolution image is there.
        severities: 1 to 5.
        seed: of noise.

    Example:
        >>> Survival(models=("bicubic",)).severities
        (1, 2, 3, 4, 5)
    """

    kind: ClassVar[str] = "survival"
    heading: ClassVar[str] = "What damage does to {models}"
    records: ClassVar[tuple[type[Record], ...]] = (SurvivalRecord,)
    cumulative: ClassVar[bool] = True

    name: FileName = "survive"
    corruptions: tuple[str, ...] = pydantic.Field(default=tuple(CORRUPTIONS), min_length=1)
    severities: tuple[int, ...] = pydantic.Field(default=SEVERITIES, min_length=1)
    seed: int = 0

    def cells(self) -> Sequence[Cell]:
        unknown = [kind for kind in self.corruptions if kind not in CORRUPTIONS]
        if unknown:
            raise ConfigError(f"no corruption is called {unknown[0]!r}; choose among {', '.join(CORRUPTIONS)}")
        if not set(self.severities) <= set(SEVERITIES):
            raise ConfigError(f"severities are 1 to {len(SEVERITIES)}, not {', '.join(map(str, self.severities))}")
        models = [load_defended(model, self.scale) for model in self.models]
        found: list[Cell] = []
        for subject in self.subjects():
            kinds = [k for k in self.corruptions if subject.truth is not None or not CORRUPTIONS[k].of_truth]
            found += [
                self._cell(model, subject, kind, severity)
                for model in models
                for kind in kinds
                for severity in self.severities
            ]
        if not found:
            raise ConfigError("a corruption of the shrinking needs high-resolution images, and there are none")
        return found

    def _cell(self, model: Restorer, subject: Subject, kind: str, severity: int) -> SurvivalCell:
        assert model.card is not None
        name, weights, level = model.card.name, model.card.sha256, CORRUPTIONS[kind].levels[severity - 1]
        return SurvivalCell(
            key=record_key(self.kind, name, weights, kind, level, *subject.identity, self.seed),
            title=f"{subject.name}, {name}, {CORRUPTIONS[kind].words(severity)}", like=(self.kind, name, weights),
            shape=tuple(subject.low.shape), cost=float(subject.low.shape[-2] * subject.low.shape[-1]), model=model,
            subject=subject, corruption=kind, severity=severity, seed=self.seed,
        )  # fmt: skip

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return one_by_one(cells, progress, lambda cell, _step: _answer(cell, bench))

    def without_tiles(self, cell: Cell) -> str:
        assert isinstance(cell, SurvivalCell)
        Tiled(cell.model, 128)
        return ""

    def results(self, records: Sequence[Record]) -> Results:
        return results_of(_own(records))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        again = Replay(self.scene(), folder)
        for record in worst_first(_own(records), _SHOWN, _IMAGES):
            try:
                yield self._case(record, *again.subject_of(record))
            except ImageError as error:
                yield Missing(str(error))

    def _case(self, record: SurvivalRecord, model: Restorer, subject: Subject) -> Case:
        low = damaged(subject, record.corruption, record.severity, model.scale, record.seed)
        clean, after = (
            restored(model, image, "cpu")[0].nan_to_num(0.0, 0.0, 0.0).clamp(0, 1) for image in (subject.low, low)
        )
        usual = load_defended(BICUBIC, model.scale)
        views = [
            View("clean input", subject.low[0], low=True),
            View("damaged input", low[0], low=True),
            *([] if subject.truth is None else [View("ground truth", subject.truth[0])]),
            View("output, bicubic", restored(usual, low, "cpu")[0].clamp(0, 1)),
            View("output, clean input", clean, record.model),
            View("output, damaged input", after, record.model),
        ]
        words = CORRUPTIONS[record.corruption].words(record.severity)
        facts = [
            f"{record.model}: consistency {decibels(record.consistency)}, clean {decibels(record.clean_consistency)}"
        ]
        if record.psnr_y is not None and record.clean_psnr_y is not None:
            facts = [f"{record.model}: {record.psnr_y:.2f} dB, clean {record.clean_psnr_y:.2f} dB", *facts]
        filters = {"model": record.model, "image": record.image, "corruption": record.corruption}
        title = f"{record.image}, {words}, {record.model}"
        return Case(title, views, facts, filters, (len(views) - 2, len(views) - 1))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity(name, "dB") for name in ("PSNR", "SR-PSNR", "consistency")]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, SurvivalRecord):
            return None
        setting = {
            "model": record.model, "corruption": record.corruption, "severity": str(record.severity),
            "data": dataset_title(record.dataset) if record.dataset else "",
        }  # fmt: skip
        values = {
            "PSNR": or_infinite(record.psnr_y, known=record.ssim_y is not None),
            "SR-PSNR": or_infinite(record.sr_psnr),
            "consistency": or_infinite(record.consistency),
        }
        return Measured(setting, values)

    def outline(self, cells: Sequence[Cell]) -> str:
        own = [cell for cell in cells if isinstance(cell, SurvivalCell)]
        kinds, images = {cell.corruption for cell in own}, {cell.subject.identity for cell in own}
        severities = "severity", "severities"
        parts = [
            count(len(self.models), "model"), count(len(kinds), "corruption"), count(len(self.severities), *severities),
            count(len(images), "image"),
        ]  # fmt: skip
        return f"{' x '.join(parts)}: {count(len(cells), 'cell')}"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        own = [cell for cell in cells if isinstance(cell, SurvivalCell)]
        kinds = dict.fromkeys(cell.corruption for cell in own)
        told = {f"severities of {k}": ", ".join(map(str, CORRUPTIONS[k].levels)) for k in kinds}
        return {
            "PSNR": f"on Y, {self.scale} pixels of the border shaved, against the high-resolution image",
            "consistency": "the output, shrunk as MATLAB does, against the input that the model was given; RGB, in dB",
            **told,
        }


def _own(records: Sequence[Record]) -> list[SurvivalRecord]:
    return [record for record in records if isinstance(record, SurvivalRecord)]


def _answer(cell: Cell, bench: Bench) -> Answer:
    assert isinstance(cell, SurvivalCell)
    began = time.perf_counter()
    model, subject = bench.place(cell.model), cell.subject
    assert cell.model.card is not None
    name = cell.model.card.name, cell.model.card.sha256
    clean = bench.shared(("restored", *name, subject.identity), lambda: _Clean.of(model, subject, bench.device))
    low = damaged(subject, cell.corruption, cell.severity, model.scale, cell.seed)
    output = restored(model, low, bench.device)
    psnr, ssim = against_truth(output, subject, model.scale)
    record = SurvivalRecord(
        **about(cell, cell.model.card, subject.name, subject.low[0], cell.seed),
        corruption=cell.corruption,
        severity=cell.severity,
        level=str(CORRUPTIONS[cell.corruption].levels[cell.severity - 1]),
        input_psnr=psnr_between(subject.low, low),
        clean_psnr_y=clean.psnr_y,
        psnr_y=psnr,
        clean_ssim_y=clean.ssim_y,
        ssim_y=ssim,
        clean_consistency=clean.consistency,
        consistency=consistency(output, low),
        sr_psnr=psnr_between(clean.output, output),
        broken=not bool(output.isfinite().all()),
        seconds=round(time.perf_counter() - began, 3),
        dataset=subject.dataset,
    )
    return Answer(record)


def consistency(output: Float[Tensor, "1 3 sh sw"], low: Float[Tensor, "1 3 h w"]) -> float | None:
    """Return how well an output, shrunk as MATLAB does, fits the input that it was made from: PSNR on RGB, in dB.

    None stands for infinity; an output that is not finite has 0.
    """
    return finite(float(consistency_of(output, low))) if bool(output.isfinite().all()) else BROKEN


def restored(model: Restorer, low: Tensor, device: str) -> Tensor:
    """Return what a model, which is on a device, makes of an image; not clamped, on the CPU."""
    with torch.no_grad(), full_float32():
        return model(low.to(device)).cpu()
