"""The study of faithfulness: what an output owes to its input, how far its pixels move, and which of them to trust."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pydantic
import torch
from jaxtyping import Bool, Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.certificates.faithfulness import NUDGES, Faithfulness, Nudges, faithful
from resolute.certificates.trust import THRESHOLDS, Trust, beyond, error_map, find_trust, fingerprint_of, losses_of
from resolute.chart import BICUBIC
from resolute.defences import load_defended
from resolute.defences.wrappers import gaussian
from resolute.errors import ConfigError, ImageError, ImageWarning, ModelWarning
from resolute.figures import figure, or_infinite
from resolute.files import FileName
from resolute.images import from_uint8, read_kept, to_uint8
from resolute.measure.parts import consistency, parts_of, rms
from resolute.models.base import Restorer, name_of
from resolute.models.tiling import Tiled
from resolute.studies.attacked import Subject, against_truth
from resolute.studies.faithful_results import (
    FaithfulRecord,
    results_of,
    trust_in_words,
    worst_first,
)
from resolute.studies.grid_cases import Replay, heat_map
from resolute.studies.record import Record, record_key
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.results import Case, Measured, Missing, Quantity, Results, View
from resolute.studies.scored import finite
from resolute.studies.study import Answer, Bench, Cell, InTiles, Progress, RestorerCell, about, count, one_by_one

# Calibrations of this project's models, and those that were made here.
SHIPPED = Path(str(resources.files("resolute"))) / "calibrations" / "trust"
MADE = Path("runs/calibrations/trust")

# At which detail is seen in pictures.
_AMPLIFICATION = 8
# Over what is not trusted: a colour that photographs seldom have, and how much of it.
_COVER, _OPACITY = (0.6, 0.2, 0.8), 0.7

_VIEWS = {
    "output": "output",
    "trusted": "output, what is not trusted covered",
    "added": f"added: neither confirmed nor refuted, \u00d7{_AMPLIFICATION}",
    "added-map": "where it is added",
    "contradicted": "contradicts the input",
    "noise": "moved by noise",
    "jpeg": "moved by JPEG",
    "attack": "moved by an attack",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FaithfulCell(RestorerCell):
    """One model and one image, with the calibration of the model if there is one."""

    subject: Subject
    trust: Trust | None


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Faithful(RestoreStudy, InTiles):
    """Models x images: did it invent this?

    Attributes:
        high_resolution: the images are the ground truth, to be shrunk first.
        noise, draws, jpeg, level, steps: how the input is moved, see ``Nudges``.
        bound: of the error of a trusted pixel, in levels of 255.
        rate: the expected share of the trusted pixels of a photograph whose error may exceed the bound.
        calibration: file of the calibration of one of the models; empty for those shipped or made here.
        honest: the images are photographs to calibrate with: nothing moves.
        seed: of noise and attack.

    Example:
        >>> Faithful(models=("edsr-s",), images=("photo.png",)).bound
        16
    """

    kind: ClassVar[str] = "faithful"
    heading: ClassVar[str] = "Did {models} invent this?"
    records: ClassVar[tuple[type[Record], ...]] = (FaithfulRecord,)

    name: FileName = "faithful"
    high_resolution: bool = False
    noise: float = Nudges.noise
    draws: int = Nudges.draws
    jpeg: int = Nudges.jpeg
    level: float = Nudges.level
    steps: int = Nudges.steps
    bound: float = pydantic.Field(default=16, gt=0, lt=255)
    rate: float = pydantic.Field(default=0.1, gt=0, lt=1)
    calibration: str = ""
    honest: bool = False
    seed: int = 0

    @property
    def nudges(self) -> Nudges:
        """How the input is moved."""
        return Nudges(noise=self.noise, draws=self.draws, jpeg=self.jpeg, level=self.level, steps=self.steps)

    def cells(self) -> Sequence[Cell]:
        if self.truths and self.high_resolution:
            raise ConfigError("images that are the truth themselves need no other; leave one of both out")
        assert self.nudges
        models = [load_defended(model, self.scale) for model in self.models]
        calibrations = self._calibrations(models)
        subjects = self.subjects()
        if self.honest and not all(subject.truth is not None for subject in subjects):
            raise ConfigError("a calibration takes photographs with truth: high-resolution ones, to be shrunk first")
        return [self._cell(*one, subject) for subject in subjects for one in zip(models, calibrations, strict=True)]

    def _calibrations(self, models: Sequence[Restorer]) -> list[Trust | None]:
        if self.honest:
            return [None] * len(models)
        files = [*sorted(MADE.glob("*.json")), *sorted(SHIPPED.glob("*.json"))]
        if self.calibration:
            files.insert(0, Path(self.calibration))
            made = Trust.read(files[0])
            if made.fingerprint not in map(fingerprint_of, models):
                made.require(models[0])
            if made.bound != self.bound:
                raise ConfigError(f"{self.calibration} is for errors of {made.bound:g} levels, not {self.bound:g}")
        return [enough(find_trust(model, self.bound, files), self.rate) for model in models]

    def _cell(self, model: Restorer, trust: Trust | None, subject: Subject) -> FaithfulCell:
        assert model.card is not None
        name, weights = model.card.name, model.card.sha256
        held = None if trust is None else trust.sha256
        asked = "honest" if self.honest else repr(self.nudges)
        pixels = float(subject.low.shape[-2] * subject.low.shape[-1])
        return FaithfulCell(
            key=record_key(self.kind, name, weights, asked, held, self.bound, self.rate, *subject.identity, self.seed),
            title=f"{subject.name}, {name}", like=(self.kind, name, weights), shape=tuple(subject.low.shape),
            cost=pixels * (1 if self.honest else 1 + self.nudges.passes), model=model, subject=subject, trust=trust,
        )  # fmt: skip

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return one_by_one(cells, progress, lambda cell, step: self._answer(cell, bench, step))

    def _answer(self, cell: Cell, bench: Bench, progress: Progress) -> Answer:
        assert isinstance(cell, FaithfulCell)
        began = time.perf_counter()
        model, subject = bench.place(cell.model), cell.subject
        nudges = None if self.honest else self.nudges
        found = faithful(
            model, subject.low[0], nudges, cell.trust, rate=self.rate, seed=self.seed, progress=progress
        )  # fmt: skip
        assert cell.model.card is not None
        record = FaithfulRecord(
            **about(cell, cell.model.card, subject.name, subject.low[0], self.seed),
            **_parts(found),
            **_movement(found),
            **_against(found, subject, self.bound),
            **_trusted(found, cell.trust),
            nudges="" if nudges is None else _in_words(nudges),
            bound=self.bound,
            rate=self.rate,
            losses=self._losses(found, subject) if self.honest else (),
            broken=found.broken,
            seconds=round(time.perf_counter() - began, 3),
            dataset=subject.dataset,
        )
        return Answer(record, {} if self.honest else _pictures(found, self.scale, self.bound))

    def _losses(self, found: Faithfulness, subject: Subject) -> tuple[float, ...]:
        assert subject.truth is not None
        if found.broken:
            return (1.0,) * len(THRESHOLDS)
        return losses_of(found.output, subject.truth[0], self.bound, self.scale)

    def without_tiles(self, cell: Cell) -> str:
        assert isinstance(cell, FaithfulCell)
        Tiled(cell.model, 128)
        return ""

    def results(self, records: Sequence[Record]) -> Results:
        return results_of(_own(records))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        again = Replay(self.scene(), folder)
        for record in worst_first(_own(records)):
            try:
                model, subject = again.subject_of(record)
                pictures = {Path(file).parts[0]: read_kept(folder, file) for file in record.files}
            except ImageError as error:
                yield Missing(str(error))
                continue
            if "output" in pictures:
                yield self._case(record, model.scale, subject, pictures)

    def _case(
        self, record: FaithfulRecord, scale: int, subject: Subject, pictures: dict[str, Float[Tensor, "3 sh sw"]]
    ) -> Case:
        with torch.no_grad():
            usual = load_defended(BICUBIC, scale)(subject.low)[0].clamp(0, 1)
        views = [View("input", subject.low[0], low=True), View("bicubic interpolation", usual)]
        views += [View(label, pictures[name]) for name, label in _VIEWS.items() if name in pictures]
        if subject.truth is not None:
            error = heat_map(error_map(pictures["output"], subject.truth[0]), 0, record.bound)
            views += [View("truth", subject.truth[0]), View("error", error)]
        facts = [
            f"added {figure(record.added)} levels, contradicted {figure(record.contradicted)}; consistency "
            f"{figure(or_infinite(record.consistency))} dB",
            trust_in_words(record),
            f"maps: dark 0, bright {record.bound:g} levels of 255 or more; added: grey is nothing",
        ]
        labels = [view.label for view in views]
        right = labels.index(_VIEWS["trusted" if "trusted" in pictures else "added"])
        return Case(
            f"{record.image}, {record.model}", views, facts, {"model": record.model},
            pair=(labels.index("output"), right),
        )  # fmt: skip

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        levels = [Quantity(name, "levels", lower_better=True) for name in ("added", "contradicted")]
        moved = [Quantity(f"moved by {name}", "levels", lower_better=True) for name in NUDGES]
        shares = [Quantity("trusted", "%"), Quantity("wrong among trusted", "%", lower_better=True)]
        return [Quantity("consistency", "dB"), *levels, *moved, *shares]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, FaithfulRecord):
            return None
        values = {
            "consistency": or_infinite(record.consistency), "added": record.added, "contradicted": record.contradicted,
            "moved by noise": record.noise_moved, "moved by jpeg": record.jpeg_moved,
            "moved by attack": record.attack_moved, "trusted": record.trusted,
            "wrong among trusted": record.wrong_trusted,
        }  # fmt: skip
        return Measured({"model": record.model}, values)

    def outline(self, cells: Sequence[Cell]) -> str:
        images = {cell.subject.identity for cell in cells if isinstance(cell, FaithfulCell)}
        return f"{count(len(self.models), 'model')} x {count(len(images), 'image')}"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        told = {
            "shrinking": "as MATLAB does (bicubic, antialiased): of inputs that were made otherwise, what is called "
            "added and contradicted is relative to it",
            "added": "the part of the output in the null space of that shrinking; contradicted: the part of its row "
            "space that differs from what the input says",
        }
        if self.honest:
            return told
        trusts = [cell.trust for cell in cells if isinstance(cell, FaithfulCell) and cell.trust is not None]
        if trusts:
            told["trusted"] = (
                f"of a photograph that is exchangeable with those of the calibration, at most {100 * self.rate:g} % of "
                f"the trusted pixels have an error of more than {self.bound:g} levels, in expectation (conformal risk "
                "control); nothing is promised for photographs of another kind or inputs made otherwise"
            )
        for trust in {trust.sha256: trust for trust in trusts}.values():
            told[f"calibration of {trust.model}"] = f"{len(trust.losses)} photographs, {trust.photographs}"
        return told | {"maps": f"dark 0, bright {self.bound:g} levels of 255 or more"}


def enough(trust: Trust | None, rate: float) -> Trust | None:
    """Return a calibration that a rate can be had from; else None, with a ``ModelWarning``."""
    if trust is None:
        return None
    try:
        trust.threshold(rate)
    except ConfigError as error:
        warnings.warn(f"no mask for {trust.model}: {error}", ModelWarning, stacklevel=4)
        return None
    return trust


def trust_of(study: Faithful, records: Sequence[Record], photographs: str) -> list[Trust]:
    """Return the calibrations that the records of photographs make, one a model.

    Photographs of equal pixels count once, since none of them is news.

    Args:
        study: that they are the answers of.
        records: one a photograph and model.
        photographs: what they are, in words.
    """
    found: list[Trust] = []
    for model in (load_defended(one, study.scale) for one in study.models):
        all_own = [record for record in _own(records) if record.model == name_of(model)]
        own = {record.pixels: record for record in all_own}
        if len(own) < len(all_own):
            left = count(len(all_own) - len(own), "photograph")
            warnings.warn(f"{left} left out: others have the same pixels", ImageWarning, stacklevel=2)
        found.append(
            Trust(
                model=name_of(model), fingerprint=fingerprint_of(model), photographs=photographs, bound=study.bound,
                losses=tuple(record.losses for record in own.values()),
            )
        )  # fmt: skip
    return found


def _own(records: Sequence[Record]) -> list[FaithfulRecord]:
    return [record for record in records if isinstance(record, FaithfulRecord)]


def _parts(found: Faithfulness) -> dict[str, Any]:
    broken, parts = found.broken, found.parts
    return {
        "consistency": finite(found.consistency),
        "added": 255.0 if broken else round(float(rms(parts.added)), 4),
        "added_share": 100.0 if broken else round(100 * float(parts.share_added()), 4),
        "contradicted": 255.0 if broken else round(float(rms(parts.contradicted)), 4),
    }


def _movement(found: Faithfulness) -> dict[str, float | None]:
    facts: dict[str, float | None] = {}
    for name in NUDGES:
        moved = found.moved.get(name)
        facts[f"{name}_moved"] = None if moved is None else round(float(moved.double().mean()), 4)
        facts[f"{name}_most"] = None if moved is None else round(float(np.quantile(moved.numpy(), 0.99)), 4)
    return facts


def _against(found: Faithfulness, subject: Subject, bound: float) -> dict[str, float | None]:
    truth, low = subject.truth, subject.low
    if truth is None:
        return dict.fromkeys(("truth_consistency", "truth_added", "psnr_y"))
    wrong = torch.ones(truth.shape[-2:], dtype=torch.bool) if found.broken else beyond(found.output, truth[0], bound)
    output = torch.full_like(truth, torch.nan) if found.broken else found.output[None]
    return {
        "truth_consistency": finite(float(consistency(truth, low))),
        "truth_added": round(float(rms(parts_of(truth, low).added)), 4),
        "psnr_y": against_truth(output, subject, truth.shape[-1] // low.shape[-1])[0],
        "wrong": _percent(wrong),
        "wrong_trusted": None if found.trusted is None else _percent(wrong[found.trusted]),
        "wrong_others": None if found.trusted is None else _percent(wrong[~found.trusted]),
    }


def _trusted(found: Faithfulness, trust: Trust | None) -> dict[str, Any]:
    if trust is None or found.trusted is None:
        return {}
    return {
        "photographs": trust.photographs, "calibrated": len(trust.losses), "calibration": trust.sha256,
        "trusted": _percent(found.trusted),
    }  # fmt: skip


def _percent(chosen: Bool[Tensor, ...]) -> float | None:
    return round(100 * float(chosen.double().mean()), 4) if chosen.numel() else None


def _pictures(found: Faithfulness, scale: int, bound: float) -> dict[str, Tensor]:
    pictures = {"output": found.output}
    if found.trusted is not None:
        cover = torch.tensor(_COVER).view(3, 1, 1)
        pictures["trusted"] = torch.where(found.trusted, found.output, torch.lerp(found.output, cover, _OPACITY))
    pictures["added"] = (0.5 + _AMPLIFICATION * found.parts.added[0]).clamp(0, 1)
    contradicted = found.parts.contradicted[0].abs().amax(dim=0) * 255
    added = gaussian(found.parts.added.square(), scale / 2)[0].mean(dim=0).sqrt() * 255
    maps = {"added-map": added, "contradicted": contradicted, **found.moved}
    pictures |= {name: heat_map(values.float(), 0, bound) for name, values in maps.items()}
    return {name: from_uint8(to_uint8(picture)) for name, picture in pictures.items()}


def _in_words(nudges: Nudges) -> str:
    return (
        f"noise of {nudges.noise:g}/255, JPEG of quality {nudges.jpeg}, an attack of {nudges.level:g}/255 in "
        f"{count(nudges.steps, 'step')}"
    )
