"""From records to means over images and to paired comparisons."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from resolute.figures import Interval, adding_up
from resolute.measure.intervals import bootstrap_mean, mean
from resolute.studies.attacked import AttackRecord
from resolute.studies.record import grouped

_NUMBER = re.compile(r" \(\d+\)$")

_ATTACK_TITLES = {
    "ifgsm": "I-FGSM", "mifgsm": "MI-FGSM", "fgsm": "FGSM", "fda": "FDA", "pgd": "PGD", "apgd": "APGD",
    "square": "Square", "noise": "random noise", "transfer": "transfer", "universal": "universal",
    "korhonen": "Korhonen", "madc": "MADC",
}  # fmt: skip

# The name under which the worst attack on each image appears among the attacks.
WORST = "worst case"

# Figures of records, of which several seeds of one image are no further evidence: intervals are over images.
_Figure = Callable[[AttackRecord], float | None]
_CLEAN: _Figure = operator.attrgetter("clean_psnr_y")
_SR: _Figure = operator.attrgetter("sr_psnr")
_TRUTH: _Figure = operator.attrgetter("attacked_psnr_y")

# The budget to speak about, in levels of 255.
HEADLINE = 4.0


@dataclasses.dataclass(frozen=True)
class Means:
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
class Standing:
    """One model under one attack at one budget, on one data set, with intervals over images: a row of the leaderboard.

    Attributes:
        images, unmoved: as in ``Means``.
        clean: PSNR of the clean output against the truth, on Y; None without ground truth.
        sr: SR-PSNR.
        truth: PSNR of the attacked output against the truth, on Y.
    """

    dataset: str
    model: str
    attack: str
    level: float
    images: int
    unmoved: int
    clean: Interval | None
    sr: Interval | None
    truth: Interval | None


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
class DefenceEffect:
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


def summarize(records: Sequence[AttackRecord]) -> list[Means]:
    """Return one row for each model, attack and budget, in order of appearance and rising budget.

    Example:
        >>> summarize([])
        []
    """
    order = list(dict.fromkeys((record.model, record.attack) for record in records))
    groups = grouped(records, lambda record: (record.model, record.attack, level_of(record)))
    return [
        Means(
            model, attack, level, len(_by_image(group)), _unmoved(group), mean(record.clean_psnr_y for record in group),
            mean(record.attacked_psnr_y for record in group), mean(record.lr_psnr for record in group),
            mean(record.sr_psnr for record in group), mean(record.sr_ssim for record in group),
        )
        for (model, attack, level), group in sorted(
            groups.items(), key=lambda item: (order.index(item[0][:2]), item[0][2])
        )
    ]  # fmt: skip


def standings(records: Sequence[AttackRecord]) -> list[Standing]:
    """Return how every model stands, the worst attack on each image first where there are several attacks.

    Example:
        >>> standings([])
        []
    """
    several = len({record.attack for record in records}) > 1
    # Images of two data sets may share a name, so each set is judged by itself.
    worst = [found for own in by_dataset(records).values() for found in worst_case(own)] if several else []
    groups = grouped([*worst, *records], lambda one: (one.dataset, one.attack, level_of(one), one.model))
    return [
        Standing(
            dataset, model, attack, level, len(_by_image(group)), _unmoved(group), _interval(group, _CLEAN),
            _interval(group, _SR), _interval(group, _TRUTH),
        )
        for (dataset, attack, level, model), group in groups.items()
    ]  # fmt: skip


def by_dataset(records: Sequence[AttackRecord]) -> dict[str, list[AttackRecord]]:
    """Return the records of each data set, in order of appearance."""
    return grouped(records, lambda record: record.dataset)


def compare(records: Sequence[AttackRecord], plain: str, defended: str) -> list[DefenceEffect]:
    """Compare two models image by image and seed by seed, at every attack and budget that both went through."""
    cells: dict[tuple[str, str, float], dict[tuple[str, str, int], AttackRecord]] = defaultdict(dict)
    for record in records:
        cells[record.model, record.attack, level_of(record)][record.dataset, record.image, record.seed] = record
    found: list[DefenceEffect] = []
    for (model, attack, level), ours in cells.items():
        theirs = cells.get((plain, attack, level))
        if model == defended and theirs is not None:
            matched = [(theirs[cell], ours[cell]) for cell in ours if cell in theirs]
            clean, sr, truth = (_gain(matched, figure) for figure in (_CLEAN, _SR, _TRUTH))
            found.append(DefenceEffect(plain, defended, attack, level, clean, sr, truth, _closed(matched, level)))
    return sorted(found, key=lambda c: (c.attack, c.level))


def worst_case(records: Sequence[AttackRecord]) -> list[AttackRecord]:
    """Return, for each model, budget and image, the record of the attack that moved the output most.

    What an attack finds within a smaller budget counts within a larger one too. The records come back under the attack
    name ``worst case``. Their attacked PSNR is the least that any attack leaves, which may be another one.
    """
    found: list[AttackRecord] = []
    for own in grouped(records, lambda one: (one.model, one.dataset, one.image)).values():
        for level in sorted({level_of(one) for one in own}):
            within = [one for one in own if level_of(one) <= level]
            at = next(one for one in within if level_of(one) == level)
            worst = min(within, key=kept)
            least = min((one.attacked_psnr_y for one in within if one.attacked_psnr_y is not None), default=None)
            found.append(dataclasses.replace(worst, attack=WORST, epsilon=at.epsilon, attacked_psnr_y=least))
    order = {key: place for place, key in enumerate(dict.fromkeys((r.model, level_of(r)) for r in records))}
    return sorted(found, key=lambda one: order[one.model, level_of(one)])


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
    stem = _NUMBER.sub("", name)
    return _ATTACK_TITLES.get(stem, stem) + name[len(stem) :]


def level_of(record: AttackRecord) -> float:
    """Return the budget in levels of 255."""
    return _level(record.epsilon)


@functools.lru_cache
def _level(epsilon: float) -> float:
    return round(epsilon * 255, 4)


def kept(record: AttackRecord) -> float:
    """Return the SR-PSNR in dB, infinite where the output did not move."""
    return math.inf if record.sr_psnr is None else record.sr_psnr


def _by_image(group: Iterable[AttackRecord]) -> list[list[AttackRecord]]:
    return list(grouped(group, lambda record: (record.dataset, record.image)).values())


def _unmoved(group: Sequence[AttackRecord]) -> int:
    return sum(all(record.sr_psnr is None for record in seeds) for seeds in _by_image(group))


def _interval(group: Sequence[AttackRecord], figure: _Figure) -> Interval | None:
    known = [value for seeds in _by_image(group) if (value := mean(map(figure, seeds))) is not None]
    return bootstrap_mean(known) if known else None


def _gain(matched: Sequence[tuple[AttackRecord, AttackRecord]], figure: _Figure) -> Gain | None:
    images = grouped(matched, lambda pair: (pair[0].dataset, pair[0].image)).values()
    pairs = [[(figure(one), figure(other)) for one, other in own] for own in images]
    known = [[(a, b) for a, b in own if a is not None and b is not None] for own in pairs]
    both = np.array([np.mean(own, axis=0) for own in known if own])
    if not both.size:
        return None
    before, after = map(float, both.mean(axis=0))
    found = bootstrap_mean((both[:, 1] - both[:, 0]).tolist())
    return Gain(found.mean, found.low, found.high, found.n, before, after)


def _closed(matched: Sequence[tuple[AttackRecord, AttackRecord]], level: float) -> float | None:
    plain, defended = (mean(pair[i].sr_psnr for pair in matched) for i in (0, 1))
    line = bicubic_line(level)
    if plain is None or defended is None or plain >= line:
        return None
    return (defended - plain) / (line - plain)
