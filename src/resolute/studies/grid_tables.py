"""The tables of attacks on super-resolution models; terminal, Markdown and page show the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from resolute.figures import Interval, adding_up, doubt, share
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Finding
from resolute.studies.datasets import dataset_title
from resolute.studies.pairs import Defends, families
from resolute.studies.published import claimed, found
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import (
    WORST,
    Comparison,
    Gain,
    Row,
    Standing,
    attack_title,
    compare,
    headline_level,
    level_of,
    summarize,
    worst_case,
)
from resolute.studies.verdicts import Pairing, names_of, worse_than_bicubic
from resolute.table import Cell, Column, Table, Tone, Value, row

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

_TONES: dict[str, Tone] = {"agrees": "good", "disagrees": "bad", "undecided": "unsure"}


def results_table(records: Sequence[AttackRecord], title: str = "") -> Table:
    """Return the means by model, attack and budget, over one data set."""
    images = len({record.image for record in records})
    worse = worse_than_bicubic(records)
    rows = summarize(records)
    previous = ["", *(one.model for one in rows)]
    return Table(
        title,
        [Column("model"), Column("attack"), BUDGET, CLEAN, LR_PSNR, SR_PSNR, SSIM, ATTACKED, IMAGES],
        [
            row(
                one.model,
                attack_title(one.attack),
                budget(one.level),
                clean_cell(one.clean_psnr_y, one.model in worse),
                _moved(one.lr_psnr, one).value,
                _moved(one.sr_psnr, one),
                one.sr_ssim,
                one.attacked_psnr_y,
                one.images,
                section=one.model != before,
            )
            for one, before in zip(rows, previous, strict=False)
        ],
        caption=f"Means over {images} image{'s' if images != 1 else ''}. LR-PSNR, SR-PSNR and SSIM compare "
        "attacked with clean, input and output; clean and attacked PSNR compare the outputs with the ground truth. "
        "Attacked images count as saved in 8 bits.",
    )


def images_table(records: Sequence[AttackRecord]) -> Table:
    """Return the figures image by image, a row for each model and attack."""
    truth = any(record.clean_psnr_y is not None for record in records)
    columns = [Column("image"), Column("model"), Column("attack"), BUDGET, *((CLEAN,) if truth else ()), LR_PSNR]
    columns += [SR_PSNR, SSIM, *((ATTACKED,) if truth else ())]
    order = list(dict.fromkeys(record.image for record in records))
    rows = []
    for image in order:
        for number, one in enumerate(record for record in records if record.image == image):
            lr, sr = (math.inf if value is None else value for value in (one.lr_psnr, one.sr_psnr))
            rows.append(
                row(
                    one.image if number == 0 else "",
                    one.model,
                    attack_title(one.attack),
                    budget(level_of(one)),
                    *((one.clean_psnr_y,) if truth else ()),
                    lr,
                    sr,
                    one.sr_ssim,
                    *((one.attacked_psnr_y,) if truth else ()),
                    section=number == 0,
                )
            )
    return Table("", columns, rows)


def board_table(standings: Sequence[Standing], worse: Sequence[str] = ()) -> Table:
    """Return how every model stands, with intervals over images; one of the models in ``worse`` is marked."""
    truth = any(standing.clean is not None for standing in standings)
    several = len({standing.dataset for standing in standings}) > 1
    columns = [Column("model"), SR_PSNR, *((ATTACKED, CLEAN) if truth else ()), IMAGES, Column("attack"), BUDGET]
    level = headline_level(one.level for one in standings) if standings else 0.0
    return Table(
        "Leaderboard",
        [*columns, *([Column("data")] if several else ())],
        [
            row(
                one.model,
                standing_cell(one.sr, one.unmoved, one.images),
                *((one.truth, clean_cell(one.clean, one.model in worse)) if truth else ()),
                one.images,
                attack_words(one.attack),
                budget(one.level),
                *((dataset_words(one.dataset),) if several else ()),
            )
            for one in standings
        ],
        sort="attacked PSNR" if truth else "SR-PSNR",
        choices={
            "attack": attack_words(standings[0].attack),
            "budget": budget(level),
            **({"data": dataset_words(standings[0].dataset)} if several else {}),
        }
        if standings
        else {},
    )


def grid_tables(records: Sequence[AttackRecord], defends: Defends) -> list[Table]:
    """Return tables of many variants, a row a model and a column a budget.

    SR-PSNR under every attack and under the worst on each image, and the attacked output against the truth under the
    last; behind each figure is the difference from the plain model.
    """
    attacks = list(dict.fromkeys(record.attack for record in records))
    pools = [[record for record in records if record.attack == attack] for attack in attacks]
    if len(attacks) > 1:
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
    attacks = [c.attack for c in pairing.comparisons]
    return Table(
        f"{pairing.defended} against {pairing.plain}",
        columns,
        [
            row(
                attack_title(c.attack), budget(c.level), _gained(c.sr), _gained(c.truth), _gained(c.clean),
                share(c.closed), c.sr.interval.n if c.sr is not None else 0, section=c.attack != before,
            )
            for c, before in zip(pairing.comparisons, ["", *attacks], strict=False)
        ],
        caption=f"{pairing.defended} less {pairing.plain}, means of paired differences [95 % bootstrap]; positive is "
        "better",
    )  # fmt: skip


def index_table(indices: Sequence[CleverRecord]) -> Table:
    """Return the mean CLEVER indices by model, a row for each number of draws."""
    groups: dict[tuple[str, int], list[CleverRecord]] = {}
    for index in indices:
        groups.setdefault((index.model, index.draws), []).append(index)
    columns = [
        Column("model"),
        Column("index", digits=0, better="lower", key=True),
        Column("median draw", digits=0),
        Column("climbed", "by sign steps", digits=0),
        Column("draws"),
        IMAGES,
    ]
    return Table(
        "CLEVER",
        columns,
        [
            row(
                model,
                _mean([index.index for index in group]),
                _mean([index.typical for index in group]),
                _mean([index.climbed for index in group]),
                samples,
                len(group),
            )
            for (model, samples), group in groups.items()
        ],
        caption="CLEVER index (eq. 15), means over images: larger is more vulnerable; an estimate from random draws, "
        "no bound",
    )


def feature_table(records: Sequence[AttackRecord]) -> Table:
    """Return the feature layer at the headline budget; no rows for records that lack it."""
    level = headline_level(map(level_of, records)) if records else 0.0
    groups: dict[tuple[str, str], list[AttackRecord]] = {}
    for record in records:
        if level_of(record) == level:
            groups.setdefault((record.model, record.attack), []).append(record)
    columns = [Column("model"), Column("attack")]
    for name, meaning in (("mean", ""), ("spread", "standard deviation"), ("range", "largest less smallest")):
        columns += [Column(f"{end} {name}", meaning=meaning) for end in ("clean", "attacked")]
    return Table(
        "Features",
        [*columns, Column("moved", "% of the spread", digits=0, key=True)],
        [
            row(
                model,
                attack_title(attack),
                _mean([r.phi_mean for r in group]),
                _mean([r.attacked_phi_mean for r in group]),
                _mean([r.phi_std for r in group]),
                _mean([r.attacked_phi_std for r in group]),
                _mean([r.phi_range for r in group]),
                _mean([r.attacked_phi_range for r in group]),
                _mean([100 * r.phi_moved for r in group]),
            )
            for (model, attack), group in groups.items()
        ],
        caption=f"Φ at {level:g}/255, means over images; moved: size of the change over the spread",
    )


def claims_table(parts: Sequence[tuple[str, Sequence[Finding]]]) -> Table:
    """Return published statements, one a row, and what each data set, by its title, says to them."""
    columns = [Column("published"), *(Column(f"here, {title}" if title else "here") for title, _ in parts)]
    rows = [
        row(
            f"{findings[0].claim.says} [{claimed(findings[0].claim)}; {findings[0].claim.where}]",
            *(Cell(one.verdict, note=found(one), tone=_TONES.get(one.kind, "unsure")) for one in findings),
        )
        for findings in zip(*(findings for _, findings in parts), strict=True)
    ]
    return Table("The paper and here", columns, rows)


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


def standing_cell(value: Interval | None, unmoved: int, images: int) -> Cell:
    """Return a mean SR-PSNR with the number of images that are in no mean, because their output did not move."""
    shown: Value = math.inf if value is None and unmoved == images and unmoved else value
    return Cell(shown, note=f"{unmoved} unmoved" if unmoved else "")


def clean_cell(value: float | Interval | None, worse: bool, change: Interval | None = None) -> Cell:
    """Return a clean PSNR, marked where the model upscales worse than bicubic interpolation."""
    worse = worse and value is not None
    return Cell(value, change, "below bicubic" if worse else "", "bad" if worse else "")


def _grid(
    title: str,
    records: Sequence[AttackRecord],
    mean: Callable[[Row], float | None],
    gain: Callable[[Comparison], Gain | None],
    defends: Defends,
) -> Table:
    levels = sorted({level_of(record) for record in records})
    headline, worse = headline_level(levels), worse_than_bicubic(records)
    rows = {(one.model, one.level): one for one in summarize(records)}
    grouped = families(names_of(records), defends)
    plain_of = {name: family.plain for family in grouped for name in family.variants}
    order = [name for family in grouped for name in (family.plain, *family.variants)]

    def place(model: str, level: float) -> Cell:
        own = rows.get((model, level))
        plain = rows.get((plain_of.get(model, ""), level))
        gained = gains[model].get(level)
        found = gain(gained) if gained is not None else None
        if own is None:
            return Cell(None)
        value = mean(own)
        return Cell(value, adding_up(found and found.interval, mean(plain) if plain else None, value))

    gains = {
        model: {c.level: c for c in compare(records, plain_of[model], model)} if model in plain_of else {}
        for model in names_of(records)
    }
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


def _moved(value: float | None, one: Row) -> Cell:
    """Return a figure that is infinite for images whose output did not move; they are counted and in no mean."""
    shown = math.inf if value is None and one.unmoved == one.images else value
    return Cell(shown, note=f"{one.unmoved} unmoved" if one.unmoved else "")


def _gained(value: Gain | None) -> Cell:
    return Cell(None) if value is None else Cell(value.shown(), note=doubt(value.interval))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
