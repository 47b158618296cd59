"""What records say, in sentences: every clause is computed from the figures of the tables."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from resolute.chart import BICUBIC
from resolute.figures import change, doubt, figure
from resolute.studies.attacked import AttackRecord
from resolute.studies.pairs import Defends, Family, families, pairs_of
from resolute.studies.summary import (
    DefenceEffect,
    Gain,
    Means,
    attack_title,
    bicubic_line,
    compare,
    headline_level,
    level_of,
    summarize,
    worst_case,
)

# Up to so many pairs, each is told in a sentence and a table of its own.
FEW = 2


@dataclasses.dataclass(frozen=True)
class Pairing:
    """A model, its defended version, and what the defence changed, the worst case over attacks last."""

    plain: str
    defended: str
    verdict: str
    comparisons: list[DefenceEffect]


def sentences_of(records: Sequence[AttackRecord], defends: Defends) -> list[str]:
    """Return what to say first about the records of one data set.

    Models that are worse than bicubic interpolation before any attack come first; then a verdict a pair, or a sentence
    a family where there are many, or the most fragile model where nothing is defended.
    """
    models = names_of(records)
    told = [f for f in (family_verdicts(records, defends) if is_compact(models, defends) else []) if f]
    told = told or [pairing.verdict for pairing in pairings(records, defends)]
    return below_bicubic(records) + (told or [most_fragile(records)]) + in_tiles(records)


def in_tiles(records: Sequence[AttackRecord]) -> list[str]:
    """Say how many attacks were made in tiles, as what they found may be a little weaker."""
    sides = sorted({record.tile for record in records if record.tile})
    if not sides:
        return []
    number = sum(record.tile > 0 for record in records)
    return [
        f"{number} of {len(records)} attacks were made in tiles, of {' and '.join(map(str, sides))} pixels a side, for "
        "want of memory: each tile by itself, in the same budget, and maybe a little weaker beside the seams."
    ]


def names_of(records: Sequence[AttackRecord]) -> list[str]:
    """Return the names of the models, in order of appearance."""
    return list(dict.fromkeys(record.model for record in records))


def is_compact(models: Sequence[str], defends: Defends) -> bool:
    """Tell whether there are too many pairs for a table each."""
    return len(pairs_of(models, defends)) > FEW


def clean_psnr(records: Sequence[AttackRecord]) -> dict[str, float]:
    """Return the mean clean PSNR of each model in dB, on Y, over the images that all of them have."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for record in records:
        if record.clean_psnr_y is not None:
            found[record.model][record.image] = record.clean_psnr_y
    shared = set[str].intersection(*map(set, found.values())) if found else set[str]()
    return {model: float(np.mean([own[image] for image in sorted(shared)])) for model, own in found.items() if shared}


def worse_than_bicubic(records: Sequence[AttackRecord]) -> dict[str, float]:
    """Return the clean PSNR of the models that bicubic interpolation, if it is among the records, does better than."""
    clean = clean_psnr(records)
    line = clean.get(BICUBIC)
    return {} if line is None else {name: value for name, value in clean.items() if round(value, 2) < round(line, 2)}


def below_bicubic(records: Sequence[AttackRecord]) -> list[str]:
    """Say which models upscale worse than bicubic interpolation; what they keep under attack is no merit."""
    worse = worse_than_bicubic(records)
    if not worse:
        return []
    line = figure(clean_psnr(records)[BICUBIC])
    named = ", ".join(f"{name} ({figure(value)} dB)" for name, value in worse.items())
    have, keep = ("has", "it keeps") if len(worse) == 1 else ("have", "they keep")
    return [
        f"Without an attack {named} {have} a lower PSNR than bicubic interpolation ({line} dB): what {keep} under "
        "attack is no sign of robustness."
    ]


def pairings(records: Sequence[AttackRecord], defends: Defends) -> list[Pairing]:
    """Compare every model with its defended versions."""
    found: list[Pairing] = []
    for plain, defended in pairs_of(names_of(records), defends):
        comparisons = compare(records, plain, defended)
        if comparisons:
            level = headline_level([c.level for c in comparisons if c.sr is not None] or [c.level for c in comparisons])
            if len({c.attack for c in comparisons}) > 1:
                comparisons += compare(worst_case(records), plain, defended)
            found.append(Pairing(plain, defended, verdict(records, plain, defended, level), comparisons))
    return found


def verdict(records: Sequence[AttackRecord], plain: str, defended: str, level: float = 4) -> str:
    """Say in words what a defence did at one budget, also where it did nothing."""
    comparisons = [c for c in compare(records, plain, defended) if c.level == level]
    if not comparisons:
        return f"No attack at {level:g}/255 went through both {plain} and {defended}, so they cannot be compared."
    moved = [(c, c.sr) for c in comparisons if c.sr is not None]
    if not moved:
        return (
            f"At {level:g}/255 no attack moved the outputs of both {plain} and {defended} on any image, so their "
            "SR-PSNR cannot be compared."
        )
    parts = [f"{_instead(gain, 1, plain)} under {attack_title(c.attack)}" for c, gain in moved]
    text = f"At {level:g}/255 {defended} keeps an SR-PSNR of {'; '.join(parts)}"
    clean = comparisons[0].clean
    if clean is not None:
        text += f"; without an attack its PSNR is {_instead(clean, 2)}"
    truths = [(c, c.truth) for c in comparisons if c.truth is not None]
    if not truths:
        return f"{text}."
    parts = [f"{_instead(gain, 2)} under {attack_title(c.attack)}" for c, gain in truths]
    return f"{text}. Against the ground truth its attacked output has {'; '.join(parts)}.{_trade(moved, clean, truths)}"


