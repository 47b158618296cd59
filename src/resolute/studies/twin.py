"""The study of twins: how far two forms of one network part, on honest images and on images searched for it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resolute.attacks.ascent import Attack
from resolute.attacks.ball import Images
from resolute.attacks.gradient import PGD, has_gradient
from resolute.attacks.objective import Bound, output_of
from resolute.attacks.square import Square
from resolute.defences import load_defended
from resolute.errors import ConfigError, ImageError
from resolute.figures import figure, or_infinite
from resolute.files import FileName
from resolute.images import from_uint8, read_kept, to_uint8
from resolute.models.base import Restorer, name_of
from resolute.models.forms import FORMS, InForm
from resolute.runtime import full_float32
from resolute.studies.attacked import Subject, against_truth, psnr_between
from resolute.studies.grid_cases import Replay
from resolute.studies.record import Record, grouped, record_key
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.results import UNFINISHED, Case, Measured, Missing, Quantity, Results, View
from resolute.studies.study import Answer, Bench, Cell, Progress, RestorerCell, about, count, one_by_one
from resolute.table import Column, Table, TableCell, row

# At which differences are seen in pictures.
_AMPLIFICATION = 32


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TwinRecord(Record):
    """How far the outputs of two forms of a network are apart, for one image.

    PSNR in dB; None stands for infinity, where two images are equal, and for what has no ground truth.

    Attributes:
        other: name of the other form; the first is ``model``.
        other_weights: sha256 of its weights; empty where it has none.
        search: how an image near this one was searched for that takes them apart; empty for the image itself.
        largest: difference of a value of the outputs as saved in 8 bits, in levels of 255.
        changed: share of values that differ as saved, in percent.
        unrounded: largest difference before rounding, in levels of 255.
        psnr: between both outputs, RGB.
        psnr_y: output of the first against the ground truth, on Y, border shaved; None without one, or of a search.
        other_psnr_y: that of the other.
        broken: an output is not finite: its figures are those of unequal images.
    """

    view: ClassVar[str] = "twins"

    other: str
    other_weights: str
    search: str
    largest: float
    changed: float
    unrounded: float
    psnr: float | None
    psnr_y: float | None
    other_psnr_y: float | None
    broken: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TwinCell(RestorerCell):
    """Two forms of a network and one image, as it is or with a search near it."""

    other: Restorer
    subject: Subject
    searched: bool

    def restorers(self) -> Sequence[Restorer]:
        return [self.model, self.other]


class Apart(nn.Module):
    """The difference between what two models make of images."""

    def __init__(self, model: Restorer, other: Restorer) -> None:
        super().__init__()
        self.model, self.other = model, other

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.model(x) - self.other(x)


@final
@dataclasses.dataclass(frozen=True)
class OutputSize:
    """Mean square of the output: of a difference between two models, how far they are apart."""

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        return lambda x: output_of(model, x).square().flatten(1).mean(dim=1)


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Twin(RestoreStudy):
    """Two forms of one network x images, as they are and searched for the largest difference.

    Attributes:
        models: the network, and other forms of it, each compared with the first: files, or addresses such as
            ``edsr-s+as=float16``.
        tolerance: largest difference of a value as saved, in levels of 255, at which two are the same.
        level: how far a search goes from an image, in levels of 255; 0 for none.
        steps: of it; a form without gradients is searched by ten times as many queries.
        seed: of the search.

    Example:
        >>> Twin(models=("edsr-xs", "edsr-xs+as=bfloat16")).tolerance
        1
    """

    kind: ClassVar[str] = "twin"
    heading: ClassVar[str] = "Do the forms of {models} differ?"
    records: ClassVar[tuple[type[Record], ...]] = (TwinRecord,)
    worst_of: ClassVar[tuple[str, ...]] = ("search",)

    name: FileName = "twin"
    models: tuple[str, ...] = pydantic.Field(min_length=2)
    tolerance: float = pydantic.Field(default=1, ge=0, le=255)
    level: float = pydantic.Field(default=8, ge=0, le=255)
    steps: int = pydantic.Field(default=30, ge=1)
    seed: int = 0

    def cells(self) -> Sequence[Cell]:
        model, *others = (load_defended(one, self.scale) for one in self.models)
        for one in others:
            if one.card == model.card:
                raise ConfigError(f"{name_of(one)} is one form alone; give another file, or one of {', '.join(FORMS)}")
        searches = (False, True) if self.level else (False,)
        found: list[Cell] = []
        for subject in self.subjects():
            found += [self._cell(model, other, subject, searched) for other in others for searched in searches]
        return found

    def _cell(self, model: Restorer, other: Restorer, subject: Subject, searched: bool) -> TwinCell:
        who = [(one.card.name, one.card.sha256) for one in (model, other) if one.card is not None]
        how = (self.level, self.steps, self.seed) if searched else ()
        pixels = float(subject.low.shape[-2] * subject.low.shape[-1])
        return TwinCell(
            key=record_key(self.kind, who, how, *subject.identity),
            title=f"{subject.name}, {name_of(other)}{', searched' if searched else ''}",
            like=(self.kind, *who, searched), shape=tuple(subject.low.shape),
            cost=pixels * (4 * self.steps if searched else 1), model=model, other=other, subject=subject,
            searched=searched,
        )  # fmt: skip

    def attack(self, differentiable: bool) -> Attack:
        """Return the search: by gradients, or by queries where a form has none."""
        epsilon = self.level / 255
        if differentiable:
            return PGD(epsilon=epsilon, steps=self.steps, objective=OutputSize())
        return Square(epsilon=epsilon, queries=10 * self.steps, objective=OutputSize())

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return one_by_one(cells, progress, lambda cell, step: self._answer(cell, bench, step))

    def _answer(self, cell: Cell, bench: Bench, progress: Progress) -> Answer:
        assert isinstance(cell, TwinCell)
        began = time.perf_counter()
        model, other, subject = bench.place(cell.model), bench.place(cell.other), cell.subject
        given = low = subject.low.to(bench.device)
        search = ""
        if cell.searched:
            apart = Apart(*(one.emulated() if isinstance(one, InForm) else one for one in (model, other))).eval()
            attack = self.attack(has_gradient(apart.other, low) and has_gradient(apart.model, low))
            search = f"{type(attack).__name__}, {self.level:g}/255"
            low = attack(apart, low, seed=self.seed, progress=lambda done, total: progress(done / total)).images
            low = from_uint8(to_uint8(low[0]))[None].to(bench.device)
        ours, theirs = _outputs(model, other, low)
        if cell.searched and _apart(honest := _outputs(model, other, given)) > _apart((ours, theirs)):
            # What is searched for by mean squares may have a smaller largest difference than where the search began.
            low, (ours, theirs) = given, honest
        finite = bool(ours.isfinite().all()) and bool(theirs.isfinite().all())
        change = (_levels(ours) - _levels(theirs)).abs()
        saved = (_levels(ours).round() - _levels(theirs).round()).abs()
        truth = subject if not cell.searched else dataclasses.replace(subject, truth=None)
        assert model.card is not None
        assert other.card is not None
        record = TwinRecord(
            **about(cell, model.card, subject.name, subject.low[0], self.seed),
            other=other.card.name,
            other_weights=other.card.sha256,
            search=search,
            largest=float(saved.max()) if finite else 255.0,
            changed=round(100 * float((saved > 0).double().mean()), 4) if finite else 100.0,
            unrounded=round(float(change.max()), 4) if finite else 255.0,
            psnr=psnr_between(ours, theirs) if finite else 0.0,
            psnr_y=against_truth(ours, truth, model.scale)[0],
            other_psnr_y=against_truth(theirs, truth, model.scale)[0],
            broken=not finite,
            seconds=round(time.perf_counter() - began, 3),
            dataset=subject.dataset,
        )
        return Answer(record, {"searched": low[0].cpu()} if cell.searched else {})

    def results(self, records: Sequence[Record]) -> Results:
        own = _own(records)
        if not own:
            return Results([UNFINISHED], [])
        sentences = [self._sentence(each) for each in grouped(own, lambda one: one.other).values()]
        return Results(sentences, [self._table(own)])

    def _sentence(self, records: Sequence[TwinRecord]) -> str:
        first = records[0]
        honest = [one for one in records if not one.search]
        searched = [one for one in records if one.search]
        worst = max(records, key=lambda one: one.largest)
        images = count(len({(one.dataset, one.image) for one in records}), "image")
        verdict = "are the same" if worst.largest <= self.tolerance else "are not the same"
        told = (
            f"{first.other} and {first.model} {verdict} within {figure(self.tolerance, 0)} of 255 levels on {images}: "
        )
        parts = [
            f"at most {figure(max(one.largest for one in own), 0)} {where}"
            for own, where in ((honest, "on the images as they are"), (searched, "on inputs searched for it"))
            if own
        ]
        told += ", and ".join(parts)
        if honest:
            told += f"; {sum(one.changed for one in honest) / len(honest):.3g} % of the values differ as saved"
        known = [(a, b) for one in honest if (a := one.psnr_y) is not None and (b := one.other_psnr_y) is not None]
        if known:
            ours, theirs = (sum(one) / len(known) for one in zip(*known, strict=True))
            told += f"; clean PSNR {ours:.2f} and {theirs:.2f} dB"
        broken = sum(one.broken for one in records)
        return told + (f"; {count(broken, 'output')} not finite." if broken else ".")

    def _table(self, records: Sequence[TwinRecord]) -> Table:
        columns = [
            Column("form"), Column("largest difference", "levels", digits=0, better="lower", key=True), Column("input"),
            Column("before rounding", "levels", digits=3, better="lower"),
            Column("values that differ", "%", "as saved in 8 bits, a mean", 3, better="lower"),
            Column("PSNR between them", "dB", "the least on any image", better="higher"), Column("images"),
        ]  # fmt: skip
        rows = []
        for (other, search), own in grouped(records, lambda one: (one.other, one.search)).items():
            largest = max(one.largest for one in own)
            tone = "good" if largest <= self.tolerance else "bad"
            psnr = min((one.psnr for one in own if one.psnr is not None), default=float("inf"))
            changed = sum(one.changed for one in own) / len(own)
            unrounded = max(one.unrounded for one in own)
            cells = other, TableCell(largest, tone=tone), search or "as it is", unrounded, changed, psnr, len(own)
            rows.append(row(*cells))
        words = (
            f"Each beside {records[0].model}; the same where no value differs by more than {self.tolerance:g} of 255 "
            "levels."
        )
        return Table("Twins", columns, rows, caption=words)

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        again = Replay(self.scene(), folder)
        for record in sorted(_own(records), key=lambda one: -one.largest)[:12]:
            try:
                model, subject = again.subject_of(record)
                other, _ = again.subject_of(
                    dataclasses.replace(record, model=record.other, weights=record.other_weights)
                )
                low = read_kept(folder, record.files[0])[None] if record.files else subject.low
            except (ImageError, IndexError) as error:
                yield Missing(str(error))
                continue
            with torch.no_grad():
                ours, theirs = model(low)[0].clamp(0, 1), other(low)[0].clamp(0, 1)
            views = [
                View("input", low[0], low=True),
                View("output", ours, record.model),
                View("output", theirs, record.other),
                View(f"difference \u00d7{_AMPLIFICATION}", ((ours - theirs).abs() * _AMPLIFICATION).clamp(0, 1)),
            ]
            words = record.search or "as it is"
            facts = [
                f"largest difference {figure(record.largest, 0)} of 255 levels, {record.changed:.3g} % of the values"
            ]
            yield Case(f"{record.image}, {words}, {record.other}", views, facts, {"form": record.other}, (1, 2))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity("largest difference", "levels", lower_better=True, digits=0), Quantity("PSNR", "dB")]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, TwinRecord):
            return None
        setting = {"model": record.other, "search": record.search or "as it is"}
        return Measured(setting, {"largest difference": record.largest, "PSNR": or_infinite(record.psnr)})

    def outline(self, cells: Sequence[Cell]) -> str:
        own = [cell for cell in cells if isinstance(cell, TwinCell)]
        images = {cell.subject.identity for cell in own}
        forms, kinds = len(self.models) - 1, len({cell.searched for cell in own})
        parts = [count(forms, "other form"), count(len(images), "image"), count(kinds, "input")]
        return f"{' x '.join(parts)}: {count(len(cells), 'cell')}"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {
            "difference": "of the outputs, clamped to [0, 1], in levels of 255, as saved in 8 bits",
            "search": "changes of the input of at most so many levels that take the two outputs apart, in mean square; "
            "that none was found is no proof",
        }


def _own(records: Sequence[Record]) -> list[TwinRecord]:
    return [record for record in records if isinstance(record, TwinRecord)]


def _outputs(model: Restorer, other: Restorer, low: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), full_float32():
        ours, theirs = model(low).cpu(), other(low).cpu()
    if ours.shape != theirs.shape:
        raise ConfigError(
            f"{name_of(other)} gives {tuple(theirs.shape)} where {name_of(model)} gives {tuple(ours.shape)}"
        )
    return ours, theirs


def _apart(outputs: tuple[Tensor, Tensor]) -> float:
    ours, theirs = outputs
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return math.inf
    return float((_levels(ours) - _levels(theirs)).abs().max())


def _levels(output: Tensor) -> Tensor:
    return output.double().clamp(0, 1) * 255
