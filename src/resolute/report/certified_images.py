"""Each image of a study of DMS-IQA with its certificates, the widest interval first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from resolute.report.text import figure
from resolute.studies.certified import Row

# A row takes about a kilobyte of the page.
ROW = 1_000


@dataclasses.dataclass(frozen=True)
class Scored:
    """One image under one defence that certifies.

    Attributes:
        width: of the certified interval, in per cent of the metric's range; None where nothing is certified.
        lower: end of the interval.
        words: the interval, or why there is none.
        bar: places on an axis from 0 to 100 of the interval's left end and width, the score and the undefended one.
        mos: the opinion score.
    """

    image: str
    defence: str
    width: float | None
    lower: float | None
    words: str
    bar: tuple[float, float, float, float] | None
    score: float | None
    undefended: float | None
    mos: float


def scored_images(rows: Sequence[Row], room: int) -> tuple[list[Scored], int]:
    """Return the certified images, what is least certain first, and how many found no room in so many bytes."""
    certified = [row for row in rows if row["certified"]]
    ends: dict[str, list[float]] = {}
    for row in certified:
        values = [row[name] for name in ("lower", "upper", "score", "undefended")]
        ends.setdefault(row["metric"], []).extend(value for value in values if value is not None)
    found = [_scored(row, min(ends[row["metric"]]), max(ends[row["metric"]])) for row in certified]
    found.sort(key=lambda scored: float("-inf") if scored.width is None else -scored.width)
    most = max(room // ROW, 0)
    return found[:most], len(found) - len(found[:most])


def _scored(row: Row, low: float, high: float) -> Scored:
    lower, upper, score, undefended = (row[name] for name in ("lower", "upper", "score", "undefended"))

    def place(value: float) -> float:
        return round(100 * (value - low) / ((high - low) or 1.0), 2)

    bar, width = None, None
    if lower is not None and upper is not None and score is not None:
        bar = (place(lower), max(round(place(upper) - place(lower), 2), 0.5), place(score), place(undefended))
        width = 100 * (upper - lower) / row["span"] if row["span"] else None
    words = "abstained" if score is None else f"[{figure(lower, infinite=True)}, {figure(upper, infinite=True)}]"
    return Scored(
        row["image"], row["contender"], width, lower, words, bar, score, undefended, row["mos"]
    )  # fmt: skip
