"""The study of attacks on super-resolution models: models x attacks x budgets x images."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.ascent import Precision
from resolute.attacks.registry import AttackTable
from resolute.attacks.transfer import Transfer, WarmStart
from resolute.defences import load_defended, undefended
from resolute.errors import ConfigError, ImageNote
from resolute.figures import or_infinite
from resolute.files import FileName
from resolute.models.base import Restorer
from resolute.models.tiling import Tiled
from resolute.of_file import described
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, measure_all
from resolute.studies.claims import Claim
from resolute.studies.conventions import conventions
from resolute.studies.datasets import dataset_title
from resolute.studies.grid_cases import cases_of
from resolute.studies.grid_results import results_of
from resolute.studies.pairs import defends_of
from resolute.studies.quick import Quick
from resolute.studies.record import Record
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.results import Case, Measured, Missing, Quantity, Results
from resolute.studies.steepness import CleverCell, CleverRecord, CleverTable, take
from resolute.studies.study import (
    Answer,
    Bench,
    Cell,
    InTiles,
    Progress,
    count,
    one_by_one,
)
from resolute.studies.summary import attack_title, level_of
from resolute.studies.tiles import Fit, attack_in_tiles, fit
from resolute.toml import located


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Grid(RestoreStudy, InTiles):
    """A grid of models, attacks, budgets and images.

    Attributes:
        name: of the study, in reports.
        attacks: attacks, at the budgets of the study unless they have their own.
        epsilons: budgets, in levels of 255.
        baseline: the model that all others but bicubic interpolation defend; empty where their cards and addresses say
            what defends what.
        seed: of the attacks' random starts.
        seeds: several of them, each a cell of its own; empty for the one above.
        clever: how the CLEVER index of every model and image is taken; None where it is not.
        precision: of the attacks' search.
        outputs: keep clean and attacked outputs as pictures too.
        question: what is asked, and what it repeats, in a sentence.
        expected: what was published about it.
        quick: what the quick form does with less; None where there is none.

    Example:
        >>> Grid(name="one", models=("bicubic",), attacks=(AttackTable(kind="fgsm"),)).epsilons
        (1, 2, 4, 8, 16, 32)
    """

    kind: ClassVar[str] = "attacks"
    heading: ClassVar[str] = "Attacks on {models}"
    records: ClassVar[tuple[type[Record], ...]] = (AttackRecord, CleverRecord)
    cumulative: ClassVar[bool] = True
    worst_of: ClassVar[tuple[str, ...]] = ("attack",)

    name: FileName
    attacks: tuple[AttackTable, ...] = pydantic.Field(min_length=1)
    epsilons: tuple[float, ...] = pydantic.Field(default=(1, 2, 4, 8, 16, 32), min_length=1)
    baseline: str = ""
    seed: int = 0
    seeds: tuple[int, ...] = ()
    clever: CleverTable | None = None
    precision: Precision = "float32"
    outputs: bool = False
    question: str = ""
    expected: tuple[Claim, ...] = ()
    quick: Quick | None = None

    def quickly(self) -> Grid:
        """Return the quick form: the same question, with fewer images, budgets and steps.

        Raises:
            ConfigError: the study has none.

        Example:
            >>> from resolute.studies.kinds import read_study
            >>> read_study("lambda").quickly().images
            ('samples',)
        """
        if self.quick is None:
            raise ConfigError(f"the study {self.name} has no quick form; leave out --quick")
        quick, models = self.quick, self.quick.models or self.models
        return dataclasses.replace(
            self, name=f"{self.name}-quick", models=models, attacks=tuple(map(quick.lighten, self.attacks)),
            baseline=self.baseline if self.baseline in models else "", epsilons=quick.epsilons or self.epsilons,
            images=quick.images or self.images, names=() if quick.images else self.names,
            every=quick.every or self.every,
            crop=self.crop if quick.crop is None else quick.crop, clever=quick.lighten_clever(self.clever), quick=None,
        )  # fmt: skip

    def cells(self) -> Sequence[Cell]:
        return self.cells_of([load_defended(model, self.scale) for model in self.models])

    def cells_of(self, models: Sequence[Restorer]) -> Sequence[Cell]:
        """Return the cells about models that are loaded already, in the order of their names.

        Raises:
            ConfigError, ImageError: the study cannot be planned.
        """
        baseline = models[self.models.index(self.baseline)] if self.baseline in self.models else None
        defends = defends_of(models, baseline)
        built = [
            (table.name, table.build(level / 255, self.precision))
            for table in self.attacks
            for level in table.epsilons or self.epsilons
        ]
        attacks = [(label, attack, described(attack)) for label, attack in built]
        seeds = tuple(dict.fromkeys(self.seeds or (self.seed,)))
        cells: list[Cell] = []
        indices: list[Cell] = []
        for subject in self.subjects():
            for model in models:
                plain = defends.get(model.card.name, "") if model.card is not None else ""
                for label, attack, written in attacks:
                    cells += [AttackCell.of(model, attack, label, subject, seed, plain, written) for seed in seeds]
                if self.clever is not None:
                    indices += [CleverCell.of(model, subject, self.clever, seed) for seed in seeds]
        return [*cells, *indices]

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        attacks = [cell for cell in cells if isinstance(cell, AttackCell)]
        if not attacks:
            return one_by_one(cells, progress, lambda cell, step: _index(cell, bench, step))
        model = bench.place(attacks[0].model)
        how = Fit() if bench.tile else self._fit(attacks[0], model, bench)
        if how.tile:
            return one_by_one(cells, progress, partial(self._in_tiles, model, how))
        cleans = [bench.shared(("clean", *cell.judged), partial(Clean.of, model, cell.subject)) for cell in attacks]
        placed = [dataclasses.replace(cell, model=model) for cell in attacks]
        found: list[Answer] = []
        for judged, clean in zip(measure_all(placed, cleans, progress, how.batch), cleans, strict=True):
            pictures = {"attacked": judged.attacked}
            if self.outputs:
                pictures |= {"sr-clean": clean.output[0].clamp(0, 1), "sr-attacked": judged.output.clamp(0, 1)}
            found.append(Answer(judged.record, pictures))
        return found

    def _fit(self, cell: AttackCell, model: Restorer, bench: Bench) -> Fit:
        like = ("fit", id(model), cell.label, cell.shape)
        how = bench.shared(like, lambda: fit(cell, model, bench.room()))
        if how.words:
            warnings.warn(how.words, ImageNote, stacklevel=2)
        return how

    def _in_tiles(self, model: Restorer, how: Fit, cell: Cell, progress: Progress) -> Answer:
        assert isinstance(cell, AttackCell)
        return attack_in_tiles(cell, model, how, progress, self.outputs)

    def without_tiles(self, cell: Cell) -> str:
        if not isinstance(cell, AttackCell):
            return "the CLEVER index is of whole images; use smaller ones or another --device"
        if undefended(cell.model) is not cell.model:
            return "a model with a defence around it cannot work in tiles; use smaller images or another --device"
        if isinstance(cell.attack, Transfer | WarmStart):
            return "the source of a transfer attack cannot work in tiles; use smaller images or another --device"
        Tiled(cell.model, 128)
        return ""

    def results(self, records: Sequence[Record]) -> Results:
        attacks = [record for record in records if isinstance(record, AttackRecord)]
        indices = [record for record in records if isinstance(record, CleverRecord)]
        return results_of(attacks, indices, _defends(attacks), self.expected)

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        attacks = [record for record in records if isinstance(record, AttackRecord)]
        return cases_of(self.scene(), attacks, folder, _defends(attacks))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity(name, "dB") for name in ("SR-PSNR", "attacked PSNR", "clean PSNR")]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, AttackRecord):
            return None
        setting = {
            "model": record.model,
            "attack": attack_title(record.attack),
            "budget": f"{level_of(record):g}/255",
            "data": dataset_title(record.dataset) if record.dataset else "",
        }
        values = (
            or_infinite(record.sr_psnr),
            or_infinite(record.attacked_psnr_y, known=record.attacked_ssim_y is not None),
            or_infinite(record.clean_psnr_y, known=record.clean_ssim_y is not None),
        )
        return Measured(setting, dict(zip(("SR-PSNR", "attacked PSNR", "clean PSNR"), values, strict=True)))

    def outline(self, cells: Sequence[Cell]) -> str:
        attacks = [cell for cell in cells if isinstance(cell, AttackCell)]
        images = {(cell.subject.dataset, cell.subject.name) for cell in attacks}
        seeds = {cell.seed for cell in attacks}
        models = {(cell.model.card.name, cell.model.card.sha256) for cell in attacks if cell.model.card is not None}
        labels, budgets = {cell.label for cell in attacks}, {cell.attack.epsilon for cell in attacks}
        parts = {"model": models, "attack": labels, "budget": budgets, "image": images, "seed": seeds}
        indices = len(cells) - len(attacks)
        clever = f" and {count(indices, 'CLEVER index', 'CLEVER indices')}" if indices else ""
        factors = " x ".join(count(len(those), thing) for thing, those in parts.items())
        return f"{factors} = {count(len(attacks), 'cell')}{clever}"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        asked = {id(cell.attack): (cell.label, cell.attack) for cell in cells if isinstance(cell, AttackCell)}
        attacks = list(asked.values())
        subjects = {id(cell.subject): cell.subject for cell in cells if isinstance(cell, AttackCell)}
        given = sum(subject.given for subject in subjects.values())
        models = list({id(cell.model): cell.model for cell in cells if isinstance(cell, AttackCell)}.values())
        clever = self.clever.words if self.clever else ""
        return conventions(attacks, models, self.high_resolution, clever, (given, len(subjects)))


def _defends(records: Sequence[AttackRecord]) -> dict[str, str]:
    return {record.model: record.defends for record in records if record.defends}


def _index(cell: Cell, bench: Bench, progress: Progress) -> Answer:
    assert isinstance(cell, CleverCell)
    return Answer(take(cell, bench.place(cell.model), lambda done, total: progress(done / total)))


def checked_attacks(path: Path, study: Grid) -> Grid:
    """Return the study if its attacks can be built; those that need other models or files are left for the plan.

    Raises:
        ConfigError: one cannot.
    """
    if study.baseline and study.baseline not in study.models:
        raise located(path, ("baseline",), f"{study.baseline} is none of the models, {', '.join(study.models)}")
    for number, table in enumerate(study.attacks):
        if not table.opens:
            for place, level in enumerate(table.epsilons or study.epsilons):
                try:
                    table.build(level / 255)
                except ConfigError as error:
                    of_budget = error.key == ("epsilon",)
                    key = ("epsilons", str(place)) if of_budget else ("attacks", str(number), *error.key)
                    raise located(path, key, error.message) from None
    return study
