"""The metric as a training loss: restorers trained with and without it, judged by what they were not trained on."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.certificates.median import certify
from resolute.errors import ConfigError, ImageError
from resolute.files import FileName, beside
from resolute.folders import read_each
from resolute.images import SAMPLE_NAMES, from_uint8, image_sha256, read_kept, sample_image, to_uint8
from resolute.measure.fidelity import SSIM_WINDOW, psnr_rgb, ssim_y
from resolute.models.base import Card, Restorer, Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.randomness import generator_for
from resolute.studies.datasets import Photo, find_photos, middle
from resolute.studies.metric_as_loss_summary import (
    Measure,
    RestorationRecord,
    Training,
    changes_table,
    means_table,
    shared,
    shown,
    verdicts,
)
from resolute.studies.record import Record, record_key
from resolute.studies.results import UNFINISHED, Case, Measured, Quantity, Results, View
from resolute.studies.score_study import behind
from resolute.studies.scored import lack_of_room
from resolute.studies.study import (
    Answer,
    Bench,
    Cell,
    Compared,
    Described,
    Pictured,
    Progress,
    Study,
    about,
    count,
    one_by_one,
)  # fmt: skip

# What the restored pictures are seen beside; no restorer may have these labels.
CLEAN, NOISY = "clean", "noisy"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RestorationCell(Cell):
    """One restorer on one image."""

    label: str
    model: Restorer | None
    panel: Panel
    name: str
    image: Float[Tensor, "3 h w"]
    kept: bool


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class MetricAsLoss(Study, Pictured, Compared, Described):
    """Restorers x images, each restored image measured against the truth and by several metrics.

    A name of a restorer, a metric or a denoiser is a built-in one, a file, or a training run below ``runs``.

    Attributes:
        name: of the study, in reports.
        restorers: denoisers for noise of ``sigma``; the label of each is the name on its card.
        control: label of the restorer that the others are compared with.
        metric: the metric that was rewarded.
        denoiser: what stands before it where it is defended; empty for noise alone.
        smoothing: standard deviation of the noise of the defence.
        samples: noisy copies whose median is the defended score.
        judges: metrics that no restorer was trained on.
        images: ``samples`` for the photographs inside scikit-image, or image files and folders; all of them clean.
        sigma: standard deviation of the noise that the restorers take away.
        every: take each n-th image only.
        crop: cut the middle square of this many pixels out of every image first; 0 for whole images.
        pictures: images whose restored versions are kept for the report.
        seed: of the noise.
        runs: folder of training runs.
        skip_broken: leave images out that cannot be read, and say so.

    Example:
        >>> from resolute.studies.kinds import read_study
        >>> read_study("metric-as-loss").control
        'restorer-mse-2'
    """

    kind: ClassVar[str] = "metric-as-loss"
    heading: ClassVar[str] = "Quality metrics as losses, on {images}"
    records: ClassVar[tuple[type[Record], ...]] = (RestorationRecord,)

    name: FileName
    restorers: tuple[str, ...] = pydantic.Field(min_length=2)
    control: str
    metric: str
    denoiser: str = ""
    smoothing: float = pydantic.Field(default=0.12, gt=0, le=1)
    samples: int = pydantic.Field(default=64, ge=1)
    judges: tuple[str, ...] = ()
    images: tuple[str, ...] = ("samples",)
    sigma: float = pydantic.Field(gt=0, le=1)
    every: int = pydantic.Field(default=1, ge=1)
    crop: int = pydantic.Field(default=0, ge=0)
    pictures: int = pydantic.Field(default=4, ge=0)
    seed: int = 0
    runs: str = "runs"
    skip_broken: bool = False

    def cells(self) -> Sequence[Cell]:
        restorers = self._restorers()
        panel = Panel(self)
        cells: list[Cell] = []
        for number, (name, image) in enumerate(self._images()):
            problem = panel.lack_of_room(name, image)
            for label, model in ((CLEAN, None), (NOISY, None), *restorers.items()):
                weights = model.card.sha256 if model is not None and model.card is not None else label
                settings = (self.sigma, self.crop, self.seed, panel.configuration)
                cells.append(
                    RestorationCell(
                        key=record_key(self.kind, *settings, label, weights, name, image_sha256(image)),
                        title=f"{name}, {label}", like=(label, weights), shape=tuple(image.shape),
                        cost=float(image.shape[-2] * image.shape[-1]), label=label, model=model, panel=panel,
                        name=name, image=image, kept=number < self.pictures, problem=problem,
                    )
                )  # fmt: skip
        return cells

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        def answer(cell: Cell, _told: Progress) -> Answer:
            assert isinstance(cell, RestorationCell)
            began = time.perf_counter()
            image = cell.image.to(bench.device)
            restored = self._restored(image, cell.label, bench.place(cell.model) if cell.model is not None else None)
            card = cell.model.card if cell.model is not None else None
            named = card or Card(name=cell.label, architecture={}, scale=1)
            record = RestorationRecord(
                **about(cell, named, cell.name, cell.image, self.seed),
                values=cell.panel.judge(restored, image, bench),
                measures=tuple(cell.panel.measures),
                training=_training(card) if card is not None else None,
                seconds=round(time.perf_counter() - began, 3),
            )
            return Answer(record, {"pictures": restored.cpu()} if cell.kept else {})

        return one_by_one(cells, progress, answer)

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        denoiser = f" and behind {Path(self.denoiser).stem}" if self.denoiser else ""
        return {
            "noise": f"of standard deviation {self.sigma:g} on clean photographs",
            "SSIM": "on Y, no border shaved",
            "defended": f"the median score under noise of {self.smoothing:g}{denoiser}, "
            f"{count(self.samples, 'sample')}",
            "hacked": "the score that was rewarded rises, while the image comes no nearer to the clean one or metrics "
            "that were not trained on do not follow",
        }

    def outline(self, cells: Sequence[Cell]) -> str:
        images = len(cells) // (2 + len(self.restorers))
        restorers, all_of_them = count(len(self.restorers), "restorer"), count(len(cells), "cell")
        return f"{count(images, 'image')} x {restorers}, noisy and clean = {all_of_them}"

    def results(self, records: Sequence[Record]) -> Results:
        own = shared(records)
        if not own:
            return Results([UNFINISHED], [])
        control = next((r.model for r in own if self.control in (r.model, Path(r.model).stem)), self.control)
        found = verdicts(own, own[0].measures, control)
        sentences = [verdict.sentence for verdict in found] or [UNFINISHED]
        return Results(sentences, [means_table(own), changes_table(found, own)])

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        own = shared(records)
        for image in dict.fromkeys(record.image for record in own):
            views: list[View] = []
            for record in own:
                try:
                    pixels = read_kept(folder, record.files[0]) if record.files and record.image == image else None
                except ImageError:
                    continue
                if pixels is not None:
                    figures = (f"{m.name} {shown(m, record.values.get(m.name))}" for m in record.measures)
                    views.append(View(record.model, pixels, note="; ".join(figures)))
            if views:
                yield Case(image, views, filters={"image": image})

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        measures = next((record.measures for record in records if isinstance(record, RestorationRecord)), ())
        return [Quantity(m.name, m.unit, m.lower_better, m.digits) for m in measures]

    def measured(self, record: Record) -> Measured | None:
        return Measured({"restorer": record.model}, record.values) if isinstance(record, RestorationRecord) else None

    def _restorers(self) -> dict[str, Restorer]:
        found: dict[str, Restorer] = {}
        for name in self.restorers:
            model = load(self.found(name), scale=1)
            assert model.card is not None
            label = model.card.name
            if label in (CLEAN, NOISY, *found):
                raise ConfigError(f"{self.name}: two of its pictures are called {label!r}; train under another name")
            found[label] = model
        if self.control not in found:
            raise ConfigError(f"{self.name}: control is one of {', '.join(found)}, not {self.control!r}")
        return found

    def found(self, name: str) -> Path | str:
        """Return the weights of the training run of this name, or the name where there is none."""
        # Files are named beside a folder of results, and here any will do.
        return beside(Path(self.runs) / "results", name) or name

    def _images(self) -> list[tuple[str, Float[Tensor, "3 h w"]]]:
        if self.images == ("samples",):
            named = [(name, sample_image(name)) for name in SAMPLE_NAMES[:: self.every]]
        else:
            photos = find_photos(self.images, self.every)
            repeated = Counter(photo.stem for photo in photos)

            def read(photo: Photo) -> tuple[str, Float[Tensor, "3 h w"]]:
                twice = photo.path is not None and repeated[photo.stem] > 1
                return str(photo.path) if twice else photo.name, photo.read()

            named = read_each(photos, read, self.skip_broken)
        return [(name, middle(image, self.crop)) for name, image in named]

    def _restored(self, image: Float[Tensor, "3 h w"], label: str, model: Restorer | None) -> Float[Tensor, "3 h w"]:
        """Return what is judged, on the 8-bit grid of the file that it ends in."""
        if label == CLEAN:
            return image
        noise = torch.randn(image.shape, generator=generator_for(self.seed, "restore", image_sha256(image)))
        noisy = (image + self.sigma * noise.to(image)).clamp(0, 1)
        with torch.no_grad():
            restored = model(noisy[None])[0].clamp(0, 1) if model is not None else noisy
        return from_uint8(to_uint8(restored)).to(image)


@final
class Panel:
    """Everything that a restored image is measured by.

    Raises:
        ConfigError: two metrics of one name.
        CheckpointError: one cannot be loaded.
    """

    def __init__(self, study: MetricAsLoss) -> None:
        self.study = study
        bare = load_scorer(study.found(study.metric))
        self.defended = behind(bare, study.found(study.denoiser) if study.denoiser else "")
        judges = [load_scorer(study.found(judge)) for judge in study.judges]
        self.scorers: dict[str, Scorer] = {}
        self.measures = [Measure("PSNR", "truth", unit="dB"), Measure("SSIM", "truth", digits=4)]
        for scorer in (bare, *judges):
            assert scorer.card is not None
            if scorer.card.name in self.scorers:
                raise ConfigError(f"{study.name}: two of its metrics are called {scorer.card.name!r}")
            self.scorers[scorer.card.name] = scorer
            self.measures.append(Measure(scorer.card.name, "judge", lower_better=scorer.lower_better))
        assert bare.card is not None
        name = bare.card.name
        self.title = f"defended {name}"
        self.measures[2:3] = [
            Measure(name, "rewarded", lower_better=bare.lower_better),
            Measure(self.title, "defended", lower_better=bare.lower_better),
        ]
        weights = [(name, scorer.card.sha256 if scorer.card else "") for name, scorer in self.scorers.items()]
        self.configuration = [weights, self.defended.arguments(), study.smoothing, study.samples]

    def lack_of_room(self, name: str, image: Float[Tensor, "3 h w"]) -> str:
        """Say for which of the metrics an image is too small; empty where it is for none."""
        size, name = image.shape[1:], f"the middle of {name}" if self.study.crop else name
        if min(size) < SSIM_WINDOW:
            return f"{name} is too small: SSIM needs {SSIM_WINDOW} pixels a side"
        return next((told for one in self.scorers.values() if (told := lack_of_room(one, name, size))), "")

    def judge(
        self, restored: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], bench: Bench
    ) -> dict[str, float | None]:
        """Return the figures of one restored image; None where one is infinite or undefined."""
        values = {
            "PSNR": psnr_rgb(restored[None], clean[None]).item(),
            "SSIM": ssim_y(restored[None], clean[None], border=0).item(),
        }
        for name, scorer in self.scorers.items():
            with torch.no_grad():
                values[name] = bench.place(scorer)(restored[None]).item()
        study, defended = self.study, bench.place(self.defended)
        values[self.title] = certify(defended, restored, study.smoothing, 0.0, study.samples, seed=study.seed).score
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _training(card: Card) -> Training:
    training: dict[str, Any] = card.training
    reward: dict[str, Any] = (training.get("recipe") or {}).get("reward") or {}
    return Training(
        steps=training.get("steps"),
        seconds_per_step=training.get("seconds_per_step"),
        reward=float(reward["weight"]) if "weight" in reward else None,
    )
