"""What attacks on super-resolution models come to: sentences, tables and curves, a part a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from resolute.chart import Chart
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Claim, check, summary_of
from resolute.studies.datasets import dataset_title
from resolute.studies.grid_charts import budget_charts, distance_charts, trade_off_charts
from resolute.studies.grid_overview import clever_charts, overview_charts
from resolute.studies.grid_tables import (
    board_table,
    claims_table,
    comparison_table,
    feature_table,
    grid_tables,
    index_table,
    results_table,
)
from resolute.studies.pairs import Defends
from resolute.studies.record_flags import record_flags_table
from resolute.studies.results import UNFINISHED, Results
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import by_dataset, standings, summarize, worst_case
from resolute.studies.verdicts import is_compact, names_of, pairings, sentences_of, worse_than_bicubic
from resolute.table import Table


def results_of(
    records: Sequence[AttackRecord], indices: Sequence[CleverRecord], defends: Defends, claims: Sequence[Claim]
) -> Results:
    """Return what the records of a grid come to.

    Args:
        records: of attacks.
        indices: of CLEVER; none where it was not taken.
        defends: by the name of a defended model, that of the model which it defends.
        claims: what was published.
    """
    if not records:
        return Results([UNFINISHED], [])
    groups = by_dataset(records)
    several = len(groups) > 1
    sentences: list[str] = []
    findings = {
        dataset: check(claims, own, [index for index in indices if index.dataset == dataset])
        for dataset, own in groups.items()
    }
    for dataset, own in groups.items():
        lead = f"{dataset_title(dataset)}: " if several else ""
        told = [summary_of(findings[dataset])] if claims else []
        sentences += [f"{lead}{sentence}" for sentence in (*told, *sentences_of(own, defends))]
    tables: list[Table] = []
    if claims:
        tables.append(claims_table([(dataset_title(name) if several else "", findings[name]) for name in groups]))
    board = standings(records)
    tables.append(board_table(board, list(worse_than_bicubic(records))))
    charts: list[Chart] = []
    brief = tables[: len(tables) - 1]
    for number, (dataset, own) in enumerate(groups.items()):
        title = dataset_title(dataset) if several else ""
        brief.append(results_table(own, title))
        tables += _tables(own, [index for index in indices if index.dataset == dataset], defends, title)
        prefix = f"set{number}-" if number else ""
        rows = summarize(own)
        bands = {(s.model, s.attack, s.level): s.sr for s in board if s.sr is not None and s.dataset == dataset}
        drawn = [
            *overview_charts(own, prefix),
            *budget_charts(rows, prefix, bands),
            *distance_charts(rows, prefix, bands),
            *trade_off_charts(rows, prefix),
            *clever_charts([index for index in indices if index.dataset == dataset], own, prefix),
        ]
        charts += [
            dataclasses.replace(chart, section=f"{title}: {chart.section}") if title else chart for chart in drawn
        ]
    tables.append(record_flags_table(records))
    return Results(sentences, [table for table in tables if table.rows], charts, brief=brief)


def _tables(
    records: Sequence[AttackRecord], indices: Sequence[CleverRecord], defends: Defends, title: str
) -> list[Table]:
    found: list[Table] = []
    if is_compact(names_of(records), defends):
        found += grid_tables(records, defends)
    else:
        found += [comparison_table(pairing) for pairing in pairings(records, defends)]
    found.append(results_table(records, f"All figures{f', {title}' if title else ''}"))
    if len({record.attack for record in records}) > 1:
        found.append(
            results_table(worst_case(records), f"The worst attack on each image{f', {title}' if title else ''}")
        )
    return [*found, index_table(indices), feature_table(records)]
