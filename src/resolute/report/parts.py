"""What a page says about each data set of a study: sentences, tables and curves of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from resolute.report import tables
from resolute.report.charts import Chart, budget_charts, distance_charts, trade_off_charts
from resolute.report.families import Grid, grids, is_compact, sentences_of
from resolute.report.overview import clever_charts, overview_charts
from resolute.report.source import Evidence
from resolute.report.tables import Block, Pairing
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Claim, Finding, check
from resolute.studies.datasets import dataset_title
from resolute.studies.standings import Standing, standings
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import Row, by_dataset, level_of, summarize, worst_case


@dataclasses.dataclass(frozen=True)
class FeatureRow:
    """Means over images of the feature layer of one model under one attack, clean and attacked."""

    model: str
    attack: str
    level: float
    mean: tuple[float, float]
    std: tuple[float, float]
    range: tuple[float, float]
    moved: float


@dataclasses.dataclass(frozen=True)
class IndexRow:
    """The CLEVER indices of one model, a mean over images."""

    model: str
    images: int
    samples: int
    index: float
    typical: float
    climbed: float


@dataclasses.dataclass(frozen=True)
class Part:
    """One data set.

    Attributes:
        prefix: of the ids of its elements; empty for the first.
        title: of the data set; empty where there is only one.
        images: how many.
        rows: all means.
        blocks, worst: the same as tables, and the worst attack on each image.
        pairings: where few models have a defended version.
        sentences: what to say first.
        grids: where many have; else none.
        findings: what was published beside what is here.
        features, indices: tables; empty where nothing was measured.
        curves: charts, in the order of the page.
        overview: by budget.
        board: how every model stands, with intervals.
    """

    prefix: str
    title: str
    images: int
    rows: list[Row]
    blocks: list[Block]
    worst: list[Block]
    pairings: list[Pairing]
    sentences: list[str]
    grids: list[Grid]
    findings: list[Finding]
    features: list[FeatureRow]
    indices: list[IndexRow]
    budget_charts: list[Chart]
    distance_charts: list[Chart]
    trade_off_charts: list[Chart]
    clever_charts: list[Chart]
    overview: dict[float, list[Chart]]
    board: list[Standing]

    @property
    def charts(self) -> list[Chart]:
        """All curves."""
        return [*self.budget_charts, *self.distance_charts, *self.trade_off_charts, *self.clever_charts]


def parts_of(evidence: Evidence) -> list[Part]:
    """Return one part a data set, in order of appearance."""
    groups = by_dataset(evidence.records)
    studies = [source.study for source in evidence.sources if source.study is not None]
    claims = {claim.says: claim for study in studies for claim in study.expected}
    return [
        _part(
            f"set{number}-" if number else "",
            dataset_title(dataset) if len(groups) > 1 else "",
            records,
            [index for index in evidence.indices if index.dataset == dataset],
            list(claims.values()),
        )
        for number, (dataset, records) in enumerate(groups.items())
    ]


def feature_rows(records: Sequence[AttackRecord]) -> list[FeatureRow]:
    """Return the features at the headline budget; none for records of earlier versions, which lack them."""
    level = tables.headline_level(map(level_of, records))
    groups: dict[tuple[str, str], list[AttackRecord]] = {}
    for record in records:
        if level_of(record) == level:
            groups.setdefault((record.model, record.attack), []).append(record)
    return [
        FeatureRow(
            model,
            attack,
            level,
            (_mean([r.phi_mean for r in group]), _mean([r.attacked_phi_mean for r in group])),
            (_mean([r.phi_std for r in group]), _mean([r.attacked_phi_std for r in group])),
            (_mean([r.phi_range for r in group]), _mean([r.attacked_phi_range for r in group])),
            _mean([r.phi_moved for r in group]),
        )
        for (model, attack), group in groups.items()
    ]


def index_rows(indices: Sequence[CleverRecord]) -> list[IndexRow]:
    """Return the mean indices by model, a row for each number of draws."""
    groups: dict[tuple[str, int], list[CleverRecord]] = {}
    for index in indices:
        groups.setdefault((index.model, index.samples), []).append(index)
    return [
        IndexRow(
            model,
            len(group),
            samples,
            _mean([i.index for i in group]),
            _mean([i.typical for i in group]),
            _mean([i.climbed for i in group]),
        )
        for (model, samples), group in groups.items()
    ]


def _part(
    prefix: str, title: str, records: Sequence[AttackRecord], indices: Sequence[CleverRecord], claims: Sequence[Claim]
) -> Part:
    rows = summarize(records)
    compact = is_compact(list(dict.fromkeys(record.model for record in records)))
    pairings = [] if compact else tables.pairings(records)
    several = len({record.attack for record in records}) > 1
    board = standings(records)
    bands = {(s.model, s.attack, s.level): s.sr for s in board if s.sr is not None}
    return Part(
        prefix=prefix,
        title=title,
        images=len({record.image for record in records}),
        rows=rows,
        blocks=tables.blocks(rows),
        worst=tables.blocks(summarize(worst_case(records))) if several else [],
        pairings=pairings,
        sentences=sentences_of(records) or [tables.most_fragile(records)],
        grids=grids(records) if compact else [],
        findings=check(claims, records, indices),
        features=feature_rows(records),
        indices=index_rows(indices),
        budget_charts=budget_charts(rows, prefix, bands),
        distance_charts=distance_charts(rows, prefix, bands),
        trade_off_charts=trade_off_charts(rows, prefix),
        clever_charts=clever_charts(indices, records, prefix),
        overview=overview_charts(records, prefix),
        board=board,
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")
