"""From records to what a person wants to know: a table of means, paired comparisons, and a verdict in words."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from resolute.measure.intervals import Interval, bootstrap_mean
from resolute.studies.attacked import AttackRecord

# The name under which the worst attack on each image appears among the attacks.
WORST = "worst case"


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
class Comparison:
    """What a defence changed at one attack and budget: means over images of paired differences, in dB.

    Attributes:
        clean: cost against the ground truth without an attack (negative is worse); None without ground truth.
        sr: gain of SR-PSNR, the paper's measure.
        truth: gain of the attacked output against the ground truth; None without ground truth.
        closed: share of the plain model's distance to the bicubic line that was closed; None where the plain model
            lies above that line already.
    """

    plain: str
    defended: str
    attack: str
    level: float
    clean: Interval | None
    sr: Interval | None
    truth: Interval | None
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


def verdict(records: Sequence[AttackRecord], plain: str, defended: str, level: float = 4) -> str:
    """Say in words what the defence did at one budget, also where it did nothing."""
    comparisons = [c for c in compare(records, plain, defended) if c.level == level and c.sr is not None]
    if not comparisons:
        return f"No attack at {level:g}/255 went through both {plain} and {defended}, so they cannot be compared."
    rows = {(row.model, row.attack): row for row in summarize(records) if row.level == level}
    parts = [
        f"{rows[plain, c.attack].sr_psnr:.1f} dB without and {rows[defended, c.attack].sr_psnr:.1f} dB with the "
        f"defence under {attack_title(c.attack)} ({c.sr.mean:+.1f} dB{_doubt(c.sr)})"
        for c in comparisons
        if c.sr is not None
    ]
    clean = comparisons[0].clean
    cost = "" if clean is None else f"; clean PSNR changes by {clean.mean:+.2f} dB"
    truths = [c.truth for c in comparisons if c.truth is not None]
    return f"At {level:g}/255 the output keeps an SR-PSNR of {'; '.join(parts)}{cost}.{_against_truth(truths)}"


def _against_truth(truths: Sequence[Interval]) -> str:
    if not truths:
        return ""
    worst, best = (choose(truths, key=lambda truth: truth.mean) for choose in (min, max))
    span = f"{worst.mean:+.2f} to {best.mean:+.2f} dB"
    if best.mean < 0.1 or best.low <= 0:
        return (
            f" Against the ground truth the attacked output gains nothing ({span}): the defended model moves less, but "
            "it also starts lower."
        )
    return f" Against the ground truth the attacked output changes by {span}."


def bicubic_line(level: float) -> float:
    """Return the SR-PSNR in dB that bicubic interpolation keeps under the worst change of ``level`` levels.

    Its weights sum to one, so a constant shift of the input passes unchanged, and little can be won beyond it: every
    model below this line amplifies perturbations.

    Example:
        >>> round(bicubic_line(4), 1)
        36.1
    """
    return 20 * math.log10(255 / level)


def attack_title(name: str) -> str:
    """Return the name of an attack as papers write it."""
    return _ATTACK_TITLES.get(name, name)


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
) -> Interval | None:
    gains = [b - a for first, second in pairs if (a := read(first)) is not None and (b := read(second)) is not None]
    return bootstrap_mean(gains) if gains else None


def _closed(matched: Sequence[tuple[AttackRecord, AttackRecord]], level: float) -> float | None:
    plain, defended = (_mean([pair[i] for pair in matched], lambda r: r.sr_psnr) for i in (0, 1))
    line = bicubic_line(level)
    if plain is None or defended is None or plain >= line:
        return None
    return (defended - plain) / (line - plain)


def _doubt(interval: Interval) -> str:
    return "" if interval.low > 0 or interval.high < 0 else ", which may be chance"


def _or_infinity(value: float | None) -> float:
    return float("inf") if value is None else value
