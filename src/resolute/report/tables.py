"""The words and the tables of a report, ready to be printed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from resolute.chart import BICUBIC
from resolute.report.text import split_number, title
from resolute.studies.attacked import AttackRecord
from resolute.studies.summary import Comparison, Row, bicubic_line, compare, level_of, summarize, worst_case
from resolute.studies.verdicts import verdict

HEADLINE = 4.0


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive rows of a table that share a model and an attack."""

    model: str
    attack: str
    rows: list[Row]


@dataclasses.dataclass(frozen=True)
class Pairing:
    """A model, its defended version, and what the defence changed.

    Attributes:
        plain, defended: the models' names.
        verdict: in words.
        comparisons: by attack and budget, the worst case over attacks last.
    """

    plain: str
    defended: str
    verdict: str
    comparisons: list[Comparison]


def find_pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Return all (plain, defended) pairs: names of which the second is the first plus a suffix after ``-`` or ``+``.

    Where both were numbered to tell them apart from others of their name, equal numbers belong together.

    Example:
        >>> find_pairs(["edsr-s", "edsr-s-entropy", "bicubic"])
        [('edsr-s', 'edsr-s-entropy')]
        >>> find_pairs(["edsr-s", "edsr-s+mix=0.75"])
        [('edsr-s', 'edsr-s+mix=0.75')]
        >>> find_pairs(["a", "a-b", "a (2)", "a-b (2)"])
        [('a', 'a-b'), ('a (2)', 'a-b (2)')]
    """
    found: list[tuple[str, str]] = []
    for plain in models:
        for defended in models:
            (stem, number), (name, other) = split_number(plain), split_number(defended)
            if name.startswith((f"{stem}-", f"{stem}+")) and (
                number == other or (not number and f"{stem}{other}" not in models)
            ):
                found.append((plain, defended))
    return found


def headline_level(levels: Iterable[float]) -> float:
    """Return the budget to speak about: the one that is nearest to 4/255 by ratio.

    Example:
        >>> headline_level([1, 2, 8, 32])
        2
    """
    return min(levels, key=lambda level: (abs(math.log2(max(level, 1e-9) / HEADLINE)), level))


def pairings(records: Sequence[AttackRecord]) -> list[Pairing]:
    """Compare every model with its defended versions."""
    found: list[Pairing] = []
    for plain, defended in find_pairs(list(dict.fromkeys(record.model for record in records))):
        comparisons = compare(records, plain, defended)
        if comparisons:
            level = headline_level([c.level for c in comparisons if c.sr is not None] or [HEADLINE])
            if len({c.attack for c in comparisons}) > 1:
                comparisons += compare(worst_case(records), plain, defended)
            found.append(Pairing(plain, defended, verdict(records, plain, defended, level), comparisons))
    return found


def most_fragile(records: Sequence[AttackRecord]) -> str:
    """Say in words which model and attack keep the least SR-PSNR, for studies without a defended model."""
    level = headline_level(level_of(record) for record in records)
    rows = [row for row in summarize(records) if row.level == level]
    moved = [(row.sr_psnr, row) for row in rows if row.sr_psnr is not None]
    candidates = [found for found in moved if found[1].model != BICUBIC] or moved
    if not candidates:
        return f"At {level:g}/255 no attack moved any output."
    kept, row = min(candidates, key=lambda found: found[0])
    images = f"{row.images} images" if row.images > 1 else "one image"
    text = (
        f"At {level:g}/255 the most fragile model is {row.model} under {title(row.attack)}: its output keeps an "
        f"SR-PSNR of {kept:.1f} dB on average over {images}"
    )
    if row.model != BICUBIC:
        text += (
            f"; bicubic interpolation keeps {bicubic_line(level):.1f} dB when the whole input shifts by {level:g}/255"
        )
    if row.clean_psnr_y is not None and row.attacked_psnr_y is not None:
        text += (
            f". Against the ground truth its output falls from {row.clean_psnr_y:.2f} to {row.attacked_psnr_y:.2f} dB"
        )
    return text + ". No defended version of a model is in these records, so no defence is judged."


def blocks(rows: Sequence[Row]) -> list[Block]:
    """Group rows by model and attack, in order of appearance."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.attack), []).append(row)
    return [Block(model, attack, group) for (model, attack), group in groups.items()]
