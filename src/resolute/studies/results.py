"""What the answers of a study come to: sentences, tables, charts and pictures, for whatever shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.chart import Chart
from resolute.table import Table

# What there is to say where no cell that says anything is finished.
UNFINISHED = "Nothing can be said yet: run the study to its end."


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What a reader is told.

    Attributes:
        sentences: the verdict first; every clause is computed from the records.
        tables: the main one first.
        brief: those that a terminal shows; empty for all.
        charts: in the order of a page.
        alarm: what makes commands exit with an error, such as a certificate that was refuted; empty for nothing.
    """

    sentences: Sequence[str]
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    alarm: str = ""
    brief: Sequence[Table] = ()


@final
@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One picture of a case.

    Attributes:
        label: what it shows.
        pixels: ``(3, h, w)`` in [0, 1].
        group: whose it is, such as a model; empty for what all share.
        low: of low resolution, to be enlarged without smoothing.
        note: figures below it.
    """

    label: str
    pixels: Float[Tensor, "3 h w"]
    group: str = ""
    low: bool = False
    note: str = ""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image and what became of it, for the gallery.

    Attributes:
        title: in a line.
        views: pictures of it, to be laid over one another where they are of one size.
        facts: sentences with figures.
        filters: by which a reader chooses cases, such as model, attack and budget.
        pair: places of the two views that are compared first.
        charts: drawn below the pictures.
    """

    title: str
    views: Sequence[View]
    facts: Sequence[str] = ()
    filters: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    pair: tuple[int, int] = (0, -1)
    charts: Sequence[Chart] = ()


@final
@dataclasses.dataclass(frozen=True)
class Missing:
    """A case that cannot be shown, and why: a model or an image is unavailable."""

    why: str


@final
@dataclasses.dataclass(frozen=True)
class Quantity:
    """What two runs of a study can be compared by; the first one of a study decides what counts as worse.

    Attributes:
        name: in tables.
        unit: of the values.
        lower_better: whether less is better.
        digits: after the point.
        unknown_worst: None is the worst there is and keeps no bound: nothing is proven, or a score is not finite.
    """

    name: str
    unit: str = ""
    lower_better: bool = False
    digits: int = 2
    unknown_worst: bool = False


@final
@dataclasses.dataclass(frozen=True)
class Measured:
    """What a record says of its image, for comparisons.

    Attributes:
        setting: all but the image that determines it, such as model, attack and budget.
        values: by the names of the quantities; None where there is nothing to measure, infinity between equal images.
    """

    setting: Mapping[str, str]
    values: Mapping[str, float | None]
