"""What all studies of quality scores have in common: how they are answered, and what their runs are compared by."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import final

from resolute.certificates.median import DenoisedScorer
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.studies.record import Record
from resolute.studies.results import Measured, Quantity
from resolute.studies.score_attacked import ScoreAttackCell, ScoreAttackRecord, attacked
from resolute.studies.scored import ScoreCell, ScoreRecord, scored, width_of
from resolute.studies.study import Answer, Bench, Cell, Compared, Described, Pictured, Progress, Study, one_by_one


class ScoreStudy(Study, Pictured, Compared, Described, abc.ABC):
    """A study of scores and of attacks on them; ``epsilon`` is the l2 radius of the certificates."""

    epsilon: float

    @final
    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        def answer(cell: Cell, step: Progress) -> Answer:
            if isinstance(cell, ScoreAttackCell):
                return attacked(cell, bench, step)
            assert isinstance(cell, ScoreCell)
            return Answer(scored(cell, bench, step))

        return one_by_one(cells, progress, answer)

    @final
    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity("certified width", lower_better=True, unknown_worst=True), Quantity("score", digits=3)]

    @final
    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, ScoreRecord):
            return None
        setting = {"defence": record.defence, "metric": record.metric}
        return Measured(setting, {"certified width": width_of(record, self.epsilon), "score": record.score})


def behind(bare: Scorer, denoiser: str | Path) -> Scorer:
    """Return the metric behind a denoiser of this name or file, or the metric itself for an empty one.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    return DenoisedScorer(bare, load(denoiser, scale=1)).eval() if denoiser else bare


def parted(records: Sequence[Record]) -> tuple[list[ScoreRecord], list[ScoreAttackRecord]]:
    """Return the records of clean images and those of attacks."""
    scores = [record for record in records if isinstance(record, ScoreRecord)]
    return scores, [record for record in records if isinstance(record, ScoreAttackRecord)]
