"""Charts: what a page draws with plotly, as plain data, and how all of them look."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence

from resolute.figures import Interval

Figure = dict[str, object]

# The model that others are seen beside.
BICUBIC = "bicubic"

# Of middling lightness, so that they are readable on white as well as on black.
PALETTE = ("#d9622b", "#2f86d0", "#2c9c69", "#ae5fc4", "#b78a00", "#d64f84", "#5a9ea8", "#8f6b4a", "#5560a8")
GREY = "#8b8f96"
# More models than this have their legend below the chart.
MANY = 5
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "pentagon")


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


def plain_text(name: str) -> str:
    """Escape a name for plotly, which takes some tags in texts for markup.

    Example:
        >>> plain_text("<b>bold</b>")
        '&lt;b&gt;bold&lt;/b&gt;'
    """
    return html.escape(name, quote=False)


def look_of(model: str, models: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the marker of a model among others: up to 81 models, no two have both in common.

    Example:
        >>> look_of("b", ["a", "b"])
        ('#2f86d0', 'square')
    """
    if model == BICUBIC:
        return GREY, "circle-open"
    rank = [name for name in models if name != BICUBIC].index(model)
    # Every round through the colours starts at another marker.
    return PALETTE[rank % len(PALETTE)], MARKERS[(rank + rank // len(PALETTE)) % len(MARKERS)]


def curve(name: str, x: Sequence[object], y: Sequence[object], hover: str = "", mode: str = "lines") -> Figure:
    """Return a curve, or points in the mode ``markers``, as plotly draws them; without a text to hover over it is mute.

    Example:
        >>> curve("a<b", [1], [2])["name"]
        'a&lt;b'
    """
    told: Figure = {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    return {"type": "scatter", "mode": mode, **({"name": plain_text(name)} if name else {}), "x": x, "y": y, **told}


def rounded(value: float | None) -> float | None:
    """Return a figure as a page needs it; None where it is none.

    Example:
        >>> rounded(1.23456), rounded(math.inf)
        (1.2346, None)
    """
    return round(value, 4) if value is not None and math.isfinite(value) else None


def error_bars(values: Sequence[Interval]) -> Figure:
    """Return the intervals around points at their means.

    Example:
        >>> error_bars([Interval(1.0, 0.5, 2.0, 9)])["array"]
        [1.0]
    """
    above = [round(max(value.high - value.mean, 0), 4) for value in values]
    below = [round(max(value.mean - value.low, 0), 4) for value in values]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def axis(title: str, **more: object) -> Figure:
    """Return an axis with a title."""
    return {"title": {"text": title}, **more}


def layout_of(x: Figure, y: Figure) -> Figure:
    """Return the layout that all charts share, with these axes."""
    return {
        "xaxis": {"zeroline": False, **x},
        "yaxis": {"zeroline": False, "automargin": True, **y},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 52, "r": 12, "t": 8, "b": 48},
        "height": 340,
        "dragmode": False,
        "hovermode": "closest",
    }


def roomy(layout: Figure, models: int) -> Figure:
    """Return a layout whose legend has room for the models: below the axes and on lines of their own where many."""
    if models <= MANY:
        return layout
    # Two columns on a telephone, more where there is room.
    lines = 20 * math.ceil((models + 1) / 2)
    return layout | {
        "height": 400 + lines,
        "legend": {"orientation": "h", "x": 0, "y": -0.21, "yanchor": "top", "entrywidth": 150, "maxheight": 1},
        "margin": {"l": 52, "r": 12, "t": 8, "b": 60 + lines},
    }
