"""The metric as a training loss: restorers trained with and without it, judged by what they were not trained on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.certificates.median import DenoisedScorer, certify
from resolute.errors import ConfigError, ImageError
from resolute.files import beside, write_text
from resolute.images import (
    SAMPLE_NAMES,
    find_images,
    from_uint8,
    image_sha256,
    read_image,
    sample_image,
    to_uint8,
    write_png,
)
from resolute.measure.fidelity import psnr_rgb, ssim_y
from resolute.models.base import Restorer, Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.provenance import provenance
from resolute.randomness import generator_for
from resolute.studies.metric_as_loss_summary import Measure
from resolute.studies.store import append_line, cell_key, read_lines
from resolute.studies.study import find_study
from resolute.toml import read_toml

Row = dict[str, Any]
Progress = Callable[[float, int, str], None]

# What the restored pictures are seen beside; no restorer may have these labels.
CLEAN, NOISY = "clean", "noisy"


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class MetricAsLoss:
    """Restorers x images, each restored image measured against the truth and by several metrics.

    A name of a restorer, a metric or a denoiser is a built-in one, a file, or a run beside the folder of the results.

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

    Example:
        >>> MetricAsLoss.read("metric-as-loss").control
        'restorer-mse-2'
    """

    kind: Literal["metric-as-loss"] = "metric-as-loss"
    name: str
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

    @staticmethod
    def read(source: str | Path) -> MetricAsLoss:
        """Read such a study from a TOML file, or a built-in one by name.

        Raises:
            ConfigError: no such study, no valid TOML, or a key that does not exist or is out of range.
        """
        return read_toml(find_study(source), MetricAsLoss)

    def run(self, out: Path, *, device: str = "cpu", progress: Progress | None = None) -> list[Row]:
        """Compute the records that ``out`` does not hold yet; return all of this study, image by image.

        Writes ``records.jsonl``, ``study.json`` and, for the first images, the pictures.

        Raises:
            ConfigError: two restorers of one label, a control that is none of them, or a restorer that is none.
            CheckpointError, ImageError: a model, a metric or an image cannot be read.
            OutputError: a record cannot be written; those before it are kept.
        """
        restorers = self._restorers(out)
        panel = _Panel(self, out)
        images = self._images()
        facts = {
            "kind": self.kind,
            "study": dataclasses.asdict(self),
            "settings": self._settings(panel),
            "measures": [dataclasses.asdict(measure) for measure in panel.measures],
            "provenance": dataclasses.asdict(provenance()),
        }
        write_text(out / "study.json", json.dumps(facts, indent=1) + "\n")
        path = out / "records.jsonl"
        done = {row["key"]: row for row in read_lines(path) if "key" in row}
        cells = [
            (number, name, image, label, restorers.get(label))
            for number, (name, image) in enumerate(images)
            for label in (CLEAN, NOISY, *restorers)
        ]
        rows: list[Row] = []
        for index, (number, name, image, label, model) in enumerate(cells):
            if progress is not None:
                progress(index, len(cells), f"{name}, {label}")
            weights = model.card.sha256 if model is not None and model.card is not None else label
            key = cell_key(facts["settings"], weights, image_sha256(image))
            picture = out / "pictures" / f"{key}.png"
            kept = number < self.pictures
            if key not in done or (kept and not picture.is_file()):
                restored = self._restored(image.to(device), label, model.to(device) if model is not None else None)
                if kept:
                    write_png(picture, restored.cpu())
                if key not in done:
                    done[key] = {"key": key, "weights": weights, **panel.judge(restored, image.to(device))}
                    done[key] |= {"restorer": label, "image": name, "training": _training(model)}
                    done[key]["settings"] = facts["settings"]
                    append_line(path, done[key])
            rows.append(done[key] | {"restorer": label, "image": name})
        if progress is not None:
            progress(len(cells), len(cells), "done")
        return rows

    def _settings(self, panel: _Panel) -> str:
        """Return a hash of what all records of a study share, to tell them from others in the same folder."""
        return cell_key(self.kind, self.sigma, self.crop, self.seed, panel.configuration)

    def _restorers(self, out: Path) -> dict[str, Restorer]:
        found: dict[str, Restorer] = {}
        for name in self.restorers:
            model = load(beside(out, name) or name, scale=1)
            assert model.card is not None
            label = model.card.name
            if label in (CLEAN, NOISY, *found):
                raise ConfigError(f"{self.name}: two of its pictures are called {label!r}; train under another name")
            found[label] = model
        if self.control not in found:
            raise ConfigError(f"{self.name}: control is one of {', '.join(found)}, not {self.control!r}")
        return found

    def _images(self) -> list[tuple[str, Float[Tensor, "3 h w"]]]:
        if self.images == ("samples",):
            named = [(name, sample_image(name)) for name in SAMPLE_NAMES[:: self.every]]
        else:
            files = find_images([Path(image) for image in self.images])[:: self.every]
            repeated = Counter(file.stem for file in files)
            named = [(str(file) if repeated[file.stem] > 1 else file.stem, read_image(file)) for file in files]
        return [(name, self._middle(image)) for name, image in named]

    def _middle(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h1 w1"]:
        if not self.crop:
            return image
        top, left = (max(0, (side - self.crop) // 2) for side in image.shape[1:])
        return image[:, top : top + self.crop, left : left + self.crop].contiguous()

    def _restored(self, image: Float[Tensor, "3 h w"], label: str, model: Restorer | None) -> Float[Tensor, "3 h w"]:
        """Return what is judged, on the 8-bit grid of the file that it ends in."""
        if label == CLEAN:
            return image
        noise = torch.randn(image.shape, generator=generator_for(self.seed, "restore", image_sha256(image)))
        noisy = (image + self.sigma * noise.to(image)).clamp(0, 1)
        with torch.no_grad():
            restored = model(noisy[None])[0].clamp(0, 1) if model is not None else noisy
        return from_uint8(to_uint8(restored)).to(image)


class _Panel:
    """Everything that a restored image is measured by."""

    def __init__(self, study: MetricAsLoss, out: Path) -> None:
        self.study = study
        bare = load_scorer(beside(out, study.metric) or study.metric)
        self.defended: Scorer = bare
        if study.denoiser:
            self.defended = DenoisedScorer(bare, load(beside(out, study.denoiser) or study.denoiser, scale=1)).eval()
        judges = [load_scorer(beside(out, judge) or judge) for judge in study.judges]
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

    def judge(self, restored: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> Row:
        """Return the figures of one restored image; None where one is infinite or undefined."""
        device = restored.device
        values = {
            "PSNR": psnr_rgb(restored[None], clean[None]).item(),
            "SSIM": ssim_y(restored[None], clean[None], border=0).item(),
        }
        for name, scorer in self.scorers.items():
            if min(restored.shape[1:]) < scorer.smallest:
                raise ImageError(f"{name} needs {scorer.smallest} pixels a side; an image or the crop is smaller")
            with torch.no_grad():
                values[name] = scorer.to(device)(restored[None]).item()
        study = self.study
        certificate = certify(self.defended.to(device), restored, study.smoothing, 0.0, study.samples, seed=study.seed)
        values[self.title] = certificate.score
        return {"values": {name: value if math.isfinite(value) else None for name, value in values.items()}}


def training_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
    """Return what the cards say of the training of each restorer, by label."""
    return {row["restorer"]: row["training"] for row in rows if row["training"]}


def _training(model: Restorer | None) -> Row:
    if model is None or model.card is None:
        return {}
    training: Row = model.card.training
    recipe = training.get("recipe") or {}
    return {
        "steps": training.get("steps"),
        "seconds_per_step": training.get("seconds_per_step"),
        "reward": recipe.get("reward"),
    }
