"""What changed between two studies: how they were made, and every figure that both have, paired image by image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from resolute.errors import ConfigError
from resolute.figures import DASH, Interval, interval, printed_difference
from resolute.files import write_text
from resolute.measure.intervals import bootstrap_mean
from resolute.report.assets import render
from resolute.report.cells import Measurement, Side, read_side
from resolute.studies.results import Quantity
from resolute.studies.study import count
from resolute.table import Column, Table, TableCell, Tone, row

Verdict = Literal["worse", "better", "may be chance", "equal"]

# Of single images on the page; the tables of means have all settings.
SHOWN = 40
# Differences this small are those of another order of summation.
SAME = 1e-4
# Images of one setting that only one study has, by name.
NAMED = 6

_TONES: dict[str, Tone] = {"worse": "bad", "better": "good"}


@dataclasses.dataclass(frozen=True)
class SettingChange:
    """One thing about how the studies were made; empty where one has none."""

    what: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True)
class Delta:
    """One setting in both studies: second minus first, paired over the images that both have.

    Attributes:
        values: by the name of the quantity; None where nothing can be paired.
        verdict: on the first quantity.
        loss: how much worse the first quantity became, for the order of the rows.
        note: what else changed about this setting.
    """

    setting: tuple[str, ...]
    values: dict[str, Interval | None]
    verdict: Verdict
    loss: float
    images: int
    note: str


@dataclasses.dataclass(frozen=True)
class Single:
    """One image of one setting, before and after."""

    setting: tuple[str, ...]
    image: str
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Only:
    """Cells that one study alone has: of one setting, or of images whose pixels changed."""

    setting: tuple[str, ...]
    where: str
    images: list[str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All that changed from the first study to the second."""

    first: Side
    second: Side
    changes: list[SettingChange]
    deltas: list[Delta]
    singles: list[Single]
    only: list[Only]

    def deltas_table(self) -> Table:
        """Return every setting that both studies have, the worst regressions first."""
        quantities = self.first.quantities
        columns = [
            *map(Column, self.first.headings), Column("verdict"), *(_column(q, q is quantities[0]) for q in quantities),
            Column("images"), Column("note"),
        ]  # fmt: skip
        rows = [
            row(
                *delta.setting, TableCell(delta.verdict, tone=_TONES.get(delta.verdict, "unsure")),
                *(delta.values[quantity.name] for quantity in quantities), delta.images, delta.note,
            )
            for delta in self.deltas
        ]  # fmt: skip
        return Table("Figures", columns, rows, choices={"verdict": ""})

    def singles_table(self) -> Table:
        """Return the single images that lost most; the change adds up with the figures beside it."""
        quantity = self.first.quantities[0]
        plain = Column("before", quantity.unit, digits=quantity.digits)
        columns = [
            Column("image"), *map(Column, self.first.headings), plain, dataclasses.replace(plain, name="after"),
            dataclasses.replace(plain, name="change", signed=True),
        ]  # fmt: skip
        rows = [
            row(s.image, *s.setting, s.before, s.after, printed_difference(s.before, s.after, quantity.digits))
            for s in self.singles
        ]
        return Table("Single images", columns, rows, caption=f"{quantity.name}, up to {len(rows)} of them")

    def only_table(self) -> Table:
        """Return what one study alone has."""
        columns = [*map(Column, self.first.headings), Column("where"), Column("images"), Column("names")]
        rows = [
            row(
                *only.setting, only.where, len(only.images),
                ", ".join(only.images[:NAMED]) + (", …" if len(only.images) > NAMED else ""),
            )
            for only in self.only
        ]  # fmt: skip
        return Table("Not in both", columns, rows)

    def changes_table(self) -> Table:
        """Return what differs in how the two studies were made."""
        columns = [Column("what"), *(Column(side.name, code=True) for side in (self.first, self.second))]
        rows = [row(change.what, change.before or None, change.after or None) for change in self.changes]
        return Table("How they were made", columns, rows)

    @property
    def sentences(self) -> list[str]:
        """What changed, in words."""
        worse, better = (sum(delta.verdict == kind for delta in self.deltas) for kind in ("worse", "better"))
        name = self.first.quantities[0].name
        if not self.deltas:
            return ["No figure is in both studies, so nothing can be compared; below is what each of them has alone."]
        settings = count(len(self.deltas), "setting")
        if all(delta.verdict == "equal" for delta in self.deltas):
            found = [f"Nothing changed: {name} is the same in all {settings} that both studies have."]
        else:
            found = [
                f"Of {settings} in both studies, {name} became worse in {worse} and better in {better} beyond chance."
            ]
            worst = self.deltas[0]
            if worst.verdict == "worse":
                where, by = ", ".join(filter(None, worst.setting)), words(worst.values[name], self.first.quantities[0])
                found[0] += f" The worst is {where}: {by}."
        named = [change.what.partition("weights of ") for change in self.changes]
        if weights := [model for _, of, model in named if of]:
            found.append(f"The weights of {', '.join(weights)} differ.")
        alone = sum(len(only.images) for only in self.only)
        if alone:
            they, them = ("cells", "them") if alone != 1 else ("cell", "it")
            found.append(f"{alone} {they} could not be paired, so no difference has {them}.")
        return found


