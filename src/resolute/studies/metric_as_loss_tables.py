"""The tables of a study of metrics as losses: means of every measure, and what each gained or lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from resolute.measure.intervals import mean
from resolute.studies.metric_as_loss_summary import Measure, RestorationRecord, Verdict
from resolute.studies.record import grouped
from resolute.studies.study import count
from resolute.table import Column, Table, row


def means_table(records: Sequence[RestorationRecord]) -> Table:
    """Return the mean of every measure for each restorer, and what a step of its training took."""
    measures = records[0].measures
    images = len({record.image for record in records})
    columns = [Column("restorer", whole=True), *map(_column, measures), Column("training", "s / step", digits=3)]
    rows = [
        row(
            label,
            *(mean(record.values.get(measure.name) for record in own) for measure in measures),
            next((r.training.seconds_per_step for r in own if r.training), None),
        )
        for label, own in grouped(records, lambda record: record.model).items()
    ]
    return Table("", columns, rows, caption=f"Means over {count(images, 'image')}.")


def changes_table(found: Sequence[Verdict], records: Sequence[RestorationRecord]) -> Table:
    """Return what every measure gained or lost against the control, with the verdicts."""
    measures = records[0].measures
    columns = [Column("restorer", whole=True), Column("verdict")]
    columns += [dataclasses.replace(_column(measure), signed=True) for measure in measures]
    rows = [
        row(v.restorer, v.outcome, *({c.measure.name: c.interval for c in v.changes}.get(m.name) for m in measures))
        for v in found
    ]
    control = found[0].control if found else ""
    words = f"Change against {control}: means of paired differences [95 % bootstrap]."
    return Table("", columns, rows, caption=words)


def _column(measure: Measure) -> Column:
    better = "lower" if measure.lower_better else "higher"
    return Column(measure.name, measure.unit, digits=measure.digits, better=better)


def shown(measure: Measure, value: float | None) -> str:
    """Return a figure as text.

    Example:
        >>> shown(Measure("PSNR", "truth"), None)
        '∞'
    """
    # Of the measures only PSNR can be infinite, and it is where the images are equal.
    return _column(measure).text(math.inf if value is None and measure.name == "PSNR" else value)
