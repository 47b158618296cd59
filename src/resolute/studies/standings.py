"""The leaderboard of a study: how every model stands under every attack and budget, with intervals over images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from resolute.measure.intervals import Interval, bootstrap_mean
from resolute.studies.attacked import AttackRecord
from resolute.studies.summary import level_of, worst_case


@dataclasses.dataclass(frozen=True)
class Standing:
    """One model under one attack at one budget, on one data set.

    Attributes:
        images: how many images the figures are over.
        unmoved: images whose output did not change at all; their infinite SR-PSNR is in no mean.
        clean: PSNR of the clean output against the truth, on Y; None without ground truth.
        sr: SR-PSNR.
        truth: PSNR of the attacked output against the truth, on Y.
    """

    dataset: str
    model: str
    attack: str
    level: float
    images: int
    unmoved: int
    clean: Interval | None
    sr: Interval | None
    truth: Interval | None


def standings(records: Sequence[AttackRecord]) -> list[Standing]:
    """Return how every model stands, the worst attack on each image first where there are several attacks.

    Example:
        >>> standings([])
        []
    """
    several = len({record.attack for record in records}) > 1
    groups: dict[tuple[str, str, float, str], list[AttackRecord]] = {}
    for record in (*(_worst(records) if several else ()), *records):
        groups.setdefault((record.dataset, record.attack, level_of(record), record.model), []).append(record)
    return [
        Standing(
            dataset,
            model,
            attack,
            level,
            len(group),
            sum(record.sr_psnr is None for record in group),
            _mean(group, lambda record: record.clean_psnr_y),
            _mean(group, lambda record: record.sr_psnr),
            _mean(group, lambda record: record.attacked_psnr_y),
        )
        for (dataset, attack, level, model), group in groups.items()
    ]


def _worst(records: Sequence[AttackRecord]) -> list[AttackRecord]:
    # Images of two data sets may share a name, so each set is judged by itself.
    sets = dict.fromkeys(record.dataset for record in records)
    return [found for name in sets for found in worst_case([r for r in records if r.dataset == name])]


def _mean(group: Sequence[AttackRecord], read: Callable[[AttackRecord], float | None]) -> Interval | None:
    values = [value for record in group if (value := read(record)) is not None]
    return bootstrap_mean(values) if values else None
