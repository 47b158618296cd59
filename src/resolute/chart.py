"""A chart: what a page draws with plotly, as plain data."""

from __future__ import annotations

import dataclasses

Figure = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One figure of a page.

    Attributes:
        id: of its element.
        title: above it.
        description: what it shows, for those who cannot see it.
        figure: what plotly draws: data and layout.
    """

    id: str
    title: str
    description: str
    figure: Figure
