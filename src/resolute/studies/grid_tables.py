"""The tables of attacks on super-resolution models; terminal, Markdown and page show the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from resolute.figures import Interval, adding_up, doubt, share
from resolute.measure.intervals import mean
from resolute.studies.attacked import AttackRecord
from resolute.studies.datasets import dataset_title
from resolute.studies.pairs import Defends, families
from resolute.studies.record import grouped
from resolute.studies.steepness import CleverRecord
from resolute.studies.study import count
from resolute.studies.summary import (
    WORST,
    DefenceEffect,
    Gain,
    Means,
    Standing,
    attack_title,
    compare,
    headline_level,
    kept,
    level_of,
    summarize,
    worst_case,
)  # fmt: skip
from resolute.studies.verdicts import Pairing, names_of, worse_than_bicubic
from resolute.table import Column, Row, Table, TableCell, Value, row

BUDGET = Column("budget", align="right", meaning="largest change of any sample of the input, in levels of 255")
CLEAN = Column(
    "clean PSNR", "Y, dB", better="higher",
    meaning="output for the clean input against the ground truth, on Y, a border of the scale's width shaved",
)  # fmt: skip
LR_PSNR = Column("LR-PSNR", "dB", meaning="attacked against clean input, RGB: how much perturbation the attack spent")
SR_PSNR = Column(
    "SR-PSNR", "dB", better="higher", key=True,
    meaning="output for the attacked input, as saved in 8 bits, against the model's own output for the clean one, RGB",
)  # fmt: skip
SSIM = Column("SR SSIM", "Y", better="higher", digits=4, meaning="the outputs of SR-PSNR, structural similarity")
ATTACKED = Column(
    "attacked PSNR", "vs truth, Y, dB", better="higher",
    meaning="output for the attacked input against the ground truth, on Y",
)  # fmt: skip
IMAGES = Column("images")

# What is called random in tables: no attack, and the floor under all of them.
SIGNS = "random signs"


def results_table(records: Sequence[AttackRecord], title: str = "", *, worst: bool = False) -> Table:
    """Return the means by model, attack and budget, over one data set, with a row of random signs under them.

    Args:
        records: of one data set.
        title: of the table.
        worst: also a row for the worst attack on each image, where there are several.
    """
    images = len({record.image for record in records})
    worse = worse_than_bicubic(records)
    several = worst and len({record.attack for record in records}) > 1
    extra = grouped(worst_case(records) if several else [], lambda record: record.model)
    by_model = grouped(records, lambda record: record.model)
    rows = summarize([record for model, own in by_model.items() for record in (*own, *extra.get(model, ()))])
    columns = [Column("model"), Column("attack"), BUDGET, CLEAN, LR_PSNR, SR_PSNR, SSIM, ATTACKED, IMAGES]
    words = (
        f"Means over {count(images, 'image')}. LR-PSNR, SR-PSNR and SSIM compare attacked with clean, input and "
        "output; clean and attacked PSNR compare the outputs with the ground truth. Attacked images count as saved in "
        "8 bits."
    )
    if several:
        words += f" {WORST.capitalize()}: of each image the attack that is worst for it, within the budget."
    made = [
        row(
            one.model, attack_title(one.attack), budget(one.level),
            clean_cell(one.clean_psnr_y, one.model in worse), standing_cell(one.lr_psnr, one.unmoved, one.images).value,
            standing_cell(one.sr_psnr, one.unmoved, one.images), one.sr_ssim, one.attacked_psnr_y, one.images,
            section=one.model != before,
        )
        for one, before in zip(rows, ["", *(one.model for one in rows)], strict=False)
    ]  # fmt: skip
    ends = {one.model: place for place, one in enumerate(rows, 1)}
    for model in reversed(ends):
        made[ends[model] : ends[model]] = _floor([record for record in records if record.model == model], columns)
    return Table(title, columns, made, caption=words)


def _floor(records: Sequence[AttackRecord], columns: Sequence[Column]) -> list[Row]:
    """Return a row a budget for changes of one model's input at random, where no attack is that already."""
    found: list[Row] = []
    for level, own in sorted(grouped(records, level_of).items()):
        known = {(record.dataset, record.image, record.seed): record for record in own}.values()
        values = [record.signs_sr_psnr for record in known if record.signs_sr_psnr is not None]
        if values and not any(record.configuration.startswith("RandomNoise(") for record in own):
            truth = mean(record.signs_psnr_y for record in known)
            cells = {"model": own[0].model, "attack": SIGNS, "budget": budget(level), "images": len(known)}
            clean = mean(record.clean_psnr_y for record in known)
            cells |= {CLEAN.name: clean, SR_PSNR.name: mean(values), ATTACKED.name: truth}
            found.append(row(*(cells.get(column.name) for column in columns)))
    return found


