"""The charts of certified photographs: intervals, and their width over the radius."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.chart import Chart, Figure, plain_text
from resolute.figures import Interval
from resolute.studies.scored import ScoreRecord, width_of


def intervals_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> list[Chart]:
    """Draw every certified interval with its score, the widest at the top."""
    shown = [
        (Interval(score.score, low, high, 1), names[score.key])
        for score in scores
        if score.score is not None and width_of(score, epsilon) is not None
        for low, high in [score.interval(epsilon) or (None, None)]
        if low is not None and high is not None
    ]
    if not shown:
        return []
    shown.sort(key=lambda one: one[0].high - one[0].low)
    figure: Figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(value.mean, 4) for value, _ in shown],
                "y": [plain_text(name) for _, name in shown],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(value.high - value.mean, 4) for value, _ in shown],
                    "arrayminus": [round(value.mean - value.low, 4) for value, _ in shown],
                },
                "marker": {"size": 8, "color": "#2f86d0"},
                "hovertemplate": "%{y}: %{x:.2f}",
                "showlegend": False,
            }
        ],
        "layout": {
            "height": 120 + 26 * len(shown),
            "margin": {"l": 10, "r": 10, "t": 10, "b": 50},
            "xaxis": {"title": {"text": "score"}},
            "yaxis": {"automargin": True, "type": "category"},
        },
    }
    title = f"Certified intervals, l2 radius {epsilon:g}"
    return [
        Chart(
            "certified-intervals",
            title,
            "The interval of every image with its sampled median, the widest on top.",
            figure,
        )
    ]


def curves_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> list[Chart]:
    """Draw the width of the interval over the radius, one curve an image, as far as it is bounded."""
    data: list[Figure] = []
    for score in scores:
        certificate = score.certificate
        if certificate is None or certificate.abstained:
            continue
        bounds = [bounds for bounds in certificate.curve(score.radii()) if not bounds.vacuous]
        if not bounds:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain_text(names[score.key]),
                "x": [round(one.epsilon, 5) for one in bounds],
                "y": [round(one.width, 5) for one in bounds],
                "hovertemplate": "%{x}: %{y:.3f}",
            }
        )
    line = {"type": "line", "x0": epsilon, "x1": epsilon, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
    layout: Figure = {
        "margin": {"l": 60, "r": 10, "t": 10, "b": 50},
        "xaxis": {"title": {"text": "l2 radius"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "width of the interval"}, "rangemode": "tozero"},
        "shapes": [line],
        "showlegend": len(data) <= 12,
    }
    words = "Width of the certified interval over the radius; each radius holds with the same confidence by itself."
    return [Chart("certified-widths", "Width over the radius", words, {"data": data, "layout": layout})] if data else []
