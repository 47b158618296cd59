"""Write the tables of docs/findings.md again: ``python docs/make_findings.py [--clever RUNS]``.

They come from the records of published networks in docs/leaderboard. RUNS is a folder of folders, each what
``resolute study docs/leaderboard/clever.toml`` found for one network and named by its id; they join clever.parquet.

All figures are means over the images of the standard suite, for the networks that have a rank in the leaderboard.
Intervals are 95 % bootstrap intervals that draw whole families of networks, 2,000 times, seed 0: networks of a family
are no independent evidence. What stands between the marks of a table in the page is replaced, the text is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np
from scipy import stats

from resolute.files import write_atomically
from resolute.leaderboard.compact import Run, read_runs
from resolute.leaderboard.gathering import rows_of
from resolute.leaderboard.network import Network, read_networks
from resolute.leaderboard.ranking import FLOOR, Placed
from resolute.report.reading import read_source
from resolute.studies.attacked import AttackRecord
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import HEADLINE

FOLDER = Path(__file__).parent / "leaderboard"
PAGE = Path(__file__).parent / "findings.md"
ROUNDS = 2000
LEVELS = (1.0, HEADLINE, 8.0)
# Their budget is the headline's; what has other budgets too is the course over budgets.
ATTACKS = ("ifgsm", "FDA on Φ", "FDA on all activations", "apgd", "APGD on the truth", "square")
TITLES = {"ifgsm": "I-FGSM", "apgd": "APGD", "square": "Square", FLOOR: "random signs"}


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A network with a rank: its facts, its row, and its records at the headline's budget by attack and image."""

    id: str
    network: Network
    row: Placed
    records: dict[str, dict[str, AttackRecord]]

    @property
    def kept(self) -> float:
        """PSNR against the truth under the worst attack on each image, dB."""
        kept = self.row.kept()
        assert kept is not None
        return kept

    @property
    def sr(self) -> float:
        """SR-PSNR under the worst attack on each image, dB."""
        return self.left(HEADLINE)

    def left(self, level: float) -> float:
        """SR-PSNR under the worst attack on each image at a budget, dB."""
        figures = self.row.worst(level)
        assert figures is not None
        assert figures.sr_psnr is not None
        return figures.sr_psnr.mean

    def under(self, attack: str) -> float:
        """SR-PSNR under one attack, dB."""
        figures = self.row.under(attack, HEADLINE)
        assert figures is not None
        assert figures.sr_psnr is not None
        return figures.sr_psnr.mean


Rows = Sequence[Ranked]


