"""Flags on a page: what checks of the models found, and what the records themselves say against their figures."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from resolute.engine.store import Store
from resolute.report.text import DASH, figure, title
from resolute.studies.attacked import AttackRecord
from resolute.studies.check import by_model, evidence_of
from resolute.studies.flags import RULES, Flag
from resolute.studies.study import count
from resolute.studies.summary import level_of

# Folder of checks, below that of a study.
CHECK = "check"

# Attacks that climb no gradient of the model, by the class at the start of their configuration.
BLIND = {
    "RandomNoise": "noise-stronger-than-gradient",
    "Square": "black-box-stronger",
    "Transfer": "transfer-stronger-than-white-box",
}


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A raised flag, and on what it rests.

    Attributes:
        model: whose figures it is about.
        name: of the flag, a heading of docs/flags.md.
        figure: what was measured, with its unit.
        rule: when the flag is raised.
        words: what was seen.
        basis: a check, or the records of the study.
    """

    model: str
    name: str
    figure: str
    rule: str
    words: str
    basis: str


@dataclasses.dataclass(frozen=True)
class Doubts:
    """All raised flags, and which models were never checked.

    Attributes:
        raised: checks first.
        checked: models with a check in the folder, with the number of flags raised.
        unchecked: models without one.
    """

    raised: list[Doubt]
    checked: dict[str, int]
    unchecked: list[str]


def doubts_of(records: Sequence[AttackRecord], folders: Iterable[Path]) -> Doubts:
    """Return the flags of the models in ``records``: of the checks in ``check`` below the folders, and of the records.

    A check belongs to a model with the same weights, whatever it was called then.
    """
    models = {record.model: record.weights for record in records}
    checks = {
        own[0].weights or own[0].model: own
        for folder in folders
        for own in by_model(Store(folder / CHECK).read()).values()
    }
    found: list[Doubt] = []
    checked: dict[str, int] = {}
    for model, weights in models.items():
        own = checks.get(weights or model)
        if own is not None:
            raised = [flag for flag in evidence_of(own).flags() if flag.raised]
            checked[model] = len(raised)
            basis = f"resolute check at {own[0].epsilon * 255:g}/255 on {count(len(own), 'image')}"
            found += [_doubt(model, flag, basis) for flag in raised]
    for model in models:
        own = [record for record in records if record.model == model]
        found += [_doubt(model, flag, "these records") for flag in record_flags(own)]
    return Doubts(found, checked, [model for model in models if model not in checked and model != "bicubic"])


def record_flags(records: Sequence[AttackRecord]) -> list[Flag]:
    """Return the flags that the records of one model raise by themselves, each at the setting where it is worst.

    A study is no check: what it did not try raises nothing here.
    """
    cells: dict[tuple[str, float], dict[tuple[str, str], AttackRecord]] = {}
    for record in records:
        cells.setdefault((record.attack, level_of(record)), {})[record.dataset, record.image] = record
    found: dict[str, Flag] = {}
    for name, gap, words in (*_rivals(cells), *_budgets(cells), *_rounded(cells)):
        flag = Flag.of(name, gap.mean, f"{words}{gap.words}")
        # An image that moves in one of the two alone has no difference in dB, and weighs more than any.
        flag = dataclasses.replace(flag, raised=flag.raised or gap.alone > 0)
        known = found.get(name)
        if flag.raised and (known is None or _size(flag) > _size(known)):
            found[name] = flag
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class _Gap:
    """By how much one setting lies above another, over images that moved in both.

    Attributes:
        first, second: means in dB over those images; None where there are none.
        mean: first minus second, or its size.
        alone: images that moved in the second alone, or in one of the two where the size counts.
        images: all of them.
    """

    first: float | None
    second: float | None
    mean: float | None
    alone: int
    images: int

    @staticmethod
    def of(pairs: Sequence[tuple[float | None, float | None]], *, size: bool = False) -> _Gap:
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        alone = sum((a is None and b is not None) or (size and a is not None and b is None) for a, b in pairs)
        if not both:
            return _Gap(None, None, None, alone, len(pairs))
        first, second = (sum(pair[i] for pair in both) / len(both) for i in (0, 1))
        return _Gap(first, second, abs(first - second) if size else first - second, alone, len(pairs))

    @property
    def words(self) -> str:
        """How many images are in no mean."""
        return f"; on {self.alone} of {self.images} images only one of the two moved the output" if self.alone else ""


Cells = dict[tuple[str, float], dict[tuple[str, str], AttackRecord]]
Seen = Iterable[tuple[str, _Gap, str]]


def _rivals(cells: Cells) -> Seen:
    """Hold attacks that know less against those that climb the model's own gradient, image by image."""
    for (attack, level), ours in cells.items():
        kind = _kind(next(iter(ours.values())))
        name = BLIND.get(kind, "single-step-stronger" if kind == "FGSM" else "")
        if not name:
            continue
        others = [
            cell for (other, at), cell in cells.items()
            if at == level and other != attack and _kind(next(iter(cell.values()))) not in (*BLIND, "FGSM")
        ]  # fmt: skip
        shared = [image for image in ours if others and all(image in cell for cell in others)]
        if not shared:
            continue
        gap = _Gap.of([(_lowest([cell[image] for cell in others]), ours[image].sr_psnr) for image in shared])
        reached = f"{figure(gap.second)} dB, many steps up the gradient {figure(gap.first)} dB"
        yield name, gap, f"at {level:g}/255 {title(attack)} reaches {reached}"


def _budgets(cells: Cells) -> Seen:
    for attack in dict.fromkeys(attack for attack, _ in cells):
        levels = sorted(level for other, level in cells if other == attack)
        for small, large in itertools.pairwise(levels):
            first, second = cells[attack, small], cells[attack, large]
            # Here the smaller budget is the one that ought to lie above; an image that only it moves is the trouble.
            pairs = [(second[image].sr_psnr, first[image].sr_psnr) for image in first if image in second]
            if pairs:
                gap = _Gap.of(pairs)
                reached = f"{figure(gap.second)} dB at {small:g}/255 and {figure(gap.first)} dB at {large:g}/255"
                mean = None if gap.mean is None else -gap.mean
                yield (
                    "larger-budget-not-stronger",
                    dataclasses.replace(gap, mean=mean),
                    f"{title(attack)} reaches {reached}",
                )


def _rounded(cells: Cells) -> Seen:
    for (attack, level), ours in cells.items():
        gap = _Gap.of([(r.sr_psnr, r.sr_psnr_unrounded) for r in ours.values()], size=True)
        reached = f"{figure(gap.second)} dB in floating point, {figure(gap.first)} dB as saved"
        yield "rounding-sensitive", gap, f"{title(attack)} at {level:g}/255 reaches {reached}"


def _size(flag: Flag) -> float:
    """Return how far a figure lies beyond the limit, to tell the worst setting."""
    if flag.figure is None:
        return float("inf")
    return -flag.figure if RULES[flag.name].below else flag.figure


def _lowest(records: Sequence[AttackRecord]) -> float | None:
    return min((record.sr_psnr for record in records if record.sr_psnr is not None), default=None)


def _kind(record: AttackRecord) -> str:
    return record.configuration.partition("(")[0]


def _doubt(model: str, flag: Flag, basis: str) -> Doubt:
    rule = RULES[flag.name]
    shown = DASH if flag.figure is None else f"{figure(flag.figure)} {rule.unit}"
    return Doubt(model, flag.name, shown, rule.words, flag.words, basis)
