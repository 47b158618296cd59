"""The study that doubts a model: many attacks that should agree, and a flag where they do not."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.defences import load_defended
from resolute.files import FileName
from resolute.folders import read_each
from resolute.images import from_uint8, image_sha256, sample_image, to_uint8
from resolute.models.base import Restorer
from resolute.resize import downscale
from resolute.studies.check_suite import CheckSuite
from resolute.studies.datasets import Photo, find_photos, middle
from resolute.studies.flags import RULES, RUNS, UNMOVED, Evidence, Flag
from resolute.studies.record import Record, grouped, record_key
from resolute.studies.results import UNFINISHED, Measured, Quantity, Results
from resolute.studies.study import (
    Answer,
    Bench,
    Cell,
    Compared,
    Described,
    Progress,
    RestorerCell,
    Study,
    about,
    count,
    one_by_one,
)  # fmt: skip
from resolute.table import Column, Table, TableCell, row

# Small, since an attack on few pixels shows a masked gradient as well as one on many.
SIDE = 32
LEAST = 8
SAMPLES = ("coffee", "chelsea", "astronaut")


def _with_all(runs: dict[str, float]) -> dict[str, float]:
    if lacking := [name for name in RUNS if name not in runs]:
        raise ValueError(f"without {', '.join(lacking)}")
    return runs


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckRecord(Record):
    """What a check saw of one model on one image; SR-PSNR in dB, at most 100, which stands for an unmoved output.

    Attributes:
        epsilon: budget, on the scale of [0, 1].
        steps: of the run ``climb``.
        runs: SR-PSNR after each of the plain runs, see ``Evidence``.
        unrounded: SR-PSNR of ``climb`` before its image was rounded to 8 bits.
        restarts: SR-PSNR of runs from random starts.
        transfers: SR-PSNR of images found on other models, by name.
        random_images: SR-PSNR of unrelated, random images, a mean.
        flat: share of the input's values without a gradient, in percent.
        error: of the slope that the gradient promises, in percent.
        jump: largest difference between outputs of the same image, in levels of 255.
        saturated: share of output values at the ends of the range beyond that of the input, in percent.
    """

    view: ClassVar[str] = "checks"

    epsilon: float
    steps: int
    runs: Annotated[dict[str, float], pydantic.AfterValidator(_with_all)]
    unrounded: float
    restarts: Annotated[tuple[float, ...], pydantic.Field(min_length=1)]
    transfers: dict[str, float]
    random_images: float
    flat: float
    error: float
    jump: float
    saturated: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CheckCell(RestorerCell):
    """One model on one image."""

    twin: Restorer | None
    name: str
    low: Float[Tensor, "1 3 h w"]


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Check(Study, Compared, Described):
    """Models x images, each attacked in many ways that should agree.

    Attributes:
        models: under check: built-in names, files or FILE.py:NAME, with defences around them if wanted.
        images: low-resolution images or folders, of which the middle is used; empty for three samples. Of a pair of a
            high- and a low-resolution file it is the second; see ``matched_images``.
        twin: the same model without its defence, to transfer attacks from; empty for the model inside a defence.
        suite: the attacks.
        skip_broken: leave images out that cannot be read, and say so.

    Example:
        >>> Check(name="doubt", models=("edsr-s",)).suite.steps
        200
    """

    kind: ClassVar[str] = "check"
    heading: ClassVar[str] = "Is {models} robust, or was the attack weak?"
    records: ClassVar[tuple[type[Record], ...]] = (CheckRecord,)
    cumulative: ClassVar[bool] = True

    name: FileName = "check"
    models: tuple[str, ...] = pydantic.Field(min_length=1)
    images: tuple[str, ...] = ()
    twin: str = ""
    suite: CheckSuite = dataclasses.field(default_factory=CheckSuite)
    skip_broken: bool = False

    def cells(self) -> Sequence[Cell]:
        found: list[Cell] = []
        for name in self.models:
            model = load_defended(name)
            assert model.card is not None
            twin = load_defended(self.twin, model.scale) if self.twin else None
            # By name as well: not every model has weights.
            beside = (twin.card.name, twin.card.sha256) if twin is not None and twin.card is not None else ()
            crops = _crops(self.images, model.scale, self.skip_broken) if self.images else _samples(model.scale)
            for image, low in crops:
                height, width = low.shape[-2:]
                small = f"{image} is too small: {width} x {height} pixels, and a check needs {LEAST} a side"
                facts = (model.card.name, model.card.sha256, beside, repr(self.suite), image_sha256(low))
                found.append(
                    CheckCell(
                        key=record_key(self.kind, *facts), title=f"{image}, {model.card.name}",
                        like=(model.card.name, model.card.sha256), shape=tuple(low.shape),
                        cost=float(low.shape[-2] * low.shape[-1]), model=model, twin=twin, name=image, low=low[None],
                        problem=small if min(height, width) < LEAST else "",
                    )
                )  # fmt: skip
        return found

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        def answer(cell: Cell, told: Progress) -> Answer:
            assert isinstance(cell, CheckCell)
            began = time.perf_counter()
            model = bench.place(cell.model)
            twin = bench.place(cell.twin) if cell.twin is not None else None
            seen = self.suite.evidence(
                model, cell.low.to(bench.device), twin=twin, progress=lambda done, total, _title: told(done / total)
            )
            assert model.card is not None
            record = CheckRecord(
                **about(cell, model.card, cell.name, cell.low[0], self.suite.seed),
                epsilon=self.suite.epsilon,
                steps=seen.steps,
                runs={name: value.item() for name, value in seen.runs.items()},
                unrounded=seen.unrounded.item(),
                restarts=tuple(value.item() for value in seen.restarts),
                transfers={name: value.item() for name, value in seen.transfers.items()},
                random_images=seen.random_images.item(),
                flat=seen.flat,
                error=seen.error,
                jump=seen.jump,
                saturated=seen.saturated,
                seconds=round(time.perf_counter() - began, 3),
            )
            return Answer(record)

        return one_by_one(cells, progress, answer)

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {
            "figures": f"SR-PSNR in dB, means over the images, at most {UNMOVED:g}; the lower, the stronger the attack",
            "list of flags": "Carlini et al. (arXiv:1902.06705) and AutoAttack (Croce & Hein, ICML 2020), in terms of "
            "SR-PSNR; no list proves that a defence holds",
        }

    def outline(self, cells: Sequence[Cell]) -> str:
        images = len(cells) // len(self.models)
        return f"{count(len(self.models), 'model')} x {count(images, 'image')} = {count(len(cells), 'cell')}"

    def results(self, records: Sequence[Record]) -> Results:
        sentences: list[str] = []
        tables: list[Table] = []
        for model, own in by_model(records).items():
            flags = evidence_of(own).flags()
            raised = [flag.name for flag in flags if flag.raised]
            where = f"{own[0].epsilon * 255:g}/255 on {count(len(own), 'image')}"
            why = " ".join([f": {', '.join(raised)}.", *(RULES[name].why for name in raised[:2])]) if raised else "."
            sentences.append(f"{model}: {len(raised) or 'none'} of {len(flags)} flags raised at {where}{why}")
            tables.append(flags_table(flags, model))
        return Results(sentences or [UNFINISHED], tables)

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity("SR-PSNR", "dB")]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, CheckRecord):
            return None
        worst = min([record.runs["climb"], record.runs["twice"], *record.restarts])
        return Measured({"model": record.model}, {"SR-PSNR": worst})


def by_model(records: Sequence[Record]) -> dict[str, list[CheckRecord]]:
    """Return the records of each model, in order of appearance.

    Of records by several suites only those of the one with the most images: the others have no common mean with them.
    """
    own = (record for record in records if isinstance(record, CheckRecord))
    models = grouped(own, lambda record: record.model)
    return {model: max(grouped(found, _suite_of).values(), key=len) for model, found in models.items()}


def _suite_of(record: CheckRecord) -> tuple[object, ...]:
    names = frozenset(record.runs), frozenset(record.transfers)
    return record.epsilon, record.steps, len(record.restarts), *names


def evidence_of(records: Sequence[CheckRecord]) -> Evidence:
    """Return what the records of one model say together."""
    first, number = records[0], len(records)
    return Evidence(
        steps=first.steps,
        runs={name: torch.tensor([record.runs[name] for record in records]) for name in first.runs},
        unrounded=torch.tensor([record.unrounded for record in records]),
        restarts=[torch.tensor(values) for values in zip(*(record.restarts for record in records), strict=True)],
        transfers={name: torch.tensor([record.transfers[name] for record in records]) for name in first.transfers},
        random_images=torch.tensor([record.random_images for record in records]),
        flat=sum(record.flat for record in records) / number,
        error=sum(record.error for record in records) / number,
        jump=max(record.jump for record in records),
        saturated=sum(record.saturated for record in records) / number,
    )


def flags_table(flags: Sequence[Flag], model: str) -> Table:
    """Return all flags of a model, one a row, the raised ones first, each with what it means and what to do."""
    columns = [
        Column("flag", meaning="a sign that an attack was too weak to tell how robust the model is; none is no proof"),
        Column("raised", meaning="whether the sign was seen"),
        Column("figure", meaning="what was measured, in the unit of the limit", align="right"),
        Column("raised if", meaning="the limit of the figure", align="right"),
        Column("seen", meaning="the figure in words, and why it matters"),
        Column("what to do", meaning="before the figures of this model are quoted"),
    ]  # fmt: skip
    rows = [
        row(
            TableCell(flag.name, tone="bad" if flag.raised else ""), flag.raised, flag.figure, RULES[flag.name].words,
            flag.words, RULES[flag.name].remedy if flag.raised else "",
            section=number > 0 and flags[number - 1].raised and not flag.raised, tone="bad" if flag.raised else "",
        )
        for number, flag in enumerate(flags)
    ]  # fmt: skip
    raised = sum(flag.raised for flag in flags)
    words = "Figures in dB are SR-PSNR, means over the images; the lower, the stronger the attack."
    return Table(f"{model}: {raised} of {len(flags)} flags raised", columns, rows, caption=words)


def _samples(scale: int) -> list[tuple[str, Float[Tensor, "3 h w"]]]:
    large = ((name, to_uint8(middle(sample_image(name), SIDE * scale))) for name in SAMPLES)
    return [(name, from_uint8(downscale(image, scale))) for name, image in large]


def _crops(paths: Sequence[str], scale: int, skip_broken: bool) -> list[tuple[str, Float[Tensor, "3 h w"]]]:
    def read(photo: Photo) -> tuple[str, Float[Tensor, "3 h w"]]:
        image = photo.read_pair(scale)[0] if photo.paired else photo.read()
        return photo.name, from_uint8(to_uint8(image))

    found = read_each(find_photos(paths, scale=scale, high=False), read, skip_broken)
    return [(name, middle(image, SIDE)) for name, image in found]
