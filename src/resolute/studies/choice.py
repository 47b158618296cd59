"""The study that helps to choose: several models on one's own photographs, in all that matters at once."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, final

import pydantic
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Attack
from resolute.attacks.ball import Linf, check_levels
from resolute.attacks.gradient import has_gradient
from resolute.attacks.square import Square
from resolute.corruptions import CORRUPTIONS
from resolute.defences import load_defended, surrogate
from resolute.errors import ConfigError, ImageError
from resolute.figures import figure, or_infinite
from resolute.files import FileName
from resolute.images import from_uint8, read_kept, sample_image, to_uint8
from resolute.measure.footprint import peak_bytes
from resolute.models.base import Restorer, Scorer
from resolute.models.scorers import load_scorer
from resolute.runtime import full_float32
from resolute.studies.attacked import Subject, against_truth, psnr_between
from resolute.studies.choice_results import ATTACK, CLEAN, ChoiceRecord, results_of
from resolute.studies.grid_cases import Replay
from resolute.studies.record import Record, grouped, record_key
from resolute.studies.restore_study import RestoreStudy
from resolute.studies.results import Case, Measured, Missing, Quantity, Results, View
from resolute.studies.scored import lack_of_room
from resolute.studies.study import Answer, Bench, Cell, Progress, RestorerCell, about, count, one_by_one
from resolute.studies.survival import consistency, damaged, restored

# The damage that everybody's photographs have.
_DAMAGE, _SEVERITY = ("jpeg", "noise"), 2
# Passes whose time counts, behind one that does not.
_PASSES = 3
_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChoiceCell(RestorerCell):
    """One model and one image, as it is, damaged or attacked."""

    subject: Subject
    trial: str
    attack: Attack


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Choice(RestoreStudy):
    """Models x images, each as it is, with mild damage, and attacked.

    Attributes:
        level: budget of the attack, in levels of 255; 0 for none.
        steps: of the attack, ``APGD`` on the output; where one of the models has no gradient, all are attacked by
            ``Square`` with ten times as many queries.
        metric: a quality metric without reference that scores outputs; empty for none.
        seed: of noise and of the attack.

    Example:
        >>> Choice(models=("edsr-xs", "bicubic")).trials()
        ('clean', 'jpeg', 'noise', 'attack')
    """

    kind: ClassVar[str] = "compare-models"
    heading: ClassVar[str] = "Models compared: {models}"
    records: ClassVar[tuple[type[Record], ...]] = (ChoiceRecord,)
    name: FileName = "compare-models"
    level: float = pydantic.Field(default=4, ge=0, le=255)
    steps: int = pydantic.Field(default=20, ge=1)
    metric: str = ""
    seed: int = 0

    def trials(self) -> tuple[str, ...]:
        """Return what every model goes through on every image."""
        return (CLEAN, *_DAMAGE, *([ATTACK] if self.level else []))

    def cells(self) -> Sequence[Cell]:
        models = [load_defended(model, self.scale) for model in self.models]
        names = [model.card.name for model in models if model.card is not None]
        if len(set(names)) < len(names):
            raise ConfigError(f"two of the models are called {max(names, key=names.count)}; rename one of the files")
        if self.metric:
            self._scorer()  # what cannot be loaded is said before anything runs
        if self.level:
            check_levels(Linf(self.level / 255))
        subjects, attack = self.subjects(), self._attack(models)
        return [
            self._cell(model, subject, trial, attack)
            for subject in subjects
            for model in models
            for trial in self.trials()
        ]

    def _attack(self, models: Sequence[Restorer]) -> Attack:
        """Return the attack on all models, which is one that none of them escapes for want of a gradient."""
        low = sample_image("coffee")[None, :, :16, :16]
        if not self.level or all(has_gradient(surrogate(model), low) for model in models):
            return APGD(epsilon=max(self.level, 1) / 255, steps=self.steps)
        return Square(epsilon=self.level / 255, queries=10 * self.steps)

    def _cell(self, model: Restorer, subject: Subject, trial: str, attack: Attack) -> ChoiceCell:
        assert model.card is not None
        name, weights = model.card.name, model.card.sha256
        how = {CLEAN: (self.metric,), ATTACK: (repr(attack), self.seed)}.get(trial, (self.seed,))
        pixels = float(subject.low.shape[-2] * subject.low.shape[-1])
        return ChoiceCell(
            key=record_key(self.kind, name, weights, trial, *how, *subject.identity),
            title=f"{subject.name}, {name}, {trial}", like=(self.kind, name, weights, trial),
            shape=tuple(subject.low.shape), cost=pixels * {CLEAN: 1 + _PASSES, ATTACK: 3 * self.steps}.get(trial, 1),
            model=model, subject=subject, trial=trial, attack=attack, problem=self._lack_of_room(subject),
        )  # fmt: skip

    def _lack_of_room(self, subject: Subject) -> str:
        if not self.metric:
            return ""
        size = [self.scale * side for side in subject.low.shape[-2:]]
        return lack_of_room(self._scorer(), f"what models make of {subject.name}", size)

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return one_by_one(cells, progress, lambda cell, step: self._answer(cell, bench, step))

    def _answer(self, cell: Cell, bench: Bench, progress: Progress) -> Answer:
        assert isinstance(cell, ChoiceCell)
        assert cell.model.card is not None
        model, subject = bench.place(cell.model), cell.subject
        identity = cell.model.card.name, cell.model.card.sha256, subject.identity
        clean = bench.shared(("chosen", *identity), lambda: restored(model, subject.low, bench.device))
        began = time.perf_counter()
        # Of an output that is not finite nothing is left to attack: that is the worst there is.
        lost = cell.trial == ATTACK and not bool(clean.isfinite().all())
        low = subject.low if lost else self._input(cell, model, bench.device, progress)
        output = clean if cell.trial == CLEAN else restored(model, low, bench.device)
        seconds, memory, score = time.perf_counter() - began, None, None
        if cell.trial == CLEAN:
            x = low.to(bench.device)
            seconds, memory = _seconds(model, x), peak_bytes(model, x)
            score = self._score(output, bench)
        psnr, ssim = against_truth(output, subject, model.scale)
        record = ChoiceRecord(
            **about(cell, cell.model.card, subject.name, subject.low[0], self.seed), trial=cell.trial,
            metric=self.metric if cell.trial == CLEAN else "", psnr_y=psnr, ssim_y=ssim,
            consistency=consistency(output, low), score=score, memory=memory,
            lower_better=score is not None and self._scorer().lower_better,
            sr_psnr=None if cell.trial == CLEAN else psnr_between(clean, output), pixels_out=output[0, 0].numel(),
            broken=not bool(output.isfinite().all()), seconds=round(seconds, 6), dataset=subject.dataset,
        )  # fmt: skip
        return Answer(record, {"attacked": low[0].cpu()} if cell.trial == ATTACK else {})

    def _input(self, cell: ChoiceCell, model: Restorer, device: str, progress: Progress) -> Tensor:
        """Return what the model is given."""
        if cell.trial == CLEAN:
            return cell.subject.low
        if cell.trial != ATTACK:
            return damaged(cell.subject, cell.trial, _SEVERITY, model.scale, self.seed)
        found = cell.attack(
            surrogate(model), cell.subject.low.to(device), seed=self.seed,
            progress=lambda done, total: progress(done / total),
        )  # fmt: skip
        return from_uint8(to_uint8(found.images[0]))[None]

    def _score(self, output: Tensor, bench: Bench) -> float | None:
        if not self.metric or not bool(output.isfinite().all()):
            return None
        metric = bench.place(self._scorer())
        with torch.no_grad():
            return round(float(metric(output.clamp(0, 1).to(bench.device))[0]), 4)

    def _scorer(self) -> Scorer:
        return _loaded(self.metric)

    def results(self, records: Sequence[Record]) -> Results:
        return results_of(_own(records))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        again = Replay(self.scene(), folder)
        images = grouped(_own(records), lambda one: (one.dataset, one.image))
        for own in list(images.values())[:_SHOWN]:
            try:
                yield self._case(own, again, folder)
            except (ImageError, IndexError) as error:
                yield Missing(str(error))

    def _case(self, records: Sequence[ChoiceRecord], again: Replay, folder: Path) -> Case:
        views: list[View] = []
        facts: list[str] = []
        for trials in grouped(records, lambda one: one.model).values():
            model, subject = again.subject_of(trials[0])
            if not views:
                views.append(View("input", subject.low[0], low=True))
                views += [] if subject.truth is None else [View("ground truth", subject.truth[0])]
            views.append(View("output", _picture(restored(model, subject.low, "cpu")), trials[0].model))
            for one in trials:
                if one.files:
                    low = read_kept(folder, one.files[0])[None]
                    views.append(View("output, attacked", _picture(restored(model, low, "cpu")), one.model))
            told = [f"{one.trial} {figure(one.psnr_y, 2)} dB" for one in trials if one.psnr_y is not None]
            facts += [f"{trials[0].model}: {', '.join(told)}"] if told else []
        outputs = [place for place, view in enumerate(views) if view.label == "output"]
        return Case(records[0].image, views, facts, {"image": records[0].image}, (outputs[0], outputs[-1]))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        lower = any(one.lower_better for one in _own(records))
        return [
            Quantity("PSNR", "dB"), Quantity("SR-PSNR", "dB"), Quantity("consistency", "dB"),
            Quantity("score", lower_better=lower), Quantity("time", "s", lower_better=True, digits=3),
        ]  # fmt: skip

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, ChoiceRecord):
            return None
        values = {
            "PSNR": or_infinite(record.psnr_y, known=record.ssim_y is not None),
            "SR-PSNR": or_infinite(record.sr_psnr, known=record.trial != CLEAN),
            "consistency": or_infinite(record.consistency),
        }
        if record.trial == CLEAN:
            values |= {"score": record.score, "time": record.seconds}
        return Measured({"model": record.model, "trial": record.trial}, values)

    def outline(self, cells: Sequence[Cell]) -> str:
        images = {cell.subject.identity for cell in cells if isinstance(cell, ChoiceCell)}
        parts = [count(len(self.models), "model"), count(len(images), "image"), count(len(self.trials()), "trial")]
        return f"{' x '.join(parts)}: {count(len(cells), 'cell')}"

    def _attack_in_words(self, cells: Sequence[Cell]) -> str:
        attack = next((cell.attack for cell in cells if isinstance(cell, ChoiceCell)), None)
        if isinstance(attack, Square):
            return (
                f"Square, {self.level:g}/255, {count(attack.queries, 'query')}, since one of the models has no gradient"
            )
        return f"APGD on the output, {self.level:g}/255, {count(self.steps, 'step')}, one start"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        mild = ", ".join(CORRUPTIONS[kind].words(_SEVERITY) for kind in _DAMAGE)
        return {
            "mild damage": f"of the input: {mild}",
            **(
                {"attack": f"{self._attack_in_words(cells)}: weaker than the standard suite's, the same for all"}
                if self.level
                else {}
            ),
            "consistency": "the output, shrunk as MATLAB does, against the input that the model was given; RGB, in dB",
            "time": f"median of {_PASSES} passes behind a first one, on the machine at hand and whatever else it does",
            "memory": "of weights and of all tensors that are alive at once at most; what kernels borrow is not in it",
        }


def _picture(output: Tensor) -> Tensor:
    """Return an output as it is shown: black where it is not finite."""
    return output[0].nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)


def _own(records: Sequence[Record]) -> list[ChoiceRecord]:
    return [record for record in records if isinstance(record, ChoiceRecord)]


@functools.lru_cache(maxsize=1)
def _loaded(metric: str) -> Scorer:
    return load_scorer(metric)


def _seconds(model: Restorer, x: Tensor) -> float:
    """Return what a pass takes: the median of several behind a first one."""
    taken: list[float] = []
    with torch.no_grad(), full_float32():
        for _ in range(1 + _PASSES):
            began = time.perf_counter()
            model(x).cpu()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
