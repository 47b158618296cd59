"""What the answers of a study come to: sentences, tables, charts and pictures, for whatever shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.chart import Chart
from resolute.table import Table


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What a reader is told.

    Attributes:
        sentences: the verdict first; every clause is computed from the records.
        tables: the main one first.
        charts: in the order of a page.
        alarm: what makes commands exit with an error, such as a certificate that was refuted; empty for nothing.
    """

    sentences: Sequence[str]
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    alarm: str = ""


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
    """

    title: str
    views: Sequence[View]
    facts: Sequence[str] = ()
    filters: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
