"""From records to means over images and to paired comparisons."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from resolute.figures import Interval, adding_up
from resolute.measure.intervals import bootstrap_mean
from resolute.studies.attacked import AttackRecord

_NUMBER = re.compile(r" \(\d+\)$")

# The name under which the worst attack on each image appears among the attacks.
WORST = "worst case"

# The budget to speak about, in levels of 255.
HEADLINE = 4.0


@dataclasses.dataclass(frozen=True)
class Row:
    """Means over the images of one model, attack and budget; None where no image has a finite figure.

    Attributes:
        images: how many images the means are over.
        unmoved: images whose output did not change at all; their infinite SR-PSNR is in no mean.
    """

    model: str
    attack: str
    level: float
    images: int
    unmoved: int
    clean_psnr_y: float | None
    attacked_psnr_y: float | None
    lr_psnr: float | None
    sr_psnr: float | None
    sr_ssim: float | None


@dataclasses.dataclass(frozen=True)
class Gain(Interval):
    """The mean of paired differences between a figure without and with a defence, over the images that have both.

    Attributes:
        before, after: means of the figure.
    """

    before: float
    after: float

    @property
    def interval(self) -> Interval:
        """The difference alone."""
        return Interval(self.mean, self.low, self.high, self.n)

    def shown(self, digits: int = 2) -> Interval:
        """Return the difference as it adds up with the two means when all three are printed with so many digits."""
        found = adding_up(self.interval, self.before, self.after, digits)
        assert found is not None
        return found

    @property
    def clear(self) -> int:
        """Which way the figure went beyond chance: 1, -1, or 0 where the interval holds zero or is of one image."""
        if self.interval.n < 2 or self.interval.low <= 0 <= self.interval.high:
            return 0
        return 1 if self.interval.low > 0 else -1


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a defence changed at one attack and budget, over the images that both models went through, in dB.

    Attributes:
        clean: PSNR against the ground truth without an attack; None without ground truth.
        sr: SR-PSNR, the paper's measure; None where no image moved both models' outputs.
        truth: PSNR of the attacked output against the ground truth; None without ground truth.
        closed: share of the plain model's distance to the bicubic line that was closed; None where the plain model
            lies above that line already.
    """

    plain: str
    defended: str
    attack: str
    level: float
    clean: Gain | None
    sr: Gain | None
    truth: Gain | None
    closed: float | None


def summarize(records: Sequence[AttackRecord]) -> list[Row]:
    """Return one row for each model, attack and budget, in order of appearance and rising budget.

    Example:
        >>> summarize([])
        []
    """
    groups: dict[tuple[str, str, float], list[AttackRecord]] = defaultdict(list)
    for record in records:
        groups[record.model, record.attack, level_of(record)].append(record)
    order = {name: rank for rank, name in enumerate(dict.fromkeys(f"{r.model}/{r.attack}" for r in records))}
    return [
        Row(
            model,
            attack,
            level,
            len(group),
            sum(record.sr_psnr is None for record in group),
            *(_mean(group, read) for read in _COLUMNS),
        )
        for (model, attack, level), group in sorted(
            groups.items(), key=lambda item: (order[f"{item[0][0]}/{item[0][1]}"], item[0][2])
        )
    ]


def by_dataset(records: Sequence[AttackRecord]) -> dict[str, list[AttackRecord]]:
    """Return the records of each data set, in order of appearance."""
    groups: dict[str, list[AttackRecord]] = {}
    for record in records:
        groups.setdefault(record.dataset, []).append(record)
    return groups


def compare(records: Sequence[AttackRecord], plain: str, defended: str) -> list[Comparison]:
    """Compare two models image by image, at every attack and budget that both went through."""
    cells: dict[tuple[str, str, float], dict[str, AttackRecord]] = defaultdict(dict)
    for record in records:
        cells[record.model, record.attack, level_of(record)][record.image] = record
    found: list[Comparison] = []
    for (model, attack, level), ours in cells.items():
        theirs = cells.get((plain, attack, level))
        if model != defended or theirs is None:
            continue
        matched = [(theirs[image], ours[image]) for image in ours if image in theirs]
        found.append(
            Comparison(
                plain,
                defended,
                attack,
                level,
                _gain(matched, lambda r: r.clean_psnr_y),
                _gain(matched, lambda r: r.sr_psnr),
                _gain(matched, lambda r: r.attacked_psnr_y),
                _closed(matched, level),
            )
        )
    return sorted(found, key=lambda c: (c.attack, c.level))