def most_fragile(records: Sequence[AttackRecord]) -> str:
    """Say in words which model and attack keep the least SR-PSNR, for studies without a defended model."""
    level = headline_level(level_of(record) for record in records)
    rows = [row for row in summarize(records) if row.level == level]
    moved = [(row.sr_psnr, row) for row in rows if row.sr_psnr is not None]
    candidates = [found for found in moved if found[1].model != BICUBIC] or moved
    if not candidates:
        return f"At {level:g}/255 no attack moved any output."
    kept, row = min(candidates, key=lambda found: found[0])
    images = f"{row.images - row.unmoved} images" if row.images - row.unmoved > 1 else "one image"
    attack = attack_title(row.attack)
    if len({one.model for one in rows} - {BICUBIC, row.model}):
        text = (
            f"the most fragile model is {row.model} under {attack}: its output keeps an SR-PSNR of {figure(kept, 1)} dB"
        )
    else:
        attack += ", its worst attack," if len({one.attack for one in rows}) > 1 else ""
        text = f"the output of {row.model} keeps an SR-PSNR of {figure(kept, 1)} dB under {attack}"
    text = f"At {level:g}/255 {text} on average over {images}"
    if row.model != BICUBIC:
        # The figure of the table where there is one: two figures of bicubic would contradict each other.
        same = [kept for kept, one in moved if one.model == BICUBIC and one.attack == row.attack]
        line = figure(same[0] if same else bicubic_line(level), 1)
        when = "under the same attack" if same else f"when the whole input shifts by {level:g}/255"
        text += f"; bicubic interpolation keeps {line} dB {when}"
    # The attack that moves the output most need not be the one that takes it farthest from the ground truth.
    worst = summarize([one for one in worst_case(records) if one.model == row.model and level_of(one) == level])
    least = worst[0] if worst else row
    if least.clean_psnr_y is not None and least.attacked_psnr_y is not None:
        went = change(least.clean_psnr_y, least.attacked_psnr_y)
        text += f". Against the ground truth its output has {went.after} dB under attack and {went.before} dB without "
        text += f"one ({went.difference} dB)"
    return f"{text}."


def family_verdicts(records: Sequence[AttackRecord], defends: Defends) -> list[str]:
    """Say of each family at one budget, under the worst attack on each image, what its variants keep."""
    level = headline_level(level_of(record) for record in records)
    several = len({record.attack for record in records}) > 1
    pool = [record for record in worst_case(records) if level_of(record) == level]
    rows = {row.model: row for row in summarize(pool)}
    under = "the worst attack on each image" if several else attack_title(records[0].attack)
    found: list[str] = []
    for family in families(names_of(records), defends):
        plain = rows.get(family.plain)
        if plain is not None and plain.sr_psnr is not None:
            found += _family(family, plain, pool, f"At {level:g}/255 under {under}")
    return found


def _family(family: Family, plain: Means, pool: Sequence[AttackRecord], where: str) -> list[str]:
    pairs = {name: compare(pool, family.plain, name) for name in family.variants}
    moved = {name: gain for name, found in pairs.items() if found and (gain := found[0].sr) is not None}
    if not moved:
        return []
    text = f"{where} {family.plain} keeps an SR-PSNR of {figure(plain.sr_psnr, 1)} dB"
    if plain.clean_psnr_y is not None:
        text += f", with a clean PSNR of {figure(plain.clean_psnr_y)} dB"
    best = max(moved, key=lambda name: moved[name].interval.mean)
    which = f"{best} has the largest difference" if len(moved) > 1 else best
    text += f"{_tally(moved)}; {which}: {_instead(moved[best], 1)}"
    clean = pairs[best][0].clean
    if clean is not None:
        text += f", with a clean PSNR of {_instead(clean, 2)}"
    truths = {name: gain for name, found in pairs.items() if found and (gain := found[0].truth) is not None}
    return [f"{text}.{_gainers(truths)}"]


def _tally(moved: Mapping[str, Gain]) -> str:
    """Count the variants that keep more, less, or neither beyond chance."""
    if len(moved) == 1:
        return ""
    count = Counter(gain.clear for gain in moved.values())
    parts = {1: "more", -1: "less", 0: "neither more nor less beyond chance"}
    told = [
        f"{count[way]} {'keeps' if count[way] == 1 else 'keep'} {words}" for way, words in parts.items() if count[way]
    ]
    return f"; of its {len(moved)} variants {', '.join(told)}"


def _gainers(truths: Mapping[str, Gain]) -> str:
    if not truths:
        return ""
    clear = {name: gain for name, gain in truths.items() if gain.clear > 0}
    if not clear:
        return " Against the ground truth no attacked output gains beyond chance."
    best = max(clear, key=lambda name: clear[name].interval.mean)
    most = " most of those that gain beyond chance" if len(clear) > 1 else ""
    return f" Against the ground truth the attacked output of {best} gains{most}: {_instead(clear[best], 2)}."


def _trade(
    moved: Sequence[tuple[DefenceEffect, Gain]], clean: Gain | None, truths: Sequence[tuple[DefenceEffect, Gain]]
) -> str:
    """Say that a defence moves less only because it starts lower, where all of that is so beyond chance."""
    lower = clean is not None and clean.clear < 0 and all(gain.clear > 0 for _, gain in moved)
    if not lower or any(gain.clear > 0 for _, gain in truths):
        return ""
    return " So it moves less and starts lower, and gains nothing against the ground truth beyond chance."


def _instead(gain: Gain, digits: int, plain: str = "") -> str:
    """Return the figure with the defence, that without, and the difference as it adds up."""
    told = change(gain.before, gain.after, digits)
    why = doubt(gain.interval)
    before = f"the {told.before} dB of {plain}" if plain else f"{told.before} dB"
    return f"{told.after} dB instead of {before} ({told.difference} dB{why and f', {why}'})"
