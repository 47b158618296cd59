"""Flags of records: what the figures of a grid themselves say against one another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from resolute.figures import DASH, figure
from resolute.studies.attacked import AttackRecord
from resolute.studies.flags import RULES, Flag
from resolute.studies.summary import attack_title, level_of
from resolute.table import Column, Table, TableCell, row

# Attacks that climb no gradient of the model, by the class at the start of their configuration.
BLIND = {
    "RandomNoise": "noise-stronger-than-gradient",
    "Square": "black-box-stronger",
    "Transfer": "transfer-stronger-than-white-box",
}


def record_flags_table(records: Sequence[AttackRecord]) -> Table:
    """Return the flags that the records raise by themselves, a row a model and flag."""
    rows = [
        row(
            model, TableCell(flag.name, tone="bad"), measured(flag), RULES[flag.name].words, flag.words,
            RULES[flag.name].why,
        )
        for model in dict.fromkeys(record.model for record in records)
        for flag in record_flags([record for record in records if record.model == model])
    ]  # fmt: skip
    columns = [Column(name) for name in ("model", "flag", "figure", "raised if", "seen", "why it matters")]
    words = (
        "A flag says why a figure may flatter a model: a gradient that is hidden, an attack that was too weak. Only "
        "what these records show by themselves is here; `resolute check` tries more."
    )
    return Table("Flags", columns, rows, caption=words)


def record_flags(records: Sequence[AttackRecord]) -> list[Flag]:
    """Return the flags that the records of one model raise by themselves, each at the setting where it is worst.

    A study is no check: what it did not try raises nothing here.
    """
    cells: dict[tuple[str, float], dict[tuple[str, str], AttackRecord]] = {}
    for record in records:
        cells.setdefault((record.attack, level_of(record)), {})[record.dataset, record.image] = record
    found: dict[str, Flag] = {}
    for name, gap, words in (*_rivals(cells), *_budgets(cells), *_rounded(cells), *_shares(cells)):
        flag = Flag.of(name, gap.mean, f"{words}{gap.words}")
        # An image that moves in one of the two alone has no difference in dB, and weighs more than any.
        flag = dataclasses.replace(flag, raised=flag.raised or gap.alone > 0)
        known = found.get(name)
        if flag.raised and (known is None or _size(flag) > _size(known)):
            found[name] = flag
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class _Gap:
    """By how much one setting lies above another, over images that moved in both, in dB."""

    first: float | None
    second: float | None
    mean: float | None
    # Images that moved in the second alone, or in one of the two where the size counts, of all.
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
        yield name, gap, f"at {level:g}/255 {attack_title(attack)} reaches {reached}"


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
                gap = dataclasses.replace(gap, mean=None if gap.mean is None else -gap.mean)
                yield "larger-budget-not-stronger", gap, f"{attack_title(attack)} reaches {reached}"


def _rounded(cells: Cells) -> Seen:
    for (attack, level), ours in cells.items():
        gap = _Gap.of([(r.sr_psnr, r.sr_psnr_unrounded) for r in ours.values()], size=True)
        reached = f"{figure(gap.second)} dB in floating point, {figure(gap.first)} dB as saved"
        yield "rounding-sensitive", gap, f"{attack_title(attack)} at {level:g}/255 reaches {reached}"


def _shares(cells: Cells) -> Seen:
    """Return the shares of images on which an attack made the model break down."""
    for (attack, level), ours in cells.items():
        share = 100 * sum(record.broken for record in ours.values()) / len(ours)
        gap = _Gap(None, None, share, 0, len(ours))
        yield "output-not-finite", gap, f"{attack_title(attack)} at {level:g}/255: {share:.0f} % of {len(ours)} outputs"


def _size(flag: Flag) -> float:
    """Return how far a figure lies beyond the limit, to tell the worst setting."""
    if flag.figure is None:
        return float("inf")
    return -flag.figure if RULES[flag.name].below else flag.figure


def _lowest(records: Sequence[AttackRecord]) -> float | None:
    return min((record.sr_psnr for record in records if record.sr_psnr is not None), default=None)


def _kind(record: AttackRecord) -> str:
    return record.configuration.partition("(")[0]


def measured(flag: Flag) -> str:
    """Return the figure of a flag with its unit."""
    return DASH if flag.figure is None else f"{figure(flag.figure)} {RULES[flag.name].unit}"