def worst_case(records: Sequence[AttackRecord]) -> list[AttackRecord]:
    """Return, for each model, budget and image, the record of the attack that moved the output most.

    The records come back under the attack name ``worst case``.
    """
    worst: dict[tuple[str, float, str], AttackRecord] = {}
    for record in records:
        key = (record.model, level_of(record), record.image)
        if key not in worst or _or_infinity(record.sr_psnr) < _or_infinity(worst[key].sr_psnr):
            worst[key] = record
    return [dataclasses.replace(record, attack=WORST) for record in worst.values()]


def bicubic_line(level: float) -> float:
    """Return the SR-PSNR in dB that bicubic interpolation keeps under the worst change of ``level`` levels.

    Its weights sum to one, so a constant shift of the input passes unchanged, and little can be won beyond it: every
    model below this line amplifies perturbations.

    Example:
        >>> round(bicubic_line(4), 1)
        36.1
    """
    return 20 * math.log10(255 / level)


def headline_level(levels: Iterable[float]) -> float:
    """Return the budget to speak about: the one that is nearest to 4/255 by ratio.

    Example:
        >>> headline_level([1, 2, 8, 32])
        2
    """
    return min(levels, key=lambda level: (abs(math.log2(max(level, 1e-9) / HEADLINE)), level))


def attack_title(name: str) -> str:
    """Return the name of an attack as papers write it, also of one that was numbered to tell it from another.

    Example:
        >>> attack_title("ifgsm (2)"), attack_title("my own")
        ('I-FGSM (2)', 'my own')
    """
    number = _NUMBER.search(name)
    if number is None:
        return _ATTACK_TITLES.get(name, name)
    stem = name[: number.start()]
    return _ATTACK_TITLES.get(stem, stem) + number.group()


def level_of(record: AttackRecord) -> float:
    """Return the budget in levels of 255."""
    return round(record.epsilon * 255, 4)


_ATTACK_TITLES = {
    "ifgsm": "I-FGSM",
    "mifgsm": "MI-FGSM",
    "fgsm": "FGSM",
    "fda": "FDA",
    "pgd": "PGD",
    "apgd": "APGD",
    "square": "Square",
    "noise": "random noise",
    "transfer": "transfer",
    "universal": "universal",
}

_COLUMNS: tuple[Callable[[AttackRecord], float | None], ...] = (
    lambda r: r.clean_psnr_y,
    lambda r: r.attacked_psnr_y,
    lambda r: r.lr_psnr,
    lambda r: r.sr_psnr,
    lambda r: r.sr_ssim,
)


def _mean(group: Sequence[AttackRecord], read: Callable[[AttackRecord], float | None]) -> float | None:
    values = [value for record in group if (value := read(record)) is not None]
    return float(np.mean(values)) if values else None


def _gain(
    pairs: Sequence[tuple[AttackRecord, AttackRecord]], read: Callable[[AttackRecord], float | None]
) -> Gain | None:
    both = [(a, b) for first, second in pairs if (a := read(first)) is not None and (b := read(second)) is not None]
    if not both:
        return None
    before, after = (float(np.mean(side)) for side in zip(*both, strict=True))
    found = bootstrap_mean([b - a for a, b in both])
    return Gain(found.mean, found.low, found.high, found.n, before, after)


def _closed(matched: Sequence[tuple[AttackRecord, AttackRecord]], level: float) -> float | None:
    plain, defended = (_mean([pair[i] for pair in matched], lambda r: r.sr_psnr) for i in (0, 1))
    line = bicubic_line(level)
    if plain is None or defended is None or plain >= line:
        return None
    return (defended - plain) / (line - plain)


def _or_infinity(value: float | None) -> float:
    return float("inf") if value is None else value
