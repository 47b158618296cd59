"""The study that certifies upscaled images: models x noise x radii x images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.certificates.certificate import Smoothing
from resolute.certificates.restoration import LARGEST_SIGMA, LEAST, MEMORY
from resolute.certificates.restored import needed
from resolute.certificates.samples import require_memory
from resolute.certificates.statistic import Statistic, downscaled, region_mean, score_of
from resolute.defences import load_defended, undefended
from resolute.errors import ConfigError, ImageError
from resolute.files import FileName
from resolute.images import read_kept
from resolute.models.base import Restorer
from resolute.models.scorers import load_scorer
from resolute.models.tiling import Tiled
from resolute.studies.attacked import Subject
from resolute.studies.record import Radius, Record, grouped
from resolute.studies.restoration_results import case_facts, results_of
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.restored import AMPLIFICATION, RestorationCell, RestorationRecord, restored
from resolute.studies.results import Case, Measured, Missing, Quantity, Results, View
from resolute.studies.study import (
    Answer,
    Bench,
    Cell,
    InTiles,
    Progress,
    count,
)

_VIEWS = {
    "defended": "defended output",
    "lower": "lower image",
    "upper": "upper image",
    "moves": f"how far each pixel may move \u00d7{AMPLIFICATION}",
}


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Restoration(RestoreStudy, InTiles):
    """Upscaled images, each certified; the parameters are those of ``certify_restoration``.

    Attributes:
        sigmas: standard deviations of the noise.
        epsilons: l2 radii over all pixels and channels of the input, on the scale of [0, 1].
        samples: noisy copies.
        alpha: chance that a certified figure is wrong.
        seed: of the noise, to repeat a run; None to let the operating system draw one for each image and model.
        noise: ``gaussian`` or ``grid``.
        regions: of the output, as ``X,Y,W,H`` in its pixels, whose means are bounded too.
        metric: name or file of a quality metric whose score of the output is bounded too; empty for none.
        memory: bytes for samples.

    Example:
        >>> Restoration(models=("bicubic",), images=("samples",)).sigmas
        (0.02,)
    """

    kind: ClassVar[str] = "certified-restoration"
    heading: ClassVar[str] = "Certified outputs of {models}"
    records: ClassVar[tuple[type[Record], ...]] = (RestorationRecord,)
    cumulative: ClassVar[bool] = True

    name: FileName = "certify-restoration"
    sigmas: tuple[float, ...] = pydantic.Field(default=(0.02,), min_length=1)
    epsilons: tuple[Radius, ...] = pydantic.Field(default=(0.01,), min_length=1)
    samples: int = pydantic.Field(default=1000, ge=LEAST)
    alpha: float = pydantic.Field(default=0.001, gt=0, lt=1)
    seed: int | None = None
    noise: Literal["gaussian", "grid"] = "gaussian"
    regions: tuple[str, ...] = ()
    metric: str = ""
    memory: int = pydantic.Field(default=MEMORY, ge=10**6)

    def cells(self) -> Sequence[Cell]:
        return self.cells_of([load_defended(model, self.scale) for model in self.models])

    def cells_of(self, models: Sequence[Restorer]) -> Sequence[Cell]:
        """Return the cells about models that are loaded already.

        Raises:
            ConfigError: a region, a radius, a sigma or the memory does not fit.
            ImageError: an image cannot be read.
        """
        if not all(0 < sigma <= LARGEST_SIGMA for sigma in self.sigmas):
            raise ConfigError(
                f"sigma is above 0 and at most {LARGEST_SIGMA:g}, beyond which noise leaves nothing of the picture"
            )
        subjects, statistics = self.subjects(), self.statistics()
        outside = [self._outside(subject) for subject in subjects]
        if outside and all(outside):
            raise ConfigError(outside[0])
        cells: list[Cell] = []
        for subject, problem in zip(subjects, outside, strict=True):
            self._require_room(subject, statistics)
            for model in models:
                for sigma in self.sigmas:
                    made = Smoothing(sigma=sigma, n=self.samples, alpha=self.alpha, seed=self.seed, noise=self.noise)
                    cells += [
                        RestorationCell.of(
                            model, subject, made, epsilon, statistics, self.memory, len(self.epsilons), problem
                        )
                        for epsilon in dict.fromkeys(self.epsilons)
                    ]
        return cells

    def statistics(self) -> tuple[Statistic, ...]:
        """Return what is bounded besides the pixels.

        Raises:
            ConfigError: a region is none.
            CheckpointError: the metric cannot be loaded.
        """
        found = [region_of(text) for text in dict.fromkeys(self.regions)]
        # Where a model does not enlarge, the output shrunk is the output.
        found += [downscaled(self.scale)] if self.scale > 1 else []
        return (*found, *([score_of(load_scorer(self.metric).eval())] if self.metric else []))

    def _outside(self, subject: Subject) -> str:
        height, width = (self.scale * side for side in subject.low.shape[-2:])
        for text in self.regions:
            x, y, across, down = map(int, text.split(","))
            if x + across > width or y + down > height:
                return f"the region {text} leaves the output of {subject.name}, {width} x {height} pixels"
        return ""

    def _require_room(self, subject: Subject, statistics: Sequence[Statistic]) -> None:
        values = 3 * self.scale**2 * subject.low.shape[-2] * subject.low.shape[-1]
        for sigma in self.sigmas:
            for epsilon in self.epsilons:
                least = needed(epsilon, Smoothing(sigma=sigma, n=self.samples, alpha=self.alpha), values)
                if self.samples < least:
                    told = (
                        "no number of samples bounds" if least == math.inf else f"it takes {least:,} samples to bound"
                    )
                    raise ConfigError(
                        f"{subject.name}: at an l2 radius of {epsilon:g} and sigma {sigma:g} {told} all {values:,} "
                        f"values of the output, not {self.samples:,}: take more samples, a larger sigma or a smaller "
                        "radius"
                    )
        try:
            require_memory(self.samples, values + len(statistics) + subject.low[0].numel(), self.memory)
        except MemoryError as error:
            raise ConfigError(f"{subject.name}: {error}") from None

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return restored([cell for cell in cells if isinstance(cell, RestorationCell)], bench, progress)

    def without_tiles(self, cell: Cell) -> str:
        assert isinstance(cell, RestorationCell)
        if undefended(cell.model) is not cell.model:
            return "a model with a defence around it cannot work in tiles; use smaller images or another --device"
        Tiled(cell.model, 128)
        return ""

    def results(self, records: Sequence[Record]) -> Results:
        return results_of(_own(records))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        def worst(record: RestorationRecord) -> float:
            return record.certified[1] if record.certified else 0.0

        for record in sorted(_own(records), key=worst):
            try:
                views = [View(_VIEWS[Path(file).parts[0]], read_kept(folder, file)) for file in record.files]
            except (ImageError, KeyError):
                yield Missing(f"a picture of {record.image}, {record.model}, is unavailable")
                continue
            filters = {"model": record.model, "sigma": f"{record.sigma:g}", "radius": f"{record.epsilon:g}"}
            labels = [view.label for view in views]
            pair = tuple(labels.index(_VIEWS[name]) for name in ("lower", "upper")) if len(views) == len(_VIEWS) else ()
            title = f"{record.image}, {record.model}, sigma {record.sigma:g}, radius {record.epsilon:g}"
            yield Case(title, views, case_facts(record), filters, pair=(pair[0], pair[1]) if pair else (0, -1))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity("certified SR-PSNR", "dB", unknown_worst=True), Quantity("clean PSNR", "dB")]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, RestorationRecord):
            return None
        setting = {"model": record.model, "sigma": f"{record.sigma:g}", "radius": f"{record.epsilon:g}"}
        certified = record.certified[1] if record.certified else None
        return Measured(setting, {"certified SR-PSNR": certified, "clean PSNR": record.kept_psnr})

    def outline(self, cells: Sequence[Cell]) -> str:
        own = [cell for cell in cells if isinstance(cell, RestorationCell)]
        groups = grouped(own, lambda cell: cell.like)
        return f"{count(len(groups), 'image')} by model and sigma x {count(len(self.epsilons), 'radius', 'radii')}"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {
            "guarantee": "of true medians, means and centres of the outputs of noisy copies, for every perturbation of "
            "the input of the l2 norm that is given, over all pixels and channels in [0, 1]; each with its confidence",
            "lower and upper images": "rounded outwards to 8 bits; all their pixels hold together",
            "PSNR": "over RGB, unrounded and uncropped",
        }


def region_of(text: str) -> Statistic:
    """Return the mean of a region ``X,Y,W,H`` of the output.

    Raises:
        ConfigError: it is no such region.

    Example:
        >>> region_of("0,4,8,2").name
        'mean of 0,4,8,2'
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    try:
        if match is None:
            raise ValueError(f"a region is X,Y,W,H in pixels of the output, not {text!r}")
        return region_mean(*map(int, match.groups()))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _own(records: Sequence[Record]) -> list[RestorationRecord]:
    return [record for record in records if isinstance(record, RestorationRecord)]
