"""A chart: what a page draws with plotly, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

Figure = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One figure of a page.

    Attributes:
        id: of its element.
        title: above it.
        description: what it shows, for those who cannot see it.
        figure: what plotly draws: data and layout.
        frames: the same for other choices, such as budgets, of which a reader picks one; the first is ``figure``.
        choice: what is chosen, such as ``Budget``.
        section: heading that it stands under; charts of one section follow one another.
        text: what that section is about.
    """

    id: str
    title: str
    description: str
    figure: Figure
    frames: Mapping[str, Figure] = dataclasses.field(default_factory=dict[str, "Figure"])
    choice: str = ""
    section: str = ""
    text: str = ""
