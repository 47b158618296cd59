"""The curves of attacks on super-resolution models: what is kept against budget and against spent perturbation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from resolute.chart import BICUBIC, GREY, Chart, Figure, axis, curve, layout_of, look_of, plain_text, roomy, rounded
from resolute.figures import Interval
from resolute.studies.summary import Means, attack_title, bicubic_line

# Of SR-PSNR, by model, attack and budget.
Bands = Mapping[tuple[str, str, float], Interval]


def curve_charts(rows: Sequence[Means], bands: Bands, prefix: str = "") -> list[Chart]:
    """Draw SR-PSNR against the budget, its distance from the bicubic line, and SR-PSNR against LR-PSNR.

    One chart an attack (the paper's figures 2, 5a and 5b), with bands around the first two.
    """
    levels = sorted({row.level for row in rows})
    ends = [levels[0] / 1.25, levels[-1] * 1.25]
    names, bounds = [f"{level:g}" for level in levels], [math.log10(end) for end in ends]
    budgets = axis("budget ε, in levels of 255", type="log", tickvals=levels, ticktext=names, range=bounds)
    spent = span(rows, lambda row: row.lr_psnr)
    plots = (
        _Plot(
            f"{prefix}budget", "SR-PSNR against budget", lambda row: row.level, lambda row: row.sr_psnr, budgets,
            "SR-PSNR, dB", _line(ends, [bicubic_line(end) for end in ends]), "%{x}/255: %{y:.2f} dB", bands,
            "How far the output moves",
            "The higher, the more robust. The bicubic line, 20 log10(255/ε), is the SR-PSNR of bicubic interpolation "
            "when the whole input shifts by ε. A click on a name in the legend switches its curve off and on. Bands "
            "are 95 % bootstrap intervals of the means over images.",
        ),
        # The bicubic line is steeper than models differ.
        _Plot(
            f"{prefix}distance", "SR-PSNR above the bicubic line against budget", lambda row: row.level,
            lambda row: None if row.sr_psnr is None else row.sr_psnr - bicubic_line(row.level), budgets,
            "above bicubic line, dB", _line(ends, [0.0, 0.0]), "%{x}/255: %{y:+.2f} dB",
            {key: band.shifted(-bicubic_line(key[2])) for key, band in bands.items()},
            "The same above the bicubic line",
            "Where a curve is below zero, the model amplifies perturbations: its output moves further than bicubic "
            "interpolation does when the whole input shifts by ε.",
        ),
        # A shift of all samples by the whole budget passes bicubic interpolation as it is.
        _Plot(
            f"{prefix}trade-off", "SR-PSNR against LR-PSNR", lambda row: row.lr_psnr, lambda row: row.sr_psnr,
            axis("LR-PSNR of the attacked input, dB", range=spent), "SR-PSNR, dB", _line(spent, spent),
            "%{text}/255: input %{x:.2f} dB, output %{y:.2f} dB", {}, "How much perturbation that takes",
            "One point a budget, the smallest at the right end. To the left the attacked input is farther from the "
            "clean one, to the top the output is nearer to the clean one: the curve of the more robust model lies "
            "further up and left. On the bicubic line the output moves as far as the input.",
        ),
    )  # fmt: skip
    return [chart for plot in plots for chart in plot.charts(rows)]


@dataclasses.dataclass(frozen=True)
class _Plot:
    """Curves of the same kind for every attack."""

    id: str
    what: str
    x: Callable[[Means], float | None]
    y: Callable[[Means], float | None]
    axis: Figure
    y_title: str
    line: Figure
    hover: str
    bands: Bands
    section: str
    text: str

    def charts(self, rows: Sequence[Means]) -> list[Chart]:
        # One range for all attacks, so that charts side by side can be compared by eye.
        bands = self.bands.values()
        low, high = span(rows, self.y)
        ends = [round(min([low, *(b.low for b in bands)]), 2), round(max([high, *(b.high for b in bands)]), 2)]
        layout = roomy(layout_of(self.axis, axis(self.y_title, range=ends)), len({row.model for row in rows}))
        return [
            Chart(
                f"{self.id}-{number}",
                attack_title(attack),
                f"{self.what} under {attack_title(attack)}, one curve a model; the figures are in the tables.",
                {"data": [*self._curves(rows, attack), self.line], "layout": layout},
                section=self.section,
                text=self.text,
            )
            for number, attack in enumerate(dict.fromkeys(row.attack for row in rows))
        ]

    def _curves(self, rows: Sequence[Means], attack: str) -> list[Figure]:
        models = list(dict.fromkeys(row.model for row in rows))
        curves: list[Figure] = []
        for model in models:
            ours = [row for row in rows if (row.model, row.attack) == (model, attack)]
            colour, marker = look_of(model, models)
            curves += self._band(ours, colour)
            if ours:
                x, y = ([rounded(read(row)) for row in ours] for read in (self.x, self.y))
                bicubic = model == BICUBIC
                curves.append(
                    curve(model, x, y, self.hover, "lines+markers")
                    | {"legendgroup": plain_text(model), "text": [f"{row.level:g}" for row in ours]}
                    | {"line": {"color": colour, "width": 2} | ({"dash": "dot"} if bicubic else {})}
                    | {"marker": {"size": 5 if bicubic else 8, "symbol": marker}}
                )
        return curves

    def _band(self, rows: Sequence[Means], colour: str) -> list[Figure]:
        """Return the outline of the intervals around a curve, filled; it comes and goes with the curve."""
        found = [(row.level, band) for row in rows if (band := self.bands.get((row.model, row.attack, row.level)))]
        if len(found) < 2 or all(band.n == 1 for _, band in found):
            return []
        levels = [level for level, _ in found]
        outline = [rounded(b.high) for _, b in found] + [rounded(b.low) for _, b in reversed(found)]
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return [
            curve("", [*levels, *reversed(levels)], outline)
            | {"fill": "toself", "fillcolor": f"rgba({red}, {green}, {blue}, 0.16)"}
            | {"line": {"width": 0, "color": colour}, "legendgroup": plain_text(rows[0].model), "showlegend": False}
        ]


def _line(x: list[float], y: list[float]) -> Figure:
    return curve("bicubic line", x, y) | {"line": {"color": GREY, "width": 1.5, "dash": "dash"}}


def span(rows: Sequence[Means], read: Callable[[Means], float | None]) -> list[float]:
    """Return the ends of an axis that shows all values with some room around them."""
    values = [value for row in rows if (value := read(row)) is not None and math.isfinite(value)]
    if not values:
        return [0.0, 1.0]
    room = 0.06 * (max(values) - min(values)) or 1.0
    return [round(min(values) - room, 2), round(max(values) + room, 2)]