def main() -> None:
    """Replace every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clever", type=Path, help="folder of runs of the study of CLEVER indices")
    asked = parser.parse_args()
    if asked.clever is not None:
        join(asked.clever, FOLDER / "clever.parquet")
    networks = read_networks(FOLDER / "networks.toml")
    runs = read_runs(FOLDER / "records.parquet")
    ranked = ranked_of(runs, networks)
    tables = {
        "overview": overview(ranked, runs),
        "families": families(ranked),
        "correlates": correlates(ranked),
        "attacks": attacks(ranked),
        "agreement": agreement(ranked),
        "transfer": transfer(ranked, FOLDER / "transfer.parquet"),
        "clever": clever(ranked, FOLDER / "clever.parquet"),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in tables.items():
        marks = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        table = "\n".join(lines)
        text, found = marks.subn(lambda marked, table=table: f"{marked[1]}{table}\n{marked[2]}", text)
        if not found:
            print(f"no marks of the table {name} in {PAGE.name}")
    PAGE.write_text(text, encoding="utf-8")


def ranked_of(runs: dict[str, Run], networks: dict[str, Network]) -> list[Ranked]:
    """Return the networks that have a rank, best first."""
    by_network = {id(network): key for key, network in networks.items()}
    found: list[Ranked] = []
    for row in rows_of(runs, networks):
        if row.rank is None or row.network is None:
            continue
        key = by_network[id(row.network)]
        records: dict[str, dict[str, AttackRecord]] = {}
        for record in runs[key].records:
            if round(record.epsilon * 255, 6) == HEADLINE:
                records.setdefault(record.attack, {})[record.image] = record
        found.append(Ranked(key, row.network, row, records))
    return found


def overview(rows: Rows, runs: dict[str, Run]) -> list[str]:
    """Return what is left of the networks by budget, beside bicubic interpolation."""
    (bicubic,) = rows_of({"bicubic": runs["bicubic"]}, {})
    lines = [
        f"| {len(rows)} networks, dB | no attack | 1/255 | 4/255 | 8/255 |",
        "|---|--:|--:|--:|--:|",
    ]
    kept = {level: [value for one in rows if (value := one.row.kept(level)) is not None] for level in LEVELS}
    clean = [one.row.clean for one in rows]
    for title, pick in (("lowest", min), ("median", statistics.median), ("highest", max)):
        figures = [f"{pick(kept[level]):.2f}" for level in LEVELS]
        lines.append(f"| against the truth, {title} | {pick(clean):.2f} | {' | '.join(figures)} |")
    base = [f"{value:.2f}" for level in LEVELS if (value := bicubic.kept(level)) is not None]
    lines.append(f"| bicubic interpolation | {bicubic.clean:.2f} | {' | '.join(base)} |")
    below = [str(sum(value < (bicubic.kept(level) or 0) for value in kept[level])) for level in LEVELS]
    lines.append(f"| networks below bicubic interpolation | 0 | {' | '.join(below)} |")
    left = [f"{statistics.median(one.left(level) for one in rows):.2f}" for level in LEVELS]
    lines.append(f"| SR-PSNR, median | | {' | '.join(left)} |")
    floor = [
        statistics.median(
            figures.sr_psnr.mean for one in rows if (figures := one.row.under(FLOOR, level)) and figures.sr_psnr
        )
        for level in LEVELS
    ]
    lines.append(f"| SR-PSNR under random signs, median | | {' | '.join(f'{value:.2f}' for value in floor)} |")
    return lines


def families(rows: Rows) -> list[str]:
    """Return medians and ranges by family, most robust first."""
    by_family = grouped_by_family(rows)
    lines = [
        "| family | networks | clean, median | attacked at 4/255: lowest | median | highest |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    order = sorted(by_family.items(), key=lambda one: -statistics.median(row.kept for row in one[1]))
    for family, own in order:
        kept = [row.kept for row in own]
        clean = statistics.median(row.row.clean for row in own)
        spread = " | ".join(f"{pick(kept):.2f}" for pick in (min, statistics.median, max))
        lines.append(f"| {family} | {len(own)} | {clean:.2f} | {spread} |")
    return lines


def correlates(rows: Rows) -> list[str]:
    """Return how facts of networks go with what they keep against the truth at 4/255."""
    lines = ["| with PSNR against the truth at 4/255 | all networks | within families |", "|---|--:|--:|"]
    facts: dict[str, Callable[[Ranked], float]] = {
        "clean PSNR, rank correlation": lambda row: row.row.clean,
        "number of weights, rank correlation": lambda row: math.log(row.network.parameters),
        "year, rank correlation": lambda row: row.network.year,
    }
    for title, fact in facts.items():
        lines.append(
            f"| {title} | {interval(rows, correlation(fact))} | {interval(rows, correlation(fact, within=True))} |"
        )
    flags: dict[str, Callable[[Ranked], bool]] = {
        "normalisation, with minus without, dB": lambda row: row.network.normalises,
        "attention, with minus without, dB": lambda row: row.network.attention,
        "re-parametrisation, with minus without, dB": lambda row: row.network.reparametrised,
    }
    for title, flag in flags.items():
        lines.append(
            f"| {title} | {interval(rows, difference(flag))} | {interval(rows, difference(flag, within=True))} |"
        )
    return lines


def attacks(rows: Rows) -> list[str]:
    """Return how far every attack is from the worst case, and how often it is the worst."""
    images = sorted(rows[0].records["apgd"])
    worst = Counter(
        min(ATTACKS, key=lambda attack, row=row, image=image: decibels(row.records[attack][image]))
        for row in rows
        for image in images
    )
    lines = [
        "| attack at 4/255 | SR-PSNR, median | above the worst case by: least | median | most | the worst on |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for attack in (FLOOR, *ATTACKS):
        gaps = [row.under(attack) - row.sr for row in rows]
        share = "" if attack == FLOOR else f"{100 * worst[attack] / (len(rows) * len(images)):.1f} %"
        spread = " | ".join(f"{pick(gaps):.2f}" for pick in (min, statistics.median, max))
        lines.append(
            f"| {TITLES.get(attack, attack)} | {statistics.median(map(under(attack), rows)):.2f} | {spread} | {share} |"
        )
    return lines


def agreement(rows: Rows) -> list[str]:
    """Return how the orders of networks that several measures give go together."""
    lines = ["| order of the networks by | rank correlation with the leaderboard's |", "|---|--:|"]
    orders: dict[str, Callable[[Ranked], float]] = {
        "SR-PSNR, worst case at 4/255": lambda row: row.sr,
        "PSNR against the truth, worst case at 1/255": lambda row: row.row.kept(1.0) or 0.0,
        "PSNR against the truth, worst case at 8/255": lambda row: row.row.kept(8.0) or 0.0,
        **{f"SR-PSNR under {TITLES.get(attack, attack)} at 4/255": under(attack) for attack in (*ATTACKS, FLOOR)},
    }
    for title, order in orders.items():
        lines.append(f"| {title} | {interval(rows, correlation(order))} |")
    return lines


def transfer(rows: Rows, path: Path) -> list[str]:
    """Return what images found for one network do to others."""
    by_id = {row.id: row for row in rows}
    with duckdb.connect() as connection:
        found = connection.read_parquet(str(path)).fetchall()
    pairs = [
        (by_id[target], by_id[source], sr) for target, source, sr, _ in found if target in by_id and source in by_id
    ]
    seen = {target.id for target, _, _ in pairs}
    own = [sr for target, source, sr in pairs if target is source]
    kin = [sr for target, source, sr in pairs if target is not source and alike(target, source)]
    others = [sr for target, source, sr in pairs if not alike(target, source)]
    floor = [row.under(FLOOR) for row in rows if row.id in seen]
    lines = [
        f"| what {len(seen)} networks are given at 4/255 | pairs | SR-PSNR: lowest | median | highest |",
        "|---|--:|--:|--:|--:|",
    ]
    for title, values in (
        ("what was found for themselves", own),
        ("what was found for others of their family", kin),
        ("what was found for other families", others),
        ("random signs", floor),
    ):
        spread = " | ".join(f"{pick(values):.2f}" for pick in (min, statistics.median, max))
        lines.append(f"| {title} | {len(values)} | {spread} |")
    return lines


def clever(rows: Rows, path: Path) -> list[str]:
    """Return how CLEVER indices order the networks, beside the worst case."""
    with duckdb.connect() as connection:
        found = {id: figures for id, *figures in connection.read_parquet(str(path)).fetchall()}
    own = [row for row in rows if row.id in found]
    lines = [f"| index of {len(own)} networks | rank correlation with the leaderboard's order |", "|---|--:|"]
    for place, title in enumerate(("median over the draws", "CLEVER, the largest of the draws", "climbed to")):
        lines.append(f"| {title} | {interval(own, correlation(lambda row, place=place: found[row.id][place]))} |")
    return lines


def join(folder: Path, path: Path) -> None:
    """Write the means over the images of the indices of networks: typical, largest and climbed."""
    found: dict[str, tuple[float, float, float]] = {}
    if path.is_file():
        with duckdb.connect() as connection:
            found = {id: tuple(figures) for id, *figures in connection.read_parquet(str(path)).fetchall()}
    for study in sorted(folder.glob("*/study.json")):
        own = [one for one in read_source(study.parent).records if isinstance(one, CleverRecord)]
        if own:
            climbed = statistics.fmean(one.climbed or 0.0 for one in own)
            largest = statistics.fmean(one.index for one in own)
            found[study.parent.name] = statistics.fmean(one.typical for one in own), largest, climbed
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE indices (id VARCHAR, typical DOUBLE, largest DOUBLE, climbed DOUBLE)")
        connection.executemany(
            "INSERT INTO indices VALUES (?, ?, ?, ?)", [(id, *row) for id, row in sorted(found.items())]
        )
        rows = connection.sql("SELECT * FROM indices")
        write_atomically(path, lambda target: rows.write_parquet(str(target), compression="zstd"))


def under(attack: str) -> Callable[[Ranked], float]:
    return lambda row: row.under(attack)


def alike(one: Ranked, other: Ranked) -> bool:
    return one.network.family == other.network.family


def grouped_by_family(rows: Rows) -> dict[str, list[Ranked]]:
    found: dict[str, list[Ranked]] = {}
    for row in rows:
        found.setdefault(row.network.family, []).append(row)
    return found


def correlation(fact: Callable[[Ranked], float], *, within: bool = False) -> Callable[[Rows], float]:
    """Return Spearman's correlation of a fact with what is kept; ``within``, of what is above their family's mean."""

    def statistic(rows: Rows) -> float:
        x, y = np.array([fact(row) for row in rows]), np.array([row.kept for row in rows])
        if within:
            x, y = centred(rows, x), centred(rows, y)
        return float(stats.spearmanr(x, y).statistic)

    return statistic


def difference(flag: Callable[[Ranked], bool], *, within: bool = False) -> Callable[[Rows], float]:
    """Return the difference of means between networks with and without something; of what is above their family's."""

    def statistic(rows: Rows) -> float:
        has, y = np.array([flag(row) for row in rows]), np.array([row.kept for row in rows])
        if within:
            # The slope of both sides above the family's mean: families where all are alike say nothing.
            x = centred(rows, has.astype(float))
            return float(x @ centred(rows, y) / (x @ x)) if (x @ x) > 0 else math.nan
        return float(y[has].mean() - y[~has].mean()) if 0 < has.sum() < len(has) else math.nan

    return statistic


def centred(rows: Rows, values: np.ndarray) -> np.ndarray:
    names = np.array([row.network.family for row in rows])
    means = {name: values[names == name].mean() for name in set(names)}
    return values - np.array([means[name] for name in names])


def interval(rows: Rows, statistic: Callable[[Rows], float]) -> str:
    """Return a statistic with its interval over families that are drawn whole."""
    draw = np.random.default_rng(0)
    own = list(grouped_by_family(rows).values())
    values: list[float] = []
    for _ in range(ROUNDS):
        drawn = [row for place in draw.integers(len(own), size=len(own)) for row in own[place]]
        values.append(statistic(drawn))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{statistic(rows):+.2f} [{low:+.2f}, {high:+.2f}]"


def decibels(record: AttackRecord) -> float:
    return math.inf if record.sr_psnr is None else record.sr_psnr


if __name__ == "__main__":
    main()