def images_table(records: Sequence[AttackRecord]) -> Table:
    """Return the figures image by image, a row for each model and attack."""
    truth = any(record.clean_psnr_y is not None for record in records)
    columns = [Column("image"), Column("model"), Column("attack"), BUDGET, *((CLEAN,) if truth else ()), LR_PSNR]
    columns += [SR_PSNR, SSIM, *((ATTACKED,) if truth else ())]
    rows = [
        row(
            image if number == 0 else "", one.model, attack_title(one.attack), budget(level_of(one)),
            *((one.clean_psnr_y,) if truth else ()), math.inf if one.lr_psnr is None else one.lr_psnr, kept(one),
            one.sr_ssim, *((one.attacked_psnr_y,) if truth else ()), section=number == 0,
        )
        for image, own in grouped(records, lambda record: record.image).items()
        for number, one in enumerate(own)
    ]  # fmt: skip
    return Table("", columns, rows)


def board_table(standings: Sequence[Standing], worse: Sequence[str] = ()) -> Table:
    """Return how every model stands, with intervals over images; one of the models in ``worse`` is marked."""
    truth = any(standing.clean is not None for standing in standings)
    several = len({standing.dataset for standing in standings}) > 1
    columns = [Column("model"), SR_PSNR, *((ATTACKED, CLEAN) if truth else ()), IMAGES, Column("attack"), BUDGET]
    columns += [Column("data")] if several else []
    rows = [
        row(
            one.model, standing_cell(one.sr, one.unmoved, one.images),
            *((one.truth, clean_cell(one.clean, one.model in worse)) if truth else ()), one.images,
            attack_words(one.attack), budget(one.level), *((dataset_words(one.dataset),) if several else ()),
        )
        for one in standings
    ]  # fmt: skip
    choices: dict[str, str] = {}
    if standings:
        level = headline_level(one.level for one in standings)
        choices = {"attack": attack_words(standings[0].attack), "budget": budget(level)}
        choices |= {"data": dataset_words(standings[0].dataset)} if several else {}
    return Table("Leaderboard", columns, rows, sort="attacked PSNR" if truth else "SR-PSNR", choices=choices)


def grid_tables(records: Sequence[AttackRecord], defends: Defends) -> list[Table]:
    """Return tables of many variants, a row a model and a column a budget.

    SR-PSNR under every attack and under the worst on each image, and the attacked output against the truth under the
    last; behind each figure is the difference from the plain model.
    """
    pools = list(grouped(records, lambda record: record.attack).values())
    if len(pools) > 1:
        pools.append(worst_case(records))
    found = [
        _grid(f"SR-PSNR, {_under(pool[0].attack)}, dB", pool, lambda one: one.sr_psnr, lambda c: c.sr, defends)
        for pool in pools
    ]
    if any(record.attacked_psnr_y is not None for record in records):
        title = f"PSNR of the attacked output against the truth, {_under(pools[-1][0].attack)}, Y, dB"
        found.append(_grid(title, pools[-1], lambda one: one.attacked_psnr_y, lambda c: c.truth, defends))
    return found


def comparison_table(pairing: Pairing) -> Table:
    """Return what a defence changed, by attack and budget."""
    columns = [
        Column("attack"), BUDGET,
        Column("SR-PSNR", "dB", signed=True, better="higher", key=True, meaning="gain of SR-PSNR"),
        Column("attacked PSNR", "dB", signed=True, better="higher", meaning="gain against the truth, attacked, on Y"),
        Column("clean PSNR", "dB", signed=True, better="higher", meaning="change against the truth, no attack, on Y"),
        Column("way to bicubic closed", align="right", meaning="share of the distance to the bicubic line"),
        Column("images", meaning="whose output moved in both models"),
    ]  # fmt: skip
    rows = [
        row(
            attack_title(c.attack), budget(c.level), _gained(c.sr), _gained(c.truth), _gained(c.clean),
            share(c.closed), c.sr.interval.n if c.sr is not None else 0, section=c.attack != before,
        )
        for c, before in zip(pairing.comparisons, ["", *(c.attack for c in pairing.comparisons)], strict=False)
    ]  # fmt: skip
    title = f"{pairing.defended} against {pairing.plain}"
    words = f"{pairing.defended} less {pairing.plain}, means of paired differences [95 % bootstrap]; positive is better"
    return Table(title, columns, rows, caption=words)


def index_table(indices: Sequence[CleverRecord]) -> Table:
    """Return the mean CLEVER indices by model, a row for each number of draws."""
    columns = [
        Column("model"), Column("index", digits=0, better="lower", key=True), Column("median draw", digits=0),
        Column("climbed", "by sign steps", digits=0), Column("draws"), IMAGES,
    ]  # fmt: skip
    rows = [
        row(
            model, mean(one.index for one in group), mean(one.typical for one in group),
            mean(one.climbed for one in group), draws, len(group),
        )
        for (model, draws), group in grouped(indices, lambda index: (index.model, index.draws)).items()
    ]  # fmt: skip
    words = (
        "CLEVER index (eq. 15), means over images: larger is more vulnerable; an estimate from random draws, no bound"
    )
    return Table("CLEVER", columns, rows, caption=words)


