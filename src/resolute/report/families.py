"""Many variants of a model in one table: a row each, beside the plain one, with a column a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from resolute.measure.intervals import Interval
from resolute.report.tables import find_pairs, headline_level, pairings
from resolute.report.text import signed, signed_gain, title
from resolute.studies.attacked import AttackRecord
from resolute.studies.summary import WORST, Comparison, Row, compare, level_of, summarize, worst_case

# Up to so many pairs, each is told in a sentence and a table of its own.
FEW = 2


@dataclasses.dataclass(frozen=True)
class Family:
    """A plain model and its variants, in order of appearance."""

    plain: str
    variants: list[str]


@dataclasses.dataclass(frozen=True)
class Place:
    """One entry of a grid: a mean, and the gain over the plain model where there is one."""

    mean: float | None
    gain: Interval | None


@dataclasses.dataclass(frozen=True)
class Line:
    """One model in a grid.

    Attributes:
        variant: it belongs to the plain model above it.
        clean: its PSNR against the truth without an attack.
        places: one a budget; None where the model was not attacked at it.
    """

    model: str
    variant: bool
    clean: Place
    places: list[Place | None]


@dataclasses.dataclass(frozen=True)
class Grid:
    """One figure under one attack: a row a model, a column a budget."""

    caption: str
    levels: list[float]
    lines: list[Line]


def families(models: Sequence[str]) -> list[Family]:
    """Return the plain models with their variants; a variant of a variant belongs to the plainest.

    Example:
        >>> families(["a", "a-adv", "a-adv-entropy", "a+blur=1", "b"])
        [Family(plain='a', variants=['a-adv', 'a-adv-entropy', 'a+blur=1'])]
    """
    pairs = find_pairs(models)
    defended = {name for _, name in pairs}
    roots = [model for model in models if model not in defended]
    found = [Family(root, [name for plain, name in pairs if plain == root]) for root in roots]
    return [family for family in found if family.variants]


def is_compact(models: Sequence[str]) -> bool:
    """Tell whether there are too many pairs for a table each."""
    return len(find_pairs(models)) > FEW


def grids(records: Sequence[AttackRecord]) -> list[Grid]:
    """Return SR-PSNR under every attack and the worst, and the attacked output against the truth under the worst."""
    attacks = list(dict.fromkeys(record.attack for record in records))
    worst = worst_case(records)
    pools = [[record for record in records if record.attack == attack] for attack in attacks]
    if len(attacks) > 1:
        pools.append(worst)
    found = [
        _grid(f"SR-PSNR, {_under(pool[0].attack)}, dB", pool, lambda row: row.sr_psnr, lambda c: c.sr) for pool in pools
    ]
    if any(record.attacked_psnr_y is not None for record in records):
        caption = f"PSNR of the attacked output against the truth, {_under(pools[-1][0].attack)}, Y, dB"
        found.append(_grid(caption, pools[-1], lambda row: row.attacked_psnr_y, lambda c: c.truth))
    return found


def sentences_of(records: Sequence[AttackRecord]) -> list[str]:
    """Return what to say first about the records of one data set: a verdict a pair, or a sentence a family."""
    if is_compact(list(dict.fromkeys(record.model for record in records))):
        return family_verdicts(records)
    return [pairing.verdict for pairing in pairings(records)]


def family_verdicts(records: Sequence[AttackRecord]) -> list[str]:
    """Say of each family at one budget, under the worst attack on each image, what its variants keep."""
    level = headline_level(level_of(record) for record in records)
    several = len({record.attack for record in records}) > 1
    pool = [record for record in worst_case(records) if level_of(record) == level]
    rows = {row.model: row for row in summarize(pool)}
    under = "the worst attack on each image" if several else title(records[0].attack)
    found: list[str] = []
    for family in families(list(dict.fromkeys(record.model for record in records))):
        plain = rows.get(family.plain)
        gains = {name: _only(compare(pool, family.plain, name)) for name in family.variants}
        moved = {name: c for name, c in gains.items() if c is not None and c.sr is not None}
        if plain is None or plain.sr_psnr is None or not moved:
            continue
        text = f"At {level:g}/255 under {under} {family.plain} keeps an SR-PSNR of {plain.sr_psnr:.1f} dB"
        best = max(moved, key=lambda name: _gain(moved[name]))
        found.append(f"{text}{_tally(moved)}{_best(best, moved)}.{_against_truth(moved)}")
    return found


def _under(attack: str) -> str:
    return "the worst attack on each image" if attack == WORST else title(attack)


def _gain(found: Comparison) -> float:
    return found.sr.mean if found.sr is not None else 0.0


def _tally(moved: dict[str, Comparison]) -> str:
    """Count the variants that keep more, less, or neither beyond chance."""
    if len(moved) == 1:
        return ""
    gains = [c.sr for c in moved.values() if c.sr is not None]
    clear = [gain for gain in gains if gain.n > 1]
    more, less = sum(gain.low > 0 for gain in clear), sum(gain.high < 0 for gain in clear)
    parts = [(more, "more"), (less, "less"), (len(gains) - more - less, "about the same")]
    told = [f"{number} {'keeps' if number == 1 else 'keep'} {words}" for number, words in parts if number]
    return f"; of its {len(moved)} variants {', '.join(told)}"


def _best(name: str, moved: dict[str, Comparison]) -> str:
    found, several = moved[name], len(moved) > 1
    cost = "" if found.clean is None else f", for {signed(found.clean.mean)} dB of clean PSNR"
    return f"; {name}{' most' if several else ''}, {signed_gain(found.sr)} dB{cost}"


def _against_truth(moved: dict[str, Comparison]) -> str:
    truths = {name: c.truth for name, c in moved.items() if c.truth is not None}
    if not truths:
        return ""
    best = max(truths, key=lambda name: truths[name].mean)
    if truths[best].low <= 0:
        return " Against the ground truth no attacked output gains beyond chance."
    return f" Against the ground truth the attacked output of {best} gains most, {signed_gain(truths[best])} dB."


def _only(found: Sequence[Comparison]) -> Comparison | None:
    return found[0] if found else None


def _grid(
    caption: str,
    records: Sequence[AttackRecord],
    mean: Callable[[Row], float | None],
    gain: Callable[[Comparison], Interval | None],
) -> Grid:
    levels = sorted({level_of(record) for record in records})
    rows = {(row.model, row.level): row for row in summarize(records)}
    models = list(dict.fromkeys(record.model for record in records))
    grouped = families(models)
    placed = {name for family in grouped for name in (family.plain, *family.variants)}
    plain_of = {name: family.plain for family in grouped for name in family.variants}
    order = [name for family in grouped for name in (family.plain, *family.variants)]
    lines: list[Line] = []
    for model in [*order, *(model for model in models if model not in placed)]:
        found = compare(records, plain_of[model], model) if model in plain_of else []
        gains = {c.level: c for c in found}
        first = next((rows[model, level] for level in levels if (model, level) in rows), None)
        clean = Place(first.clean_psnr_y if first else None, found[0].clean if found else None)
        places = [
            Place(mean(rows[model, level]), gain(gains[level]) if level in gains else None)
            if (model, level) in rows
            else None
            for level in levels
        ]
        lines.append(Line(model, model in plain_of, clean, places))
    return Grid(caption, levels, lines)
