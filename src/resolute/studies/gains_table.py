"""The table of what attacks gained on a metric alone and defended, for studies of attacked scores."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.measure.gains import gains_of
from resolute.studies.record import grouped
from resolute.studies.score_attacked import ScoreAttackRecord
from resolute.studies.scored import ScoreRecord
from resolute.table import Column, Row, Table, row

Pairs = Sequence[tuple[ScoreRecord, ScoreAttackRecord]]


def gains_tables(pairs: Pairs) -> list[Table]:
    """Return the table of gains, none where no row has figures."""
    rows: list[Row] = []
    for (name, title), group in grouped(pairs, lambda pair: (_name(pair[0]), pair[1].title)).items():
        # Where defences are compared, the metric alone is one of them.
        if not group[0][0].defence:
            rows += _row(name, title, "alone", [(attack.clean, attack.attacked) for _, attack in group], group)
        rows += _row(name, title, "defended", [(score.score, attack.defended) for score, attack in group], group)
    return [_table(rows)] if rows else []


def _name(score: ScoreRecord) -> str:
    return f"{score.defence} ({score.metric})" if score.defence else score.metric


def _row(
    name: str, title: str, which: str, scores: Sequence[tuple[float | None, float | None]], group: Pairs
) -> list[Row]:
    known = [(before, after) for before, after in scores if before is not None and after is not None]
    try:
        found = gains_of(*zip(*known, strict=True), lower_better=group[0][0].lower_better) if known else None
    except ValueError:  # a single image, or images of one score
        found = None
    if found is None:
        return []
    lost = len(scores) - len(known)
    figures = found.absolute, found.relative, found.r_score, found.wasserstein, found.energy
    return [row(name, title, which, len(known), lost, *figures)]


def _table(rows: Sequence[Row]) -> Table:
    columns = [
        Column("metric"), Column("attack"), Column("score"), Column("images"), Column("not finite"),
        Column("absolute gain", digits=3, signed=True, better="lower"),
        Column("relative gain", "", "gain over the clean score plus 1", 3, signed=True, better="lower"),
        Column("R-score", "", "log10 of how far the score could have moved over how far it did", 3, better="higher"),
        Column("Wasserstein", digits=3, signed=True), Column("energy distance", digits=3, signed=True),
    ]  # fmt: skip
    words = (
        "Scores of the robustness benchmarks: empirical, towards better quality, on the scale on which the worst clean "
        "image of each row has 0 and the best 1; means with Student's 95 % intervals over the images. Wasserstein and "
        "energy distance are of the distributions, with the sign of the mean gain."
    )
    return Table("Gains", columns, rows, caption=words)