def compare_sides(first: Side, second: Side) -> Comparison:
    """Hold two studies of one kind against each other.

    Raises:
        ConfigError: they are of two kinds.
    """
    if first.kind != second.kind:
        kinds = f"{first.name} is a study of the kind {first.kind}, {second.name} one of the kind {second.kind}"
        raise ConfigError(f"{kinds}; compare two of one kind")
    sides = [_by_setting(side.cells) for side in (first, second)]
    quantities = [quantity for quantity in first.quantities if quantity in second.quantities]
    if not quantities:
        raise ConfigError(f"{first.name} and {second.name} measure different things, so there is nothing to compare")
    name = quantities[0].name
    deltas: list[Delta] = []
    singles: list[Single] = []
    only: list[Only] = []
    for setting in dict.fromkeys([*sides[0], *sides[1]]):
        before, after = (side.get(setting, {}) for side in sides)
        shared = [image for image in before if image in after]
        moved = [image for image in shared if before[image].identity != after[image].identity]
        pairs = [(before[image], after[image]) for image in shared if image not in moved]
        for where, images in (
            (f"only in {first.name}", [image for image in before if image not in after]),
            (f"only in {second.name}", [image for image in after if image not in before]),
            ("other pixels under the same name", moved),
        ):
            if images:
                only.append(Only(setting, where, images))
        if pairs:
            deltas.append(_delta(setting, pairs, quantities, _note(setting, first, second)))
            figures = [(old.image, old.values.get(name), new.values.get(name)) for old, new in pairs]
            singles += [Single(setting, image, a, b) for image, a, b in figures if a is not None and b is not None]
    sign = -1 if quantities[0].lower_better else 1
    singles = [single for single in singles if sign * (single.after - single.before) < -SAME]
    singles.sort(key=lambda single: sign * (single.after - single.before))
    deltas.sort(key=lambda delta: (("worse", "may be chance", "equal", "better").index(delta.verdict), -delta.loss))
    tables = ("weights of ", first.weights, second.weights), ("", first.attacks, second.attacks)
    changes = [
        SettingChange(prefix + name, before.get(name, ""), after.get(name, ""))
        for prefix, before, after in (*tables, ("", first.facts, second.facts))
        for name in dict.fromkeys([*before, *after])
        if before.get(name, "") != after.get(name, "")
    ]
    first = dataclasses.replace(first, quantities=quantities)
    return Comparison(first, second, changes, deltas, singles[:SHOWN], only)


def compare_folders(first: Path, second: Path) -> Comparison:
    """Find what changed from the study in the first folder to that in the second.

    Raises:
        ConfigError: a folder without results, or studies of two kinds.
    """
    return compare_sides(read_side(first), read_side(second))


def write_comparison(found: Comparison, out: Path) -> Path:
    """Write one self-contained page about what changed; return its path.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(out, render("comparison.html.j2", {"found": found}))
    return out


def words(value: Interval | None, quantity: Quantity) -> str:
    """Return a difference with its interval and unit.

    Example:
        >>> words(Interval(mean=1.0, low=0.5, high=1.5, n=3), Quantity("SR-PSNR", "dB"))
        '+1.00 [+0.50, +1.50] dB'
    """
    return DASH if value is None else f"{interval(value, quantity.digits)} {quantity.unit}".strip()


def _column(quantity: Quantity, key: bool) -> Column:
    better = "lower" if quantity.lower_better else "higher"
    return Column(quantity.name, quantity.unit, digits=quantity.digits, signed=True, better=better, key=key)


def _by_setting(cells: Sequence[Measurement]) -> dict[tuple[str, ...], dict[str, Measurement]]:
    found: dict[tuple[str, ...], dict[str, Measurement]] = {}
    for cell in cells:
        found.setdefault(cell.setting, {})[cell.image] = cell
    return found


def _delta(
    setting: tuple[str, ...],
    pairs: Sequence[tuple[Measurement, Measurement]],
    quantities: Sequence[Quantity],
    note: str,
) -> Delta:
    values = {quantity.name: _paired(pairs, quantity.name) for quantity in quantities}
    value, sign = values[quantities[0].name], 1 if quantities[0].lower_better else -1
    loss = 0.0 if value is None else sign * value.mean
    verdict: Verdict = "may be chance"
    if _unchanged(pairs):
        verdict = "equal"
    elif value is not None and value.n > 1 and (value.low > 0 or value.high < 0):
        verdict = "worse" if loss > 0 else "better"
    return Delta(setting, values, verdict, loss, len(pairs), note)


def _paired(pairs: Sequence[tuple[Measurement, Measurement]], name: str) -> Interval | None:
    both = [(old.values.get(name), new.values.get(name)) for old, new in pairs]
    gains = [b - a for a, b in both if a is not None and b is not None]
    return bootstrap_mean(gains) if gains else None


def _unchanged(pairs: Sequence[tuple[Measurement, Measurement]]) -> bool:
    def same(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else abs(a - b) <= SAME

    return all(
        same(old.values.get(name), new.values.get(name)) for old, new in pairs for name in {**old.values, **new.values}
    )


def _note(setting: tuple[str, ...], first: Side, second: Side) -> str:
    kinds = ("weights", first.weights, second.weights), ("attack", first.attacks, second.attacks)
    return ", ".join(
        f"other {kind}"
        for kind, before, after in kinds
        if any(name in before and name in after and before[name] != after[name] for name in setting)
    )
