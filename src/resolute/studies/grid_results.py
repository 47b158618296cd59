"""What attacks on super-resolution models come to: sentences, tables and curves, a part a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from resolute.chart import Chart
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Claim, check, summary_of
from resolute.studies.datasets import dataset_title
from resolute.studies.grid_charts import curve_charts
from resolute.studies.grid_overview import clever_charts, overview_charts
from resolute.studies.grid_tables import (
    board_table,
    comparison_table,
    feature_table,
    grid_tables,
    index_table,
    results_table,
)  # fmt: skip
from resolute.studies.pairs import Defends
from resolute.studies.peers import placed, read_peers
from resolute.studies.published import claims_table
from resolute.studies.record_flags import record_flags_table
from resolute.studies.results import UNFINISHED, Results
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import by_dataset, standings, summarize, worst_case
from resolute.studies.verdicts import is_compact, names_of, pairings, sentences_of, worse_than_bicubic
from resolute.table import Table


def results_of(
    records: Sequence[AttackRecord], indices: Sequence[CleverRecord], defends: Defends, claims: Sequence[Claim]
) -> Results:
    """Return what the records of a grid come to, beside what was published."""
    if not records:
        return Results([UNFINISHED], [])
    groups = by_dataset(records)
    titles = {dataset: dataset_title(dataset) if len(groups) > 1 else "" for dataset in groups}
    taken = {dataset: [index for index in indices if index.dataset == dataset] for dataset in groups}
    findings = {dataset: check(claims, own, taken[dataset]) for dataset, own in groups.items()}
    board = standings(records)
    published = [claims_table([(titles[dataset], findings[dataset]) for dataset in groups])] if claims else []
    tables = [*published, board_table(board, list(worse_than_bicubic(records)))]
    sentences: list[str] = []
    charts: list[Chart] = []
    for number, (dataset, own) in enumerate(groups.items()):
        title = titles[dataset]
        told = [summary_of(findings[dataset])] if claims else []
        told += [*sentences_of(own, defends), *placed(own, read_peers())]
        sentences += [f"{title}: {one}" if title else one for one in told]
        tables += _tables(own, taken[dataset], defends, title)
        prefix = f"set{number}-" if number else ""
        bands = {(s.model, s.attack, s.level): s.sr for s in board if s.sr is not None and s.dataset == dataset}
        drawn = [*overview_charts(own, prefix), *curve_charts(summarize(own), bands, prefix)]
        drawn += clever_charts(taken[dataset], own, prefix)
        charts += [dataclasses.replace(one, section=f"{title}: {one.section}") if title else one for one in drawn]
    tables.append(record_flags_table(records))
    brief = [*published, *(results_table(own, titles[dataset], worst=True) for dataset, own in groups.items())]
    return Results(sentences, [table for table in tables if table.rows], charts, brief=brief)


def _tables(
    records: Sequence[AttackRecord], indices: Sequence[CleverRecord], defends: Defends, title: str
) -> list[Table]:
    where = f", {title}" if title else ""
    if is_compact(names_of(records), defends):
        found = grid_tables(records, defends)
    else:
        found = [comparison_table(pairing) for pairing in pairings(records, defends)]
    found.append(results_table(records, f"All figures{where}"))
    if len({record.attack for record in records}) > 1:
        found.append(results_table(worst_case(records), f"The worst attack on each image{where}"))
    return [*found, index_table(indices), feature_table(records)]