def feature_table(records: Sequence[AttackRecord]) -> Table:
    """Return the feature layer at the headline budget; no rows for records that lack it."""
    level = headline_level(map(level_of, records)) if records else 0.0
    groups = grouped((r for r in records if level_of(r) == level), lambda record: (record.model, record.attack))
    columns = [Column("model"), Column("attack")]
    for name, meaning in (("mean", ""), ("spread", "standard deviation"), ("range", "largest less smallest")):
        columns += [Column(f"{end} {name}", meaning=meaning) for end in ("clean", "attacked")]
    rows = [
        row(
            model, attack_title(attack), mean(r.phi_mean for r in group), mean(r.attacked_phi_mean for r in group),
            mean(r.phi_std for r in group), mean(r.attacked_phi_std for r in group), mean(r.phi_range for r in group),
            mean(r.attacked_phi_range for r in group),
            mean(100 * r.phi_moved for r in group if r.phi_moved is not None),
        )
        for (model, attack), group in groups.items()
    ]  # fmt: skip
    words = f"Φ at {level:g}/255, means over images; moved: size of the change over the spread"
    columns.append(Column("moved", "% of the spread", digits=0, key=True))
    return Table("Features", columns, rows, caption=words)


def budget(level: float) -> str:
    """Return a budget as tables print it.

    Example:
        >>> budget(4.0)
        '4/255'
    """
    return f"{level:g}/255"


def attack_words(attack: str) -> str:
    """Return the title of an attack, also of the worst on each image."""
    return "worst on each image" if attack == WORST else attack_title(attack)


def dataset_words(dataset: str) -> str:
    """Return the title of a data set, also of images that were given as files."""
    return dataset_title(dataset) if dataset else "images given as files"


def standing_cell(value: float | Interval | None, unmoved: int, images: int) -> TableCell:
    """Return a mean SR-PSNR with the number of images that are in no mean, because their output did not move."""
    shown: Value = math.inf if value is None and unmoved == images and unmoved else value
    return TableCell(shown, note=f"{unmoved} unmoved" if unmoved else "")


def clean_cell(value: float | Interval | None, worse: bool, change: Interval | None = None) -> TableCell:
    """Return a clean PSNR, marked where the model upscales worse than bicubic interpolation."""
    worse = worse and value is not None
    return TableCell(value, change, "below bicubic" if worse else "", "bad" if worse else "")


def _grid(
    title: str,
    records: Sequence[AttackRecord],
    read: Callable[[Means], float | None],
    gain: Callable[[DefenceEffect], Gain | None],
    defends: Defends,
) -> Table:
    levels = sorted({level_of(record) for record in records})
    headline, worse = headline_level(levels), worse_than_bicubic(records)
    rows = {(one.model, one.level): one for one in summarize(records)}
    kin = families(names_of(records), defends)
    plain_of = {name: family.plain for family in kin for name in family.variants}
    order = [name for family in kin for name in (family.plain, *family.variants)]
    gains = {
        model: {c.level: c for c in compare(records, plain_of[model], model)} if model in plain_of else {}
        for model in names_of(records)
    }

    def place(model: str, level: float) -> TableCell:
        own, plain = rows.get((model, level)), rows.get((plain_of.get(model, ""), level))
        if own is None:
            return TableCell(None)
        gained = gain(gains[model][level]) if level in gains[model] else None
        value = read(own)
        return TableCell(value, adding_up(gained and gained.interval, plain and read(plain), value))

    made = []
    for model in dict.fromkeys([*order, *names_of(records)]):
        first = next(rows[model, level] for level in levels if (model, level) in rows)
        cost = next((c.clean for c in gains[model].values()), None)
        clean = clean_cell(first.clean_psnr_y, model in worse, cost.shown() if cost is not None else None)
        variant = model in plain_of
        made.append(row(model, clean, *(place(model, level) for level in levels), indent=variant, section=not variant))
    columns = [Column(budget(level), "dB", better="higher", key=level == headline) for level in levels]
    caption = f"{title}; behind each figure the difference from the plain model above [95 % bootstrap]"
    return Table(title, [Column("model"), CLEAN, *columns], made, caption=caption)


def _under(attack: str) -> str:
    return "the worst attack on each image" if attack == WORST else attack_title(attack)


def _gained(value: Gain | None) -> TableCell:
    return TableCell(None) if value is None else TableCell(value.shown(), note=doubt(value.interval))
